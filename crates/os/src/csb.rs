//! The communication status block (CSB): two arrays of entries, one entry per ring each, by which a program and a sync loop tell each
//! other how far they are.
//!
//! Source: `sys/net/netmap.h`, `struct nm_csb_atok` and `struct nm_csb_ktoa`.

use crate::mem::{Map, Memfd, Shared, SharedSlice};
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU32, Ordering, fence};
use std::fmt;
use std::io;
use std::sync::Arc;

/// Boundary on which both arrays lie, in bytes; also the size of an entry.
pub const ENTRY_BYTES: usize = 64;

/// What the program tells the loop of one ring (`nm_csb_atok`).
#[repr(C, align(64))]
#[derive(Debug, Default)]
pub struct AppEntry {
    /// First slot that the program owns (program writes, after `cur`).
    pub head: AtomicU32,
    /// Its wake-up point (program writes).
    pub cur: AtomicU32,
    /// Not 0: it wants to be notified (program writes).
    pub need_kick: AtomicU32,
    /// `NAF_*` bits (program writes; nobody reads them: each sync does all that they ask for).
    pub sync_flags: AtomicU32,
    _pad: [AtomicU32; 12],
}

/// What the loop tells the program of one ring (`nm_csb_ktoa`).
#[repr(C, align(64))]
#[derive(Debug, Default)]
pub struct LoopEntry {
    /// First slot not taken in (loop writes).
    pub hwcur: AtomicU32,
    /// First slot that the program does not own (loop writes, after `hwcur`).
    pub hwtail: AtomicU32,
    /// Not 0: the loop wants to be notified (loop writes).
    pub need_kick: AtomicU32,
    _pad: [AtomicU32; 13],
}

const _: () = assert!(size_of::<AppEntry>() == ENTRY_BYTES && size_of::<LoopEntry>() == ENTRY_BYTES);

// SAFETY: atomics only.
unsafe impl Shared for AppEntry {}
// SAFETY: atomics only.
unsafe impl Shared for LoopEntry {}

impl AppEntry {
    /// `head` and `cur` as the program published them: `head` is read first, since it was written last.
    #[inline]
    #[must_use]
    pub fn positions(&self) -> (u32, u32) {
        // Pairs with the program's barriers between slots, cur and head.
        let head = self.head.load(Ordering::Acquire);
        (head, self.cur.load(Ordering::Relaxed))
    }

    /// Publishes positions: the program's side of [`AppEntry::positions`].
    #[inline]
    pub fn publish(&self, head: u32, cur: u32) {
        fence(Ordering::Release);
        self.cur.store(cur, Ordering::Relaxed);
        self.head.store(head, Ordering::Release);
    }
}

impl LoopEntry {
    /// Publishes positions; `hwtail` last.
    #[inline]
    pub fn publish(&self, hwcur: u32, hwtail: u32) {
        self.hwcur.store(hwcur, Ordering::Relaxed);
        // Pairs with the program's load of hwtail: slots before it, and hwcur, are visible then.
        self.hwtail.store(hwtail, Ordering::Release);
    }

    /// `hwcur` and `hwtail`: the program's side of [`LoopEntry::publish`].
    #[inline]
    #[must_use]
    pub fn positions(&self) -> (u32, u32) {
        let hwtail = self.hwtail.load(Ordering::Acquire);
        (self.hwcur.load(Ordering::Relaxed), hwtail)
    }

    /// Sets it to the state of a ring whose loop sleeps.
    pub fn reset(&self, hwcur: u32, hwtail: u32) {
        self._pad.iter().for_each(|word| word.store(0, Ordering::Relaxed));
        self.need_kick.store(1, Ordering::Relaxed);
        self.publish(hwcur, hwtail);
    }
}

/// A communication status block: an array of what the program writes, and one of what the loop writes. TX rings first, then RX rings, in the order in which they are bound.
pub struct Csb {
    app: NonNull<AppEntry>,
    kern: NonNull<LoopEntry>,
    len: usize,
    /// None: whoever made it from addresses keeps the memory.
    _maps: Option<[Arc<Map>; 2]>,
}

