//! The connection to a broker: finding one, asking it.
//!
//! A [`Session`] is a netmap descriptor: one connection, which any process that holds a copy of it may use. Each request brings its
//! own reply socket. Beside it each process has one attachment per broker, under whose number it holds locks; a forked child finds
//! its number wiped and attaches anew.

use crate::attach::{Attachment, BrokerId};
use crate::error::OpenError;
use crate::launch::start_broker;
use ringway_abi::wire::{self, Kind};
use ringway_abi::{
    Errno, NETMAP_API, NETMAP_REQ_REGISTER, NicMode, c_name_field, nmreq_header, nmreq_register,
};
use ringway_core::control::{PagesKey, ReqOption};
use ringway_core::handover::{grant_in, options_in, options_out};
use ringway_core::lease::Grant;
use ringway_core::place::{self, Place};
use ringway_os::mem::Memfd;
use ringway_os::sock::{self, Conn, Message};
use ringway_os::sys::{euid, wait_readable};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use zerocopy::IntoBytes;

mod descriptor;

pub(crate) use descriptor::{Membership, Session};

/// How long an answer may take. The broker never waits for others, so this is for a machine that crawls.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the queue of an interface may stay busy that somebody has just closed: 20 ms, but the kernel frees it with a thread of
/// low rank, which a busy machine may keep waiting.
const BUSY_QUEUE: Duration = Duration::from_secs(2);
/// Times that a client cut off before its first answer tries again: the broker was just ending.
const TRIES: usize = 5;

/// What the client's end of a descriptor is called, before a random number: so any process tells a descriptor that it is handed from all
/// other fds, without a word to whoever is at the other end.
const NAME: &str = "ringway-";

/// Memory of this program that is to be a port's region (the EXTMEM option).
#[derive(Debug)]
pub struct Memory {
    memfd: Memfd,
    pages: wire::Pages,
}

impl Memory {
    /// `memfd` holds what the program's pages held, and takes their place when the request was served. `pages`: the part of a file
    /// that these pages are; whoever asks with the same part, in whatever process of this user, gets the same region. None: nobody else can.
    #[must_use]
    pub fn new(memfd: Memfd, pages: Option<PagesKey>) -> Self {
        let pages = pages.map_or_else(wire::Pages::default, |p| {
            let (dev, ino) = p.file;
            wire::Pages { file: [dev, ino], offset: p.offset, len: p.len }
        });
        Memory { memfd, pages }
    }
}

/// A connection to a broker that answered.
#[derive(Debug)]
pub struct Broker {
    conn: Conn,
    socket: PathBuf,
    id: BrokerId,
}

/// What came of a CONTROL.
struct ControlAnswer {
    header: nmreq_header,
    body: Vec<u8>,
    /// REGISTER: the grant.
    grant: Vec<u8>,
}

/// An answer: what is behind the head, and the fds.
struct Answer {
    body: Vec<u8>,
    fds: Vec<OwnedFd>,
    /// A refusal that has the statuses of options in its body.
    refused: Option<Errno>,
}

/// The broker went away while we asked.
fn cut_off() -> OpenError {
    OpenError::CutOff
}

impl Broker {
    /// Connects to the first broker that answers, in the order that docs/broker.md tells, starting one if none
    /// does.
    ///
    /// # Errors
    /// [`OpenError`]; its text says what to install or to set.
    pub fn connect() -> Result<Self, OpenError> {
        Self::connect_to(&place::places(euid()))
    }

    /// Connects to the broker whose socket is at `socket`, starting one there if none answers.
    ///
    /// # Errors
    /// As [`Broker::connect`].
    pub fn at(socket: &Path) -> Result<Self, OpenError> {
        Self::connect_to(&[place::named(socket)])
    }

