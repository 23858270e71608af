//! The MAC table of a switch: sets of eight entries, one cache line each.
//!
//! An entry is one 64-bit word: address (48 bits), port index (8), low bits of the port's generation (8, never 0). An
//! entry of a port that has left names a generation that is no more, so it swallows no traffic, also when a
//! sender that was killed or stopped wrote it late. 8192 entries; a set that overflows loses an entry chosen by
//! the newcomer's address, so collisions cost a flood now and then, never for good.
//!
//! Addresses are the first six bytes of a frame in memory order, in the low bits of a word.

use ringway_os::state::{MAC_WAYS, MACS, SwitchPage};
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

/// Bits of an address in a word.
pub const MAC_MASK: u64 = 0xffff_ffff_ffff;
/// The group bit of an address in a word: broadcast and multicast.
pub const MAC_GROUP: u64 = 1;

/// Where an address was last seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Port index.
    pub port: u8,
    /// Low bits of the port's generation.
    pub tag: u8,
}

impl Place {
    /// Port and tag as an entry has them in its upper 16 bits. Never 0.
    #[inline]
    pub(super) fn bits(self) -> u64 {
        u64::from(self.port) | u64::from(self.tag) << 8
    }
}

/// The tag of a generation: its low bits, never 0.
#[inline]
#[must_use]
pub fn tag_of(generation: u32) -> u8 {
    (generation % 255) as u8 + 1
}

/// The entry where `mac` is looked for first, and put if it is free: so nearly all look-ups end after one comparison, and the
/// processor predicts that. The line that it lies in is the set of `mac`. A multiplicative hash; its top bits are the good ones.
#[inline(always)]
fn first(mac: u64) -> usize {
    (mac.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - MACS.ilog2())) as usize
}

/// The set of `mac`, and where in it `mac` is looked for first.
#[inline]
fn set_of(page: &SwitchPage, mac: u64) -> (&[AtomicU64], usize) {
    let first = first(mac);
    let (at, way) = (first / MAC_WAYS * MAC_WAYS, first % MAC_WAYS);
    (&page.macs[at..at + MAC_WAYS], way)
}

/// Whether the port that an entry names is still there.
#[inline]
pub(super) fn is_alive(page: &SwitchPage, place: Place) -> bool {
    let generation = page.generations[usize::from(place.port)].load(Relaxed);
    generation != 0 && tag_of(generation) == place.tag
}

/// Whether `mac` was last seen at the place whose [`Place::bits`] are given; false for bits that no entry has.
#[inline(always)]
pub(super) fn is_at(page: &SwitchPage, mac: u64, place: u64) -> bool {
    let entry = mac | place << 48;
    page.macs[first(mac)].load(Relaxed) == entry || is_elsewhere(page, entry)
}

#[inline(never)]
fn is_elsewhere(page: &SwitchPage, entry: u64) -> bool {
    find(page, entry & MAC_MASK) == entry
}

/// The entry of `mac`, 0 if there is none.
fn find(page: &SwitchPage, mac: u64) -> u64 {
    let is_it = |e: &u64| e & MAC_MASK == mac && *e != 0;
    set_of(page, mac).0.iter().map(|e| e.load(Relaxed)).find(is_it).unwrap_or(0)
}

/// Where `mac` was last seen. The entry may be that of a port that has left: compare its tag.
#[inline]
#[must_use]
pub fn lookup(page: &SwitchPage, mac: u64) -> Option<Place> {
    let e = find(page, mac);
    (e != 0).then_some(Place { port: (e >> 48) as u8, tag: (e >> 56) as u8 })
}

/// Remembers that `mac` was seen at `place`. `alive` tells whether an entry's port still exists.
pub fn learn(page: &SwitchPage, mac: u64, place: Place, alive: impl Fn(Place) -> bool) {
    let (set, first) = set_of(page, mac);
    let entry = mac | place.bits() << 48;
    let mut free = None;
    let mut found = false;
    for (i, e) in set.iter().enumerate().cycle().skip(first).take(MAC_WAYS) {
        let old = e.load(Relaxed);
        if old != 0 && old & MAC_MASK == mac {
            // Two senders may have inserted one address at once: keep the first entry only.
            let new = if found { 0 } else { entry };
            if old != new {
                e.store(new, Relaxed);
            }
            found = true;
        } else if free.is_none()
            && (old == 0 || !alive(Place { port: (old >> 48) as u8, tag: (old >> 56) as u8 }))
        {
            free = Some(i);
        }
    }
    if !found {
        let victim = free.unwrap_or((mac.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 61) as usize);
        set[victim % MAC_WAYS].store(entry, Relaxed);
    }
}

/// Forgets every address of a port.
pub fn forget(page: &SwitchPage, port: u8) {
    for entry in &page.macs {
        let e = entry.load(Relaxed);
        if e != 0 && (e >> 48) as u8 == port {
            entry.store(0, Relaxed);
        }
    }
}

/// How many addresses are remembered of each port, for listings.
#[must_use]
pub fn count(page: &SwitchPage, port: u8) -> usize {
    let is_ours = |e: u64| e != 0 && (e >> 48) as u8 == port;
    page.macs.iter().filter(|e| is_ours(e.load(Relaxed))).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringway_os::mem::{Map, SharedRef};
    use std::collections::HashMap;

    fn page() -> SharedRef<SwitchPage> {
        SharedRef::new(&Map::anonymous(size_of::<SwitchPage>()).unwrap(), 0).unwrap()
    }

    const ALIVE: fn(Place) -> bool = |_| true;

    #[test]
    fn a_thousand_addresses_are_all_found() {
        let page = page();
        let mut model = HashMap::new();
        for i in 0..1000u64 {
            let mac = (i * 0x0001_0000_0002) & MAC_MASK & !MAC_GROUP;
            let place = Place { port: (i % 200) as u8, tag: 1 };
            learn(&page, mac, place, ALIVE);
            model.insert(mac, place);
        }
        for (mac, place) in model {
            assert_eq!(lookup(&page, mac), Some(place));
        }
    }

    #[test]
    fn an_address_that_moves_has_one_entry() {
        let page = page();
        for port in [3, 5, 3] {
            learn(&page, 0x42, Place { port, tag: 9 }, ALIVE);
            assert_eq!(lookup(&page, 0x42), Some(Place { port, tag: 9 }));
        }
        assert_eq!((count(&page, 3), count(&page, 5)), (1, 0));
        forget(&page, 3);
        assert_eq!(lookup(&page, 0x42), None);
    }

    #[test]
    fn address_zero_is_an_address_like_others() {
        let page = page();
        assert_eq!(lookup(&page, 0), None);
        learn(&page, 0, Place { port: 0, tag: 1 }, ALIVE);
        assert_eq!(lookup(&page, 0), Some(Place { port: 0, tag: 1 }));
    }

    #[test]
    fn a_full_set_gives_up_the_dead_first() {
        let page = page();
        // Addresses that share a set, found by trying.
        let set = set_of(&page, 2).0.as_ptr();
        let same: Vec<u64> = (1..)
            .map(|i| i * 2)
            .filter(|m| std::ptr::eq(set_of(&page, *m).0.as_ptr(), set))
            .take(9)
            .collect();
        for (i, mac) in same[..8].iter().enumerate() {
            learn(&page, *mac, Place { port: i as u8, tag: 1 }, ALIVE);
        }
        learn(&page, same[8], Place { port: 9, tag: 1 }, |p| p.port != 6);
        assert_eq!(lookup(&page, same[6]), None);
        assert!(same.iter().enumerate().all(|(i, m)| i == 6 || lookup(&page, *m).is_some()));
    }
}
