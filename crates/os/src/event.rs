//! Doorbells and epoll.
//!
//! Source: eventfd(2), epoll(7).

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::event::epoll;
pub use rustix::event::epoll::EventFlags;

/// An eventfd that is rung and never drained: every sleeper watches it edge-triggered, so that each of them gets its edge.
#[derive(Debug)]
pub struct Doorbell {
    fd: OwnedFd,
}

impl Doorbell {
    /// A new one.
    ///
    /// # Errors
    /// EMFILE, ENOMEM.
    pub fn new() -> io::Result<Self> {
        let flags = rustix::event::EventfdFlags::CLOEXEC | rustix::event::EventfdFlags::NONBLOCK;
        Ok(Doorbell { fd: rustix::event::eventfd(0, flags)? })
    }

    /// Takes in an fd that another process sent. What it really is does not matter: ringing writes eight bytes
    /// into it without waiting.
    #[must_use]
    pub fn adopt(fd: OwnedFd) -> Self {
        Doorbell { fd }
    }

    /// Rings. A counter that is full has an edge pending anyway.
    ///
    /// Only for doorbells shared within one uid: a hostile holder could make the fd blocking. See [`PrivateBell`].
    pub fn ring(&self) {
        let _ = rustix::io::write(&self.fd, &1u64.to_ne_bytes());
    }
}

/// Whether an fd is an eventfd.
///
/// # Errors
/// EBADF if it is closed, EINVAL if it is something else: what the kernel answers who looks one up.
pub fn check_eventfd(fd: BorrowedFd<'_>) -> io::Result<()> {
    rustix::io::fcntl_getfd(fd)?;
    match std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())) {
        Ok(what) if what.as_os_str() == "anon_inode:[eventfd]" => Ok(()),
        Ok(_) => Err(rustix::io::Errno::INVAL.into()),
        // Without /proc nobody can tell.
        Err(_) => Ok(()),
    }
}

impl AsFd for Doorbell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// A doorbell that the broker rings towards clients: they get an epoll fd that *contains* the eventfd, since whoever holds an eventfd
/// can fill it and make it blocking for all.
#[derive(Debug)]
pub struct PrivateBell {
    bell: Arc<Doorbell>,
    lent: Arc<LentBell>,
}

/// What a client holds of a [`PrivateBell`]: something to watch, edge-triggered, and nothing to write to.
#[derive(Debug)]
pub struct LentBell {
    fd: OwnedFd,
}

impl LentBell {
    /// Takes in an fd that the broker sent.
    #[must_use]
    pub fn adopt(fd: OwnedFd) -> Self {
        LentBell { fd }
    }
}

impl AsFd for LentBell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl PrivateBell {
    /// A new one.
    ///
    /// # Errors
    /// EMFILE, ENOMEM.
    pub fn new() -> io::Result<Self> {
        let bell = Arc::new(Doorbell::new()?);
        let lent = Epoll::new()?;
        lent.add(&*bell, 0, EventFlags::IN | EventFlags::ET)?;
        Ok(PrivateBell { bell, lent: Arc::new(LentBell { fd: lent.fd }) })
    }

    /// Rings.
    pub fn ring(&self) {
        self.bell.ring();
    }

    /// The bell itself, for the broker's own drivers.
    #[must_use]
    pub fn bell(&self) -> &Arc<Doorbell> {
        &self.bell
    }

    /// One more like [`PrivateBell::lent`], for somebody who must not meddle with the one that others watch.
    ///
    /// # Errors
    /// EMFILE, ENOMEM.
    pub fn lend_apart(&self) -> io::Result<LentBell> {
        let lent = Epoll::new()?;
        lent.add(&*self.bell, 0, EventFlags::IN | EventFlags::ET)?;
        Ok(LentBell { fd: lent.fd })
    }

    /// For clients: readable edge after each ring; there is nothing they can write to or take out.
    #[must_use]
    pub fn lent(&self) -> &Arc<LentBell> {
        &self.lent
    }
}

/// An epoll instance.
#[derive(Debug)]
pub struct Epoll {
    fd: OwnedFd,
}

impl Epoll {
    /// A new one.
    ///
    /// # Errors
    /// EMFILE, ENOMEM.
    pub fn new() -> io::Result<Self> {
        Ok(Epoll { fd: crate::place::keep(epoll::create(epoll::CreateFlags::CLOEXEC)?) })
    }

