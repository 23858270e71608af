//! Options of a port's request: memory of the program, and offsets.

use core::ffi::{CStr, c_char, c_int, c_void};
use core::ptr;
use ringway_abi::{
    NETMAP_REQ_OPT_EXTMEM, NETMAP_REQ_OPT_OFFSETS, nmreq_opt_extmem, nmreq_opt_offsets, nmreq_option,
    nmreq_pools_info,
};

use crate::errno::Failure;
use crate::nmreq::nmreq_push_option;
use crate::sys;
use crate::types::{nmport_cleanup_d, nmport_d};

impl nmport_d {
    /// A cleanup with nothing to do yet.
    ///
    /// # Safety
    /// C contract 1, 3.
    unsafe fn add_cleanup(&mut self) -> Result<&mut nmport_cleanup_d, Failure> {
        // Valid as zeros: pointers and a number.
        let cleanup =
            self.context().alloc::<nmport_cleanup_d>(self.says("cannot allocate the record of an option"))?;
        // SAFETY: just allocated.
        let cleanup = unsafe { &mut *cleanup };
        cleanup.next = self.clist;
        self.clist = cleanup;
        Ok(cleanup)
    }

    /// Puts an option on the list, until the parse is undone.
    ///
    /// # Safety
    /// C contract 1, 3, 4; `T` begins with a [`nmreq_option`].
    unsafe fn add_option<T>(&mut self, option: T) -> Result<*mut T, Failure> {
        let ctx = self.context();
        let copy = ctx.alloc::<T>(self.says("cannot allocate an option"))?;
        // SAFETY: just allocated, for this type; C contract 1, 3, 4.
        unsafe {
            copy.write(option);
            match self.add_cleanup() {
                Ok(cleanup) => cleanup.option = copy.cast(),
                Err(failure) => {
                    ctx.free(copy);
                    return Err(failure);
                }
            }
            nmreq_push_option(&mut self.hdr, copy.cast::<nmreq_option>());
        }
        Ok(copy)
    }

    /// # Safety
    /// C contract 1, 3, 4.
    unsafe fn extmem(&mut self, base: *mut c_void, size: usize) -> Result<(), Failure> {
        if self.register_done != 0 {
            return Err(Failure::invalid(self.says("cannot set extmem of an already registered port")));
        }
        if !self.extmem.is_null() {
            return Err(Failure::invalid(self.says("extmem already in use")));
        }
        let option = nmreq_opt_extmem {
            nro_opt: nmreq_option { nro_reqtype: NETMAP_REQ_OPT_EXTMEM, ..nmreq_option::default() },
            nro_usrptr: base.expose_provenance() as u64,
            nro_info: nmreq_pools_info { nr_memsize: size as u64, ..nmreq_pools_info::default() },
        };
        // SAFETY: C contract 1, 3, 4.
        self.extmem = unsafe { self.add_option(option)? };
        Ok(())
    }

    /// # Safety
    /// C contract 1, 3, 4.
    pub(super) unsafe fn extmem_from_file(&mut self, file: &CStr) -> Result<(), Failure> {
        let quoted = |what: &str| [what.as_bytes(), b" '", file.to_bytes(), b"'"].concat();
        let fd = sys::open(file).map_err(|()| Failure::last(quoted("cannot open")))?;
        let len = fd.len_bytes().map_err(|()| Failure::last(quoted("failed to obtain filesize of")))?;
        let map = fd.map(len).map_err(|()| Failure::last(quoted("cannot mmap")))?;
        drop(fd);
        // SAFETY: C contract 1, 3, 4; the mapping is ours, and in no list yet if something fails.
        unsafe {
            // Before the option: what is added last is undone first, and the option points to the map.
            let cleanup = self.add_cleanup().map(|cleanup| {
                cleanup.map = map;
                cleanup.map_len = len;
            });
            if let Err(failure) = cleanup {
                sys::unmap(map, len);
                return Err(failure);
            }
            let added = self.extmem(map, len);
            if added.is_err() {
                // Still the first of the list: an option that failed has left nothing there.
                let cleanup = self.clist;
                self.clist = (*cleanup).next;
                self.context().free(cleanup);
                sys::unmap(map, len);
            }
            added
        }
    }

    /// # Safety
    /// C contract 1, 3, 4.
    pub(super) unsafe fn offset(&mut self, option: nmreq_opt_offsets) -> Result<(), Failure> {
        // SAFETY: C contract 1, 3, 4.
        unsafe { self.add_option(option) }.map(|_| ())
    }
}

/// The memory of the port shall be this. Source: userapi.md 4, as all of this file.
///
/// # Safety
/// C contract 1, 3, 4.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nmport_extmem(d: *mut nmport_d, base: *mut c_void, size: usize) -> c_int {
    // SAFETY: C contract 1, 3, 4.
    unsafe {
        let result = (*d).extmem(base, size);
        (*d).context().status(result)
    }
}

/// The memory of the port shall be this file.
///
/// # Safety
/// C contract 1, 2, 3, 4.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nmport_extmem_from_file(d: *mut nmport_d, fname: *const c_char) -> c_int {
    // SAFETY: C contract 1, 2, 3, 4.
    unsafe {
        let result = (*d).extmem_from_file(CStr::from_ptr(fname));
        (*d).context().status(result)
    }
}

/// What shall lie in that memory; NULL if there is none.
///
/// # Safety
/// C contract 1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nmport_extmem_getinfo(d: *mut nmport_d) -> *mut nmreq_pools_info {
    // SAFETY: C contract 1; the option is of this port, and lives until the parse is undone.
    unsafe {
        match (*d).extmem {
            extmem if extmem.is_null() => ptr::null_mut(),
            extmem => &raw mut (*extmem).nro_info,
        }
    }
}

/// Packets may begin up to `maxoff` bytes into their buffers. Each call adds another option.
///
/// # Safety
/// C contract 1, 3, 4.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nmport_offset(
    d: *mut nmport_d,
    initial: u64,
    maxoff: u64,
    bits: u64,
    mingap: u64,
) -> c_int {
    let option = nmreq_opt_offsets {
        nro_opt: nmreq_option { nro_reqtype: NETMAP_REQ_OPT_OFFSETS, ..nmreq_option::default() },
        nro_max_offset: maxoff,
        nro_initial_offset: initial,
        nro_offset_bits: bits as u32,
        nro_min_gap: mingap,
        ..nmreq_opt_offsets::default()
    };
    // SAFETY: C contract 1, 3, 4.
    unsafe {
        let result = (*d).offset(option);
        (*d).context().status(result)
    }
}
