//! A persistent port on two switches (semantics.md 18): the second attachment is wrapped, as an interface's is. Tests with
//! interfaces are in the e2e crate.

use super::world::{End, World};
use super::*;
use ringway_os::ring::SlotWord;
use std::time::{Duration, Instant};

fn attach(w: &World, name: &str) -> Result<u32, Errno> {
    attach_as(w, name, &all())
}

fn attach_as(w: &World, name: &str, reg: &nmreq_register) -> Result<u32, Errno> {
    let mut body = nmreq_vale_attach { reg: *reg, port_index: 77, ..Default::default() };
    let done = w.change(|r| r.vale_attach(ME, name, &mut body)).map_err(|e| e.errno);
    assert!(done.is_ok() || body.port_index == 77, "not written on error");
    done.map(|()| body.port_index)
}

fn detach(w: &World, name: &str) -> Result<u32, Errno> {
    let mut body = nmreq_vale_detach::default();
    w.change(|r| r.vale_detach(ME, name, &mut body)).map(|()| body.port_index).map_err(|e| e.errno)
}

fn enable(w: &World, name: &str, nr_first_cpu_id: u32) -> Result<(), Errno> {
    let body = nmreq_vale_polling {
        nr_mode: NETMAP_POLLING_MODE_SINGLE_CPU,
        nr_first_cpu_id,
        nr_num_polling_cpus: 1,
        ..Default::default()
    };
    w.change(|r| r.vale_polling_enable(ME, name, &body, 2)).map_err(|e| e.errno)
}

fn disable(w: &World, name: &str) -> Result<(), Errno> {
    w.change(|r| r.vale_polling_disable(ME, name)).map_err(|e| e.errno)
}

/// A world with the persistent port `v0` on `vale0` and `vale1`.
fn twice_attached() -> World {
    let w = World::new();
    w.registry().interface_users = InterfaceUsers::Some([].into());
    w.registry().vale_newif(ME, "v0", &mut nmreq_vale_newif::default()).unwrap();
    assert_eq!(attach(&w, "vale0:v0"), Ok(0));
    assert_eq!(attach(&w, "vale1:v0"), Ok(0));
    w
}

fn frame(number: u8, len: usize) -> Vec<u8> {
    [&[0xff; 6][..], &[2, 0, 0, 0, 0, number], &vec![number; len]].concat()
}

/// What arrives until `count` frames are there.
fn receive(end: &mut End, count: usize) -> Vec<Vec<u8>> {
    let until = Instant::now() + Duration::from_secs(5);
    let mut got = vec![];
    while got.len() < count {
        assert!(Instant::now() < until, "{} of {count} came", got.len());
        got.extend(end.receive());
    }
    got
}

#[test]
fn s18_a_port_on_two_switches_carries_frames_between_them() {
    let mut w = twice_attached();
    let (mut a, mut b) = (w.open(ME, "vale0:a", &all()), w.open(ME, "vale1:b", &all()));
    for round in 0..20u8 {
        for len in [48, 500, 1500] {
            let number = round.wrapping_mul(7) ^ len as u8;
            let burst: Vec<_> = (0..100).map(|i| frame(number.wrapping_add(i), len)).collect();
            burst.iter().for_each(|f| a.put_at(std::slice::from_ref(f), 0));
            a.send(&[frame(0, 60)]);
            let got = receive(&mut b, 101);
            assert_eq!(got[..100], burst[..]);
            burst.iter().rev().for_each(|f| b.put_at(std::slice::from_ref(f), 0));
            b.send(&[vec![frame(1, 1900), vec![9; 700]]].concat());
            let got = receive(&mut a, 102);
            assert!(got[..100].iter().eq(burst.iter().rev()));
            assert_eq!((got[100].len(), got[101].len()), (1912, 700), "a packet of two slots");
        }
    }
    // Each buffer is in one place, before and after.
    let audit = w.audit(ME);
    assert!(audit.iter().all(RegionAudit::is_exact), "{audit:?}");
    assert_eq!(detach(&w, "vale1:v0"), Ok(0));
    let audit = w.audit(ME);
    assert!(audit.iter().all(RegionAudit::is_exact), "{audit:?}");
    a.send(&[frame(3, 60)]);
    b.send(&[frame(3, 60)]);
    assert!(a.receive().is_empty() && b.receive().is_empty());
    // It can be opened again, and still has its place on the first.
    let mut v = w.open(ME, "v0", &all());
    a.send(&[frame(4, 60)]);
    assert_eq!(v.receive(), [frame(4, 60)]);
    w.close(&v);
    w.close(&a);
    w.close(&b);
    assert_eq!(detach(&w, "vale0:v0"), Ok(0));
    w.registry().vale_delif(ME, "v0").unwrap();
    assert!(w.registry().is_empty());
}

