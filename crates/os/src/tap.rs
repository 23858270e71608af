//! TAP interfaces that live as long as their fd: with it, or with the process that holds it, they vanish.
//!
//! Source: kernel document networking/tuntap; `linux/if_tun.h`.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;

const IFNAMSIZ: usize = 16;
/// `_IOW('T', 202, int)`; it takes a `struct ifreq` all the same.
const TUNSETIFF: libc::c_ulong = 0x4004_54ca;
const IFF_TAP: i16 = 0x0002;
const IFF_NO_PI: i16 = 0x1000;
/// The name must be new.
const IFF_TUN_EXCL: i16 = -0x8000;

/// `struct ifreq`, as TUNSETIFF reads it.
#[repr(C)]
struct IfReq {
    name: [u8; IFNAMSIZ],
    flags: i16,
    pad: [u8; 22],
}

/// A TAP interface. It is down at first, with a random address; the administrator may set it up.
#[derive(Debug)]
pub struct Tap {
    _fd: File,
}

impl Tap {
    /// Makes an interface called `name`, in the network namespace of the calling thread.
    ///
    /// # Errors
    /// EPERM or EACCES without CAP_NET_ADMIN there, or without the right to open `/dev/net/tun`; ENOENT or ENODEV where
    /// the kernel has no TAP; EBUSY or EEXIST if there is an interface of that name; EINVAL for a name that cannot be one.
    pub fn create(name: &str) -> io::Result<Tap> {
        let bytes = name.as_bytes();
        // The kernel would take a percent sign for a pattern, and choose a name by itself.
        if bytes.is_empty() || bytes.len() >= IFNAMSIZ || bytes.contains(&0) || bytes.contains(&b'%') {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        let fd = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_CLOEXEC | libc::O_NONBLOCK)
            .open("/dev/net/tun")?;
        let mut req = IfReq { name: [0; IFNAMSIZ], flags: IFF_TAP | IFF_NO_PI | IFF_TUN_EXCL, pad: [0; 22] };
        req.name[..bytes.len()].copy_from_slice(bytes);
        // SAFETY: TUNSETIFF reads and writes a `struct ifreq` of 40 bytes, which `req` is; it outlives the call.
        let done = unsafe { libc::ioctl(fd.as_raw_fd(), TUNSETIFF, &mut req) };
        if done < 0 { Err(io::Error::last_os_error()) } else { Ok(Tap { _fd: fd }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::{Link, new_netns, with_netns};
    use std::os::fd::AsFd;

    #[test]
    fn an_interface_lives_as_long_as_its_fd() {
        let Ok(netns) = new_netns() else {
            println!("SKIP an_interface_lives_as_long_as_its_fd: no network namespace");
            return;
        };
        let inside = || {
            let errno = |r: io::Result<Tap>| r.map(drop).unwrap_err().raw_os_error();
            let tap = match Tap::create("v0") {
                Ok(tap) => tap,
                Err(e) => {
                    println!("SKIP an_interface_lives_as_long_as_its_fd: no TAP: {e}");
                    return;
                }
            };
            let link = Link::by_name("v0").unwrap();
            assert_eq!((link.mtu, link.up, link.mac.is_some()), (1500, false, true));
            for taken in ["v0", "lo"] {
                assert!(matches!(errno(Tap::create(taken)), Some(libc::EBUSY | libc::EEXIST)));
            }
            assert_eq!(errno(Tap::create("v%d")), Some(libc::EINVAL));
            drop(tap);
            assert_eq!(Link::by_name("v0").unwrap_err().raw_os_error(), Some(libc::ENODEV));
        };
        with_netns(netns.as_fd(), inside).unwrap();
    }
}