// SAFETY: pointers to atomics that live as long as this (I1, or the promise of `from_raw`); any thread may use them.
unsafe impl Send for Csb {}
// SAFETY: as for Send.
unsafe impl Sync for Csb {}

impl Csb {
    /// Arrays of `len` entries at byte offsets of maps. None if they do not fit or are not aligned.
    #[must_use]
    pub fn in_maps(app: (&Arc<Map>, usize), kern: (&Arc<Map>, usize), len: usize) -> Option<Self> {
        let apps: SharedSlice<AppEntry> = SharedSlice::new(app.0, app.1, len)?;
        let kerns: SharedSlice<LoopEntry> = SharedSlice::new(kern.0, kern.1, len)?;
        Some(Csb {
            app: NonNull::from(&*apps).cast(),
            kern: NonNull::from(&*kerns).cast(),
            len,
            _maps: Some([app.0.clone(), kern.0.clone()]),
        })
    }

    /// Arrays of `len` entries in a file of their own, all zeros, for whoever is to map it too (a virtual machine): entry `i` of what the
    /// program writes lies at byte `64 * i`, of what the loop writes at byte `64 * (len + i)`.
    ///
    /// # Errors
    /// EMFILE, ENOMEM.
    pub fn create(len: usize) -> io::Result<(Self, Memfd)> {
        let bytes = len.checked_mul(ENTRY_BYTES).ok_or(io::ErrorKind::OutOfMemory)?;
        let memfd = Memfd::create("ringway-csb", (2 * bytes).max(1))?;
        let map = memfd.map()?;
        let csb = Csb::in_maps((&map, 0), (&map, bytes), len).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok((csb, memfd))
    }

    /// Arrays of `len` entries at addresses of this process. None if an address is 0 or not a multiple of [`ENTRY_BYTES`].
    ///
    /// # Safety
    /// As long as this lives, `len` entries at each address are mapped for reading and writing, and no reference to plain data looks
    /// at them. Anybody may write there at any time.
    #[must_use]
    pub unsafe fn from_raw(app: *mut u8, kern: *mut u8, len: usize) -> Option<Self> {
        let aligned = |p: *mut u8| NonNull::new(p).filter(|p| p.addr().get().is_multiple_of(ENTRY_BYTES));
        Some(Csb { app: aligned(app)?.cast(), kern: aligned(kern)?.cast(), len, _maps: None })
    }

    /// What the program writes.
    #[inline]
    #[must_use]
    pub fn app(&self) -> &[AppEntry] {
        // SAFETY: `len` aligned entries that live as long as this (I1, I2, or the promise of `from_raw`); atomics (I3).
        unsafe { core::slice::from_raw_parts(self.app.as_ptr(), self.len) }
    }

    /// What the loop writes.
    #[inline]
    #[must_use]
    pub fn kern(&self) -> &[LoopEntry] {
        // SAFETY: as in `app`.
        unsafe { core::slice::from_raw_parts(self.kern.as_ptr(), self.len) }
    }
}

impl fmt::Debug for Csb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Csb({} rings)", self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrays_lie_where_they_are_told_and_nowhere_else() {
        let map = Map::anonymous(4096).unwrap();
        let csb = Csb::in_maps((&map, 0), (&map, 128), 2).unwrap();
        csb.app()[1].publish(5, 6);
        csb.kern()[1].reset(7, 8);
        assert_eq!((csb.app()[1].positions(), csb.kern()[1].positions()), ((5, 6), (7, 8)));
        let words: SharedSlice<AtomicU32> = SharedSlice::new(&map, 0, 64).unwrap();
        let word = |i: usize| words[i].load(Ordering::Relaxed);
        assert_eq!([word(16), word(17)], [5, 6]);
        assert_eq!([word(48), word(49), word(50), word(51)], [7, 8, 1, 0]);
        assert!(Csb::in_maps((&map, 32), (&map, 128), 1).is_none());
        assert!(Csb::in_maps((&map, 0), (&map, 4096 - 64), 2).is_none());
        // SAFETY: the memory is not used.
        assert!(unsafe { Csb::from_raw(map.as_ptr().wrapping_add(8), map.as_ptr(), 1) }.is_none());
    }
}
