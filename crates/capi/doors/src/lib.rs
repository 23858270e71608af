//! The doors: the system-call functions of the C library that know netmap's device, for programs that are linked with this library or have
//! it preloaded.
//!
//! Each looks at one byte per fd (`table::kind`), and goes on to the C library's own function (`real`) unless the fd is a netmap descriptor, an epoll
//! that watches one, or one that this library keeps for itself. What a descriptor can do is [`ringway::raw`]'s.
//!
//! * **Numbers.** A program's descriptor is the connection to the broker itself: dup, fork, exec and SCM_RIGHTS are the kernel's.
//!   What the library keeps beside it sits high, is close-on-exec, and is out of reach of the program's close.
//! * **Nested calls.** Rust's own library calls `open64`, `close`, `mmap64` and so on, which come by here: `table::Inside` tells them apart.
//! * **A crate of its own**, so that calls of the rest of the C library to `open` and its like remain calls by name.
//! * **Signals.** A handler may use the doors on fds that are not netmap's, not on descriptors that its thread is just using.

mod errno;

mod real;

mod table;

mod user;

mod ranges;

mod maps;

mod process;

mod files;

mod dup;

mod options;

mod csb;

mod extmem;

mod ctrl;

mod legacy;

mod ioctl;

mod wait;

mod poll;

mod select;

mod epoll;

mod message;

use core::ffi::c_int;
use ringway_abi::Errno;

/// A failed call: -1 and `errno`.
fn fail(errno: Errno) -> c_int {
    errno::set(errno);
    -1
}
