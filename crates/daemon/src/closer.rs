//! Closing what clients sent or were lent. A hostile holder can make even `close` wait for as long as he likes: a TCP socket lingers,
//! a FUSE server does not answer, an epoll that watches the file is busy for ever. So the thread that serves everybody closes no such
//! file. For each user a thread does, which begins with the first file and ends when none has come for a while: who makes it wait, makes
//! himself wait.
//!
//! Files that wait are counted. A user with too many of them is refused until they are closed: see [`Closers::is_full`].

use ringway_abi::Errno;
use ringway_core::control::ControlError;
use ringway_os::sock::Conn;
use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long a thread without files stays.
const IDLE_BEFORE_END: Duration = Duration::from_secs(10);

/// Whatever closes files when it is dropped.
type Files = Box<dyn Send>;

/// The files of one user.
#[derive(Default)]
struct User {
    queue: VecDeque<Files>,
    /// In the queue, or being closed.
    waiting: usize,
    /// A thread looks after them.
    runs: bool,
    bell: Arc<Condvar>,
}

#[derive(Default)]
struct Shared {
    /// Held for moments only, never while a file is closed.
    users: Mutex<HashMap<u32, User>>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, HashMap<u32, User>> {
        self.users.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The closing threads of all users.
#[derive(Clone)]
pub struct Closers {
    shared: Arc<Shared>,
    /// Files that may wait, of one user.
    limit: usize,
}

impl fmt::Debug for Closers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Closers").field("limit", &self.limit).finish_non_exhaustive()
    }
}

impl Closers {
    /// None yet. `limit`: files that may wait, of one user.
    pub fn new(limit: usize) -> Self {
        Closers { shared: Arc::default(), limit }
    }

    /// Closes files of user `uid` some time soon. Never waits.
    pub fn close(&self, uid: u32, files: impl Send + 'static) {
        let mut users = self.shared.lock();
        let user = users.entry(uid).or_default();
        user.queue.push_back(Box::new(files));
        user.waiting += 1;
        if user.runs {
            user.bell.notify_one();
            return;
        }
        let shared = self.shared.clone();
        let thread = std::thread::Builder::new().name(format!("closer {uid}")).stack_size(64 << 10);
        match thread.spawn(move || run(&shared, uid)) {
            Ok(_) => user.runs = true,
            // They wait for the next one.
            Err(e) => tracing::warn!("cannot start a closing thread: {e}"),
        }
    }

    /// Closes a connection of ours, on the spot where that cannot wait: a user who is refused must not be able to fill the queue with
    /// empty connections.
    pub fn close_conn(&self, uid: u32, conn: Conn) {
        if let Err(conn) = conn.close_at_once() {
            self.close(uid, conn);
        }
    }

    /// Files that wait, of one user.
    pub fn waiting(&self, uid: u32) -> usize {
        self.shared.lock().get(&uid).map_or(0, |u| u.waiting)
    }

    /// Files that wait, of all.
    pub fn waiting_of_all(&self) -> usize {
        self.shared.lock().values().map(|u| u.waiting).sum()
    }

    /// Threads that run.
    #[cfg(test)]
    fn threads(&self) -> usize {
        self.shared.lock().values().filter(|u| u.runs).count()
    }

    /// The refusal for a user of whose files too many wait to be closed. What he sends is not even received then: his sessions
    /// end, so that they cannot bring more.
    pub fn is_full(&self, uid: u32) -> Option<ControlError> {
        let waiting = self.waiting(uid);
        (waiting >= self.limit).then(|| {
            let text = format!(
                "{waiting} files that this user's programs sent or were lent cannot be closed (limits.closing): end the program that keeps them busy"
            );
            ControlError::new(Errno::EBUSY, text)
        })
    }
}

fn run(shared: &Shared, uid: u32) {
    let mut users = shared.lock();
    // The entry is there as long as the thread is.
    while let Some(user) = users.get_mut(&uid) {
        if let Some(files) = user.queue.pop_front() {
            drop(users);
            drop(files);
            users = shared.lock();
            if let Some(user) = users.get_mut(&uid) {
                user.waiting -= 1;
            }
            continue;
        }
        let bell = user.bell.clone();
        let is_empty = |users: &mut HashMap<u32, User>| users.get(&uid).is_some_and(|u| u.queue.is_empty());
        let woken = bell.wait_timeout_while(users, IDLE_BEFORE_END, is_empty);
        let (guard, end) = woken.unwrap_or_else(PoisonError::into_inner);
        users = guard;
        if end.timed_out() {
            users.remove(&uid);
        }
    }
}

/// A file that a client sent. However it goes out of use, the closing thread of that client's user closes it.
#[derive(Debug)]
pub struct Foreign {
    /// None only while it is dropped.
    conn: Option<Conn>,
    uid: u32,
    closers: Closers,
}

impl Foreign {
    /// A file from user `uid`.
    pub fn new(fd: OwnedFd, uid: u32, closers: &Closers) -> Self {
        Foreign { conn: Some(Conn::adopt(fd)), uid, closers: closers.clone() }
    }

    /// It, as a socket that never makes us wait. None if it is something else.
    pub fn socket(&self) -> Option<&Conn> {
        self.conn.as_ref().filter(|c| c.never_waits())
    }

    /// For system calls that look at no file's own methods.
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.conn.as_ref().map(AsFd::as_fd)
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        if let Some(conn) = self.conn.take() {
            self.closers.close(self.uid, conn);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;
    use std::time::Instant;

    /// Files whose closing waits until the sender is gone.
    struct Stuck(mpsc::Receiver<()>);

    impl Drop for Stuck {
        fn drop(&mut self) {
            let _ = self.0.recv();
        }
    }

    fn wait_until(what: impl Fn() -> bool) {
        let end = Instant::now() + Duration::from_secs(10);
        while !what() {
            assert!(Instant::now() < end, "it never came");
            std::thread::yield_now();
        }
    }

    #[test]
    fn one_users_files_wait_without_anothers() {
        let closers = Closers::new(3);
        let (keep, stuck) = mpsc::channel();
        closers.close(1, Stuck(stuck));
        for n in 1..3 {
            assert!(closers.is_full(1).is_none(), "{n}");
            closers.close(1, ());
        }
        assert_eq!(closers.is_full(1).map(|e| e.errno), Some(Errno::EBUSY));
        for _ in 0..100 {
            let (end, other) = mpsc::channel();
            drop(end);
            closers.close(2, Stuck(other));
        }
        wait_until(|| closers.waiting(2) == 0);
        assert!(closers.is_full(2).is_none());
        assert_eq!((closers.waiting(1), closers.waiting_of_all(), closers.threads()), (3, 3, 2));
        drop(keep);
        wait_until(|| closers.waiting(1) == 0);
        assert!(closers.is_full(1).is_none());
    }

    #[test]
    fn a_file_that_is_forgotten_is_closed_for_its_user() {
        let closers = Closers::new(3);
        let (keep, stuck) = mpsc::channel();
        closers.close(7, Stuck(stuck));
        let (a, b) = Conn::pair().unwrap();
        drop(Foreign::new(b.into_fd(), 7, &closers));
        assert_eq!(closers.waiting(7), 2);
        assert!(a.send(b"x", &[]).is_ok(), "it is open still");
        drop(keep);
        wait_until(|| a.send(b"x", &[]).is_err());
    }
}
