//! Unix sockets of type SEQPACKET: whole messages, with fds and with the credentials of their senders.
//!
//! Source: unix(7), cmsg(3).

use std::ffi::OsStr;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrAny, SocketAddrUnix, SocketFlags, SocketType, sockopt,
};

/// Fds in one message that we send, at most.
pub const MAX_FDS: usize = 64;
/// Random names tried before one gives up.
const NAME_TRIES: u32 = 16;
/// Fds in one message that we receive: as many as the kernel lets anybody send (`SCM_MAX_FD`). With less room the kernel would close the
/// others inside the call, and closing can wait for who sent them.
const MAX_RECEIVED_FDS: usize = 253;

/// Who sent a message, as the kernel says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Creds {
    /// Process.
    pub pid: u32,
    /// User.
    pub uid: u32,
}

/// One message received.
#[derive(Debug)]
pub struct Message {
    /// Bytes of it that are in the caller's buffer.
    pub len_bytes: usize,
    /// It was longer than the buffer, or fds are missing: do not trust it.
    pub truncated: bool,
    /// It carried more fds than fit, or than this process may open.
    pub fds_lost: bool,
    /// Fds that came with it.
    pub fds: Vec<OwnedFd>,
    /// Its sender; only on sockets that ask for it.
    pub creds: Option<Creds>,
}

/// One end of a connection.
#[derive(Debug)]
pub struct Conn {
    fd: OwnedFd,
    /// Whom each message is sent for; None: the process itself.
    speaks_for: Option<u32>,
}

impl Conn {
    /// Connects to the socket at `path`.
    ///
    /// # Errors
    /// ENOENT, ECONNREFUSED, EACCES and the like.
    pub fn connect(path: &Path) -> io::Result<Self> {
        let fd = socket()?;
        rustix::net::connect(&fd, &SocketAddrUnix::new(path)?)?;
        Ok(Self::adopt(fd))
    }

    /// As [`Conn::connect`], from a socket with a name of its own: `prefix` and a random number, in the abstract namespace. Whoever
    /// is handed the socket can ask for that name without a word to the other end ([`names`]).
    ///
    /// # Errors
    /// As [`Conn::connect`]; EADDRINUSE if somebody has taken one such name after the other.
    pub fn connect_named(path: &Path, prefix: &str) -> io::Result<Self> {
        let fd = socket()?;
        let numbers = RandomState::new();
        for i in 0..NAME_TRIES {
            let name = format!("{prefix}{:016x}", numbers.hash_one(i));
            match rustix::net::bind(&fd, &SocketAddrUnix::new_abstract_name(name.as_bytes())?) {
                Err(rustix::io::Errno::ADDRINUSE) if i + 1 < NAME_TRIES => {}
                Err(e) => return Err(e.into()),
                Ok(()) => break,
            }
        }
        rustix::net::connect(&fd, &SocketAddrUnix::new(path)?)?;
        Ok(Self::adopt(fd))
    }

    /// Two ends of a new connection. Both have a name that the kernel chose, see [`Conn::never_waits`].
    ///
    /// # Errors
    /// EMFILE.
    pub fn pair() -> io::Result<(Self, Self)> {
        let (a, b) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        for end in [&a, &b] {
            rustix::net::bind(end, &SocketAddrUnix::new_unnamed())?;
        }
        Ok((Self::adopt(a), Self::adopt(b)))
    }

    /// True if sending and polling never wait, whatever other holders do to it: a Unix socket of this type that has a name. Asking does
    /// not wait either, whatever the fd is.
    ///
    /// Other files may have a lock that somebody holds: a TCP socket while its other holder sends out of memory that never comes, a
    /// FUSE file. A Unix socket without a name may be given one by the kernel as it sends, under the lock that its other holder keeps
    /// by naming it in a file system that never answers.
    ///
    /// Source: `unix_dgram_sendmsg`, `unix_autobind` and `unix_bind_bsd` of kernel net/unix/af_unix.c.
    #[must_use]
    pub fn never_waits(&self) -> bool {
        // The name itself may be anything; its length alone is asked.
        let named = |name: SocketAddrAny| name.addr_len() as usize > size_of::<libc::sa_family_t>();
        sockopt::socket_domain(&self.fd) == Ok(AddressFamily::UNIX)
            && sockopt::socket_type(&self.fd) == Ok(SocketType::SEQPACKET)
            && rustix::net::getsockname(&self.fd).is_ok_and(named)
    }

