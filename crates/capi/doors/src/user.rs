//! Memory of the program, as the kernel reads and writes it: a bad address is an error, not a crash.

use core::ffi::c_void;
use ringway_abi::Errno;
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// Which way to copy.
#[derive(Clone, Copy)]
enum Way {
    In,
    Out,
}

/// Copies between a buffer of ours and an address of the program.
fn copy(way: Way, ours: *mut u8, addr: u64, len: usize) -> Result<(), Errno> {
    let Ok(at) = usize::try_from(addr) else { return Err(Errno::EFAULT) };
    if len == 0 {
        return Ok(());
    }
    let local = libc::iovec { iov_base: ours.cast(), iov_len: len };
    let remote = libc::iovec { iov_base: at as *mut c_void, iov_len: len };
    // SAFETY: `ours` is `len` bytes of ours; the kernel checks the other side.
    let n = unsafe {
        match way {
            Way::In => libc::process_vm_readv(libc::getpid(), &raw const local, 1, &raw const remote, 1, 0),
            Way::Out => libc::process_vm_writev(libc::getpid(), &raw const local, 1, &raw const remote, 1, 0),
        }
    };
    if usize::try_from(n) == Ok(len) {
        return Ok(());
    }
    if n >= 0 || !matches!(crate::errno::get(), Errno::EPERM | Errno(libc::ENOSYS)) || at < 4096 {
        return Err(Errno::EFAULT);
    }
    // A sandbox forbids the check. SAFETY: the program's addresses are good then (C contract 1).
    unsafe {
        match way {
            Way::In => core::ptr::copy_nonoverlapping(at as *const u8, ours, len),
            Way::Out => core::ptr::copy_nonoverlapping(ours, at as *mut u8, len),
        }
    }
    Ok(())
}

/// Reads bytes.
pub fn read_bytes(addr: u64, out: &mut [u8]) -> Result<(), Errno> {
    copy(Way::In, out.as_mut_ptr(), addr, out.len())
}

/// Writes bytes.
pub fn write_bytes(addr: u64, data: &[u8]) -> Result<(), Errno> {
    copy(Way::Out, data.as_ptr().cast_mut(), addr, data.len())
}

/// Reads a structure.
pub fn read<T: FromBytes + IntoBytes + Default>(addr: u64) -> Result<T, Errno> {
    let mut value = T::default();
    read_bytes(addr, value.as_mut_bytes())?;
    Ok(value)
}

/// Writes a structure.
pub fn write<T: IntoBytes + Immutable>(addr: u64, value: &T) -> Result<(), Errno> {
    write_bytes(addr, value.as_bytes())
}
