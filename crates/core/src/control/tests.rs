use super::*;
use crate::layout::RingShared;
use ringway_abi::*;

mod extmem;
mod late;
mod offsets;
mod persistent;
mod vnet;
mod world;
mod wrapped;

const ME: Asker = Asker { uid: 1000 };

fn registry() -> Registry {
    Registry::new(Tunables::default())
}

fn all() -> nmreq_register {
    nmreq_register { nr_mode: NR_REG_ALL_NIC, ..Default::default() }
}

#[test]
fn opening_and_closing_leaves_nothing() {
    for name in ["vale0:a", "x{1", "x}1", "vale0:p{q", "a{1{2"] {
        let mut r = registry();
        let id = r.register(ME, name, &all()).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert!(!r.is_empty());
        r.unbind(id);
        assert!(r.is_empty(), "{name} left {r:?}");
    }
}

#[test]
fn a_failed_request_leaves_nothing() {
    let mut r = registry();
    for (name, req, errno) in [
        ("eth9", all(), Errno::ENXIO),
        ("vale0:a", nmreq_register { nr_mode: NR_REG_SW, ..all() }, Errno::EINVAL),
        ("vale0:a", nmreq_register { nr_mode: 0, ..all() }, Errno::EINVAL),
        ("vale0:a", nmreq_register { nr_mode: NR_REG_ONE_NIC, nr_ringid: 1, ..all() }, Errno::EINVAL),
        ("vale0:a", nmreq_register { nr_mem_id: 77, ..all() }, Errno::EINVAL),
        ("x{1", nmreq_register { nr_mode: NR_REG_SW, ..all() }, Errno::EINVAL),
        ("x{", all(), Errno::EINVAL),
        ("foo{1", nmreq_register { nr_tx_rings: 16, nr_rx_rings: 16, ..all() }, Errno::ENOMEM),
        ("vale-0:a", all(), Errno::ENOMEM),
        ("n", nmreq_register { nr_mode: NR_REG_NULL, ..all() }, Errno::EINVAL),
        ("x{1", nmreq_register { nr_mode: NR_REG_PIPE_MASTER, ..all() }, Errno::EINVAL),
    ] {
        let e = r.register(ME, name, &req).unwrap_err();
        assert_eq!(e.errno, errno, "{name}: {e}");
        assert!(r.is_empty(), "{name} left {r:?}");
    }
}

#[test]
fn rings_and_slots_are_clamped_silently() {
    let mut r = registry();
    let req = nmreq_register { nr_tx_rings: 20, nr_rx_rings: 3, nr_tx_slots: 5000, nr_rx_slots: 1, ..all() };
    let id = r.register(ME, "vale0:a", &req).unwrap();
    let g = r.grant(id).unwrap().geometry;
    assert_eq!((g.tx_rings, g.rx_rings, g.tx_slots, g.rx_slots), (16, 3, 4096, 2));
    // Later openers see the numbers in force.
    let again = r.register(ME, "vale0:a", &nmreq_register { nr_tx_slots: 64, ..all() }).unwrap();
    assert_eq!(r.grant(again).unwrap().geometry, g);
}

#[test]
fn exclusive_and_shared_bindings() {
    let mut r = registry();
    let x = nmreq_register { nr_flags: NR_EXCLUSIVE, ..all() };
    let first = r.register(ME, "vale0:a", &all()).unwrap();
    let second = r.register(ME, "vale0:a", &all()).unwrap();
    assert_eq!(r.register(ME, "vale0:a", &x).unwrap_err().errno, Errno::EBUSY);
    r.unbind(first);
    r.unbind(second);
    let alone = r.register(ME, "vale0:a", &x).unwrap();
    assert_eq!(r.register(ME, "vale0:a", &all()).unwrap_err().errno, Errno::EBUSY);
    r.unbind(alone);
    let one =
        |i| nmreq_register { nr_mode: NR_REG_ONE_NIC, nr_ringid: i, nr_tx_rings: 2, nr_rx_rings: 2, ..x };
    let a = r.register(ME, "vale0:b", &one(0)).unwrap();
    let b = r.register(ME, "vale0:b", &one(1)).unwrap();
    assert_eq!(r.register(ME, "vale0:b", &one(1)).unwrap_err().errno, Errno::EBUSY);
    r.unbind(a);
    r.unbind(b);
    assert!(r.is_empty());
}

