//! What the program's fds are: one byte each, read without a lock at every door, and behind it the table of netmap descriptors.
//!
//! A descriptor is the connection to the broker itself, so its copies live and die as the kernel says. What this process has of it
//! ([`Desc`]) is shared by all of its numbers, and by the maps made through it; when the last of them goes, so does the copy of the
//! connection that the library holds, and with it the binding.

use core::cell::Cell;
use core::ffi::c_int;
use core::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering::Relaxed};
use ringway::Csb;
use ringway::raw::{self, Bound, Joined};
use ringway_abi::Errno;
use ringway_os::place;
use ringway_os::sys::{ForkWord, file_id, is_fuse_file, same_open_file};
use std::collections::BTreeMap;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use crate::epoll::Set;
use crate::extmem::Pin;
use crate::real;

/// An fd of which nothing is known.
pub const OTHER: u8 = 0;
/// The library keeps it for itself.
pub const HIDDEN: u8 = 1;
/// A netmap descriptor.
pub const DESC: u8 = 2;
/// An epoll of the program that has netmap descriptors in it.
pub const EPOLL: u8 = 3;

/// An open device file that this process cannot take part in: the kernel serves it.
pub const FILE: u8 = 4;

/// As many fds as Linux lets a process have (`fs.nr_open`), if nobody raises it. Pages of it that are not written take no memory.
const MAX_FDS: usize = 1 << 20;
static KINDS: [AtomicU8; MAX_FDS] = [const { AtomicU8::new(OTHER) }; MAX_FDS];

/// What an fd is.
#[inline]
pub fn kind(fd: c_int) -> u8 {
    KINDS.get(fd as usize).map_or(OTHER, |k| k.load(Relaxed))
}

fn mark(fd: c_int, kind: u8) {
    if let Some(k) = KINDS.get(fd as usize) {
        k.store(kind, Relaxed);
    }
}

thread_local! {
    static DEPTH: Cell<u32> = const { Cell::new(0) };
}

/// While it lives, this thread's calls are the library's own, not the program's.
#[derive(Debug)]
pub struct Inside(());

impl Inside {
    pub fn enter() -> Self {
        DEPTH.with(|d| d.set(d.get() + 1));
        Inside(())
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        DEPTH.with(|d| d.set(d.get() - 1));
    }
}

impl Inside {
    /// As [`Inside::enter`], unless this thread is in the library already.
    #[inline]
    pub fn enter_first() -> Option<Self> {
        DEPTH.with(|d| {
            let first = d.get() == 0;
            if first {
                d.set(1);
            }
            first.then_some(Inside(()))
        })
    }
}

/// True if this thread is in the library already.
pub fn is_inside() -> bool {
    DEPTH.with(|d| d.get() > 0)
}

/// A netmap descriptor, as this process has it.
#[derive(Debug)]
pub struct Desc {
    /// The connection's.
    id: Option<(u64, u64)>,
    /// Numbers of the program are copies of this device file, not of the connection behind it. What is no sync or wait goes to the kernel.
    file: Option<OwnedFd>,
    bound: OnceLock<Box<Bound>>,
    /// Held while the broker is asked about this descriptor.
    asking: Mutex<()>,
    /// Syncs and polls by the program: what an edge-triggered wait goes by.
    pub syncs: AtomicU64,
    /// Where the program and a sync loop tell each other how far they are, if it is in CSB mode, entered in this process.
    pub csb: Mutex<Option<Arc<Csb>>>,
    /// What the program's memory was before it became the region.
    pub pin: Mutex<Option<Pin>>,
    /// Loops that run in this process: one, or one that is being refused.
    pub loops: AtomicUsize,
}

impl Desc {
    fn new(fd: BorrowedFd<'_>) -> Self {
        Desc {
            id: file_id(fd),
            file: None,
            bound: OnceLock::new(),
            asking: Mutex::new(()),
            syncs: AtomicU64::new(0),
            csb: Mutex::new(None),
            pin: Mutex::new(None),
            loops: AtomicUsize::new(0),
        }
    }

    /// The descriptor behind a device file: it is bound, and this process takes part. None if not.
    fn behind(fd: c_int) -> Option<Self> {
        if !is_fuse_file(borrow(fd)) {
            return None;
        }
        prepare();
        let connection = match raw::behind_file(borrow(fd)) {
            // Not yet bound, but it may be.
            Err(e) if e.errno() == Errno::ENXIO => return None,
            Err(_) | Ok(None) => {
                mark(fd, FILE);
                return None;
            }
            Ok(Some(connection)) => place::keep(connection),
        };
        let file = borrow(fd).try_clone_to_owned().map(place::keep);
        let (Ok(file), Ok(Joined::Bound(bound))) = (file, raw::join(connection.as_fd())) else {
            mark(fd, FILE);
            return None;
        };
        Some(Desc { file: Some(file), bound: OnceLock::from(bound), ..Desc::new(connection.as_fd()) })
    }