    /// Closes the connection if that cannot wait for anybody: if no message that was not received carries fds. Else it is given back,
    /// and nothing more can come in.
    ///
    /// # Errors
    /// The connection. It must ask for credentials ([`Conn::want_creds`]).
    pub fn close_at_once(self) -> Result<(), Self> {
        if rustix::net::shutdown(&self.fd, rustix::net::Shutdown::Both).is_err() {
            return Err(self);
        }
        loop {
            // Credentials first, and room for them alone: fds show as a message cut short, and stay in it.
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmCredentials(1))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let flags = RecvFlags::DONTWAIT | RecvFlags::PEEK;
            let peeked =
                rustix::net::recvmsg(&self.fd, &mut [IoSliceMut::new(&mut [0; 1])], &mut control, flags);
            let Ok(peeked) = peeked else { return Err(self) };
            if peeked.flags.contains(rustix::net::ReturnFlags::CTRUNC) {
                return Err(self);
            }
            // Each message has a sender; without one this is the end.
            if control.drain().next().is_none() {
                return Ok(());
            }
            if self.recv(&mut [0; 1]).is_err() {
                return Err(self);
            }
        }
    }

    /// Takes in an fd. Whether it really is such a socket shows at the first use.
    #[must_use]
    pub fn adopt(fd: OwnedFd) -> Self {
        Conn { fd, speaks_for: None }
    }

    /// Asks for the credentials of each message's sender.
    ///
    /// # Errors
    /// ENOTSOCK.
    pub fn want_creds(&self) -> io::Result<()> {
        Ok(sockopt::set_socket_passcred(&self.fd, true)?)
    }

    /// From now on each message is sent for user `uid`: its receiver sees him as the sender, and this process's number.
    ///
    /// Source: unix(7), SCM_CREDENTIALS. Sending needs CAP_SETUID.
    pub fn speak_for(&mut self, uid: u32) {
        self.speaks_for = Some(uid);
    }

    /// Sends one message, never waiting, never raising SIGPIPE.
    ///
    /// # Errors
    /// EAGAIN if the peer does not read, EPIPE if it is gone, ENOTSOCK and so on.
    pub fn send(&self, data: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        self.send_flags(data, fds, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)
    }

    /// Sends one message, waiting until there is room, also if somebody has made the socket non-blocking.
    ///
    /// # Errors
    /// EPIPE if the peer is gone.
    pub fn send_waiting(&self, data: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        use rustix::event::{PollFd, PollFlags, poll};
        loop {
            match self.send_flags(data, fds, SendFlags::NOSIGNAL) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    let _ = poll(&mut [PollFd::new(&self.fd, PollFlags::OUT)], None);
                }
                other => return other,
            }
        }
    }

    fn send_flags(&self, data: &[u8], fds: &[BorrowedFd<'_>], flags: SendFlags) -> io::Result<()> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS), ScmCredentials(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if let Some(uid) = self.speaks_for {
            let cred = rustix::net::UCred {
                pid: rustix::process::getpid(),
                uid: rustix::fs::Uid::from_raw(uid),
                gid: rustix::process::getgid(),
            };
            if !control.push(SendAncillaryMessage::ScmCredentials(cred)) {
                return Err(io::ErrorKind::InvalidInput.into());
            }
        }
        if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        rustix::net::sendmsg(&self.fd, &[IoSlice::new(data)], &mut control, flags)?;
        Ok(())
    }

    /// Receives one message into `buf` if one is there. An empty message with no fds means that the peer hung up.
    ///
    /// # Errors
    /// EAGAIN if there is none.
    pub fn recv(&self, buf: &mut [u8]) -> io::Result<Message> {
        let mut space =
            [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_RECEIVED_FDS), ScmCredentials(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
        let got = rustix::net::recvmsg(&self.fd, &mut [IoSliceMut::new(buf)], &mut control, flags)?;
        let mut message = Message {
            len_bytes: got.bytes,
            truncated: got.flags.contains(rustix::net::ReturnFlags::TRUNC)
                || got.flags.contains(rustix::net::ReturnFlags::CTRUNC),
            fds_lost: got.flags.contains(rustix::net::ReturnFlags::CTRUNC),
            fds: Vec::new(),
            creds: None,
        };
        for part in control.drain() {
            match part {
                RecvAncillaryMessage::ScmRights(fds) => message.fds.extend(fds.map(crate::place::keep)),
                RecvAncillaryMessage::ScmCredentials(c) => {
                    let pid = u32::try_from(c.pid.as_raw_nonzero().get()).unwrap_or(0);
                    message.creds = Some(Creds { pid, uid: c.uid.as_raw() });
                }
                _ => {}
            }
        }
        Ok(message)
    }

    /// The process at the other end, as of when it connected or listened. Its number is 0 if it lives where we cannot see it.
    ///
    /// # Errors
    /// ENOTSOCK.
    pub fn peer(&self) -> io::Result<Creds> {
        // Not through rustix, whose `Pid` cannot be 0.
        let mut cred = libc::ucred { pid: 0, uid: 0, gid: 0 };
        let mut len = size_of::<libc::ucred>() as libc::socklen_t;
        // SAFETY: getsockopt writes at most `len` bytes, the size of the structure that we lend it.
        let failed = unsafe {
            libc::getsockopt(
                self.fd.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERCRED,
                (&raw mut cred).cast(),
                &raw mut len,
            )
        } != 0;
        if failed {
            return Err(io::Error::last_os_error());
        }
        Ok(Creds { pid: u32::try_from(cred.pid).unwrap_or(0), uid: cred.uid })
    }

    /// The fd.
    #[must_use]
    pub fn into_fd(self) -> OwnedFd {
        self.fd
    }
}

