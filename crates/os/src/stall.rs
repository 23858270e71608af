//! Memory that never comes, for tests of hostile clients: whoever touches it, the kernel on behalf of a system call included, sleeps
//! with all the locks that he holds.
//!
//! Source: userfaultfd(2), ioctl_userfaultfd(2); linux/userfaultfd.h.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::time::Duration;

use rustix::mm::{MapFlags, ProtFlags, UserfaultfdFlags};

use crate::mem::page_size;

const UFFD_API: u64 = 0xaa;
const UFFDIO_API: libc::c_ulong = 0xc018_aa3f;
const UFFDIO_REGISTER: libc::c_ulong = 0xc020_aa00;
const UFFDIO_ZEROPAGE: libc::c_ulong = 0xc020_aa04;
const UFFDIO_REGISTER_MODE_MISSING: u64 = 1;

/// `struct uffdio_api`.
#[repr(C)]
struct Api {
    api: u64,
    features: u64,
    ioctls: u64,
}

/// `struct uffdio_register` and `struct uffdio_zeropage`: the same fields.
#[repr(C)]
struct OnRange {
    start: u64,
    len: u64,
    mode: u64,
    out: u64,
}

/// A page that does not come before [`StalledPage::release`].
#[derive(Debug)]
pub struct StalledPage {
    uffd: OwnedFd,
    page: NonNull<u8>,
}

// SAFETY: the page is only ever touched by the kernel, on behalf of the system calls below.
unsafe impl Send for StalledPage {}
// SAFETY: as above; any number of threads may sleep on it.
unsafe impl Sync for StalledPage {}

impl StalledPage {
    /// A new one.
    ///
    /// # Errors
    /// EPERM without CAP_SYS_PTRACE, unless `vm.unprivileged_userfaultfd` is set; ENOSYS.
    pub fn new() -> io::Result<Self> {
        // SAFETY: an fd that nobody uses yet changes nothing.
        let uffd =
            unsafe { rustix::mm::userfaultfd(UserfaultfdFlags::CLOEXEC | UserfaultfdFlags::NONBLOCK) }?;
        let (flags, access) = (MapFlags::PRIVATE, ProtFlags::READ | ProtFlags::WRITE);
        // SAFETY: a new anonymous mapping.
        let page = unsafe { rustix::mm::mmap_anonymous(std::ptr::null_mut(), page_size(), access, flags) }?;
        let page = NonNull::new(page.cast::<u8>()).ok_or(io::ErrorKind::OutOfMemory)?;
        let stalled = StalledPage { uffd, page };
        let mut api = Api { api: UFFD_API, features: 0, ioctls: 0 };
        // SAFETY: the request takes this structure, which lives for the call.
        check(unsafe { libc::ioctl(stalled.uffd.as_raw_fd(), UFFDIO_API, &raw mut api) })?;
        stalled.on_range(UFFDIO_REGISTER, UFFDIO_REGISTER_MODE_MISSING)?;
        Ok(stalled)
    }

    fn on_range(&self, request: libc::c_ulong, mode: u64) -> io::Result<()> {
        let start = self.page.as_ptr() as u64;
        let mut range = OnRange { start, len: page_size() as u64, mode, out: 0 };
        // SAFETY: both requests take this structure, which lives for the call; the page is ours, and no reference to it exists.
        check(unsafe { libc::ioctl(self.uffd.as_raw_fd(), request, &raw mut range) }).map(drop)
    }

    /// Waits until somebody sleeps on the page. False: nobody did in that time.
    ///
    /// # Errors
    /// What poll answers.
    pub fn wait_touched(&self, limit: Duration) -> io::Result<bool> {
        crate::sys::wait_readable(self.uffd.as_fd(), limit)
    }

    /// Waits for events of `epoll`, into the page: sleeps on it with the epoll's lock held. Returns how many came after all.
    ///
    /// # Errors
    /// What epoll_wait answers.
    pub fn epoll_wait(&self, epoll: BorrowedFd<'_>) -> io::Result<usize> {
        // SAFETY: the page has room for that many events, is mapped as long as `self`, and nobody refers to it.
        check(unsafe { libc::epoll_wait(epoll.as_raw_fd(), self.page.as_ptr().cast(), 8, -1) })
    }

    /// Sends a byte of the page: sleeps on it with the socket's lock held, if it is one that has a lock for that.
    ///
    /// # Errors
    /// What send answers.
    pub fn send(&self, socket: BorrowedFd<'_>) -> io::Result<usize> {
        // SAFETY: the page is mapped as long as `self`, and nobody refers to it.
        let n = unsafe { libc::send(socket.as_raw_fd(), self.page.as_ptr().cast(), 1, libc::MSG_NOSIGNAL) };
        usize::try_from(n).map_err(|_| io::Error::last_os_error())
    }

    /// Writes a byte of the page at the start of a file: sleeps on it with the file's lock held.
    ///
    /// # Errors
    /// What pwrite answers.
    pub fn write(&self, file: BorrowedFd<'_>) -> io::Result<usize> {
        // SAFETY: the page is mapped as long as `self`, and nobody refers to it.
        let n = unsafe { libc::pwrite(file.as_raw_fd(), self.page.as_ptr().cast(), 1, 0) };
        usize::try_from(n).map_err(|_| io::Error::last_os_error())
    }

    /// Lets the page come: who sleeps on it goes on.
    pub fn release(&self) {
        // EEXIST: it is there.
        let _ = self.on_range(UFFDIO_ZEROPAGE, 0);
    }
}

impl Drop for StalledPage {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `new`; system calls that use it borrow `self`, so none is under way.
        let _ = unsafe { rustix::mm::munmap(self.page.as_ptr().cast(), page_size()) };
    }
}

fn check(result: libc::c_int) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Doorbell, Epoll, EventFlags};

    #[test]
    fn a_stalled_page_keeps_its_toucher_until_it_is_released() {
        let page = match StalledPage::new() {
            Ok(page) => page,
            Err(e) => {
                println!("SKIP a_stalled_page_keeps_its_toucher_until_it_is_released: userfaultfd: {e}");
                return;
            }
        };
        let (bell, epoll) = (Doorbell::new().unwrap(), Epoll::new().unwrap());
        epoll.add(&bell, 0, EventFlags::IN).unwrap();
        std::thread::scope(|s| {
            let waiter = s.spawn(|| page.epoll_wait(epoll.as_fd()));
            assert!(!page.wait_touched(Duration::from_millis(50)).unwrap());
            bell.ring();
            assert!(page.wait_touched(Duration::from_secs(10)).unwrap());
            assert!(!waiter.is_finished());
            page.release();
            assert_eq!(waiter.join().unwrap().unwrap(), 1);
        });
    }
}
