//! Who keeps the registry in which a port is bound: the broker, or an engine of this process.

use crate::conn::{Broker, Memory, Session};
use crate::error::{OpenError, SyncError};
use crate::extmem::FileMemory;
use ringway_abi::{
    Errno, NETMAP_API, NETMAP_REQ_PORT_INFO_GET, PortSpec, c_name_field, nmreq_header, nmreq_port_info_get,
    nmreq_register,
};
use ringway_core::control::ReqOption;
use ringway_core::lease::{Grant, PeerGrant, PeerSource};
use ringway_core::pool::Shm;
use ringway_os::mem::Map;
use ringway_os::sys::monotonic_nanos;
use ringway_os::xdp::XskHold;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use zerocopy::IntoBytes;

/// One binding, seen from the port. Dropping it unbinds. Its methods are called from several threads, when a port's rings are
/// shared out.
pub(crate) trait Backend: Send + Sync {
    /// The number under which this process holds locks. Called before each sync, so cheap. None: the broker is gone.
    fn attachment(&self) -> Option<u32>;

    /// That number if this process has one already; else (in a forked child that has not synced yet) 0.
    fn present_attachment(&self) -> u32;

    /// The port at `index` of the switch that this one sits on.
    fn peer(&self, index: u8) -> Option<PeerGrant>;

    /// True while the registry is there. Never waits.
    fn is_alive(&self) -> bool;

    /// Hangs up when the registry goes: the descriptor itself, whose last copy holds the binding.
    fn hangup_fd(&self) -> Option<BorrowedFd<'_>>;

    /// Serves what was posted, where no worker does.
    fn serve(&self) {}
}

/// Puts the region that `@share=` found into the request.
pub(crate) fn share_region(req: &mut nmreq_register, mem_id: u16) -> Result<(), OpenError> {
    if req.nr_mem_id != 0 && req.nr_mem_id != mem_id {
        let text = format!("cannot set mem_id to {mem_id}, already set to {}", req.nr_mem_id);
        return Err(OpenError::refused(Errno::EINVAL, text));
    }
    req.nr_mem_id = mem_id;
    Ok(())
}

/// Asks the broker at `at` a question about a port; `body` is written with the answer.
pub(crate) fn ask_broker(
    at: Option<&Path>,
    name: &str,
    nr_reqtype: u16,
    body: &mut [u8],
) -> Result<(), OpenError> {
    let nr_name = c_name_field(name)
        .ok_or_else(|| OpenError::refused(Errno::EINVAL, format!("name '{name}' too long")))?;
    let mut header = nmreq_header { nr_version: NETMAP_API, nr_reqtype, nr_name, ..Default::default() };
    Broker::connect_at(at)?.control(&mut header, body)
}

/// Registers with the broker at `at`.
pub(crate) fn open_with_broker(
    at: Option<&Path>,
    spec: &PortSpec,
    req: &nmreq_register,
    options: &mut [ReqOption],
) -> Result<(Box<dyn Backend>, Grant), OpenError> {
    let mut req = *req;
    if let Some(share) = &spec.share {
        let share = PortSpec::parse(share)?;
        let mut info = nmreq_port_info_get { nr_mem_id: share.nr_mem_id, ..Default::default() };
        ask_broker(at, &share.name, NETMAP_REQ_PORT_INFO_GET, info.as_mut_bytes())?;
        share_region(&mut req, info.nr_mem_id)?;
    }
    let (mut all, mut memory, mut pin) = (options.to_vec(), None, None);
    if let Some(FileMemory { offer, option, file }) = FileMemory::of(spec)? {
        all.push(option);
        memory = Some(Memory::new(offer.memfd, offer.pages));
        pin = Some(file);
    }
    let mode = spec.nic_mode.unwrap_or_default();
    let opened = Session::open(at, &spec.name, &req, mode, &mut all, memory.as_ref());
    options.iter_mut().zip(all).for_each(|(option, served)| *option = served);
    let (mut session, mut grant) = opened?;
    session.pin = pin;
    one_map(&mut grant.region);
    Ok((Box::new(session), grant))
}

/// A window of a file (device, inode, offset), and this process's map of it.
type Mapped = ((u64, u64, usize), Weak<Map>);

