//! The loop that serves clients: one thread, which never waits for any of them.

use crate::attach::Attachments;
use crate::closer::Closers;
use crate::config::Config;
use crate::device::Device;
use crate::knock::{Door, refuse_connection};
use crate::session::Session;
use crate::worker::Worker;
use ringway_abi::wire;
use ringway_core::control::Registry;
use ringway_os::event::{Epoll, EventBuf, EventFlags};
use ringway_os::sock::Listener;
use std::collections::HashMap;
use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How long a broker that nobody uses stays.
const IDLE_BEFORE_END: Duration = Duration::from_secs(5);
/// Messages of one session served before the others have their turn.
const MESSAGES_PER_TURN: usize = 4;

pub(crate) const LISTENER: u64 = 0;
const SIGNALS: u64 = 1;
const DEVICE: u64 = 2;
const FIRST_ID: u64 = 3;
/// As whose a descriptor counts that the helper of the device file has opened and not bound yet: the helper has limits of its own.
pub(crate) const NOBODY: u32 = u32::MAX;
/// What a token's id is of.
pub(crate) const SESSION: u64 = 0;
const CHANNEL: u64 = 1;
const PIDFD: u64 = 2;
/// Of a network namespace: its interfaces.
const NETNS: u64 = 3;

pub(crate) fn token(id: u64, of: u64) -> u64 {
    id << 2 | of
}

/// The broker.
#[derive(Debug)]
pub struct Server {
    pub(crate) registry: Registry,
    pub(crate) config: Config,
    pub(crate) sessions: HashMap<u64, Session>,
    pub(crate) attachments: Attachments,
    pub(crate) closers: Closers,
    pub(crate) worker: Worker,
    pub(crate) device: Device,
    pub(crate) own_uid: u32,
    /// Identity of the broker's own network namespace.
    pub(crate) netns_id: u64,
    pub(crate) socket_path: PathBuf,
    pub(crate) started: Instant,
    pub(crate) locks_broken: u64,
    pub(crate) stopping: bool,
    pub(crate) door: Door,
    pub(crate) listener: Option<Listener>,
    pub(crate) epoll: Epoll,
    pub(crate) next_id: u64,
}

impl Server {
    /// A server on `listener`, which is bound to `socket_path`.
    pub fn new(listener: Listener, socket_path: PathBuf, config: Config, device: Device) -> io::Result<Self> {
        let epoll = Epoll::new()?;
        epoll.add(&listener, token(LISTENER, 0), EventFlags::IN)?;
        let tunables = config.tunables().map_err(io::Error::other)?;
        let mut registry = Registry::new(tunables);
        registry.public_switches.clone_from(&config.public_switches);
        let own_uid = ringway_os::sys::euid();
        registry.interface_users = config.interface_users(own_uid);
        let closers = Closers::new(config.limits.closing);
        registry.one_file_per_user = device.is_on();
        if let Some(channel) = device.channel() {
            epoll.add(channel, token(DEVICE, 0), EventFlags::IN)?;
        }
        Ok(Server {
            registry,
            config,
            sessions: HashMap::new(),
            attachments: Attachments::default(),
            closers,
            worker: Worker::new()?,
            device,
            own_uid,
            netns_id: netns_id_of_self(),
            socket_path,
            started: Instant::now(),
            locks_broken: 0,
            stopping: false,
            door: Door::new(),
            listener: Some(listener),
            epoll,
            next_id: FIRST_ID,
        })
    }

    /// Serves until asked to stop, or until nobody has used it for a while. `signals` becomes readable when a signal to end came.
    pub fn run(&mut self, signals: impl AsFd) -> io::Result<()> {
        self.epoll.add(signals, token(SIGNALS, 0), EventFlags::IN)?;
        let mut events = EventBuf::default();
        let mut idle_since = Some(Instant::now());
        while !self.stopping {
            let timeout = idle_since.map(|t| IDLE_BEFORE_END.saturating_sub(t.elapsed()));
            let sooner = [self.worker.next_look(), self.door.opens_in()];
            let timeout = timeout.into_iter().chain(sooner.into_iter().flatten()).min();
            let got: Vec<(u64, EventFlags)> = self.epoll.wait(&mut events, timeout)?.to_vec();
            // The dead first: who asks for what they had must find it free.
            let (ended, alive): (Vec<_>, Vec<_>) = got
                .into_iter()
                .partition(|(t, f)| t & 3 != SESSION || f.intersects(EventFlags::HUP | EventFlags::ERR));
            for (t, f) in ended.into_iter().chain(alive) {
                self.event(t, f);
            }
            self.worker.look(&self.registry);
            self.open_door();
            let used = !self.sessions.is_empty() || self.registry.has_persistent() || self.config.stay;
            idle_since = if used { None } else { idle_since.or_else(|| Some(Instant::now())) };
            if idle_since.is_some_and(|t| t.elapsed() >= IDLE_BEFORE_END) && !self.anybody_left()? {
                break;
            }
        }
        Ok(())
    }

    /// About to end: takes the socket's name away, and serves who had come before that after all.
    fn anybody_left(&mut self) -> io::Result<bool> {
        let _ = std::fs::remove_file(&self.socket_path);
        self.accept();
        if self.sessions.is_empty() {
            return Ok(false);
        }
        // We still hold the lock beside the socket: the name is ours.
        self.listener = None;
        let listener = crate::start::bind_socket(&self.socket_path, &self.config)?;
        self.epoll.add(&listener, token(LISTENER, 0), EventFlags::IN)?;
        self.listener = Some(listener);
        Ok(true)
    }

