//! A registry with the worker of a broker, and bound ports whose traffic the test plays, direct or brokered.

use super::*;
use crate::adapter::{RingDriver, SyncError, SyncFlags};
use crate::kring::{Kring, RingHandle, SyncOutcome, forward, next};
use crate::layout::Dir;
use crate::lease::{EndRing, Endpoint, PeerGrant, PeerSource};
use ringway_abi::ring::NS_MOREFRAG;
use ringway_os::ring::SlotWord;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::{Mutex, MutexGuard};
use std::thread::JoinHandle;

/// The first number of an attachment that is not the broker's.
const FIRST_ATTACHMENT: u32 = 100;

#[derive(Default)]
struct Shared {
    jobs: Mutex<Jobs>,
    stop: AtomicBool,
}

/// The broker's side.
pub struct World {
    pub registry: Arc<Mutex<Registry>>,
    shared: Arc<Shared>,
    worker: Option<JoinHandle<()>>,
    next_attachment: u32,
}

impl World {
    /// A registry with a public switch `vale0`.
    pub fn new() -> Self {
        let mut registry = registry();
        registry.public_switches = vec!["vale0".into()];
        let shared = Arc::new(Shared::default());
        let registry = Arc::new(Mutex::new(registry));
        let (theirs, of_server) = (shared.clone(), registry.clone());
        let worker = std::thread::spawn(move || {
            while !theirs.stop.load(Relaxed) {
                let mut jobs = theirs.jobs.lock().unwrap();
                jobs.run();
                if jobs.late().have_some_come()
                    && let Ok(registry) = of_server.try_lock()
                {
                    registry.refresh_jobs(&mut jobs);
                }
                drop(jobs);
                ringway_os::sys::yield_now();
            }
        });
        World { registry, shared, worker: Some(worker), next_attachment: FIRST_ATTACHMENT }
    }

    pub fn registry(&self) -> MutexGuard<'_, Registry> {
        self.registry.lock().unwrap()
    }

    /// After each change: what the broker's session does.
    pub fn refresh(&self) {
        let mut jobs = self.shared.jobs.lock().unwrap();
        self.registry().refresh_jobs(&mut jobs);
    }

    /// A change that may take rings away.
    pub fn change<T>(&self, change: impl FnOnce(&mut Registry) -> T) -> T {
        let mut jobs = self.shared.jobs.lock().unwrap();
        let mut registry = self.registry();
        registry.settle_jobs(&mut jobs);
        let done = change(&mut registry);
        registry.refresh_jobs(&mut jobs);
        done
    }

    /// Where the buffers of the regions that the asker may see are.
    pub fn audit(&self, who: Asker) -> Vec<RegionAudit> {
        let jobs = self.shared.jobs.lock().unwrap();
        self.registry().audit(who, Some(&jobs))
    }

    /// Binds all rings of a port.
    pub fn open(&mut self, who: Asker, name: &str, req: &nmreq_register) -> End {
        self.open_with(who, name, req, &mut [])
    }

    /// The same, with options.
    pub fn open_with(
        &mut self,
        who: Asker,
        name: &str,
        req: &nmreq_register,
        options: &mut [ReqOption],
    ) -> End {
        let id = self.registry().register_with(who, name, req, options);
        let id = id.unwrap_or_else(|e| panic!("{name}: {e}"));
        self.refresh();
        let grant = self.registry().grant(id).expect("just bound");
        self.next_attachment += 1;
        let endpoint = Endpoint::new(grant, self.next_attachment).expect("a good grant");
        End { endpoint, id, source: Source(self.registry.clone(), id) }
    }

    /// True if nobody has a ring any more that is to be the broker's.
    pub fn has_all(&self) -> bool {
        self.shared.jobs.lock().unwrap().late().is_empty()
    }

    pub fn close(&self, end: &End) {
        self.registry().unbind(end.id);
        self.refresh();
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.shared.stop.store(true, Relaxed);
        if let Some(worker) = self.worker.take() {
            let _ = worker.join();
        }
    }
}

struct Source(Arc<Mutex<Registry>>, BindingId);

impl PeerSource for Source {
    fn peer(&mut self, index: u8) -> Option<PeerGrant> {
        self.0.lock().unwrap().peer_grant(self.1, index).ok()
    }
}

/// Where a sync pauses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pause {
    Before,
    After,
}

/// A driver that pauses once.
struct Paused<'d, F> {
    inner: &'d mut dyn RingDriver,
    at: Pause,
    pause: Option<F>,
}

