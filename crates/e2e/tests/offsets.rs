//! Packets that do not begin at the start of their buffers, through the broker: statuses of options, and network interfaces.

use ringway::{Broker, Errno, Interest, NicMode, OpenError, ReqOption};
use ringway_abi::{
    NETMAP_API, NETMAP_REQ_PORT_INFO_GET, NETMAP_REQ_REGISTER, NR_REG_ALL_NIC, c_name_field, nmreq_header,
    nmreq_opt_offsets, nmreq_port_info_get, nmreq_register,
};
use ringway_e2e::ns::{MAC_A, MAC_B, Pair};
use ringway_e2e::{TestBroker, root_or_skip};
use std::net::UdpSocket;
use std::time::{Duration, Instant};
use zerocopy::IntoBytes;

fn ask(
    at: &TestBroker,
    nr_reqtype: u16,
    name: &str,
    body: &mut [u8],
    options: &mut [ReqOption],
) -> (Option<Errno>, Vec<u32>) {
    let nr_name = c_name_field(name).expect("a short name");
    let mut header = nmreq_header { nr_version: NETMAP_API, nr_reqtype, nr_name, ..Default::default() };
    let broker = Broker::at(&at.socket()).expect("the broker answers");
    let errno = match broker.control_with(&mut header, body, options) {
        Ok(()) => None,
        Err(OpenError::Refused { errno, .. }) => Some(errno),
        Err(e) => panic!("{name}: {e}"),
    };
    (errno, options.iter().map(|o| o.nro_status).collect())
}

#[test]
fn each_option_comes_back_with_its_status() {
    const EOPNOTSUPP: u32 = Errno::EOPNOTSUPP.0 as u32;
    const EINVAL: u32 = Errno::EINVAL.0 as u32;
    let broker = TestBroker::start("");
    let netmap = broker.netmap();
    let offsets = |max| {
        ReqOption::offsets(&nmreq_opt_offsets {
            nro_max_offset: max,
            nro_initial_offset: 64,
            ..Default::default()
        })
    };
    let unknown = || ReqOption { nro_reqtype: 99, ..ReqOption::default() };
    let register = |options: &mut [ReqOption]| {
        let mut req = nmreq_register { nr_mode: NR_REG_ALL_NIC, ..Default::default() };
        ask(&broker, NETMAP_REQ_REGISTER, "vale0:a", req.as_mut_bytes(), options)
    };
    assert_eq!(register(&mut [offsets(128)]), (None, vec![0]));
    assert_eq!(register(&mut [offsets(63)]), (Some(Errno::EINVAL), vec![EINVAL]));
    assert_eq!(register(&mut [unknown(), offsets(128)]), (Some(Errno::EOPNOTSUPP), vec![EOPNOTSUPP, 0]));
    assert_eq!(register(&mut [offsets(128), offsets(128)]), (Some(Errno::EINVAL), vec![EINVAL; 2]));
    let mut many: Vec<ReqOption> = (0..120).map(|_| unknown()).collect();
    assert_eq!(register(&mut many), (Some(Errno::EOPNOTSUPP), vec![EOPNOTSUPP; 120]));
    // Other requests leave what they do not know at that, and succeed.
    let mut info = nmreq_port_info_get::default();
    let got = ask(
        &broker,
        NETMAP_REQ_PORT_INFO_GET,
        "vale0:a",
        info.as_mut_bytes(),
        &mut [unknown(), offsets(128)],
    );
    assert_eq!(got, (None, vec![EOPNOTSUPP; 2]));
    assert_eq!(info.nr_rx_slots, 1024);
    // And the port as a whole.
    let mut a = netmap.open("vale0:a@offset=64").unwrap();
    let mut b = netmap.builder("vale0:b").offset(0).max_offset(512).open().unwrap();
    b.tx(0).send(&[0xff; 60]);
    b.txsync().unwrap();
    a.rxsync().unwrap();
    let rx = a.rx(0);
    let slot = rx.slot(0).unwrap();
    assert_eq!((slot.offset(), slot.payload().to_vec()), (64, vec![0xff; 60]));
}

/// An Ethernet frame with an UDP datagram from 10.77.0.1:1000 to 10.77.0.2:7000.
fn udp_frame(payload: &[u8]) -> Vec<u8> {
    let (udp_len, ip_len) = (8 + payload.len() as u16, 28 + payload.len() as u16);
    let mut ip = vec![0x45, 0];
    ip.extend(ip_len.to_be_bytes());
    ip.extend([0, 1, 0, 0, 64, 17, 0, 0, 10, 77, 0, 1, 10, 77, 0, 2]);
    let sum: u32 = ip.chunks(2).map(|w| u32::from(u16::from_be_bytes([w[0], w[1]]))).sum();
    let folded = !((sum & 0xffff) + (sum >> 16)) as u16;
    ip[10..12].copy_from_slice(&folded.to_be_bytes());
    let mut f = [MAC_B, MAC_A].concat();
    f.extend([8, 0]);
    f.extend(ip);
    f.extend([1000u16, 7000, udp_len, 0].iter().flat_map(|w| w.to_be_bytes()));
    f.extend_from_slice(payload);
    f
}

#[test]
fn interfaces_send_and_receive_at_offsets() {
    const TEST: &str = "interfaces_send_and_receive_at_offsets";
    if !root_or_skip(TEST) {
        return;
    }
    let Some(pair) = Pair::new(TEST, 1) else { return };
    let broker = TestBroker::start("");
    let netmap = broker.netmap();
    for mode in [NicMode::Packet, NicMode::Generic, NicMode::Copy] {
        let socket = pair.b.run(|| UdpSocket::bind("10.77.0.2:7000").unwrap());
        socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        let opened =
            pair.a.run(|| netmap.builder("netmap:va").nic_mode(mode).offset(64).max_offset(300).open());
        let mut port = match opened {
            Ok(port) => port,
            Err(e) => {
                println!("SKIP {TEST}: {mode:?}: {e}");
                continue;
            }
        };
        let text = |i: u32| vec![i as u8; 100 + 7 * i as usize];
        // More than one lap of neither ring, with an offset of its own in each slot.
        for i in 0..100 {
            let mut tx = port.tx(0);
            let slot = tx.slot(0).unwrap();
            assert!(slot.set_offset(i * 3));
            let frame = udp_frame(&text(i));
            slot.payload().copy_from(&frame);
            slot.set(frame.len() as u16, 0);
            tx.advance(1);
            tx.sync().unwrap();
            let mut buf = [0; 2000];
            let len = socket.recv(&mut buf).unwrap_or_else(|e| panic!("{mode:?}: datagram {i}: {e}"));
            assert_eq!(buf[..len], text(i), "{mode:?}");
        }
        for i in 0..100 {
            socket.send_to(&text(i), "10.77.0.1:9000").unwrap();
        }
        let (mut next, end) = (0, Instant::now() + Duration::from_secs(5));
        while next < 100 {
            assert!(Instant::now() < end, "{mode:?}: {next} came");
            port.wait(Interest::RX, Some(Duration::from_millis(100))).unwrap();
            port.rx(0).drain(u32::MAX, |slot| {
                let frame = slot.payload().to_vec();
                if frame.len() > 42 && frame[36..38] == 9000u16.to_be_bytes() {
                    assert_eq!(slot.offset(), 64, "{mode:?}");
                    assert_eq!((&frame[..6], &frame[42..]), (&MAC_A[..], &text(next)[..]), "{mode:?}");
                    next += 1;
                }
                true
            });
        }
        drop(port);
        drop(socket);
    }
}
