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

/// A number that nobody can guess.
///
/// # Errors
/// What the kernel answers.
pub fn secret_number() -> io::Result<u128> {
    let mut bytes = [0; 16];
    // So few bytes come at once, or not at all.
    let got = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    if got < bytes.len() { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(u128::from_ne_bytes(bytes)) }
}

/// True if this program has rights that who started it may lack (set-user-ID, file capabilities): his environment is not to be believed.
///
/// Source: getauxval(3), `AT_SECURE`; ld.so(8), secure-execution mode.
#[must_use]
pub fn has_gained_rights() -> bool {
    // SAFETY: touches no memory.
    unsafe { libc::getauxval(libc::AT_SECURE) != 0 }
}

/// Sleeps.
pub fn sleep(time: Duration) {
    std::thread::sleep(time);
}

/// Lets sleeps of this thread end as exactly as the clock can, instead of up to 50 microseconds late, until dropped.
///
/// Source: prctl(2), PR_SET_TIMERSLACK.
#[derive(Debug)]
pub struct ExactSleeps {
    before: u64,
    /// It is a setting of the thread.
    _here: std::marker::PhantomData<*const ()>,
}

impl ExactSleeps {
    /// From now on. None if the kernel refuses.
    #[must_use]
    pub fn begin() -> Option<Self> {
        let before = rustix::thread::current_timer_slack().ok()?;
        rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1)).ok()?;
        Some(ExactSleeps { before, _here: std::marker::PhantomData })
    }
}

impl Drop for ExactSleeps {
    fn drop(&mut self) {
        let _ = rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(self.before));
    }
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

/// Nanoseconds that this thread has waited for a processor, though it could run. None if the kernel does not tell.
///
/// Source: kernel document scheduler/sched-stats, `/proc/PID/schedstat`.
#[must_use]
pub fn run_delay_nanos() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    text.split(' ').nth(1)?.parse().ok()
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

/// Processors that are online.
#[must_use]
pub fn online_cpus() -> u32 {
    // SAFETY: sysconf takes no pointer.
    let n = unsafe { libc::sysconf(libc::_SC_NPROCESSORS_ONLN) };
    u32::try_from(n).unwrap_or(1).max(1)
}

/// True if this process may run on a processor.
#[must_use]
pub fn may_run_on(cpu: usize) -> bool {
    let pid = Some(rustix::process::getpid());
    cpu < rustix::thread::CpuSet::MAX_CPU
        && rustix::thread::sched_getaffinity(pid).is_ok_and(|set| set.is_set(cpu))
}

/// Raises those limits of this process that are meant for whoever started it to what the hard limits permit: open files, sizes of files
/// (memfds count), memory, locked memory. A broker serves others, too.
pub fn raise_limits() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    for what in [Resource::Nofile, Resource::Fsize, Resource::As, Resource::Data, Resource::Memlock] {
        let now = getrlimit(what);
        let _ = setrlimit(what, Rlimit { current: now.maximum, maximum: now.maximum });
    }
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

/// Effective user of this process.
#[must_use]
pub fn euid() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// Leaves the caller's session and terminal, goes to `/`, and closes every inherited fd above standard error.
///
/// # Errors
/// What chdir answers.
pub fn detach_from_starter() -> io::Result<()> {
    let _ = rustix::process::setsid();
    rustix::process::chdir("/")?;
    // SAFETY: called at the start of the program, before it has opened any fd of its own that Rust would own.
    unsafe {
        libc::close_range(3, libc::c_uint::MAX, 0);
    }
    Ok(())
}

/// Takes a whole-file lock, or says that somebody has it.
///
/// # Errors
/// WouldBlock if it is taken.
pub fn try_lock_file(file: impl AsFd) -> io::Result<()> {
    Ok(rustix::fs::flock(file, rustix::fs::FlockOperation::NonBlockingLockExclusive)?)
}

/// True if `fd` is a file of a FUSE file system. The kernel asks that one (statfs): it may make us wait.
#[must_use]
pub fn is_fuse_file(fd: BorrowedFd<'_>) -> bool {
    const FUSE_SUPER_MAGIC: u64 = 0x6573_5546;
    rustix::fs::fstatfs(fd).is_ok_and(|s| s.f_type as u64 == FUSE_SUPER_MAGIC)
}

/// True if `fd` is a file of no special kind.
#[must_use]
pub fn is_plain_file(fd: BorrowedFd<'_>) -> bool {
    let is_plain = |mode| rustix::fs::FileType::from_raw_mode(mode) == rustix::fs::FileType::RegularFile;
    rustix::fs::fstat(fd).is_ok_and(|s| is_plain(s.st_mode))
}