impl AsFd for Conn {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// What the two ends of a connected unix socket are called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    /// Our end's name in the abstract namespace.
    pub own: Vec<u8>,
    /// The path at which the other end listens.
    pub peer: PathBuf,
}

/// The names of any fd that is a connected SEQPACKET unix socket whose own end has an abstract name and whose other end a path; None for every
/// other fd. Asks the kernel only: nobody else can notice, and for an fd that is no socket it costs one system call.
#[must_use]
pub fn names(fd: BorrowedFd<'_>) -> Option<Names> {
    let own = SocketAddrUnix::try_from(rustix::net::getsockname(fd).ok()?).ok()?;
    let own = own.abstract_name().filter(|name| !name.is_empty())?.to_vec();
    if sockopt::socket_type(fd).ok()? != SocketType::SEQPACKET {
        return None;
    }
    let peer = SocketAddrUnix::try_from(rustix::net::getpeername(fd).ok()??).ok()?;
    let peer = PathBuf::from(OsStr::from_bytes(peer.path_bytes()?));
    Some(Names { own, peer })
}

/// A listening socket.
#[derive(Debug)]
pub struct Listener {
    fd: OwnedFd,
}

impl Listener {
    /// Binds and listens at `path`, which must not exist.
    ///
    /// # Errors
    /// EADDRINUSE, EACCES.
    pub fn bind(path: &Path) -> io::Result<Self> {
        let fd = socket()?;
        // Accepted sockets inherit this, so that even a message already queued at accept carries its sender.
        sockopt::set_socket_passcred(&fd, true)?;
        rustix::net::bind(&fd, &SocketAddrUnix::new(path)?)?;
        rustix::net::listen(&fd, 1024)?;
        rustix::io::ioctl_fionbio(&fd, true)?;
        Ok(Listener { fd })
    }