#[test]
fn a_ring_bound_again_while_the_port_lives_comes_back_empty() {
    let mut r = registry();
    let one =
        |i| nmreq_register { nr_mode: NR_REG_ONE_NIC, nr_ringid: i, nr_tx_rings: 2, nr_rx_rings: 2, ..all() };
    let keep = r.register(ME, "vale0:b", &one(0)).unwrap();
    let other = r.register(ME, "vale0:b", &one(1)).unwrap();
    let shared = RingShared::new(
        &r.grant(other).unwrap().state.map,
        &r.grant(other).unwrap().geometry,
        crate::layout::Dir::Rx,
        1,
    )
    .unwrap();
    shared.state.producer.hwtail.set(7);
    r.unbind(other);
    assert_eq!(shared.state.senders.bound.load(std::sync::atomic::Ordering::Relaxed), 0);
    let other = r.register(ME, "vale0:b", &one(1)).unwrap();
    assert_eq!(shared.state.producer.hwtail.load(), 0);
    r.unbind(keep);
    r.unbind(other);
    assert!(r.is_empty());
}

#[test]
fn region_ids_are_given_upwards_and_reused_and_shared_by_id() {
    let mut r = registry();
    let a = r.register(ME, "vale0:a", &all()).unwrap();
    let id = r.grant(a).unwrap().mem_id;
    assert_eq!(id, 2);
    let same = nmreq_register { nr_mem_id: id, ..all() };
    let b = r.register(ME, "vale0:b", &same).unwrap();
    let c = r.register(ME, "vale0:c", &all()).unwrap();
    let memsize = |r: &Registry, x| r.grant(x).unwrap().layout.memsize;
    assert_eq!((r.grant(b).unwrap().mem_id, r.grant(c).unwrap().mem_id), (2, 3));
    assert_eq!(memsize(&r, a), memsize(&r, b));
    r.unbind(c);
    let c = r.register(ME, "vale0:c", &all()).unwrap();
    assert_eq!(r.grant(c).unwrap().mem_id, 3);
    // A stranger cannot tell it from an unknown one.
    assert_eq!(r.register(Asker { uid: 5 }, "vale1:z", &same).unwrap_err().errno, Errno::EINVAL);
    let null = nmreq_register { nr_mode: NR_REG_NULL, nr_mem_id: id, nr_extra_bufs: 8, ..Default::default() };
    let n = r.register(ME, "hold", &null).unwrap();
    assert_eq!((r.grant(n).unwrap().extra_bufs, r.grant(n).unwrap().geometry), (8, Geometry::default()));
    [a, b, c, n].into_iter().for_each(|x| r.unbind(x));
    assert!(r.is_empty());
}

