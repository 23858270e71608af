//! Ringway's own XDP program: made, loaded and attached with bpf(2), without a compiler, a loader library or a pinned object.
//!
//! The program sends each frame to the AF_XDP socket of the queue that it came in on, and to the host if that queue has none.
//! Map, program and link are fds: when their last holder dies, however it dies, the interface is as before.
//!
//! ```text
//! XskMap   queue -> socket          BPF_MAP_CREATE, BPF_MAP_UPDATE_ELEM, BPF_MAP_DELETE_ELEM
//! XdpProgram                        BPF_PROG_LOAD
//! XdpLink  program -> interface     BPF_LINK_CREATE
//! ```
//!
//! Source: bpf(2); linux/bpf.h, `union bpf_attr`; kernel documents bpf/instruction-set and networking/af_xdp.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::io::Errno;
use rustix::thread::CapabilitySet;

use crate::link::{self, XdpMode};

// linux/bpf.h, enum bpf_cmd
const BPF_MAP_CREATE: u32 = 0;
const BPF_MAP_UPDATE_ELEM: u32 = 2;
const BPF_MAP_DELETE_ELEM: u32 = 3;
const BPF_PROG_LOAD: u32 = 5;
const BPF_PROG_GET_FD_BY_ID: u32 = 13;
const BPF_OBJ_GET_INFO_BY_FD: u32 = 15;
const BPF_LINK_CREATE: u32 = 28;

const BPF_MAP_TYPE_XSKMAP: u32 = 17;
const BPF_PROG_TYPE_XDP: u32 = 6;
/// enum bpf_attach_type
const BPF_XDP: u32 = 37;
/// The program can run on frames of several fragments; without it attaching fails (ERANGE) on veth above an MTU of 3520.
const BPF_F_XDP_HAS_FRAGS: u32 = 1 << 5;
/// linux/if_link.h
const XDP_FLAGS_SKB_MODE: u32 = 1 << 1;
const XDP_FLAGS_DRV_MODE: u32 = 1 << 2;
const XDP_FLAGS_HW_MODE: u32 = 1 << 3;

/// Name of map and program, as `bpftool` shows it (at most 15 characters).
pub const PROGRAM_NAME: &str = "ringway_xsk";
/// What the verifier may say; only asked for when it refuses.
const LOG_LEN: usize = 64 * 1024;

/// An XDP program found on an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttachedProgram {
    /// Its id, as `bpftool prog` shows it.
    pub prog_id: u32,
    /// Its name; `None` if it has none, or if we may not ask (CAP_SYS_ADMIN).
    pub name: Option<String>,
    /// How it runs.
    pub mode: XdpMode,
}

impl std::fmt::Display for AttachedProgram {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = self.name.as_deref().unwrap_or("(no name)");
        write!(f, "{name} (id {}, {})", self.prog_id, self.mode)
    }
}

/// Why a step of loading or attaching failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BpfError {
    /// The system call failed.
    Failed {
        /// What was tried.
        step: &'static str,
        /// The kernel's answer.
        errno: Errno,
    },
    /// Refused for want of privilege (EPERM, EACCES).
    NotPermitted {
        /// What was tried.
        step: &'static str,
        /// The kernel's answer.
        errno: Errno,
        /// Capabilities that the calling thread lacks. Empty: it has them, but only in a user namespace, or a security module refused.
        missing: MissingCapabilities,
    },
    /// The verifier refused the program: a kernel too old, or a fault of ours.
    Rejected {
        /// The kernel's answer.
        errno: Errno,
        /// The verifier's words.
        log: String,
    },
    /// Another XDP program is on the interface.
    Busy {
        /// The interface.
        ifindex: u32,
        /// Which; `None` if it went away meanwhile.
        by: Option<AttachedProgram>,
        /// EBUSY, or EEXIST if it runs in the other mode.
        errno: Errno,
    },
}

