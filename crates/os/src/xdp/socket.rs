//! Making AF_XDP sockets.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::sockopt;
use rustix::net::xdp::{SocketAddrXdp, SocketAddrXdpFlags, XdpOptionsFlags};
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use super::{RingSizes, Umem};
use crate::bpf::MissingCapabilities;

/// linux/if_xdp.h, since Linux 6.17: descriptors sent per call in copy mode.
const XDP_MAX_TX_SKB_BUDGET: libc::c_int = 9;
/// What that is without the option (kernel net/xdp/xsk.c `TX_BATCH_SIZE`), and the least it can be set to.
const DEFAULT_TX_BUDGET: u32 = 32;

/// Whether the driver moves frames itself, or the kernel copies them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CopyMode {
    /// Zero-copy if the driver can, else copies. [`XskSocket::is_zero_copy`] tells.
    #[default]
    Auto,
    /// Copies (`XDP_COPY`).
    Copy,
    /// Zero-copy or failure (`XDP_ZEROCOPY`).
    ZeroCopy,
}

/// How to make a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct XskConfig {
    /// Entries of the rings.
    pub sizes: RingSizes,
    /// Copies or not.
    pub copy_mode: CopyMode,
    /// The kernel says when it must be woken, else it is on the user to wake it always (`XDP_USE_NEED_WAKEUP`).
    /// Recommended by the kernel document.
    pub need_wakeup: bool,
    /// Descriptors that one [`kick_tx`](super::kick_tx) sends in copy mode. `None`: the whole transmit ring.
    /// Kernels before 6.17 know only 32; see [`XskSocket::tx_budget`].
    pub tx_budget: Option<u32>,
    /// Frames of several descriptors, both ways (`XDP_USE_SG`, since Linux 6.6). Without it longer frames are
    /// dropped.
    pub multi_buffer: bool,
}

impl XskConfig {
    /// Rings of these sizes, mode by the driver's abilities, need-wakeup, full budget, frames of one
    /// descriptor.
    #[must_use]
    pub fn new(sizes: RingSizes) -> XskConfig {
        XskConfig {
            sizes,
            copy_mode: CopyMode::Auto,
            need_wakeup: true,
            tx_budget: None,
            multi_buffer: false,
        }
    }

    fn bind_flags(&self) -> SocketAddrXdpFlags {
        let mut flags = match self.copy_mode {
            CopyMode::Auto => SocketAddrXdpFlags::empty(),
            CopyMode::Copy => SocketAddrXdpFlags::XDP_COPY,
            CopyMode::ZeroCopy => SocketAddrXdpFlags::XDP_ZEROCOPY,
        };
        flags.set(SocketAddrXdpFlags::XDP_USE_NEED_WAKEUP, self.need_wakeup);
        flags.set(SocketAddrXdpFlags::XDP_USE_SG, self.multi_buffer);
        flags
    }
}

/// The step that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum XskStep {
    /// socket(2)
    Socket,
    /// XDP_UMEM_REG: pins the memory.
    RegisterUmem,
    /// The sizes of the rings.
    RingSizes,
    /// bind(2) to interface and queue.
    Bind,
    /// XDP_OPTIONS, to learn what was got.
    Options,
}

/// Why a socket could not be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct XskError {
    /// Where.
    pub step: XskStep,
    /// The kernel's answer.
    pub errno: Errno,
    /// The interface asked for.
    pub ifindex: u32,
    /// The queue asked for.
    pub queue: u32,
}

impl XskError {
    /// The kernel's answer.
    #[must_use]
    pub fn errno(&self) -> Errno {
        self.errno
    }

    /// True if another socket has the queue, or one just closed still does: for 15 to 50 ms after the last fd
    /// and map.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.step == XskStep::Bind && self.errno == Errno::BUSY
    }
}