    /// Takes one waiting connection, which asks for credentials.
    ///
    /// # Errors
    /// EAGAIN if none waits; EMFILE.
    pub fn accept(&self) -> io::Result<Conn> {
        let fd = rustix::net::accept_with(&self.fd, SocketFlags::CLOEXEC)?;
        let conn = Conn::adopt(fd);
        conn.want_creds()?;
        Ok(conn)
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn socket() -> io::Result<OwnedFd> {
    Ok(rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_carries_fds_and_the_kernels_word_on_its_sender() {
        let (a, b) = Conn::pair().unwrap();
        b.want_creds().unwrap();
        let (x, y) = Conn::pair().unwrap();
        a.send(b"hello", &[x.as_fd()]).unwrap();
        drop(x);
        let mut buf = [0; 16];
        let m = b.recv(&mut buf).unwrap();
        assert_eq!((&buf[..m.len_bytes], m.truncated, m.fds.len()), (&b"hello"[..], false, 1));
        let uid = rustix::process::getuid().as_raw();
        assert_eq!(m.creds, Some(Creds { pid: std::process::id(), uid }));
        y.send(b"through", &[]).unwrap();
        let x = Conn::adopt(m.fds.into_iter().next().unwrap());
        assert_eq!(x.recv(&mut buf).unwrap().len_bytes, 7);
    }

    #[test]
    fn a_named_connection_is_told_from_all_other_fds_without_a_word() {
        let path = std::env::temp_dir().join(format!("ringway-sock-test-{}", std::process::id()));
        let listener = Listener::bind(&path).unwrap();
        let conn = Conn::connect_named(&path, "ringway-test-").unwrap();
        let plain = Conn::connect(&path).unwrap();
        let _ = std::fs::remove_file(&path);
        let accepted = listener.accept().unwrap();
        let found = names(conn.as_fd()).expect("a named connection");
        assert!(found.own.starts_with(b"ringway-test-"));
        assert_eq!(found.peer, path);
        assert_eq!(conn.peer().unwrap(), Creds { pid: std::process::id(), uid: crate::sys::euid() });
        let (stream, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        let (pair, _far) = Conn::pair().unwrap();
        let file = std::fs::File::open("/dev/null").unwrap();
        for other in
            [plain.as_fd(), accepted.as_fd(), listener.as_fd(), stream.as_fd(), pair.as_fd(), file.as_fd()]
        {
            assert_eq!(names(other), None);
        }
        assert!(accepted.recv(&mut [0; 4]).is_err(), "nothing was sent");
    }

    #[test]
    fn sending_waits_on_a_socket_that_somebody_made_non_blocking() {
        let (a, b) = Conn::pair().unwrap();
        rustix::io::ioctl_fionbio(&a, true).unwrap();
        let packets = 2000;
        let reader = std::thread::spawn(move || {
            let mut buf = [0; 1000];
            for _ in 0..packets {
                assert!(crate::sys::wait_readable(b.as_fd(), std::time::Duration::from_secs(10)).unwrap());
                assert_eq!(b.recv(&mut buf).unwrap().len_bytes, 1000);
            }
        });
        for _ in 0..packets {
            a.send_waiting(&[7; 1000], &[]).unwrap();
        }
        reader.join().unwrap();
    }

    #[test]
    fn a_long_message_is_marked_and_a_hang_up_is_empty() {
        let (a, b) = Conn::pair().unwrap();
        let mut buf = [0; 4];
        assert_eq!(b.recv(&mut buf).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        a.send(b"too long", &[]).unwrap();
        assert!(b.recv(&mut buf).unwrap().truncated);
        drop(a);
        assert_eq!(b.recv(&mut buf).unwrap().len_bytes, 0);
    }

    #[test]
    fn as_many_fds_come_as_can_be_sent() {
        let (a, b) = Conn::pair().unwrap();
        let fds = [a.as_fd(); MAX_RECEIVED_FDS];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_RECEIVED_FDS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
        rustix::net::sendmsg(&a, &[IoSlice::new(b"all")], &mut control, SendFlags::DONTWAIT).unwrap();
        let m = b.recv(&mut [0; 8]).unwrap();
        assert_eq!((m.fds.len(), m.truncated), (MAX_RECEIVED_FDS, false));
    }

    #[test]
    fn only_named_sockets_of_this_type_never_wait() {
        let (a, b) = Conn::pair().unwrap();
        assert!(a.never_waits() && b.never_waits());
        let pair =
            |ty| rustix::net::socketpair(AddressFamily::UNIX, ty, SocketFlags::CLOEXEC, None).unwrap().0;
        assert!(!Conn::adopt(pair(SocketType::SEQPACKET)).never_waits(), "it has no name");
        let stream = pair(SocketType::STREAM);
        rustix::net::bind(&stream, &SocketAddrUnix::new_unnamed()).unwrap();
        assert!(!Conn::adopt(stream).never_waits());
        let tcp = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
        assert!(!Conn::adopt(tcp).never_waits());
        // A path that fills its field, so that no NUL ends it.
        let dir = std::env::temp_dir().join(format!("ringway-sock-{}", std::process::id()));
        std::fs::create_dir(&dir).unwrap();
        let mut path = dir.join("").into_os_string();
        path.push("x".repeat(108 - path.len()));
        let long = pair(SocketType::SEQPACKET);
        rustix::net::bind(&long, &SocketAddrUnix::new(Path::new(&path)).unwrap()).unwrap();
        assert!(Conn::adopt(long).never_waits());
        std::fs::remove_dir_all(&dir).unwrap();
        let bell = crate::event::Doorbell::new().unwrap();
        assert!(!Conn::adopt(bell.as_fd().try_clone_to_owned().unwrap()).never_waits());
    }

    #[test]
    fn a_connection_with_fds_under_way_is_not_closed_at_once() {
        for fds in [0, 1] {
            let (a, b) = Conn::pair().unwrap();
            b.want_creds().unwrap();
            for text in [&b""[..], b"longer than the look"] {
                a.send(text, &[]).unwrap();
            }
            a.send(b"last", &[a.as_fd()][..fds]).unwrap();
            let left = b.close_at_once();
            assert_eq!(left.is_err(), fds == 1);
            assert!(a.send(b"too late", &[]).is_err());
            if let Err(b) = left {
                assert_eq!(b.recv(&mut [0; 8]).unwrap().fds.len(), 1);
            }
        }
    }
}
