//! The memory of one user as one file: a sparse memfd in which each of his regions is a window.
//!
//! Its pages exist when touched, and a window's are given back when its region goes; so its length costs nothing. The lowest place
//! that is large enough is taken: programs map everything from the start of the file to the end of their region.

use ringway_os::mem::{Memfd, round_to_pages};
use std::collections::BTreeMap;
use std::io;

/// Bytes of the file.
const DOMAIN_BYTES: usize = 256 << 30;
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
        Ok(Domain { file, windows: Windows { end: DOMAIN_BYTES, taken: BTreeMap::new() } })
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
    }
}

/// Which parts of a range are taken: their lengths, by their starts.
#[derive(Debug)]
struct Windows {
    end: usize,
    taken: BTreeMap<usize, usize>,
}

impl Windows {
    /// The lowest place with room. The first unit is never given: a window at 0 would look like a file of its own.
    fn take(&mut self, len: usize) -> Option<usize> {
        let mut at = ALIGN;
        for (start, taken) in &self.taken {
            if start - at >= len {
                break;
            }
            at = (start + taken).next_multiple_of(ALIGN);
        }
        if at.checked_add(len)? > self.end {
            return None;
        }
        self.taken.insert(at, len);
        Some(at)
    }

    fn give(&mut self, ofs: usize) {
        self.taken.remove(&ofs);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_do_not_overlap_and_the_lowest_place_is_used_again() {
        let mut w = Windows { end: 10 * ALIGN, taken: BTreeMap::new() };
        let a = w.take(3 * ALIGN - 5).unwrap();
        let b = w.take(1).unwrap();
        let c = w.take(ALIGN).unwrap();
        assert_eq!((a, b, c), (ALIGN, 4 * ALIGN, 5 * ALIGN));
        assert_eq!(w.take(5 * ALIGN), None);
        w.give(a);
        assert_eq!(w.take(4 * ALIGN), Some(6 * ALIGN), "it does not fit into the hole");
        assert_eq!(w.take(3 * ALIGN), Some(a));
        assert_eq!(w.take(usize::MAX), None);
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