/// The states of 131070 rings, for a port that binds none: a seed of the fuzzer of requests.
#[test]
fn a_null_port_that_binds_nothing_has_no_more_rings_than_its_region() {
    let mut r = registry();
    let a = r.register(ME, "vale0:a", &all()).unwrap();
    let nr_mem_id = r.grant(a).unwrap().mem_id;
    let none = nmreq_register {
        nr_mode: NR_REG_NULL,
        nr_flags: NR_TX_RINGS_ONLY | NR_RX_RINGS_ONLY,
        nr_mem_id,
        ..Default::default()
    };
    let before = r.region_bytes(ME.uid);
    for req in [
        nmreq_register {
            nr_tx_rings: u16::MAX,
            nr_rx_rings: u16::MAX,
            nr_tx_slots: 2,
            nr_rx_slots: 2,
            ..none
        },
        nmreq_register { nr_tx_rings: 1, nr_tx_slots: u32::MAX, ..none },
    ] {
        assert_eq!(r.register(ME, "n", &req).unwrap_err().errno, Errno::ENOMEM);
    }
    let few = nmreq_register { nr_tx_rings: 2, nr_rx_rings: 1, nr_tx_slots: 8, nr_rx_slots: 8, ..none };
    let n = r.register(ME, "n", &few).unwrap();
    assert_eq!(r.grant(n).unwrap().geometry.tx_rings, 2);
    assert!(r.region_bytes(ME.uid) > before, "states count");
    [a, n].into_iter().for_each(|x| r.unbind(x));
    assert!(r.is_empty());
}

#[test]
fn what_one_user_owns_others_cannot_open_join_or_ask() {
    let (mut r, other) = (registry(), Asker { uid: 2000 });
    let _a = r.register(ME, "vale0:a", &all()).unwrap();
    let _p = r.register(ME, "x{1", &all()).unwrap();
    for name in ["vale0:a", "vale0:new", "x{1", "x}1", "x{2", "vale0:a{1"] {
        assert_eq!(r.register(other, name, &all()).unwrap_err().errno, Errno::EACCES, "{name}");
    }
    assert_eq!(r.port_hdr_set(other, "vale0:a", 12).unwrap_err().errno, Errno::EACCES);
    let seen = r.list(other);
    assert!(seen.iter().all(|p| !p.visible && p.rings.is_empty() && p.holders.is_empty()));
    assert!(seen.iter().any(|p| p.name == "vale0:a"));
    assert!(r.register(Asker { uid: 0 }, "x}1", &all()).is_ok(), "root may");
}

#[test]
fn vale_list_walks_and_finds() {
    let mut r = registry();
    let ids: Vec<_> = ["vale0:a", "vale0:b", "vale1:c"].map(|n| r.register(ME, n, &all()).unwrap()).into();
    let mut at = nmreq_vale_list::default();
    let mut seen = vec![];
    while let Ok(Some(name)) = r.vale_list("", &mut at) {
        seen.push((name, at.nr_bridge_idx, at.nr_port_idx));
        at.nr_port_idx += 1;
    }
    let want = [("vale0:a", 0, 0), ("vale0:b", 0, 1), ("vale1:c", 1, 0)];
    assert_eq!(seen, want.map(|(n, b, p)| (n.to_owned(), b, p)));
    r.vale_list("vale0:zzz", &mut at).unwrap();
    assert_eq!(at.nr_port_idx, NM_BDG_NOPORT);
    assert_eq!(r.vale_list("eth0", &mut at).unwrap_err().errno, Errno::EINVAL);
    assert_eq!(r.vale_list("vale9:x", &mut at).unwrap_err().errno, Errno::ENOENT);
    ids.into_iter().for_each(|x| r.unbind(x));
    assert_eq!(r.vale_list("vale0:a", &mut at).unwrap_err().errno, Errno::ENOENT);
}

#[test]
fn the_ninth_switch_is_refused() {
    let mut r = registry();
    for i in 0..8 {
        r.register(ME, &format!("vale{i}:p"), &all()).unwrap();
    }
    let e = r.register(ME, "vale8:p", &all()).unwrap_err();
    assert_eq!(e.errno, Errno::ENOMEM);
    assert!(e.message.contains("max_bridges"));
}

