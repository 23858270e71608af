//! Persistent switch ports (semantics.md 18), as names of the registry alone; tests with interfaces are in the e2e crate.

use super::world::{self, World};
use super::*;
use crate::layout::Dir;
use crate::stats::{Counters, Drop};

/// Nobody but root may have interfaces; nobody here is root.
fn registry() -> Registry {
    let mut r = super::registry();
    r.interface_users = InterfaceUsers::Some([].into());
    r
}

fn newif(r: &mut Registry, name: &str) -> Result<nmreq_vale_newif, Errno> {
    let mut body = nmreq_vale_newif::default();
    r.vale_newif(ME, name, &mut body).map(|()| body).map_err(|e| e.errno)
}

fn attach(r: &mut Registry, name: &str) -> Result<u32, Errno> {
    let mut body = nmreq_vale_attach { port_index: 77, ..Default::default() };
    r.vale_attach(ME, name, &mut body).map(|()| body.port_index).map_err(|e| e.errno)
}

fn detach(r: &mut Registry, name: &str) -> Result<u32, Errno> {
    let mut body = nmreq_vale_detach { port_index: 77, ..Default::default() };
    let done = r.vale_detach(ME, name, &mut body).map_err(|e| e.errno);
    assert!(done.is_ok() || body.port_index == 77, "not written on error");
    done.map(|()| body.port_index)
}

fn delif(r: &mut Registry, name: &str) -> Result<(), Errno> {
    r.vale_delif(ME, name).map_err(|e| e.errno)
}

fn kind(r: &Registry, name: &str) -> &'static str {
    r.list(ME).iter().find(|p| p.name == name).unwrap_or_else(|| panic!("{name}: {:?}", r.list(ME))).kind
}

#[test]
fn abi_9_7_newif_says_what_it_got_and_refuses_what_is_no_name() {
    let mut r = registry();
    let mut body =
        nmreq_vale_newif { nr_tx_rings: 99, nr_rx_rings: 2, nr_tx_slots: 9999, ..Default::default() };
    r.vale_newif(ME, "v0", &mut body).unwrap();
    assert_eq!((body.nr_tx_rings, body.nr_rx_rings, body.nr_tx_slots, body.nr_rx_slots), (16, 2, 4096, 1024));
    assert_eq!(body.nr_mem_id, 2);
    assert!(r.has_persistent());
    let _pipe = r.register(ME, "x{1", &all()).unwrap();
    for (name, errno) in [
        ("vale0", Errno::EINVAL),
        ("vale0:a", Errno::EINVAL),
        ("sixteen_letters_", Errno::EINVAL),
        ("v0", Errno::EEXIST),
        ("lo", Errno::EEXIST),
        ("x", Errno::EEXIST),
        ("", Errno::EINVAL),
        (".", Errno::EINVAL),
        ("..", Errno::EINVAL),
        ("a/b", Errno::EINVAL),
        ("a:b", Errno::EINVAL),
        ("a b", Errno::EINVAL),
        ("a{1", Errno::EINVAL),
        ("v%d", Errno::EINVAL),
    ] {
        assert_eq!(newif(&mut r, name).unwrap_err(), errno, "{name}");
    }
    let mut body = nmreq_vale_newif { nr_mem_id: 99, ..Default::default() };
    assert_eq!(r.vale_newif(ME, "v1", &mut body).unwrap_err().errno, Errno::EINVAL);
    assert_eq!((body.nr_mem_id, body.nr_tx_slots), (99, 0), "nothing is written back");
    body.nr_mem_id = 2;
    r.vale_newif(ME, "fifteen_letters", &mut body).unwrap();
    assert_eq!(body.nr_mem_id, 2, "a region may be shared");
}

#[test]
fn abi_9_8_delif_takes_what_nobody_uses() {
    let mut r = registry();
    newif(&mut r, "v0").unwrap();
    let b = r.register(ME, "v0", &all()).unwrap();
    assert_eq!(delif(&mut r, "v0"), Err(Errno::EBUSY));
    r.unbind(b);
    let p = r.register(ME, "v0{1", &all()).unwrap();
    assert_eq!(delif(&mut r, "v0"), Err(Errno::EBUSY));
    r.unbind(p);
    attach(&mut r, "vale0:v0").unwrap();
    assert_eq!(delif(&mut r, "v0"), Err(Errno::EBUSY));
    detach(&mut r, "vale0:v0").unwrap();
    assert_eq!(r.vale_delif(Asker { uid: 2000 }, "v0").unwrap_err().errno, Errno::EACCES);
    let _x = r.register(ME, "x{1", &all()).unwrap();
    let _y = r.register(ME, "vale7:y", &all()).unwrap();
    for (name, errno) in
        [("x", Errno::EINVAL), ("lo", Errno::EINVAL), ("x{1", Errno::EINVAL), ("nope", Errno::ENXIO)]
    {
        assert_eq!(delif(&mut r, name), Err(errno), "{name}");
    }
    assert_eq!(delif(&mut r, "vale7:y"), Err(Errno::ENXIO));
    delif(&mut r, "v0").unwrap();
    assert!(!r.has_persistent());
    assert_eq!(delif(&mut r, "v0"), Err(Errno::ENXIO));
    assert_eq!(r.register(ME, "v0", &all()).unwrap_err().errno, Errno::ENXIO);
    newif(&mut r, "v0").unwrap();
    delif(&mut r, "v0").unwrap();
}

