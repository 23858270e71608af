//! Error numbers, without a C library.
//!
//! netmap answers with errno values, and which one is part of its interface. The numbers are those
//! of Linux on the common architectures (x86-64, arm64, riscv64; `asm-generic/errno*.h`).

use core::fmt;

/// A Linux error number, positive; 0 is "no error".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Errno(pub i32);

macro_rules! errnos {
    ($($name:ident $number:literal $what:literal)*) => {
        impl Errno {
            $(#[doc = concat!($what, " (", stringify!($number), ").")]
            pub const $name: Self = Self($number);)*

            /// The symbol of this number (`"EINVAL"`), if it is one of those listed here.
            pub const fn name(self) -> Option<&'static str> {
                match self.0 {
                    $($number => Some(stringify!($name)),)*
                    _ => None,
                }
            }
        }
    };
}

errnos! {
    EPERM 1 "Not allowed"
    ENOENT 2 "No such file, switch or port"
    EINTR 4 "Interrupted by a signal"
    EIO 5 "Ring or device is stopped"
    ENXIO 6 "No such interface, or descriptor not bound"
    EBADF 9 "Not an open descriptor"
    EAGAIN 11 "Try again"
    ENOMEM 12 "No memory, no free object, or malformed switch name"
    EACCES 13 "Permission denied"
    EFAULT 14 "Bad address"
    EBUSY 16 "In use"
    EEXIST 17 "Exists already"
    ENODEV 19 "No such device"
    ENOTDIR 20 "Not a directory"
    EISDIR 21 "Is a directory"
    EINVAL 22 "Invalid argument"
    ENFILE 23 "Too many open files in the system"
    EMFILE 24 "Too many open files in the process"
    ENOTTY 25 "Request not known to the device"
    ENOSPC 28 "No room left"
    ESPIPE 29 "Descriptor cannot seek"
    EPIPE 32 "Nobody at the other end"
    ERANGE 34 "Number out of range"
    ENAMETOOLONG 36 "Name too long"
    ENOSYS 38 "Function not implemented"
    EPROTO 71 "Protocol error"
    EOVERFLOW 75 "Value too large for its field"
    EMSGSIZE 90 "Message too long"
    EPROTONOSUPPORT 93 "Protocol not supported"
    EOPNOTSUPP 95 "Operation or option not supported"
    EAFNOSUPPORT 97 "Address family not supported"
    EADDRINUSE 98 "Address in use"
    ENETDOWN 100 "Interface is down"
    ECONNABORTED 103 "Connection given up"
    ECONNRESET 104 "Connection reset by the peer"
    ENOBUFS 105 "No buffer space"
    ENOTCONN 107 "Not connected"
    ETIMEDOUT 110 "Timed out"
    ECONNREFUSED 111 "Connection refused"
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "errno {}", self.0),
        }
    }
}

impl core::error::Error for Errno {}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn shows_the_symbol_or_the_number() {
        assert_eq!(Errno::EOPNOTSUPP.to_string(), "EOPNOTSUPP");
        assert_eq!(Errno(4095).to_string(), "errno 4095");
        assert_eq!(Errno(0).to_string(), "errno 0");
    }
}