impl BpfError {
    /// The error number that the kernel gave.
    #[must_use]
    pub fn errno(&self) -> Errno {
        match self {
            BpfError::Failed { errno, .. }
            | BpfError::NotPermitted { errno, .. }
            | BpfError::Rejected { errno, .. }
            | BpfError::Busy { errno, .. } => *errno,
        }
    }

    fn from_call(step: &'static str, errno: Errno) -> BpfError {
        match errno {
            Errno::PERM | Errno::ACCESS => {
                BpfError::NotPermitted { step, errno, missing: MissingCapabilities::for_xdp() }
            }
            _ => BpfError::Failed { step, errno },
        }
    }
}

impl std::fmt::Display for BpfError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            BpfError::Failed { step, errno } => write!(f, "cannot {step}: {errno}"),
            BpfError::NotPermitted { step, errno, missing } => write!(f, "cannot {step}: {errno}; {missing}"),
            BpfError::Rejected { errno, log } => {
                write!(f, "the kernel refuses the XDP program: {errno}: {}", log.trim_end())
            }
            BpfError::Busy { by: Some(by), .. } => {
                write!(f, "another XDP program is attached: {by}; detach it first")
            }
            BpfError::Busy { by: None, errno, .. } => write!(f, "another XDP program was attached: {errno}"),
        }
    }
}

impl std::error::Error for BpfError {}

impl From<BpfError> for io::Error {
    fn from(e: BpfError) -> io::Error {
        e.errno().into()
    }
}

/// Capabilities that XDP needs and the calling thread lacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MissingCapabilities(CapabilitySet);

impl MissingCapabilities {
    /// For loading and attaching: CAP_NET_ADMIN, and CAP_BPF or CAP_SYS_ADMIN. Source: capabilities(7), bpf(2).
    #[must_use]
    pub fn for_xdp() -> MissingCapabilities {
        let have = effective_capabilities();
        let mut missing = CapabilitySet::NET_ADMIN.difference(have);
        if !have.intersects(CapabilitySet::BPF | CapabilitySet::SYS_ADMIN) {
            missing |= CapabilitySet::BPF;
        }
        MissingCapabilities(missing)
    }

    /// For AF_XDP and AF_PACKET sockets: CAP_NET_RAW. Source: packet(7), kernel net/xdp/xsk.c `xsk_create`.
    #[must_use]
    pub fn for_raw_socket() -> MissingCapabilities {
        MissingCapabilities(CapabilitySet::NET_RAW.difference(effective_capabilities()))
    }

    /// The set; empty if the thread has all.
    #[must_use]
    pub fn set(self) -> CapabilitySet {
        self.0
    }
}

impl std::fmt::Display for MissingCapabilities {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names = [
            (CapabilitySet::NET_ADMIN, "CAP_NET_ADMIN"),
            (CapabilitySet::NET_RAW, "CAP_NET_RAW"),
            (CapabilitySet::BPF, "CAP_BPF (or CAP_SYS_ADMIN)"),
        ];
        let list: Vec<_> = names.iter().filter(|(c, _)| self.0.contains(*c)).map(|(_, n)| *n).collect();
        if list.is_empty() {
            f.write_str("the capabilities are there, but not outside of this user namespace, or a security module refuses")
        } else {
            write!(f, "missing: {}", list.join(", "))
        }
    }
}

fn effective_capabilities() -> CapabilitySet {
    rustix::thread::capabilities(None).map_or(CapabilitySet::empty(), |sets| sets.effective)
}

/// The map from queue to AF_XDP socket (BPF_MAP_TYPE_XSKMAP).
#[derive(Debug)]
pub struct XskMap {
    fd: OwnedFd,
}

