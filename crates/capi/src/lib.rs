//! `libnetmap`: netmap's C library, for programs that include `libnetmap.h`.
//!
//! The functions read names, keep descriptors, requests and options, and talk to whatever serves
//! `/dev/netmap` by `open`, `ioctl`, `mmap` and `close` of the C library (module `sys`). The grammar of names is
//! that of [`ringway_abi`]; the structures that only C programs see are in module `types`. The headers in
//! `include/` are the other half: `nm_open` and its like live there alone, as static functions.
//!
//! The doors (crate `ringway-doors`) are those functions of the C library, for a process that is linked with this one or has it preloaded: they
//! make the device exist.
//!
//! # The C contract
//!
//! C programs promise what follows, and nobody can check it. `SAFETY` comments name these numbers.
//!
//! 1. A pointer to a structure is valid, of the right type, and not used by another thread during the call.
//!    A descriptor is one that `nmport_new` and its like gave and that was not deleted since.
//! 2. A `const char *` points to a string that ends with NUL and stays as it is during the call.
//! 3. A context outlives what was made with it. Its functions are those of the declared types, its `malloc`
//!    gives memory of the size asked for, aligned for any type, or NULL; its lock, if it has one, guards
//!    `mem_descs`. Without one, only one thread at a time uses the context.
//! 4. The options of a header form a list of valid [`nmreq_option`](ringway_abi::nmreq_option)s that ends
//!    with 0.
//! 5. The service puts valid offsets and counts into requests, interface records and rings. (A program trusts
//!    its service with all of its memory map: the C macros would follow any offset.)

// C names exactly.
#![allow(non_camel_case_types)]

// In import order; the blank lines keep rustfmt from sorting.
mod types;

mod errno;

mod text;

mod sys;

mod nmctx;

mod varargs;

mod nmreq;

mod nmport;

// Whose functions are for C programs alone.
extern crate ringway_doors as _;
