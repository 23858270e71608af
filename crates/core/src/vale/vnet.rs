//! Packets between ports whose virtio-net headers have different lengths: headers made, cut and lengthened; checksums and segmentation
//! done where the receiver takes no header.
//!
//! [`plan`] looks at a packet once, copies what it decides upon (headers) into private memory, and says how many slots the receiver needs;
//! [`Plan::write`] then fills them. The sender may be hostile and change its buffers meanwhile: payload is read once, and
//! neither a length nor an offset is read again.
//!
//! Source: semantics.md 17; header: virtio 1.2, 5.1.6. Unlike netmap, nothing is written behind the end of a receiver's buffer:
//! a packet that does not fit with the header put before it is dropped.

use super::far::Open;
use super::sum::{Sum, copy_summed};
use crate::stats::Drop;
use ringway_abi::ring::NS_MOREFRAG;
use ringway_os::bytes::{Bufs, Payload};
use ringway_os::ring::SlotWord;
use std::sync::atomic::Ordering::Relaxed;

/// The longest virtio-net header.
const MAX_HDR_BYTES: usize = 12;
/// The shorter one, which the longer one begins with.
const MIN_HDR_BYTES: usize = 10;
/// `flags`: a checksum is to be computed.
const F_NEEDS_CSUM: u8 = 1;
/// `flags`: the checksum has been checked.
const F_DATA_VALID: u8 = 2;
/// `gso_type`.
const GSO_NONE: u8 = 0;
const GSO_TCPV4: u8 = 1;
const GSO_UDP: u8 = 3;
const GSO_TCPV6: u8 = 4;
/// Bit of `gso_type` that says nothing of how to segment.
const GSO_ECN: u8 = 0x80;

const ETH_HEADER_BYTES: usize = 14;
const VLAN_TAG_BYTES: usize = 4;
const ETHERTYPE_VLAN: u16 = 0x8100;
const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;
const PROTO_TCP: u8 = 6;
const PROTO_UDP: u8 = 17;
const IPV4_MIN_BYTES: usize = 20;
const IPV6_BYTES: usize = 40;
const TCP_MIN_BYTES: usize = 20;
const UDP_BYTES: usize = 8;
const TCP_FIN: u8 = 0x01;
const TCP_PSH: u8 = 0x08;

/// What the two ports expect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Vnet {
    /// Bytes of the sender's header.
    pub own: u16,
    /// Bytes of the receiver's.
    pub theirs: u16,
    /// Bytes of the longest frame that the receiver takes of a segmented packet.
    pub mfs: u32,
}

/// The slots of a packet at the sender: lengths as they were taken in, which fit the buffers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Parts<'a> {
    pub bufs: &'a Bufs,
    pub words: &'a [SlotWord],
    /// Where the bytes of each begin; those that are missing begin at the start of their buffers.
    pub starts: &'a [Start],
}

/// Where the bytes of a slot begin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Start {
    /// In its buffer. Length and offset fit.
    pub ofs: u32,
    /// They go to the receiver's own offset, whatever their alignment: they came from an address of the program.
    pub exact: bool,
}

impl<'a> Parts<'a> {
    /// The bytes of slot `i`; none of a bad one.
    pub fn get(&self, i: usize) -> Option<Payload<'a>> {
        let word = self.words.get(i)?;
        Some(self.bufs.payload(word.buf_idx())?.slice(self.start(i).ofs as usize, word.len().into()))
    }

    pub fn start(&self, i: usize) -> Start {
        self.starts.get(i).copied().unwrap_or_default()
    }

    fn len(&self, i: usize) -> usize {
        self.words.get(i).map_or(0, |w| w.len().into())
    }
}

/// How one packet comes into the receiver's ring.
#[derive(Debug)]
pub(super) enum Plan {
    /// Slot by slot, with another header.
    Slots {
        /// The first slot that is copied: 1 if slot 0 had nothing but the header.
        first: usize,
        /// Bytes left out at its start.
        cut: usize,
        /// The header put there instead.
        header: [u8; MAX_HDR_BYTES],
        /// Its bytes.
        header_bytes: usize,
        /// A checksum to compute: where it begins, and where it is stored, in bytes from the start of the frame.
        csum: Option<(usize, usize)>,
        /// Slots in all.
        slots: u32,
    },
    /// As frames of one slot each.
    Segments(Segments),
}

