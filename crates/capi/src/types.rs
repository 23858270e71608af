//! The structures of `libnetmap.h`, which exist only between a program and this library.

use core::ffi::{c_char, c_int, c_uint, c_void};
use ringway_abi::{
    LIBRARY_LAYOUTS, NMREQ_OPT_MAXKEYS, StructLayout, netmap_if, nmreq_header, nmreq_opt_extmem,
    nmreq_register,
};

/// An open port, or one that is being prepared. Source: `libnetmap.h`, `struct nmport_d`.
#[repr(C)]
pub struct nmport_d {
    /// The request; `nr_body` points to `reg`.
    pub hdr: nmreq_header,
    /// Its body.
    pub reg: nmreq_register,
    /// The memory, once mapped.
    pub mem: *mut nmem_d,
    /// Where messages go and memory comes from.
    pub ctx: *mut nmctx,
    /// Not 0: `fd` is bound.
    pub register_done: c_int,
    /// Not 0: `mem`, `nifp` and the ring range are set.
    pub mmap_done: c_int,
    /// The option of this kind, also in the list of `hdr`.
    pub extmem: *mut nmreq_opt_extmem,
    /// The device, -1 while closed.
    pub fd: c_int,
    /// The interface record.
    pub nifp: *mut netmap_if,
    /// First TX ring bound.
    pub first_tx_ring: u16,
    /// Last TX ring bound; one less than the first if none is.
    pub last_tx_ring: u16,
    /// First RX ring bound.
    pub first_rx_ring: u16,
    /// Last RX ring bound; one less than the first if none is.
    pub last_rx_ring: u16,
    /// Where `nmport_inject` tries first.
    pub cur_tx_ring: u16,
    /// The program's own.
    pub cur_rx_ring: u16,
    /// What undoing the parse has to give back.
    pub clist: *mut nmport_cleanup_d,
}

/// One thing to give back when the parse is undone: an option, and maybe the mapping of a file.
#[repr(C)]
pub struct nmport_cleanup_d {
    /// The one before.
    pub next: *mut nmport_cleanup_d,
    /// In the list of the header, from `nmctx_malloc`; or NULL.
    pub option: *mut ringway_abi::nmreq_option,
    /// To unmap, or NULL.
    pub map: *mut c_void,
    /// Bytes of it.
    pub map_len: usize,
}

/// Source: `libnetmap.h`, `nmctx_error_cb`.
pub type nmctx_error_cb = Option<unsafe extern "C" fn(*mut nmctx, *const c_char)>;
/// Source: `libnetmap.h`, `nmctx_malloc_cb`.
pub type nmctx_malloc_cb = Option<unsafe extern "C" fn(*mut nmctx, usize) -> *mut c_void>;
/// Source: `libnetmap.h`, `nmctx_free_cb`.
pub type nmctx_free_cb = Option<unsafe extern "C" fn(*mut nmctx, *mut c_void)>;
/// Source: `libnetmap.h`, `nmctx_lock_cb`.
pub type nmctx_lock_cb = Option<unsafe extern "C" fn(*mut nmctx, c_int)>;

/// A context. Source: `libnetmap.h`, `struct nmctx`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct nmctx {
    /// 0: no messages.
    pub verbose: c_int,
    /// Takes a message.
    pub error: nmctx_error_cb,
    /// Gives memory.
    pub malloc: nmctx_malloc_cb,
    /// Takes it back.
    pub free: nmctx_free_cb,
    /// Guards `mem_descs`; may be NULL.
    pub lock: nmctx_lock_cb,
    /// The memory that is mapped.
    pub mem_descs: *mut nmem_d,
}

/// Memory that is mapped. Source: `libnetmap.h`, `struct nmem_d`.
#[repr(C)]
pub struct nmem_d {
    /// Its id with the service.
    pub mem_id: u16,
    /// Ports that use it.
    pub refcount: c_int,
    /// Where it is.
    pub mem: *mut c_void,
    /// Bytes.
    pub size: usize,
    /// Not 0: brought by the program, not ours to unmap.
    pub is_extmem: c_int,
    /// Next of the context's list.
    pub next: *mut nmem_d,
    /// The one before, NULL for the first.
    pub prev: *mut nmem_d,
}

/// A key of an option of names. Source: `libnetmap.h`, `struct nmreq_opt_key`.
#[repr(C)]
pub struct nmreq_opt_key {
    /// Spelling; NULL ends the table.
    pub key: *const c_char,
    /// Place in [`nmreq_parse_ctx::keys`].
    pub id: c_int,
    /// `NMREQ_OPTK_*`.
    pub flags: c_uint,
}

/// Source: `libnetmap.h`, `nmreq_opt_parser_cb`.
pub type nmreq_opt_parser_cb = Option<unsafe extern "C" fn(*mut nmreq_parse_ctx) -> c_int>;

/// An option of names. Source: `libnetmap.h`, `struct nmreq_opt_parser`.
#[repr(C, align(16))]
pub struct nmreq_opt_parser {
    /// Spelling.
    pub prefix: *const c_char,
    /// Takes the values.
    pub parse: nmreq_opt_parser_cb,
    /// Id of the key for `prefix=value`, -1 for none.
    pub default_key: c_int,
    /// Not read: the table ends with a NULL key.
    pub nr_keys: c_int,
    /// `NMREQ_OPTF_*`.
    pub flags: c_uint,
    /// Next parser of the list.
    pub next: *mut nmreq_opt_parser,
    /// The keys.
    pub keys: [nmreq_opt_key; NMREQ_OPT_MAXKEYS],
}

/// What a parser is given. Source: `libnetmap.h`, `struct nmreq_parse_ctx`.
#[repr(C)]
pub struct nmreq_parse_ctx {
    /// Of the call.
    pub ctx: *mut nmctx,
    /// Of the call.
    pub token: *mut c_void,
    /// Values by key id, NULL if not given.
    pub keys: [*const c_char; NMREQ_OPT_MAXKEYS],
}

/// The row of the measured table for a structure.
const fn measured(name: &str) -> &'static StructLayout {
    let mut i = 0;
    while i < LIBRARY_LAYOUTS.len() {
        if same(LIBRARY_LAYOUTS[i].name, name) {
            return &LIBRARY_LAYOUTS[i];
        }
        i += 1;
    }
    panic!("not in the table")
}

const fn same(a: &str, b: &str) -> bool {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    let mut i = 0;
    while i < a.len() && i < b.len() && a[i] == b[i] {
        i += 1;
    }
    i == a.len() && i == b.len()
}

macro_rules! check_layout {
    ($($name:ident { $($field:ident)* })*) => {
        $(const _: () = {
            let row = measured(stringify!($name));
            assert!(size_of::<$name>() == row.size && align_of::<$name>() == row.align);
            let mut i = 0;
            $(assert!(same(row.fields[i].name, stringify!($field)));
            assert!(core::mem::offset_of!($name, $field) == row.fields[i].offset);
            i += 1;)*
            assert!(i == row.fields.len());
        };)*
    };
}

check_layout! {
    nmport_d {
        hdr reg mem ctx register_done mmap_done extmem fd nifp first_tx_ring last_tx_ring first_rx_ring last_rx_ring
        cur_tx_ring cur_rx_ring clist
    }
    nmctx { verbose error malloc free lock mem_descs }
    nmem_d { mem_id refcount mem size is_extmem next prev }
    nmreq_opt_key { key id flags }
    nmreq_opt_parser { prefix parse default_key nr_keys flags next keys }
    nmreq_parse_ctx { ctx token keys }
}
