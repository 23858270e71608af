//! Ringway: netmap in user space.
//!
//! A [`Port`] (`netmap:eth0`, `vale0:a`, `netmap:x{1`) has rings of packet slots in memory shared with whoever is at
//! the other side. [`TxRing`] and [`RxRing`] are views of them; packets are written and read in place, and move when **you** sync:
//! `txsync` sends in your thread and is done when it returns.
//!
//! ```no_run
//! use ringway::{Interest, Port};
//! use std::time::Duration;
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let mut a = Port::open("vale0:a")?;
//!     let mut b = Port::open("vale0:b")?;
//!
//!     let mut tx = a.tx(0);
//!     let sent = tx.fill(256, |slot| {
//!         slot.payload().copy_from(&[0xff; 60]); // to everybody on the switch
//!         slot.set(60, 0);
//!         true
//!     });
//!     tx.sync()?; // now they are there
//!
//!     while b.wait(Interest::RX, Some(Duration::from_secs(1)))?.rx {
//!         let got = b.rx(0).drain(u32::MAX, |slot| slot.len() == 60);
//!         println!("sent {sent}, received {got}");
//!     }
//!     Ok(())
//! }
//! ```
//!
//! The first program that opens a port starts the broker, if it finds one: `cargo build` makes it. The same without a broker, in
//! one process: `let netmap = Netmap::embedded(); netmap.open("vale0:a")`.
//!
//! # Where to begin
//!
//! | to | see |
//! |---|---|
//! | open a port by name | [`Port::open`]: `vale0:a` (a port of a switch), `netmap:x{1` and `netmap:x}1` (the ends of a pipe), `netmap:eth0` (an interface), `netmap:eth0-2` (its ring 2), `netmap:eth0^` (its host rings), `netmap:eth0/r` (a monitor of what it receives) |
//! | say how many rings and slots, which of them, extra buffers, shared memory | [`Port::builder`], [`PortBuilder`] |
//! | send | [`Port::tx`], then [`TxRing::send`] (copies), or [`TxRing::fill`] (in place), then [`TxRing::sync`] |
//! | receive | [`Port::wait`], [`Port::rx`], then [`RxRing::recv`] (copies), or [`RxRing::drain`] (in place) |
//! | forward without copying | [`TxRing::forward`], [`swap`], [`ExtraBuf`] |
//! | wait in epoll, mio or tokio | [`Port::arm`] |
//! | use several threads | [`Port::rings`]: one view for each |
//! | see what was dropped, and why | [`Port::counters`] |
//! | hand a port to another process | [`Port::descriptor`], [`Port::adopt`] |
//! | serve a virtual machine | [`Port::run_csb_loop`] |
//!
//! One program for each is in `crates/ringway/examples`: `cargo run -p ringway --example embedded_switch` needs nothing at all. Sources in
//! these pages, as `semantics.md 5`, are files and sections of `docs/contract`: what netmap does, and so what can be relied on.
//!
//! # What safe code cannot do
//!
//! Every buffer has one owner: a slot, or an [`ExtraBuf`]. Buffers change owners by exchange only ([`swap`],
//! [`TxRing::forward`]), between rings of one region that are bound exclusively (as [`Port::open`] does). Memory that other
//! programs may write is lent as [`Payload`], never as a slice, and nothing that they write there can make a view panic or reach out of its ring.
#![forbid(unsafe_code)]

mod attach;
#[cfg(doctest)]
mod cannot;
mod conn;
mod error;
mod extmem;
mod launch;
mod session;
#[macro_use]
mod view;
mod extra;
mod rx;
mod spin;
mod tx;
// Imported by each other: what is bound can be waited for.
mod bound;
pub mod raw;
mod wait;
// Imported by each other: an engine opens ports, through builders.
mod builder;
mod embedded;
mod port;
mod port_wait;
mod sync_loop;

#[cfg(test)]
mod hostile_tests;

pub use builder::PortBuilder;
pub use conn::Broker;
pub use embedded::Netmap;
pub use error::{OpenError, SwapError, SyncError};
pub use extra::{ExtraBuf, Lender, Place, swap};
pub use port::{Port, PortCounters};
pub use rx::{RxRing, RxSlot};
pub use sync_loop::{LoopConfig, LoopError, LoopStopper, MAX_SLEEP, RingEvents, RunningLoop};
pub use tx::{MAX_PACKET_SLOTS, TxRing, TxSlot};
pub use wait::{Interest, Ready};

pub use ringway_abi::{
    Errno, NS_BUF_CHANGED, NS_FORWARD, NS_INDIRECT, NS_MOREFRAG, NS_NO_LEARN, NS_REPORT, NS_TXMON, NicMode,
};
pub use ringway_core::control::{BindingId, HolderInfo, PortInfo, ReqOption, RingInfo, Tunables};
pub use ringway_core::kring::CursorError;
pub use ringway_core::layout::{Dir, Geometry};
pub use ringway_core::stats::{Counters, Drop as DropReason};
pub use ringway_os::bytes::Payload;
pub use ringway_os::csb::{AppEntry, Csb, LoopEntry};
pub use ringway_os::mem::Memfd;
pub use ringway_os::ring::SlotWord;
