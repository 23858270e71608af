//! The one table of sizes, alignments and offsets, and the compile-time check of the structures
//! against it.
//!
//! The numbers were measured with a C compiler on netmap's own headers (abi.md 2-4), not derived from
//! the Rust types. [`LAYOUTS`] carries them on, and [`LIBRARY_LAYOUTS`] those of structures that exist
//! only between a program and a C library, so that the C library can check its headers and its own
//! types against the very same tables.

use crate::legacy::*;
use crate::option::*;
use crate::request::*;
use crate::ring::*;
use core::mem::offset_of;

/// One structure of the interface as C lays it out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StructLayout {
    /// C name, without `struct`.
    pub name: &'static str,
    /// Bytes, without a variable array at the end.
    pub size: usize,
    /// Alignment in bytes.
    pub align: usize,
    /// Fields in order; a variable array at the end and padding are not listed.
    pub fields: &'static [FieldLayout],
}

/// One field of a [`StructLayout`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FieldLayout {
    /// C name.
    pub name: &'static str,
    /// Bytes from the start of the structure.
    pub offset: usize,
    /// Bytes.
    pub size: usize,
}

/// Bytes of a field, named by a function that would borrow it.
const fn field_size<S, F>(_: fn(&S) -> &F) -> usize {
    size_of::<F>()
}

macro_rules! layout {
    ($($name:ident $size:literal $align:literal { $($field:ident $offset:literal $bytes:literal)* })*) => {
        $(const _: () = {
            assert!(size_of::<$name>() == $size);
            assert!(align_of::<$name>() == $align);
            $(assert!(offset_of!($name, $field) == $offset);
            assert!(field_size(|s: &$name| &s.$field) == $bytes);)*
        };)*

        /// Every structure of the interface, measured in C.
        pub const LAYOUTS: &[StructLayout] = &[$(StructLayout {
            name: stringify!($name),
            size: $size,
            align: $align,
            fields: &[$(FieldLayout { name: stringify!($field), offset: $offset, size: $bytes }),*],
        }),*];
    };
}

// struct, size, alignment; field, offset, size.
layout! {
    netmap_slot 16 8 {
        buf_idx 0 4
        len 4 2
        flags 6 2
        ptr 8 8
    }
    netmap_ring 256 128 {
        buf_ofs 0 8
        num_slots 8 4
        nr_buf_size 12 4
        ringid 16 2
        dir 18 2
        head 20 4
        cur 24 4
        tail 28 4
        flags 32 4
        ts 40 16
        offset_mask 56 8
        buf_align 64 8
        sem 128 128
    }
    netmap_if 56 8 {
        ni_name 0 16
        ni_version 16 4
        ni_flags 20 4
        ni_tx_rings 24 4
        ni_rx_rings 28 4
        ni_bufs_head 32 4
        ni_host_tx_rings 36 4
        ni_host_rx_rings 40 4
        ni_spare1 44 12
    }
    nmreq_option 24 8 {
        nro_next 0 8
        nro_reqtype 8 4
        nro_status 12 4
        nro_size 16 8
    }
    nmreq_header 88 8 {
        nr_version 0 2
        nr_reqtype 2 2
        nr_reserved 4 4
        nr_name 8 64
        nr_options 72 8
        nr_body 80 8
    }
    nmreq_register 56 8 {
        nr_offset 0 8
        nr_memsize 8 8
        nr_tx_slots 16 4
        nr_rx_slots 20 4
        nr_tx_rings 24 2
        nr_rx_rings 26 2
        nr_host_tx_rings 28 2
        nr_host_rx_rings 30 2
        nr_mem_id 32 2
        nr_ringid 34 2
        nr_mode 36 4
        nr_extra_bufs 40 4
        nr_flags 48 8
    }
    nmreq_port_info_get 32 8 {
        nr_memsize 0 8
        nr_tx_slots 8 4
        nr_rx_slots 12 4
        nr_tx_rings 16 2
        nr_rx_rings 18 2
        nr_host_tx_rings 20 2
        nr_host_rx_rings 22 2
        nr_mem_id 24 2
        pad 26 6
    }
    nmreq_vale_attach 64 8 {
        reg 0 56
        port_index 56 4
        pad1 60 4
    }
    nmreq_vale_detach 8 4 {
        port_index 0 4
        pad1 4 4
    }
    nmreq_vale_list 8 4 {
        nr_bridge_idx 0 2
        pad1 2 2
        nr_port_idx 4 4
    }
    nmreq_port_hdr 8 4 {
        nr_hdr_len 0 4
        pad1 4 4
    }
    nmreq_vale_newif 16 4 {
        nr_tx_slots 0 4
        nr_rx_slots 4 4
        nr_tx_rings 8 2
        nr_rx_rings 10 2
        nr_mem_id 12 2
        pad1 14 2
    }
    nmreq_vale_polling 16 4 {
        nr_mode 0 4
        nr_first_cpu_id 4 4
        nr_num_polling_cpus 8 4
        pad1 12 4
    }
    nmreq_pools_info 64 8 {
        nr_memsize 0 8
        nr_mem_id 8 2
        pad1 10 6
        nr_if_pool_offset 16 8
        nr_if_pool_objtotal 24 4
        nr_if_pool_objsize 28 4
        nr_ring_pool_offset 32 8
        nr_ring_pool_objtotal 40 4
        nr_ring_pool_objsize 44 4
        nr_buf_pool_offset 48 8
        nr_buf_pool_objtotal 56 4
        nr_buf_pool_objsize 60 4
    }
    nmreq_sync_kloop_start 8 4 {
        sleep_us 0 4
        pad1 4 4
    }
    nm_csb_atok 64 4 {
        head 0 4
        cur 4 4
        appl_need_kick 8 4
        sync_flags 12 4
        pad 16 48
    }
    nm_csb_ktoa 64 4 {
        hwcur 0 4
        hwtail 4 4
        kern_need_kick 8 4
        pad 12 52
    }
    nmreq_opt_sync_kloop_eventfds 24 8 {
        nro_opt 0 24
    }
    nmreq_opt_sync_kloop_mode 32 8 {
        nro_opt 0 24
        mode 24 4
    }
    nmreq_opt_extmem 96 8 {
        nro_opt 0 24
        nro_usrptr 24 8
        nro_info 32 64
    }
    nmreq_opt_csb 40 8 {
        nro_opt 0 24
        csb_atok 24 8
        csb_ktoa 32 8
    }
    nmreq_opt_offsets 56 8 {
        nro_opt 0 24
        nro_max_offset 24 8
        nro_initial_offset 32 8
        nro_offset_bits 40 4
        nro_tx_align 44 4
        nro_min_gap 48 8
    }
    nmreq 60 4 {
        nr_name 0 16
        nr_version 16 4
        nr_offset 20 4
        nr_memsize 24 4
        nr_tx_slots 28 4
        nr_rx_slots 32 4
        nr_tx_rings 36 2
        nr_rx_rings 38 2
        nr_ringid 40 2
        nr_cmd 42 2
        nr_arg1 44 2
        nr_arg2 46 2
        nr_arg3 48 4
        nr_flags 52 4
        spare2 56 4
    }
    nm_ifreq 272 1 {
        nifr_name 0 16
        data 16 256
    }
}

