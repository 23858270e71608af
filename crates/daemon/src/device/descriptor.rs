//! One open descriptor: a thread that does, in order, what is asked of it. Only this descriptor's callers wait for it.

use super::memory::{Caller, Patience};
use super::nested::{self, Nested};
use fuser::{BackingId, FileHandle, FopenFlags, PollEvents, PollNotifier, ReplyIoctl, ReplyOpen, ReplyPoll};
use ringway::OpenError;
use ringway::raw::{Agent, Bound, POLLERR, Sleeper, legacy};
use ringway_abi::legacy::nmreq;
use ringway_abi::wire::RINGWAY_LEND;
use ringway_abi::{
    Errno, NETMAP_REQ_CSB_ENABLE, NETMAP_REQ_OPT_CSB, NETMAP_REQ_OPT_EXTMEM, NETMAP_REQ_REGISTER,
    NETMAP_REQ_SYNC_KLOOP_START, NETMAP_REQ_SYNC_KLOOP_STOP, NIOCCONFIG, NIOCCTRL, NIOCGINFO, NIOCREGIF,
    NIOCRXSYNC, NIOCTXSYNC, nmreq_header, nmreq_register,
};
use ringway_core::control::ReqOption;
use ringway_os::event::{Doorbell, Epoll, EventBuf, EventFlags};
use ringway_os::sock::Conn;
use ringway_os::{proc, sys};
use std::collections::VecDeque;
use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use zerocopy::{FromBytes, IntoBytes};

/// How long an open or a REGISTER waits for descriptors of the same user that are just being closed.
const CLOSING: Duration = Duration::from_millis(500);
/// Looks before a sleep, while something moves.
const LOOKS: usize = 50;

const JOBS: u64 = 0;
const WAKE: u64 = 1;

/// Something that is asked of a descriptor.
#[derive(Debug)]
pub(super) enum Job {
    Ioctl { caller: Caller, cmd: u32, data: Vec<u8>, out_size: u32, reply: ReplyIoctl },
    Poll { events: i16, notifier: Option<PollNotifier>, reply: ReplyPoll },
}

/// A user: what his descriptors have in common.
#[derive(Debug)]
pub(super) struct User {
    uid: u32,
    open: AtomicUsize,
    /// Descriptors whose last copy is closed and that are not unbound yet.
    closing: Mutex<usize>,
    closed: Condvar,
    /// What all his descriptors map: the file of his regions.
    backing: Mutex<Option<Backing>>,
    patience: Patience,
}

#[derive(Clone, Debug)]
struct Backing {
    id: Arc<BackingId>,
    file: Option<(u64, u64)>,
}

fn lock<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

impl User {
    pub fn new(uid: u32) -> Self {
        User {
            uid,
            open: AtomicUsize::new(0),
            closing: Mutex::new(0),
            closed: Condvar::new(),
            backing: Mutex::new(None),
            patience: Patience::default(),
        }
    }

