//! The memory of a caller.
//!
//! The kernel tells a number of a thread and a user. By the time we look, the caller may be dead and the number somebody else's. So
//! its entry in /proc is opened once; then it is checked that this is a thread of that user, and that it is not younger than the
//! request. What was opened before the check stays with that one's memory, and reads nothing when it is dead.
//!
//! A page of the caller may be one that he fills himself (userfaultfd), and never does. So memory is touched in a thread of its own, on which
//! nobody waits longer than [`PATIENCE`].

use super::nested::UserMemory;
use ringway_abi::Errno;
use ringway_os::proc::{ProcDir, boot_nanos, copy_fd};
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc;
use std::time::Duration;

/// How long a caller's memory may take.
const PATIENCE: Duration = Duration::from_secs(1);
/// Threads that hang in one user's memory, at most.
const MAX_STUCK: usize = 16;

/// Who made a request, as the kernel says.
#[derive(Clone, Copy, Debug)]
pub(super) struct Caller {
    pub tid: u32,
    pub uid: u32,
    /// When we heard of it: boot time.
    pub asked: u64,
}

impl Caller {
    pub fn of(req: &fuser::Request) -> Self {
        Caller { tid: req.pid(), uid: req.uid(), asked: boot_nanos() }
    }

    /// One of the files of his entry in /proc, if the number is still his.
    pub fn file(&self, name: &str, write: bool) -> Result<File, Errno> {
        let dir = ProcDir::open(self.tid).map_err(|_| Errno::EFAULT)?;
        let file = dir.file(name, write).map_err(|e| {
            tracing::warn!(self.tid, "cannot open {name} of a caller: {e}");
            Errno::EFAULT
        })?;
        // Checked after it was opened, by the same entry: a stranger's memory is never touched. What the kernel guards (a program with
        // privileges of its own, into which the caller may have changed meanwhile) belongs to root there.
        let owner = dir.memory_owner().map_err(|_| Errno::EFAULT)?;
        let (uid, start) = dir.user_and_start().map_err(|_| Errno::EFAULT)?;
        if uid != self.uid || owner != self.uid || start > self.asked {
            tracing::warn!(
                self.tid,
                self.uid,
                "a caller is gone and its number another's, or its memory is guarded"
            );
            return Err(Errno::EFAULT);
        }
        Ok(file)
    }

    /// A copy of one of his fds. A hostile one may make whatever is done with it wait, closing too: for a thread that may.
    pub fn copy_fd(&self, number: i32) -> Result<OwnedFd, Errno> {
        let gone = |_| Errno::EFAULT;
        let process = ProcDir::open(self.tid).and_then(|dir| dir.process()).map_err(gone)?;
        let pidfd = ringway_os::sys::pidfd_open(process).map_err(gone)?;
        // That the number is still his is checked after the pidfd was opened: then that is his, too.
        self.file("status", false)?;
        copy_fd(&pidfd, number).map_err(|_| Errno::EBADF)
    }

    /// His memory.
    pub fn memory(&self) -> Result<CallerMemory, Errno> {
        self.file("mem", true).map(CallerMemory)
    }
}

/// One open `/proc/PID/mem`.
#[derive(Debug)]
pub(super) struct CallerMemory(File);

impl UserMemory for CallerMemory {
    fn read(&self, addr: u64, buf: &mut [u8]) -> Result<(), Errno> {
        self.0.read_exact_at(buf, addr).map_err(|_| Errno::EFAULT)
    }

    fn write(&self, addr: u64, data: &[u8]) -> Result<(), Errno> {
        self.0.write_all_at(data, addr).map_err(|_| Errno::EFAULT)
    }
}

/// Threads of one user that are in his callers' memory.
#[derive(Clone, Debug, Default)]
pub(super) struct Patience(Arc<AtomicUsize>);

struct Count(Arc<AtomicUsize>);

impl Drop for Count {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

impl Patience {
    /// Does `work` in a thread of its own; EFAULT if it takes too long, or too many of this user's do.
    pub fn with<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Errno> {
        let count = Count(self.0.clone());
        if self.0.fetch_add(1, Relaxed) >= MAX_STUCK {
            return Err(Errno::EFAULT);
        }
        let (tx, rx) = mpsc::sync_channel(1);
        let thread = std::thread::Builder::new().name("memory".into()).stack_size(128 << 10);
        let started = thread.spawn(move || {
            let done = work();
            drop(count);
            let _ = tx.send(done);
        });
        started.map_err(|_| Errno::ENOMEM)?;
        rx.recv_timeout(PATIENCE).map_err(|_| Errno::EFAULT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_had_of_the_right_user_and_no_younger_caller() {
        let tid = std::process::id();
        let uid = ringway_os::sys::euid();
        let text = *b"hello";
        let me = Caller { tid, uid, asked: boot_nanos() };
        let memory = me.memory().unwrap();
        let mut buf = [0; 5];
        memory.read(text.as_ptr() as u64, &mut buf).unwrap();
        assert_eq!(buf, text);
        assert_eq!(memory.read(8, &mut buf), Err(Errno::EFAULT));
        assert!(Caller { uid: uid + 1, ..me }.memory().is_err(), "another user's");
        assert!(Caller { asked: 1, ..me }.memory().is_err(), "younger than the request");
    }

    #[test]
    fn nobody_waits_long_and_few_threads_hang() {
        let patience = Patience::default();
        assert_eq!(patience.with(|| 5), Ok(5));
        let gate = Arc::new(std::sync::Barrier::new(MAX_STUCK + 1));
        let waiters: Vec<_> = (0..MAX_STUCK)
            .map(|_| {
                let (patience, gate) = (patience.clone(), gate.clone());
                std::thread::spawn(move || patience.with(move || gate.wait()).err())
            })
            .collect();
        for waiter in waiters {
            assert_eq!(waiter.join().unwrap(), Some(Errno::EFAULT));
        }
        assert_eq!(patience.with(|| 5), Err(Errno::EFAULT), "too many hang");
        gate.wait();
        while patience.with(|| 5).is_err() {
            std::thread::yield_now();
        }
    }
}
