//! The connection to a broker: finding one, starting one, asking it.
//!
//! A [`Session`] is a netmap descriptor: one connection, which any process that holds a copy of it may use. Each request brings its
//! own reply socket. Beside it each process has one attachment per broker, under whose number it holds locks; a forked child finds
//! its number wiped and attaches anew.

use crate::error::OpenError;
use ringway_abi::wire::{self, Kind};
use ringway_abi::{
    Errno, NETMAP_API, NETMAP_REQ_REGISTER, NicMode, c_name_field, nmreq_header, nmreq_register,
};
use ringway_core::handover::{grant_in, peer_in};
use ringway_core::lease::{Grant, PeerGrant};
use ringway_core::place::{self, Place};
use ringway_os::mem::Memfd;
use ringway_os::sock::{Conn, Message};
use ringway_os::sys::{ForkWord, euid, hung_up, wait_readable};
use std::ffi::OsString;
use std::io::{self, BufRead, BufReader};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use zerocopy::IntoBytes;

/// How long an answer may take. The broker never waits for others, so this is for a machine that crawls.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a peer's memory may take, inside a sync.
const PEER_TIMEOUT: Duration = Duration::from_millis(100);
/// How long the queue of an interface may stay busy that somebody has just closed.
const BUSY_QUEUE: Duration = Duration::from_millis(300);
/// Times that a client cut off before its first answer tries again: the broker was just ending.
const TRIES: usize = 5;

/// A process and a broker: the number for locks.
#[derive(Debug)]
struct Attachment {
    socket: PathBuf,
    number: ForkWord,
    channel: Mutex<Conn>,
}

/// The attachments of this process.
static ATTACHMENTS: Mutex<Vec<Arc<Attachment>>> = Mutex::new(Vec::new());

