//! Workers, queues and ports on a device that is always full and always empty.

mod dpdk_support;

use std::sync::mpsc;

use dpdk_support::{open, port_config, start};
use pdmgate::dpdk::{Burst, Calibration, LaunchError, Port, free};
use pdmgate::wire::PacketBuf;

#[test]
fn workers_carry_packets_between_ports() {
    let (eal, pool) = start(2, 4096);
    let (told, counted) = (eal.tsc_hz(), Calibration::begin().hz());
    assert!(
        told.abs_diff(counted) < counted / 20_000,
        "{told} and {counted} Hz"
    );
    assert!(!eal.has_hugepages());
    assert_eq!(eal.workers(), 2);

    let a = Port::open(&eal, &port_config("net_null0,size=80", 2), &pool).unwrap();
    let b = Port::open(&eal, &port_config("net_null1,size=80", 2), &pool).unwrap();
    assert_eq!(a.port.driver(), "net_null");
    assert!(a.port.link().unwrap().up);

    let (report, reports) = mpsc::channel();
    let queues = a.rx.into_iter().zip(b.tx);
    let workers: Vec<_> = queues
        .enumerate()
        .map(|(worker, (mut rx, mut tx))| {
            let report = report.clone();
            let work = move || {
                let mut burst = Burst::new();
                let mut carried = 0;
                for _ in 0..1000 {
                    rx.burst(&mut burst);
                    assert!(
                        burst
                            .iter()
                            .all(|p| p.is_contiguous() && p.data().len() == 80)
                    );
                    carried += tx.burst(&mut burst);
                    free(&mut burst);
                }
                report.send(carried).unwrap();
            };
            eal.launch(worker, work).unwrap()
        })
        .collect();
    for worker in &workers {
        worker.wait();
        assert!(worker.is_done());
    }
    assert_eq!(reports.iter().take(2).sum::<usize>(), 2 * 1000 * 64);
    assert_eq!(pool.available(), pool.capacity(), "every packet came back");

    assert_eq!(a.port.stats().unwrap().ipackets, 128_000);
    assert_eq!(b.port.stats().unwrap().opackets, 128_000);

    // A worker that is done takes new work; one that is not does not.
    let (release, hold) = mpsc::channel::<()>();
    let busy = eal
        .launch(0, move || hold.recv().unwrap_or_default())
        .unwrap();
    assert!(!busy.is_done());
    assert_eq!(
        eal.launch(0, || ()).unwrap_err(),
        LaunchError::Busy { worker: 0 }
    );
    drop(release);
    busy.wait();
    assert_eq!(
        eal.launch(2, || ()).unwrap_err(),
        LaunchError::NoSuchWorker {
            worker: 2,
            workers: 2
        }
    );

    // A packet is valid for as long as it is kept, by whichever thread.
    let mut one = open(&eal, &pool, "net_null2,size=64");
    let mut burst = Burst::new();
    assert_eq!(one.rx[0].burst(&mut burst), 64);
    drop(one);
    drop(eal);
    let kept = std::thread::spawn(move || burst.iter().map(|p| p.data().len()).sum::<usize>());
    assert_eq!(kept.join().unwrap(), 64 * 64);
    assert_eq!(pool.available(), pool.capacity());
}