macro_rules! library {
    ($($name:ident $size:literal $align:literal { $($field:ident $offset:literal $bytes:literal)* })*) => {
        /// The structures of `net/netmap_user.h` and `libnetmap.h`, measured in C (abi.md 2-4).
        pub const LIBRARY_LAYOUTS: &[StructLayout] = &[$(StructLayout {
            name: stringify!($name),
            size: $size,
            align: $align,
            fields: &[$(FieldLayout { name: stringify!($field), offset: $offset, size: $bytes }),*],
        }),*];
    };
}

library! {
    nm_pkthdr 56 8 {
        ts 0 16
        caplen 16 4
        len 20 4
        flags 24 8
        d 32 8
        slot 40 8
        buf 48 8
    }
    nm_stat 12 4 {
        ps_recv 0 4
        ps_drop 4 4
        ps_ifdrop 8 4
    }
    nm_desc 760 8 {
        self 0 8
        fd 8 4
        mem 16 8
        memsize 24 8
        done_mmap 32 4
        nifp 40 8
        first_tx_ring 48 2
        last_tx_ring 50 2
        cur_tx_ring 52 2
        first_rx_ring 54 2
        last_rx_ring 56 2
        cur_rx_ring 58 2
        req 60 60
        hdr 120 56
        some_ring 176 8
        buf_start 184 8
        buf_end 192 8
        snaplen 200 4
        promisc 204 4
        to_ms 208 4
        errbuf 216 8
        if_flags 224 4
        if_reqcap 228 4
        if_curcap 232 4
        st 236 12
        msg 248 512
    }
    nmport_d 216 8 {
        hdr 0 88
        reg 88 56
        mem 144 8
        ctx 152 8
        register_done 160 4
        mmap_done 164 4
        extmem 168 8
        fd 176 4
        nifp 184 8
        first_tx_ring 192 2
        last_tx_ring 194 2
        first_rx_ring 196 2
        last_rx_ring 198 2
        cur_tx_ring 200 2
        cur_rx_ring 202 2
        clist 208 8
    }
    nmctx 48 8 {
        verbose 0 4
        error 8 8
        malloc 16 8
        free 24 8
        lock 32 8
        mem_descs 40 8
    }
    nmem_d 48 8 {
        mem_id 0 2
        refcount 4 4
        mem 8 8
        size 16 8
        is_extmem 24 4
        next 32 8
        prev 40 8
    }
    nmreq_opt_key 16 8 {
        key 0 8
        id 8 4
        flags 12 4
    }
    nmreq_opt_parser 304 16 {
        prefix 0 8
        parse 8 8
        default_key 16 4
        nr_keys 20 4
        flags 24 4
        next 32 8
        keys 40 256
    }
    nmreq_parse_ctx 144 8 {
        ctx 0 8
        token 8 8
        keys 16 128
    }
}