impl XskMap {
    /// Makes a map for queues 0 to `num_queues` - 1.
    ///
    /// # Errors
    /// [`BpfError::NotPermitted`] without CAP_BPF and CAP_NET_ADMIN; EINVAL for 0 queues; ENOMEM.
    pub fn create(num_queues: u32) -> Result<XskMap, BpfError> {
        let mut attr = MapCreate {
            map_type: BPF_MAP_TYPE_XSKMAP,
            key_size: 4,
            value_size: 4,
            max_entries: num_queues,
            map_flags: 0,
            inner_map_fd: 0,
            numa_node: 0,
            map_name: object_name(),
        };
        match bpf(BPF_MAP_CREATE, &mut attr) {
            Ok(fd) => Ok(XskMap { fd: own(fd) }),
            Err(errno) => Err(BpfError::from_call("create an XSKMAP", errno)),
        }
    }

    /// Gives the frames of `queue` to `socket`, which must be bound to that queue of the interface the program runs on: frames for a socket of
    /// another queue are dropped by the kernel.
    ///
    /// # Errors
    /// EOPNOTSUPP or EBADF if `socket` is no AF_XDP socket; E2BIG if there is no such queue.
    pub fn insert(&self, queue: u32, socket: BorrowedFd<'_>) -> Result<(), BpfError> {
        let value = socket.as_raw_fd() as u32;
        let mut attr = MapElem::new(&self.fd, &queue, Some(&value));
        bpf(BPF_MAP_UPDATE_ELEM, &mut attr)
            .map(drop)
            .map_err(|e| BpfError::from_call("enter a socket into the XSKMAP", e))
    }

    /// Gives the frames of `queue` back to the host. True if it had a socket. The kernel removes a socket that is closed by itself.
    ///
    /// # Errors
    /// EINVAL if there is no such queue; [`BpfError::NotPermitted`].
    pub fn remove(&self, queue: u32) -> Result<bool, BpfError> {
        let mut attr = MapElem::new(&self.fd, &queue, None);
        match bpf(BPF_MAP_DELETE_ELEM, &mut attr) {
            Ok(_) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(e) => Err(BpfError::from_call("remove a socket from the XSKMAP", e)),
        }
    }
}

impl AsFd for XskMap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// A loaded XDP program.
#[derive(Debug)]
pub struct XdpProgram {
    fd: OwnedFd,
}

impl XdpProgram {
    /// The program that redirects by `map`, and passes to the host what comes in on queues without a socket:
    ///
    /// ```c
    /// return bpf_redirect_map(&map, ctx->rx_queue_index, XDP_PASS);
    /// ```
    ///
    /// # Errors
    /// [`BpfError::NotPermitted`] without CAP_BPF and CAP_NET_ADMIN; [`BpfError::Rejected`] with the verifier's words by kernels before 5.18,
    /// which do not know BPF_F_XDP_HAS_FRAGS.
    pub fn redirect(map: &XskMap) -> Result<XdpProgram, BpfError> {
        XdpProgram::load(&redirect_program(map.fd.as_raw_fd()))
    }

    fn load(program: &[Insn]) -> Result<XdpProgram, BpfError> {
        let mut attr = ProgLoad {
            prog_type: BPF_PROG_TYPE_XDP,
            insn_cnt: program.len() as u32,
            insns: program.as_ptr() as u64,
            license: c"Dual MIT/GPL".as_ptr() as u64,
            log_level: 0,
            log_size: 0,
            log_buf: 0,
            kern_version: 0,
            prog_flags: BPF_F_XDP_HAS_FRAGS,
            prog_name: object_name(),
            prog_ifindex: 0,
            expected_attach_type: BPF_XDP,
        };
        let errno = match bpf(BPF_PROG_LOAD, &mut attr) {
            Ok(fd) => return Ok(XdpProgram { fd: own(fd) }),
            Err(e @ (Errno::INVAL | Errno::ACCESS | Errno::TOOBIG)) => e,
            Err(e) => return Err(BpfError::from_call("load the XDP program", e)),
        };
        // Once more, with the verifier's words.
        let mut log = vec![0u8; LOG_LEN];
        (attr.log_level, attr.log_size, attr.log_buf) = (1, LOG_LEN as u32, log.as_mut_ptr() as u64);
        match bpf(BPF_PROG_LOAD, &mut attr) {
            Ok(fd) => Ok(XdpProgram { fd: own(fd) }),
            Err(_) => Err(BpfError::Rejected { errno, log: until_zero(&log) }),
        }
    }