/// Ports of one region see one map, so that they know each other's buffers: an index of one is the same address in the other.
pub(crate) fn one_map(region: &mut Shm) {
    static MAPS: Mutex<Vec<Mapped>> = Mutex::new(Vec::new());
    let meta = region.memfd.as_fd().try_clone_to_owned().and_then(|fd| File::from(fd).metadata());
    let Ok(file) = meta.map(|m| (m.dev(), m.ino(), region.memfd.ofs())) else { return };
    let mut maps = MAPS.lock().unwrap_or_else(PoisonError::into_inner);
    // A map keeps its file, so that its number is not given to another (but after four thousand million files).
    maps.retain(|(_, map)| map.strong_count() > 0);
    let known = maps.iter().find(|(of, _)| *of == file).and_then(|(_, map)| map.upgrade());
    match known {
        Some(map) if map.len_bytes() == region.map.len_bytes() => region.map = map,
        _ => maps.push((file, Arc::downgrade(&region.map))),
    }
}

/// While a program only syncs, the broker is looked for this often.
const CHECK_NANOS: u64 = 1_000_000;
/// Syncs between two looks at the clock, at most.
const MAX_STRIDE: u32 = 32;

/// A binding with what all rings of its port share.
pub(crate) struct Link {
    backend: Box<dyn Backend>,
    /// Of an interface: what the next broker must find free.
    holds: Arc<Vec<XskHold>>,
    dead: AtomicBool,
    /// Syncs left before the next look at the clock. Lost updates between threads do no harm.
    countdown: AtomicU32,
    stride: AtomicU32,
    last_check: AtomicU64,
    last_look: AtomicU64,
}

impl Link {
    pub fn new(backend: Box<dyn Backend>, holds: Arc<Vec<XskHold>>) -> Self {
        let now = monotonic_nanos();
        Link {
            backend,
            holds,
            dead: AtomicBool::new(false),
            countdown: AtomicU32::new(MAX_STRIDE),
            stride: AtomicU32::new(MAX_STRIDE),
            last_check: AtomicU64::new(now),
            last_look: AtomicU64::new(now),
        }
    }

    /// Before each sync: the attachment number.
    #[inline]
    pub fn enter(&self) -> Result<u32, SyncError> {
        let left = self.countdown.load(Relaxed);
        if left == 0 {
            self.look_at_clock()?;
        } else {
            self.countdown.store(left - 1, Relaxed);
        }
        self.backend.attachment().ok_or(SyncError::BrokerGone)
    }

    /// As [`Link::enter`], for who sends: true if he must call [`Link::look_at_clock`] after the sync. Asking whether the broker is there
    /// takes a system call, which a frame need not wait for.
    #[inline]
    pub fn enter_now(&self) -> Result<(u32, bool), SyncError> {
        let left = self.countdown.load(Relaxed);
        if left == 0 && self.is_dead() {
            return Err(SyncError::BrokerGone);
        }
        self.countdown.store(left.saturating_sub(1), Relaxed);
        Ok((self.backend.attachment().ok_or(SyncError::BrokerGone)?, left == 0))
    }

    /// What is due when the countdown of syncs is over.
    #[cold]
    pub fn look_at_clock(&self) -> Result<(), SyncError> {
        if self.dead.load(Relaxed) {
            // The countdown stays at its end: every later sync fails.
            return Err(SyncError::BrokerGone);
        }
        let now = monotonic_nanos();
        let since_look = now.saturating_sub(self.last_look.swap(now, Relaxed));
        // Aim at two looks in the time of one check.
        let stride = self.stride.load(Relaxed);
        let stride =
            if since_look > CHECK_NANOS / 2 { stride / 2 } else { (2 * stride).clamp(1, MAX_STRIDE) };
        self.stride.store(stride, Relaxed);
        self.countdown.store(stride, Relaxed);
        if now.saturating_sub(self.last_check.load(Relaxed)) >= CHECK_NANOS {
            self.last_check.store(now, Relaxed);
            self.check()?;
        }
        Ok(())
    }

    /// A sleep that a hang-up would have ended is over, at `now`, and there was none: no need to ask before the next sync.
    pub fn seen_alive(&self, now: u64) {
        self.last_check.store(now, Relaxed);
    }

    /// True once the registry was found gone.
    #[inline]
    pub fn is_dead(&self) -> bool {
        self.dead.load(Relaxed)
    }

