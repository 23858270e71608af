//! One frame that is built once and then patched in place.
//!
//! ```text
//!   0        vnet     +14        +14+ip    +8
//!   | zeros  | Ethernet | IPv4/IPv6 | UDP  | text text text .. | (spare) |
//!   |        |<------------------ size ----------------------->|
//! ```

use std::net::SocketAddr;

use super::checksum::{adjust, sum};
use crate::addr::Mac;

/// Smallest frame, in bytes without CRC. Below 42 (IPv6: 62) bytes headers are cut off.
pub const MIN_SIZE: usize = 16;
/// Largest frame, in bytes without CRC.
pub const MAX_SIZE: usize = 65536;

const ETH_BYTES: usize = 14;
const UDP_BYTES: usize = 8;
const PROTO_UDP: u8 = 17;
/// The buffer is never shorter than this, so that patches of headers need no bounds of their own.
const MIN_BUF: usize = 96;

/// What the payload says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Payload {
    /// The data lie in the ring's buffers.
    Direct,
    /// The slot points to the data (`NS_INDIRECT`).
    Indirect,
}

impl Payload {
    /// The text that is repeated to the end of the frame.
    pub fn text(self) -> &'static str {
        match self {
            Payload::Direct => "netmap pkt-gen DIRECT payload\nhttp://info.iet.unipi.it/~luigi/netmap/ ",
            Payload::Indirect => "netmap pkt-gen indirect payload\nhttp://info.iet.unipi.it/~luigi/netmap/ ",
        }
    }
}

/// Addresses of a frame. Both socket addresses are of one family; of two, that of `src` counts and
/// `dst` becomes the unspecified address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Headers {
    /// Source Ethernet address.
    pub src_mac: Mac,
    /// Destination Ethernet address.
    pub dst_mac: Mac,
    /// Source address and UDP port.
    pub src: SocketAddr,
    /// Destination address and UDP port.
    pub dst: SocketAddr,
}

/// Where the words lie that steps and patches touch, from the start of the Ethernet header.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    /// IPv4 header checksum; IPv6 has none.
    pub ip_check: Option<usize>,
    pub ip_src: usize,
    pub ip_dst: usize,
    pub udp: usize,
    /// Bytes of one address.
    pub addr_bytes: usize,
}

const V4: Layout = Layout { ip_check: Some(24), ip_src: 26, ip_dst: 30, udp: 34, addr_bytes: 4 };
const V6: Layout = Layout { ip_check: None, ip_src: 22, ip_dst: 38, udp: 54, addr_bytes: 16 };

/// A frame, with an optional virtio-net header of zeros before it.
#[derive(Clone, Debug)]
pub struct Frame {
    buf: Vec<u8>,
    vnet_bytes: usize,
    size: usize,
    layout: Layout,
    /// A frame read from a file: nothing in it is known, nothing is patched.
    opaque: bool,
}

impl Frame {
    /// Builds a frame of `size` bytes (clamped to [`MIN_SIZE`]..=[`MAX_SIZE`]) behind `vnet_bytes` zeros.
    pub fn new(headers: &Headers, size: usize, vnet_bytes: usize, payload: Payload) -> Frame {
        let size = size.clamp(MIN_SIZE, MAX_SIZE);
        let layout = if headers.src.is_ipv4() { V4 } else { V6 };
        let mut eth = vec![0; size.max(MIN_BUF)];
        eth[0..6].copy_from_slice(&headers.dst_mac.0);
        eth[6..12].copy_from_slice(&headers.src_mac.0);
        match headers.src {
            SocketAddr::V4(src) => {
                eth[12..14].copy_from_slice(&[0x08, 0x00]);
                // Version and header length, TOS "low delay"; then, behind length and id 0, "don't fragment".
                eth[14..16].copy_from_slice(&[0x45, 0x10]);
                eth[20] = 0x40;
                eth[22..24].copy_from_slice(&[64, PROTO_UDP]);
                eth[26..30].copy_from_slice(&src.ip().octets());
                if let SocketAddr::V4(dst) = headers.dst {
                    eth[30..34].copy_from_slice(&dst.ip().octets());
                }
            }
            SocketAddr::V6(src) => {
                eth[12..14].copy_from_slice(&[0x86, 0xdd]);
                eth[14] = 0x60;
                eth[20..22].copy_from_slice(&[PROTO_UDP, 64]);
                eth[22..38].copy_from_slice(&src.ip().octets());
                if let SocketAddr::V6(dst) = headers.dst {
                    eth[38..54].copy_from_slice(&dst.ip().octets());
                }
            }
        }
        eth[layout.udp..layout.udp + 2].copy_from_slice(&headers.src.port().to_be_bytes());
        eth[layout.udp + 2..layout.udp + 4].copy_from_slice(&headers.dst.port().to_be_bytes());
        let text = payload.text().bytes().cycle();
        eth[layout.udp + UDP_BYTES..].iter_mut().zip(text).for_each(|(byte, letter)| *byte = letter);

        let mut buf = vec![0; vnet_bytes];
        buf.append(&mut eth);
        let mut frame = Frame { buf, vnet_bytes, size, layout, opaque: false };
        frame.set_size(size);
        frame
    }

