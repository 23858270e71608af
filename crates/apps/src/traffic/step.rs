//! Steps the addresses of a frame through the ranges of `-s` and `-d`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::{Frame, Rng};
use crate::addr::{AddrRange, IpRange};

/// One direction: the stepping part of its address, and its port, each from `first` to `last`.
#[derive(Clone, Debug)]
struct End {
    first: SocketAddr,
    /// Number of the stepping 16-bit word of an IPv6 address; IPv4 steps as a whole.
    group: usize,
    addr: Counter,
    port: Counter,
    random: bool,
}

#[derive(Clone, Copy, Debug)]
struct Counter {
    now: u32,
    first: u32,
    last: u32,
}

impl Counter {
    /// Goes on by one; at the end back to the start, which is told by `true`.
    fn step(&mut self) -> bool {
        let wraps = self.now >= self.last;
        self.now = if wraps { self.first } else { self.now + 1 };
        wraps
    }
}

impl End {
    fn new(range: &IpRange, random: bool) -> End {
        let port = Counter {
            now: u32::from(*range.ports.start()),
            first: u32::from(*range.ports.start()),
            last: u32::from(*range.ports.end()),
        };
        let (ip, group, first, last): (IpAddr, _, _, _) = match &range.addr {
            AddrRange::V4(addrs) => (Ipv4Addr::from(*addrs.start()).into(), 0, *addrs.start(), *addrs.end()),
            AddrRange::V6 { base, group, words, .. } => {
                ((*base).into(), *group, u32::from(*words.start()), u32::from(*words.end()))
            }
        };
        let first_socket = SocketAddr::new(ip, *range.ports.start());
        End { first: first_socket, group, addr: Counter { now: first, first, last }, port, random }
    }

    /// Steps on the port and, when it wraps, the address. True when both wrapped, so that the next end steps.
    fn step(&mut self, frame: &mut Frame, rng: &mut Rng, addr_at: usize, port_at: usize) -> bool {
        if self.random {
            let bits = rng.next_u64();
            frame.set_port(port_at, (bits >> 32) as u16);
            self.store_addr(frame, addr_at, bits as u32);
            return true;
        }
        let port_wraps = self.port.step();
        frame.set_port(port_at, self.port.now as u16);
        if !port_wraps {
            return false;
        }
        let addr_wraps = self.addr.step();
        self.store_addr(frame, addr_at, self.addr.now);
        addr_wraps
    }

    fn store_addr(&self, frame: &mut Frame, at: usize, value: u32) {
        if self.first.is_ipv4() {
            frame.set_addr_word(at, (value >> 16) as u16);
            frame.set_addr_word(at + 2, value as u16);
        } else {
            frame.set_addr_word(at + 2 * self.group, value as u16);
        }
    }
}

/// Position in both ranges. The source port is the fastest, then the source address, destination
/// port and destination address; each steps when the one before it wraps.
#[derive(Clone, Debug)]
pub struct Stepper {
    src: End,
    dst: End,
    rng: Rng,
    fixed: bool,
}

impl Stepper {
    /// A stepper at the start of both ranges. An end that is `random` does not step: it takes random
    /// addresses (in IPv6: a random group) and ports, and the other end then moves with every packet.
    pub fn new(src: &IpRange, dst: &IpRange, random_src: bool, random_dst: bool, rng: Rng) -> Stepper {
        let fixed = src.is_single() && dst.is_single() && !random_src && !random_dst;
        Stepper { src: End::new(src, random_src), dst: End::new(dst, random_dst), rng, fixed }
    }

    /// The addresses of the first packet: source and destination.
    pub fn first(&self) -> (SocketAddr, SocketAddr) {
        (self.src.first, self.dst.first)
    }

    /// Moves `frame` on to the addresses of the next packet. Frames of foreign content stay as they are.
    pub fn step(&mut self, frame: &mut Frame) {
        if self.fixed || frame.is_opaque() {
            return;
        }
        let layout = frame.layout();
        if self.src.step(frame, &mut self.rng, layout.ip_src, layout.udp) {
            self.dst.step(frame, &mut self.rng, layout.ip_dst, layout.udp + 2);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::traffic::frame::tests::{headers, verify};
    use crate::traffic::{Headers, Payload};

    fn start(stepper: &Stepper) -> Frame {
        let (src, dst) = stepper.first();
        Frame::new(&Headers { src, dst, ..headers("0.0.0.0:0", "0.0.0.0:0") }, 70, 10, Payload::Direct)
    }

    #[test]
    fn v4_steps_are_four_nested_loops() {
        let src = IpRange::parse_v4("10.0.0.254:65534-10.0.1.1:65535").unwrap();
        let dst = IpRange::parse_v4("10.1.0.1:5-10.1.0.2:7").unwrap();
        let mut stepper = Stepper::new(&src, &dst, false, false, Rng::new(0));
        let mut frame = start(&stepper);
        for _round in 0..2 {
            for dst_addr in 0x0a01_0001..=0x0a01_0002u32 {
                for dst_port in 5..=7 {
                    for src_addr in 0x0a00_00fe..=0x0a00_0101u32 {
                        for src_port in 65534..=65535 {
                            let (src, dst, _) = verify(&frame.bytes()[10..]);
                            assert_eq!(src, SocketAddr::new(Ipv4Addr::from(src_addr).into(), src_port));
                            assert_eq!(dst, SocketAddr::new(Ipv4Addr::from(dst_addr).into(), dst_port));
                            stepper.step(&mut frame);
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn v6_steps_its_group_only() {
        let src = IpRange::parse_v6("2@fd00:0:1::9-fd00:0:3::8").unwrap();
        let dst = IpRange::parse_v6("fd00::5").unwrap();
        let mut stepper = Stepper::new(&src, &dst, false, false, Rng::new(0));
        let mut frame = start(&stepper);
        for want in ["fd00:0:1::9", "fd00:0:2::9", "fd00:0:3::9", "fd00:0:1::9"] {
            let (src, dst, _) = verify(&frame.bytes()[10..]);
            assert_eq!((src.ip().to_string(), dst.ip().to_string()), (want.into(), "fd00::5".into()));
            stepper.step(&mut frame);
        }
    }

    #[test]
    fn random_addresses_keep_the_checksums() {
        for (src, dst) in [(true, false), (false, true), (true, true)] {
            let one = IpRange::parse_v4("10.0.0.1").unwrap();
            let mut stepper = Stepper::new(&one, &one, src, dst, Rng::new(3));
            let mut frame = start(&stepper);
            let first = verify(&frame.bytes()[10..]);
            stepper.step(&mut frame);
            for _ in 0..200 {
                let got = verify(&frame.bytes()[10..]);
                assert_eq!((got.0 != first.0, got.1 != first.1), (src, dst));
                stepper.step(&mut frame);
            }
        }
    }

    #[test]
    fn without_ranges_nothing_changes() {
        let one = IpRange::parse_v4("10.0.0.1").unwrap();
        let mut stepper = Stepper::new(&one, &one, false, false, Rng::new(0));
        let mut frame = start(&stepper);
        let before = frame.bytes().to_vec();
        stepper.step(&mut frame);
        assert_eq!(frame.bytes(), before);
    }
}
