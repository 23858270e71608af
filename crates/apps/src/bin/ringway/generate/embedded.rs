//! Both halves and the engine in one thread of this process.

use super::receiver::Got;
use super::report::{Final, Summary};
use super::sender::{Sender, fits};
use super::{GenArgs, interruptible};
use crate::Failure;
use ringway::Netmap;
use ringway_os::sys::{monotonic_nanos, process_cpu_nanos};
use std::sync::atomic::Ordering::Relaxed;

/// Sends and receives in turns until the time is over.
pub fn run(args: &GenArgs) -> Result<Summary, Failure> {
    if args.threads > 1 || args.rate.is_some() {
        return Err(Failure::new("--embedded runs one thread as fast as it can: no --threads, no --rate"));
    }
    let netmap = Netmap::embedded();
    let open = |name| netmap.builder(name).slots(args.slots).open();
    let (mut a, mut b) = (open(&args.a)?, open(&args.b)?);
    fits(&args.frames()?, &mut a)?;
    let interrupted = interruptible()?;
    let (mut sender, mut got) = (Sender::new(args)?, Got::new(args)?);
    let (cpu, wall) = (process_cpu_nanos(), monotonic_nanos());
    let end = wall + (args.duration * 1e9) as u64;
    let mut sent = 0u64;
    let mut rounds = 0u32;
    while !rounds.is_multiple_of(64) || (monotonic_nanos() < end && !interrupted.load(Relaxed)) {
        rounds = rounds.wrapping_add(1);
        let mut tx = a.tx(0);
        sent += u64::from(sender.fill(&mut tx, args.batch));
        tx.sync()?;
        drop(tx);
        for i in 0..b.rx_rings() {
            let mut rx = b.rx(i);
            rx.sync()?;
            got.take(&mut rx);
        }
    }
    for i in 0..b.rx_rings() {
        let mut rx = b.rx(i);
        rx.sync()?;
        got.take(&mut rx);
    }
    let (cpu_ns, wall_ns) = (process_cpu_nanos() - cpu, monotonic_nanos() - wall);
    let tx = a.counters().tx;
    let drops = tx.drops_by_name().map(|(n, v)| (n.to_owned(), v)).collect();
    // One thread did both: half of its time is said for each.
    let sent = Final {
        packets: sent,
        bytes: tx.bytes,
        cpu_ns: cpu_ns / 2,
        wall_ns,
        syncs: tx.syncs,
        drops,
        path: a.nic_path().map(str::to_owned),
        ..Final::default()
    };
    let received = Final {
        packets: got.packets,
        bytes: got.bytes,
        cpu_ns: cpu_ns / 2,
        wall_ns,
        latency_ns: Got::percentiles(&[got])?,
        path: b.nic_path().map(str::to_owned),
        ..Final::default()
    };
    Ok(Summary::new(args, &sent, &received))
}
