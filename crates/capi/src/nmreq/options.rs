//! The list of options of a request, and parsers of options that a program brings.

use core::ffi::{CStr, c_char, c_int, c_void};
use core::iter;
use core::ptr;
use ringway_abi::{
    KeyDef, NETMAP_REQ_OPT_CSB, NETMAP_REQ_OPT_EXTMEM, NETMAP_REQ_OPT_OFFSETS,
    NETMAP_REQ_OPT_SYNC_KLOOP_EVENTFDS, NETMAP_REQ_OPT_SYNC_KLOOP_MODE, NMREQ_OPT_MAXKEYS,
    NMREQ_OPTF_ALLOWEMPTY, NMREQ_OPTF_DISABLED, NMREQ_OPTK_ALLOWEMPTY, NMREQ_OPTK_MUSTSET, OptionDef,
    OptionValues, SpecError, decode_options, nmreq_header, nmreq_option,
};
use std::ffi::CString;

use crate::errno::{self, Failure};
use crate::nmctx::Ctx;
use crate::text::Text;
use crate::types::{nmctx, nmreq_opt_parser, nmreq_parse_ctx};

/// The option at an address in a request.
fn at(address: u64) -> *mut nmreq_option {
    ptr::with_exposed_provenance_mut(address as usize)
}

/// The options of a header, first to last.
///
/// # Safety
/// C contract 4, as long as the iterator is used; each option stays until the next was asked for.
pub unsafe fn options(hdr: &nmreq_header) -> impl Iterator<Item = *mut nmreq_option> {
    let next = |opt: *mut nmreq_option| Some(opt).filter(|opt| !opt.is_null());
    // SAFETY: C contract 4.
    iter::successors(next(at(hdr.nr_options)), move |opt| next(at(unsafe { (**opt).nro_next })))
}

/// Puts an option before the others. Source: userapi.md 5.
///
/// # Safety
/// C contract 1, 4.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nmreq_push_option(hdr: *mut nmreq_header, opt: *mut nmreq_option) {
    // SAFETY: C contract 1.
    unsafe {
        (*opt).nro_next = (*hdr).nr_options;
        (*hdr).nr_options = opt.expose_provenance() as u64;
    }
}

/// Takes an option off the list; nothing happens if it is not there. Source: userapi.md 5.
///
/// # Safety
/// C contract 1, 4.
pub unsafe fn remove(hdr: &mut nmreq_header, opt: *mut nmreq_option) {
    let address = opt.addr() as u64;
    // SAFETY: C contract 4.
    let before = unsafe { options(hdr) }.find(|before| unsafe { (**before).nro_next } == address);
    // SAFETY: C contract 1, 4: both are valid options.
    unsafe {
        match before {
            _ if hdr.nr_options == address => hdr.nr_options = (*opt).nro_next,
            Some(before) => (*before).nro_next = (*opt).nro_next,
            None => return,
        }
        (*opt).nro_next = 0;
    }
}

/// Takes an option off the list; nothing happens if it is not there. Source: userapi.md 5.
///
/// # Safety
/// C contract 1, 4.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nmreq_remove_option(hdr: *mut nmreq_header, opt: *mut nmreq_option) {
    if !opt.is_null() {
        // SAFETY: C contract 1, 4.
        unsafe { remove(&mut *hdr, opt) };
    }
}

/// The first option of a type, or NULL. Source: userapi.md 5.
///
/// # Safety
/// C contract 1, 4.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nmreq_find_option(hdr: *mut nmreq_header, reqtype: u32) -> *mut nmreq_option {
    // SAFETY: C contract 1, 4.
    let found = unsafe { options(&*hdr) }.find(|opt| unsafe { (**opt).nro_reqtype } == reqtype);
    found.unwrap_or(ptr::null_mut())
}

/// Calls `free` for every option. The header is left as it is. Source: userapi.md 5.
///
/// # Safety
/// C contract 1, 4; each option came from `malloc`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nmreq_free_options(hdr: *mut nmreq_header) {
    // Collected first: the list is in what is freed.
    // SAFETY: C contract 1, 4.
    let all: Vec<_> = unsafe { options(&*hdr) }.collect();
    for opt in all {
        // SAFETY: C contract 1.
        unsafe { libc::free(opt.cast()) };
    }
}

/// The name of a type of options. Source: userapi.md 5.
pub const fn option_name(reqtype: u32) -> &'static CStr {
    match reqtype {
        NETMAP_REQ_OPT_EXTMEM => c"extmem",
        NETMAP_REQ_OPT_SYNC_KLOOP_EVENTFDS => c"sync-kloop-eventfds",
        NETMAP_REQ_OPT_CSB => c"csb",
        NETMAP_REQ_OPT_SYNC_KLOOP_MODE => c"sync-kloop-mode",
        NETMAP_REQ_OPT_OFFSETS => c"offsets",
        _ => c"unknown",
    }
}

/// The name of a type of options. Source: userapi.md 5.
#[unsafe(no_mangle)]
pub extern "C" fn nmreq_option_name(reqtype: u32) -> *const c_char {
    option_name(reqtype).as_ptr()
}

/// A parser of the program, with its spellings as text.
struct Parser {
    parser: *mut nmreq_opt_parser,
    prefix: String,
    keys: Vec<(String, usize, u32)>,
}