impl std::fmt::Display for XskError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let XskError { errno, ifindex, queue, .. } = *self;
        match (self.step, errno) {
            (XskStep::Socket, Errno::PERM) => {
                write!(f, "cannot make an AF_XDP socket: {errno}; {}", MissingCapabilities::for_raw_socket())
            }
            (XskStep::Socket, Errno::AFNOSUPPORT) => {
                f.write_str("cannot make an AF_XDP socket: the kernel was built without CONFIG_XDP_SOCKETS")
            }
            (XskStep::Socket, _) => write!(f, "cannot make an AF_XDP socket: {errno}"),
            (XskStep::RegisterUmem, Errno::NOBUFS) => f.write_str(
                "cannot register the buffers: more than RLIMIT_MEMLOCK; raise it, or CAP_IPC_LOCK",
            ),
            (XskStep::RegisterUmem, _) => write!(f, "cannot register the buffers: {errno}"),
            (XskStep::RingSizes, _) => write!(f, "cannot set the ring sizes: {errno}"),
            (XskStep::Bind, Errno::BUSY) => {
                write!(f, "queue {queue} of interface {ifindex} is used by another socket")
            }
            (XskStep::Bind, Errno::OPNOTSUPP) => {
                write!(f, "the driver of interface {ifindex} cannot do the copy mode asked for ({errno})")
            }
            (XskStep::Bind, Errno::INVAL) => write!(
                f,
                "interface {ifindex} has no queue {queue}, or its MTU needs the multi-buffer option ({errno})"
            ),
            (XskStep::Bind, _) => write!(f, "cannot bind to queue {queue} of interface {ifindex}: {errno}"),
            (XskStep::Options, _) => write!(f, "cannot read the options of the socket: {errno}"),
        }
    }
}

impl std::error::Error for XskError {}

impl From<XskError> for io::Error {
    fn from(e: XskError) -> io::Error {
        e.errno.into()
    }
}

/// Counters of a socket since it was made (`struct xdp_statistics`). Frames, or descriptors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct XskStats {
    /// Dropped for other reasons than a full ring: too long, for instance.
    pub rx_dropped: u64,
    /// Meant for bad addresses on the fill ring, but the kernel passes over those without counting them here:
    /// it reads the counter of the receive ring, which stays 0 (seen with Linux 6.18, kernel net/xdp/xsk.c
    /// `xsk_getsockopt`).
    pub rx_invalid_descs: u64,
    /// Bad descriptors on the transmit ring.
    pub tx_invalid_descs: u64,
    /// Dropped because the receive ring was full. 0 before Linux 5.9, as the next two.
    pub rx_ring_full: u64,
    /// Dropped because the fill ring was empty.
    pub rx_fill_ring_empty_descs: u64,
    /// Times that the transmit ring was found empty.
    pub tx_ring_empty_descs: u64,
}

/// Reads the counters of a socket; any holder of the fd can.
///
/// Source: af_xdp, XDP_STATISTICS.
///
/// # Errors
/// ENOPROTOOPT or EOPNOTSUPP if `fd` is no AF_XDP socket.
pub fn statistics(fd: impl AsFd) -> io::Result<XskStats> {
    let s = sockopt::xdp_statistics(fd)?;
    Ok(XskStats {
        rx_dropped: s.rx_dropped,
        rx_invalid_descs: s.rx_invalid_descs,
        tx_invalid_descs: s.tx_invalid_descs,
        rx_ring_full: s.rx_ring_full.unwrap_or(0),
        rx_fill_ring_empty_descs: s.rx_fill_ring_empty_descs.unwrap_or(0),
        tx_ring_empty_descs: s.tx_ring_empty_descs.unwrap_or(0),
    })
}

/// An AF_XDP socket, bound to one queue of an interface.
///
/// Frames arrive once it is in the [`XskMap`](crate::bpf::XskMap) of the program on the interface; sending
/// works without.
#[derive(Debug)]
pub struct XskSocket {
    fd: OwnedFd,
    ifindex: u32,
    queue: u32,
    sizes: RingSizes,
    zero_copy: bool,
    tx_budget: u32,
}

impl XskSocket {
    /// Makes a socket in the namespace of the calling thread, registers the memory, and binds it.
    ///
    /// The memory is registered anew for each socket; all of it is pinned until the socket is gone.
    ///
    /// # Errors
    /// [`XskError`] with the step and: EPERM without CAP_NET_RAW; ENOBUFS if the memory is above
    /// RLIMIT_MEMLOCK; EBUSY if the queue is taken (see [`XskSocket::bind_retry`]); EOPNOTSUPP if zero-copy was
    /// asked for in vain; EINVAL for a queue that does not exist; ENODEV; ENETDOWN if the interface is down and
    /// the driver minds.
    pub fn bind(ifindex: u32, queue: u32, umem: &Umem, config: &XskConfig) -> Result<XskSocket, XskError> {
        Self::bind_retry(ifindex, queue, umem, config, Duration::ZERO)
    }