    /// A frame of foreign content, sent as it is: patches and steps leave it alone.
    pub fn from_bytes(data: &[u8], vnet_bytes: usize) -> Frame {
        let mut buf = vec![0; vnet_bytes];
        buf.extend_from_slice(data);
        Frame { buf, vnet_bytes, size: data.len(), layout: V4, opaque: true }
    }

    /// Bytes of the frame, without the virtio-net header.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Bytes of header and frame together, as they go into slots.
    pub fn wire_len(&self) -> usize {
        self.vnet_bytes + self.size
    }

    /// Header and frame, as they go into slots.
    pub fn bytes(&self) -> &[u8] {
        &self.buf[..self.wire_len()]
    }

    /// The first `size` bytes of the frame behind the virtio-net header, headers as they are (a frame
    /// cut short without telling its headers). More than the frame has is cut to that.
    pub fn cut(&self, size: usize) -> &[u8] {
        &self.buf[..self.vnet_bytes + size.min(self.size)]
    }

    /// Offset of the UDP payload from the first byte of [`Frame::bytes`].
    pub fn payload_offset(&self) -> usize {
        self.vnet_bytes + self.layout.udp + UDP_BYTES
    }

    pub(super) fn is_opaque(&self) -> bool {
        self.opaque
    }

    pub(super) fn layout(&self) -> Layout {
        self.layout
    }

    /// Makes the frame `size` bytes long (at most what it was built with): writes the IP and UDP lengths
    /// and sums both checksums anew.
    pub fn set_size(&mut self, size: usize) {
        if self.opaque {
            return;
        }
        self.size = size.clamp(MIN_SIZE, self.buf.len() - self.vnet_bytes);
        let layout = self.layout;
        // A frame cut inside its headers still says that they are complete.
        let udp_len = self.size.saturating_sub(layout.udp).max(UDP_BYTES) as u16;
        let ip_len = (layout.udp - ETH_BYTES) as u16 + udp_len;
        let eth = &mut self.buf[self.vnet_bytes..];
        if let Some(check) = layout.ip_check {
            eth[16..18].copy_from_slice(&ip_len.to_be_bytes());
            eth[check..check + 2].fill(0);
            let value = !sum(0, &eth[ETH_BYTES..layout.udp]);
            eth[check..check + 2].copy_from_slice(&value.to_be_bytes());
        } else {
            eth[18..20].copy_from_slice(&udp_len.to_be_bytes());
        }
        let udp = layout.udp;
        eth[udp + 4..udp + 6].copy_from_slice(&udp_len.to_be_bytes());
        eth[udp + 6..udp + 8].fill(0);
        // The pseudo header has both addresses, the protocol, and the length once more.
        let addrs = sum(
            u32::from(PROTO_UDP) + u32::from(udp_len),
            &eth[layout.ip_src..layout.ip_dst + layout.addr_bytes],
        );
        let value = !sum(u32::from(addrs), &eth[udp..udp + usize::from(udp_len)]);
        self.store_udp_check(value);
    }

