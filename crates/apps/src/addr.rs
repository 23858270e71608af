//! Addresses on the command line: MAC addresses, and the address ranges of `-s` and `-d`.
//!
//! A range has two ends, each an address and a UDP port; the generator steps from one to the
//! other. In IPv4 the whole address steps; in IPv6 one of its eight 16-bit words, the *group*.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::str::FromStr;

/// UDP port of a range that names none.
pub const DEFAULT_PORT: u16 = 1234;

/// An Ethernet address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// `ff:ff:ff:ff:ff:ff`.
    pub const BROADCAST: Mac = Mac([0xff; 6]);
}

/// A text that is not six hexadecimal bytes with colons between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MacError;

impl fmt::Display for MacError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a MAC address: six hexadecimal bytes with colons are wanted")
    }
}

impl std::error::Error for MacError {}

impl FromStr for Mac {
    type Err = MacError;

    /// One or two hexadecimal digits a byte, as `ether_aton(3)` takes them.
    fn from_str(text: &str) -> Result<Mac, MacError> {
        let mut mac = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut mac {
            let part = parts.next().ok_or(MacError)?;
            if !matches!(part.len(), 1 | 2) || !part.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(MacError);
            }
            *byte = u8::from_str_radix(part, 16).map_err(|_| MacError)?;
        }
        if parts.next().is_some() { Err(MacError) } else { Ok(Mac(mac)) }
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// Why a range cannot be read. The text is the part at fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RangeError {
    /// Not an address of the wanted family.
    Address(String),
    /// Not a UDP port, 0 to 65535.
    Port(String),
    /// Not a group number before the `@`.
    Group(String),
}

impl fmt::Display for RangeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RangeError::Address(text) => write!(f, "bad address '{text}'"),
            RangeError::Port(text) => write!(f, "bad port '{text}' [0..65535]"),
            RangeError::Group(text) => write!(f, "bad group '{text}' [0..7]"),
        }
    }
}

impl std::error::Error for RangeError {}

/// A number as `strtol` with base 0 reads it: `0x` hexadecimal, leading `0` octal, else decimal.
/// Unlike `strtol`, the whole text has to be the number. Negative numbers are `None`.
pub fn parse_base0(text: &str) -> Option<u64> {
    let text = text.trim();
    let (digits, radix) = match text.as_bytes() {
        [b'0', b'x' | b'X', ..] => (&text[2..], 16),
        [b'0', _, ..] => (&text[1..], 8),
        _ => (text, 10),
    };
    // from_str_radix takes a sign, which strtol would not after a prefix.
    if digits.starts_with(['+', '-']) { None } else { u64::from_str_radix(digits, radix).ok() }
}

fn parse_port(text: &str) -> Result<u16, RangeError> {
    let port = parse_base0(text).and_then(|port| u16::try_from(port).ok());
    port.ok_or_else(|| RangeError::Port(text.to_owned()))
}

/// Both ends in rising order.
fn sorted<T: PartialOrd>(a: T, b: T) -> RangeInclusive<T> {
    if a <= b { a..=b } else { b..=a }
}

/// Addresses and ports to step through. Made with [`IpRange::parse_v4`] or [`IpRange::parse_v6`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IpRange {
    /// What the stepping part of the address runs through.
    pub addr: AddrRange,
    /// UDP ports, both ends included.
    pub ports: RangeInclusive<u16>,
}

/// Address part of an [`IpRange`], both ends included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AddrRange {
    /// Whole IPv4 addresses, as numbers.
    V4(RangeInclusive<u32>),
    /// IPv6: `base` with the word number `group` (0 to 7) running through `words`.
    V6 {
        /// First address.
        base: Ipv6Addr,
        /// Which 16-bit word steps.
        group: usize,
        /// Values of that word.
        words: RangeInclusive<u16>,
        /// Last address as it was given, for printing.
        last: Ipv6Addr,
    },
}

impl IpRange {
    /// Reads `addr[:port][-addr[:port]]`. Ends in the wrong order are exchanged, addresses and ports
    /// each for themselves. A second end without port has the port of the first.
    ///
    /// # Errors
    /// [`RangeError`] with the part that cannot be read.
    pub fn parse_v4(text: &str) -> Result<IpRange, RangeError> {
        let end = |part: &str, port: u16| -> Result<(u32, u16), RangeError> {
            let (addr, port) = match part.split_once(':') {
                Some((addr, text)) => (addr, parse_port(text)?),
                None => (part, port),
            };
            let addr: Ipv4Addr = addr.parse().map_err(|_| RangeError::Address(addr.to_owned()))?;
            Ok((u32::from(addr), port))
        };
        let (first, last) = split_ends(text);
        let (addr0, port0) = end(first, DEFAULT_PORT)?;
        let (addr1, port1) = last.map_or(Ok((addr0, port0)), |last| end(last, port0))?;
        Ok(IpRange { addr: AddrRange::V4(sorted(addr0, addr1)), ports: sorted(port0, port1) })
    }