    /// As [`XskSocket::bind`], but tries again for up to `patience` while the queue is busy: one that was just
    /// closed stays so for 15 to 50 ms. Blocks; 100 ms are enough. The memory is registered only once.
    ///
    /// # Errors
    /// As [`XskSocket::bind`].
    pub fn bind_retry(
        ifindex: u32,
        queue: u32,
        umem: &Umem,
        config: &XskConfig,
        patience: Duration,
    ) -> Result<XskSocket, XskError> {
        let at = |step| move |errno| XskError { step, errno, ifindex, queue };
        let sizes = config.sizes;
        sizes.check().map_err(|_| at(XskStep::RingSizes)(Errno::INVAL))?;

        let fd = rustix::net::socket_with(AddressFamily::XDP, SocketType::RAW, SocketFlags::CLOEXEC, None)
            .map_err(at(XskStep::Socket))?;
        sockopt::set_xdp_umem_reg(&fd, umem.registration()).map_err(at(XskStep::RegisterUmem))?;
        sockopt::set_xdp_umem_fill_ring_size(&fd, sizes.fill).map_err(at(XskStep::RingSizes))?;
        sockopt::set_xdp_umem_completion_ring_size(&fd, sizes.comp).map_err(at(XskStep::RingSizes))?;
        sockopt::set_xdp_rx_ring_size(&fd, sizes.rx).map_err(at(XskStep::RingSizes))?;
        sockopt::set_xdp_tx_ring_size(&fd, sizes.tx).map_err(at(XskStep::RingSizes))?;
        let tx_budget = raise_tx_budget(&fd, config.tx_budget.unwrap_or(sizes.tx).min(sizes.tx));

        let address = SocketAddrXdp::new(config.bind_flags(), ifindex, queue);
        let end = Instant::now() + patience;
        while let Err(errno) = rustix::net::bind(&fd, &address) {
            if errno != Errno::BUSY || Instant::now() >= end {
                return Err(at(XskStep::Bind)(errno));
            }
            std::thread::sleep(Duration::from_millis(2));
        }

        let options = sockopt::xdp_options(&fd).map_err(at(XskStep::Options))?;
        let zero_copy = options.contains(XdpOptionsFlags::XDP_OPTIONS_ZEROCOPY);
        Ok(XskSocket { fd, ifindex, queue, sizes, zero_copy, tx_budget })
    }

    /// The interface it is bound to.
    #[must_use]
    pub fn ifindex(&self) -> u32 {
        self.ifindex
    }

    /// The queue it is bound to.
    #[must_use]
    pub fn queue(&self) -> u32 {
        self.queue
    }

    /// Entries of its rings: who maps them needs to know.
    #[must_use]
    pub fn sizes(&self) -> RingSizes {
        self.sizes
    }

    /// The driver moves the frames itself.
    #[must_use]
    pub fn is_zero_copy(&self) -> bool {
        self.zero_copy
    }

    /// Descriptors that one kick sends in copy mode: what was asked for, or 32 by a kernel that cannot raise
    /// it.
    #[must_use]
    pub fn tx_budget(&self) -> u32 {
        self.tx_budget
    }

    /// Its counters.
    ///
    /// # Errors
    /// As [`statistics`].
    pub fn statistics(&self) -> io::Result<XskStats> {
        statistics(&self.fd)
    }

    /// Gives up the fd, to send it elsewhere.
    #[must_use]
    pub fn into_fd(self) -> OwnedFd {
        self.fd
    }
}

impl AsFd for XskSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Tries to raise the budget, and says what it is now. The kernel takes values from 32 to the size of the
/// transmit ring.
fn raise_tx_budget(fd: &OwnedFd, budget: u32) -> u32 {
    if budget <= DEFAULT_TX_BUDGET {
        return DEFAULT_TX_BUDGET;
    }
    // SAFETY: the option's value is an u32, which lives here, with its true size.
    let r = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_XDP,
            XDP_MAX_TX_SKB_BUDGET,
            (&raw const budget).cast(),
            size_of::<u32>() as libc::socklen_t,
        )
    };
    if r == 0 { budget } else { DEFAULT_TX_BUDGET }
}
