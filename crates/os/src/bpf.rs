//! Ringway's own XDP program: made, loaded and attached with bpf(2), without a compiler, a loader library or a
//! pinned object.
//!
//! The program sends each frame to the AF_XDP socket of the queue that it came in on, and to the host if that
//! queue has none. Map, program and link are fds: when their last holder dies, however it dies, the interface
//! is as before.
//!
//! ```text
//! XskMap   queue -> socket          BPF_MAP_CREATE, BPF_MAP_UPDATE_ELEM, BPF_MAP_DELETE_ELEM
//! XdpProgram                        BPF_PROG_LOAD
//! XdpLink  program -> interface     BPF_LINK_CREATE
//! ```
//!
//! Source: bpf(2); linux/bpf.h, `union bpf_attr`; kernel documents bpf/instruction-set and networking/af_xdp.

mod error;
mod sys;

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;

use crate::link::{self, XdpMode};
pub use error::{BpfError, MissingCapabilities};
use sys::{GetFdById, LinkCreate, MapCreate, MapElem, ObjGetInfo, ProgInfo, ProgLoad, bpf, own};

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
/// The program can run on frames of several fragments; without it attaching fails (ERANGE) on veth above an MTU
/// of 3520.
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

    /// Gives the frames of `queue` to `socket`, which must be bound to that queue of the interface the program
    /// runs on: frames for a socket of another queue are dropped by the kernel.
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

    /// Gives the frames of `queue` back to the host. The kernel does not tell whether there was a socket. One
    /// that is closed leaves the map by itself.
    ///
    /// # Errors
    /// EINVAL if there is no such queue; [`BpfError::NotPermitted`].
    pub fn remove(&self, queue: u32) -> Result<(), BpfError> {
        let mut attr = MapElem::new(&self.fd, &queue, None);
        match bpf(BPF_MAP_DELETE_ELEM, &mut attr) {
            Ok(_) | Err(Errno::NOENT) => Ok(()),
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
    /// [`BpfError::NotPermitted`] without CAP_BPF and CAP_NET_ADMIN; [`BpfError::Rejected`] with the verifier's
    /// words by kernels before 5.18, which do not know BPF_F_XDP_HAS_FRAGS.
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
    /// [`BpfError::Busy`] with the program that is there already; EOPNOTSUPP if the driver has no native XDP;
    /// ERANGE or EINVAL if the MTU or another setting does not permit it; ENODEV.
    pub fn attach(&self, ifindex: u32, mode: XdpMode) -> Result<XdpLink, BpfError> {
        let flags = match mode {
            XdpMode::Native => XDP_FLAGS_DRV_MODE,
            XdpMode::Generic => XDP_FLAGS_SKB_MODE,
            XdpMode::Offloaded => XDP_FLAGS_HW_MODE,
        };
        let mut attr = LinkCreate {
            prog_fd: self.fd.as_raw_fd() as u32,
            target_ifindex: ifindex,
            attach_type: BPF_XDP,
            flags,
        };
        match bpf(BPF_LINK_CREATE, &mut attr) {
            Ok(fd) => Ok(XdpLink { fd: own(fd), ifindex, mode }),
            Err(errno @ (Errno::BUSY | Errno::EXIST)) => {
                let by = attached(ifindex).ok().and_then(|list| list.into_iter().next());
                Err(BpfError::Busy { ifindex, by, errno })
            }
            // The kernel says EINVAL to an interface that does not exist, among other things.
            Err(Errno::INVAL) if is_gone(ifindex) => {
                Err(BpfError::Failed { step: "attach the XDP program", errno: Errno::NODEV })
            }
            Err(errno) => Err(BpfError::from_call("attach the XDP program", errno)),
        }
    }

    /// Attaches it natively, or, where the driver cannot, generically; [`XdpLink::mode`] says which. On an
    /// interface with host rings ask for [`XdpMode::Native`] instead: generic XDP sees injected frames again, a
    /// loop.
    ///
    /// # Errors
    /// As [`XdpProgram::attach`]: those of the generic try if the native one failed for other reasons than
    /// privilege or a program in the way.
    pub fn attach_best(&self, ifindex: u32) -> Result<XdpLink, BpfError> {
        match self.attach(ifindex, XdpMode::Native) {
            Err(BpfError::Failed { errno, .. }) if errno != Errno::NODEV => {
                self.attach(ifindex, XdpMode::Generic)
            }
            other => other,
        }
    }
}

impl AsFd for XdpProgram {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// A program on an interface. Dropping it, or the death of the last process that holds its fd, detaches the
/// program.
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

fn is_gone(ifindex: u32) -> bool {
    matches!(link::name_of(ifindex), Err(e) if e.raw_os_error() == Some(libc::ENODEV))
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

/// Assembles `return bpf_redirect_map(&map, ctx->rx_queue_index, XDP_PASS)`. Opcodes: kernel document
/// bpf/instruction-set.
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
