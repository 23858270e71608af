//! Ringway's broker: the control plane, and the only part that may need privileges.
//!
//! [`config`] says what it permits, `server` is the loop that serves clients, `knock` lets them in, `session` answers their requests, `attach` knows
//! which processes hold locks, `members` which take part in what, `closer` closes what clients sent, `extmem` takes memory of theirs,
//! `worker` runs what it serves for them, `polling` what must not sleep, [`listing`] tells what there is, [`start`] begins and ends
//! a broker.
#![forbid(unsafe_code)]

mod attach;
mod closer;
pub mod config;
pub mod device;
mod extmem;
mod knock;
pub mod listing;
mod members;
mod polling;
mod server;
mod session;
pub mod start;
mod worker;
