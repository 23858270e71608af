//! From a name to a request, and back.

use core::ffi::{CStr, c_char, c_int};
use core::mem;
use ringway_abi::{Conf, Errno, ParseOptions, PortOption, SpecError, decode_port_options};
use std::sync::{Mutex, PoisonError};

use crate::errno::{self, Failure};
use crate::nmreq;
use crate::sys;
use crate::text::Text;
use crate::types::{nmport_cleanup_d, nmport_d};

/// Which options names may use, in the whole process.
static ALLOWED: Mutex<ParseOptions> = Mutex::new(ParseOptions::libnetmap());

fn allowed<R>(f: impl FnOnce(&mut ParseOptions) -> R) -> R {
    // A panic elsewhere cannot leave a flag half written.
    f(&mut ALLOWED.lock().unwrap_or_else(PoisonError::into_inner))
}

impl nmport_d {
    /// Reads a name. What was done stays done if it fails.
    ///
    /// # Safety
    /// C contract 1, 3, 4.
    unsafe fn parse(&mut self, text: &Text) -> Result<(), Failure> {
        let mode = nmreq::decode_header(text, text.as_str(), &mut self.hdr)?;
        let options = nmreq::decode_register(text, mode, &mut self.reg)?;
        // An option fails with bytes for its message, which the grammar's error does not hold.
        let mut failed = None;
        let read = decode_port_options(options, &allowed(|allowed| *allowed), &mut |option| {
            // SAFETY: C contract 1, 3, 4.
            unsafe { self.apply(text, option) }.map_err(|failure| {
                let errno = failure.errno;
                failed = Some(failure);
                SpecError { errno, message: String::new() }
            })
        });
        read.map_err(|error| failed.unwrap_or_else(|| text.failure(&error)))
    }

    /// Does what an option asks for.
    ///
    /// # Safety
    /// C contract 1, 3, 4.
    unsafe fn apply(&mut self, text: &Text, option: PortOption<'_>) -> Result<(), Failure> {
        match option {
            PortOption::Share(port) => {
                let (id, _) = nmreq::mem_id(text, port)?;
                let old = mem::replace(&mut self.reg.nr_mem_id, id);
                if old != 0 && old != id {
                    self.reg.nr_mem_id = old;
                    let message = format!("cannot set mem_id to {id}, already set to {old}");
                    return Err(Failure::invalid(message));
                }
            }
            PortOption::Conf(values) => {
                let reg = &mut self.reg;
                let mut conf = Conf {
                    tx_rings: reg.nr_tx_rings,
                    rx_rings: reg.nr_rx_rings,
                    host_tx_rings: reg.nr_host_tx_rings,
                    host_rx_rings: reg.nr_host_rx_rings,
                    tx_slots: reg.nr_tx_slots,
                    rx_slots: reg.nr_rx_slots,
                };
                conf.apply(&values);
                reg.nr_tx_rings = conf.tx_rings;
                reg.nr_rx_rings = conf.rx_rings;
                reg.nr_host_tx_rings = conf.host_tx_rings;
                reg.nr_host_rx_rings = conf.host_rx_rings;
                reg.nr_tx_slots = conf.tx_slots;
                reg.nr_rx_slots = conf.rx_slots;
            }
            PortOption::Extmem(wanted) => {
                // SAFETY: C contract 1, 4.
                unsafe {
                    self.extmem_from_file(&text.c_string(&wanted.file))?;
                    let info = &mut (*self.extmem).nro_info;
                    *info = wanted.pools_info(info.nr_memsize);
                }
            }
            // SAFETY: C contract 1, 4.
            PortOption::Offset(offset) => unsafe { self.offset(offset.to_option())? },
            // Not among the options of libnetmap.
            PortOption::Mode(_) => return Err(Failure::invalid("unknown option: 'mode'")),
        }
        Ok(())
    }

    /// Gives back what options got, and empties the request.
    ///
    /// # Safety
    /// C contract 1, 4.
    unsafe fn undo_parse(&mut self) {
        let ctx = self.context();
        while !self.clist.is_null() {
            // SAFETY: a cleanup of this descriptor, made by `add_cleanup`; C contract 4.
            unsafe {
                let nmport_cleanup_d { next, option, map, map_len } = self.clist.read();
                ctx.free(self.clist);
                self.clist = next;
                if !option.is_null() {
                    nmreq::remove(&mut self.hdr, option);
                    if option == self.extmem.cast() {
                        self.extmem = core::ptr::null_mut();
                    }
                    ctx.free(option);
                }
                if !map.is_null() {
                    sys::unmap(map, map_len);
                }
            }
        }
        self.hdr = Default::default();
        self.reg = Default::default();
    }
}

/// Reads a name. After a failure all is undone, and the descriptor can only be deleted.
/// Source: userapi.md 4, as all of this file.
///
/// # Safety
/// C contract 1, 2, 3, 4.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nmport_parse(d: *mut nmport_d, portspec: *const c_char) -> c_int {
    // SAFETY: C contract 1, 2, 3, 4.
    unsafe {
        let result = (*d).parse(&Text::from_ptr(portspec)).inspect_err(|_| (*d).undo_parse());
        (*d).context().status(result)
    }
}

/// Gives back what options got, and empties the request.
///
/// # Safety
/// C contract 1, 4.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nmport_undo_parse(d: *mut nmport_d) {
    // SAFETY: C contract 1, 4.
    unsafe { (*d).undo_parse() };
}

/// Refuses an option in later names; nothing happens if it is unknown.
///
/// # Safety
/// C contract 2.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nmport_disable_option(opt: *const c_char) {
    // SAFETY: C contract 2.
    let name = unsafe { CStr::from_ptr(opt) }.to_string_lossy();
    allowed(|allowed| allowed.disable(&name));
}

/// Allows an option in later names; EOPNOTSUPP, without a message, if it is unknown.
///
/// # Safety
/// C contract 2.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nmport_enable_option(opt: *const c_char) -> c_int {
    // SAFETY: C contract 2.
    let name = unsafe { CStr::from_ptr(opt) }.to_string_lossy();
    if allowed(|allowed| allowed.enable(&name)) {
        return 0;
    }
    errno::set(Errno::EOPNOTSUPP);
    -1
}
