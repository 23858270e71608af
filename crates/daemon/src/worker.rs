//! The thread that runs brokered rings: the same drivers that clients run, on the broker's own maps.
//!
//! Jobs lie behind a mutex that the worker holds for one round at a time, so that the serving thread can change them between
//! rounds; it says that it wants them, and the worker steps back. Pumps of interfaces that are polled belong to threads of their
//! own, see `polling`.

use crate::polling::Pollers;
use ringway_core::control::{Asker, Jobs, LateRings, RegionAudit, Registry};
use ringway_core::pump::Pump;
use ringway_os::event::{Doorbell, Epoll, EventBuf, EventFlags};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Rounds without work before the worker sleeps: about as long as a sleep and a wake-up cost.
const IDLE_ROUNDS: u32 = 400;
/// A sleeping worker looks around this often, whatever it was told.
const LOOK_AROUND: Duration = Duration::from_millis(500);
/// How soon it looks again while an interface has no room, at first.
const STUCK_NAP: Duration = Duration::from_millis(1);
/// Looks in vain before that is left to the next look around.
const STUCK_NAPS: u32 = 50;
/// How soon to look whether a process has handed its ring over: an eighth of the time for which it has not, within these bounds.
const FIRST_LOOK: Duration = Duration::from_millis(1);
const LAST_LOOK: Duration = Duration::from_millis(100);

#[derive(Debug)]
struct Shared {
    jobs: Mutex<Jobs>,
    wanted: Arc<AtomicBool>,
    epoll: Epoll,
    wake: Doorbell,
}

/// The worker; its thread begins with the first brokered ring.
#[derive(Debug)]
pub struct Worker {
    shared: Arc<Shared>,
    pollers: Pollers,
    /// Bells of guests that are watched now.
    guests: Vec<Arc<Doorbell>>,
    /// Sockets of interfaces that are watched now.
    devices: Vec<Arc<OwnedFd>>,
    runs: bool,
    /// Rings that processes have not handed over yet.
    late: LateRings,
    /// Since when there are any.
    late_since: Instant,
}

impl Worker {
    /// One that has nothing to do yet.
    pub fn new() -> io::Result<Self> {
        let (epoll, wake) = (Epoll::new()?, Doorbell::new()?);
        epoll.add(&wake, 0, EventFlags::IN | EventFlags::ET)?;
        let wanted = Arc::<AtomicBool>::default();
        let pollers = Pollers::new(wanted.clone());
        let shared = Shared { jobs: Mutex::default(), wanted, epoll, wake };
        let (late, late_since) = (LateRings::default(), Instant::now());
        let shared = Arc::new(shared);
        Ok(Worker { shared, pollers, guests: vec![], devices: vec![], runs: false, late, late_since })
    }

    /// Brings the jobs up to date after a change in the registry.
    pub fn refresh(&mut self, registry: &Registry) {
        let shared = self.shared.clone();
        let jobs = self.stop(&shared);
        self.go_on(&shared, jobs, registry);
    }

    /// Makes a change that takes rings away, with the worker at rest, and brings the jobs up to date.
    pub fn change<T>(&mut self, registry: &mut Registry, change: impl FnOnce(&mut Registry) -> T) -> T {
        let shared = self.shared.clone();
        let mut jobs = self.stop(&shared);
        registry.settle_jobs(&mut jobs);
        let done = change(registry);
        self.go_on(&shared, jobs, registry);
        done
    }