    /// Overwrites the start of the UDP payload with `data` (of even length) and keeps the checksum right.
    pub fn patch_payload(&mut self, data: &[u8]) {
        let start = self.payload_offset();
        if self.opaque || start + data.len() > self.buf.len() {
            return;
        }
        for (i, word) in data.chunks_exact(2).enumerate() {
            let at = start + 2 * i;
            let new = [word[0], word[1]];
            // Bytes behind the end of the frame are not under the checksum.
            if at + 2 <= self.wire_len() {
                let old = [self.buf[at], self.buf[at + 1]];
                self.adjust_udp_check(u16::from_be_bytes(old), u16::from_be_bytes(new));
            } else if at < self.wire_len() {
                let (old, new) = (u16::from(self.buf[at]) << 8, u16::from(new[0]) << 8);
                self.adjust_udp_check(old, new);
            }
            self.buf[at..at + 2].copy_from_slice(&new);
        }
    }

    /// Writes a sequence number, big-endian, at the start of the UDP payload.
    pub fn set_sequence(&mut self, sequence: u32) {
        self.patch_payload(&sequence.to_be_bytes());
    }

    /// Stores a word of an address (`at` counts from the Ethernet header) and updates both checksums.
    pub(super) fn set_addr_word(&mut self, at: usize, new: u16) {
        let old = self.word(at);
        if let Some(check) = self.layout.ip_check {
            let value = adjust(self.word(check), old, new);
            self.set_word(check, value);
        }
        self.adjust_udp_check(old, new);
        self.set_word(at, new);
    }

    /// Stores a UDP port (`at` counts from the Ethernet header) and updates the UDP checksum.
    pub(super) fn set_port(&mut self, at: usize, new: u16) {
        self.adjust_udp_check(self.word(at), new);
        self.set_word(at, new);
    }

    fn adjust_udp_check(&mut self, old: u16, new: u16) {
        let value = adjust(self.word(self.layout.udp + 6), old, new);
        self.store_udp_check(value);
    }

    /// In UDP the value 0 means "no checksum"; its other form stands for a sum of zero (RFC 768).
    fn store_udp_check(&mut self, value: u16) {
        self.set_word(self.layout.udp + 6, if value == 0 { 0xffff } else { value });
    }

    fn word(&self, at: usize) -> u16 {
        let at = self.vnet_bytes + at;
        u16::from_be_bytes([self.buf[at], self.buf[at + 1]])
    }

