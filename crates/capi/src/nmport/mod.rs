//! `nmport_*`: ports, from a name to rings in memory and back.

mod extmem;
mod inject;
mod memory;
mod parse;

use core::ffi::{c_char, c_int};
use core::ptr;
use ringway_abi::{Errno, NETMAP_REQ_REGISTER, c_name, nmreq_header};

use crate::errno::{Failure, strerror};
use crate::nmctx::Ctx;
use crate::nmreq;
use crate::sys;
use crate::types::nmport_d;

impl nmport_d {
    /// Its context.
    fn context(&self) -> Ctx {
        // SAFETY: C contract 3: set when the descriptor was made.
        unsafe { Ctx::new(self.ctx) }
    }

    /// `<name>: <text>`
    fn says(&self, text: &str) -> Vec<u8> {
        [c_name(&self.hdr.nr_name), b": ", text.as_bytes()].concat()
    }

    /// A new one in a context: all zero, but for a header, the context, and no descriptor.
    fn create(ctx: Ctx) -> Result<*mut Self, Failure> {
        // Valid as zeros: numbers and pointers.
        let d = ctx.alloc::<Self>("cannot allocate a port descriptor")?;
        // SAFETY: just allocated, zeroed, and nobody else's.
        unsafe {
            (*d).ctx = ctx.as_ptr();
            (*d).fd = -1;
            (*d).hdr = nmreq::header(NETMAP_REQ_REGISTER, (&raw mut (*d).reg).cast());
        }
        Ok(d)
    }

    /// Opens the device and binds it.
    ///
    /// # Safety
    /// C contract 1, 4.
    unsafe fn register(&mut self) -> Result<(), Failure> {
        if self.register_done != 0 {
            return Err(Failure::invalid(self.says("already registered")));
        }
        let fd = sys::open_device().map_err(|()| sys::no_device(""))?;
        // SAFETY: C contract 1, 4: the body is `reg`, or what the program put there.
        if unsafe { fd.request(&raw mut self.hdr) }.is_err() {
            // SAFETY: C contract 4.
            return Err(unsafe { self.refused() });
        }
        self.fd = fd.into_raw();
        self.register_done = 1;
        Ok(())
    }

    /// Tells why the service refused: one message per option that it did not like.
    ///
    /// # Safety
    /// C contract 4.
    unsafe fn refused(&self) -> Failure {
        let errno = crate::errno::get();
        let mut message = None;
        // SAFETY: C contract 4.
        for opt in unsafe { nmreq::options(&self.hdr) } {
            // SAFETY: C contract 4.
            let (kind, status) = unsafe { ((*opt).nro_reqtype, (*opt).nro_status) };
            if status == 0 {
                continue;
            }
            if let Some(earlier) = message.take() {
                self.context().fail(&Failure::new(errno, earlier));
            }
            let name = nmreq::option_name(kind).to_string_lossy();
            let why = strerror(Errno(status as i32));
            message = Some(self.says(&format!("option {name}: {why}")));
        }
        Failure::new(errno, message.unwrap_or_else(|| self.says(&strerror(errno))))
    }

    fn undo_register(&mut self) {
        if self.register_done != 0 {
            sys::close(self.fd);
        }
        self.fd = -1;
        self.register_done = 0;
    }

    /// # Safety
    /// C contract 1, 3, 4, 5.
    unsafe fn open_desc(&mut self) -> Result<(), Failure> {
        // SAFETY: as the caller promises.
        unsafe {
            self.register()?;
            self.mmap().inspect_err(|_| self.undo_register())
        }
    }
}

/// A new descriptor in the default context. Source: userapi.md 4, as all of this file.
#[unsafe(no_mangle)]
pub extern "C" fn nmport_new() -> *mut nmport_d {
    give(Ctx::default(), nmport_d::create(Ctx::default()))
}