    /// True if the program has it as a device file.
    pub fn is_file(&self) -> bool {
        self.file.is_some()
    }

    /// What it has bound, as far as this process knows.
    #[inline]
    pub fn known(&self) -> Option<&Bound> {
        self.bound.get().map(|b| &**b)
    }

    /// What it has bound. Unless that is known, its peer is asked: another process may have bound it.
    pub fn bound(&self, fd: c_int) -> Option<&Bound> {
        if let Some(bound) = self.known() {
            return Some(bound);
        }
        let _asking = lock(&self.asking);
        if self.bound.get().is_none()
            && let Ok(Joined::Bound(bound)) = raw::join(borrow(fd))
        {
            let _ = self.bound.set(bound);
        }
        self.known()
    }

    /// The program syncs it, or polls. Two threads at once may count as one: what counts is that the number changes.
    #[inline]
    pub fn note(&self) {
        self.syncs.store(self.syncs.load(Relaxed).wrapping_add(1), Relaxed);
    }

    /// True if it is still what is at a number: the number may have been closed behind our back.
    pub fn is_at(&self, fd: c_int) -> bool {
        match &self.file {
            Some(file) => same_open_file(borrow(fd), file.as_fd()),
            None => file_id(borrow(fd)) == self.id,
        }
    }

    /// Binds it with what `register` does.
    pub fn bind<T>(&self, register: impl FnOnce() -> Result<(T, Bound), Errno>) -> Result<T, Errno> {
        let _asking = lock(&self.asking);
        if self.bound.get().is_some() {
            return Err(Errno::EBUSY);
        }
        let (out, bound) = register()?;
        let _ = self.bound.set(Box::new(bound));
        Ok(out)
    }
}

/// An fd of the program, for one call.
pub fn borrow<'a>(fd: c_int) -> BorrowedFd<'a> {
    // SAFETY: the program's fds stay open during a call (C contract 1); if not, the kernel answers EBADF, and nothing is read or written. It is not -1:
    // the table knows no such number, and the doors ask about none.
    unsafe { BorrowedFd::borrow_raw(fd.max(0)) }
}

/// An entry of the table.
#[derive(Clone, Debug)]
pub enum Entry {
    Desc(Arc<Desc>),
    Epoll(Arc<Set>),
}

static TABLE: Mutex<BTreeMap<c_int, Entry>> = Mutex::new(BTreeMap::new());
static DESCS: AtomicUsize = AtomicUsize::new(0);

/// Locks; a panic elsewhere changes nothing.
pub fn lock<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The table itself, for who must hold it across fork.
pub fn hold() -> MutexGuard<'static, BTreeMap<c_int, Entry>> {
    lock(&TABLE)
}

/// True if this process has any netmap descriptor.
#[inline]
pub fn any() -> bool {
    DESCS.load(Relaxed) > 0
}

/// Puts an entry at a number. What was there is given: it is to be dropped outside of the lock.
#[must_use]
pub fn put(fd: c_int, entry: Entry) -> Option<Entry> {
    let mut table = hold();
    let new = if matches!(entry, Entry::Desc(_)) { DESC } else { EPOLL };
    if new == DESC {
        DESCS.fetch_add(1, Relaxed);
    }
    let old = table.insert(fd, entry);
    if let Some(Entry::Desc(desc)) = &old {
        DESCS.fetch_sub(1, Relaxed);
        end_loop(&table, desc);
    }
    mark(fd, new);
    old
}

/// A number of a descriptor is gone. With the last one goes the loop that runs here: nobody could stop it any more.
fn end_loop(table: &BTreeMap<c_int, Entry>, desc: &Arc<Desc>) {
    let is_it = |entry: &Entry| matches!(entry, Entry::Desc(other) if Arc::ptr_eq(other, desc));
    if desc.loops.load(Relaxed) > 0
        && !table.values().any(is_it)
        && let Some(bound) = desc.known()
    {
        bound.end_own_loop();
    }
}

/// Takes the entry of a number out.
#[must_use]
pub fn take(fd: c_int) -> Option<Entry> {
    let mut table = hold();
    let old = table.remove(&fd);
    if let Some(Entry::Desc(desc)) = &old {
        DESCS.fetch_sub(1, Relaxed);
        end_loop(&table, desc);
    }
    if kind(fd) != HIDDEN {
        mark(fd, OTHER);
    }
    old
}

/// The entry of a number.
pub fn get(fd: c_int) -> Option<Entry> {
    hold().get(&fd).cloned()
}

/// The descriptor at a number, if one is known there.
pub fn desc(fd: c_int) -> Option<Arc<Desc>> {
    if kind(fd) != DESC {
        return None;
    }
    match hold().get(&fd) {
        Some(Entry::Desc(desc)) => Some(desc.clone()),
        _ => None,
    }
}

/// Numbers that the table knows, of a range.
pub fn numbers(first: u32, last: u32) -> Vec<c_int> {
    let first = c_int::try_from(first).unwrap_or(c_int::MAX);
    let last = c_int::try_from(last).unwrap_or(c_int::MAX);
    hold().range(first..=last).map(|(fd, _)| *fd).collect()
}

