//! The memory of one user as one file: a sparse memfd in which each of his regions is a window.
//!
//! Its pages exist when touched, and a window's are given back when its region goes; so its length costs nothing. But programs map everything
//! from the start of the file to the end of their region, so places below [`SOON_BYTES`] are taken first. There each next place is
//! behind the last: one that was left is not taken again soon, since a sender that was stopped in the middle of a copy may
//! write there still when it goes on.

use ringway_os::mem::{Memfd, round_to_pages};
use std::collections::BTreeMap;
use std::io;

/// Bytes of the file.
const DOMAIN_BYTES: usize = 256 << 30;
/// Where one begins anew at the start, if it has room.
const SOON_BYTES: usize = 1 << 30;
/// Windows begin at multiples of this, so that they can have huge pages.
const ALIGN: usize = 2 << 20;

/// The file of a user's regions.
#[derive(Debug)]
pub(super) struct Domain {
    file: Memfd,
    windows: Windows,
}

impl Domain {
    pub fn new() -> io::Result<Self> {
        let file = Memfd::create("ringway-user", DOMAIN_BYTES)?;
        Ok(Domain { file, windows: Windows::new(SOON_BYTES, DOMAIN_BYTES) })
    }

    pub fn file(&self) -> &Memfd {
        &self.file
    }

    /// A window for a new region: zeros.
    pub fn take(&mut self, len_bytes: usize) -> io::Result<Memfd> {
        let len_bytes = round_to_pages(len_bytes.max(1));
        let ofs = self.windows.take(len_bytes).ok_or(io::ErrorKind::OutOfMemory)?;
        self.file.window(ofs, len_bytes).inspect_err(|_| self.windows.give(ofs))
    }

    /// The window at `ofs` is not used any more.
    pub fn give(&mut self, ofs: usize) {
        self.windows.give(ofs);
        self.sweep();
    }

    /// Its user may have written where no window is, for which no limit counts. What he has no region for is given back.
    pub fn sweep(&mut self) {
        if self.windows.taken.is_empty() && self.file.has_pages().unwrap_or(true) {
            let _ = self.file.discard();
        }
    }
}

/// Which parts of a range are taken: their lengths, by their starts.
#[derive(Debug)]
struct Windows {
    soon_end: usize,
    end: usize,
    /// Where to look first.
    next: usize,
    taken: BTreeMap<usize, usize>,
}

impl Windows {
    /// The first unit is never given: a window at 0 would look like a file of its own.
    fn new(soon_end: usize, end: usize) -> Self {
        Windows { soon_end, end, next: ALIGN, taken: BTreeMap::new() }
    }

    fn take(&mut self, len: usize) -> Option<usize> {
        let behind_last = self.find(self.next, len).filter(|at| at.saturating_add(len) <= self.soon_end);
        let at = behind_last.or_else(|| self.find(ALIGN, len))?;
        self.taken.insert(at, len);
        self.next = (at + len).next_multiple_of(ALIGN);
        Some(at)
    }

    /// The lowest place with room, not below `from`.
    fn find(&self, from: usize, len: usize) -> Option<usize> {
        let before = self.taken.range(..from).next_back();
        let mut at = before.map_or(from, |(start, taken)| from.max((start + taken).next_multiple_of(ALIGN)));
        for (start, taken) in self.taken.range(from..) {
            if start.saturating_sub(at) >= len {
                break;
            }
            at = (start + taken).next_multiple_of(ALIGN);
        }
        (at.checked_add(len)? <= self.end).then_some(at)
    }

    fn give(&mut self, ofs: usize) {
        self.taken.remove(&ofs);
        if self.taken.is_empty() {
            // Nobody is in the middle of anything.
            self.next = ALIGN;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_do_not_overlap_and_places_are_used_again_late() {
        let mut w = Windows::new(8 * ALIGN, 11 * ALIGN);
        let a = w.take(3 * ALIGN - 5).unwrap();
        let b = w.take(1).unwrap();
        assert_eq!((a, b), (ALIGN, 4 * ALIGN));
        w.give(a);
        assert_eq!(w.take(ALIGN), Some(5 * ALIGN), "not yet at the place that was left");
        assert_eq!(w.take(3 * ALIGN), Some(a), "behind the last it would be too far away");
        assert_eq!(w.take(6 * ALIGN), None);
        assert_eq!(w.take(4 * ALIGN), Some(6 * ALIGN), "there is no other");
        assert_eq!(w.take(usize::MAX), None);
        for ofs in [a, b, 5 * ALIGN, 6 * ALIGN] {
            w.give(ofs);
        }
        assert_eq!(w.take(ALIGN), Some(ALIGN), "from the start when all is over");
    }

    #[test]
    fn places_agree_with_a_map_of_units() {
        // Oracle: an array of units. Lengths and order from a small generator.
        let mut w = Windows::new(16 * ALIGN, 24 * ALIGN);
        let (mut units, mut held, mut state) = ([false; 24], vec![], 7_u32);
        units[0] = true;
        for _ in 0..2000 {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let n = (state >> 16) as usize;
            if n.is_multiple_of(3) && !held.is_empty() {
                let (at, count): (usize, usize) = held.swap_remove(n % held.len());
                units[at..at + count].fill(false);
                w.give(at * ALIGN);
                continue;
            }
            let count = n % 5 + 1;
            let room = units.windows(count).any(|w| w.iter().all(|taken| !taken));
            match w.take(count * ALIGN) {
                Some(ofs) => {
                    let at = ofs / ALIGN;
                    assert!(units[at..at + count].iter().all(|taken| !taken), "{at} {count} {units:?}");
                    units[at..at + count].fill(true);
                    held.push((at, count));
                }
                None => assert!(!room, "{count} {units:?}"),
            }
        }
    }

    #[test]
    fn what_is_written_where_no_window_is_goes_with_the_last_window_or_the_next_sweep() {
        let mut domain = Domain::new().unwrap();
        let window = domain.take(5000).unwrap();
        let stray = domain.file().window(100 << 30, 4096).unwrap();
        stray.write_at_start(b"stray").unwrap();
        domain.sweep();
        assert!(domain.file().has_pages().unwrap(), "not while there is a region");
        domain.give(window.ofs());
        assert!(!domain.file().has_pages().unwrap());
        stray.write_at_start(b"again").unwrap();
        domain.sweep();
        assert!(!domain.file().has_pages().unwrap());
    }

    #[test]
    fn a_window_shows_its_part_of_the_file_and_comes_back_empty() {
        let mut domain = Domain::new().unwrap();
        let window = domain.take(5000).unwrap();
        window.write_at_start(b"hello").unwrap();
        let in_file = domain.file().window(window.ofs(), 5).unwrap();
        assert_eq!(&in_file.read_all().unwrap()[..5], b"hello");
        window.discard().unwrap();
        domain.give(window.ofs());
        let again = domain.take(5000).unwrap();
        assert_eq!(again.ofs(), window.ofs());
        assert!(again.read_all().unwrap().iter().all(|b| *b == 0));
    }
}
