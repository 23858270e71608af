//! Datagrams between a host at one end of a veth pair and a port at the other.

use crate::ns::{MAC_A, MAC_B, Pair};
use ringway::{Interest, Port};
use std::net::UdpSocket;
use std::time::{Duration, Instant};

/// An Ethernet frame with an UDP datagram from 10.77.0.1:1000 to 10.77.0.2:`port`.
#[must_use]
pub fn udp_frame(port: u16, payload: &[u8]) -> Vec<u8> {
    let (udp_len, ip_len) = (8 + payload.len() as u16, 28 + payload.len() as u16);
    let mut ip = vec![0x45, 0];
    ip.extend(ip_len.to_be_bytes());
    ip.extend([0, 1, 0, 0, 64, 17, 0, 0, 10, 77, 0, 1, 10, 77, 0, 2]);
    let sum: u32 = ip.as_chunks::<2>().0.iter().map(|w| u32::from(u16::from_be_bytes(*w))).sum();
    let folded = !((sum & 0xffff) + (sum >> 16)) as u16;
    ip[10..12].copy_from_slice(&folded.to_be_bytes());
    let mut f = [MAC_B, MAC_A].concat();
    f.extend([8, 0]);
    f.extend(ip);
    f.extend(1000u16.to_be_bytes());
    f.extend(port.to_be_bytes());
    f.extend(udp_len.to_be_bytes());
    f.extend([0, 0]);
    f.extend_from_slice(payload);
    f
}

/// Frames received on all rings until `done` says so, each whole.
///
/// # Panics
/// If that takes five seconds.
pub fn receive(port: &mut Port, mut done: impl FnMut(&[u8]) -> bool) {
    let end = Instant::now() + Duration::from_secs(5);
    loop {
        let mut over = false;
        for i in 0..port.rx_rings() {
            let mut rx = port.rx(i);
            rx.sync().unwrap();
            let mut buf = vec![0; 70_000];
            while !over && let Some(len) = rx.recv(&mut buf) {
                over = done(&buf[..len]);
            }
        }
        if over {
            return;
        }
        assert!(Instant::now() < end, "waited in vain");
        port.wait(Interest::RX, Some(Duration::from_millis(100))).unwrap();
    }
}

/// The payload of a UDP frame to `port`.
#[must_use]
pub fn udp_payload(frame: &[u8], port: u16) -> Option<&[u8]> {
    let is_udp = frame.len() >= 42 && frame[12..14] == [8, 0] && frame[23] == 17;
    (is_udp && frame[36..38] == port.to_be_bytes()).then(|| {
        let len = usize::from(u16::from_be_bytes([frame[38], frame[39]]));
        &frame[42..34 + len]
    })
}

/// Sends `count` datagrams from the host in `b` to `port`, and as many back, and compares each.
///
/// # Panics
/// If one is lost, or another than was sent.
pub fn exchange(pair: &Pair, port: &mut Port, count: u32) {
    let socket = pair.b.run(|| UdpSocket::bind("10.77.0.2:7000").unwrap());
    socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    let body =
        |i: u32, len: usize| -> Vec<u8> { (0..len).map(|k| (k as u32 ^ i.wrapping_mul(77)) as u8).collect() };
    // From the host there to us.
    for i in 0..count {
        socket.send_to(&body(i, 20 + i as usize % 1400), "10.77.0.1:9000").unwrap();
    }
    let mut next = 0;
    receive(port, |frame| {
        if let Some(payload) = udp_payload(frame, 9000) {
            assert_eq!(payload, body(next, 20 + next as usize % 1400), "datagram {next}");
            assert_eq!(&frame[..12], [MAC_A, MAC_B].concat());
            next += 1;
        }
        next == count
    });
    // From us to the host there, as many at a time as the socket there holds.
    let mut buf = [0; 2000];
    for first in (0..count).step_by(64) {
        let last = count.min(first + 64);
        let mut tx = port.tx(0);
        for i in first..last {
            let frame = udp_frame(7000, &body(i, 20 + i as usize % 1400));
            let end = Instant::now() + Duration::from_secs(5);
            while !tx.send(&frame) {
                tx.sync().unwrap();
                assert!(Instant::now() < end, "no room");
            }
        }
        tx.sync().unwrap();
        drop(tx);
        for i in first..last {
            let len = socket.recv(&mut buf).unwrap_or_else(|e| panic!("datagram {i}: {e}"));
            assert_eq!(buf[..len], body(i, 20 + i as usize % 1400), "datagram {i}");
        }
    }
}