/// A packet that becomes several frames. Their headers are in the caller's buffer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Segments {
    layers: Layers,
    /// Where the payload begins: slot, and bytes from its start.
    first: usize,
    ofs: usize,
    /// Bytes of payload.
    payload: usize,
    /// Of these, in each frame but the last.
    per_frame: usize,
}

/// Where the headers of a frame begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Layers {
    is_ipv6: bool,
    is_tcp: bool,
    l3: usize,
    l4: usize,
    /// Bytes of all headers.
    end: usize,
}

/// Looks at a packet. `headers` becomes a copy of its headers, if it is to be segmented. `buf_size` is that of the receiver's buffers.
///
/// # Errors
/// Why it cannot be delivered to this receiver.
pub(super) fn plan(vnet: Vnet, parts: Parts<'_>, buf_size: u32, headers: &mut Vec<u8>) -> Result<Plan, Drop> {
    let (own, theirs) = (usize::from(vnet.own), usize::from(vnet.theirs));
    let buf_size = (buf_size as usize).min(u16::MAX.into());
    let mut header = [0; MAX_HDR_BYTES];
    let known = own.min(MAX_HDR_BYTES);
    let got = parts.get(0).map_or(0, |p| p.copy_to(&mut header[..known]));
    if got < own {
        return Err(Drop::Short);
    }
    let mut csum = None;
    if theirs == 0 {
        let (flags, gso_type) = (header[0], header[1]);
        let gso = gso_type & !GSO_ECN;
        let known_gso = matches!(gso, GSO_NONE | GSO_TCPV4 | GSO_UDP | GSO_TCPV6);
        if flags & !(F_NEEDS_CSUM | F_DATA_VALID) != 0 || !known_gso {
            return Err(Drop::BadHeader);
        }
        if gso_type != GSO_NONE {
            // GSO_ECN alone is not GSO_NONE: it goes the way of TCP.
            let frame_bytes = buf_size.min(vnet.mfs as usize);
            return segments(own, parts, gso != GSO_UDP, frame_bytes, headers).map(Plan::Segments);
        }
        let field = |at: usize| usize::from(u16::from_ne_bytes([header[at], header[at + 1]]));
        csum = (flags & F_NEEDS_CSUM != 0).then(|| (field(6), field(6) + field(8)));
    } else {
        // What the shorter header lacks is 0.
        header[own.min(MIN_HDR_BYTES)..].fill(0);
    }
    let first = usize::from(theirs == 0 && parts.len(0) == own && parts.words.len() > 1);
    let cut = if first == 1 { 0 } else { own };
    let first_len = parts.len(first) - cut;
    // What the first slot does not hold is not stored.
    let csum = csum.filter(|(_, field)| field + 2 <= first_len);
    let fits = |i: usize| parts.len(i) <= buf_size;
    if theirs + first_len > buf_size || !(first + 1..parts.words.len()).all(fits) {
        return Err(Drop::BadSlot);
    }
    let slots = (parts.words.len() - first) as u32;
    Ok(Plan::Slots { first, cut, header, header_bytes: theirs, csum, slots })
}

/// Finds the headers of a packet that is to be segmented, and cuts its payload.
fn segments(
    own: usize,
    parts: Parts<'_>,
    is_tcp: bool,
    frame_bytes: usize,
    headers: &mut Vec<u8>,
) -> Result<Segments, Drop> {
    let first = usize::from(parts.len(0) == own);
    let cut = if first == 1 { 0 } else { own };
    let frame = parts.get(first).map(|p| p.slice(cut, usize::MAX)).ok_or(Drop::BadHeader)?;
    let layers = layers(&frame, is_tcp).ok_or(Drop::BadHeader)?;
    // Once as they are, and once to be changed for each frame.
    headers.resize(2 * layers.end, 0);
    frame.copy_to(&mut headers[..layers.end]);
    let behind: usize = (first + 1..parts.words.len()).map(|i| parts.len(i)).sum();
    let payload = frame.len() - layers.end + behind;
    let per_frame = frame_bytes.saturating_sub(layers.end);
    if payload == 0 || per_frame == 0 {
        return Err(Drop::BadHeader);
    }
    Ok(Segments { layers, first, ofs: cut + layers.end, payload, per_frame })
}

