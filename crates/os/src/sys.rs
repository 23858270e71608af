//! Small questions to the kernel.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

/// The processor that this thread runs on, plus 1 (0 means "not known" in shared words).
#[inline]
#[must_use]
pub fn this_cpu_plus_1() -> u32 {
    rustix::thread::sched_getcpu() as u32 + 1
}

/// Lets another thread run on this processor.
#[inline]
pub fn yield_now() {
    rustix::thread::sched_yield();
}

/// Sleeps.
pub fn sleep(time: Duration) {
    std::thread::sleep(time);
}

/// Nanoseconds of the monotonic clock.
#[inline]
#[must_use]
pub fn monotonic_nanos() -> u64 {
    let t = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    t.tv_sec as u64 * 1_000_000_000 + t.tv_nsec as u64
}

/// Seconds and microseconds of the wall clock.
#[inline]
#[must_use]
pub fn wall_clock() -> (u64, u64) {
    let t = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
    (t.tv_sec as u64, t.tv_nsec as u64 / 1000)
}

/// Nanoseconds of CPU that this thread has used.
#[must_use]
pub fn thread_cpu_nanos() -> u64 {
    let t = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    t.tv_sec as u64 * 1_000_000_000 + t.tv_nsec as u64
}

/// Nanoseconds of CPU that this process has used, user and system.
#[must_use]
pub fn process_cpu_nanos() -> u64 {
    let t = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    t.tv_sec as u64 * 1_000_000_000 + t.tv_nsec as u64
}

/// Context switches that this thread suffered because others wanted the processor.
#[must_use]
pub fn involuntary_switches() -> u64 {
    // SAFETY: getrusage fills the structure that we lend it.
    unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_THREAD, &raw mut usage);
        usage.ru_nivcsw as u64
    }
}

/// Binds this thread to one processor.
///
/// # Errors
/// EINVAL if there is no such processor.
pub fn pin_to_cpu(cpu: usize) -> io::Result<()> {
    let mut set = rustix::thread::CpuSet::new();
    set.set(cpu);
    Ok(rustix::thread::sched_setaffinity(None, &set)?)
}

/// Raises the limit of open files of this process to what the hard limit permits; returns the limit.
pub fn raise_open_files() -> u64 {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let now = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: now.maximum, maximum: now.maximum });
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// The network namespace of the process at the other end of a unix socket accepted by us, as an fd.
///
/// Source: `SIOCGSKNS`, include/uapi/linux/sockios.h.
///
/// # Errors
/// EPERM without CAP_NET_ADMIN.
pub fn socket_netns(socket: impl AsFd) -> io::Result<OwnedFd> {
    use std::os::fd::AsRawFd;
    const SIOCGSKNS: libc::c_ulong = 0x894C;
    // SAFETY: the ioctl takes no argument and returns a new fd or -1.
    let fd = unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), SIOCGSKNS) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a fresh fd that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// An fd for the process `pid`; readable when it is dead.
///
/// # Errors
/// ESRCH if there is none.
pub fn pidfd_open(pid: u32) -> io::Result<OwnedFd> {
    let pid = i32::try_from(pid)
        .ok()
        .and_then(rustix::process::Pid::from_raw)
        .ok_or(io::ErrorKind::InvalidInput)?;
    Ok(rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())?)
}

/// True if the fd is readable (or hung up) now.
#[must_use]
pub fn is_readable(fd: BorrowedFd<'_>) -> bool {
    let mut fds = [rustix::event::PollFd::from_borrowed_fd(fd, rustix::event::PollFlags::IN)];
    let zero = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
    matches!(rustix::event::poll(&mut fds, Some(&zero)), Ok(n) if n > 0)
}
