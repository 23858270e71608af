//! The few rtnetlink messages that Ringway needs: RTM_GETLINK and its answers.
//!
//! Source: rtnetlink(7), netlink(7), linux/if_link.h.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use netlink_packet_core::{NetlinkBuffer, NlasIterator, parse_string, parse_u32};
use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use super::{XdpAttached, XdpMode};

// linux/rtnetlink.h, linux/netlink.h
const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_MULTI: u16 = 0x2;
const NLM_F_DUMP: u16 = 0x300;
const NLMSG_HDRLEN: usize = 16;
/// `struct ifinfomsg`: family 1, pad 1, type 2, index 4, flags 4, change 4.
const IFINFOMSG_LEN: usize = 16;

// linux/if_link.h
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINKINFO: u16 = 18;
const IFLA_EXT_MASK: u16 = 29;
const IFLA_NUM_TX_QUEUES: u16 = 31;
const IFLA_NUM_RX_QUEUES: u16 = 32;
const IFLA_XDP: u16 = 43;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_XDP_ATTACHED: u16 = 2;
const IFLA_XDP_PROG_ID: u16 = 4;
const IFLA_XDP_DRV_PROG_ID: u16 = 5;
const IFLA_XDP_SKB_PROG_ID: u16 = 6;
const IFLA_XDP_HW_PROG_ID: u16 = 7;
/// Leaves statistics out of the answer.
const RTEXT_FILTER_SKIP_STATS: u32 = 1 << 3;

/// One answer or notification. The kernel makes them of 1 to 4 KiB; much longer with many virtual functions.
const RECV_BUF_LEN: usize = 64 * 1024;

/// What an RTM_NEWLINK or RTM_DELLINK says.
#[derive(Debug, Default)]
pub(super) struct LinkMsg {
    pub removed: bool,
    /// Part of the answer to a dump, no notification.
    pub dumped: bool,
    pub ifindex: u32,
    pub name: String,
    pub mac: Option<[u8; 6]>,
    pub mtu: u32,
    pub flags: u32,
    pub kind: Option<String>,
    pub num_rx_queues: u32,
    pub num_tx_queues: u32,
    pub xdp: Vec<XdpAttached>,
}

/// The interface asked for.
#[derive(Clone, Copy)]
pub(super) enum Which<'a> {
    Index(u32),
    Name(&'a CStr),
    All,
}

/// One received message.
pub(super) enum Answer {
    Link(LinkMsg),
    Error(Errno),
    Done,
}

/// A netlink socket of protocol NETLINK_ROUTE, in the namespace of the thread that made it.
#[derive(Debug)]
pub(super) struct RouteSocket {
    fd: OwnedFd,
    buf: Vec<u8>,
}

impl RouteSocket {
    /// `groups`: the RTMGRP_* mask to listen to.
    pub fn open(groups: u32) -> io::Result<RouteSocket> {
        let fd = rustix::net::socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            // NETLINK_ROUTE is protocol 0.
            None,
        )?;
        rustix::net::bind(&fd, &SocketAddrNetlink::new(0, groups))?;
        Ok(RouteSocket { fd, buf: vec![0; RECV_BUF_LEN] })
    }

    pub fn request(&self, which: Which<'_>) -> io::Result<()> {
        let message = encode_request(which);
        rustix::net::send(&self.fd, &message, SendFlags::empty())?;
        Ok(())
    }

    /// Receives one datagram, and gives each message in it to `take`. With `DONTWAIT` in `flags`: EAGAIN if
    /// there is none.
    pub fn receive(&mut self, flags: RecvFlags, mut take: impl FnMut(Answer)) -> io::Result<()> {
        let (_, len) = rustix::io::retry_on_intr(|| {
            rustix::net::recv(&self.fd, self.buf.as_mut_slice(), flags | RecvFlags::TRUNC)
        })?;
        if len > self.buf.len() {
            // The rest is lost: as if the queue had overrun.
            self.buf.resize(len, 0);
            return Err(Errno::NOBUFS.into());
        }
        decode(&self.buf[..len], &mut take);
        Ok(())
    }
}