/// Where the headers of a frame lie: Ethernet, 802.1Q tags, IPv4 or IPv6, TCP or UDP. None if it is anything else, or too short.
fn layers(frame: &Payload<'_>, is_tcp: bool) -> Option<Layers> {
    let u16_at = |at: usize| frame.load_u16(at).map(u16::from_be);
    let mut l3 = ETH_HEADER_BYTES;
    let mut ethertype = u16_at(l3 - 2)?;
    while ethertype == ETHERTYPE_VLAN {
        l3 += VLAN_TAG_BYTES;
        ethertype = u16_at(l3 - 2)?;
    }
    let is_ipv6 = match ethertype {
        ETHERTYPE_IPV4 => false,
        ETHERTYPE_IPV6 => true,
        _ => return None,
    };
    // RFC 791 3.1, RFC 8200 3. Extension headers are not looked behind.
    let (l3_bytes, proto) = if is_ipv6 {
        (IPV6_BYTES, frame.load_u8(l3 + 6)?)
    } else {
        (usize::from(frame.load_u8(l3)? & 0x0f) * 4, frame.load_u8(l3 + 9)?)
    };
    let l4 = l3 + l3_bytes;
    // RFC 9293 3.1, RFC 768.
    let l4_bytes = if is_tcp { usize::from(frame.load_u8(l4 + 12)? >> 4) * 4 } else { UDP_BYTES };
    let end = l4 + l4_bytes;
    let long_enough = l3_bytes >= IPV4_MIN_BYTES && (!is_tcp || l4_bytes >= TCP_MIN_BYTES);
    let fits = long_enough && end <= frame.len() && proto == if is_tcp { PROTO_TCP } else { PROTO_UDP };
    fits.then_some(Layers { is_ipv6, is_tcp, l3, l4, end })
}

impl Plan {
    /// Slots that the receiver needs.
    pub fn slots(&self) -> u32 {
        match self {
            Plan::Slots { slots, .. } => *slots,
            Plan::Segments(s) => u32::try_from(s.payload.div_ceil(s.per_frame)).unwrap_or(u32::MAX),
        }
    }

    /// Packets that the receiver gets.
    pub fn packets(&self) -> u32 {
        match self {
            Plan::Slots { .. } => 1,
            Plan::Segments(_) => self.slots(),
        }
    }

    /// Fills the receiver's slots; there is room.
    pub fn write(&self, parts: Parts<'_>, headers: &mut [u8], open: &mut Open<'_>) {
        match self {
            Plan::Segments(s) => s.write(parts, headers, open),
            Plan::Slots { first, cut, header, header_bytes, csum, slots } => {
                let mut sum = Sum::default();
                let mut field = None;
                for i in *first..parts.words.len() {
                    let is_first = i == *first;
                    let (cut, before) = if is_first { (*cut, *header_bytes) } else { (0, 0) };
                    let len = parts.len(i) - cut;
                    let more = if i + 1 < parts.words.len() { u32::from(NS_MOREFRAG) } else { 0 };
                    let Some(to) = next_slot(open, before + len, (slots << 8) | more) else { continue };
                    to.copy_from(&header[..before]);
                    let Some(from) = parts.get(i).map(|p| p.slice(cut, len)) else { continue };
                    let to = to.slice(before, len);
                    let Some((start, at)) = *csum else {
                        to.copy_payload(&from);
                        continue;
                    };
                    // Both lie in the first slot.
                    let start = if is_first { start } else { 0 };
                    to.slice(0, start).copy_payload(&from);
                    copy_summed(&from.slice(start, len), &to.slice(start, len), &mut sum);
                    if is_first {
                        field = Some(to.slice(at, 2));
                    }
                }
                if let Some(field) = field {
                    field.store_u16(0, sum.checksum_not_0().to_be());
                }
            }
        }
    }
}

