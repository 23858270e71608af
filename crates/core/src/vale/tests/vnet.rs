//! Ports with virtio-net headers of different lengths (semantics.md 17). The oracle reads frames byte by byte.

use super::*;
use crate::sim::packets;
use proptest::prelude::*;

const BUF: u32 = 2112;
const MFS: usize = 1514;

/// Two ports: one that sends with a header of `own` bytes, one that receives with `theirs`.
fn pair(own: u32, theirs: u32) -> [Member; 2] {
    let switch = SimSwitch::default();
    let m = [0, 1].map(|i| switch.attach(i, &geometry(1, 256), BUF));
    m[0].set_hdr_len(own);
    m[1].set_hdr_len(theirs);
    m
}

/// A virtio-net header of `len` bytes.
fn header(len: u32, flags: u8, gso_type: u8, csum_start: u16, csum_offset: u16) -> Vec<u8> {
    let mut h = vec![flags, gso_type, 0xaa, 0xaa, 0xbb, 0xbb];
    h.extend(csum_start.to_ne_bytes());
    h.extend(csum_offset.to_ne_bytes());
    h.extend([0xcc, 0xcc]);
    h.truncate(len as usize);
    h
}

fn send(m: &mut [Member; 2], parts: &[Vec<u8>]) -> Vec<Vec<Frame>> {
    assert!(m[0].port.tx[0].put_packet(parts, 0));
    assert_eq!(m[0].txsync(0), SyncOutcome::Done);
    let got = packets(&m[1].receive(0));
    check(m);
    got
}

fn bytes(packet: &[Frame]) -> Vec<Vec<u8>> {
    packet.iter().map(|f| f.bytes.clone()).collect()
}