/// What a C function returns: the descriptor, or NULL with errno.
fn give(ctx: Ctx, result: Result<*mut nmport_d, Failure>) -> *mut nmport_d {
    result.unwrap_or_else(|failure| {
        ctx.fail(&failure);
        ptr::null_mut()
    })
}

/// Frees a descriptor, and nothing else.
///
/// # Safety
/// C contract 1; not NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nmport_delete(d: *mut nmport_d) {
    // SAFETY: C contract 1: from `nmport_new` or its like, so from this context.
    unsafe { (*d).context().free(d) };
}

/// A descriptor for a name, not open yet.
///
/// # Safety
/// C contract 2.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nmport_prepare(portspec: *const c_char) -> *mut nmport_d {
    let d = nmport_new();
    // SAFETY: C contract 2; the descriptor is new.
    unsafe {
        if !d.is_null() && parse::nmport_parse(d, portspec) != 0 {
            nmport_delete(d);
            return ptr::null_mut();
        }
    }
    d
}

/// The inverse of [`nmport_prepare`]; NULL is allowed.
///
/// # Safety
/// C contract 1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nmport_undo_prepare(d: *mut nmport_d) {
    if !d.is_null() {
        // SAFETY: C contract 1.
        unsafe {
            parse::nmport_undo_parse(d);
            nmport_delete(d);
        }
    }
}

/// Binds a descriptor to its port.
///
/// # Safety
/// C contract 1, 4.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nmport_register(d: *mut nmport_d) -> c_int {
    // SAFETY: C contract 1, 4.
    unsafe {
        let result = (*d).register();
        (*d).context().status(result)
    }
}

/// Closes the device.
///
/// # Safety
/// C contract 1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nmport_undo_register(d: *mut nmport_d) {
    // SAFETY: C contract 1.
    unsafe { (*d).undo_register() };
}

/// Binds and maps.
///
/// # Safety
/// C contract 1, 3, 4, 5.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nmport_open_desc(d: *mut nmport_d) -> c_int {
    // SAFETY: C contract 1, 3, 4, 5.
    unsafe {
        let result = (*d).open_desc();
        (*d).context().status(result)
    }
}

/// The inverse of [`nmport_open_desc`].
///
/// # Safety
/// C contract 1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nmport_undo_open_desc(d: *mut nmport_d) {
    // SAFETY: C contract 1.
    unsafe {
        memory::nmport_undo_mmap(d);
        nmport_undo_register(d);
    }
}

/// Opens the port of a name.
///
/// # Safety
/// C contract 2, 3, 5.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nmport_open(portspec: *const c_char) -> *mut nmport_d {
    // SAFETY: C contract 2, 3, 5.
    unsafe {
        let d = nmport_prepare(portspec);
        if !d.is_null() && nmport_open_desc(d) != 0 {
            nmport_undo_prepare(d);
            return ptr::null_mut();
        }
        d
    }
}

/// Closes it; NULL is allowed.
///
/// # Safety
/// C contract 1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nmport_close(d: *mut nmport_d) {
    if !d.is_null() {
        // SAFETY: C contract 1.
        unsafe {
            nmport_undo_open_desc(d);
            nmport_undo_prepare(d);
        }
    }
}

/// Another descriptor for the same port, neither registered nor mapped; options are left out.
///
/// # Safety
/// C contract 1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nmport_clone(d: *mut nmport_d) -> *mut nmport_d {
    // SAFETY: C contract 1.
    let d = unsafe { &*d };
    let ctx = d.context();
    if !d.extmem.is_null() && d.register_done == 0 {
        let text = "cannot clone unregistered port that is using extmem";
        return give(ctx, Err(Failure::invalid(text)));
    }
    let clone = nmport_d::create(ctx).inspect(|&clone| {
        // SAFETY: just made.
        let clone = unsafe { &mut *clone };
        let nr_body = clone.hdr.nr_body;
        clone.hdr = nmreq_header { nr_options: 0, nr_body, ..d.hdr };
        clone.reg = d.reg;
    });
    give(ctx, clone)
}