    /// Looks whether the registry is there. Whoever finds it gone, in whatever thread and with whatever rings lent out, lets go
    /// of the interface: nobody may come back to do it.
    pub fn check(&self) -> Result<(), SyncError> {
        if !self.dead.load(Relaxed) && self.backend.is_alive() {
            return Ok(());
        }
        if !self.dead.swap(true, Relaxed) {
            for hold in self.holds.iter() {
                // What fails here goes when the port is used again, or closed.
                let _ = hold.let_go();
            }
        }
        // The next sync must see it too.
        self.countdown.store(0, Relaxed);
        Err(SyncError::BrokerGone)
    }

    pub fn hangup_fd(&self) -> Option<BorrowedFd<'_>> {
        self.backend.hangup_fd()
    }

    /// See [`Backend::present_attachment`].
    pub fn present_attachment(&self) -> u32 {
        self.backend.present_attachment()
    }
}

impl PeerSource for &Link {
    fn peer(&mut self, index: u8) -> Option<PeerGrant> {
        self.backend.peer(index)
    }

    fn serve(&mut self) {
        self.backend.serve();
    }

    fn is_alive(&mut self) -> bool {
        self.check().is_ok()
    }
}

impl Backend for Session {
    fn attachment(&self) -> Option<u32> {
        Session::attachment(self)
    }

    fn present_attachment(&self) -> u32 {
        Session::present_attachment(self)
    }

    fn peer(&self, index: u8) -> Option<PeerGrant> {
        self.ask_peer(index)
    }

    fn is_alive(&self) -> bool {
        Session::is_alive(self)
    }

    fn hangup_fd(&self) -> Option<BorrowedFd<'_>> {
        Some(Session::hangup_fd(self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringway_os::mem::Memfd;
    use std::sync::atomic::Ordering::SeqCst;

    struct Mortal(Arc<AtomicBool>);

    impl Backend for Mortal {
        fn attachment(&self) -> Option<u32> {
            Some(7)
        }
        fn present_attachment(&self) -> u32 {
            7
        }
        fn peer(&self, _index: u8) -> Option<PeerGrant> {
            None
        }
        fn is_alive(&self) -> bool {
            self.0.load(SeqCst)
        }
        fn hangup_fd(&self) -> Option<BorrowedFd<'_>> {
            None
        }
    }

    #[test]
    fn a_broker_that_died_is_noticed_within_milliseconds_of_syncing_and_for_good() {
        let alive = Arc::new(AtomicBool::new(true));
        let link = Link::new(Box::new(Mortal(alive.clone())), Arc::default());
        let start = monotonic_nanos();
        while monotonic_nanos() < start + 3 * CHECK_NANOS {
            assert_eq!(link.enter(), Ok(7));
        }
        alive.store(false, SeqCst);
        while link.enter().is_ok() {}
        alive.store(true, SeqCst);
        for _ in 0..10 * MAX_STRIDE {
            assert_eq!(link.enter(), Err(SyncError::BrokerGone));
        }
        assert_eq!(link.check(), Err(SyncError::BrokerGone));
    }

    #[test]
    fn a_sender_notices_a_broker_that_died_after_its_sync() {
        let alive = Arc::new(AtomicBool::new(true));
        let link = Link::new(Box::new(Mortal(alive.clone())), Arc::default());
        alive.store(false, SeqCst);
        let found = loop {
            let (me, is_due) = link.enter_now().expect("nobody has looked yet");
            assert_eq!(me, 7);
            if is_due && link.look_at_clock().is_err() {
                break link.enter_now();
            }
        };
        assert_eq!(found, Err(SyncError::BrokerGone));
        assert_eq!(link.enter(), Err(SyncError::BrokerGone));
    }

    #[test]
    fn two_maps_of_one_file_become_one() {
        let file = Memfd::create("region", 4096).unwrap();
        let again = Memfd::adopt(file.as_fd().try_clone_to_owned().unwrap()).unwrap();
        let mut shms = [file, again].map(|f| Shm::from_memfd(f).unwrap());
        let mut other = Shm::create("other", 4096).unwrap();
        assert!(!Arc::ptr_eq(&shms[0].map, &shms[1].map));
        shms.iter_mut().for_each(one_map);
        one_map(&mut other);
        let file = Memfd::create("user", 8192).unwrap();
        let mut windows = [0, 4096].map(|ofs| Shm::from_memfd(file.window(ofs, 4096).unwrap()).unwrap());
        windows.iter_mut().for_each(one_map);
        assert!(!Arc::ptr_eq(&windows[0].map, &windows[1].map), "two windows of one file are two regions");
        assert!(Arc::ptr_eq(&shms[0].map, &shms[1].map) && !Arc::ptr_eq(&shms[0].map, &other.map));
    }
}