    /// Attaches it to an interface of the calling thread's namespace, for as long as the [`XdpLink`] lives.
    ///
    /// # Errors
    /// [`BpfError::Busy`] with the program that is there already; EOPNOTSUPP if the driver has no native XDP; ERANGE or EINVAL if the MTU or
    /// another setting does not permit it; ENODEV.
    pub fn attach(&self, ifindex: u32, mode: XdpMode) -> Result<XdpLink, BpfError> {
        let flags = match mode {
            XdpMode::Native => XDP_FLAGS_DRV_MODE,
            XdpMode::Generic => XDP_FLAGS_SKB_MODE,
            XdpMode::Offloaded => XDP_FLAGS_HW_MODE,
        };
        let mut attr =
            LinkCreate { prog_fd: self.fd.as_raw_fd() as u32, target_ifindex: ifindex, attach_type: BPF_XDP, flags };
        match bpf(BPF_LINK_CREATE, &mut attr) {
            Ok(fd) => Ok(XdpLink { fd: own(fd), ifindex, mode }),
            Err(errno @ (Errno::BUSY | Errno::EXIST)) => {
                let by = attached(ifindex).ok().and_then(|list| list.into_iter().next());
                Err(BpfError::Busy { ifindex, by, errno })
            }
            Err(errno) => Err(BpfError::from_call("attach the XDP program", errno)),
        }
    }

    /// Attaches it natively, or, where the driver cannot, generically; [`XdpLink::mode`] says which. On an interface with host rings ask for
    /// [`XdpMode::Native`] instead: generic XDP sees injected frames again, a loop.
    ///
    /// # Errors
    /// As [`XdpProgram::attach`]: those of the generic try if the native one failed for other reasons than privilege or a program in the way.
    pub fn attach_best(&self, ifindex: u32) -> Result<XdpLink, BpfError> {
        match self.attach(ifindex, XdpMode::Native) {
            Err(BpfError::Failed { errno, .. }) if errno != Errno::NODEV => self.attach(ifindex, XdpMode::Generic),
            other => other,
        }
    }
}

impl AsFd for XdpProgram {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// A program on an interface. Dropping it, or the death of the last process that holds its fd, detaches the program.
#[derive(Debug)]
pub struct XdpLink {
    fd: OwnedFd,
    ifindex: u32,
    mode: XdpMode,
}

impl XdpLink {
    /// The interface.
    #[must_use]
    pub fn ifindex(&self) -> u32 {
        self.ifindex
    }

