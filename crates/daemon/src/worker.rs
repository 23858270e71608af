//! The thread that runs brokered rings: the same drivers that clients run, on the broker's own maps.
//!
//! Jobs lie behind a mutex that the worker holds for one round at a time, so that the serving thread can change them between
//! rounds; it says that it wants them, and the worker steps back.

use ringway_core::control::{Asker, Jobs, RegionAudit, Registry};
use ringway_os::event::{Doorbell, Epoll, EventBuf, EventFlags};
use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Rounds without work before the worker sleeps: about as long as a sleep and a wake-up cost.
const IDLE_ROUNDS: u32 = 400;
/// A sleeping worker looks around this often, whatever it was told.
const LOOK_AROUND: Duration = Duration::from_millis(500);

#[derive(Debug)]
struct Shared {
    jobs: Mutex<Jobs>,
    wanted: AtomicBool,
    epoll: Epoll,
    wake: Doorbell,
}

/// The worker; its thread begins with the first brokered ring.
#[derive(Debug)]
pub struct Worker {
    shared: Arc<Shared>,
    /// Bells of guests that are watched now.
    guests: Vec<Arc<Doorbell>>,
    runs: bool,
}

impl Worker {
    /// One that has nothing to do yet.
    pub fn new() -> io::Result<Self> {
        let (epoll, wake) = (Epoll::new()?, Doorbell::new()?);
        epoll.add(&wake, 0, EventFlags::IN | EventFlags::ET)?;
        let shared = Shared { jobs: Mutex::default(), wanted: AtomicBool::new(false), epoll, wake };
        Ok(Worker { shared: Arc::new(shared), guests: vec![], runs: false })
    }

    /// Brings the jobs up to date after a change in the registry.
    pub fn refresh(&mut self, registry: &Registry) {
        let shared = self.shared.clone();
        let jobs = stop(&shared);
        self.go_on(&shared, jobs, registry);
    }

    /// Makes a change that takes rings away, with the worker at rest, and brings the jobs up to date.
    pub fn change(&mut self, registry: &mut Registry, change: impl FnOnce(&mut Registry)) {
        let shared = self.shared.clone();
        let mut jobs = stop(&shared);
        registry.settle_jobs(&mut jobs);
        change(registry);
        self.go_on(&shared, jobs, registry);
    }

    fn go_on(&mut self, shared: &Arc<Shared>, mut jobs: MutexGuard<'_, Jobs>, registry: &Registry) {
        let seized = jobs.seized();
        registry.refresh_jobs(&mut jobs);
        if jobs.seized() > seized {
            tracing::warn!(
                "a process did not let go of its ring within 10 ms (is it stopped?): what it was sending or taking in just then is not seen by monitors"
            );
        }
        for job in &jobs.list {
            // Watched edge-triggered and never read: a client that fills its bell gives one edge more. EEXIST: watched already.
            let _ = shared.epoll.add(job.bell().as_fd(), 0, EventFlags::IN | EventFlags::ET);
        }
        let guests: Vec<_> = registry.guest_bells().cloned().collect();
        for bell in &guests {
            let _ = shared.epoll.add(bell.as_fd(), 0, EventFlags::IN | EventFlags::ET);
        }
        // A guest that left may keep its bell, and ring on.
        for bell in self.guests.iter().filter(|old| !guests.iter().any(|new| Arc::ptr_eq(old, new))) {
            let _ = shared.epoll.remove(bell.as_fd());
        }
        self.guests = guests;
        let any = !jobs.list.is_empty();
        drop(jobs);
        shared.wanted.store(false, Ordering::SeqCst);
        if any && !self.runs {
            let shared = shared.clone();
            let thread = std::thread::Builder::new().name("worker".into()).spawn(move || work(&shared));
            match thread {
                Ok(_) => self.runs = true,
                Err(e) => tracing::error!("cannot start the worker: {e}"),
            }
        }
        shared.wake.ring();
    }

    /// Where all buffers are, with the worker at rest.
    pub fn audit(&self, registry: &Registry, who: Asker) -> Vec<RegionAudit> {
        let shared = &*self.shared;
        shared.wanted.store(true, Ordering::SeqCst);
        let jobs = shared.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        let found = registry.audit(who, Some(&jobs));
        drop(jobs);
        shared.wanted.store(false, Ordering::SeqCst);
        found
    }
}

/// The jobs, with the worker at rest.
fn stop(shared: &Shared) -> MutexGuard<'_, Jobs> {
    shared.wanted.store(true, Ordering::SeqCst);
    shared.jobs.lock().unwrap_or_else(PoisonError::into_inner)
}

fn work(shared: &Shared) {
    let mut events = EventBuf::default();
    let mut idle = 0;
    loop {
        while shared.wanted.load(Ordering::SeqCst) {
            ringway_os::sys::yield_now();
        }
        let mut jobs = shared.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        let mut busy = false;
        for job in jobs.list.iter_mut().filter(|j| j.is_pending()) {
            job.run();
            busy = true;
        }
        idle = if busy { 0 } else { idle + 1 };
        let any = !jobs.list.is_empty();
        let asleep =
            idle >= IDLE_ROUNDS && !jobs.list.iter().fold(false, |posted, j| j.announce_sleep() | posted);
        drop(jobs);
        if asleep || !any {
            let limit = any.then_some(LOOK_AROUND);
            if let Err(e) = shared.epoll.wait(&mut events, limit) {
                tracing::error!("the worker cannot wait: {e}");
                ringway_os::sys::sleep(LOOK_AROUND);
            }
            idle = 0;
        } else if !busy {
            if idle % 16 == 0 { ringway_os::sys::yield_now() } else { std::hint::spin_loop() }
        }
    }
}