    fn set_word(&mut self, at: usize, value: u16) {
        let at = self.vnet_bytes + at;
        self.buf[at..at + 2].copy_from_slice(&value.to_be_bytes());
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Oracle: parses an Ethernet frame from scratch, checks lengths and checksums by summing
    /// everything, and returns source, destination and UDP payload.
    pub fn verify(eth: &[u8]) -> (SocketAddr, SocketAddr, Vec<u8>) {
        let mut pseudo = Vec::new();
        let (src, dst, udp): (std::net::IpAddr, std::net::IpAddr, &[u8]) = match eth[12..14] {
            [8, 0] => {
                let ip = &eth[14..34];
                assert_eq!(ip[..2], [0x45, 0x10]);
                assert_eq!(usize::from(u16::from_be_bytes([ip[2], ip[3]])), eth.len() - 14);
                assert_eq!(ip[4..10], [0, 0, 0x40, 0, 64, 17]);
                assert_eq!(sum(0, ip), 0xffff, "IPv4 checksum");
                pseudo.extend_from_slice(&ip[12..20]);
                let addr = |at: usize| <[u8; 4]>::try_from(&ip[at..at + 4]).unwrap().into();
                (addr(12), addr(16), &eth[34..])
            }
            [0x86, 0xdd] => {
                let ip = &eth[14..54];
                assert_eq!(ip[..4], [0x60, 0, 0, 0]);
                assert_eq!(usize::from(u16::from_be_bytes([ip[4], ip[5]])), eth.len() - 54);
                assert_eq!(ip[6..8], [17, 64]);
                pseudo.extend_from_slice(&ip[8..40]);
                let addr = |at: usize| <[u8; 16]>::try_from(&ip[at..at + 16]).unwrap().into();
                (addr(8), addr(24), &eth[54..])
            }
            _ => panic!("ethertype {:x?}", &eth[12..14]),
        };
        assert_eq!(usize::from(u16::from_be_bytes([udp[4], udp[5]])), udp.len());
        assert_ne!(udp[6..8], [0, 0], "UDP checksum is there");
        pseudo.extend_from_slice(&[0, 17, udp[4], udp[5]]);
        pseudo.extend_from_slice(udp);
        assert_eq!(sum(0, &pseudo), 0xffff, "UDP checksum");
        let port = |at: usize| u16::from_be_bytes([udp[at], udp[at + 1]]);
        ((src, port(0)).into(), (dst, port(2)).into(), udp[8..].to_vec())
    }

    pub fn headers(src: &str, dst: &str) -> Headers {
        Headers {
            src_mac: Mac([2, 0, 0, 0, 0, 1]),
            dst_mac: Mac::BROADCAST,
            src: src.parse().unwrap(),
            dst: dst.parse().unwrap(),
        }
    }

    #[test]
    fn texts_have_the_length_of_the_contract() {
        assert_eq!(Payload::Direct.text().len(), 70);
        assert!(Payload::Indirect.text().contains("indirect payload\n"));
    }

    #[test]
    fn frames_of_every_size_are_correct() {
        for (src, dst, min) in
            [("10.0.0.1:1234", "10.1.0.1:1234", 42), ("[fd00::1]:1", "[fd00::2]:65535", 62)]
        {
            let headers = headers(src, dst);
            for size in (min..400).chain([1513, 1514, 9000, 65535, 65536]) {
                let frame = Frame::new(&headers, size, 0, Payload::Direct);
                let (got_src, got_dst, payload) = verify(frame.bytes());
                assert_eq!((got_src, got_dst), (headers.src, headers.dst));
                let text: Vec<u8> = Payload::Direct.text().bytes().cycle().take(size - min).collect();
                assert_eq!(payload, text);
            }
        }
    }

    #[test]
    fn tiny_frames_are_cut_headers() {
        let full = Frame::new(&headers("10.0.0.1:1", "10.1.0.1:2"), 42, 0, Payload::Direct);
        for size in 16..42 {
            let frame = Frame::new(&headers("10.0.0.1:1", "10.1.0.1:2"), size, 0, Payload::Direct);
            assert_eq!(frame.bytes(), &full.bytes()[..size]);
        }
    }

    #[test]
    fn a_virtio_header_is_zeros_in_front() {
        let plain = Frame::new(&headers("10.0.0.1:1", "10.1.0.1:2"), 60, 0, Payload::Direct);
        let mut frame = Frame::new(&headers("10.0.0.1:1", "10.1.0.1:2"), 60, 12, Payload::Direct);
        assert_eq!(frame.wire_len(), 72);
        assert_eq!(frame.bytes()[..12], [0; 12]);
        assert_eq!(&frame.bytes()[12..], plain.bytes());
        frame.set_sequence(7);
        verify(&frame.bytes()[12..]);
        assert_eq!(frame.payload_offset(), 54);
    }

    #[test]
    fn resizing_and_sequences_keep_the_checksums() {
        for src in ["10.0.0.1:1234", "[fd00::1]:1234"] {
            let mut frame = Frame::new(&headers(src, src), 200, 0, Payload::Direct);
            for size in (66..=200).rev() {
                frame.set_size(size);
                frame.set_sequence(0xfffe_0000 + size as u32);
                let (.., payload) = verify(frame.bytes());
                assert_eq!(payload[..4], (0xfffe_0000 + size as u32).to_be_bytes());
                assert_eq!(frame.size(), size);
            }
        }
        // A sequence that the end of the frame cuts.
        for size in 42..47 {
            let mut frame = Frame::new(&headers("1.2.3.4:5", "5.6.7.8:9"), size, 0, Payload::Direct);
            frame.set_sequence(0x0102_0304);
            let (.., payload) = verify(frame.bytes());
            assert!(payload.iter().take(4).eq([1, 2, 3, 4].iter().take(size - 42)));
        }
    }

    #[test]
    fn foreign_frames_are_left_alone() {
        let data: Vec<u8> = (0..100).collect();
        let mut frame = Frame::from_bytes(&data, 10);
        frame.set_sequence(1);
        frame.set_size(50);
        assert_eq!(&frame.bytes()[10..], &data[..]);
        assert_eq!(frame.cut(20).len(), 30);
    }
}