    /// The jobs, with the worker and all polling threads at rest.
    fn stop<'s>(&mut self, shared: &'s Shared) -> MutexGuard<'s, Jobs> {
        shared.wanted.store(true, Ordering::SeqCst);
        let mut jobs = shared.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        jobs.pumps.extend(self.pollers.take_back());
        jobs
    }

    fn go_on(&mut self, shared: &Arc<Shared>, mut jobs: MutexGuard<'_, Jobs>, registry: &Registry) {
        registry.refresh_jobs(&mut jobs);
        let late = jobs.late();
        if self.late.is_empty() && !late.is_empty() {
            tracing::warn!(
                "a process did not let go of its ring within 10 ms (is it stopped?): the ring changes hands when it goes on, and monitors may see nothing of it before"
            );
            self.late_since = Instant::now();
        }
        self.late = late;
        let (polled, own): (Vec<Pump>, Vec<Pump>) =
            std::mem::take(&mut jobs.pumps).into_iter().partition(|p| p.cpu().is_some());
        jobs.pumps = own;
        self.watch(shared, &jobs, registry);
        let any = !jobs.is_empty();
        drop(jobs);
        self.pollers.give(polled);
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

    /// Watches what wakes the worker, edge-triggered: nothing of it is ever read. EEXIST: it is watched already.
    fn watch(&mut self, shared: &Shared, jobs: &Jobs, registry: &Registry) {
        let add = |fd: BorrowedFd<'_>| {
            let _ = shared.epoll.add(fd, 0, EventFlags::IN | EventFlags::ET);
        };
        // A client that fills its bell gives one edge more.
        jobs.list.iter().for_each(|job| add(job.bell().as_fd()));
        jobs.pumps.iter().for_each(|pump| add(pump.bell().as_fd()));
        let guests: Vec<_> = registry.guest_bells().cloned().collect();
        guests.iter().for_each(|bell| add(bell.as_fd()));
        // A guest that left may keep its bell, and ring on.
        for bell in self.guests.iter().filter(|old| !guests.iter().any(|new| Arc::ptr_eq(old, new))) {
            let _ = shared.epoll.remove(bell.as_fd());
        }
        self.guests = guests;
        // An interface that nobody monitors any more has frames all the same.
        let of_jobs = jobs.list.iter().filter_map(|j| j.device());
        let mut devices: Vec<Arc<OwnedFd>> = vec![];
        for socket in of_jobs.chain(jobs.pumps.iter().filter_map(Pump::device)) {
            if !devices.iter().any(|d| Arc::ptr_eq(d, socket)) {
                devices.push(socket.clone());
            }
        }
        for old in self.devices.iter().filter(|old| !devices.iter().any(|new| Arc::ptr_eq(old, new))) {
            let _ = shared.epoll.remove(old.as_fd());
        }
        devices.iter().for_each(|socket| add(socket.as_fd()));
        self.devices = devices;
    }

    /// How soon to look for rings that processes have not handed over yet; None if there are none.
    pub fn next_look(&self) -> Option<Duration> {
        let since = self.late_since.elapsed();
        (!self.late.is_empty()).then(|| (since / 8).clamp(FIRST_LOOK, LAST_LOOK))
    }

    /// Takes over what has been handed over meanwhile.
    pub fn look(&mut self, registry: &Registry) {
        if self.late.have_some_come() {
            self.refresh(registry);
        }
    }

    /// Where all buffers are, with the worker at rest.
    pub fn audit(&mut self, registry: &Registry, who: Asker) -> Vec<RegionAudit> {
        let shared = self.shared.clone();
        let jobs = self.stop(&shared);
        let found = registry.audit(who, Some(&jobs));
        self.go_on(&shared, jobs, registry);
        found
    }
}

fn work(shared: &Shared) {
    let mut events = EventBuf::default();
    let (mut idle, mut naps) = (0, 0);
    loop {
        while shared.wanted.load(Ordering::SeqCst) {
            ringway_os::sys::yield_now();
        }
        let mut jobs = shared.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        let busy = jobs.run();
        idle = if busy { 0 } else { idle + 1 };
        naps = if busy { 0 } else { naps };
        let any = !jobs.is_empty();
        let asleep = idle >= IDLE_ROUNDS && !jobs.announce_sleep();
        let stuck = asleep && jobs.pumps.iter().any(Pump::is_stuck);
        drop(jobs);
        if asleep || !any {
            naps += u32::from(stuck);
            let limit = if stuck && naps <= STUCK_NAPS { STUCK_NAP } else { LOOK_AROUND };
            if let Err(e) = shared.epoll.wait(&mut events, any.then_some(limit)) {
                tracing::error!("the worker cannot wait: {e}");
                ringway_os::sys::sleep(LOOK_AROUND);
            }
            idle = 0;
        } else if !busy {
            if idle % 16 == 0 { ringway_os::sys::yield_now() } else { std::hint::spin_loop() }
        }
    }
}