    /// How the program runs.
    #[must_use]
    pub fn mode(&self) -> XdpMode {
        self.mode
    }
}

impl AsFd for XdpLink {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// The XDP programs on an interface of the calling thread's namespace, with their names.
///
/// # Errors
/// ENODEV; what netlink answers. A name that we may not ask for is `None`, no error.
pub fn attached(ifindex: u32) -> io::Result<Vec<AttachedProgram>> {
    let found = link::xdp_attached(ifindex)?;
    Ok(found
        .into_iter()
        .map(|x| AttachedProgram { prog_id: x.prog_id, name: program_name(x.prog_id).ok(), mode: x.mode })
        .collect())
}

/// The name of a loaded program. EPERM without CAP_SYS_ADMIN; ENOENT if it is gone or has no name.
fn program_name(prog_id: u32) -> Result<String, Errno> {
    let mut by_id = GetFdById { id: prog_id, next_id: 0, open_flags: 0 };
    let fd = own(bpf(BPF_PROG_GET_FD_BY_ID, &mut by_id)?);
    let mut info = ProgInfo::default();
    let mut attr = ObjGetInfo {
        bpf_fd: fd.as_raw_fd() as u32,
        info_len: size_of::<ProgInfo>() as u32,
        info: (&raw mut info) as u64,
    };
    bpf(BPF_OBJ_GET_INFO_BY_FD, &mut attr)?;
    let name = until_zero(&info.name);
    if name.is_empty() { Err(Errno::NOENT) } else { Ok(name) }
}

// --- the program -------------------------------------------------------------------------------------------------------

/// `struct bpf_insn`: the second byte holds the destination register in its low half on little-endian machines.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Insn {
    code: u8,
    regs: u8,
    off: i16,
    imm: i32,
}

const fn insn(code: u8, dst: u8, src: u8, off: i16, imm: i32) -> Insn {
    let regs = if cfg!(target_endian = "little") { src << 4 | dst } else { dst << 4 | src };
    Insn { code, regs, off, imm }
}

/// Assembles `return bpf_redirect_map(&map, ctx->rx_queue_index, XDP_PASS)`. Opcodes: kernel document bpf/instruction-set.
fn redirect_program(map_fd: i32) -> [Insn; 6] {
    const LDX_W: u8 = 0x61; // BPF_LDX | BPF_W | BPF_MEM
    const LD_IMM64: u8 = 0x18; // BPF_LD | BPF_DW | BPF_IMM: two instructions
    const MOV64_K: u8 = 0xb7; // BPF_ALU64 | BPF_MOV | BPF_K
    const CALL: u8 = 0x85;
    const EXIT: u8 = 0x95;
    const PSEUDO_MAP_FD: u8 = 1;
    const RX_QUEUE_INDEX: i16 = 16; // offset in struct xdp_md
    const XDP_PASS: i32 = 2;
    const REDIRECT_MAP: i32 = 51; // BPF_FUNC_redirect_map
    [
        insn(LDX_W, 2, 1, RX_QUEUE_INDEX, 0),
        insn(LD_IMM64, 1, PSEUDO_MAP_FD, 0, map_fd),
        insn(0, 0, 0, 0, 0),
        // The low bits of the flags: what to return if the queue has no socket. Kernels before 5.3 know only 0.
        insn(MOV64_K, 3, 0, 0, XDP_PASS),
        insn(CALL, 0, 0, 0, REDIRECT_MAP),
        insn(EXIT, 0, 0, 0, 0),
    ]
}

// --- the system call ---------------------------------------------------------------------------------------------------

/// # Safety
/// The type must be `repr(C)` without padding, a prefix of the member of `union bpf_attr` for the commands that it is used with, and each
/// address in it must be that of memory as large as the command reads or writes there, alive during the call.
unsafe trait Attr {}

#[repr(C)]
struct MapCreate {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    map_flags: u32,
    inner_map_fd: u32,
    numa_node: u32,
    map_name: [u8; 16],
}
// SAFETY: linux/bpf.h, BPF_MAP_CREATE; no addresses.
unsafe impl Attr for MapCreate {}

#[repr(C)]
struct MapElem<'a> {
    map_fd: u32,
    pad: u32,
    key: u64,
    value: u64,
    flags: u64,
    /// The addresses are those of key and value, borrowed for as long as this lives.
    borrowed: std::marker::PhantomData<&'a u32>,
}
// SAFETY: linux/bpf.h, BPF_MAP_*_ELEM; key and value are u32, as the map was made (XskMap::create), and are borrowed. BPF_ANY is 0.
unsafe impl Attr for MapElem<'_> {}