    /// A close looks as if it had unbound at once: who comes after it waits until it has.
    fn wait_for_closing(&self) {
        let end = Instant::now() + CLOSING;
        let mut closing = lock(&self.closing);
        while *closing > 0 {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            closing = self.closed.wait_timeout(closing, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// One open of the file.
#[derive(Debug)]
pub(super) struct Descriptor {
    user: Arc<User>,
    jobs: Mutex<VecDeque<Job>>,
    released: AtomicBool,
    bell: Doorbell,
}

impl Descriptor {
    /// Opens one, in a thread of its own, which answers.
    ///
    /// # Errors
    /// EMFILE if the user has `max` open; ENOMEM, EMFILE if there can be no thread. The reply comes back.
    pub fn start(
        user: &Arc<User>,
        caller: Caller,
        max: usize,
        fh: FileHandle,
        reply: ReplyOpen,
    ) -> Result<Arc<Self>, (ReplyOpen, Errno)> {
        if user.open.fetch_add(1, Relaxed) >= max {
            user.open.fetch_sub(1, Relaxed);
            tracing::warn!("user {} has {max} descriptors open (device.descriptors)", user.uid);
            return Err((reply, Errno::EMFILE));
        }
        let parts = Doorbell::new().and_then(|bell| Ok((bell, Epoll::new()?)));
        let Ok((bell, epoll)) = parts else {
            user.open.fetch_sub(1, Relaxed);
            return Err((reply, Errno::EMFILE));
        };
        let me = Arc::new(Descriptor {
            user: user.clone(),
            jobs: Mutex::default(),
            released: AtomicBool::new(false),
            bell,
        });
        // The reply waits in a place from which it can be had back if no thread can be made.
        let slot = Arc::new(Mutex::new(Some(reply)));
        let (theirs, its_reply) = (me.clone(), slot.clone());
        let thread = std::thread::Builder::new().name(format!("user {}", user.uid)).stack_size(256 << 10);
        let started = thread.spawn(move || {
            if let Some(reply) = lock(&its_reply).take() {
                theirs.run(&caller, &epoll, fh, reply);
            }
            theirs.gone();
        });
        match started {
            Ok(_) => Ok(me),
            Err(_) => {
                user.open.fetch_sub(1, Relaxed);
                match lock(&slot).take() {
                    Some(reply) => Err((reply, Errno::ENOMEM)),
                    None => Ok(me),
                }
            }
        }
    }

    /// Asks something of it.
    pub fn push(&self, job: Job) {
        lock(&self.jobs).push_back(job);
        self.bell.ring();
    }

    /// Its last copy is closed.
    pub fn release(&self) {
        *lock(&self.user.closing) += 1;
        self.released.store(true, Relaxed);
        self.bell.ring();
    }

    /// The thread ends; all that was bound is dropped.
    fn gone(&self) {
        self.user.open.fetch_sub(1, Relaxed);
        if self.released.load(Relaxed) {
            *lock(&self.user.closing) -= 1;
            self.user.closed.notify_all();
        }
    }

    fn run(&self, caller: &Caller, epoll: &Epoll, fh: FileHandle, reply: ReplyOpen) {
        let opened = epoll
            .add(&self.bell, JOBS, EventFlags::IN | EventFlags::ET)
            .map_err(|e| errno_of(&e))
            .and_then(|()| self.open(caller, &reply));
        let (agent, backing) = match opened {
            Ok(opened) => opened,
            Err(errno) => return reply.error(fuser::Errno::from_i32(errno.0)),
        };
        // Reading and writing come to us, and are refused; mapping goes to the backing file. (The kernel takes no NONSEEKABLE with it.)
        let flags = FopenFlags::FOPEN_DIRECT_IO | FopenFlags::FOPEN_NOFLUSH;
        reply.opened_passthrough(fh, flags, &backing.id);
        let mut served = Served { user: self.user.clone(), agent, file: backing.file };
        let mut events = EventBuf::default();
        let bound = loop {
            match self.next_job() {
                Next::Released => return,
                Next::Nothing => {
                    let _ = epoll.wait(&mut events, None);
                }
                Next::Job(job) => {
                    if let Some(bound) = served.unbound(job) {
                        break bound;
                    }
                }
            }
        };
        self.run_bound(&mut served, &bound, epoll);
    }

    /// Opens the user's connection, and his file if it is his first.
    fn open(&self, caller: &Caller, reply: &ReplyOpen) -> Result<(Agent, Backing), Errno> {
        self.user.wait_for_closing();
        // Interfaces are those of the caller's network namespace.
        proc::enter_netns(&caller.file("ns/net", false)?).map_err(|e| errno_of(&e))?;
        let agent = Agent::open(self.user.uid).map_err(|e| log(&e))?;
        let mut known = lock(&self.user.backing);
        let backing = match &*known {
            Some(backing) => backing.clone(),
            None => {
                let memory = agent.user_memory().map_err(|e| log(&e))?;
                let id = reply.open_backing(&memory).map_err(|e| {
                    tracing::error!("the kernel does not take the file of a user's regions: {e}");
                    errno_of(&e)
                })?;
                known.insert(Backing { id: Arc::new(id), file: sys::file_id(memory.as_fd()) }).clone()
            }
        };
        Ok((agent, backing))
    }

    fn next_job(&self) -> Next {
        match lock(&self.jobs).pop_front() {
            Some(job) => Next::Job(job),
            // No job can come after it.
            None if self.released.load(Relaxed) => Next::Released,
            None => Next::Nothing,
        }
    }

    fn run_bound(&self, served: &mut Served, bound: &Bound, epoll: &Epoll) {
        let mut events = EventBuf::default();
        // Who waits in poll or epoll, to be told once.
        let mut armed: Option<(Sleeper<'_>, PollNotifier)> = None;
        loop {
            match self.next_job() {
                Next::Released => return,
                Next::Job(Job::Poll { events, notifier, reply }) => {
                    if let Some((sleeper, _)) = armed.take() {
                        let _ = epoll.remove(&sleeper);
                    }
                    armed = poll(bound, events, notifier, reply, epoll);
                }
                Next::Job(Job::Ioctl { caller, cmd, data, out_size, reply }) => {
                    served.ioctl(Some(bound), caller, cmd, data, out_size, reply);
                }
                Next::Nothing => {
                    let got = epoll.wait(&mut events, None);
                    let woken = got.is_ok_and(|got| got.iter().any(|(token, _)| *token == WAKE));
                    if woken && let Some((sleeper, notifier)) = armed.take() {
                        let _ = epoll.remove(&sleeper);
                        // Without a look: the rings are synced in calls of the program only. It will look.
                        let _ = notifier.notify();
                    }
                }
            }
        }
    }
}

enum Next {
    Job(Job),
    Released,
    Nothing,
}

fn errno_of(e: &io::Error) -> Errno {
    Errno(e.raw_os_error().unwrap_or(Errno::EIO.0))
}

fn log(e: &OpenError) -> Errno {
    tracing::info!("{e}");
    e.errno()
}

/// What only a process can do that has the library: it maps memory in the place of the program's, or runs a loop in its thread.
fn needs_library(nr_reqtype: u16) -> Option<&'static str> {
    match nr_reqtype {
        NETMAP_REQ_CSB_ENABLE => Some("CSB mode"),
        NETMAP_REQ_SYNC_KLOOP_START | NETMAP_REQ_SYNC_KLOOP_STOP => Some("the sync loop"),
        _ => None,
    }
}

fn warn_of_library(uid: u32, what: &str) {
    tracing::warn!(
        "user {uid}: {what} is not to be had through the device file (EOPNOTSUPP): link the program with libnetmap, or run it with it preloaded (ringway run)"
    );
}

fn poll_events(revents: i16) -> PollEvents {
    PollEvents::from_bits_truncate(u32::from(revents as u16))
}

/// Answers a poll. If nothing is ready and the caller is going to wait, returns what wakes him.
fn poll<'b>(
    bound: &'b Bound,
    events: i16,
    notifier: Option<PollNotifier>,
    reply: ReplyPoll,
    epoll: &Epoll,
) -> Option<(Sleeper<'b>, PollNotifier)> {
    let Some(notifier) = notifier else {
        reply.poll(poll_events(bound.look_at(events)));
        return None;
    };
    let sleeper = bound.sleeper(events).ok();
    let Some(mut sleeper) = sleeper.filter(|s| epoll.add(s, WAKE, EventFlags::IN).is_ok()) else {
        reply.poll(PollEvents::POLLERR);
        return None;
    };
    for _ in 0..LOOKS {
        let ready = sleeper.look();
        if ready != 0 {
            let _ = epoll.remove(&sleeper);
            reply.poll(poll_events(ready));
            return None;
        }
        if !sleeper.announce() {
            reply.poll(PollEvents::empty());
            return Some((sleeper, notifier));
        }
        sys::yield_now();
    }
    // It moves all the time: the caller looks again at once.
    let _ = epoll.remove(&sleeper);
    reply.poll(PollEvents::empty());
    let _ = notifier.notify();
    None
}

/// What a descriptor is made of besides its thread.
struct Served {
    user: Arc<User>,
    agent: Agent,
    /// The file that the kernel maps for it.
    file: Option<(u64, u64)>,
}

impl Served {
    /// Does a job of a descriptor that has nothing bound. Some: it has now.
    fn unbound(&mut self, job: Job) -> Option<Bound> {
        match job {
            Job::Poll { reply, .. } => {
                reply.poll(poll_events(POLLERR));
                None
            }
            Job::Ioctl { caller, cmd, data, out_size, reply } => {
                self.ioctl(None, caller, cmd, data, out_size, reply)
            }
        }
    }

    fn ioctl(
        &mut self,
        bound: Option<&Bound>,
        caller: Caller,
        cmd: u32,
        mut data: Vec<u8>,
        out_size: u32,
        reply: ReplyIoctl,
    ) -> Option<Bound> {
        let sync = |of: fn(&Bound) -> Result<(), ringway::SyncError>| match bound {
            Some(bound) => of(bound).map_err(|e| e.errno()),
            None => Err(Errno::ENXIO),
        };
        let mut new = None;
        let done = match cmd {
            NIOCTXSYNC => sync(Bound::txsync),
            NIOCRXSYNC => sync(Bound::rxsync),
            NIOCCTRL => self.control(bound, caller, &mut data, &mut new),
            NIOCREGIF | NIOCGINFO => self.older(bound, cmd, &mut data, &mut new),
            RINGWAY_LEND => self.lend(bound, caller, &data),
            // No switch has a hook for it.
            NIOCCONFIG => Err(Errno::EINVAL),
            _ => Err(Errno::EOPNOTSUPP),
        };
        data.truncate(out_size as usize);
        match done {
            Ok(()) => reply.ioctl(0, &data),
            // The argument is copied out after a failed call too.
            Err(errno) => reply.ioctl(-errno.0, &data),
        }
        new
    }

    fn control(
        &mut self,
        bound: Option<&Bound>,
        caller: Caller,
        data: &mut [u8],
        new: &mut Option<Bound>,
    ) -> Result<(), Errno> {
        let mut header = nmreq_header::read_from_bytes(data).map_err(|_| Errno::EINVAL)?;
        let (asked, read) = self.user.patience.with(move || match caller.memory() {
            Ok(memory) => {
                let nested = nested::read(&header, &memory);
                (Some(memory), nested)
            }
            Err(errno) => (None, Err(errno)),
        })?;
        let mut nested = read?;
        let memory = asked.ok_or(Errno::EFAULT)?;
        let name = nested::name_of(&mut header)?;
        let Nested { body, options, .. } = &mut nested;
        let done = self.request(bound, &mut header, &name, body, options, new);
        data.copy_from_slice(header.as_bytes());
        let success = done.is_ok();
        self.user.patience.with(move || nested.write(&header, success, &memory))??;
        done
    }

    /// Sends the caller the connection, so that he can take part in the binding.
    fn lend(&self, bound: Option<&Bound>, caller: Caller, data: &[u8]) -> Result<(), Errno> {
        let number = i32::read_from_bytes(data).map_err(|_| Errno::EINVAL)?;
        let descriptor = bound.and_then(Bound::descriptor).ok_or(Errno::ENXIO)?;
        let descriptor = descriptor.try_clone_to_owned().map_err(|e| errno_of(&e))?;
        self.user.patience.with(move || {
            let socket = Conn::adopt(caller.copy_fd(number)?);
            socket.send(b"lent", &[descriptor.as_fd()]).map_err(|e| errno_of(&e))
        })?
    }

    fn older(
        &mut self,
        bound: Option<&Bound>,
        cmd: u32,
        data: &mut [u8],
        new: &mut Option<Bound>,
    ) -> Result<(), Errno> {
        let mut req = nmreq::read_from_bytes(data).map_err(|_| Errno::EINVAL)?;
        let mut asked = if cmd == NIOCREGIF { legacy::regif(&req)? } else { legacy::ginfo(&req)? };
        let name = nested::name_of(&mut asked.header)?;
        self.request(bound, &mut asked.header, &name, &mut asked.body, &mut [], new)?;
        asked.write_back(&mut req);
        data.copy_from_slice(req.as_bytes());
        Ok(())
    }

    /// Has the broker serve a request.
    fn request(
        &mut self,
        bound: Option<&Bound>,
        header: &mut nmreq_header,
        name: &str,
        body: &mut [u8],
        options: &mut [ReqOption],
        new: &mut Option<Bound>,
    ) -> Result<(), Errno> {
        self.user.wait_for_closing();
        if let Some(what) = needs_library(header.nr_reqtype) {
            options.iter_mut().for_each(|o| o.nro_status = Errno::EOPNOTSUPP.0 as u32);
            warn_of_library(self.user.uid, what);
            return Err(Errno::EOPNOTSUPP);
        }
        if header.nr_reqtype != NETMAP_REQ_REGISTER {
            return self.agent.control_with(header, body, options).map_err(|e| log(&e));
        }
        if bound.is_some() {
            return Err(Errno::EBUSY);
        }
        let req = nmreq_register::read_from_bytes(body).map_err(|_| Errno::EINVAL)?;
        let registered = self.agent.register_with(name, &req, options);
        let (mut out, fresh) = registered.map_err(|e| {
            for option in options.iter().filter(|_| e.errno() == Errno::EOPNOTSUPP) {
                match option.nro_reqtype {
                    NETMAP_REQ_OPT_EXTMEM => warn_of_library(self.user.uid, "memory of the program (EXTMEM)"),
                    NETMAP_REQ_OPT_CSB => warn_of_library(self.user.uid, "CSB mode"),
                    _ => {}
                }
            }
            log(&e)
        })?;
        if sys::file_id(fresh.region()) != self.file {
            drop(fresh);
            self.agent.reopen().map_err(|e| log(&e))?;
            tracing::warn!(
                "{name}: its memory belongs to another user than {}, who has opened the device file",
                self.user.uid
            );
            return Err(Errno::EACCES);
        }
        // Who maps nr_memsize bytes from 0 finds the region at its place in the file.
        out.nr_offset += fresh.region_ofs();
        out.nr_memsize += fresh.region_ofs();
        body.copy_from_slice(out.as_bytes());
        *new = Some(fresh);
        Ok(())
    }
}
