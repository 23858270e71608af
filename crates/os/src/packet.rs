//! AF_PACKET sockets: frames of any interface, one copy each way through the kernel. The fallback where AF_XDP
//! is refused.
//!
//! The host keeps receiving what we receive: unlike an XDP program, a packet socket takes copies. Frames are
//! complete, without FCS; a VLAN tag that the device or the stack took out is put back in-band.
//!
//! No ring (PACKET_MMAP): one recvmmsg or sendmmsg per batch costs little beside the packet buffer that the
//! kernel makes anyway (tried with a ring and without: 0.5 to 0.8 Mpps both ways), and buffers of the region are used directly.
//!
//! Source: packet(7), linux/if_packet.h, recvmmsg(2), sendmmsg(2).

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use crate::bpf::MissingCapabilities;
use crate::bytes::Payload;

const ETH_P_ALL: u16 = 0x0003;
const ETH_P_8021Q: u16 = 0x8100;
/// Destination and source address: a VLAN tag lies behind them.
const MAC_PAIR_LEN: usize = 12;
const VLAN_TAG_LEN: usize = 4;
/// Room for one control message with a `struct tpacket_auxdata`, aligned as control messages must be.
type Control = [u64; 8];

/// How to open a packet socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PacketConfig {
    /// Frames per system call, at most.
    pub max_batch: usize,
    /// Do not receive what this host sends through the interface (PACKET_IGNORE_OUTGOING, since Linux 4.20).
    pub ignore_outgoing: bool,
    /// Send past the queueing discipline (PACKET_QDISC_BYPASS): faster, and invisible to other packet sockets.
    pub qdisc_bypass: bool,
    /// Receive frames for other addresses too, for as long as the socket lives (PACKET_MR_PROMISC).
    pub promiscuous: bool,
    /// Bytes of kernel memory for frames that wait to be received; above net.core.rmem_max only with
    /// CAP_NET_ADMIN. `None`: the system's default, about 250 small frames.
    pub recv_buffer_bytes: Option<usize>,
    /// Receive at all; else the socket only sends.
    pub receive: bool,
}

impl Default for PacketConfig {
    fn default() -> Self {
        PacketConfig {
            max_batch: 64,
            ignore_outgoing: true,
            qdisc_bypass: true,
            promiscuous: false,
            recv_buffer_bytes: None,
            receive: true,
        }
    }
}

/// Why a packet socket could not be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PacketError {
    /// What was tried.
    pub step: &'static str,
    /// The kernel's answer.
    pub errno: Errno,
    /// The interface asked for.
    pub ifindex: u32,
}

impl PacketError {
    /// The kernel's answer.
    #[must_use]
    pub fn errno(&self) -> Errno {
        self.errno
    }
}

impl std::fmt::Display for PacketError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "interface {}: cannot {}: {}", self.ifindex, self.step, self.errno)?;
        if self.errno == Errno::PERM {
            write!(f, "; {}", MissingCapabilities::for_raw_socket())?;
        }
        Ok(())
    }
}

impl std::error::Error for PacketError {}

impl From<PacketError> for io::Error {
    fn from(e: PacketError) -> io::Error {
        e.errno.into()
    }
}

/// One received frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Received {
    /// Bytes in the buffer.
    pub len: usize,
    /// The frame was longer than its buffer; the rest is lost.
    pub truncated: bool,
    /// A sender on this host left the checksum to a device that never saw the frame (TP_STATUS_CSUMNOTREADY):
    /// common on veth with `tx` offload.
    pub checksum_unfinished: bool,
}

/// How a batch ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SendEnd {
    /// All frames were taken.
    Complete,
    /// The device's queue or the socket's memory is full: offer the rest again later.
    Again,
    /// The interface is down: nothing is taken until it is up.
    LinkDown,
}

/// What became of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sent {
    /// Frames done with, from the first on: sent or invalid.
    pub taken: usize,
    /// Of these, how many the kernel refused for what they are: shorter than a header, longer than the MTU
    /// permits.
    pub invalid: usize,
    /// Why no more.
    pub end: SendEnd,
}

/// Counters since the socket was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PacketStats {
    /// Frames seen, dropped ones included.
    pub packets: u64,
    /// Dropped because the socket's memory was full.
    pub drops: u64,
}

/// A packet socket, bound to one interface, non-blocking in all calls.
///
/// If the interface is deleted the socket receives nothing any more, and sending fails with ENXIO; who needs to
/// know sooner watches [`LinkMonitor`](crate::link::LinkMonitor).
pub struct PacketSocket {
    fd: OwnedFd,
    stats: PacketStats,
    /// Scratch of one call; between calls its pointers mean nothing.
    headers: Vec<libc::mmsghdr>,
    iovecs: Vec<libc::iovec>,
    control: Vec<Control>,
}

