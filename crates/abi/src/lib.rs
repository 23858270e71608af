//! netmap's binary interface, byte for byte, and the grammar of its port names.
//!
//! What lies here is *facts*: structures as they lie in shared memory or in an ioctl argument,
//! constants, error numbers, names. Nothing here does I/O, holds state or trusts its input; the
//! crate is `no_std`, without `unsafe` and without a C library, so that the broker, the client
//! library, the C library and the fuzzers can all share it.
//!
//! Names are netmap's own (`buf_idx`, `NS_MOREFRAG`), so that one `grep` finds both worlds. Each
//! structure has every byte of padding spelled out, can be viewed as bytes (`zerocopy`), and its size,
//! alignment and offsets are checked at compile time against [`LAYOUTS`]. Byte order is native; the
//! layout is that of 64-bit Linux.
//!
//! A name is read with [`PortSpec::parse`] (libnetmap's grammar) or [`LegacySpec::parse`] (that of
//! `nm_open`):
//!
//! ```
//! use ringway_abi::{NR_EXCLUSIVE, NR_REG_ONE_NIC, PortSpec};
//!
//! let spec = PortSpec::parse("netmap:eth0-3/x@conf:slots=512")?;
//! assert_eq!(spec.name, "eth0");
//! assert_eq!((spec.nr_mode, spec.nr_ringid), (NR_REG_ONE_NIC, 3));
//! assert_eq!(spec.nr_flags, NR_EXCLUSIVE);
//! assert_eq!(spec.conf.tx_slots, 512);
//! # Ok::<(), ringway_abi::SpecError>(())
//! ```

#![no_std]
#![forbid(unsafe_code)]
// C names exactly, see the module head.
#![allow(non_camel_case_types, non_snake_case)]

extern crate alloc;

// In import order; the blank lines keep rustfmt from sorting.
pub mod errno;
pub mod ring;

pub mod request;

pub mod option;

pub mod legacy;

pub mod virt;

pub mod constants;
pub mod layout;

pub mod portspec;

pub mod wire;

pub use constants::*;
pub use errno::*;
pub use layout::*;
pub use legacy::*;
pub use option::*;
pub use portspec::*;
pub use request::*;
pub use ring::*;
pub use virt::*;
