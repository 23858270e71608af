//! Pipes.

use super::{FIRST_ATTACHMENT, Memory, Owners, SimPort, SimRing, new_state};
use crate::adapter::pipe::{PipeRx, PipeTx};
use crate::layout::{Dir, Geometry, RingShared};

/// Both ends of a pipe, in one region.
#[derive(Debug)]
pub struct SimPipe {
    /// The region.
    pub memory: Memory,
    /// Master and slave.
    pub ends: [SimPort; 2],
}

impl SimPipe {
    /// A pipe whose master has that geometry, with `extra` buffers in no slot.
    #[must_use]
    pub fn new(geometry: &Geometry, buf_size: u32, extra: u32) -> Self {
        let rings = 2 * u32::from(geometry.tx_rings + geometry.rx_rings);
        let slots = geometry.tx_slots.max(geometry.rx_slots);
        let mut memory = Memory::new(rings, slots, buf_size, extra);
        let geometries = [*geometry, geometry.swapped()];
        let (states, bells): (Vec<_>, Vec<_>) = geometries.iter().map(new_state).unzip();
        let shared = |end: usize, dir, i| {
            RingShared::new(&states[end], &geometries[end], dir, i).expect("the state fits")
        };
        let mut rings = [const { (Vec::new(), Vec::new()) }; 2];
        for end in 0..2 {
            for i in 0..geometries[end].tx_rings {
                let (here, there) = (shared(end, Dir::Tx, i), shared(1 - end, Dir::Rx, i));
                let tx = memory.ring(here.clone(), Dir::Tx, i, None);
                let rx = memory.ring(there.clone(), Dir::Rx, i, Some(&tx));
                let me = FIRST_ATTACHMENT + end as u32;
                let driver = Box::new(PipeTx { peer: there, bell: bells[1 - end].clone() });
                rings[end].0.push(SimRing { handle: tx, driver, me });
                let driver = Box::new(PipeRx { peer: here, bell: bells[end].clone() });
                rings[1 - end].1.push(SimRing { handle: rx, driver, me: FIRST_ATTACHMENT + 1 - end as u32 });
            }
        }
        let mut parts = rings
            .into_iter()
            .zip(geometries)
            .zip(states.into_iter().zip(bells))
            .map(|(((tx, rx), geometry), (state, bell))| SimPort { geometry, state, tx, rx, bell });
        let ends = [parts.next().expect("two ends"), parts.next().expect("two ends")];
        SimPipe { memory, ends }
    }

    /// Checks that every buffer of the region has exactly one owner; `extra` are those that the test holds.
    pub fn check_owners(&self, extra: &[u32]) {
        let mut owners = Owners::default();
        for (a, b) in [(0, 1), (1, 0)] {
            for (tx, rx) in self.ends[a].tx.iter().zip(&self.ends[b].rx) {
                owners.pipe(&tx.handle, &rx.handle);
            }
        }
        owners.extra(extra);
        owners.check(self.memory.given());
    }
}