// SAFETY: the pointers in the scratch vectors are set anew at the beginning of each call and not used after it;
// calls need `&mut self`.
unsafe impl Send for PacketSocket {}

impl std::fmt::Debug for PacketSocket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PacketSocket")
            .field("fd", &self.fd)
            .field("stats", &self.stats)
            .finish_non_exhaustive()
    }
}

/// Frames that found no room in a packet socket since it was opened (modulo 2^32). Any holder of the fd can ask, and takes nothing from
/// others by that.
///
/// Source: `SO_MEMINFO` and `SK_MEMINFO_DROPS`, kernel include/uapi/linux/sock_diag.h; `packet_rcv` of net/packet/af_packet.c.
///
/// # Errors
/// What getsockopt answers.
pub fn drops(fd: impl AsFd) -> io::Result<u32> {
    const SO_MEMINFO: libc::c_int = 55;
    const SK_MEMINFO_DROPS: usize = 8;
    let mut info = [0u32; SK_MEMINFO_DROPS + 1];
    let mut len = size_of_val(&info) as libc::socklen_t;
    // SAFETY: the option's value is an array of u32, which lives here, with its true size.
    let r = unsafe {
        libc::getsockopt(
            fd.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            SO_MEMINFO,
            info.as_mut_ptr().cast(),
            &raw mut len,
        )
    };
    if r < 0 {
        return Err(last_errno().into());
    }
    Ok(info[SK_MEMINFO_DROPS])
}

impl PacketSocket {
    /// Opens a socket on an interface of the calling thread's namespace. An interface that is down is fine.
    ///
    /// # Errors
    /// [`PacketError`] with the step and: EPERM without CAP_NET_RAW; ENODEV; ENOPROTOOPT if the kernel does not
    /// know an option asked for.
    pub fn open(ifindex: u32, config: &PacketConfig) -> Result<PacketSocket, PacketError> {
        let at = |step| move |errno| PacketError { step, errno, ifindex };
        // Protocol 0: nothing is received before bind, which names the interface. Otherwise frames of all
        // interfaces would queue up meanwhile.
        let fd = rustix::net::socket_with(
            AddressFamily::PACKET,
            SocketType::RAW,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            None,
        )
        .map_err(at("make a packet socket"))?;
        set_option(&fd, libc::PACKET_AUXDATA, &1).map_err(at("ask for VLAN tags"))?;
        if config.ignore_outgoing {
            set_option(&fd, libc::PACKET_IGNORE_OUTGOING, &1).map_err(at("ignore outgoing frames"))?;
        }
        if config.qdisc_bypass {
            set_option(&fd, libc::PACKET_QDISC_BYPASS, &1).map_err(at("bypass the queueing discipline"))?;
        }
        if let Some(len) = config.recv_buffer_bytes {
            use rustix::net::sockopt::{set_socket_recv_buffer_size, set_socket_recv_buffer_size_force};
            set_socket_recv_buffer_size_force(&fd, len)
                .or_else(|_| set_socket_recv_buffer_size(&fd, len))
                .map_err(at("set the size of the receive buffer"))?;
        }
        bind(&fd, ifindex, config.receive).map_err(at("bind a packet socket"))?;
        if config.promiscuous {
            let membership = libc::packet_mreq {
                mr_ifindex: ifindex as i32,
                mr_type: libc::PACKET_MR_PROMISC as u16,
                mr_alen: 0,
                mr_address: [0; 8],
            };
            set_option(&fd, libc::PACKET_ADD_MEMBERSHIP, &membership)
                .map_err(at("enter promiscuous mode"))?;
        }
        Ok(PacketSocket::adopt(fd, config.max_batch))
    }