#[test]
fn abi_9_3_and_9_4_attach_and_detach_refuse() {
    let mut r = registry();
    newif(&mut r, "v0").unwrap();
    newif(&mut r, "v1").unwrap();
    let _a = r.register(ME, "vale0:a", &all()).unwrap();
    for (name, errno) in [
        ("vale0:a", Errno::EBUSY),
        ("v0", Errno::EINVAL),
        ("vale-x:v0", Errno::ENOMEM),
        ("vale0:nope", Errno::EINVAL),
        // There is such an interface, which the asker may not open.
        ("vale0:lo", Errno::EACCES),
    ] {
        assert_eq!(attach(&mut r, name), Err(errno), "{name}");
    }
    let mut body = nmreq_vale_attach::default();
    body.reg.nr_mem_id = 99;
    assert_eq!(r.vale_attach(ME, "vale0:v0", &mut body).unwrap_err().errno, Errno::EINVAL);
    // Mode and ring id mean nothing.
    body.reg = nmreq_register { nr_mode: 77, nr_ringid: 5, ..Default::default() };
    r.vale_attach(ME, "vale0:v0", &mut body).unwrap();
    assert_eq!((body.port_index, body.reg.nr_mode, body.reg.nr_ringid), (1, 77, 5));
    assert_eq!(attach(&mut r, "vale0:v0"), Err(Errno::EBUSY));
    assert_eq!(attach(&mut r, "vale1:v0"), Err(Errno::EINVAL), "a second time the mode counts");
    for (name, errno) in [
        ("vale0:a", Errno::EBUSY),
        ("vale0:v1", Errno::ENXIO),
        ("vale9:v0", Errno::ENXIO),
        ("v0", Errno::EINVAL),
    ] {
        assert_eq!(detach(&mut r, name), Err(errno), "{name}");
    }
    let other = Asker { uid: 2000 };
    let mut body = nmreq_vale_detach::default();
    assert_eq!(r.vale_detach(other, "vale0:v0", &mut body).unwrap_err().errno, Errno::EACCES);
    let mut body = nmreq_vale_attach::default();
    assert_eq!(r.vale_attach(other, "vale5:v1", &mut body).unwrap_err().errno, Errno::EACCES);
    assert_eq!(r.register(other, "v0", &all()).unwrap_err().errno, Errno::EACCES);
    assert_eq!(detach(&mut r, "vale0:v0"), Ok(1));
    assert_eq!(detach(&mut r, "vale0:v0"), Err(Errno::ENXIO));
    // The port part of a switch port's name may not be an interface's.
    for name in ["vale0:v0", "vale0:lo", "vale3:v1"] {
        assert_eq!(r.register(ME, name, &all()).unwrap_err().errno, Errno::EINVAL, "{name}");
    }
    // A failed attachment leaves no switch behind.
    r.tunables.max_bridges = 1;
    assert_eq!(attach(&mut r, "vale1:v0"), Err(Errno::ENOMEM));
    let mut at = nmreq_vale_list::default();
    assert_eq!(r.vale_list("vale1:", &mut at).unwrap_err().errno, Errno::ENOENT);
}