    fn event(&mut self, event: u64, flags: EventFlags) {
        let (id, of) = (event >> 2, event & 3);
        match (id, of) {
            (LISTENER, SESSION) => self.accept(),
            (SIGNALS, SESSION) => self.stopping = true,
            (DEVICE, SESSION) => self.device_lost(),
            (_, SESSION) => self.session_event(id, flags),
            (_, CHANNEL | PIDFD) => self.end_attachment(id as u32),
            (_, NETNS) => {
                self.worker.change(&mut self.registry, |r| r.interface_news(id));
                self.close_retired();
            }
            _ => {}
        }
    }

    fn device_lost(&mut self) {
        if let Some(channel) = self.device.channel() {
            let _ = self.epoll.remove(channel);
        }
        self.device.lost();
    }

    fn session_event(&mut self, id: u64, flags: EventFlags) {
        let mut buf = vec![0; wire::MAX_MESSAGE_BYTES];
        for _ in 0..MESSAGES_PER_TURN {
            let Some(session) = self.sessions.get(&id) else { return };
            if let Some(refusal) = self.closers.is_full(session.uid) {
                refuse_connection(&session.conn, &refusal);
                self.end_session(id);
                return;
            }
            match session.conn.recv(&mut buf) {
                Ok(m) if m.len_bytes == 0 && m.fds.is_empty() => {
                    // A hang-up, or an empty message: neither is a request.
                    self.end_session(id);
                    return;
                }
                Ok(m) => {
                    let len = m.len_bytes.min(buf.len());
                    let message = std::mem::take(&mut buf);
                    self.serve(id, &message[..len], m);
                    self.close_retired();
                    buf = message;
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    if flags.intersects(EventFlags::HUP | EventFlags::ERR) {
                        self.end_session(id);
                    }
                    return;
                }
                Err(_) => {
                    self.end_session(id);
                    return;
                }
            }
        }
    }

    /// Handles every hang-up that is already pending: unbinding looks synchronous to whoever asks next.
    pub(crate) fn reap_hangups(&mut self) {
        let (ids, fds): (Vec<u64>, Vec<_>) =
            self.sessions.iter().map(|(id, s)| (*id, s.conn.as_fd())).unzip();
        let gone: Vec<u64> = ids
            .into_iter()
            .zip(ringway_os::sys::hung_up(&fds))
            .filter(|(_, up)| *up)
            .map(|(id, _)| id)
            .collect();
        for id in gone {
            self.end_session(id);
        }
    }

    /// The same for processes: what is told of locks and rings is as if all that has happened had been served.
    pub(crate) fn reap_all(&mut self) {
        for number in self.attachments.dead() {
            self.end_attachment(number);
        }
        self.reap_hangups();
    }

    fn end_session(&mut self, id: u64) {
        let Some(session) = self.sessions.remove(&id) else { return };
        if let Some(binding) = session.binding {
            if let Some(name) = self.registry.binding_name(binding) {
                tracing::debug!(port = name, pid = session.pid, "unbound");
            }
            // Whoever held its rings is gone, or has let go: no lock of a dead process may survive it.
            self.break_locks();
            self.worker.change(&mut self.registry, |r| r.unbind(binding));
        }
        self.registry.sweep_user_memory();
        self.close_retired();
        let _ = self.epoll.remove(&session.conn);
        self.closers.close_conn(session.uid, session.conn);
    }

    /// Lets go of what clients were lent of ports that are gone. The worker has let go of it before.
    fn close_retired(&mut self) {
        for files in self.registry.take_retired() {
            self.closers.close(files.owner, files);
        }
    }

    /// Watches the interfaces of just those network namespaces in which ports have some.
    pub(crate) fn watch_interfaces(&mut self) {
        // One that is gone left the epoll when it was closed.
        for (id, fd) in self.registry.monitors() {
            match self.epoll.add(fd, token(id, NETNS), EventFlags::IN) {
                Err(e) if e.kind() != io::ErrorKind::AlreadyExists => {
                    tracing::warn!("cannot watch interfaces: {e}");
                }
                _ => {}
            }
        }
    }

    pub(crate) fn watch_attachment(&mut self, number: u32) -> io::Result<()> {
        let Some(a) = self.attachments.get(number) else { return Ok(()) };
        let channel = a.channel.socket().ok_or(io::ErrorKind::InvalidInput)?;
        self.epoll.add(channel, token(number.into(), CHANNEL), EventFlags::empty())?;
        self.epoll.add(&a.pidfd, token(number.into(), PIDFD), EventFlags::IN)
    }

    pub(crate) fn end_attachment(&mut self, number: u32) {
        let Some(a) = self.attachments.remove(number) else { return };
        if let Some(channel) = a.channel.fd() {
            let _ = self.epoll.remove(channel);
        }
        let _ = self.epoll.remove(&a.pidfd);
        self.break_locks();
        if self.registry.guest_left(number) {
            self.worker.refresh(&self.registry);
        }
    }

    fn break_locks(&mut self) {
        let broken = self.attachments.break_locks(&self.registry);
        if broken > 0 {
            tracing::info!("broke {broken} locks of processes that died inside a sync");
            self.locks_broken += broken as u64;
        }
    }
}

/// Identity of the network namespace that `file` refers to.
pub(crate) fn netns_id(file: &std::fs::File) -> io::Result<u64> {
    Ok(std::os::unix::fs::MetadataExt::ino(&file.metadata()?))
}

fn netns_id_of_self() -> u64 {
    std::fs::File::open("/proc/self/ns/net").and_then(|f| netns_id(&f)).unwrap_or(0)
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.listener.is_some() {
            let _ = std::fs::remove_file(&self.socket_path);
        }
    }
}