#[test]
fn a_parent_takes_64_pipes() {
    let mut r = registry();
    // The region of a parent made by its first pipe has room for few: share a larger one.
    let big = nmreq_register { nr_tx_rings: 16, nr_rx_rings: 16, nr_tx_slots: 64, nr_rx_slots: 64, ..all() };
    r.tunables.priv_ring_num = 400;
    r.tunables.priv_if_num = 100;
    let _parent = r.register(ME, "vale0:p", &big).unwrap();
    let small = nmreq_register { nr_tx_slots: 8, nr_rx_slots: 8, ..all() };
    for i in 0..64 {
        r.register(ME, &format!("vale0:p{{{i}"), &small).unwrap_or_else(|e| panic!("{i}: {e}"));
    }
    assert_eq!(r.register(ME, "vale0:p{64", &small).unwrap_err().errno, Errno::EINVAL);
    assert!(r.register(ME, "vale0:p}63", &small).is_ok(), "the other end of an existing pipe");
}

#[test]
fn port_info_of_a_name_that_nobody_has_opened_makes_nothing() {
    let mut r = registry();
    let mut body = nmreq_port_info_get { nr_rx_slots: 512, ..Default::default() };
    r.port_info_get(ME, "vale0:a", &mut body).unwrap();
    assert_eq!((body.nr_rx_slots, body.nr_tx_slots, body.nr_mem_id), (512, 1024, 2));
    assert!(r.is_empty());
    let mut empty = nmreq_port_info_get::default();
    r.port_info_get(ME, "", &mut empty).unwrap();
    assert_eq!(empty.nr_mem_id, 1);
    let mut pools = nmreq_pools_info::default();
    assert_eq!(r.pools_info_get(ME, "", &mut pools).unwrap_err().errno, Errno::ENXIO);
    r.pools_info_get(ME, "vale0:a", &mut pools).unwrap();
    assert_eq!(
        (pools.nr_if_pool_objtotal, pools.nr_ring_pool_offset, pools.nr_buf_pool_objsize),
        (12, 12288, 2112)
    );
    assert!(r.is_empty());
}

/// Holders and posters that stand still delay a change of hands once, however many they are: the serving thread waits for them.
#[test]
fn rings_are_taken_over_in_bounded_time_whoever_holds_their_locks() {
    let mut r = registry();
    r.public_switches = vec!["vale0".to_owned()];
    let req = nmreq_register { nr_tx_rings: 16, nr_rx_rings: 16, nr_tx_slots: 16, nr_rx_slots: 16, ..all() };
    let mine: Vec<_> = (0..12).map(|i| r.register(ME, &format!("vale0:p{i}"), &req).unwrap()).collect();
    for id in &mine {
        let g = r.grant(*id).unwrap();
        for i in 0..16 {
            let ring = RingShared::new(&g.state.map, &g.geometry, crate::layout::Dir::Tx, i).unwrap();
            ring.state.sync.lock.try_lock(77).unwrap();
            ring.state.post.lock.try_lock(77).unwrap();
        }
    }
    let stranger = r.register(Asker { uid: 5 }, "vale0:z", &req).unwrap();
    let mut jobs = Jobs::default();
    let began = std::time::Instant::now();
    r.refresh_jobs(&mut jobs);
    let took = began.elapsed();
    // 192 rings; 100 naps of 100 us in all, each of which may take twice as long.
    assert!(took < std::time::Duration::from_millis(150), "{took:?}");
    assert_eq!(jobs.list.len(), 16, "the stranger's");
    // Those that are late stay as they are, until their holders unlock them, or die.
    assert_eq!((jobs.late().len(), jobs.late().have_some_come()), (12 * 16, false));
    assert!(r.held_locks(ME).iter().all(|l| l.holder == 77));
    assert_eq!(r.break_locks(|holder| holder == 77), 2 * 12 * 16);
    assert!(jobs.late().have_some_come());
    r.refresh_jobs(&mut jobs);
    assert_eq!((jobs.list.len(), jobs.late().len()), (13 * 16, 0));
    r.unbind(stranger);
    r.refresh_jobs(&mut jobs);
    mine.into_iter().for_each(|id| r.unbind(id));
    assert!(r.is_empty());
}
