//! The memory of one user as one file: a sparse memfd in which each of his regions is a window.
//!
//! Its pages exist when touched, and a window's are given back when its region goes; so its length costs nothing. But programs map everything
//! from the start of the file to the end of their region, so low places are taken first. Each next place is behind the last: one
//! that was left is not taken again soon, since a sender that was stopped in the middle of a copy may write there still when it goes on.
//!
//! Giving pages back may take as long as the user likes (`super::retired`), and until it is done a place is not taken. He may also write
//! where no window is. That goes when he has no window any more: all but one half of the file, in which his next windows are; the other half
//! the next time.

use super::retired::GivenBack;
use ringway_os::mem::{Memfd, round_to_pages};
use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Acquire};

const GIB: usize = 1 << 30;
/// Bytes of the file.
const DOMAIN_BYTES: usize = 256 * GIB;
/// Windows begin at multiples of this, so that they can have huge pages.
const ALIGN: usize = 2 << 20;

/// The places of one half: first those low in the file. The first unit of the file is no place: a window at 0 would look like a file of its own.
const HALVES: [[Range<usize>; 2]; 2] =
    [[ALIGN..GIB, 4 * GIB..130 * GIB], [GIB..2 * GIB, 130 * GIB..DOMAIN_BYTES]];
/// What is in no half, or in the other one.
const OTHERS: [[Range<usize>; 3]; 2] =
    [[0..ALIGN, GIB..4 * GIB, 130 * GIB..DOMAIN_BYTES], [0..GIB, 2 * GIB..4 * GIB, 4 * GIB..130 * GIB]];

/// The file of a user's regions.
#[derive(Debug)]
pub(super) struct Domain {
    file: Arc<Memfd>,
    /// Windows of regions, and those whose pages are not given back yet.
    places: Places,
    /// Starts of the latter; true when their pages are gone.
    leaving: Vec<(usize, Arc<AtomicBool>)>,
    /// The half of new windows.
    half: usize,
    /// While pages outside of windows are being given back: true when they are gone.
    sweeping: Option<Arc<AtomicBool>>,
}

impl Domain {
    pub fn new() -> io::Result<Self> {
        let file = Arc::new(Memfd::create("ringway-user", DOMAIN_BYTES)?);
        let places = Places::default();
        Ok(Domain { file, places, leaving: vec![], half: 0, sweeping: None })
    }

    pub fn file(&self) -> &Memfd {
        &self.file
    }

    /// Places whose pages are gone are free.
    fn settle(&mut self) {
        let places = &mut self.places;
        self.leaving.retain(|(ofs, gone)| {
            let gone = gone.load(Acquire);
            if gone {
                places.give(*ofs);
            }
            !gone
        });
        self.sweeping.take_if(|gone| gone.load(Acquire));
    }

    /// A window for a new region: zeros.
    pub fn take(&mut self, len_bytes: usize) -> io::Result<Memfd> {
        self.settle();
        let len_bytes = round_to_pages(len_bytes.max(1));
        let ofs = self.places.take(&HALVES[self.half], len_bytes).ok_or(io::ErrorKind::OutOfMemory)?;
        self.file.window(ofs, len_bytes).inspect_err(|_| self.places.give(ofs))
    }

    /// The window is not used any more. What comes back gives its pages back when it is dropped.
    pub fn leave(&mut self, window: Arc<Memfd>) -> GivenBack {
        let gone = Arc::new(AtomicBool::new(false));
        self.leaving.push((window.ofs(), gone.clone()));
        let range = 0..window.len_bytes();
        GivenBack::new(window, vec![range], Some(gone))
    }

    /// If its user has no window, but pages: what gives them back when it is dropped.
    pub fn sweep(&mut self) -> Option<GivenBack> {
        self.settle();
        let idle = self.places.is_empty() && self.sweeping.is_none();
        if !idle || !self.file.has_pages().unwrap_or(true) {
            return None;
        }
        self.half ^= 1;
        let gone = Arc::new(AtomicBool::new(false));
        self.sweeping = Some(gone.clone());
        Some(GivenBack::new(self.file.clone(), OTHERS[self.half].to_vec(), Some(gone)))
    }
}

/// Which places are taken: their lengths, by their starts.
#[derive(Debug, Default)]
struct Places {
    taken: BTreeMap<usize, usize>,
    /// Where to look first.
    next: usize,
}

impl Places {
    fn is_empty(&self) -> bool {
        self.taken.is_empty()
    }

    /// In the first of the ranges with room: behind the last place there, or else the lowest.
    fn take(&mut self, ranges: &[Range<usize>], len: usize) -> Option<usize> {
        let at = ranges.iter().find_map(|range| {
            let behind_last = self.next.max(range.start)..range.end;
            self.find(behind_last, len).or_else(|| self.find(range.clone(), len))
        })?;
        self.taken.insert(at, len);
        self.next = (at + len).next_multiple_of(ALIGN);
        Some(at)
    }

    /// The lowest place with room in a range.
    fn find(&self, range: Range<usize>, len: usize) -> Option<usize> {
        let end_of = |(start, len): (&usize, &usize)| (start + len).next_multiple_of(ALIGN);
        let before = self.taken.range(..range.start).next_back();
        let mut at = before.map_or(range.start, |place| range.start.max(end_of(place)));
        for place in self.taken.range(range.start..) {
            if place.0.saturating_sub(at) >= len {
                break;
            }
            at = end_of(place);
        }
        (at.checked_add(len)? <= range.end).then_some(at)
    }

    fn give(&mut self, ofs: usize) {
        self.taken.remove(&ofs);
        if self.is_empty() {
            // Nobody is in the middle of anything.
            self.next = 0;
        }
    }
}

#[cfg(test)]
mod tests;