impl<'a> MapElem<'a> {
    fn new(map: &OwnedFd, key: &'a u32, value: Option<&'a u32>) -> MapElem<'a> {
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
struct ProgLoad {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
    prog_ifindex: u32,
    expected_attach_type: u32,
}
// SAFETY: linux/bpf.h, BPF_PROG_LOAD; made only in `XdpProgram::load`, where program, license and log outlive the call.
unsafe impl Attr for ProgLoad {}

#[repr(C)]
struct LinkCreate {
    prog_fd: u32,
    target_ifindex: u32,
    attach_type: u32,
    flags: u32,
}
// SAFETY: linux/bpf.h, BPF_LINK_CREATE; no addresses.
unsafe impl Attr for LinkCreate {}

#[repr(C)]
struct GetFdById {
    id: u32,
    next_id: u32,
    open_flags: u32,
}
// SAFETY: linux/bpf.h, BPF_*_GET_FD_BY_ID; no addresses.
unsafe impl Attr for GetFdById {}

#[repr(C)]
struct ObjGetInfo {
    bpf_fd: u32,
    info_len: u32,
    info: u64,
}
// SAFETY: linux/bpf.h, BPF_OBJ_GET_INFO_BY_FD; made only in `program_name`, where `info` outlives the call and has `info_len` bytes.
unsafe impl Attr for ObjGetInfo {}

/// The beginning of `struct bpf_prog_info`.
#[repr(C)]
#[derive(Default)]
struct ProgInfo {
    prog_type: u32,
    id: u32,
    tag: [u8; 8],
    jited_prog_len: u32,
    xlated_prog_len: u32,
    jited_prog_insns: u64,
    xlated_prog_insns: u64,
    load_time: u64,
    created_by_uid: u32,
    nr_map_ids: u32,
    map_ids: u64,
    name: [u8; 16],
}
const _: () = assert!(std::mem::offset_of!(ProgInfo, name) == 64);

/// bpf(2). Gives the result, an fd for the commands that make or find something.
fn bpf<A: Attr>(command: u32, attr: &mut A) -> Result<i32, Errno> {
    // SAFETY: `attr` is a prefix of the command's attributes with its true size, and its addresses are good (contract of `Attr`).
    let r = unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attr, size_of::<A>()) };
    if r < 0 {
        Err(Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO))
    } else {
        Ok(r as i32)
    }
}

/// Owns an fd that `bpf` made. It is close-on-exec already.
fn own(fd: i32) -> OwnedFd {
    // SAFETY: called with the result of a successful bpf(2) that makes an fd, once: nobody else owns it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

fn object_name() -> [u8; 16] {
    let mut name = [0; 16];
    for (to, from) in name[..15].iter_mut().zip(PROGRAM_NAME.bytes()) {
        *to = from;
    }
    name
}

fn until_zero(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes.split(|b| *b == 0).next().unwrap_or(&[])).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_endian = "little")]
    fn the_program_is_what_the_instruction_set_document_says() {
        let bytes: Vec<u8> = redirect_program(7)
            .iter()
            .flat_map(|i| {
                let [o0, o1] = i.off.to_le_bytes();
                let [a, b, c, d] = i.imm.to_le_bytes();
                [i.code, i.regs, o0, o1, a, b, c, d]
            })
            .collect();
        let expected = [
            [0x61, 0x12, 16, 0, 0, 0, 0, 0],
            [0x18, 0x11, 0, 0, 7, 0, 0, 0],
            [0, 0, 0, 0, 0, 0, 0, 0],
            [0xb7, 0x03, 0, 0, 2, 0, 0, 0],
            [0x85, 0, 0, 0, 51, 0, 0, 0],
            [0x95, 0, 0, 0, 0, 0, 0, 0],
        ];
        assert_eq!(bytes, expected.concat());
    }

    #[test]
    fn a_refused_program_comes_with_the_verifiers_words() {
        // Returns r0 that was never set.
        match XdpProgram::load(&[insn(0x95, 0, 0, 0, 0)]) {
            Err(BpfError::Rejected { log, .. }) => assert!(log.contains("R0 !read_ok"), "{log}"),
            Err(e @ BpfError::NotPermitted { .. }) => println!("SKIP a_refused_program: {e}"),
            other => panic!("{other:?}"),
        }
    }
}