/// An ioctl whose argument is a number, passed by its address.
///
/// # Errors
/// What it answers.
pub fn ioctl_number(fd: BorrowedFd<'_>, cmd: u32, mut number: i32) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    // The size is in the command: no more than that is read or written.
    if (cmd >> 16 & 0x3fff) as usize > size_of::<i32>() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: the command is encoded with a size that the number has; it outlives the call.
    let done = unsafe { libc::ioctl(fd.as_raw_fd(), libc::c_ulong::from(cmd), &raw mut number) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Which of `fds` have hung up, without waiting.
#[must_use]
pub fn hung_up(fds: &[BorrowedFd<'_>]) -> Vec<bool> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let mut polled: Vec<PollFd<'_>> =
        fds.iter().map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::empty())).collect();
    let _ = poll(&mut polled, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }));
    polled.iter().map(|p| p.revents().intersects(PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL)).collect()
}

/// What tells the open file behind `fd` from others: device and inode. None if the number is closed.
#[must_use]
pub fn file_id(fd: BorrowedFd<'_>) -> Option<(u64, u64)> {
    rustix::fs::fstat(fd).ok().map(|s| (s.st_dev, s.st_ino))
}

/// True if both are copies of one open file. Where the kernel cannot tell (before 6.10, without kcmp), two opens of one inode pass for one.
///
/// Source: fcntl(2), F_DUPFD_QUERY; kcmp(2), KCMP_FILE.
#[must_use]
pub fn same_open_file(a: BorrowedFd<'_>, b: BorrowedFd<'_>) -> bool {
    use std::os::fd::AsRawFd;
    const F_DUPFD_QUERY: libc::c_int = 1024 + 3;
    const KCMP_FILE: libc::c_int = 0;
    let (a_raw, b_raw) = (a.as_raw_fd(), b.as_raw_fd());
    // SAFETY: the command takes a number, and touches no memory.
    let asked = unsafe { libc::fcntl(a_raw, F_DUPFD_QUERY, b_raw) };
    if asked >= 0 {
        return asked == 1;
    }
    let pid = std::process::id();
    // SAFETY: takes numbers, and touches no memory.
    match unsafe { libc::syscall(libc::SYS_kcmp, pid, pid, KCMP_FILE, a_raw, b_raw) } {
        order if order >= 0 => order == 0,
        _ => file_id(a).is_some_and(|id| file_id(b) == Some(id)),
    }
}

/// Waits until `fd` is readable or has hung up; false when the time is over.
///
/// # Errors
/// What poll answers.
pub fn wait_readable(fd: BorrowedFd<'_>, timeout: Duration) -> io::Result<bool> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let end = monotonic_nanos() + u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX / 2);
    loop {
        let left = end.saturating_sub(monotonic_nanos());
        let spec = Timespec { tv_sec: (left / 1_000_000_000) as i64, tv_nsec: (left % 1_000_000_000) as _ };
        match poll(&mut [PollFd::from_borrowed_fd(fd, PollFlags::IN)], Some(&spec)) {
            Ok(n) => return Ok(n > 0),
            Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
}

/// Forks. The child runs `work`, then ends with what that returns as its status, without unwinding or dropping what the parent
/// had: copies of its values are not the child's to clean up.
///
/// Safe because it is refused when there is another thread: then no lock can be held, and no value half written, by one that the child lacks.
///
/// # Errors
/// ResourceBusy if this process has several threads; what fork answers.
pub fn fork_to(work: impl FnOnce() -> i32) -> io::Result<rustix::process::Pid> {
    if std::fs::read_dir("/proc/self/task")?.count() != 1 {
        return Err(io::ErrorKind::ResourceBusy.into());
    }
    // SAFETY: this is the only thread, so the child is a complete copy and may do all that the parent may.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        let status = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).unwrap_or(101);
        // SAFETY: ends the process at once; nothing is run on the way.
        unsafe { libc::_exit(status) }
    }
    rustix::process::Pid::from_raw(pid).ok_or_else(io::Error::last_os_error)
}

/// A word that a forked child finds wiped: 0.
///
/// Source: madvise(2), MADV_WIPEONFORK.
#[derive(Debug)]
pub struct ForkWord {
    word: crate::mem::SharedRef<core::sync::atomic::AtomicU32>,
}

impl ForkWord {
    /// A word of value 0.
    ///
    /// # Errors
    /// ENOMEM.
    pub fn new() -> io::Result<Self> {
        let map = crate::mem::Map::anonymous(crate::mem::page_size())?;
        // SAFETY: advice on our own whole private anonymous mapping.
        unsafe {
            rustix::mm::madvise(map.as_ptr().cast(), map.len_bytes(), rustix::mm::Advice::LinuxWipeOnFork)?;
        };
        let word = crate::mem::SharedRef::new(&map, 0).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(ForkWord { word })
    }

    /// Its value; 0 in a child forked since `set`.
    #[inline]
    #[must_use]
    pub fn get(&self) -> u32 {
        self.word.load(core::sync::atomic::Ordering::Relaxed)
    }

    /// Sets it.
    pub fn set(&self, value: u32) {
        self.word.store(value, core::sync::atomic::Ordering::Relaxed);
    }
}
