//! AF_XDP: sockets, the memory they move frames through, and their rings.
//!
//! ```text
//! umem    UmemLayout: buffer index <-> address in the registered memory.   pure arithmetic
//! ring    XskRings: the four rings, mapped from a socket's fd.              any process that holds the fd
//! socket  XskSocket: registers, binds, tells statistics.                    the broker (CAP_NET_RAW)
//! ```
//!
//! Socket and rings are separate on purpose: the broker binds the socket and hands its fd to an unprivileged
//! process, which maps the rings itself. For the same reason no counter is kept outside of the rings: whoever
//! holds the fd next goes on where the last one stopped.
//!
//! Who runs a ring: **one process and thread at a time** per ring (the kernel document: single producer, single
//! consumer). A breach of that loses or doubles frames; it never breaks memory safety here.
//!
//! Source: kernel document networking/af_xdp; linux/if_xdp.h; kernel net/xdp.

mod hold;
mod kick;
mod map;
mod ring;
mod socket;
mod umem;

pub use hold::XskHold;
pub use kick::{Kick, kick_rx, kick_tx};
pub use ring::{CompRing, FillRing, RingSizes, RxRing, TxRing, XdpDesc, XskRings};
pub use socket::{CopyMode, XskConfig, XskError, XskSocket, XskStats, XskStep, statistics};
pub use umem::{Umem, UmemError, UmemLayout};
