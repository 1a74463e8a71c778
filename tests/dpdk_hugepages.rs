//! On hugepages where the machine has them free, without where it has not: both carry packets.

mod dpdk_support;

use dpdk_support::{open, pool_config};
use pdmgate::dpdk::{Burst, Cores, Eal, EalConfig, EalError, Hugepages, Pool};

#[test]
fn hugepages_are_used_where_there_are_any() {
    let mut config = EalConfig {
        cores: Cores::choose(1, None, None),
        hugepages: Hugepages::Require,
        pool: pool_config(1023),
        devices: Vec::new(),
        extra_args: Vec::new(),
    };
    let (eal, required) = match Eal::init(&config) {
        Err(EalError::Hugepages { needed_mb, free_mb }) => {
            println!("{needed_mb} MB of hugepages needed, {free_mb} MB free: testing without");
            config.hugepages = Hugepages::Auto;
            (Eal::init(&config).unwrap(), false)
        }
        started => (started.unwrap(), true),
    };
    assert_eq!(eal.has_hugepages(), required);

    let pool = Pool::create(&eal, &config.pool).unwrap();
    let mut port = open(&eal, &pool, "net_null0");
    let mut burst = Burst::new();
    assert_eq!(port.rx[0].burst(&mut burst), 64);
    assert_eq!(port.tx[0].burst(&mut burst), 64);
}