impl AsFd for RouteSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Asks for one interface. ENODEV if there is none.
pub(super) fn get(which: Which<'_>) -> io::Result<LinkMsg> {
    let mut socket = RouteSocket::open(0)?;
    socket.request(which)?;
    let mut result = Err(Errno::NODEV.into());
    socket.receive(RecvFlags::empty(), |answer| match answer {
        Answer::Link(msg) if !msg.removed => result = Ok(msg),
        Answer::Error(errno) => result = Err(errno.into()),
        _ => {}
    })?;
    result
}

/// Asks for all interfaces.
pub(super) fn dump() -> io::Result<Vec<LinkMsg>> {
    let mut socket = RouteSocket::open(0)?;
    socket.request(Which::All)?;
    let mut links = Vec::new();
    let mut end: Option<io::Result<()>> = None;
    while end.is_none() {
        socket.receive(RecvFlags::empty(), |answer| match answer {
            Answer::Link(msg) => links.push(msg),
            Answer::Error(errno) => end = Some(Err(errno.into())),
            Answer::Done => end = Some(Ok(())),
        })?;
    }
    end.unwrap_or(Ok(())).map(|()| links)
}

/// ```text
/// 0 nlmsghdr   len 4, type 2, flags 2, seq 4, pid 4
/// 16 ifinfomsg family 1, pad 1, type 2, index 4, flags 4, change 4
/// 32 IFLA_EXT_MASK; IFLA_IFNAME
/// ```
fn encode_request(which: Which<'_>) -> Vec<u8> {
    let mut m = vec![0u8; NLMSG_HDRLEN + IFINFOMSG_LEN];
    push_attr(&mut m, IFLA_EXT_MASK, &RTEXT_FILTER_SKIP_STATS.to_ne_bytes());
    let mut flags = NLM_F_REQUEST;
    match which {
        Which::Index(i) => m[20..24].copy_from_slice(&i.to_ne_bytes()),
        Which::Name(name) => push_attr(&mut m, IFLA_IFNAME, name.to_bytes_with_nul()),
        Which::All => flags |= NLM_F_DUMP,
    }
    let len = m.len() as u32;
    m[0..4].copy_from_slice(&len.to_ne_bytes());
    m[4..6].copy_from_slice(&RTM_GETLINK.to_ne_bytes());
    m[6..8].copy_from_slice(&flags.to_ne_bytes());
    m
}

fn push_attr(m: &mut Vec<u8>, kind: u16, value: &[u8]) {
    m.extend_from_slice(&(4 + value.len() as u16).to_ne_bytes());
    m.extend_from_slice(&kind.to_ne_bytes());
    m.extend_from_slice(value);
    m.resize(m.len().next_multiple_of(4), 0);
}

/// Walks the messages of a datagram. What cannot be understood is passed over: the kernel is no adversary, but
/// may be newer.
fn decode(mut datagram: &[u8], take: &mut impl FnMut(Answer)) {
    while let Ok(message) = NetlinkBuffer::new_checked(datagram) {
        let len = message.length() as usize;
        let payload = datagram.get(NLMSG_HDRLEN..len).unwrap_or(&[]);
        match message.message_type() {
            kind @ (RTM_NEWLINK | RTM_DELLINK) => {
                if let Some(mut msg) = decode_link(payload, kind == RTM_DELLINK) {
                    msg.dumped = message.flags() & NLM_F_MULTI != 0;
                    take(Answer::Link(msg));
                }
            }
            NLMSG_ERROR => {
                // struct nlmsgerr: a negative errno, 0 for an acknowledgement.
                let code = payload.get(..4).and_then(|b| b.try_into().ok()).map_or(0, i32::from_ne_bytes);
                if code != 0 {
                    take(Answer::Error(Errno::from_raw_os_error(code.wrapping_neg())));
                }
            }
            NLMSG_DONE => take(Answer::Done),
            _ => {}
        }
        let Some(rest) = datagram.get(len.next_multiple_of(4)..) else { return };
        datagram = rest;
    }
}