#[test]
fn s18_both_names_are_one_port() {
    let mut r = registry();
    newif(&mut r, "v0").unwrap();
    assert_eq!(kind(&r, "v0"), "persistent");
    attach(&mut r, "vale1:v0").unwrap();
    assert_eq!(kind(&r, "vale1:v0"), "persistent");
    let x = nmreq_register { nr_flags: NR_EXCLUSIVE, ..all() };
    for (one, two) in [("v0", "vale1:v0"), ("vale1:v0", "v0"), ("v0", "v0")] {
        let held = r.register(ME, one, &x).unwrap();
        assert_eq!(r.register(ME, two, &all()).unwrap_err().errno, Errno::EBUSY, "{one} {two}");
        assert_eq!(r.grant(held).unwrap().name, "vale1:v0");
        r.unbind(held);
        // After its first use, too.
        let mut at = nmreq_vale_list::default();
        assert_eq!(r.vale_list("", &mut at).unwrap().as_deref(), Some("vale1:v0"));
        at.nr_port_idx = 9;
        r.vale_list("vale1:v0", &mut at).unwrap();
        assert_eq!(at.nr_port_idx, 0);
        let (mut a, mut b) = (nmreq_port_info_get::default(), nmreq_pools_info::default());
        r.port_info_get(ME, one, &mut a).unwrap();
        r.pools_info_get(ME, two, &mut b).unwrap();
        assert_eq!((a.nr_mem_id, a.nr_memsize), (b.nr_mem_id, b.nr_memsize));
    }
    r.port_hdr_set(ME, "v0", 12).unwrap();
    assert_eq!(r.port_hdr_get(ME, "vale1:v0").unwrap(), 12);
    // A pipe is the same by both names.
    let p = r.register(ME, "vale1:v0{1", &x).unwrap();
    assert_eq!(r.register(ME, "v0{1", &all()).unwrap_err().errno, Errno::EBUSY);
    r.unbind(p);
    detach(&mut r, "vale1:v0").unwrap();
    assert_eq!(kind(&r, "v0"), "persistent");
    assert_eq!(r.port_hdr_get(ME, "v0").unwrap(), 12);
    assert_eq!(r.port_hdr_set(ME, "v0", 0).unwrap_err().errno, Errno::ENXIO, "on no switch");
    delif(&mut r, "v0").unwrap();
    assert!(r.is_empty(), "{r:?}");
}

#[test]
fn s18_attach_of_a_bound_port_is_refused_and_links_nothing() {
    let mut r = registry();
    newif(&mut r, "v0").unwrap();
    let b = r.register(ME, "v0", &all()).unwrap();
    assert_eq!(attach(&mut r, "vale1:v0"), Err(Errno::EBUSY));
    let mut at = nmreq_vale_list::default();
    assert_eq!(r.vale_list("", &mut at).unwrap_err().errno, Errno::ENOENT);
    r.unbind(b);
    assert_eq!(attach(&mut r, "vale1:v0"), Ok(0));
}

#[test]
fn s21_the_parent_of_a_pipe_can_be_attached_and_goes_with_the_last_that_uses_it() {
    let mut r = registry();
    let p = r.register(ME, "x{1", &all()).unwrap();
    assert_eq!(kind(&r, "x"), "parent");
    attach(&mut r, "vale0:x").unwrap();
    r.unbind(p);
    assert_eq!(kind(&r, "vale0:x"), "parent");
    detach(&mut r, "vale0:x").unwrap();
    assert!(r.is_empty(), "{r:?}");
}

#[test]
fn abi_9_1_buffers_shorter_than_the_mtu_refuse_who_receives() {
    let mut r = registry();
    r.tunables.priv_buf_size = 1024;
    newif(&mut r, "v0").unwrap();
    assert_eq!(r.register(ME, "v0", &all()).unwrap_err().errno, Errno::EINVAL);
    let tx = nmreq_register { nr_flags: NR_TX_RINGS_ONLY, ..all() };
    assert!(r.register(ME, "v0", &tx).is_ok());
    assert!(r.register(ME, "vale0:a", &all()).is_ok(), "no interface, no MTU");
}

fn frame(number: u8) -> Vec<u8> {
    [&[0xff; 6][..], &[2, 0, 0, 0, 0, number], &[number; 60]].concat()
}