impl Parser {
    /// All parsers of a list.
    ///
    /// # Safety
    /// C contract 1, 2 for the whole list.
    unsafe fn list(first: *mut nmreq_opt_parser, text: &Text) -> Result<Vec<Self>, Failure> {
        let next = |parser: *mut nmreq_opt_parser| Some(parser).filter(|parser| !parser.is_null());
        // SAFETY: C contract 1.
        iter::successors(next(first), |parser| next(unsafe { (**parser).next }))
            // SAFETY: C contract 1, 2.
            .map(|parser| unsafe { Self::new(parser, text) })
            .collect()
    }

    /// # Safety
    /// C contract 1, 2.
    unsafe fn new(parser: *mut nmreq_opt_parser, text: &Text) -> Result<Self, Failure> {
        // SAFETY: C contract 1.
        let p = unsafe { &*parser };
        // SAFETY: C contract 2.
        let spelling = |s: *const c_char| text.same_writing(unsafe { CStr::from_ptr(s) }.to_bytes());
        let prefix = spelling(p.prefix);
        let in_range = |id: c_int| usize::try_from(id).ok().filter(|&id| id < NMREQ_OPT_MAXKEYS);
        let bad_id = || Failure::invalid(format!("option '{prefix}': no such key id"));
        if p.default_key >= 0 && in_range(p.default_key).is_none() {
            return Err(bad_id());
        }
        let keys = p.keys.iter().take_while(|key| !key.key.is_null());
        let keys = keys.map(|key| Ok((spelling(key.key), in_range(key.id).ok_or_else(bad_id)?, key.flags)));
        let keys = keys.collect::<Result<_, Failure>>()?;
        Ok(Self { parser, prefix, keys })
    }

    fn key_defs<'a>(&'a self) -> Vec<KeyDef<'a>> {
        let def = |(name, id, flags): &'a (String, usize, u32)| KeyDef {
            name,
            id: *id,
            allow_empty: flags & NMREQ_OPTK_ALLOWEMPTY != 0,
            must_set: flags & NMREQ_OPTK_MUSTSET != 0,
        };
        self.keys.iter().map(def).collect()
    }

    /// # Safety
    /// C contract 1.
    unsafe fn def<'a>(&'a self, keys: &'a [KeyDef<'a>]) -> OptionDef<'a> {
        // SAFETY: C contract 1.
        let (default_key, flags) = unsafe { ((*self.parser).default_key, (*self.parser).flags) };
        OptionDef {
            name: &self.prefix,
            default_key: usize::try_from(default_key).ok(),
            disabled: flags & NMREQ_OPTF_DISABLED != 0,
            allow_empty: flags & NMREQ_OPTF_ALLOWEMPTY != 0,
            keys,
        }
    }

    /// Calls the program's function. Negative: it refuses.
    ///
    /// # Safety
    /// C contract 1, 3.
    unsafe fn call(&self, values: &OptionValues<'_>, text: &Text, token: *mut c_void, ctx: Ctx) -> c_int {
        let strings: Vec<Option<CString>> =
            (0..NMREQ_OPT_MAXKEYS).map(|id| values.get(id).map(|value| text.c_string(value))).collect();
        let mut parse_ctx =
            nmreq_parse_ctx { ctx: ctx.as_ptr(), token, keys: [ptr::null(); NMREQ_OPT_MAXKEYS] };
        for (key, string) in parse_ctx.keys.iter_mut().zip(&strings) {
            *key = string.as_ref().map_or(ptr::null(), |string| string.as_ptr());
        }
        // SAFETY: C contract 1; the strings live until after the call.
        unsafe { (*self.parser).parse.map_or(0, |parse| parse(&mut parse_ctx)) }
    }
}

/// Reads options with parsers of the program. Source: userapi.md 5.
///
/// # Safety
/// C contract 1, 2, 3, for all of the list of parsers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nmreq_options_decode(
    opt: *const c_char,
    parsers: *mut nmreq_opt_parser,
    token: *mut c_void,
    ctx: *mut nmctx,
) -> c_int {
    // SAFETY: C contract 2, 3.
    let (text, ctx) = unsafe { (Text::from_ptr(opt), Ctx::new(ctx)) };
    // SAFETY: C contract 1, 2.
    ctx.status(unsafe { decode(&text, parsers, token, ctx) })
}

/// # Safety
/// C contract 1, 2, 3.
unsafe fn decode(
    text: &Text,
    parsers: *mut nmreq_opt_parser,
    token: *mut c_void,
    ctx: Ctx,
) -> Result<(), Failure> {
    // SAFETY: C contract 1, 2.
    let parsers = unsafe { Parser::list(parsers, text)? };
    let keys: Vec<_> = parsers.iter().map(Parser::key_defs).collect();
    // SAFETY: C contract 1.
    let defs: Vec<_> = parsers.iter().zip(&keys).map(|(parser, keys)| unsafe { parser.def(keys) }).collect();
    let mut refused = None;
    let result = decode_options(text.as_str(), &defs, &mut |index, values| {
        // SAFETY: C contract 1, 3.
        match unsafe { parsers[index].call(values, text, token, ctx) } {
            0.. => Ok(()),
            _ => {
                // It has told the context itself what it does not like.
                let errno = errno::get();
                refused = Some(Failure::silent(errno));
                Err(SpecError { errno, message: String::new() })
            }
        }
    });
    match (result, refused) {
        (Ok(()), _) => Ok(()),
        (Err(_), Some(refused)) => Err(refused),
        (Err(error), None) => Err(text.failure(&error)),
    }
}