#[test]
fn s18_a_port_on_two_switches_cannot_be_opened_and_leaves_the_second_first() {
    let mut w = twice_attached();
    for name in ["v0", "vale0:v0", "vale1:v0", "v0{1", "vale0:v0{1", "vale1:v0}x"] {
        assert_eq!(w.registry().register(ME, name, &all()).unwrap_err().errno, Errno::EBUSY, "{name}");
    }
    assert_eq!(detach(&w, "vale0:v0"), Err(Errno::EBUSY), "the second first");
    for name in ["vale0:v0", "vale1:v0", "vale2:v0"] {
        assert_eq!(attach(&w, name), Err(Errno::EBUSY), "{name}");
    }
    let delif = |w: &World| w.registry().vale_delif(ME, "v0").map_err(|e| e.errno);
    assert_eq!(delif(&w), Err(Errno::EBUSY));
    let newif = w.registry().vale_newif(ME, "v0", &mut nmreq_vale_newif::default());
    assert_eq!(newif.unwrap_err().errno, Errno::EEXIST);
    let mut at = nmreq_vale_list { nr_bridge_idx: 1, ..Default::default() };
    assert_eq!(w.registry().vale_list("", &mut at), Ok(Some("vale1:v0".into())));
    // Information is not refused, nor is a monitor.
    let mut info = nmreq_port_info_get::default();
    w.registry().port_info_get(ME, "vale1:v0", &mut info).unwrap();
    assert_eq!((info.nr_tx_rings, info.nr_rx_slots), (1, 1024));
    let watch = nmreq_register { nr_flags: NR_MONITOR_TX | NR_MONITOR_RX, ..all() };
    let mut m = w.open(ME, "vale1:v0", &watch);
    let mut a = w.open(ME, "vale0:a", &all());
    a.send(&[frame(5, 60)]);
    assert_eq!(receive(&mut m, 1), [frame(5, 60)]);
    // Detached under the monitor: its port is gone from the switch all the same.
    assert_eq!(detach(&w, "vale1:v0"), Ok(0));
    assert_eq!(m.sync(crate::layout::Dir::Rx), crate::kring::SyncOutcome::Stopped);
    assert_eq!(w.registry().vale_list("vale1:", &mut at).unwrap_err().errno, Errno::ENOENT);
    assert_eq!(attach(&w, "vale1:v0"), Ok(0), "the name is free");
    w.close(&m);
    let others = Asker { uid: 2000 };
    let mut body = nmreq_vale_detach::default();
    assert_eq!(w.registry().vale_detach(others, "vale1:v0", &mut body).unwrap_err().errno, Errno::EACCES);
    assert_eq!(detach(&w, "vale1:v0"), Ok(0));
    // What wraps is a request for the whole port.
    for (req, errno) in [
        (nmreq_register { nr_ringid: 1, ..all() }, Errno::EINVAL),
        (nmreq_register { nr_mode: NR_REG_ONE_NIC, ..all() }, Errno::EINVAL),
        (nmreq_register { nr_mode: NR_REG_NIC_SW, ..all() }, Errno::EINVAL),
    ] {
        assert_eq!(attach_as(&w, "vale1:v0", &req), Err(errno), "{req:?}");
    }
    w.close(&a);
    let v = w.open(ME, "v0", &all());
    assert_eq!(attach(&w, "vale1:v0"), Err(Errno::EBUSY), "somebody has it open");
    w.close(&v);
    assert_eq!(detach(&w, "vale0:v0"), Ok(0));
    assert_eq!(delif(&w), Ok(()));
    assert!(w.registry().is_empty());
}