fn lock<T>(m: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A connection to a broker that answered.
#[derive(Debug)]
pub struct Broker {
    conn: Conn,
    socket: PathBuf,
}

/// A bound descriptor.
#[derive(Debug)]
pub(crate) struct Session {
    broker: Broker,
    attachment: Arc<Attachment>,
}

/// An answer: what is behind the head, and the fds.
struct Answer {
    body: Vec<u8>,
    fds: Vec<OwnedFd>,
}

fn io_error(what: &str, e: &io::Error) -> OpenError {
    OpenError::Io { errno: Errno(e.raw_os_error().unwrap_or(Errno::EIO.0)), message: format!("{what}: {e}") }
}

fn refused(errno: Errno, message: impl Into<String>) -> OpenError {
    OpenError::Refused { errno, message: message.into() }
}

/// The broker went away while we asked.
fn cut_off() -> OpenError {
    OpenError::CutOff
}

impl Broker {
    /// Connects to the first broker that answers, in the order of design and documentation (docs/broker.md), starting one if none
    /// does.
    ///
    /// # Errors
    /// [`OpenError`]; its text says what to install or to set.
    pub fn connect() -> Result<Self, OpenError> {
        Self::connect_to(&place::places(euid()))
    }

    /// Connects to the broker whose socket is `at`, starting one there if none answers; None: as [`Broker::connect`].
    pub(crate) fn connect_at(at: Option<&Path>) -> Result<Self, OpenError> {
        at.map_or_else(Self::connect, |socket| Self::connect_to(&[place::named(socket)]))
    }

    fn connect_to(places: &[Place]) -> Result<Self, OpenError> {
        let uid = euid();
        if let Some(found) = first_of(places, uid)? {
            return Ok(found);
        }
        let Some(place) = places.iter().find(|p| p.startable) else {
            return Err(OpenError::NoBroker("there is no place for its socket".into()));
        };
        start_broker(place, uid)?;
        // Another program may have won the race to start one, and be about to listen.
        for _ in 0..200 {
            if let Some(found) = try_place(place, uid)? {
                return Ok(found);
            }
            ringway_os::sys::sleep(Duration::from_millis(5));
        }
        Err(OpenError::NoBroker(format!("it was started, but nothing answers at {}", place.socket.display())))
    }

    /// Connects to the first broker that answers; None if none does.
    ///
    /// # Errors
    /// [`OpenError`] if one is there that may not be used.
    pub fn find() -> Result<Option<Self>, OpenError> {
        let uid = euid();
        first_of(&place::places(uid), uid)
    }

    /// All brokers that this user can see.
    #[must_use]
    pub fn all() -> Vec<Self> {
        let uid = euid();
        place::places(uid).iter().filter_map(|p| try_place(p, uid).ok().flatten()).collect()
    }

    /// Its socket.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Sends one request and waits for its answer.
    fn ask(
        &self,
        kind: Kind,
        body: &[u8],
        fds: &[BorrowedFd<'_>],
        limit: Duration,
    ) -> Result<Answer, OpenError> {
        let (mine, theirs) = Conn::pair().map_err(|e| io_error("cannot make a reply socket", &e))?;
        let mut all = vec![theirs.as_fd()];
        all.extend_from_slice(fds);
        let sent = self.conn.send_waiting(&wire::message(kind, 0, body), &all);
        drop(theirs);
        if sent.is_err() {
            return Err(self.why_cut_off());
        }
        match wait_readable(mine.as_fd(), limit) {
            Ok(true) => {}
            Ok(false) => return Err(refused(Errno::ETIMEDOUT, "the broker did not answer in time")),
            Err(e) => return Err(io_error("cannot wait for the broker", &e)),
        }
        let mut buf = vec![0; wire::MAX_MESSAGE_BYTES + wire::HEAD_BYTES];
        let message = mine.recv(&mut buf).map_err(|_| self.why_cut_off())?;
        if message.len_bytes == 0 {
            return Err(self.why_cut_off());
        }
        read_answer(&buf, message)
    }

    /// A broker that does not admit us says so on the connection itself.
    fn why_cut_off(&self) -> OpenError {
        let mut buf = vec![0; wire::MAX_MESSAGE_BYTES];
        match self.conn.recv(&mut buf) {
            Ok(m) if m.len_bytes > 0 => read_answer(&buf, m).err().unwrap_or_else(cut_off),
            _ => cut_off(),
        }
    }

    fn ask_json(&self, kind: Kind) -> Result<Vec<u8>, OpenError> {
        let answer = self.ask(kind, &[], &[], ANSWER_TIMEOUT)?;
        let fd = answer.fds.into_iter().next().ok_or_else(cut_off)?;
        let text = Memfd::adopt(fd)
            .and_then(|m| m.read_all())
            .map_err(|e| io_error("cannot read the listing", &e))?;
        Ok(text.into_iter().take_while(|b| *b != 0).collect())
    }

    /// All ports, as JSON (an array of the objects of `ringwayd::listing::Port`).
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn list_json(&self) -> Result<Vec<u8>, OpenError> {
        self.ask_json(Kind::List)
    }

    /// The broker itself, as JSON (`ringwayd::listing::Status`).
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn status_json(&self) -> Result<Vec<u8>, OpenError> {
        self.ask_json(Kind::Status)
    }

    /// Asks it to end.
    ///
    /// # Errors
    /// EPERM for other users.
    pub fn stop(&self) -> Result<(), OpenError> {
        self.ask(Kind::Stop, &[], &[], ANSWER_TIMEOUT).map(|_| ())
    }

    /// Parameters: all, or one, or one after setting it. Name, value, whether it may be set while the broker runs.
    ///
    /// # Errors
    /// ENOENT for an unknown name; EPERM for other users, or one that is read at the start only.
    pub fn tune(&self, name: &str, set: Option<i32>) -> Result<Vec<(String, i32, bool)>, OpenError> {
        let field = c_name_field(name)
            .ok_or_else(|| refused(Errno::ENOENT, format!("there is no tunable {name}")))?;
        let ask = wire::Tune { name: field, set: set.is_some().into(), value: set.unwrap_or(0) };
        let answer = self.ask(Kind::Tune, ask.as_bytes(), &[], ANSWER_TIMEOUT)?;
        let mut body = &answer.body[..];
        let mut out = vec![];
        while let Ok(entry) = wire::take::<wire::Tuned>(&mut body) {
            let name = String::from_utf8_lossy(ringway_abi::c_name(&entry.name)).into_owned();
            out.push((name, entry.value, entry.live != 0));
        }
        Ok(out)
    }

    /// Serves one NIOCCTRL request other than REGISTER. `header.nr_name` and `body` are written as netmap would.
    ///
    /// # Errors
    /// As netmap's request.
    pub fn control(&self, header: &mut nmreq_header, body: &mut [u8]) -> Result<(), OpenError> {
        let control = wire::Control { header: *header, nic_mode: 0, pad: 0 };
        let request = [control.as_bytes(), body].concat();
        let answer = self.ask(Kind::Control, &request, &[], ANSWER_TIMEOUT)?;
        let mut rest = &answer.body[..];
        let head: wire::Controlled = wire::take(&mut rest).map_err(|_| cut_off())?;
        header.nr_name = head.header.nr_name;
        body.copy_from_slice(rest.get(..body.len()).ok_or_else(cut_off)?);
        Ok(())
    }

    fn attach(&self) -> Result<(u32, Conn), OpenError> {
        let (mine, theirs) = Conn::pair().map_err(|e| io_error("cannot make a channel", &e))?;
        let answer = self.ask(Kind::Attach, &[], &[theirs.as_fd()], ANSWER_TIMEOUT)?;
        let attached: wire::Attached = wire::take(&mut &answer.body[..]).map_err(|_| cut_off())?;
        Ok((attached.number, mine))
    }

    /// This process's attachment to this broker.
    fn attachment(&self) -> Result<Arc<Attachment>, OpenError> {
        let mut all = lock(&ATTACHMENTS);
        all.retain(|a| !hung_up(&[lock(&a.channel).as_fd()])[0]);
        if let Some(found) = all.iter().find(|a| a.socket == self.socket) {
            if found.number.get() == 0 {
                let (number, channel) = self.attach()?;
                *lock(&found.channel) = channel;
                found.number.set(number);
            }
            return Ok(found.clone());
        }
        let word = ForkWord::new().map_err(|e| io_error("cannot map a page", &e))?;
        let (number, channel) = self.attach()?;
        word.set(number);
        let fresh =
            Arc::new(Attachment { socket: self.socket.clone(), number: word, channel: Mutex::new(channel) });
        all.push(fresh.clone());
        Ok(fresh)
    }
}

/// Checks an answer's head; an error becomes one.
fn read_answer(buf: &[u8], message: Message) -> Result<Answer, OpenError> {
    let bytes = &buf[..message.len_bytes.min(buf.len())];
    if message.truncated {
        let text = "the answer did not arrive whole; is the limit of open files (ulimit -n) reached?";
        return Err(refused(Errno::EMFILE, text));
    }
    let (head, _, body) = wire::parse(bytes).map_err(|e| refused(Errno::EPROTO, e.to_string()))?;
    if head.errno != 0 {
        return Err(refused(Errno(head.errno), String::from_utf8_lossy(body)));
    }
    Ok(Answer { body: body.to_vec(), fds: message.fds })
}

/// Connects to the broker at the first of some places where one answers.
fn first_of(places: &[Place], uid: u32) -> Result<Option<Broker>, OpenError> {
    for place in places {
        if let Some(found) = try_place(place, uid)? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// Connects to the broker at a place, if one answers there and may be trusted.
fn try_place(place: &Place, uid: u32) -> Result<Option<Broker>, OpenError> {
    if let Err(e) = place::check_folder(place, uid) {
        return if e.kind() == io::ErrorKind::NotFound {
            Ok(None)
        } else {
            Err(OpenError::NoBroker(e.to_string()))
        };
    }
    let Ok(conn) = Conn::connect(&place.socket) else { return Ok(None) };
    let peer = conn.peer_uid().map_err(|e| io_error("cannot tell who serves", &e))?;
    if peer != 0 && peer != uid {
        let text =
            format!("{} is served by user {peer}, who is neither root nor you", place.socket.display());
        return Err(OpenError::NoBroker(text));
    }
    Ok(Some(Broker { conn, socket: place.socket.clone() }))
}

/// Where the program that runs a broker may be, in order.
fn programs() -> Vec<PathBuf> {
    let mut out = vec![];
    if let Some(named) = std::env::var_os("RINGWAYD").filter(|v| !v.is_empty()) {
        return vec![named.into()];
    }
    let names = ["ringwayd", "ringway"];
    if let Ok(exe) = std::env::current_exe() {
        for dir in exe.ancestors().skip(1).take(2) {
            out.extend(names.map(|n| dir.join(n)));
        }
    }
    out.push("/usr/libexec/ringwayd".into());
    out.push("/usr/local/libexec/ringwayd".into());
    let path = std::env::var_os("PATH").unwrap_or_else(|| OsString::from("/usr/local/bin:/usr/bin"));
    for dir in std::env::split_paths(&path) {
        out.extend(names.map(|n| dir.join(n)));
    }
    out
}

/// Starts a broker at `place` and waits until it says that it is ready.
fn start_broker(place: &Place, uid: u32) -> Result<(), OpenError> {
    place::make_folder(place, uid).map_err(|e| {
        OpenError::NoBroker(format!("cannot make the folder of {}: {e}", place.socket.display()))
    })?;
    let Some(program) = programs().into_iter().find(|p| p.is_file()) else {
        let text = "no program `ringwayd` or `ringway` beside this one, in libexec or in PATH: install one, or name it in RINGWAYD";
        return Err(OpenError::NoBroker(text.into()));
    };
    let mut command = Command::new(&program);
    if program.file_name().is_some_and(|n| n == "ringway") {
        command.args(["broker", "run"]);
    }
    command.arg("--background").arg("--socket").arg(&place.socket);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let fail = |e: io::Error| OpenError::NoBroker(format!("cannot start {}: {e}", program.display()));
    let mut child = command.spawn().map_err(fail)?;
    let mut line = String::new();
    if let Some(out) = child.stdout.take() {
        BufReader::new(out).read_line(&mut line).map_err(fail)?;
    }
    child.wait().map_err(fail)?;
    match line.trim() {
        "ready" => Ok(()),
        "" => Err(OpenError::NoBroker(format!("{} ended at once", program.display()))),
        text => Err(OpenError::NoBroker(text.to_owned())),
    }
}

impl Session {
    /// Opens a descriptor with the broker whose socket is `at` (None: the first that answers) and binds it.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(
        at: Option<&Path>,
        name: &str,
        req: &nmreq_register,
        mode: NicMode,
    ) -> Result<(Session, Grant), OpenError> {
        let mut cut = 0;
        let start = Instant::now();
        loop {
            match Self::open_once(at, name, req, mode) {
                Err(OpenError::CutOff) if cut < TRIES => cut += 1,
                // A queue of an interface stays busy for a moment after it was closed.
                Err(OpenError::Refused { errno: Errno::EAGAIN, .. }) if start.elapsed() < BUSY_QUEUE => {
                    ringway_os::sys::sleep(Duration::from_millis(5));
                }
                Err(OpenError::Refused { errno: Errno::EAGAIN, message }) => {
                    return Err(OpenError::Refused { errno: Errno::EBUSY, message });
                }
                other => return other,
            }
        }
    }

    fn open_once(
        at: Option<&Path>,
        name: &str,
        req: &nmreq_register,
        mode: NicMode,
    ) -> Result<(Session, Grant), OpenError> {
        let name_field =
            c_name_field(name).ok_or_else(|| refused(Errno::EINVAL, format!("name '{name}' too long")))?;
        let broker = Broker::connect_at(at)?;
        let attachment = broker.attachment()?;
        let header = nmreq_header {
            nr_version: NETMAP_API,
            nr_reqtype: NETMAP_REQ_REGISTER,
            nr_name: name_field,
            ..Default::default()
        };
        let control = wire::Control { header, nic_mode: mode.number(), pad: 0 };
        let body = [control.as_bytes(), req.as_bytes()].concat();
        let answer = broker.ask(Kind::Control, &body, &[], ANSWER_TIMEOUT)?;
        let mut rest = &answer.body[..];
        let head: wire::Controlled = wire::take(&mut rest).map_err(|_| cut_off())?;
        let grant = rest.get(head.body_bytes as usize..).ok_or_else(cut_off)?;
        let grant = grant_in(grant, answer.fds).map_err(|e| refused(Errno::ENOMEM, e.to_string()))?;
        Ok((Session { broker, attachment }, grant))
    }

    /// The number under which this process holds locks. None: the broker is gone.
    #[inline]
    pub fn attachment(&self) -> Option<u32> {
        match self.attachment.number.get() {
            0 => self.attach_anew(),
            number => Some(number),
        }
    }

    #[cold]
    fn attach_anew(&self) -> Option<u32> {
        let mut channel = lock(&self.attachment.channel);
        if self.attachment.number.get() == 0 {
            let (number, fresh) = self.broker.attach().ok()?;
            *channel = fresh;
            self.attachment.number.set(number);
        }
        Some(self.attachment.number.get())
    }

    /// True while the broker lives.
    pub fn is_alive(&self) -> bool {
        !hung_up(&[self.broker.conn.as_fd()])[0]
    }

    /// Hangs up when the broker dies.
    pub fn hangup_fd(&self) -> BorrowedFd<'_> {
        self.broker.conn.as_fd()
    }
}

impl Session {
    /// The memory of the port at `index` of the switch.
    pub fn ask_peer(&self, index: u8) -> Option<PeerGrant> {
        let ask = wire::PeerAsk { index: index.into() };
        let answer = self.broker.ask(Kind::Peer, ask.as_bytes(), &[], PEER_TIMEOUT).ok()?;
        peer_in(&answer.body, answer.fds).ok()
    }
}
