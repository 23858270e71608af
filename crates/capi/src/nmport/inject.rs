//! `nmport_inject`: one packet into a ring.

use core::ffi::{c_int, c_void};
use core::ptr;
use ringway_abi::{IF_RING_OFS, NS_MOREFRAG, RING_SLOT_OFS, netmap_ring, netmap_slot};

use crate::types::nmport_d;

/// A ring of the program, for one packet.
struct Ring {
    ring: *mut netmap_ring,
    num_slots: u32,
    buf_size: u32,
}

impl Ring {
    /// # Safety
    /// C contract 5: a ring that is bound.
    unsafe fn new(ring: *mut netmap_ring) -> Self {
        // SAFETY: as the caller promises.
        unsafe { Self { ring, num_slots: (*ring).num_slots, buf_size: (*ring).nr_buf_size } }
    }

    fn next(&self, i: u32) -> u32 {
        if i + 1 == self.num_slots { 0 } else { i + 1 }
    }

    /// Whether the slots from `cur` to `tail` can hold `size` bytes.
    ///
    /// # Safety
    /// C contract 5.
    unsafe fn has_room(&self, size: usize) -> bool {
        // SAFETY: C contract 5.
        let (mut i, tail) = unsafe { ((*self.ring).cur, (*self.ring).tail) };
        let mut rest = size;
        while rest > self.buf_size as usize && i != tail {
            rest -= self.buf_size as usize;
            i = self.next(i);
        }
        i != tail
    }

    /// Copies a packet into the slots from `cur` on, and releases them.
    ///
    /// # Safety
    /// C contract 5; there is room for it.
    unsafe fn put(&self, mut from: *const u8, size: usize) {
        // SAFETY: C contract 5: slots and buffers lie where the ring says.
        unsafe {
            let ring = self.ring;
            let slots: *mut netmap_slot = ring.byte_add(RING_SLOT_OFS).cast();
            let buffers: *mut u8 = ring.byte_offset((*ring).buf_ofs as isize).cast();
            let mut i = (*ring).cur;
            let mut rest = size;
            loop {
                let slot = slots.add(i as usize);
                let part = rest.min(self.buf_size as usize);
                let buffer = buffers.add((*slot).buf_idx as usize * self.buf_size as usize);
                ptr::copy_nonoverlapping(from, buffer, part);
                from = from.add(part);
                rest -= part;
                (*slot).len = part as u16;
                (*slot).flags = if rest > 0 { NS_MOREFRAG } else { 0 };
                i = self.next(i);
                if rest == 0 {
                    break;
                }
            }
            (*ring).cur = i;
            (*ring).head = i;
        }
    }
}

/// Puts a packet into the first TX ring with room, beginning with `cur_tx_ring`. Returns its size, or 0 if
/// no ring has room. Slot offsets are not looked at. Source: userapi.md 2 and 4.
///
/// # Safety
/// C contract 1, 5; `buf` has `size` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nmport_inject(d: *mut nmport_d, buf: *const c_void, size: usize) -> c_int {
    // SAFETY: C contract 1, 5.
    unsafe {
        let (first, last) = ((*d).first_tx_ring, (*d).last_tx_ring);
        let ring_ofs: *const i64 = (*d).nifp.byte_add(IF_RING_OFS).cast();
        let mut i = (*d).cur_tx_ring;
        // None bound: last is one less than first.
        for _ in 0..last.wrapping_sub(first).wrapping_add(1) {
            let ofs = ring_ofs.add(i.into()).read();
            let ring = Ring::new((*d).nifp.byte_offset(ofs as isize).cast());
            if ring.has_room(size) {
                ring.put(buf.cast(), size);
                (*d).cur_tx_ring = i;
                return size as c_int;
            }
            i = if i >= last { first } else { i + 1 };
        }
    }
    0
}
