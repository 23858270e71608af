//! Work in another network namespace.

use std::fs::File;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::thread;

use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};

/// Runs `work` in the network namespace that `netns` refers to, in a thread of its own that ends with the work,
/// so that no thread of the caller is ever left in a foreign namespace. Sockets made by `work` stay in that
/// namespace.
///
/// `netns` is a file such as `/run/netns/NAME` or `/proc/PID/ns/net`, or what the ioctl SIOCGSKNS gives.
///
/// Source: setns(2), network_namespaces(7).
///
/// # Errors
/// EPERM without CAP_SYS_ADMIN (in the own user namespace and in the owner of the target); EINVAL if `netns` is
/// no network namespace; EAGAIN if no thread can be made.
///
/// # Panics
/// If `work` panics, with its message.
pub fn with_netns<T: Send>(netns: BorrowedFd<'_>, work: impl FnOnce() -> T + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let helper = thread::Builder::new().name("netns".into()).spawn_scoped(scope, move || {
            move_into_link_name_space(netns, Some(LinkNameSpaceType::Network))?;
            Ok(work())
        })?;
        match helper.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// A new network namespace, which lives as long as the fd, or a process or interface in it.
///
/// Source: unshare(2), network_namespaces(7).
///
/// # Errors
/// EPERM without CAP_SYS_ADMIN; ENOSPC at the limit of namespaces.
pub fn new_netns() -> io::Result<OwnedFd> {
    thread::scope(|scope| {
        let helper = thread::Builder::new().name("netns".into()).spawn_scoped(scope, || {
            // SAFETY: a new network namespace for this thread alone, which ends here; no table of files is concerned.
            unsafe { unshare_unsafe(UnshareFlags::NEWNET)? };
            Ok(File::open("/proc/thread-self/ns/net")?.into())
        })?;
        match helper.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}