    /// Watches `fd`; its events carry `token`.
    ///
    /// # Errors
    /// What epoll_ctl answers: EPERM (a file that cannot be polled), EEXIST.
    pub fn add(&self, fd: impl AsFd, token: u64, events: EventFlags) -> io::Result<()> {
        Ok(epoll::add(&self.fd, fd, epoll::EventData::new_u64(token), events)?)
    }

    /// Changes what is watched on `fd`.
    ///
    /// # Errors
    /// ENOENT if it is not watched.
    pub fn modify(&self, fd: impl AsFd, token: u64, events: EventFlags) -> io::Result<()> {
        Ok(epoll::modify(&self.fd, fd, epoll::EventData::new_u64(token), events)?)
    }

    /// Watches `fd` no more.
    ///
    /// # Errors
    /// ENOENT if it is not watched.
    pub fn remove(&self, fd: impl AsFd) -> io::Result<()> {
        Ok(epoll::delete(&self.fd, fd)?)
    }

    /// Waits until something happens or `timeout` (None: for ever) is over. Returns tokens with their events; none on
    /// time-out or when a signal came.
    ///
    /// # Errors
    /// What epoll_wait answers.
    pub fn wait<'b>(
        &self,
        out: &'b mut EventBuf,
        timeout: Option<Duration>,
    ) -> io::Result<&'b [(u64, EventFlags)]> {
        out.got.clear();
        let spec = timeout.map(|t| rustix::event::Timespec {
            tv_sec: t.as_secs().min(i64::MAX as u64) as i64,
            tv_nsec: t.subsec_nanos().into(),
        });
        let mut raw = [const { std::mem::MaybeUninit::<epoll::Event>::uninit() }; 64];
        match epoll::wait(&self.fd, &mut raw, spec.as_ref()) {
            Ok((events, _)) => {
                out.got.extend(events.iter().map(|e| {
                    let (data, flags) = (e.data, e.flags);
                    (data.u64(), flags)
                }));
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
        Ok(&out.got)
    }
}

impl AsFd for Epoll {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Room for the answers of [`Epoll::wait`].
#[derive(Debug, Default)]
pub struct EventBuf {
    got: Vec<(u64, EventFlags)>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edges(epoll: &Epoll) -> usize {
        epoll.wait(&mut EventBuf::default(), Some(Duration::ZERO)).unwrap().len()
    }

    #[test]
    fn every_watcher_of_a_doorbell_gets_its_own_edge() {
        let bell = Doorbell::new().unwrap();
        let watchers = [Epoll::new().unwrap(), Epoll::new().unwrap()];
        for w in &watchers {
            w.add(&bell, 7, EventFlags::IN | EventFlags::ET).unwrap();
        }
        for _ in 0..3 {
            bell.ring();
            assert_eq!(watchers.each_ref().map(edges), [1, 1]);
            assert_eq!(watchers.each_ref().map(edges), [0, 0]);
        }
    }

    #[test]
    fn a_private_bell_gives_edges_through_the_lent_fd_and_cannot_be_filled() {
        let bell = PrivateBell::new().unwrap();
        let watcher = Epoll::new().unwrap();
        watcher.add(bell.lent().as_fd(), 1, EventFlags::IN | EventFlags::ET).unwrap();
        for _ in 0..3 {
            bell.ring();
            assert_eq!((edges(&watcher), edges(&watcher)), (1, 0));
        }
        assert!(rustix::io::write(bell.lent().as_fd(), &1u64.to_ne_bytes()).is_err());
        // What is lent apart has edges of its own, whoever drains the other.
        let (apart, other) = (bell.lend_apart().unwrap(), Epoll::new().unwrap());
        other.add(apart.as_fd(), 1, EventFlags::IN | EventFlags::ET).unwrap();
        edges(&other);
        bell.ring();
        let drain = Epoll { fd: bell.lent().as_fd().try_clone_to_owned().unwrap() };
        assert_eq!((edges(&drain), edges(&watcher), edges(&other)), (1, 0, 1));
    }

    #[test]
    fn an_eventfd_is_told_from_other_files() {
        let (bell, epoll) = (Doorbell::new().unwrap(), Epoll::new().unwrap());
        assert!(check_eventfd(bell.as_fd()).is_ok());
        assert_eq!(check_eventfd(epoll.as_fd()).unwrap_err().raw_os_error(), Some(libc::EINVAL));
    }

    #[test]
    fn a_full_doorbell_neither_blocks_nor_fails() {
        let bell = Doorbell::new().unwrap();
        rustix::io::write(&bell, &(u64::MAX - 1).to_ne_bytes()).unwrap();
        bell.ring();
    }
}