impl Segments {
    fn write(&self, parts: Parts<'_>, headers: &mut [u8], open: &mut Open<'_>) {
        let end = self.layers.end;
        let (template, own) = headers.split_at_mut(end);
        let (mut slot, mut ofs) = (self.first, self.ofs);
        let (mut sent, mut index) = (0, 0);
        while sent < self.payload {
            let bytes = self.per_frame.min(self.payload - sent);
            let to = next_slot(open, end + bytes, 0);
            let mut sum = Sum::default();
            let mut done = 0;
            while done < bytes {
                let n = (bytes - done).min(parts.len(slot) - ofs);
                if let (Some(to), Some(from)) = (&to, parts.get(slot)) {
                    copy_summed(&from.slice(ofs, n), &to.slice(end + done, n), &mut sum);
                }
                (done, ofs) = (done + n, ofs + n);
                if ofs == parts.len(slot) {
                    (slot, ofs) = (slot + 1, 0);
                }
            }
            if let Some(to) = to {
                own.copy_from_slice(template);
                let is_last = sent + bytes == self.payload;
                self.layers.set(own, &Frame { index, sent: sent as u32, bytes, is_last }, sum);
                to.copy_from(own);
            }
            sent += bytes;
            index += 1;
        }
    }
}

/// One of the frames of a segmented packet.
#[derive(Clone, Copy, Debug)]
struct Frame {
    index: u16,
    /// Payload in those before.
    sent: u32,
    /// Payload.
    bytes: usize,
    is_last: bool,
}

impl Layers {
    /// Makes `headers`, which are the packet's, those of one frame, whose payload sums up to `payload`.
    fn set(&self, headers: &mut [u8], frame: &Frame, payload: Sum) {
        let l4_bytes = self.end - self.l4 + frame.bytes;
        let (_, l3_on) = headers.split_at_mut(self.l3);
        let (ip, l4) = l3_on.split_at_mut(self.l4 - self.l3);
        // RFC 9293 3.1, RFC 768, RFC 8200 8.1: the sum goes over addresses, length, protocol, L4 header and payload. All but the
        // last have an even number of bytes, so each may be summed by itself.
        let mut sum = payload.and_apart();
        if self.is_ipv6 {
            put_u16(ip, 4, l4_bytes as u16);
            sum.add(&ip[8..IPV6_BYTES]);
        } else {
            let (total, ident) = (ip.len() + l4_bytes, get_u16(ip, 4));
            put_u16(ip, 2, total as u16);
            put_u16(ip, 4, ident.wrapping_add(frame.index));
            put_u16(ip, 10, 0);
            let mut own = Sum::default();
            own.add(ip);
            put_u16(ip, 10, own.checksum());
            sum.add(&ip[12..IPV4_MIN_BYTES]);
        }
        sum.add(&(l4_bytes as u32).to_be_bytes());
        sum.add(&[0, if self.is_tcp { PROTO_TCP } else { PROTO_UDP }]);
        if self.is_tcp {
            let seq = u32::from_be_bytes([l4[4], l4[5], l4[6], l4[7]]).wrapping_add(frame.sent);
            l4[4..8].copy_from_slice(&seq.to_be_bytes());
            if !frame.is_last {
                l4[13] &= !(TCP_FIN | TCP_PSH);
            }
            put_u16(l4, 16, 0);
            sum.add(l4);
            put_u16(l4, 16, sum.checksum());
        } else {
            put_u16(l4, 4, l4_bytes as u16);
            put_u16(l4, 6, 0);
            sum.add(l4);
            put_u16(l4, 6, sum.checksum_not_0());
        }
    }
}

fn get_u16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn put_u16(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

/// Takes the receiver's next slot, with that length and those flags. None if its buffer is none: then it is an empty slot.
fn next_slot<'o>(open: &mut Open<'o>, len: usize, flags: u32) -> Option<Payload<'o>> {
    let (peer, ring) = (open.peer, open.ring);
    let tail = open.tail as usize;
    let (d, m) = (ring.shared.desc.get(tail)?, ring.shared.mirror.get(tail)?);
    let to = peer.bufs.payload(m.load(Relaxed)).filter(|p| p.len() >= len);
    let len = if to.is_some() { len as u32 } else { 0 };
    d.store(len | flags << 16, Relaxed);
    if open.offsets.is_on() {
        // Packets that are converted begin at the start of the receiver's buffers (semantics.md 17), and its slots say so.
        ring.shared.known.get(2 * tail)?.store(0, Relaxed);
    }
    open.push();
    to
}
