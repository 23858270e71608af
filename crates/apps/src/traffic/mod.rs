//! Test traffic: Ethernet frames with IPv4 or IPv6, UDP and a readable payload.
//!
//! A [`Frame`] is built once and then patched, so that the per-packet work of a generator is a
//! few checksum updates ([`Stepper`]) and a copy. [`FrameSpec`] builds a fixed set of frames, one per flow.
//!
//! Owns no device: what comes out are bytes.

mod checksum;
pub use checksum::{adjust, sum};

mod rng;
pub use rng::Rng;

mod frame;
pub use frame::{Frame, Headers, MAX_SIZE, MIN_SIZE, Payload};

mod step;
pub use step::Stepper;

mod flows;
pub use flows::{FrameSpec, SpecError};
