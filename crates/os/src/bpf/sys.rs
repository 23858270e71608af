//! The system call bpf(2), and its attributes: prefixes of `union bpf_attr`, one structure per command.
//!
//! Source: linux/bpf.h.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use rustix::io::Errno;

/// # Safety
/// The type must be `repr(C)` without padding, a prefix of the member of `union bpf_attr` for the commands that
/// it is used with, and each address in it must be that of memory as large as the command reads or writes
/// there, alive during the call.
pub(super) unsafe trait Attr {}

#[repr(C)]
pub(super) struct MapCreate {
    pub map_type: u32,
    pub key_size: u32,
    pub value_size: u32,
    pub max_entries: u32,
    pub map_flags: u32,
    pub inner_map_fd: u32,
    pub numa_node: u32,
    pub map_name: [u8; 16],
}
// SAFETY: linux/bpf.h, BPF_MAP_CREATE; no addresses.
unsafe impl Attr for MapCreate {}

#[repr(C)]
pub(super) struct MapElem<'a> {
    map_fd: u32,
    pad: u32,
    key: u64,
    value: u64,
    flags: u64,
    /// The addresses are those of key and value, borrowed for as long as this lives.
    borrowed: std::marker::PhantomData<&'a u32>,
}
// SAFETY: linux/bpf.h, BPF_MAP_*_ELEM; key and value are u32, as the map was made (XskMap::create), and are
// borrowed. BPF_ANY is 0.
unsafe impl Attr for MapElem<'_> {}

impl<'a> MapElem<'a> {
    pub fn new(map: &OwnedFd, key: &'a u32, value: Option<&'a u32>) -> MapElem<'a> {
        MapElem {
            map_fd: map.as_raw_fd() as u32,
            pad: 0,
            key: std::ptr::from_ref(key) as u64,
            value: value.map_or(0, |v| std::ptr::from_ref(v) as u64),
            flags: 0,
            borrowed: std::marker::PhantomData,
        }
    }
}

#[repr(C)]
pub(super) struct ProgLoad {
    pub prog_type: u32,
    pub insn_cnt: u32,
    pub insns: u64,
    pub license: u64,
    pub log_level: u32,
    pub log_size: u32,
    pub log_buf: u64,
    pub kern_version: u32,
    pub prog_flags: u32,
    pub prog_name: [u8; 16],
    pub prog_ifindex: u32,
    pub expected_attach_type: u32,
}
// SAFETY: linux/bpf.h, BPF_PROG_LOAD; made only in `XdpProgram::load`, where program, license and log outlive
// the call.
unsafe impl Attr for ProgLoad {}

#[repr(C)]
pub(super) struct LinkCreate {
    pub prog_fd: u32,
    pub target_ifindex: u32,
    pub attach_type: u32,
    pub flags: u32,
}
// SAFETY: linux/bpf.h, BPF_LINK_CREATE; no addresses.
unsafe impl Attr for LinkCreate {}

#[repr(C)]
pub(super) struct GetFdById {
    pub id: u32,
    pub next_id: u32,
    pub open_flags: u32,
}
// SAFETY: linux/bpf.h, BPF_*_GET_FD_BY_ID; no addresses.
unsafe impl Attr for GetFdById {}

#[repr(C)]
pub(super) struct ObjGetInfo {
    pub bpf_fd: u32,
    pub info_len: u32,
    pub info: u64,
}
// SAFETY: linux/bpf.h, BPF_OBJ_GET_INFO_BY_FD; made only in `program_name`, where `info` outlives the call and
// has `info_len` bytes.
unsafe impl Attr for ObjGetInfo {}

/// The beginning of `struct bpf_prog_info`.
#[repr(C)]
#[derive(Default)]
pub(super) struct ProgInfo {
    pub prog_type: u32,
    pub id: u32,
    pub tag: [u8; 8],
    pub jited_prog_len: u32,
    pub xlated_prog_len: u32,
    pub jited_prog_insns: u64,
    pub xlated_prog_insns: u64,
    pub load_time: u64,
    pub created_by_uid: u32,
    pub nr_map_ids: u32,
    pub map_ids: u64,
    pub name: [u8; 16],
}
const _: () = assert!(std::mem::offset_of!(ProgInfo, name) == 64);

/// bpf(2). Gives the result, an fd for the commands that make or find something.
pub(super) fn bpf<A: Attr>(command: u32, attr: &mut A) -> Result<i32, Errno> {
    // SAFETY: `attr` is a prefix of the command's attributes with its true size, and its addresses are good
    // (contract of `Attr`).
    let r = unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attr, size_of::<A>()) };
    if r < 0 {
        Err(Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO))
    } else {
        Ok(r as i32)
    }
}

/// Owns an fd that `bpf` made. It is close-on-exec already.
pub(super) fn own(fd: i32) -> OwnedFd {
    // SAFETY: called with the result of a successful bpf(2) that makes an fd, once: nobody else owns it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}
