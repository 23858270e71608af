//! `ioctl`: netmap's requests.

use core::ffi::{c_int, c_ulong, c_void};
use ringway::SyncError;
use ringway_abi::{
    Errno, NIOCCONFIG, NIOCCTRL, NIOCGINFO, NIOCREGIF, NIOCRXSYNC, NIOCTXSYNC, nm_ifreq, nmreq, nmreq_header,
};

use crate::table::{self, DESC, Desc, HIDDEN, Inside, OTHER};
use crate::{ctrl, fail, legacy, real, user};

/// True for the requests of netmap.
#[inline]
fn is_netmap(request: u32) -> bool {
    request >> 8 & 0xff == NIOCCTRL >> 8 & 0xff
        && matches!(request, NIOCCTRL | NIOCTXSYNC | NIOCRXSYNC | NIOCREGIF | NIOCGINFO | NIOCCONFIG)
}

/// ioctl(2).
///
/// # Safety
/// As ioctl(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ioctl(fd: c_int, request: c_ulong, arg: *mut c_void) -> c_int {
    if table::kind(fd) == OTHER && !is_netmap(request as u32) {
        // SAFETY: as the caller promises.
        return unsafe { real::ioctl(fd, request, arg) };
    }
    // SAFETY: as the caller promises.
    unsafe { known(fd, request as u32, arg) }
}

/// # Safety
/// As ioctl(2).
unsafe fn known(fd: c_int, request: u32, arg: *mut c_void) -> c_int {
    // Source: ioctl_fd, Linux: these are the kernel's own, for all files.
    let general =
        matches!(c_ulong::from(request), libc::FIOCLEX | libc::FIONCLEX | libc::FIONBIO | libc::FIOASYNC);
    let kind = table::kind(fd);
    if table::is_inside() || general || (!is_netmap(request) && kind != DESC) {
        if kind == HIDDEN && !table::is_inside() {
            return fail(Errno::EBADF);
        }
        // SAFETY: as the caller promises.
        return unsafe { real::ioctl(fd, request.into(), arg) };
    }
    let _inside = Inside::enter();
    let sync = matches!(request, NIOCTXSYNC | NIOCRXSYNC);
    let desc = table::recognise(fd, !sync).filter(|desc| sync || !desc.is_file());
    let Some(desc) = desc else {
        // SAFETY: as the caller promises.
        let done = unsafe { real::ioctl(fd, request.into(), arg) };
        if done == 0 && matches!(request, NIOCCTRL | NIOCREGIF) && table::kind(fd) == OTHER {
            // It may be a device file that is bound now.
            let _ = table::recognise(fd, false);
        }
        return done;
    };
    match serve(fd, &desc, request, arg as u64) {
        Ok(()) => 0,
        Err(e) => fail(e),
    }
}

/// One request. Source: abi.md 1, 7, 10, 11.
fn serve(fd: c_int, desc: &Desc, request: u32, arg: u64) -> Result<(), Errno> {
    let sync = |e: SyncError| e.errno();
    match request {
        NIOCTXSYNC | NIOCRXSYNC => {
            desc.note();
            let bound = desc.bound(fd).ok_or(Errno::ENXIO)?;
            return if request == NIOCTXSYNC { bound.txsync() } else { bound.rxsync() }.map_err(sync);
        }
        // The size is part of the number.
        _ if arg == 0 && request >> 16 & 0x3fff != 0 => return Err(Errno::EINVAL),
        _ => {}
    }
    match request {
        NIOCCTRL => {
            let mut header: nmreq_header = user::read(arg)?;
            let result = ctrl::serve(fd, desc, &mut header);
            // Written back even if it failed.
            user::write(arg, &header).and(result)
        }
        NIOCREGIF | NIOCGINFO => {
            let mut req: nmreq = user::read(arg)?;
            let result = legacy::serve(fd, desc, &mut req, request == NIOCGINFO);
            user::write(arg, &req).and(result)
        }
        NIOCCONFIG => {
            // No switch has a hook for it.
            user::read::<nm_ifreq>(arg)?;
            Err(Errno::EINVAL)
        }
        _ => Err(Errno::EOPNOTSUPP),
    }
}
