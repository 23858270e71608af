//! Netmap descriptors as a C program sees them: fds that are opened, bound, duplicated, inherited and passed on, and polled together
//! with others. This is what the C library stands on. **Rust programs use [`Port`](crate::Port).**
//!
//! A descriptor is a connection to the broker. The functions here take it as the number that the program has for it; what it has bound is a
//! [`Bound`], of which one per process is enough, however many threads and copies of the fd there are.
//!
//! ```no_run
//! use ringway::raw::{self, Joined, POLLIN};
//! use ringway::NicMode;
//! use ringway_abi::{NR_REG_ALL_NIC, nmreq_register};
//! use std::os::fd::AsFd;
//!
//! let fd = raw::open()?; // open("/dev/netmap")
//! let req = nmreq_register { nr_mode: NR_REG_ALL_NIC, ..Default::default() };
//! let (out, bound) = raw::register(fd.as_fd(), "vale0:a", &req, NicMode::default())?;
//! assert_eq!(u64::from(out.nr_offset), bound.nr_offset());
//! if bound.poll(POLLIN, None)? & POLLIN != 0 {
//!     println!("packets on {}", bound.name());
//! }
//! // Somebody else's, as it came over a socket:
//! if let Joined::Bound(same) = raw::join(fd.as_fd())? {
//!     same.rxsync()?;
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Poll over several descriptors and other files: see [`Sleeper`].
//!
//! After fork a child goes on with the [`Bound`]s that it has: its first use attaches it to the broker, and it gets epolls of its own. As
//! usual, a process with several threads must not fork while another thread is in here, and go on without exec.

use crate::conn::{self, Broker, Membership, Session};
use crate::error::{OpenError, SyncError};
use ringway_abi::wire::RINGWAY_LEND;
use ringway_abi::{Errno, NETMAP_REQ_REGISTER, NicMode, nmreq_header, nmreq_register};
use ringway_core::adapter::SyncFlags;
use ringway_core::layout::Dir;
use ringway_core::lease::GrantKind;
use ringway_os::sock::Conn;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

mod agent;
pub mod legacy;
mod poll;

pub use crate::bound::Bound;
pub use crate::conn::Memory;
pub use crate::launch::library_is;
pub use agent::Agent;
pub use poll::{POLLERR, POLLIN, POLLOUT, POLLRDNORM, POLLWRNORM, Sleeper};
pub use ringway_core::control::{CsbArray, PagesKey, ReqOption};

/// A new descriptor, bound to nothing: a connection to the broker of this machine, which is started if none runs. Close-on-exec; that is for the
/// caller to change.
///
/// # Errors
/// [`OpenError`]: no broker, not admitted, too many descriptors.
pub fn open() -> Result<OwnedFd, OpenError> {
    Broker::connect_for_good().map(Broker::into_fd)
}

/// True if `fd` is a descriptor, of whatever process. Asks the kernel only (one call, if it is no socket), and nobody can notice.
#[must_use]
pub fn is_descriptor(fd: BorrowedFd<'_>) -> bool {
    conn::is_descriptor(fd)
}

/// The broker at the other end; EBADF if the fd is no descriptor.
fn broker(fd: BorrowedFd<'_>) -> Result<Broker, OpenError> {
    let foreign = || OpenError::refused(Errno::EBADF, "the fd is no netmap descriptor");
    if !is_descriptor(fd) {
        return Err(foreign());
    }
    Broker::behind(copy(fd)?)?.ok_or_else(foreign)
}

fn copy(fd: BorrowedFd<'_>) -> Result<OwnedFd, OpenError> {
    fd.try_clone_to_owned()
        .map(ringway_os::place::keep)
        .map_err(|e| OpenError::io("cannot copy the descriptor", &e))
}

/// EINVAL for REGISTER: what binds has a function of its own.
fn check_binds_nothing(header: &nmreq_header) -> Result<(), OpenError> {
    if header.nr_reqtype == NETMAP_REQ_REGISTER {
        return Err(OpenError::refused(Errno::EINVAL, "REGISTER binds: it is a request of its own"));
    }
    Ok(())
}

/// Serves one NIOCCTRL request other than REGISTER. `header.nr_name` and `body` are written as netmap would; pointers in the header are not
/// looked at. The descriptor may be bound or not.
///
/// # Errors
/// As netmap's request; EINVAL for REGISTER, and for a body of another size than the request's.
pub fn control(fd: BorrowedFd<'_>, header: &mut nmreq_header, body: &mut [u8]) -> Result<(), OpenError> {
    check_binds_nothing(header)?;
    broker(fd)?.control(header, body)
}