    /// As [`Broker::at`]; None: as [`Broker::connect`].
    pub(crate) fn connect_at(at: Option<&Path>) -> Result<Self, OpenError> {
        at.map_or_else(Self::connect, Self::at)
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

    /// From now on all that is asked is asked for user `uid`. For a process that may: CAP_SETUID.
    pub(crate) fn speak_for(&mut self, uid: u32) {
        self.conn.speak_for(uid);
        self.id.2 = Some(uid);
    }

    /// The file in which all regions of the user lie for whom we ask.
    pub(crate) fn user_memory(&self) -> Result<OwnedFd, OpenError> {
        let answer = self.ask(Kind::Memory, &[], &[], ANSWER_TIMEOUT)?;
        answer.fds.into_iter().next().ok_or_else(cut_off)
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
        let (mine, theirs) = Conn::pair().map_err(|e| OpenError::io("cannot make a reply socket", &e))?;
        let mut all = vec![theirs.as_fd()];
        all.extend_from_slice(fds);
        let sent = self.conn.send_waiting(&wire::message(kind, 0, body), &all);
        drop(theirs);
        if sent.is_err() {
            return Err(self.why_cut_off());
        }
        match wait_readable(mine.as_fd(), limit) {
            Ok(true) => {}
            Ok(false) => {
                return Err(OpenError::refused(Errno::ETIMEDOUT, "the broker did not answer in time"));
            }
            Err(e) => return Err(OpenError::io("cannot wait for the broker", &e)),
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
        let mut received = self.conn.recv(&mut buf);
        if received.as_ref().is_err_and(|e| e.kind() == io::ErrorKind::ConnectionReset) {
            // It closed without reading what we sent, which is told once, before what it said.
            received = self.conn.recv(&mut buf);
        }
        match received {
            Ok(m) if m.len_bytes > 0 => read_answer(&buf, m).err().unwrap_or_else(cut_off),
            _ => cut_off(),
        }
    }

    fn ask_json(&self, kind: Kind) -> Result<Vec<u8>, OpenError> {
        let answer = self.ask(kind, &[], &[], ANSWER_TIMEOUT)?;
        let fd = answer.fds.into_iter().next().ok_or_else(cut_off)?;
        let text = Memfd::adopt(fd)
            .and_then(|m| m.read_all())
            .map_err(|e| OpenError::io("cannot read the listing", &e))?;
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

    /// Where the buffers of all regions are, and which locks are held, as JSON (`ringwayd::listing::Audit`).
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn audit_json(&self) -> Result<Vec<u8>, OpenError> {
        self.ask_json(Kind::Audit)
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
            .ok_or_else(|| OpenError::refused(Errno::ENOENT, format!("there is no tunable {name}")))?;
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
        self.control_with(header, body, &mut [])
    }

    /// As [`Broker::control`], with options: what lies behind the `nmreq_option` of each, in the order of the client's list. Each is left with
    /// its status, also if the request fails.
    ///
    /// # Errors
    /// As [`Broker::control`].
    pub fn control_with(
        &self,
        header: &mut nmreq_header,
        body: &mut [u8],
        options: &mut [ReqOption],
    ) -> Result<(), OpenError> {
        // VALE_ATTACH binds queues of an interface.
        let ask = || self.ask_control(header, NicMode::Auto, body, options, None);
        let (answer, _) = while_queue_busy(ask)?;
        header.nr_name = answer.header.nr_name;
        body.copy_from_slice(answer.body.get(..body.len()).ok_or_else(cut_off)?);
        Ok(())
    }

    /// One CONTROL. Returns what came, and its fds.
    fn ask_control(
        &self,
        header: &nmreq_header,
        mode: NicMode,
        body: &[u8],
        options: &mut [ReqOption],
        memory: Option<&Memory>,
    ) -> Result<(ControlAnswer, Vec<OwnedFd>), OpenError> {
        let control =
            wire::Control { header: *header, nic_mode: mode.number(), options: options.len() as u32 };
        let pages = memory.map(|m| m.pages);
        let pages = pages.as_ref().map_or(&[][..], IntoBytes::as_bytes);
        let request = [pages, control.as_bytes(), body, &options_out(options)].concat();
        if request.len() + wire::HEAD_BYTES > wire::MAX_MESSAGE_BYTES {
            return Err(OpenError::refused(Errno::EMSGSIZE, "the options are too long"));
        }
        let answer = match memory {
            None => self.ask(Kind::Control, &request, &[], ANSWER_TIMEOUT)?,
            Some(m) => self.ask(Kind::ControlIn, &request, &[m.memfd.as_fd()], ANSWER_TIMEOUT)?,
        };
        let mut rest = &answer.body[..];
        let head: wire::Controlled = wire::take(&mut rest).map_err(|_| cut_off())?;
        let (body, mut rest) = rest.split_at_checked(head.body_bytes as usize).ok_or_else(cut_off)?;
        let came = options_in(head.options, &mut rest).map_err(|_| cut_off())?;
        if came.len() != options.len() {
            return Err(cut_off());
        }
        options.iter_mut().zip(came).for_each(|(option, came)| *option = came);
        if let Some(errno) = answer.refused {
            return Err(OpenError::refused(errno, String::from_utf8_lossy(rest)));
        }
        let came = ControlAnswer { header: head.header, body: body.to_vec(), grant: rest.to_vec() };
        Ok((came, answer.fds))
    }

    /// REGISTER. Returns what is granted, and the request as netmap would write it back. The options have their statuses afterwards,
    /// also if it is refused.
    fn ask_register(
        &self,
        name: &str,
        req: &nmreq_register,
        mode: NicMode,
        options: &mut [ReqOption],
        memory: Option<&Memory>,
    ) -> Result<(Grant, nmreq_register), OpenError> {
        let nr_name = c_name_field(name)
            .ok_or_else(|| OpenError::refused(Errno::EINVAL, format!("name '{name}' too long")))?;
        let nr_reqtype = NETMAP_REQ_REGISTER;
        let header = nmreq_header { nr_version: NETMAP_API, nr_reqtype, nr_name, ..Default::default() };
        let (answer, fds) = self.ask_control(&header, mode, req.as_bytes(), options, memory)?;
        let out: nmreq_register = wire::take(&mut &answer.body[..]).map_err(|_| cut_off())?;
        let grant =
            grant_in(&answer.grant, fds).map_err(|e| OpenError::refused(Errno::ENOMEM, e.to_string()))?;
        Ok((grant, out))
    }

    fn attach(&self) -> Result<(u32, Conn), OpenError> {
        let (mine, theirs) = Conn::pair().map_err(|e| OpenError::io("cannot make a channel", &e))?;
        let answer = self.ask(Kind::Attach, &[], &[theirs.as_fd()], ANSWER_TIMEOUT)?;
        let attached: wire::Attached = wire::take(&mut &answer.body[..]).map_err(|_| cut_off())?;
        Ok((attached.number, Conn::adopt(ringway_os::place::keep(mine.into_fd()))))
    }

    /// This process's attachment to this broker.
    fn attachment(&self) -> Result<Arc<Attachment>, OpenError> {
        Attachment::of(&self.id, || self.attach(), |e| OpenError::io("cannot map a page", e))
    }

    /// The broker behind an fd that somebody handed us; None if the fd is no descriptor. Nothing is sent.
    ///
    /// # Errors
    /// EACCES if the broker belongs to a user whom we do not trust.
    pub(crate) fn behind(fd: OwnedFd) -> Result<Option<Self>, OpenError> {
        if !is_descriptor(fd.as_fd()) {
            return Ok(None);
        }
        Self::on(Conn::adopt(fd), None, euid()).map(Some)
    }

    /// A connection whose other end is root's or our own user's.
    fn on(conn: Conn, place: Option<&Place>, uid: u32) -> Result<Self, OpenError> {
        let peer = conn.peer().map_err(|e| OpenError::io("cannot tell who serves", &e))?;
        let path = sock::names(conn.as_fd()).map(|n| n.peer).unwrap_or_default();
        let socket = place.map_or_else(|| path.clone(), |p| p.socket.clone());
        if peer.uid != 0 && peer.uid != uid {
            let text =
                format!("{} is served by user {}, who is neither root nor you", socket.display(), peer.uid);
            return Err(match place {
                Some(_) => OpenError::NoBroker(text),
                None => OpenError::refused(Errno::EACCES, text),
            });
        }
        Ok(Broker { conn, socket, id: (peer.pid, path, None) })
    }

    /// As [`Broker::connect`], and it has taken the connection in: it will not end while that is open.
    pub(crate) fn connect_for_good() -> Result<Self, OpenError> {
        let mut cut = 0;
        loop {
            let broker = Self::connect()?;
            match broker.ask(Kind::Join, &[], &[], ANSWER_TIMEOUT) {
                // Of course: it is new.
                Ok(_) | Err(OpenError::Refused { errno: Errno::ENXIO, .. }) => return Ok(broker),
                Err(OpenError::CutOff) if cut < TRIES => cut += 1,
                Err(e) => return Err(e),
            }
        }
    }

    pub(crate) fn into_fd(self) -> OwnedFd {
        self.conn.into_fd()
    }
}

/// Asks again for a while: a queue of an interface stays busy for a moment after it was closed.
fn while_queue_busy<T>(mut ask: impl FnMut() -> Result<T, OpenError>) -> Result<T, OpenError> {
    let start = Instant::now();
    loop {
        match ask() {
            Err(OpenError::Refused { errno: Errno::EAGAIN, .. }) if start.elapsed() < BUSY_QUEUE => {
                ringway_os::sys::sleep(Duration::from_millis(5));
            }
            Err(OpenError::Refused { errno: Errno::EAGAIN, message }) => {
                return Err(OpenError::refused(Errno::EBUSY, message));
            }
            other => return other,
        }
    }
}

/// True if `fd` is a connection that Ringway made to a broker, in whatever process. Asks the kernel only.
pub(crate) fn is_descriptor(fd: BorrowedFd<'_>) -> bool {
    sock::names(fd).is_some_and(|n| n.own.starts_with(NAME.as_bytes()))
}

/// Checks an answer's head; an error becomes one.
fn read_answer(buf: &[u8], message: Message) -> Result<Answer, OpenError> {
    let bytes = &buf[..message.len_bytes.min(buf.len())];
    if message.truncated {
        let text = "the answer did not arrive whole; is the limit of open files (ulimit -n) reached?";
        return Err(OpenError::refused(Errno::EMFILE, text));
    }
    let (head, kind, body) =
        wire::parse(bytes).map_err(|e| OpenError::refused(Errno::EPROTO, e.to_string()))?;
    let refused_errno = (kind == Kind::Refused).then_some(Errno(head.errno));
    if head.errno != 0 && refused_errno.is_none() {
        return Err(OpenError::refused(Errno(head.errno), String::from_utf8_lossy(body)));
    }
    Ok(Answer { body: body.to_vec(), fds: message.fds, refused: refused_errno })
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
    let Ok(conn) = Conn::connect_named(&place.socket, NAME) else { return Ok(None) };
    Broker::on(conn, Some(place), uid).map(Some)
}