    /// Takes in a socket that [`PacketSocket::open`] made, in this or another process. What the fd really is shows at the first
    /// use. At most `max_batch` frames go with one system call.
    #[must_use]
    pub fn adopt(fd: OwnedFd, max_batch: usize) -> PacketSocket {
        let n = max_batch.clamp(1, 1024);
        // SAFETY: `mmsghdr` is a C structure of integers and pointers: all zero is a valid value.
        let header: libc::mmsghdr = unsafe { std::mem::zeroed() };
        let iovec = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };
        PacketSocket {
            fd,
            stats: PacketStats::default(),
            headers: vec![header; n],
            iovecs: vec![iovec; n],
            control: vec![[0; 8]; n],
        }
    }

    /// Gives up the fd, to send it elsewhere.
    #[must_use]
    pub fn into_fd(self) -> OwnedFd {
        self.fd
    }

    /// Receives up to one batch, frame `i` into `bufs[i]`, and describes it in `out[i]`. Says how many; 0 if
    /// none waits, or the interface is down.
    ///
    /// A VLAN tag that was taken out is put back, so such a frame needs 4 bytes more.
    ///
    /// # Errors
    /// What recvmmsg answers, but for EAGAIN, EINTR and ENETDOWN: ENOMEM.
    pub fn recv_batch(&mut self, bufs: &[Payload<'_>], out: &mut [Received]) -> io::Result<usize> {
        let n = bufs.len().min(out.len()).min(self.headers.len());
        self.prepare(&bufs[..n], true);
        // SAFETY: n headers, each of which points to its iovec (the bytes of a live `Payload`, writable shared
        // memory) and its control buffer, as `prepare` set them; all of them outlive the call.
        let r = unsafe {
            libc::recvmmsg(
                self.fd.as_raw_fd(),
                self.headers.as_mut_ptr(),
                n as libc::c_uint,
                libc::MSG_DONTWAIT as _,
                std::ptr::null_mut(),
            )
        };
        let got = match usize::try_from(r) {
            Ok(got) => got.min(n),
            Err(_) => match last_errno() {
                // ENETDOWN is told once, when the interface goes down.
                Errno::AGAIN | Errno::INTR | Errno::NETDOWN => 0,
                errno => return Err(errno.into()),
            },
        };
        for ((out, header), buf) in out.iter_mut().zip(&self.headers[..got]).zip(bufs) {
            *out = finish(header, buf);
        }
        Ok(got)
    }

    /// Sends frames, in order, up to one batch per system call until all are taken or the kernel takes no more.
    ///
    /// # Errors
    /// ENXIO if the interface is gone; what else sendmmsg answers, if nothing was taken in this call.
    pub fn send_batch(&mut self, frames: &[Payload<'_>]) -> io::Result<Sent> {
        let mut sent = Sent { taken: 0, invalid: 0, end: SendEnd::Complete };
        while sent.taken < frames.len() {
            let n = (frames.len() - sent.taken).min(self.headers.len());
            self.prepare(&frames[sent.taken..sent.taken + n], false);
            // SAFETY: n headers, each of which points to its iovec, the bytes of a live `Payload`, which the
            // kernel reads; all outlive the call.
            let r = unsafe {
                libc::sendmmsg(
                    self.fd.as_raw_fd(),
                    self.headers.as_mut_ptr(),
                    n as libc::c_uint,
                    libc::MSG_DONTWAIT as _,
                )
            };
            if let Ok(count) = usize::try_from(r) {
                // Fewer than n: the error of the next one comes with the next call.
                sent.taken += count.clamp(1, n);
                continue;
            }
            match last_errno() {
                // The first frame of this call is to blame: pass over it.
                Errno::INVAL | Errno::MSGSIZE => {
                    sent.taken += 1;
                    sent.invalid += 1;
                }
                Errno::INTR => {}
                Errno::AGAIN | Errno::NOBUFS => {
                    sent.end = SendEnd::Again;
                    break;
                }
                Errno::NETDOWN => {
                    sent.end = SendEnd::LinkDown;
                    break;
                }
                _ if sent.taken > 0 => {
                    sent.end = SendEnd::Again;
                    break;
                }
                errno => return Err(errno.into()),
            }
        }
        Ok(sent)
    }

    /// Counters since the socket was opened (the kernel's own begin anew at each reading, PACKET_STATISTICS).
    ///
    /// # Errors
    /// What getsockopt answers: none is expected.
    pub fn statistics(&mut self) -> io::Result<PacketStats> {
        let mut now = libc::tpacket_stats { tp_packets: 0, tp_drops: 0 };
        let mut len = size_of::<libc::tpacket_stats>() as libc::socklen_t;
        // SAFETY: the option's value is a `struct tpacket_stats` (this socket has no TPACKET_V3 ring), which
        // lives here, with its true size.
        let r = unsafe {
            libc::getsockopt(
                self.fd.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_STATISTICS,
                (&raw mut now).cast(),
                &raw mut len,
            )
        };
        if r < 0 {
            return Err(last_errno().into());
        }
        self.stats.packets += u64::from(now.tp_packets);
        self.stats.drops += u64::from(now.tp_drops);
        Ok(self.stats)
    }

    /// Points the scratch headers to `bufs`, of which there are no more than headers.
    fn prepare(&mut self, bufs: &[Payload<'_>], with_control: bool) {
        for (i, buf) in bufs.iter().enumerate() {
            self.iovecs[i] = libc::iovec { iov_base: buf.as_ptr().cast(), iov_len: buf.len() };
            let header = &mut self.headers[i].msg_hdr;
            header.msg_name = std::ptr::null_mut();
            header.msg_namelen = 0;
            header.msg_iov = &raw mut self.iovecs[i];
            header.msg_iovlen = 1;
            header.msg_flags = 0;
            header.msg_control = std::ptr::null_mut();
            header.msg_controllen = 0;
            if with_control {
                header.msg_control = self.control[i].as_mut_ptr().cast();
                header.msg_controllen = size_of::<Control>() as _;
            }
        }
    }
}

impl AsFd for PacketSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Describes the frame that `header` brought into `buf`, and puts its VLAN tag back.
fn finish(header: &libc::mmsghdr, buf: &Payload<'_>) -> Received {
    let mut frame = Received {
        len: (header.msg_len as usize).min(buf.len()),
        truncated: header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0,
        checksum_unfinished: false,
    };
    let Some(aux) = auxdata(&header.msg_hdr) else { return frame };
    frame.checksum_unfinished = aux.tp_status & libc::TP_STATUS_CSUMNOTREADY != 0;
    if aux.tp_status & libc::TP_STATUS_VLAN_VALID != 0 && frame.len >= MAC_PAIR_LEN {
        let has_tpid = aux.tp_status & libc::TP_STATUS_VLAN_TPID_VALID != 0;
        let tpid = if has_tpid { aux.tp_vlan_tpid } else { ETH_P_8021Q };
        insert_vlan_tag(&mut frame, buf, tpid, aux.tp_vlan_tci);
    }
    frame
}

/// ```text
/// dst src | type ...          becomes      dst src | tpid tci | type ...
/// 0       12                               0       12         16
/// ```
fn insert_vlan_tag(frame: &mut Received, buf: &Payload<'_>, tpid: u16, tci: u16) {
    let tail = frame.len - MAC_PAIR_LEN;
    let behind_tag = MAC_PAIR_LEN + VLAN_TAG_LEN;
    buf.slice(behind_tag, tail).copy_payload(&buf.slice(MAC_PAIR_LEN, tail));
    let fits = buf.store_u16(MAC_PAIR_LEN, tpid.to_be()).is_some()
        && buf.store_u16(MAC_PAIR_LEN + 2, tci.to_be()).is_some()
        && buf.len() >= frame.len + VLAN_TAG_LEN;
    frame.truncated |= !fits;
    frame.len = (frame.len + VLAN_TAG_LEN).min(buf.len());
}

/// The PACKET_AUXDATA of a received message.
fn auxdata(header: &libc::msghdr) -> Option<libc::tpacket_auxdata> {
    // SAFETY: `header` was filled by recvmmsg: its control pointer and length are those of a buffer that lives
    // (`PacketSocket::control`), and the kernel wrote whole control messages there.
    let mut message = unsafe { libc::CMSG_FIRSTHDR(header) };
    while !message.is_null() {
        // SAFETY: within the control buffer, as CMSG_FIRSTHDR and CMSG_NXTHDR see to.
        let head = unsafe { message.read_unaligned() };
        // SAFETY: CMSG_LEN is arithmetic.
        let wanted = unsafe { libc::CMSG_LEN(size_of::<libc::tpacket_auxdata>() as u32) } as usize;
        if head.cmsg_level == libc::SOL_PACKET
            && head.cmsg_type == libc::PACKET_AUXDATA
            && head.cmsg_len as usize >= wanted
        {
            // SAFETY: the message is long enough for the structure, of which every bit pattern is valid.
            return Some(unsafe {
                libc::CMSG_DATA(message).cast::<libc::tpacket_auxdata>().read_unaligned()
            });
        }
        // SAFETY: as for CMSG_FIRSTHDR.
        message = unsafe { libc::CMSG_NXTHDR(header, message) };
    }
    None
}

fn bind(fd: &OwnedFd, ifindex: u32, receive: bool) -> Result<(), Errno> {
    let address = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        // Protocol 0: nothing is received.
        sll_protocol: if receive { ETH_P_ALL.to_be() } else { 0 },
        sll_ifindex: ifindex as i32,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    // SAFETY: the address lives here, with its true size.
    let r = unsafe {
        libc::bind(
            fd.as_raw_fd(),
            (&raw const address).cast(),
            size_of::<libc::sockaddr_ll>() as libc::socklen_t,
        )
    };
    if r < 0 { Err(last_errno()) } else { Ok(()) }
}

/// Sets an option of level SOL_PACKET. `value` is what packet(7) says for it: an `i32`, or a structure.
fn set_option<T: Copy>(fd: &OwnedFd, option: libc::c_int, value: &T) -> Result<(), Errno> {
    // SAFETY: the kernel only reads the value, which lives, with its true size.
    let r = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_PACKET,
            option,
            std::ptr::from_ref(value).cast(),
            size_of::<T>() as libc::socklen_t,
        )
    };
    if r < 0 { Err(last_errno()) } else { Ok(()) }
}

fn last_errno() -> Errno {
    Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO)
}