/// REGISTER: binds the rings that `req` selects of the port called `name`. Returns the request as netmap writes it back, and what is bound.
/// `mode` is Ringway's own port option: how to reach an interface.
///
/// # Errors
/// As netmap's request (abi.md 9.1): EBUSY if the descriptor is bound already.
pub fn register(
    fd: BorrowedFd<'_>,
    name: &str,
    req: &nmreq_register,
    mode: NicMode,
) -> Result<(nmreq_register, Bound), OpenError> {
    register_with(fd, name, req, mode, &mut [])
}

/// As [`register`], with options, which have their statuses afterwards, also if the request is refused.
///
/// # Errors
/// As [`register`]; EOPNOTSUPP if an option is not served.
pub fn register_with(
    fd: BorrowedFd<'_>,
    name: &str,
    req: &nmreq_register,
    mode: NicMode,
    options: &mut [ReqOption],
) -> Result<(nmreq_register, Bound), OpenError> {
    register_in(fd, name, req, mode, options, None)
}

/// As [`register_with`], with memory for the EXTMEM option that is among the options. In that option `nro_usrptr` is then the id of the
/// region that the memory became a part of: if [`Bound::mem_id`] is the same, [`Bound::region`] is to be mapped in the place of the program's
/// pages. If not, the port had another region already.
///
/// # Errors
/// As [`register_with`].
pub fn register_in(
    fd: BorrowedFd<'_>,
    name: &str,
    req: &nmreq_register,
    mode: NicMode,
    options: &mut [ReqOption],
    memory: Option<&Memory>,
) -> Result<(nmreq_register, Bound), OpenError> {
    let (session, grant, out) = Session::register(broker(fd)?, name, req, mode, options, memory)?;
    Ok((out, Bound::of_session(session, grant)?))
}

/// What an fd of unknown origin turned out to be.
#[derive(Debug)]
pub enum Joined {
    /// No descriptor. Nothing was sent to whoever is at its other end.
    Foreign,
    /// A descriptor that has bound nothing yet.
    Unbound,
    /// A bound one, in which this process now takes part.
    Bound(Box<Bound>),
}

/// Takes part in what a descriptor has bound that another process opened: one that was received over a socket, or inherited
/// through exec. Safe on any fd: what is no connection that Ringway made, to a process of root or of our own user, is only looked at.
///
/// # Errors
/// EACCES if the broker at its other end belongs to somebody whom we do not trust, or if another user bound it and the broker cannot
/// serve such a port. ENXIO if the broker is gone.
pub fn join(fd: BorrowedFd<'_>) -> Result<Joined, OpenError> {
    if is_descriptor(fd) { join_owned(copy(fd)?) } else { Ok(Joined::Foreign) }
}

/// As [`join`], with a copy of the descriptor that is ours to keep.
pub(crate) fn join_owned(fd: OwnedFd) -> Result<Joined, OpenError> {
    Ok(match Session::join(fd)? {
        Membership::Foreign => Joined::Foreign,
        Membership::Unbound => Joined::Unbound,
        Membership::Bound(session, grant) => Joined::Bound(Box::new(Bound::of_session(session, *grant)?)),
    })
}

/// The descriptor behind an open device file (broker with `[device]`), for a process that has the library after all: with it the
/// syncs are done here, not by the broker's helper. To be used with [`join`]; the file and what comes back are copies of one
/// descriptor. None if `fd` is no device file. Only the kernel is asked, unless it is a file of some FUSE file system, which may make us wait.
///
/// # Errors
/// ENXIO if nothing is bound.
pub fn behind_file(fd: BorrowedFd<'_>) -> Result<Option<OwnedFd>, OpenError> {
    if !ringway_os::sys::is_fuse_file(fd) {
        return Ok(None);
    }
    let io = |e: std::io::Error| OpenError::io("cannot have the descriptor behind the device file", &e);
    let (mine, theirs) = Conn::pair().map_err(io)?;
    match ringway_os::sys::ioctl_number(fd, RINGWAY_LEND, theirs.as_fd().as_raw_fd()) {
        Err(e) if e.raw_os_error() == Some(Errno::ENXIO.0) => {
            return Err(OpenError::refused(Errno::ENXIO, "nothing is bound"));
        }
        // Some other file system.
        Err(_) => return Ok(None),
        Ok(()) => {}
    }
    let came = mine.recv(&mut [0; 8]).map_err(io)?;
    Ok(came.fds.into_iter().next().filter(|fd| is_descriptor(fd.as_fd())))
}

