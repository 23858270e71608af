//! What both children do: open their ports, work in threads until told to stop, and say how far they are.

use super::report::Message;
use super::{GenArgs, TICK};
use crate::{Failure, no_thread};
use ringway::{Netmap, Port, SyncError};
use std::io::Read;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::ScopedJoinHandle;

/// Opens ring `i` of a port that has one for each thread.
pub fn open(netmap: &Netmap, name: &str, i: u16, args: &GenArgs) -> Result<Port, Failure> {
    let n = args.threads;
    let builder = netmap.builder(name).slots(args.slots);
    let builder = if n > 1 { builder.rings(n).ring(i) } else { builder };
    Ok(builder.open()?)
}

/// Sets `stop` when the parent closes our standard input, or is gone.
pub fn stop_with_parent(stop: &'static AtomicBool) -> Result<(), Failure> {
    let thread = std::thread::Builder::new().spawn(move || {
        let _ = std::io::stdin().read(&mut [0; 1]);
        stop.store(true, Relaxed);
    });
    thread.map(drop).map_err(|e| no_thread(&e))
}

/// What a thread works on: its port, what it keeps, and the packets that it has counted.
pub type Part<T> = (Port, T, AtomicU64);

/// Runs `work` on each part in a thread of its own, and tells the parent how many packets there are, until `stop`: also one that
/// ends sets it. `name`: of the port.
pub fn in_threads<T: Send, R: Send>(
    parts: &mut [Part<T>],
    name: &str,
    stop: &AtomicBool,
    work: impl Fn(&mut T, &mut Port, &AtomicBool, &AtomicU64) -> Result<R, SyncError> + Sync,
) -> Result<Vec<R>, Failure> {
    let work = &work;
    std::thread::scope(|scope| {
        let mut threads = vec![];
        let mut counts = vec![];
        for (port, state, count) in parts {
            let count: &AtomicU64 = count;
            counts.push(count);
            let thread = std::thread::Builder::new().spawn_scoped(scope, move || {
                let result = work(state, port, stop, count);
                stop.store(true, Relaxed);
                result
            });
            // The threads that run end before the scope does.
            threads.push(thread.inspect_err(|_| stop.store(true, Relaxed)).map_err(|e| no_thread(&e))?);
        }
        while !stop.load(Relaxed) {
            std::thread::park_timeout(TICK);
            let packets = counts.iter().map(|c| c.load(Relaxed)).sum();
            Message::Progress { packets }.say();
        }
        let of = |thread: ScopedJoinHandle<'_, Result<R, SyncError>>| {
            let result = thread.join().map_err(|_| Failure::new(format!("{name}: a thread panicked")))?;
            result.map_err(|e| Failure::new(format!("{name}: {e}")))
        };
        threads.into_iter().map(of).collect()
    })
}
