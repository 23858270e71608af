//! A fixed set of frames, one per flow, for generators that do not step.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::{Frame, Headers, MAX_SIZE, Payload};
use crate::addr::{DEFAULT_PORT, Mac};

/// Which frames to build.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameSpec {
    /// Bytes of a frame without CRC; at least 42 (IPv6: 62), at most [`MAX_SIZE`].
    pub size: usize,
    /// Number of frames that differ in source address and port; at least 1.
    pub flows: u32,
    /// Source Ethernet address.
    pub src_mac: Mac,
    /// Destination Ethernet address.
    pub dst_mac: Mac,
    /// Source address and UDP port of the first flow.
    pub src: SocketAddr,
    /// Destination address and UDP port of all flows.
    pub dst: SocketAddr,
    /// Zero bytes before each frame (a virtio-net header), 0, 10 or 12.
    pub vnet_bytes: usize,
}

impl Default for FrameSpec {
    /// pkt-gen's defaults: 60 bytes, 10.0.0.1 to 10.1.0.1, broadcast, ports 1234; one flow.
    fn default() -> FrameSpec {
        FrameSpec {
            size: 60,
            flows: 1,
            src_mac: Mac::default(),
            dst_mac: Mac::BROADCAST,
            src: SocketAddr::new(Ipv4Addr::new(10, 0, 0, 1).into(), DEFAULT_PORT),
            dst: SocketAddr::new(Ipv4Addr::new(10, 1, 0, 1).into(), DEFAULT_PORT),
            vnet_bytes: 0,
        }
    }
}

/// Why a [`FrameSpec`] cannot be built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpecError {
    /// The size does not hold the headers, or no frame is that long.
    Size {
        /// As given, in bytes.
        size: usize,
        /// Smallest possible size for the address family, in bytes.
        min: usize,
    },
    /// No flow at all, or more than [`FrameSpec::MAX_FLOWS`].
    Flows(u32),
    /// Source and destination are of different address families.
    MixedFamilies,
    /// Not a length of a virtio-net header.
    VnetBytes(usize),
}

impl fmt::Display for SpecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SpecError::Size { size, min } => write!(f, "bad frame size {size} [{min}..{MAX_SIZE}]"),
            SpecError::Flows(flows) => {
                write!(f, "bad number of flows {flows} [1..{}]", FrameSpec::MAX_FLOWS)
            }
            SpecError::MixedFamilies => f.write_str("source and destination mix IPv4 and IPv6"),
            SpecError::VnetBytes(bytes) => write!(f, "bad virtio-net header length {bytes} (0, 10 or 12)"),
        }
    }
}

impl std::error::Error for SpecError {}

impl FrameSpec {
    /// Most flows in one set: each is a frame in memory.
    pub const MAX_FLOWS: u32 = 65536;

    /// Builds the frames, all different. Flow `k` has the source port `k` above the first one; when the
    /// ports are used up, the source address goes on by one and the ports start again.
    ///
    /// # Errors
    /// [`SpecError`] if a number is out of its range or the families differ.
    pub fn build(&self) -> Result<Vec<Frame>, SpecError> {
        let min = if self.src.is_ipv4() { 42 } else { 62 };
        if !(min..=MAX_SIZE).contains(&self.size) {
            return Err(SpecError::Size { size: self.size, min });
        }
        if !(1..=Self::MAX_FLOWS).contains(&self.flows) {
            return Err(SpecError::Flows(self.flows));
        }
        if self.src.is_ipv4() != self.dst.is_ipv4() {
            return Err(SpecError::MixedFamilies);
        }
        if !matches!(self.vnet_bytes, 0 | 10 | 12) {
            return Err(SpecError::VnetBytes(self.vnet_bytes));
        }
        Ok((0..self.flows).map(|flow| self.frame(flow)).collect())
    }

    fn frame(&self, flow: u32) -> Frame {
        let ports = 0x1_0000 - u32::from(self.src.port());
        let port = u32::from(self.src.port()) + flow % ports;
        let ip = match self.src.ip() {
            IpAddr::V4(ip) => IpAddr::V4(u32::from(ip).wrapping_add(flow / ports).into()),
            IpAddr::V6(ip) => IpAddr::V6(u128::from(ip).wrapping_add(u128::from(flow / ports)).into()),
        };
        let headers = Headers {
            src_mac: self.src_mac,
            dst_mac: self.dst_mac,
            src: SocketAddr::new(ip, port as u16),
            dst: self.dst,
        };
        Frame::new(&headers, self.size, self.vnet_bytes, Payload::Direct)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::traffic::frame::tests::verify;
    use std::collections::HashSet;

    #[test]
    fn flows_are_distinct_and_correct() {
        for src in ["10.0.0.255:65530", "[fd00::ffff]:65530"] {
            let src: SocketAddr = src.parse().unwrap();
            let dst = SocketAddr::new(src.ip(), 9);
            let spec = FrameSpec { size: 64, flows: 20, src, dst, ..FrameSpec::default() };
            let frames = spec.build().unwrap();
            let flows: HashSet<_> = frames.iter().map(|frame| verify(frame.bytes()).0).collect();
            assert_eq!(flows.len(), 20);
            assert!(flows.contains(&src));
        }
    }

    #[test]
    fn bad_specs_are_refused() {
        let spec = FrameSpec::default();
        assert_eq!(spec.build().unwrap().len(), 1);
        let small = FrameSpec { size: 41, ..spec };
        assert_eq!(small.build().unwrap_err(), SpecError::Size { size: 41, min: 42 });
        assert_eq!(FrameSpec { flows: 0, ..spec }.build().unwrap_err(), SpecError::Flows(0));
        let mixed = FrameSpec { dst: "[::1]:1".parse().unwrap(), ..spec };
        assert_eq!(mixed.build().unwrap_err(), SpecError::MixedFamilies);
        assert_eq!(FrameSpec { vnet_bytes: 11, ..spec }.build().unwrap_err(), SpecError::VnetBytes(11));
    }
}
