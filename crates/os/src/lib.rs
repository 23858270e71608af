//! Safe wrappers of what Ringway needs from Linux.
//!
//! This crate holds the only unsafe code of the project apart from the C library: everything above it says
//! `#![forbid(unsafe_code)]`. It owns mechanisms (mapping, words in shared memory, doorbells, sockets,
//! AF_XDP, BPF), never policy.
//!
//! # Invariants
//!
//! Each `SAFETY` comment names the ones that it rests on.
//!
//! * **I1, mapped for as long as referred to.** A typed view into a mapping holds an `Arc` of the [`mem::Map`];
//!   the map is unmapped when the last view is gone, never before.
//! * **I2, within the map, aligned.** A view's offset, length and alignment are checked against the map once,
//!   when it is made; an index into a view is checked on each use.
//! * **I3, shared words are atomics.** Memory that other processes may write is only ever seen as types that
//!   implement [`mem::Shared`] (atomics and arrays of them: every bit pattern is valid) or is copied by pointer.
//!   No reference to plain data (`&[u8]`, `&u32`) is made to it, so no writer, hostile ones included, can make
//!   a Rust reference lie.
//! * **I4, never a fault.** Mapped files are sealed against shrinking, so that no access within the map can fault,
//!   whatever the other holders do (holes punched into a memfd read as zeros).
//! * **I5, fds are owned.** `OwnedFd` and `BorrowedFd` only; a map of a file is dropped before its fd matters.

pub mod bpf;
pub mod bytes;
pub mod csb;
pub mod event;
pub mod link;
pub mod mem;
pub mod packet;
pub mod place;
pub mod proc;
pub mod ring;

pub mod sock;
#[cfg(feature = "test-utils")]
pub mod stall;
pub mod state;
pub mod sync;
pub mod sys;
pub mod tap;
pub mod words;
pub mod xdp;
