//! Network interfaces through the broker: veth pairs between namespaces of their own.
#![allow(missing_docs)]

use ringway::{Interest, Netmap, Port};
use ringway_e2e::ns::{MAC_A, MAC_B, Pair};
use ringway_e2e::{TestBroker, root_or_skip};
use std::net::UdpSocket;
use std::time::{Duration, Instant};

/// An Ethernet frame with an UDP datagram from 10.77.0.1:1000 to 10.77.0.2:`port`.
fn udp_frame(port: u16, payload: &[u8]) -> Vec<u8> {
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
fn receive(port: &mut Port, mut done: impl FnMut(&[u8]) -> bool) {
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
fn udp_payload(frame: &[u8], port: u16) -> Option<&[u8]> {
    let is_udp = frame.len() >= 42 && frame[12..14] == [8, 0] && frame[23] == 17;
    (is_udp && frame[36..38] == port.to_be_bytes()).then(|| {
        let len = usize::from(u16::from_be_bytes([frame[38], frame[39]]));
        &frame[42..34 + len]
    })
}

fn exchange(pair: &Pair, port: &mut Port, count: u32) {
    let socket = pair.b.run(|| UdpSocket::bind("10.77.0.2:7000").unwrap());
    socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    let body = |i: u32, len: usize| -> Vec<u8> {
        (0..len).map(|k| (k as u32 ^ i.wrapping_mul(77)) as u8).collect()
    };
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
    // From us to the host there.
    for i in 0..count {
        let frame = udp_frame(7000, &body(i, 20 + i as usize % 1400));
        let mut tx = port.tx(0);
        let end = Instant::now() + Duration::from_secs(5);
        while !tx.send(&frame) {
            tx.sync().unwrap();
            assert!(Instant::now() < end, "no room");
        }
        if i % 64 == 63 || i + 1 == count {
            tx.sync().unwrap();
        }
    }
    let mut buf = [0; 2000];
    for i in 0..count {
        let len = socket.recv(&mut buf).unwrap_or_else(|e| panic!("datagram {i}: {e}"));
        assert_eq!(buf[..len], body(i, 20 + i as usize % 1400), "datagram {i}");
    }
}

/// Sets the environment of this process: clients in it use `broker`.
fn use_broker(broker: &TestBroker) {
    // All tests of this file run one after the other, each with `LOCK`.
    // SAFETY: nobody else reads or writes the environment meanwhile.
    unsafe { std::env::set_var("RINGWAY_SOCKET", broker.socket()) };
}

static LOCK: std::sync::Mutex<()> = std::sync::Mutex::new(());

fn start(test: &str, queues: u32) -> Option<(std::sync::MutexGuard<'static, ()>, Pair, TestBroker)> {
    let guard = LOCK.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if !root_or_skip(test) {
        return None;
    }
    let pair = Pair::new(test, queues)?;
    let broker = TestBroker::start("");
    use_broker(&broker);
    Some((guard, pair, broker))
}

#[test]
fn datagrams_arrive_whole_both_ways() {
    let Some((_guard, pair, broker)) = start("datagrams_arrive_whole_both_ways", 1) else { return };
    pair.a.run(|| {
        let mut port = Netmap::broker().open("netmap:va").unwrap();
        exchange(&pair, &mut port, 300);
    });
    println!("{}", broker.json(&["ports"]));
}
