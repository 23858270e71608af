//! The memory of ports: mapped once per context and memory id, counted, and the rings found in it.

use core::ffi::c_int;
use core::ptr;
use ringway_abi::{IF_RING_OFS, netmap_if};

use crate::errno::Failure;
use crate::sys;
use crate::types::{nmem_d, nmport_d};

/// The first and last ring of the first group of bound ones among `count`.
fn group(count: u16, is_bound: impl Fn(u16) -> bool) -> (u16, u16) {
    let first = (0..count).find(|&i| is_bound(i)).unwrap_or(count);
    let end = (first..count).find(|&i| !is_bound(i)).unwrap_or(count);
    // None: one less than the first, also where that is 0.
    (first, end.wrapping_sub(1))
}

impl nmport_d {
    /// # Safety
    /// C contract 1, 3, 5.
    pub(super) unsafe fn mmap(&mut self) -> Result<(), Failure> {
        if self.mmap_done != 0 {
            return Err(Failure::invalid(self.says("already mapped")));
        }
        if self.register_done == 0 {
            return Err(Failure::invalid("cannot map unregistered port"));
        }
        // SAFETY: C contract 3: under the lock.
        let desc = self.context().with_mem_descs(|list| unsafe { self.find_or_map(list) })?;
        self.mem = desc;
        // SAFETY: counted by `find_or_map`, so it stays; C contract 5.
        unsafe {
            self.nifp = (*desc).mem.byte_add(self.reg.nr_offset as usize).cast();
            self.find_rings();
        }
        self.mmap_done = 1;
        Ok(())
    }

    /// The descriptor of this port's memory, counted once more.
    ///
    /// # Safety
    /// C contract 1, 3; the list is locked.
    unsafe fn find_or_map(&self, list: &mut *mut nmem_d) -> Result<*mut nmem_d, Failure> {
        let mut desc = *list;
        // SAFETY: descriptors of the list are valid until their count is 0 and they leave it.
        unsafe {
            while !desc.is_null() && (*desc).mem_id != self.reg.nr_mem_id {
                desc = (*desc).next;
            }
            if desc.is_null() {
                desc = self.map_new()?;
                (*desc).next = *list;
                if !list.is_null() {
                    (**list).prev = desc;
                }
                *list = desc;
            }
            (*desc).refcount += 1;
        }
        Ok(desc)
    }

    /// # Safety
    /// C contract 1, 3.
    unsafe fn map_new(&self) -> Result<*mut nmem_d, Failure> {
        let ctx = self.context();
        // Valid as zeros: numbers and pointers.
        let desc = ctx.alloc::<nmem_d>(self.says("cannot allocate the record of its memory"))?;
        // SAFETY: just allocated; the option is of this port.
        unsafe {
            (*desc).mem_id = self.reg.nr_mem_id;
            if let Some(extmem) = self.extmem.as_ref() {
                (*desc).mem = ptr::with_exposed_provenance_mut(extmem.nro_usrptr as usize);
                (*desc).size = extmem.nro_info.nr_memsize as usize;
                (*desc).is_extmem = 1;
                return Ok(desc);
            }
            (*desc).size = self.reg.nr_memsize as usize;
            match sys::map(self.fd, (*desc).size) {
                Ok(mem) => (*desc).mem = mem,
                Err(()) => {
                    let failure = Failure::last("mmap");
                    ctx.free(desc);
                    return Err(failure);
                }
            }
        }
        Ok(desc)
    }

    /// Sets the ring range from the interface record.
    ///
    /// # Safety
    /// C contract 5; `nifp` is set.
    unsafe fn find_rings(&mut self) {
        let nifp = self.nifp;
        // SAFETY: C contract 5.
        let record: netmap_if = unsafe { nifp.read() };
        let ring_ofs: *const i64 = nifp.cast_const().wrapping_byte_add(IF_RING_OFS).cast();
        // SAFETY: C contract 5: the record has an offset for every ring that it counts.
        let is_bound = |index: u32| unsafe { ring_ofs.add(index as usize).read() } != 0;

        let tx_count = self.reg.nr_tx_rings.wrapping_add(record.ni_host_tx_rings as u16);
        (self.first_tx_ring, self.last_tx_ring) = group(tx_count, |i| is_bound(i.into()));
        self.cur_tx_ring = self.first_tx_ring;

        let rx_count = self.reg.nr_rx_rings.wrapping_add(record.ni_host_rx_rings as u16);
        let first_rx = record.ni_tx_rings + record.ni_host_tx_rings;
        (self.first_rx_ring, self.last_rx_ring) = group(rx_count, |i| is_bound(first_rx + u32::from(i)));
        self.cur_rx_ring = self.first_rx_ring;
    }

    /// # Safety
    /// C contract 1, 3.
    unsafe fn undo_mmap(&mut self) {
        let desc = self.mem;
        if !desc.is_null() {
            let ctx = self.context();
            // SAFETY: C contract 3: under the lock; this port has counted it.
            ctx.with_mem_descs(|list| unsafe {
                (*desc).refcount -= 1;
                if (*desc).refcount > 0 {
                    return;
                }
                let nmem_d { mem, size, is_extmem, next, prev, .. } = desc.read();
                match prev.as_mut() {
                    Some(prev) => prev.next = next,
                    None => *list = next,
                }
                if let Some(next) = next.as_mut() {
                    next.prev = prev;
                }
                if is_extmem == 0 {
                    sys::unmap(mem, size);
                }
                ctx.free(desc);
            });
        }
        self.mem = ptr::null_mut();
        self.nifp = ptr::null_mut();
        self.mmap_done = 0;
        (self.first_tx_ring, self.last_tx_ring, self.cur_tx_ring) = (0, 0, 0);
        (self.first_rx_ring, self.last_rx_ring, self.cur_rx_ring) = (0, 0, 0);
    }
}

/// Maps the memory of a port, unless this context has done so. Source: userapi.md 4.
///
/// # Safety
/// C contract 1, 3, 5.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nmport_mmap(d: *mut nmport_d) -> c_int {
    // SAFETY: C contract 1, 3, 5.
    unsafe {
        let result = (*d).mmap();
        (*d).context().status(result)
    }
}

/// Forgets the memory, and unmaps it if nobody else uses it. Source: userapi.md 4.
///
/// # Safety
/// C contract 1, 3.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nmport_undo_mmap(d: *mut nmport_d) {
    // SAFETY: C contract 1, 3.
    unsafe { (*d).undo_mmap() };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_group_counts() {
        let rows: [(&[bool], (u16, u16)); 6] = [
            (&[], (0, u16::MAX)),
            (&[false, false], (2, 1)),
            (&[true], (0, 0)),
            (&[true, true, false], (0, 1)),
            (&[false, true, true], (1, 2)),
            (&[false, true, false, true], (1, 1)),
        ];
        for (bound, range) in rows {
            assert_eq!(group(bound.len() as u16, |i| bound[usize::from(i)]), range, "{bound:?}");
        }
    }
}
