//! Single steps: looking a flow up, inserting one, parsing, deriving a key.

use crate::bench::{Bench, HARNESS_CORE, Result, TESTED_CORE};
use crate::frames::{self, Turns};
use crate::memory;
use crate::report::{Report, Section, Table, grouped};
use crate::samples::Spread;
use pdmgate::crypto::{Aead, SessionInfo, SharedSecret, Suite};
use pdmgate::dpdk;
use pdmgate::flow::{FlowTable, Quiescence, Reader};
use pdmgate::wire::{Common, FiveTuple, pdmv2};
use std::hint::black_box;

/// Steps of one run; look-ups are begun so many before they end, as in a burst.
const BURST: usize = 64;

pub fn run(bench: &Bench, report: &mut Report) -> Result<()> {
    core_affinity::set_for_current(core_affinity::CoreId { id: TESTED_CORE });
    let mut section = Section::new("Single steps");
    section.text.push(
        "Cycles (TSC) each. Look-ups are prefetched a burst of 64 at a time, in an order that is not the one in which flows were made; inserts \
         are one by one, into an empty table whose memory was used before."
            .to_owned(),
    );
    let mut table = Table::new(&["step", "cycles"]);
    for flows in [4_096, 65_536, 1 << 20] {
        let [find, insert] = table_costs(bench, flows)?;
        let flows = grouped(flows as i64);
        table.rows.push(vec![
            format!("look up one of {flows} flows").into(),
            find.into(),
        ]);
        table.rows.push(vec![
            format!("insert until there are {flows} flows").into(),
            insert.into(),
        ]);
    }
    let plain = frames::outgoing(0, 80);
    let marked = frames::incoming(0, 80, &[7; 36]);
    for (name, frame) in [
        ("parse a packet without option", plain),
        ("parse a packet with option", marked),
    ] {
        let cost = repeat(bench, || {
            let frame = black_box(&frame[..]);
            let common = Common::parse(frame, Some(pdmv2::DEFAULT_OPTION_TYPE));
            black_box(common.and_then(|common| common.tuple(frame))).is_some()
        });
        table.rows.push(vec![name.into(), cost.into()]);
    }
    for aead in [Aead::Aes128Gcm, Aead::Aes256Gcm] {
        let suite = Suite {
            aead,
            ..Suite::default()
        };
        let secret = SharedSecret::from_bytes([7; 32]);
        let mut tuple = frames::tuple(0);
        let cost = repeat(bench, || {
            tuple.sport = tuple.sport.wrapping_add(1);
            let info = SessionInfo {
                tuple: &tuple,
                src_generation: 1,
                dst_generation: 1,
                kri: 0,
            };
            black_box(secret.session_key(&suite, &info)).key()[0] == 0
        });
        table.rows.push(vec![
            format!("derive a key for {aead:?}").into(),
            cost.into(),
        ]);
    }
    section.tables.push(table);
    core_affinity::set_for_current(core_affinity::CoreId { id: HARNESS_CORE });
    report.sections.push(section);
    Ok(())
}

/// Cycles of one step, over rounds of many.
fn repeat(bench: &Bench, mut step: impl FnMut() -> bool) -> Spread {
    let steps = if bench.quick { 1_000 } else { 100_000 };
    let rounds = (0..=bench.rounds()).map(|_| {
        let start = dpdk::cycles();
        for _ in 0..steps {
            black_box(step());
        }
        (dpdk::cycles() - start) as f64 / f64::from(steps)
    });
    Spread::of(&rounds.skip(1).collect::<Vec<f64>>())
}

/// Cycles of finding one of `flows` flows, and of making it.
fn table_costs(bench: &Bench, flows: usize) -> Result<[Spread; 2]> {
    let quiescence = Quiescence::new(1);
    let mut reader = quiescence.reader(0).ok_or("no reader")?;
    let (mut finds, mut inserts) = (Vec::new(), Vec::new());
    for _ in 0..bench.rounds() {
        bench.sleep(std::time::Duration::ZERO)?;
        let table = FlowTable::new(flows, [1, 2], false)?;
        let tuples: Vec<(u64, FiveTuple)> = (0..flows)
            .map(|flow| {
                let tuple = frames::tuple(flow);
                (table.hasher().hash(&tuple), tuple)
            })
            .collect();
        // The first time touches the table's memory, and is not timed.
        insert(&table, &tuples, &mut reader)?;
        memory::forget(&table, &mut reader)?;
        inserts.push(insert(&table, &tuples, &mut reader)? as f64 / flows as f64);
        let pin = reader.pin();

        let mut turns = Turns::scattered(flows);
        let bursts = if bench.quick { 64 } else { 4_096 };
        let mut burst = [0; BURST];
        let mut found = 0;
        let start = dpdk::cycles();
        for _ in 0..bursts {
            for place in &mut burst {
                *place = turns.next();
                table.prefetch(tuples[*place].0);
            }
            for place in &burst {
                let (hash, tuple) = &tuples[*place];
                found += usize::from(table.find(*hash, tuple, &pin).is_some());
            }
        }
        finds.push((dpdk::cycles() - start) as f64 / (bursts * BURST) as f64);
        if found != bursts * BURST {
            return Err(format!("{found} of {} flows were found", bursts * BURST).into());
        }
    }
    Ok([Spread::of(&finds), Spread::of(&inserts)])
}

/// Makes all the flows; returns the cycles that it took.
fn insert(table: &FlowTable, tuples: &[(u64, FiveTuple)], reader: &mut Reader<'_>) -> Result<u64> {
    let pin = reader.pin();
    let start = dpdk::cycles();
    for (hash, tuple) in tuples {
        if table.insert(*hash, tuple, 1, start, 0, &pin).is_err() {
            return Err("no room in the table".into());
        }
    }
    Ok(dpdk::cycles() - start)
}