/// The sum of 16-bit words as RFC 1071 tells it: 0xffff over data with its right checksum in place.
fn ones_sum(bytes: &[u8]) -> u16 {
    let mut sum = 0u32;
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

#[test]
fn s17_headers_are_made_lengthened_and_cut() {
    let data = |n: usize| -> Vec<u8> { (0..n).map(|i| i as u8).collect() };
    let f = [frame(1, 0, 7), data(500)].concat();
    let h = |len| header(len, 1, 0x55, 34, 16); // Opaque to both sides.
    for (own, theirs, want) in [
        (0, 10, vec![0; 10]),
        (0, 12, vec![0; 12]),
        (10, 12, [h(10), vec![0; 2]].concat()),
        (12, 10, h(10)),
        (12, 0, vec![]),
        (10, 0, vec![]),
    ] {
        let mut m = pair(own, theirs);
        let own_header = if theirs == 0 { header(own, 2, 0, 0, 0) } else { h(own) };
        let whole = send(&mut m, &[[own_header.clone(), f.clone()].concat()]);
        assert_eq!(whole.len(), 1);
        assert_eq!(bytes(&whole[0]), [[want.clone(), f.clone()].concat()], "{own} to {theirs}");
        assert_eq!(whole[0][0].flags, 0x0100);
        // Several slots stay what they are.
        let (a, b) = f.split_at(100);
        let several = send(&mut m, &[[own_header.clone(), a.to_vec()].concat(), vec![], b.to_vec()]);
        assert_eq!(bytes(&several[0]), [[want.clone(), a.to_vec()].concat(), vec![], b.to_vec()]);
        let more = NS_MOREFRAG;
        assert_eq!(
            several[0].iter().map(|f| f.flags).collect::<Vec<_>>(),
            [0x300 | more, 0x300 | more, 0x300]
        );
        // The header in a slot of its own.
        let alone = send(&mut m, &[own_header, f.clone()]);
        let want = if theirs == 0 { vec![f.clone()] } else { vec![want, f.clone()] };
        assert_eq!(bytes(&alone[0]), want, "{own} to {theirs}");
        assert_eq!(alone[0].last().unwrap().flags, (want.len() as u16) << 8);
        assert_eq!(drops(&m[0]).all_drops(), 0);
    }
}

#[test]
fn s17_a_header_before_a_full_buffer_is_not_written_behind_its_end() {
    let switch = SimSwitch::default();
    let mut m = [(0, 256), (1, 256)].map(|(i, size)| switch.attach(i, &geometry(1, 64), size));
    m[1].set_hdr_len(12);
    for (len, fits) in [(243, true), (244, true), (245, false), (256, false)] {
        let mut f = frame(1, 0, len);
        f.resize(len as usize, 9);
        assert_eq!(send(&mut m, &[f]).len(), usize::from(fits), "{len} bytes");
    }
    assert_eq!(drops(&m[0]).dropped(Drop::BadSlot), 2);
}

#[test]
fn s17_headers_that_cannot_be_served_are_counted_drops() {
    let f = Shape::default().packet();
    let with = |flags, gso| [header(12, flags, gso, 0, 0), f.clone()].concat();
    let mut m = pair(12, 0);
    for (flags, gso) in [(4, 0), (0x80, 0), (7, 1), (0, 2), (0, 5), (0, 0x82), (0, 0x7f), (0, 8)] {
        assert!(send(&mut m, &[with(flags, gso)]).is_empty(), "flags {flags} gso {gso}");
    }
    assert_eq!(drops(&m[0]).dropped(Drop::BadHeader), 8);
    // Without the header these bytes are nobody's business.
    let mut m = pair(12, 10);
    assert_eq!(send(&mut m, &[with(0xff, 0xff)]).len(), 1);
}

#[test]
fn s17_what_is_no_tcp_or_udp_packet_cannot_be_segmented() {
    let good = Shape { payload: 3000, ..Shape::default() };
    let reject = |gso: u8, f: Vec<u8>, why: &str| {
        let mut m = pair(12, 0);
        let parts: Vec<Vec<u8>> =
            [header(12, 1, gso, 0, 0), f].concat().chunks(BUF as usize).map(<[u8]>::to_vec).collect();
        assert!(send(&mut m, &parts).is_empty(), "{why}");
        assert_eq!(drops(&m[0]).dropped(Drop::BadHeader), 1, "{why}");
    };
    let patched = |s: &Shape, at: usize, value: u8| {
        let mut f = s.packet();
        f[at] = value;
        f
    };
    reject(1, patched(&good, 12, 0x09), "an ethertype that is not IP");
    reject(1, patched(&good, 14, 0x44), "an IPv4 header of 16 bytes");
    reject(1, patched(&good, 23, 17), "UDP segmented as TCP");
    reject(3, good.packet(), "TCP segmented as UDP");
    reject(1, patched(&good, 46, 0x40), "a TCP header of 16 bytes");
    reject(4, patched(&Shape { ipv6: true, ..good }, 20, 44), "an IPv6 extension header");
    reject(1, Shape { payload: 0, ..good }.packet(), "no payload");
    reject(1, good.packet()[..50].to_vec(), "a cut TCP header");
    reject(1, [patched(&good, 12, 0x81)[..14].to_vec(), [0x81, 0].repeat(40)].concat(), "nothing but tags");
    reject(1, Shape { vlans: 380, ..good }.packet(), "headers that leave no room in a frame");
}

#[test]
fn s17_segments_without_room_are_dropped_whole() {
    let switch = SimSwitch::default();
    let mut m = [(0, 256), (1, 8)].map(|(i, n)| switch.attach(i, &geometry(1, n), BUF));
    m[0].set_hdr_len(12);
    let packet = |payload| {
        let f = [header(12, 1, 1, 0, 0), Shape { payload, ..Shape::default() }.packet()].concat();
        f.chunks(BUF as usize).map(<[u8]>::to_vec).collect::<Vec<_>>()
    };
    let per_frame = MFS - 54;
    for (segments, delivered) in [(7, 7), (8, 0), (60, 0), (1, 1)] {
        assert_eq!(send(&mut m, &packet(segments * per_frame)).len(), delivered, "{segments} segments");
    }
    // What follows a packet that found no room shares its fate; what came before does not.
    for n in [5, 3, 1] {
        assert!(m[0].port.tx[0].put_packet(&packet(n * per_frame), 0));
    }
    m[0].txsync(0);
    assert_eq!(m[1].receive(0).len(), 5);
    let c = drops(&m[0]);
    assert_eq!((c.dropped(Drop::ReceiverFull), c.delivered, c.packets), (4, 13, 7));
    check(&m);
}

#[test]
fn s17_a_port_that_once_had_a_header_takes_frames_as_long_as_its_buffers() {
    let mut m = pair(12, 10);
    m[1].set_hdr_len(0);
    let f = [header(12, 1, 1, 0, 0), Shape { payload: 4000, ..Shape::default() }.packet()].concat();
    let parts: Vec<Vec<u8>> = f.chunks(BUF as usize).map(<[u8]>::to_vec).collect();
    let lens: Vec<usize> = send(&mut m, &parts).iter().map(|p| p[0].bytes.len()).collect();
    assert_eq!(lens, [2112, 54 + 4000 - 2058]);
}

#[test]
fn s17_a_flood_reaches_each_port_with_its_own_header() {
    let switch = SimSwitch::default();
    let mut m = [0, 1, 2, 3, 4].map(|i| switch.attach(i, &geometry(1, 64), BUF));
    for (i, len) in [(0, 12), (1, 0), (2, 10), (3, 12), (4, 0)] {
        m[i].set_hdr_len(len);
    }
    let mut shape = Shape { payload: 3000, ..Shape::default() };
    shape.dst = BROADCAST;
    let h = header(12, 1, 1, 34, 16);
    let f = [h.clone(), shape.packet()].concat();
    let parts: Vec<Vec<u8>> = f.chunks(BUF as usize).map(<[u8]>::to_vec).collect();
    m[0].port.tx[0].put_packet(&parts, 0);
    m[0].txsync(0);
    for (i, len) in [(1, 0), (4, 0), (2, 10), (3, 12)] {
        let got = packets(&m[i].receive(0));
        if len == 0 {
            shape.check(&got, MFS);
        } else {
            assert_eq!(got.len(), 1);
            assert_eq!(bytes(&got[0]).concat(), [&h[..len], &f[12..]].concat());
        }
    }
    check(&m);
}

#[test]
fn s17_a_frame_without_a_header_reaches_its_receiver_in_the_fast_path_s_order() {
    let mut m = pair(0, 12);
    for i in 0..200 {
        m[0].port.tx[0].put(&frame(1, 0, i), 0);
    }
    m[0].txsync(0);
    let got: Vec<Vec<u8>> = m[1].receive(0).into_iter().map(|f| f.bytes).collect();
    let want: Vec<Vec<u8>> = (0..200).map(|i| [vec![0; 12], frame(1, 0, i)].concat()).collect();
    assert_eq!(got, want);
    check(&m);
}

/// A packet to be segmented.
#[derive(Clone, Copy, Debug)]
struct Shape {
    dst: u8,
    vlans: usize,
    ipv6: bool,
    udp: bool,
    /// In units of 4 bytes.
    ip_options: usize,
    tcp_options: usize,
    payload: usize,
    ident: u16,
    seq: u32,
    flags: u8,
}

impl Default for Shape {
    fn default() -> Self {
        Shape {
            dst: 1,
            vlans: 0,
            ipv6: false,
            udp: false,
            ip_options: 0,
            tcp_options: 0,
            payload: 100,
            ident: 7,
            seq: 1000,
            flags: 0x18,
        }
    }
}

impl Shape {
    fn l3(&self) -> usize {
        14 + 4 * self.vlans
    }

    fn l4(&self) -> usize {
        self.l3() + if self.ipv6 { 40 } else { 20 + 4 * self.ip_options }
    }

    fn headers(&self) -> usize {
        self.l4() + if self.udp { 8 } else { 20 + 4 * self.tcp_options }
    }

    fn data(&self) -> Vec<u8> {
        (0..self.payload).map(|i| (i * 31 + i / 251) as u8).collect()
    }

    fn packet(&self) -> Vec<u8> {
        let mut f = [mac(self.dst), mac(0)].concat();
        for tag in 0..self.vlans {
            f.extend([0x81, 0, 0, tag as u8]);
        }
        let proto = if self.udp { 17 } else { 6 };
        if self.ipv6 {
            f.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 0, proto, 64]);
            f.extend(1..33);
        } else {
            f.extend([8, 0, 0x45 + self.ip_options as u8, 0, 0, 0]);
            f.extend(self.ident.to_be_bytes());
            f.extend([0x40, 0, 64, proto, 0xde, 0xad, 10, 0, 0, 1, 10, 0, 0, 2]);
            f.extend(vec![1; 4 * self.ip_options]);
        }
        f.extend([0x12, 0x34, 0x56, 0x78]);
        if self.udp {
            f.extend([0xff, 0xff, 0xbe, 0xef]);
        } else {
            f.extend(self.seq.to_be_bytes());
            f.extend([0, 0, 0, 9, (5 + self.tcp_options as u8) << 4, self.flags, 1, 2, 0xbe, 0xef, 0, 0]);
            f.extend(vec![1; 4 * self.tcp_options]);
        }
        assert_eq!(f.len(), self.headers());
        f.extend(self.data());
        f
    }

    /// Takes the frames apart and puts the payload together again.
    fn check(&self, got: &[Vec<Frame>], mfs: usize) {
        let original = self.packet();
        let (l3, l4, end) = (self.l3(), self.l4(), self.headers());
        let per_frame = mfs - end;
        assert_eq!(got.len(), self.payload.div_ceil(per_frame));
        let be16 = |f: &[u8], at: usize| u16::from_be_bytes([f[at], f[at + 1]]);
        let mut payload: Vec<u8> = vec![];
        for (i, packet) in got.iter().enumerate() {
            assert_eq!((packet.len(), packet[0].flags), (1, 0), "a segment is one slot without flags");
            let f = &packet[0].bytes;
            let last = i + 1 == got.len();
            assert_eq!(f.len(), if last { end + self.payload - payload.len() } else { mfs });
            let mut want = original[..end].to_vec();
            // The fields that a segment has for itself, then everything else as it was.
            let mut pseudo = vec![];
            if self.ipv6 {
                want[l3 + 4..l3 + 6].copy_from_slice(&((f.len() - l4) as u16).to_be_bytes());
                pseudo.extend(&f[l3 + 8..l3 + 40]);
            } else {
                want[l3 + 2..l3 + 4].copy_from_slice(&((f.len() - l3) as u16).to_be_bytes());
                want[l3 + 4..l3 + 6].copy_from_slice(&self.ident.wrapping_add(i as u16).to_be_bytes());
                want[l3 + 10..l3 + 12].copy_from_slice(&f[l3 + 10..l3 + 12]);
                assert_eq!(ones_sum(&f[l3..l4]), 0xffff, "IPv4 header checksum");
                pseudo.extend(&f[l3 + 12..l3 + 20]);
            }
            pseudo.extend([0, if self.udp { 17 } else { 6 }]);
            pseudo.extend(((f.len() - l4) as u16).to_be_bytes());
            pseudo.extend(&f[l4..]);
            assert_eq!(ones_sum(&pseudo), 0xffff, "checksum of segment {i}");
            if self.udp {
                want[l4 + 4..l4 + 6].copy_from_slice(&((f.len() - l4) as u16).to_be_bytes());
                want[l4 + 6..l4 + 8].copy_from_slice(&f[l4 + 6..l4 + 8]);
                assert_ne!(be16(f, l4 + 6), 0);
            } else {
                let seq = self.seq.wrapping_add(payload.len() as u32);
                want[l4 + 4..l4 + 8].copy_from_slice(&seq.to_be_bytes());
                want[l4 + 13] = if last { self.flags } else { self.flags & !9 };
                want[l4 + 16..l4 + 18].copy_from_slice(&f[l4 + 16..l4 + 18]);
            }
            assert_eq!(f[..end], want, "headers of segment {i}");
            payload.extend(&f[end..]);
        }
        assert_eq!(payload, self.data());
    }
}

