//! What Ringway's programs are made of: `pkt-gen`, and `ringway` with its sub-commands.
//!
//! Owns everything above the client API: reading command lines, building test traffic, reading
//! and writing capture files, counting and reporting. It owns no ring code: rings are reached through
//! the `ringway` crate, or, where a program has to run without any service (tests, the
//! device `null`), through the narrow traits of [`pktgen::device`].
//!
//! The modules stand in import order: each one uses only those above it.

#![forbid(unsafe_code)]

pub mod interrupt;

pub mod units;

pub mod addr;

pub mod traffic;

pub mod capture;

pub mod pktgen;
