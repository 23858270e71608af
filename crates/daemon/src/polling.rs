//! Polling: a thread for each processor that a request names, which looks after rings of interfaces without ever sleeping.
//!
//! Source: semantics.md 20.

use crate::server::Server;
use ringway_abi::{Errno, nmreq_vale_polling};
use ringway_core::control::{Asker, ControlError};
use ringway_core::pump::Pump;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

/// Rounds without work between two looks whether somebody else wants the processor.
const ROUNDS_PER_YIELD: u32 = 64;

#[derive(Debug, Default)]
struct Shared {
    pumps: Mutex<Vec<Pump>>,
    end: AtomicBool,
}

/// One polling thread.
#[derive(Debug)]
struct Poller {
    cpu: u32,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Poller {
    fn drop(&mut self) {
        self.shared.end.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The polling threads.
#[derive(Debug)]
pub struct Pollers {
    /// The serving thread wants the pumps: step back.
    wanted: Arc<AtomicBool>,
    list: Vec<Poller>,
}

impl Pollers {
    /// None.
    pub fn new(wanted: Arc<AtomicBool>) -> Self {
        Pollers { wanted, list: vec![] }
    }

    /// Takes all pumps from the threads, which go on without. `wanted` is set.
    pub fn take_back(&mut self) -> Vec<Pump> {
        let take =
            |p: &Poller| std::mem::take(&mut *p.shared.pumps.lock().unwrap_or_else(PoisonError::into_inner));
        self.list.iter().flat_map(take).collect()
    }

    /// Gives pumps to the threads of their processors. Threads begin with their first pump, and end when they have none.
    pub fn give(&mut self, pumps: Vec<Pump>) {
        let wanted = self.wanted.clone();
        for pump in pumps {
            let Some(cpu) = pump.cpu() else { continue };
            let found = self.list.iter().position(|p| p.cpu == cpu);
            let i = found.unwrap_or_else(|| {
                self.list.push(start(cpu, wanted.clone()));
                self.list.len() - 1
            });
            self.list[i].shared.pumps.lock().unwrap_or_else(PoisonError::into_inner).push(pump);
        }
        let is_empty = |p: &Poller| p.shared.pumps.lock().unwrap_or_else(PoisonError::into_inner).is_empty();
        // They look at `end` also while they step back.
        self.list.retain(|p| !is_empty(p));
    }
}

fn start(cpu: u32, wanted: Arc<AtomicBool>) -> Poller {
    let shared = Arc::<Shared>::default();
    let theirs = shared.clone();
    let thread = std::thread::Builder::new().name(format!("poller {cpu}"));
    let thread = thread.spawn(move || {
        if let Err(e) = ringway_os::sys::pin_to_cpu(cpu as usize) {
            tracing::warn!("a polling thread runs anywhere, not on processor {cpu}: {e}");
        }
        poll(&theirs, &wanted);
    });
    if let Err(e) = &thread {
        tracing::error!("cannot start a polling thread: {e}");
    }
    Poller { cpu, shared, thread: thread.ok() }
}

fn poll(shared: &Shared, wanted: &AtomicBool) {
    let mut idle = 0u32;
    while !shared.end.load(Ordering::SeqCst) {
        if wanted.load(Ordering::SeqCst) {
            ringway_os::sys::yield_now();
            continue;
        }
        let mut pumps = shared.pumps.lock().unwrap_or_else(PoisonError::into_inner);
        let busy = pumps.iter_mut().fold(false, |busy, pump| pump.run() | busy);
        drop(pumps);
        idle = if busy { 0 } else { idle.wrapping_add(1) };
        if !busy {
            if idle.is_multiple_of(ROUNDS_PER_YIELD) {
                ringway_os::sys::yield_now();
            } else {
                std::hint::spin_loop();
            }
        }
    }
}

impl Server {
    /// VALE_POLLING_ENABLE.
    pub(crate) fn start_polling(
        &mut self,
        who: Asker,
        name: &str,
        body: &nmreq_vale_polling,
    ) -> Result<(), ControlError> {
        let cpus = ringway_os::sys::online_cpus();
        self.registry.vale_polling_enable(who, name, body, cpus)?;
        let first = body.nr_first_cpu_id;
        let barred =
            (first..first + body.nr_num_polling_cpus).find(|cpu| !ringway_os::sys::may_run_on(*cpu as usize));
        if let Some(cpu) = barred {
            self.registry.vale_polling_disable(who, name)?;
            let text = format!("{name}: the broker may not run on processor {cpu}");
            return Err(ControlError::new(Errno::EINVAL, text));
        }
        self.worker.refresh(&self.registry);
        Ok(())
    }

    /// VALE_POLLING_DISABLE.
    pub(crate) fn stop_polling(&mut self, who: Asker, name: &str) -> Result<(), ControlError> {
        self.registry.vale_polling_disable(who, name)?;
        self.worker.refresh(&self.registry);
        Ok(())
    }
}