impl Bound {
    /// The descriptor itself: to be handed to other processes, or told from others.
    #[must_use]
    pub fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.link.hangup_fd()
    }

    /// Whether a sync ioctl tells an error. Source: semantics.md 3, 4; of a monitor whose port is gone: 22.
    fn tells(&self, error: &SyncError) -> bool {
        match error {
            SyncError::BrokerGone => true,
            SyncError::Stopped => !matches!(self.grant().kind, GrantKind::Monitor),
            _ => false,
        }
    }

    /// NIOCTXSYNC: syncs all bound TX rings. One that another thread syncs is skipped; one with a bad head or cur is put right, and
    /// that is no error.
    ///
    /// Source: abi.md 10.
    ///
    /// # Errors
    /// EIO (Stopped) if a ring's interface is gone (not so for a monitor's port), ENXIO (BrokerGone) if the broker is. The other rings are synced all the same.
    /// EBUSY in CSB mode.
    pub fn txsync(&self) -> Result<(), SyncError> {
        self.not_csb()?;
        self.sync_all(Dir::Tx, SyncFlags::empty(), |e| self.tells(e))
    }

    /// NIOCRXSYNC: as [`Bound::txsync`], for all bound RX rings.
    ///
    /// # Errors
    /// As [`Bound::txsync`].
    pub fn rxsync(&self) -> Result<(), SyncError> {
        self.not_csb()?;
        self.sync_all(Dir::Rx, SyncFlags::TIMESTAMP, |e| self.tells(e))
    }

    #[inline]
    fn not_csb(&self) -> Result<(), SyncError> {
        if self.in_csb_mode() { Err(SyncError::Os(Errno::EBUSY)) } else { Ok(()) }
    }

    /// Full name of the port, without `netmap:`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.grant().name
    }

    /// The memory to map, whole or in part, shared: the file behind netmap's `mmap`. Close-on-exec, and it stays with this.
    #[must_use]
    pub fn region(&self) -> BorrowedFd<'_> {
        self.grant().region.memfd.as_fd()
    }

    /// Where it begins in that file: 0, unless the broker keeps all regions of a user in one file.
    #[must_use]
    pub fn region_ofs(&self) -> u64 {
        self.grant().region.memfd.ofs() as u64
    }

    /// Bytes of it: `nr_memsize`.
    #[must_use]
    pub fn memsize(&self) -> u64 {
        self.grant().layout.memsize
    }

    /// Bytes of the file behind it: whole pages.
    #[must_use]
    pub fn region_bytes(&self) -> u64 {
        self.grant().region.map.len_bytes() as u64
    }

    /// Whether netmap would map `len_bytes` from `offset`.
    ///
    /// # Errors
    /// EINVAL if that reaches beyond [`Bound::memsize`]. Source: abi.md 10.
    pub fn check_map(&self, offset: u64, len_bytes: u64) -> Result<(), Errno> {
        let end = offset.checked_add(len_bytes).ok_or(Errno::EINVAL)?;
        if end <= self.memsize() { Ok(()) } else { Err(Errno::EINVAL) }
    }

    /// Offset of this binding's interface record: `nr_offset`.
    #[must_use]
    pub fn nr_offset(&self) -> u64 {
        self.grant().if_ofs
    }

    /// `nr_flags` of the REGISTER that bound it.
    #[must_use]
    pub fn nr_flags(&self) -> u64 {
        self.grant().nr_flags
    }

    /// Id of the region: `nr_mem_id`.
    #[must_use]
    pub fn mem_id(&self) -> u16 {
        self.grant().mem_id
    }

    /// Numbers of the bound TX rings in the port.
    #[must_use]
    pub fn tx_rings(&self) -> Range<u16> {
        self.grant().tx.range()
    }

    /// Numbers of the bound RX rings in the port.
    #[must_use]
    pub fn rx_rings(&self) -> Range<u16> {
        self.grant().rx.range()
    }

    /// True while the broker lives. When it is gone, all syncs fail, and the port must be opened again.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.check().is_ok()
    }
}
