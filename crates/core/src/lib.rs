//! Ringway's engine.
//!
//! Read it in this order: [`layout`] says where things lie, [`stats`] what is counted, [`kring`] what a sync is,
//! [`adapter`] what serves a ring, [`vale`] the switch, [`repair`] what is left of a sync that died,
//! [`pool`] a region, [`nic`] interfaces, [`lease`] what a client gets, [`control`] who gets it, [`pump`] what carries
//! frames between ports of the broker's own.
//!
//! It has no thread, no socket and no clock of its own, and no unsafe code: what touches memory that others may write is in
//! `ringway-os`.
#![forbid(unsafe_code)]

pub mod adapter;
pub mod control;
pub mod handover;
pub mod kring;
pub mod layout;
pub mod lease;
pub mod nic;
pub mod offsets;
pub mod place;
pub mod pool;
pub mod post;
pub mod pump;
pub mod repair;
#[cfg(any(test, feature = "test-utils"))]
pub mod sim;
pub mod stats;
pub mod sync_loop;
pub mod vale;
