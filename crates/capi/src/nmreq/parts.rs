//! The parts of a name: header, mode, and the memory of another port.

use core::ffi::{c_char, c_int};
use core::ptr;
use ringway_abi::{
    NETMAP_REQ_IFNAMSIZ, NETMAP_REQ_PORT_INFO_GET, NETMAP_REQ_REGISTER, nmreq_header, nmreq_port_info_get,
    nmreq_register,
};
use ringway_abi::{decode_header as read_header, decode_register as read_register};

use super::header;
use crate::errno::{self, Failure};
use crate::nmctx::Ctx;
use crate::sys;
use crate::text::Text;
use crate::types::nmctx;

/// Reads prefix and name into `nr_name`; returns what follows.
pub fn decode_header<'a>(text: &'a Text, spec: &'a str, hdr: &mut nmreq_header) -> Result<&'a str, Failure> {
    let (name, rest) = read_header(spec).map_err(|error| text.failure(&error))?;
    hdr.nr_name = [0; NETMAP_REQ_IFNAMSIZ];
    // Shorter than the field: the grammar has seen to that.
    for (to, from) in hdr.nr_name.iter_mut().zip(text.bytes(name)) {
        *to = from;
    }
    Ok(rest)
}

/// Reads mode, flags and memory into `reg`; returns what follows.
pub fn decode_register<'a>(
    text: &'a Text,
    mode: &'a str,
    reg: &mut nmreq_register,
) -> Result<&'a str, Failure> {
    let (spec, rest) = read_register(mode, reg.nr_mem_id).map_err(|error| text.failure(&error))?;
    reg.nr_mode = spec.nr_mode;
    reg.nr_ringid = spec.nr_ringid;
    reg.nr_flags = spec.nr_flags;
    reg.nr_mem_id = spec.nr_mem_id;
    Ok(rest)
}

/// The memory of the port at the start of `name`, asked of the service; and what follows its name.
pub fn mem_id<'a>(text: &'a Text, name: &'a str) -> Result<(u16, &'a str), Failure> {
    let fd = sys::open_device().map_err(|()| sys::no_device("cannot open "))?;
    let mut info = nmreq_port_info_get::default();
    let mut hdr = header(NETMAP_REQ_REGISTER, ptr::null_mut());
    let rest = decode_header(text, name, &mut hdr)?;
    let info_ptr = &raw mut info;
    let mut hdr = nmreq_header { nr_name: hdr.nr_name, ..header(NETMAP_REQ_PORT_INFO_GET, info_ptr.cast()) };
    // SAFETY: header and body are ours, and of this kind of request; there is no option.
    if unsafe { fd.request(&mut hdr) }.is_err() {
        let what = [b"cannot get info for '", &text.bytes(name)[..], b"'"].concat();
        return Err(Failure::last(what));
    }
    // SAFETY: the body, which the service has filled in.
    Ok((unsafe { (*info_ptr).nr_mem_id }, rest))
}

/// Reads prefix and name of `*spec`, and moves it behind them. Source: userapi.md 5.
///
/// # Safety
/// C contract 1, 2, 3.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nmreq_header_decode(
    spec: *mut *const c_char,
    hdr: *mut nmreq_header,
    ctx: *mut nmctx,
) -> c_int {
    // SAFETY: C contract 1, 2, 3.
    let (text, hdr, ctx) = unsafe { (Text::from_ptr(*spec), &mut *hdr, Ctx::new(ctx)) };
    let result = decode_header(&text, text.as_str(), hdr).map(|rest| {
        // SAFETY: C contract 1; the rest lies inside the string, at the latest at its NUL.
        unsafe { *spec = (*spec).add(text.offset(rest)) };
    });
    ctx.status(result)
}

/// Reads mode, flags and memory of `*mode`, and moves it behind them. Source: userapi.md 5.
///
/// # Safety
/// C contract 1, 2, 3.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nmreq_register_decode(
    mode: *mut *const c_char,
    reg: *mut nmreq_register,
    ctx: *mut nmctx,
) -> c_int {
    // SAFETY: C contract 1, 2, 3.
    let (text, reg, ctx) = unsafe { (Text::from_ptr(*mode), &mut *reg, Ctx::new(ctx)) };
    let result = decode_register(&text, text.as_str(), reg).map(|rest| {
        // SAFETY: C contract 1; the rest lies inside the string, at the latest at its NUL.
        unsafe { *mode = (*mode).add(text.offset(rest)) };
    });
    ctx.status(result)
}

/// The memory of the port that `*name` names, or -1; moves `*name` behind it. Source: userapi.md 5.
///
/// # Safety
/// C contract 1, 2, 3.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nmreq_get_mem_id(name: *mut *const c_char, ctx: *mut nmctx) -> i32 {
    // SAFETY: C contract 1, 2, 3.
    unsafe {
        if name.is_null() || (*name).is_null() {
            errno::set(ringway_abi::Errno::EINVAL);
            return -1;
        }
        let text = Text::from_ptr(*name);
        match mem_id(&text, text.as_str()) {
            Ok((id, rest)) => {
                *name = (*name).add(text.offset(rest));
                id.into()
            }
            Err(failure) => {
                Ctx::new(ctx).fail(&failure);
                -1
            }
        }
    }
}