fn decode_link(payload: &[u8], removed: bool) -> Option<LinkMsg> {
    let (header, attrs) = payload.split_at_checked(IFINFOMSG_LEN)?;
    // Bridges report their members in the same group, with family AF_BRIDGE: a DELLINK of those means that the
    // interface left the bridge, not that it is gone.
    if header[0] != libc::AF_UNSPEC as u8 {
        return None;
    }
    let word = |at: usize| header[at..at + 4].try_into().map(u32::from_ne_bytes).ok();
    let mut msg = LinkMsg { removed, ifindex: word(4)?, flags: word(8)?, ..LinkMsg::default() };
    for attr in NlasIterator::new(attrs).map_while(Result::ok) {
        let value = attr.value();
        match attr.kind() {
            IFLA_ADDRESS => msg.mac = value.try_into().ok(),
            IFLA_IFNAME => msg.name = parse_string(value).unwrap_or_default(),
            IFLA_MTU => msg.mtu = parse_u32(value).unwrap_or(0),
            IFLA_NUM_TX_QUEUES => msg.num_tx_queues = parse_u32(value).unwrap_or(0),
            IFLA_NUM_RX_QUEUES => msg.num_rx_queues = parse_u32(value).unwrap_or(0),
            IFLA_LINKINFO => {
                msg.kind = NlasIterator::new(value)
                    .map_while(Result::ok)
                    .find(|a| a.kind() == IFLA_INFO_KIND)
                    .and_then(|a| parse_string(a.value()).ok());
            }
            IFLA_XDP => msg.xdp = decode_xdp(value),
            _ => {}
        }
    }
    Some(msg)
}

/// The kernel gives one attribute per mode. Before 4.20 it gave only IFLA_XDP_ATTACHED and IFLA_XDP_PROG_ID.
fn decode_xdp(value: &[u8]) -> Vec<XdpAttached> {
    let mut attached = Vec::new();
    let (mut single_mode, mut single_id) = (0u8, 0u32);
    for attr in NlasIterator::new(value).map_while(Result::ok) {
        let id = parse_u32(attr.value()).unwrap_or(0);
        let mode = match attr.kind() {
            IFLA_XDP_DRV_PROG_ID => XdpMode::Native,
            IFLA_XDP_SKB_PROG_ID => XdpMode::Generic,
            IFLA_XDP_HW_PROG_ID => XdpMode::Offloaded,
            IFLA_XDP_ATTACHED => {
                single_mode = attr.value().first().copied().unwrap_or(0);
                continue;
            }
            IFLA_XDP_PROG_ID => {
                single_id = id;
                continue;
            }
            _ => continue,
        };
        if id != 0 {
            attached.push(XdpAttached { prog_id: id, mode });
        }
    }
    // XDP_ATTACHED_DRV 1, _SKB 2, _HW 3
    let modes = [XdpMode::Native, XdpMode::Generic, XdpMode::Offloaded];
    if attached.is_empty() && single_id != 0 && (1..=3).contains(&single_mode) {
        attached.push(XdpAttached { prog_id: single_id, mode: modes[usize::from(single_mode) - 1] });
    }
    attached
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn truncated_and_random_datagrams_do_not_panic() {
        let mut datagram = encode_request(Which::Name(c"eth0"));
        datagram[4..6].copy_from_slice(&RTM_NEWLINK.to_ne_bytes());
        let mut found = 0;
        decode(&datagram, &mut |a| found += u32::from(matches!(a, Answer::Link(ref l) if l.name == "eth0")));
        assert_eq!(found, 1);
        for len in 0..datagram.len() {
            decode(&datagram[..len], &mut |_| {});
        }
        let mut x = 1u32;
        for _ in 0..20_000 {
            let mut d = datagram.clone();
            for _ in 0..3 {
                x = x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let at = (x >> 8) as usize % d.len();
                d[at] = (x >> 24) as u8;
            }
            decode(&d, &mut |_| {});
        }
    }
}
