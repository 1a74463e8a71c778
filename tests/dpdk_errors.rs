//! What goes wrong at the start is told, with what to do about it.

mod dpdk_support;

use dpdk_support::{open, pool_config, port_config, start, try_open};
use pdmgate::dpdk::{
    Cores, Eal, EalConfig, EalError, Hugepages, Pool, PoolConfig, PoolError, Port, PortError,
};

#[test]
fn errors_say_what_to_do() {
    let (eal, pool) = start(1, 1023);

    let again = Eal::init(&EalConfig {
        cores: Cores::choose(1, None, None),
        hugepages: Hugepages::Off,
        pool: pool_config(1023),
        devices: Vec::new(),
        extra_args: Vec::new(),
    });
    assert_eq!(again.unwrap_err(), EalError::Again);

    let huge = PoolConfig {
        mbufs: 10_000_000,
        ..pool_config(0)
    };
    let error = Pool::create(&eal, &huge).unwrap_err();
    assert!(error.to_string().contains("fewer mbufs"), "{error}");
    let large = PoolConfig {
        size: u16::MAX,
        ..pool_config(1023)
    };
    let error = Pool::create(&eal, &large).unwrap_err();
    assert_eq!(error, PoolError::Size { size: u16::MAX });

    let error = try_open(&eal, &pool, "ffff:ff:1f.7").unwrap_err();
    assert!(error.to_string().contains("no such PCI device"), "{error}");
    let error = try_open(&eal, &pool, "eth0").unwrap_err();
    assert!(error.to_string().contains("net_af_packet0"), "{error}");
    let error = try_open(&eal, &pool, "net_pcap7,rx_pcap=/nonexistent").unwrap_err();
    assert!(matches!(error, PortError::NotFound { .. }), "{error}");
    let error = try_open(&eal, &pool, "net_af_packet0,iface=nosuch0").unwrap_err();
    assert!(
        error.to_string().contains("interface must exist"),
        "{error}"
    );

    let error = Port::open(&eal, &port_config("net_ring1", 100), &pool).unwrap_err();
    assert!(
        matches!(error, PortError::Queues { wanted: 100, .. }),
        "{error}"
    );
    let error = Port::open(&eal, &port_config("net_null7", 0), &pool).unwrap_err();
    assert!(matches!(error, PortError::Queues { wanted: 0, .. }));

    // None of which keeps a good port from opening: once.
    let good = open(&eal, &pool, "net_null0");
    let error = try_open(&eal, &pool, "net_null0").unwrap_err();
    assert!(matches!(error, PortError::InUse { .. }), "{error}");
    drop(good);
    let error = try_open(&eal, &pool, "net_null0").unwrap_err();
    assert!(matches!(error, PortError::NotFound { .. }), "{error}");
}
