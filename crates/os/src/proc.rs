//! Other processes, and this one's own privileges: what a helper of root needs that serves callers by their numbers.
//!
//! Source: proc(5), capabilities(7), setns(2), umount2(2).

use rustix::fs::{Mode, OFlags};
use rustix::thread::CapabilitySet;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// A process or thread by its entry in /proc. It stays that one's: when it is dead, reading fails, also if its number is given to
/// another.
#[derive(Debug)]
pub struct ProcDir(OwnedFd);

impl ProcDir {
    /// The one that has this number now.
    ///
    /// # Errors
    /// ENOENT if there is none.
    pub fn open(id: u32) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(ProcDir(rustix::fs::open(format!("/proc/{id}"), flags, Mode::empty())?))
    }

    /// Opens one of its files.
    ///
    /// # Errors
    /// EACCES; ESRCH if it is dead.
    pub fn file(&self, name: &str, write: bool) -> io::Result<File> {
        let access = if write { OFlags::RDWR } else { OFlags::RDONLY };
        Ok(rustix::fs::openat(&self.0, name, access | OFlags::CLOEXEC, Mode::empty())?.into())
    }

    /// The number of its process, if it is a thread.
    ///
    /// # Errors
    /// ESRCH if it is dead.
    pub fn process(&self) -> io::Result<u32> {
        let status = self.text("status")?;
        let tgid = status.lines().find_map(|l| l.strip_prefix("Tgid:")).and_then(|t| t.trim().parse().ok());
        tgid.ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    /// To whom its memory belongs: root, if the kernel guards it (a program with privileges of its own, or one that asked for it).
    ///
    /// # Errors
    /// ESRCH if it is dead.
    pub fn memory_owner(&self) -> io::Result<u32> {
        Ok(rustix::fs::statat(&self.0, "mem", rustix::fs::AtFlags::empty())?.st_uid)
    }

    fn text(&self, name: &str) -> io::Result<String> {
        let mut bytes = vec![];
        self.file(name, false)?.take(64 << 10).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The user as whom it uses files, and when it began, in nanoseconds since the machine began, rounded down to a tick of 10 ms.
    ///
    /// # Errors
    /// ESRCH if it is dead.
    pub fn user_and_start(&self) -> io::Result<(u32, u64)> {
        let bad = || io::Error::from(io::ErrorKind::InvalidData);
        let status = self.text("status")?;
        let uids = status.lines().find_map(|l| l.strip_prefix("Uid:")).ok_or_else(bad)?;
        let uid = uids.split_whitespace().nth(3).and_then(|u| u.parse().ok()).ok_or_else(bad)?;
        // The name, in parentheses, may contain anything; the 22nd field is the 20th behind it.
        let stat = self.text("stat")?;
        let (_, rest) = stat.rsplit_once(')').ok_or_else(bad)?;
        let ticks: u64 = rest.split_whitespace().nth(19).and_then(|t| t.parse().ok()).ok_or_else(bad)?;
        Ok((uid, ticks * (1_000_000_000 / rustix::param::clock_ticks_per_second())))
    }
}

/// Nanoseconds since the machine began, sleep included: the clock of [`ProcDir::user_and_start`].
#[must_use]
pub fn boot_nanos() -> u64 {
    let t = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    t.tv_sec as u64 * 1_000_000_000 + t.tv_nsec as u64
}

/// A copy of fd `number` of the process behind `pidfd`.
///
/// Source: pidfd_getfd(2).
///
/// # Errors
/// EBADF; EPERM without the right to trace it.
pub fn copy_fd(pidfd: &OwnedFd, number: i32) -> io::Result<OwnedFd> {
    Ok(rustix::process::pidfd_getfd(pidfd, number, rustix::process::PidfdGetfdFlags::empty())?)
}

/// Moves the calling thread into a network namespace. Nothing happens if it is there already.
///
/// # Errors
/// EPERM without CAP_SYS_ADMIN.
pub fn enter_netns(file: &File) -> io::Result<()> {
    let own = File::open("/proc/thread-self/ns/net")?;
    if crate::sys::file_id(own.as_fd()) == crate::sys::file_id(file.as_fd()) {
        return Ok(());
    }
    let kind = rustix::thread::LinkNameSpaceType::Network;
    Ok(rustix::thread::move_into_link_name_space(file.as_fd(), Some(kind))?)
}

/// What the helper of the device file keeps: mount and setns, other processes' memory, other users' credentials, files of any mode.
pub const DEVICE_CAPABILITIES: CapabilitySet = CapabilitySet::SYS_ADMIN
    .union(CapabilitySet::SYS_PTRACE)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::DAC_OVERRIDE);

/// True if this thread has all of [`DEVICE_CAPABILITIES`].
#[must_use]
pub fn may_serve_device() -> bool {
    rustix::thread::capabilities(None).is_ok_and(|c| c.permitted.contains(DEVICE_CAPABILITIES))
}

/// True if what this process mounts is not seen by the first process, and most others. Needs CAP_SYS_PTRACE; false if it cannot be told.
#[must_use]
pub fn mounts_are_private() -> bool {
    let of = |who: &str| rustix::fs::stat(format!("/proc/{who}/ns/mnt")).map(|s| (s.st_dev, s.st_ino));
    matches!((of("1"), of("self")), (Ok(first), Ok(own)) if first != own)
}

/// Gives up all capabilities of this thread, and of those that it starts from now on, but `keep`.
///
/// # Errors
/// What capset answers.
pub fn keep_capabilities(keep: CapabilitySet) -> io::Result<()> {
    let mut sets = rustix::thread::capabilities(None)?;
    sets.effective &= keep;
    sets.permitted &= keep;
    sets.inheritable = CapabilitySet::empty();
    Ok(rustix::thread::set_capabilities(None, sets)?)
}

/// Gives up the right to other processes' memory, for this thread and those that it starts from now on. (What root's programs are
/// started with is not changed by it.)
///
/// # Errors
/// What capset answers.
pub fn drop_ptrace() -> io::Result<()> {
    keep_capabilities(CapabilitySet::SYS_PTRACE.complement())
}

/// True if this thread may mount file systems.
#[must_use]
pub fn may_mount() -> bool {
    rustix::thread::capabilities(None).is_ok_and(|c| c.effective.contains(CapabilitySet::SYS_ADMIN))
}

/// Takes a mount away, whoever still uses it. Nothing else is touched: EINVAL if `path` is no mount.
///
/// # Errors
/// EPERM; EINVAL.
pub fn detach_mount(path: &Path) -> io::Result<()> {
    let path = std::ffi::CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: umount2 reads a string that ends with NUL, and outlives the call.
    let done = unsafe { libc::umount2(path.as_ptr(), libc::MNT_DETACH | libc::UMOUNT_NOFOLLOW) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_found_by_its_number_and_lost_when_it_is_dead() {
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let dir = ProcDir::open(child.id()).unwrap();
        let (uid, start) = dir.user_and_start().unwrap();
        assert_eq!((uid, dir.memory_owner().unwrap()), (crate::sys::euid(), crate::sys::euid()));
        let now = boot_nanos();
        assert!(start <= now && now - start < 60_000_000_000, "{start} {now}");
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(dir.user_and_start().is_err());
        assert!(ProcDir::open(0).is_err());
    }
}
