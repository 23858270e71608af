//! `nmreq_*`: requests, their options, and the parts of names.

mod options;
mod parts;

pub use options::{nmreq_push_option, option_name, options, remove};
pub use parts::{decode_header, decode_register, mem_id};

use core::ffi::c_void;
use ringway_abi::{NETMAP_API, nmreq_header};

/// A header for a request. Source: userapi.md 5.
pub fn header(nr_reqtype: u16, body: *mut c_void) -> nmreq_header {
    let nr_body = body.expose_provenance() as u64;
    nmreq_header { nr_version: NETMAP_API, nr_reqtype, nr_body, ..nmreq_header::default() }
}

/// Makes a header for a request. Source: userapi.md 5.
///
/// # Safety
/// C contract 1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nmreq_header_init(hdr: *mut nmreq_header, reqtype: u16, body: *mut c_void) {
    // SAFETY: C contract 1; what was there before may be anything.
    unsafe { hdr.write(header(reqtype, body)) };
}
