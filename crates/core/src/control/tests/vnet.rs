//! PORT_HDR_SET, and what it does to traffic, direct and brokered.

use super::world::World;
use super::*;
use crate::stats::{Counters, Drop};

fn vnet() -> nmreq_register {
    nmreq_register { nr_flags: NR_ACCEPT_VNET_HDR, ..all() }
}

/// Ethernet, IPv4, TCP, and `payload` bytes; to everybody.
fn tcp(payload: usize) -> Vec<u8> {
    let mut f = [[0xff; 6], [2, 0, 0, 0, 0, 7]].concat();
    f.extend([8, 0, 0x45, 0, 0, 0, 0, 0, 0, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    f.extend([0, 1, 0, 2, 0, 0, 0, 5, 0, 0, 0, 0, 0x50, 0x18, 0, 0, 0, 0, 0, 0]);
    f.extend((0..payload).map(|i| i as u8));
    f
}

#[test]
fn s17_headers_are_converted_direct_and_brokered() {
    for strangers in [false, true] {
        let mut w = World::new();
        let other = if strangers { Asker { uid: 2000 } } else { ME };
        let mut a = w.open(ME, "vale0:a", &all());
        let mut b = w.open(other, "vale0:b", &all());
        let mut c = w.open(ME, "vale0:c", &all());
        assert_eq!(w.registry().list(ME).iter().any(|p| p.lease == "brokered"), strangers);
        // With immediate effect, also for those who are bound.
        for (name, len) in [("vale0:a", 12), ("vale0:c", 10)] {
            w.registry().port_hdr_set(ME, name, len).unwrap();
        }
        w.refresh();
        let f = tcp(3000);
        let packet = [vec![1, 1, 0, 0, 0, 0, 34, 0, 16, 0, 0, 0], f.clone()].concat();
        a.send(&packet.chunks(2000).map(<[u8]>::to_vec).collect::<Vec<_>>());
        let got = b.receive();
        assert_eq!(got.iter().map(Vec::len).collect::<Vec<_>>(), [1514, 1514, 134], "strangers {strangers}");
        assert_eq!(got.iter().flat_map(|g| g[54..].to_vec()).collect::<Vec<_>>(), f[54..]);
        assert_eq!(c.receive().concat(), [&packet[..10], &f].concat());
        // The other way there is no header, and then a zeroed one.
        b.send(&[tcp(1)]);
        assert_eq!(a.receive(), [[vec![0; 12], tcp(1)].concat()]);
        assert_eq!(c.receive(), [[vec![0; 10], tcp(1)].concat()]);
        a.send(&[[vec![0x80; 12], tcp(1)].concat()]);
        assert!(b.receive().is_empty());
        let state = a.ring(crate::layout::Dir::Tx).handle().shared.state.clone();
        let counters = Counters::read(&state);
        assert_eq!(counters.dropped(Drop::BadHeader), 1);
        assert_eq!(counters.packets + counters.extra_copies, counters.delivered + counters.all_drops());
        [a, b, c].iter().for_each(|end| w.close(end));
        assert!(w.registry().is_empty());
    }
}

#[test]
fn header_lengths() {
    let mut r = registry();
    let _a = r.register(ME, "vale0:a", &all()).unwrap();
    assert_eq!(r.port_hdr_set(ME, "vale0:a", 11).unwrap_err().errno, Errno::EINVAL);
    r.port_hdr_set(ME, "vale0:a", 12).unwrap();
    assert_eq!(r.port_hdr_get(ME, "vale0:a").unwrap(), 12);
    assert_eq!(r.port_hdr_set(ME, "vale0:b", 12).unwrap_err().errno, Errno::ENXIO);
    assert_eq!(r.port_hdr_get(ME, "vale0:b").unwrap_err().errno, Errno::ENXIO);
    assert_eq!(r.port_hdr_get(ME, "foo{1").unwrap_err().errno, Errno::ENODEV);
    let e = r.register(ME, "vale0:a", &all()).unwrap_err();
    assert_eq!(e.errno, Errno::EIO, "a port with a header wants NR_ACCEPT_VNET_HDR");
    assert!(r.register(ME, "vale0:a", &vnet()).is_ok());
}

#[test]
fn port_hdr_get_of_every_kind_and_set_of_switch_ports_only() {
    let mut r = registry();
    let _x = r.register(ME, "x{1", &all()).unwrap();
    let _p = r.register(ME, "vale0:a{1", &all()).unwrap();
    for name in ["x{1", "x}1", "x", "vale0:a", "vale0:a{1"] {
        assert_eq!(r.port_hdr_get(ME, name).unwrap(), 0, "{name}");
    }
    for name in ["x{1", "x", "vale0:a{1"] {
        assert_eq!(r.port_hdr_set(ME, name, 12).unwrap_err().errno, Errno::ENXIO, "{name}");
    }
    // A pipe's parent, idle on its switch, is a port on a switch.
    r.port_hdr_set(ME, "vale0:a", 10).unwrap();
    // Unknown pipes: what is missing decides.
    assert_eq!(r.port_hdr_get(ME, "vale0:b{1").unwrap_err().errno, Errno::ENXIO);
    assert_eq!(r.port_hdr_get(ME, "vale0:a{2").unwrap_err().errno, Errno::ENODEV);
}
