//! What can go wrong with bpf(2), and which capabilities are missing.

use std::io;

use rustix::io::Errno;
use rustix::thread::CapabilitySet;

use super::AttachedProgram;

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
        /// Capabilities that the calling thread lacks. Empty: it has them, but only in a user namespace, or a
        /// security module refused.
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

    pub(super) fn from_call(step: &'static str, errno: Errno) -> BpfError {
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
            f.write_str("the capabilities hold only in this user namespace, or a security module refuses")
        } else {
            write!(f, "missing: {}", list.join(", "))
        }
    }
}

fn effective_capabilities() -> CapabilitySet {
    rustix::thread::capabilities(None).map_or(CapabilitySet::empty(), |sets| sets.effective)
}