/// Else frames would come out on one side with the header of the other.
#[test]
fn s18_a_header_set_on_either_switch_is_that_of_both() {
    let mut w = twice_attached();
    let (mut a, mut b) = (w.open(ME, "vale0:a", &all()), w.open(ME, "vale1:b", &all()));
    let names = ["v0", "vale0:v0", "vale1:v0"];
    for (set, len) in [("vale0:v0", 12), ("vale1:v0", 10), ("v0", 0), ("vale1:v0", 12)] {
        w.change(|r| r.port_hdr_set(ME, set, len)).unwrap();
        assert_eq!(names.map(|name| w.registry().port_hdr_get(ME, name).unwrap()), [len; 3], "{set}");
        for round in 0..3 {
            a.send(&[frame(round, 60)]);
            assert_eq!(receive(&mut b, 1), [frame(round, 60)], "by {set} to {len}");
            b.send(&[frame(round, 80)]);
            assert_eq!(receive(&mut a, 1), [frame(round, 80)], "by {set} to {len}");
        }
    }
    // A header reaches the far side, and neither half cuts what it may pass on as it is.
    w.change(|r| r.port_hdr_set(ME, "vale0:a", 12)).unwrap();
    w.change(|r| r.port_hdr_set(ME, "vale1:b", 12)).unwrap();
    let packet = [vec![1, 1, 0, 0, 0, 0, 34, 0, 16, 0, 0, 0], frame(9, 1900)].concat();
    a.send(std::slice::from_ref(&packet));
    assert_eq!(receive(&mut b, 1), [packet]);
    // It stays with the port when the second place is given up.
    assert_eq!(detach(&w, "vale1:v0"), Ok(0));
    assert_eq!(w.registry().port_hdr_get(ME, "vale0:v0").unwrap(), 12);
    [&a, &b].iter().for_each(|end| w.close(end));
    assert_eq!(detach(&w, "vale0:v0"), Ok(0));
    w.registry().vale_delif(ME, "v0").unwrap();
    assert!(w.registry().is_empty());
}

/// A program of the same user may have mapped the memory, and write where it likes.
#[test]
fn slots_that_name_no_buffer_lose_their_frames_and_no_others() {
    let mut w = twice_attached();
    let (mut a, mut b) = (w.open(ME, "vale0:a", &all()), w.open(ME, "vale1:b", &all()));
    let ring = |name: &str, dir| {
        let r = w.registry();
        r.handle(r.names[name], dir, 0).unwrap()
    };
    let tx = ring("vale1:v0", crate::layout::Dir::Tx);
    let bad = [0, 1, u32::MAX, 0x7fff_ffff];
    for (slot, idx) in tx.ring.slots.iter().take(12).zip(bad.iter().cycle()) {
        slot.store(SlotWord::new(*idx, u16::MAX, u16::MAX));
    }
    (0..29).for_each(|i| a.put_at(&[frame(i, 60)], 0));
    a.send(&[frame(29, 60)]);
    let wanted: Vec<_> = (12..30).map(|i| frame(i, 60)).collect();
    assert_eq!(receive(&mut b, 18), wanted);
    let info = |name: &str| w.registry().list(ME).into_iter().find(|p| p.name == name).unwrap();
    let counters = info("vale1:v0").rings.iter().find(|r| r.dir == crate::layout::Dir::Tx).unwrap().counters;
    assert_eq!((counters.packets, counters.delivered, counters.all_drops()), (30, 18, 12));
    w.close(&a);
    w.close(&b);
    assert_eq!((detach(&w, "vale1:v0"), detach(&w, "vale0:v0")), (Ok(0), Ok(0)));
    w.registry().vale_delif(ME, "v0").unwrap();
    assert!(w.registry().is_empty());
}

#[test]
fn s20_polling_refuses_what_the_contract_names() {
    let mut w = twice_attached();
    let a = w.open(ME, "vale0:a", &all());
    for (name, errno) in [
        ("v0", Errno::EINVAL),
        ("vale1:nope", Errno::ENXIO),
        ("vale0:a", Errno::EOPNOTSUPP),
        ("vale0:v0", Errno::EOPNOTSUPP),
    ] {
        assert_eq!(enable(&w, name, 0), Err(errno), "{name}");
        assert_eq!(disable(&w, name), Err(errno), "{name}");
    }
    assert_eq!(disable(&w, "vale1:v0"), Err(Errno::EFAULT), "it is not polled");
    assert_eq!(enable(&w, "vale1:v0", 2), Err(Errno::EINVAL), "no such processor");
    assert_eq!(enable(&w, "vale1:v0", 1), Ok(()));
    assert_eq!(enable(&w, "vale1:v0", 9), Err(Errno::EFAULT), "it is polled already");
    assert_eq!(detach(&w, "vale1:v0"), Err(Errno::EBUSY));
    let others = Asker { uid: 2000 };
    assert_eq!(w.registry().vale_polling_disable(others, "vale1:v0").unwrap_err().errno, Errno::EACCES);
    assert_eq!(disable(&w, "vale1:v0"), Ok(()));
    assert_eq!(detach(&w, "vale1:v0"), Ok(0));
    w.close(&a);
}