impl<F: FnOnce() + Send> RingDriver for Paused<'_, F> {
    fn sync(&mut self, kring: &mut Kring<'_>) -> Result<(), SyncError> {
        if self.at == Pause::Before
            && let Some(pause) = self.pause.take()
        {
            pause();
        }
        self.inner.sync(kring)?;
        if let Some(pause) = self.pause.take() {
            pause();
        }
        Ok(())
    }

    fn moved_since(&self, handle: &RingHandle, wanted: u32) -> bool {
        self.inner.moved_since(handle, wanted)
    }
}

/// A bound port with the client that works on it.
pub struct End {
    pub endpoint: Endpoint,
    pub id: BindingId,
    source: Source,
}

impl End {
    pub fn ring(&self, dir: Dir) -> &EndRing {
        &self.endpoint.bound(dir)[0]
    }

    /// Slots of the client's: free ones of the TX ring, received ones of the RX ring.
    pub fn avail(&self, dir: Dir) -> u32 {
        let h = self.ring(dir).handle();
        let header = &h.ring.header;
        crate::kring::distance(h.num_slots(), header.head.load(Relaxed), header.tail.load(Acquire))
    }

    /// Puts one packet, slot by slot, into the TX ring; each at `ofs` of its buffer, with `ptr` as it is in the slot.
    pub fn put_at(&self, parts: &[Vec<u8>], ofs: usize) {
        let h = self.ring(Dir::Tx).handle();
        for (i, part) in parts.iter().enumerate() {
            assert!(self.avail(Dir::Tx) > 0);
            let head = h.ring.header.head.load(Relaxed);
            let slot = &h.ring.slots[head as usize];
            let payload = h.ring.bufs.payload(slot.load().buf_idx()).expect("a buffer");
            assert_eq!(payload.slice(ofs, usize::MAX).copy_from(part), part.len());
            let more = if i + 1 < parts.len() { NS_MOREFRAG } else { 0 };
            slot.store(SlotWord::new(slot.load().buf_idx(), part.len() as u16, more));
            let head = next(h.num_slots(), head);
            h.ring.header.cur.store(head, Relaxed);
            h.ring.header.head.store(head, Release);
        }
    }

    /// A sync of who read a moment ago that the ring is brokered.
    pub fn sync_brokered(&mut self, dir: Dir) -> SyncOutcome {
        let (ring, me) = (self.ring(dir).handle().clone(), self.endpoint.attachment());
        ring.sync_brokered(me, &self.endpoint.grant().worker_bell.clone(), true, &mut self.source)
    }

    pub fn sync(&mut self, dir: Dir) -> SyncOutcome {
        self.endpoint.sync(dir, 0, SyncFlags::empty(), &mut self.source)
    }

    /// As `sync`, with a pause, in which `pause` runs, before the driver does, or after it: under the ring's lock.
    pub fn sync_with_pause(&mut self, dir: Dir, at: Pause, pause: impl FnOnce() + Send) -> SyncOutcome {
        let me = self.endpoint.attachment();
        let (context, tx, rx) = self.endpoint.split();
        let parts = if dir == Dir::Tx { &mut tx[0] } else { &mut rx[0] }.parts();
        let mut paused = Paused { inner: parts.driver, at, pause: Some(pause) };
        context.sync(parts.handle, &mut paused, me, SyncFlags::empty(), &mut self.source)
    }

    pub fn send(&mut self, parts: &[Vec<u8>]) {
        self.put_at(parts, 0);
        assert_eq!(self.sync(Dir::Tx), SyncOutcome::Done);
    }

    /// Bytes and `ptr` of all received slots, read where `ofs` says that they begin; the slots are given back.
    pub fn receive_at(&mut self, ofs: impl Fn(u64) -> usize) -> Vec<(Vec<u8>, u64)> {
        assert_eq!(self.sync(Dir::Rx), SyncOutcome::Done);
        let h = self.ring(Dir::Rx).handle();
        let (n, head, avail) = (h.num_slots(), h.ring.header.head.load(Relaxed), self.avail(Dir::Rx));
        let got = (0..avail)
            .map(|i| {
                let slot = &h.ring.slots[forward(n, head, i) as usize];
                let word = slot.load();
                let payload = h.ring.bufs.payload(word.buf_idx()).expect("a buffer");
                (payload.slice(ofs(slot.ptr()), word.len().into()).to_vec(), slot.ptr())
            })
            .collect();
        let tail = forward(n, head, avail);
        h.ring.header.cur.store(tail, Relaxed);
        h.ring.header.head.store(tail, Release);
        assert_eq!(self.sync(Dir::Rx), SyncOutcome::Done);
        got
    }

    pub fn receive(&mut self) -> Vec<Vec<u8>> {
        self.receive_at(|_| 0).into_iter().map(|(bytes, _)| bytes).collect()
    }
}