/// Numbers that the library keeps for itself, of a range, upwards.
pub fn hidden(first: u32, last: u32) -> Vec<u32> {
    let top = HIGHEST.load(Relaxed);
    (LOWEST.load(Relaxed).max(first as usize)..=top.min(last as usize))
        .filter(|&n| kind(n as c_int) == HIDDEN)
        .map(|n| n as u32)
        .collect()
}

/// The descriptor at a number, of whatever origin: the kernel is asked what the fd is unless we know it, or if `verify`. A file of a FUSE file
/// system is asked itself: for calls that would reach it anyway.
pub fn recognise(fd: c_int, verify: bool) -> Option<Arc<Desc>> {
    if kind(fd) == FILE && !verify {
        return None;
    }
    find(fd, verify, Desc::behind)
}

/// A number that has just come from somebody: as [`recognise`], but only the kernel is asked. So device files are recognised later.
pub fn arrived(fd: c_int) {
    let _ = find(fd, true, |_| None);
}

fn find(fd: c_int, verify: bool, behind_file: impl Fn(c_int) -> Option<Desc>) -> Option<Arc<Desc>> {
    let known = desc(fd);
    if fd < 0 || fd as usize >= MAX_FDS || (known.is_some() && !verify) {
        return known;
    }
    if let Some(desc) = &known
        && desc.is_at(fd)
    {
        return known;
    }
    if matches!(kind(fd), EPOLL | HIDDEN) {
        return None;
    }
    let desc = if raw::is_descriptor(borrow(fd)) {
        prepare();
        Desc::new(borrow(fd))
    } else {
        // Its number was closed behind our back.
        drop(known.and_then(|_| take(fd)));
        behind_file(fd)?
    };
    let is_twin = |d: &Desc| d.id == desc.id && d.id.is_some() && d.is_file() == desc.is_file();
    let twin = hold().values().find_map(|entry| match entry {
        Entry::Desc(other) if is_twin(other) => Some(other.clone()),
        _ => None,
    });
    let desc = twin.unwrap_or_else(|| Arc::new(desc));
    drop(put(fd, Entry::Desc(desc.clone())));
    Some(desc)
}

/// A new descriptor at a number of the program.
pub fn add(fd: c_int) {
    drop(put(fd, Entry::Desc(Arc::new(Desc::new(borrow(fd))))));
}

// Processes.

static OWNER: OnceLock<Option<ForkWord>> = OnceLock::new();

/// True in a child of vfork, whose fds are its own but whose memory is its parent's: it must leave the table alone.
pub fn is_lent() -> bool {
    let Some(Some(word)) = OWNER.get() else { return false };
    // SAFETY: touches no memory.
    let pid = unsafe { libc::getpid() } as u32;
    match word.get() {
        0 => {
            word.set(pid);
            false
        }
        owner => owner != pid,
    }
}

// Fds that the library keeps.

static FLOOR: AtomicUsize = AtomicUsize::new(0);
static LOWEST: AtomicUsize = AtomicUsize::new(usize::MAX);
static HIGHEST: AtomicUsize = AtomicUsize::new(0);

/// Where the library's own fds begin: out of the way of the program's, and of what it closes.
fn floor() -> c_int {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: fills in the structure that is lent.
    unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) };
    let soft = limit.rlim_cur.min(MAX_FDS as u64) as c_int;
    if soft > 16384 { 8192 } else { soft / 2 }
}

/// Moves an fd up, and hides it.
fn hide(fd: OwnedFd) -> OwnedFd {
    let floor = match FLOOR.load(Relaxed) {
        0 => floor(),
        n => n as c_int,
    };
    // SAFETY: touches no memory.
    let up = unsafe { real::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, floor as usize as *mut _) };
    let fd = if up < 0 {
        // The limit is reached. It stays where it is, and is guarded there.
        fd
    } else {
        // SAFETY: a new fd that nobody else has.
        unsafe { OwnedFd::from_raw_fd(up) }
    };
    let n = fd.as_raw_fd();
    LOWEST.fetch_min(n as usize, Relaxed);
    HIGHEST.fetch_max(n as usize, Relaxed);
    mark(n, HIDDEN);
    fd
}

/// The library closes an fd of its own.
pub fn unhide(fd: c_int) {
    if kind(fd) == HIDDEN {
        mark(fd, OTHER);
    }
}

/// Before the first descriptor of this process.
pub fn prepare() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        FLOOR.store(floor() as usize, Relaxed);
        place::move_kept_fds(hide);
        if let Some(file) = real::own_file() {
            raw::library_is(&file);
        }
        let word = ForkWord::new().ok();
        if let Some(word) = &word {
            // SAFETY: touches no memory.
            word.set(unsafe { libc::getpid() } as u32);
        }
        let _ = OWNER.set(word);
        crate::process::watch_forks();
    });
}
