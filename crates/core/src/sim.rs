//! Simulation: ports without a broker, in one process.
//!
//! It lays out private regions and states, binds all rings, seats ports on a switch page, answers a driver that asks
//! for a peer, and plays the client: fills slots, moves `head` and `cur`, syncs, reads what came. [`Owners`]
//! and [`conserved`] are the checks that every test of traffic ends with. For tests, benches and fuzzers: it
//! panics on misuse.

use crate::layout::{Geometry, state_memfd_bytes};
use ringway_os::event::Doorbell;
use ringway_os::mem::Map;
use std::sync::Arc;

mod memory;
mod owners;
mod pipe;
mod ring;
mod switch;

pub use memory::Memory;
pub use owners::Owners;
pub use pipe::SimPipe;
pub use ring::{Frame, SimRing, packets};
pub use switch::{Member, SimSwitch, conserved, pending_packets};

/// The number of the first attachment; those below are the broker's.
const FIRST_ATTACHMENT: u32 = 100;

/// A small generator of random numbers (splitmix64): the same seed, the same numbers.
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    /// Starts from `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Rng(seed)
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// A number below `bound` (at least 1).
    pub fn below(&mut self, bound: u32) -> u32 {
        (self.next_u64() % u64::from(bound)) as u32
    }

    /// True once in `n` times.
    pub fn one_in(&mut self, n: u32) -> bool {
        self.below(n) == 0
    }
}

/// The rings of a bound port.
#[derive(Debug)]
pub struct SimPort {
    /// Rings and slots.
    pub geometry: Geometry,
    /// Where the states of its rings lie.
    pub state: Arc<Map>,
    /// TX rings.
    pub tx: Vec<SimRing>,
    /// RX rings.
    pub rx: Vec<SimRing>,
    /// Rung for whoever sleeps on it.
    pub bell: Arc<Doorbell>,
}

fn new_state(geometry: &Geometry) -> (Arc<Map>, Arc<Doorbell>) {
    let state = Map::anonymous(state_memfd_bytes(geometry)).expect("memory");
    (state, Arc::new(Doorbell::new().expect("an eventfd")))
}