#[test]
fn s18_traffic_flows_while_it_is_attached_and_only_then() {
    for strangers in [false, true] {
        let mut w = World::new();
        w.registry().interface_users = InterfaceUsers::Some([].into());
        newif(&mut w.registry(), "v0").unwrap();
        // On no switch: taken, counted, and nothing comes.
        let mut v = w.open(ME, "v0", &all());
        v.send(&[frame(1)]);
        assert!(v.receive().is_empty());
        let counters = |e: &world::End| Counters::read(&e.ring(Dir::Tx).handle().shared.state);
        assert_eq!(counters(&v).dropped(Drop::NoReceiver), 1);
        w.close(&v);

        attach(&mut w.registry(), "vale0:v0").unwrap();
        let other = if strangers { Asker { uid: 2000 } } else { ME };
        let mut a = w.open(other, "vale0:a", &all());
        let mut b = w.open(ME, "vale0:b", &all());
        a.send(&[frame(2)]); // Attached, but nobody has it open.
        assert_eq!(b.receive(), [frame(2)]);
        let mut v = w.open(ME, "v0", &all());
        v.send(&[frame(3)]);
        assert_eq!((a.receive(), b.receive()), (vec![frame(3)], vec![frame(3)]));
        a.send(&[frame(4)]);
        assert_eq!((v.receive(), b.receive()), (vec![frame(4)], vec![frame(4)]));

        // Detached while it is open: the descriptor stays, the port is on its own.
        detach(&mut w.registry(), "vale0:v0").unwrap();
        w.refresh();
        let before = counters(&v);
        v.put_at(&[frame(5), frame(5)], 0);
        v.send(&[frame(6)]);
        a.send(&[frame(7)]);
        assert_eq!((a.receive(), b.receive(), v.receive()), (vec![], vec![frame(7)], vec![]));
        let after = counters(&v);
        assert_eq!(after.packets - before.packets, 2);
        assert_eq!(after.dropped(Drop::NoReceiver) - before.dropped(Drop::NoReceiver), 2);
        assert_eq!(after.packets + after.extra_copies, after.delivered + after.all_drops());
        // Another takes its place; the old one does not speak in its name.
        let mut c = w.open(ME, "vale0:c", &all());
        v.send(&[frame(8)]);
        c.send(&[frame(9)]);
        assert_eq!((a.receive(), b.receive(), v.receive()), (vec![frame(9)], vec![frame(9)], vec![]));
        w.close(&v);
        attach(&mut w.registry(), "vale0:v0").unwrap();
        w.refresh();
        let mut v = w.open(ME, "vale0:v0", &all());
        v.send(&[frame(10)]);
        assert_eq!(
            (a.receive(), b.receive(), c.receive()),
            (vec![frame(10)], vec![frame(10)], vec![frame(10)])
        );
        [&v, &a, &b, &c].into_iter().for_each(|end| w.close(end));
        detach(&mut w.registry(), "vale0:v0").unwrap();
        delif(&mut w.registry(), "v0").unwrap();
        assert!(w.registry().is_empty());
    }
}

#[test]
fn s18_s22_a_port_on_no_switch_can_be_watched() {
    let mut w = World::new();
    w.registry().interface_users = InterfaceUsers::Some([].into());
    newif(&mut w.registry(), "v0").unwrap();
    let watch = |flags| nmreq_register { nr_flags: flags, ..all() };
    let e = w.registry().register(ME, "v0", &watch(NR_MONITOR_TX)).unwrap_err();
    assert_eq!(e.errno, Errno::EINVAL, "nobody has it open");
    attach(&mut w.registry(), "vale0:v0").unwrap();
    let mut v = w.open(ME, "v0", &all());
    let mut a = w.open(ME, "vale0:a", &all());
    let mut early = w.open(ME, "v0", &watch(NR_MONITOR_TX | NR_MONITOR_RX));
    v.send(&[frame(1)]);
    a.send(&[frame(250)]);
    assert_eq!((a.receive(), early.receive()), (vec![frame(1)], vec![frame(1), frame(250)]));
    // It leaves the switch under its monitor; others come afterwards. What it sends goes nowhere, and is seen.
    w.change(|r| detach(r, "vale0:v0")).unwrap();
    let mut late = w.open(ME, "v0", &watch(NR_MONITOR_TX));
    let mut zcopy = w.open(ME, "v0", &watch(NR_ZCOPY_MON));
    let counters = |e: &world::End| Counters::read(&e.ring(Dir::Tx).handle().shared.state);
    let before = counters(&v).dropped(Drop::NoReceiver);
    for round in 0..40 {
        v.put_at(&[frame(round)], 0);
        v.send(&[frame(round), frame(3)]);
        a.send(&[frame(4)]);
        let sent = vec![frame(round), frame(round), frame(3)];
        assert_eq!((early.receive(), late.receive()), (sent.clone(), sent.clone()), "round {round}");
        let first = if round == 0 { vec![frame(250)] } else { vec![] };
        assert_eq!(v.receive(), first, "what had arrived before");
        let seen = zcopy.receive();
        assert_eq!(seen.iter().filter(|f| **f != frame(250)).cloned().collect::<Vec<_>>(), sent);
        assert!(a.receive().is_empty());
    }
    assert_eq!(counters(&v).dropped(Drop::NoReceiver) - before, 80, "as without monitors");
    assert!(w.audit(ME).iter().all(RegionAudit::is_exact));
    [&early, &late, &zcopy].into_iter().for_each(|m| w.close(m));
    v.send(&[frame(5)]);
    assert!(!w.registry().list(ME).iter().any(|p| p.lease == "brokered"), "it is direct again");
    [&v, &a].into_iter().for_each(|end| w.close(end));
    delif(&mut w.registry(), "v0").unwrap();
    assert!(w.registry().is_empty());
}