prop_compose! {
    fn shape()(
        vlans in prop_oneof![4 => Just(0usize), 2 => 1..4usize, 1 => 30..60usize],
        ipv6: bool, udp: bool,
        ip_options in 0..11usize, tcp_options in 0..11usize,
        payload in prop_oneof![1..200usize, 1400..1600usize, 1..9000usize, 9000..60_000usize],
        ident: u16, seq: u32, flags: u8,
    ) -> Shape {
        Shape { dst: 1, vlans, ipv6, udp, ip_options, tcp_options, payload, ident, seq, flags }
    }
}

/// Cuts a packet into slots behind its headers; `alone`: the virtio-net header has a slot of its own.
fn cut(header: Vec<u8>, frame: &[u8], headers: usize, alone: bool, sizes: &[usize]) -> Vec<Vec<u8>> {
    let mut parts = if alone { vec![header, vec![]] } else { vec![header] };
    let mut rest = frame;
    let mut sizes = sizes.iter().cycle();
    let first = (headers + sizes.next().unwrap()).min(BUF as usize - 12).min(frame.len());
    parts.last_mut().unwrap().extend(&frame[..first]);
    rest = &rest[first..];
    while !rest.is_empty() {
        let left = 64 - parts.len();
        // Not more than 64 slots in all.
        let least = rest.len().div_ceil(left);
        let n = (*sizes.next().unwrap()).max(least).min(rest.len()).min(BUF as usize);
        parts.push(rest[..n].to_vec());
        rest = &rest[n..];
    }
    parts
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn s17_segments_put_together_are_the_packet(
        shape in shape(), long: bool, alone: bool, ecn: bool,
        sizes in prop::collection::vec(prop_oneof![Just(0usize), 1..70usize, 1000..2112usize], 1..20),
    ) {
        let own = if long { 12 } else { 10 };
        let mut m = pair(own, 0);
        let gso = if shape.udp { 3 } else if shape.ipv6 { 4 } else { 1 } | if ecn { 0x80 } else { 0 };
        let parts = cut(header(own, 1, gso, 0, 0), &shape.packet(), shape.headers(), alone, &sizes);
        let got = send(&mut m, &parts);
        shape.check(&got, MFS);
        let c = drops(&m[0]);
        prop_assert_eq!((c.packets, c.delivered, c.all_drops()), (1, got.len() as u64, 0));
    }

    #[test]
    fn s17_checksums_are_completed(
        body in prop::collection::vec(any::<u8>(), 30..4000), alone: bool, long: bool,
        start in 0..60u16, offset in 0..40u16,
        sizes in prop::collection::vec(prop_oneof![Just(0usize), 1..70usize, 1000..2112usize], 1..20),
    ) {
        let own = if long { 12 } else { 10 };
        let mut m = pair(own, 0);
        let f = [&mac(1)[..], &mac(0), &body].concat();
        let parts = cut(header(own, 1, 0, start, offset), &f, 14, alone, &sizes);
        let got = send(&mut m, &parts);
        prop_assert_eq!(got.len(), 1);
        let first = got[0][0].bytes.len();
        let mut want = f.clone();
        let (start, field) = (usize::from(start), usize::from(start + offset));
        if field + 2 <= first {
            let sum = !ones_sum(&f[start..]);
            let sum = if sum == 0 { 0xffff } else { sum };
            want[field..field + 2].copy_from_slice(&sum.to_be_bytes());
        }
        prop_assert_eq!(bytes(&got[0]).concat(), want);
        prop_assert_eq!(got[0].len(), parts.len() - usize::from(alone));
    }

    /// Whatever a sender writes, nothing panics, and every packet is delivered or counted.
    #[test]
    fn s17_no_bytes_do_harm(
        packets in prop::collection::vec(
            (any::<u8>(), prop::sample::select(vec![0u8, 1, 3, 4, 0x80, 0x81]),
             prop::collection::vec(any::<u8>(), 0..200), any::<bool>(), 0..4usize, any::<bool>()), 1..20),
        theirs in prop::sample::select(vec![0u32, 10]),
    ) {
        let mut m = pair(12, theirs);
        for (flags, gso, mut body, ip, vlans, more) in packets {
            if ip {
                let head = Shape { vlans, ..Shape::default() }.packet();
                let n = body.len().min(head.len());
                body[..n].copy_from_slice(&head[..n]);
                if let Some(b) = body.get_mut(14 + 4 * vlans) { *b ^= flags >> 2; }
                if let Some(b) = body.get_mut(46 + 4 * vlans) { *b ^= flags & 0xf0; }
            }
            let bytes = [header(12, flags & 3, gso, flags.into(), gso.into()), body].concat();
            m[0].port.tx[0].put(&bytes, if more { NS_MOREFRAG } else { 0 });
        }
        m[0].txsync(0);
        m[1].receive(0);
        check(&m);
    }
}