    /// Reads an IPv6 range; each end is `addr`, `[addr]` or `[addr]:port` (the brackets are
    /// real), with an optional `group@` before it. Groups above 7 mean 7, which is also the default.
    /// The last group given counts for both ends; of the second address only that word matters.
    ///
    /// # Errors
    /// [`RangeError`] with the part that cannot be read.
    pub fn parse_v6(text: &str) -> Result<IpRange, RangeError> {
        let mut group = 7;
        let mut end = |part: &str, port: u16| -> Result<(Ipv6Addr, u16), RangeError> {
            let mut rest = part;
            if let Some((number, addr)) = part.split_once('@') {
                let number = parse_base0(number).ok_or_else(|| RangeError::Group(number.to_owned()))?;
                group = number.min(7) as usize;
                rest = addr;
            }
            let bad = || RangeError::Address(rest.to_owned());
            let (addr, port) = match rest.strip_prefix('[') {
                None => (rest, port),
                Some(inner) => match inner.split_once(']').ok_or_else(bad)? {
                    (addr, "") => (addr, port),
                    (addr, tail) => (addr, parse_port(tail.strip_prefix(':').ok_or_else(bad)?)?),
                },
            };
            Ok((addr.parse().map_err(|_| bad())?, port))
        };
        let (first, last) = split_ends(text);
        let (mut addr0, port0) = end(first, DEFAULT_PORT)?;
        let (mut addr1, port1) = last.map_or(Ok((addr0, port0)), |last| end(last, port0))?;
        if addr0.segments()[group] > addr1.segments()[group] {
            std::mem::swap(&mut addr0, &mut addr1);
        }
        let words = addr0.segments()[group]..=addr1.segments()[group];
        let addr = AddrRange::V6 { base: addr0, group, words, last: addr1 };
        Ok(IpRange { addr, ports: sorted(port0, port1) })
    }

    /// True when there is one address and one port: nothing steps.
    pub fn is_single(&self) -> bool {
        let one_addr = match &self.addr {
            AddrRange::V4(addrs) => addrs.start() == addrs.end(),
            AddrRange::V6 { words, .. } => words.start() == words.end(),
        };
        one_addr && self.ports.start() == self.ports.end()
    }
}

fn split_ends(text: &str) -> (&str, Option<&str>) {
    match text.split_once('-') {
        Some((first, last)) => (first, Some(last)),
        None => (text, None),
    }
}

impl fmt::Display for IpRange {
    /// `A:p to B:q`, as the D-line `range is ..` has it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (p, q) = (self.ports.start(), self.ports.end());
        match &self.addr {
            AddrRange::V4(addrs) => {
                let (a, b) = (Ipv4Addr::from(*addrs.start()), Ipv4Addr::from(*addrs.end()));
                write!(f, "{a}:{p} to {b}:{q}")
            }
            AddrRange::V6 { base, last, .. } => write!(f, "{base}:{p} to {last}:{q}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn macs_parse_and_print() {
        let mac: Mac = "0:1b:2C:ff:00:9".parse().unwrap();
        assert_eq!(mac, Mac([0, 0x1b, 0x2c, 0xff, 0, 9]));
        assert_eq!(mac.to_string(), "00:1b:2c:ff:00:09");
        for bad in
            ["", "1:2:3:4:5", "1:2:3:4:5:6:7", "1:2:3:4:5:g", "1:2:3:4:5:123", "1:2:3:4:5:+1", "::::::"]
        {
            assert_eq!(bad.parse::<Mac>(), Err(MacError), "{bad}");
        }
    }

    #[test]
    fn base_0_numbers() {
        for (text, want) in [
            ("0", Some(0)),
            ("10", Some(10)),
            ("010", Some(8)),
            ("0x1F", Some(31)),
            ("09", None),
            ("0x-1", None),
            ("-1", None),
            ("", None),
        ] {
            assert_eq!(parse_base0(text), want, "{text}");
        }
    }

    #[test]
    fn v4_ranges() {
        let shown = |text| IpRange::parse_v4(text).map(|range| range.to_string());
        assert_eq!(shown("10.0.0.1").unwrap(), "10.0.0.1:1234 to 10.0.0.1:1234");
        assert_eq!(shown("10.0.0.1:0x10").unwrap(), "10.0.0.1:16 to 10.0.0.1:16");
        assert_eq!(shown("10.0.0.9:7-10.0.0.1:5").unwrap(), "10.0.0.1:5 to 10.0.0.9:7");
        assert_eq!(shown("10.0.0.1:7-10.0.0.2").unwrap(), "10.0.0.1:7 to 10.0.0.2:7");
        assert_eq!(shown("10.0.0"), Err(RangeError::Address("10.0.0".into())));
        assert_eq!(shown("10.0.0.1:65536"), Err(RangeError::Port("65536".into())));
        assert_eq!(shown("10.0.0.1-"), Err(RangeError::Address(String::new())));
        assert!(IpRange::parse_v4("1.2.3.4:9-1.2.3.4:9").unwrap().is_single());
        assert!(!IpRange::parse_v4("1.2.3.4:9-1.2.3.4:10").unwrap().is_single());
    }

    #[test]
    fn v6_ranges_step_one_group() {
        let range = IpRange::parse_v6("3@[fd00::9:0:0:0:1]:10-[fd00::5:0:0:0:1]:9").unwrap();
        assert_eq!(range.to_string(), "fd00:0:0:5::1:9 to fd00:0:0:9::1:10");
        assert!(matches!(&range.addr, AddrRange::V6 { group: 3, words, .. } if *words == (5..=9)));

        let range = IpRange::parse_v6("99@fd00::1").unwrap();
        assert!(range.is_single());
        assert!(matches!(&range.addr, AddrRange::V6 { group: 7, words, .. } if *words == (1..=1)));

        assert_eq!(IpRange::parse_v6("[fd00::1").unwrap_err(), RangeError::Address("[fd00::1".into()));
        assert_eq!(IpRange::parse_v6("[fd00::1]7").unwrap_err(), RangeError::Address("[fd00::1]7".into()));
        assert_eq!(IpRange::parse_v6("x@fd00::1").unwrap_err(), RangeError::Group("x".into()));
    }
}
