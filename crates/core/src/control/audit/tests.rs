use super::*;
use crate::adapter::SyncFlags;
use crate::control::{BindingId, Tunables};
use crate::lease::{Endpoint, PeerGrant, PeerSource};
use crate::sim::Rng;
use ringway_abi::{NR_REG_ALL_NIC, NR_REG_NULL, nmreq_register};
use ringway_os::ring::Slot;

const ME: Asker = Asker { uid: 1000 };

fn all() -> nmreq_register {
    nmreq_register { nr_mode: NR_REG_ALL_NIC, nr_tx_slots: 64, nr_rx_slots: 64, ..Default::default() }
}

fn registry() -> Registry {
    Registry::new(Tunables::default())
}

/// Nobody has peers here.
struct Alone;
impl PeerSource for Alone {
    fn peer(&mut self, _index: u8) -> Option<PeerGrant> {
        None
    }
}

/// A port of the program of a test: what it can reach by its maps.
struct Program {
    id: BindingId,
    end: Endpoint,
}

impl Program {
    fn open(r: &mut Registry, name: &str, req: &nmreq_register) -> Self {
        let id = r.register(ME, name, req).unwrap_or_else(|e| panic!("{name}: {e}"));
        Program { id, end: Endpoint::new(r.grant(id).unwrap(), 100 + id.0 as u32).unwrap() }
    }

    fn mem_id(&self) -> u16 {
        self.end.grant().mem_id
    }

    fn slot(&self, dir: Dir, k: u32) -> &Slot {
        &self.end.bound(dir)[0].handle().ring.slots[k as usize]
    }

    fn buf(&self, dir: Dir, k: u32) -> u32 {
        self.slot(dir, k).load().buf_idx()
    }

    fn put(&self, dir: Dir, k: u32, idx: u32) {
        self.slot(dir, k).store(SlotWord::new(idx, 60, 0));
    }

    fn sync(&mut self, dir: Dir) {
        self.end.sync(dir, 0, SyncFlags::empty(), &mut Alone);
    }

    /// Moves `head` and `cur` on by `k`.
    fn advance(&mut self, dir: Dir, k: u32) {
        let handle = self.end.bound(dir)[0].handle();
        let h = &handle.ring.header;
        let to = forward(handle.num_slots(), h.head.load(Relaxed), k);
        h.head.store(to, Relaxed);
        h.cur.store(to, Relaxed);
    }
}

fn only(r: &Registry) -> RegionAudit {
    let all = r.audit(ME, None);
    assert_eq!(all.len(), 1, "{all:?}");
    let a = all[0];
    assert_eq!(a.free + a.in_rings + a.in_lists + a.held + a.lost, a.bufs + a.twice, "{a:?}");
    a
}

fn share(mem_id: u16) -> nmreq_register {
    nmreq_register { nr_mem_id: mem_id, ..all() }
}

#[test]
fn fresh_ports_of_every_kind_are_exact() {
    for (name, in_rings) in [("vale0:a", 128), ("x{1", 128), ("vale0:a{q", 128)] {
        let mut r = registry();
        let id = r.register(ME, name, &all()).unwrap();
        let a = only(&r);
        assert!(a.is_exact(), "{name}: {a:?}");
        assert_eq!((a.in_rings, a.in_lists), (in_rings, 0), "{name}");
        assert!(r.audit(Asker { uid: 5 }, None).is_empty(), "others' regions are nobody's business");
        r.unbind(id);
        assert!(r.audit(ME, None).is_empty());
    }
}

#[test]
fn extra_buffers_are_on_the_list_or_held_by_who_was_granted_them() {
    let mut r = registry();
    let p = Program::open(&mut r, "vale0:a", &nmreq_register { nr_extra_bufs: 10, ..all() });
    let _keeper = Program::open(&mut r, "vale0:k", &share(p.mem_id()));
    assert_eq!((only(&r).in_lists, only(&r).held), (10, 0));
    // The program takes the list into its own books, as the library does.
    let list = r.regions.values().next().unwrap().region.take_list(p.end.grant().if_ofs);
    assert_eq!((only(&r).in_lists, only(&r).held, only(&r).lost), (0, 10, 0));
    // It is killed with them.
    r.unbind(p.id);
    let a = only(&r);
    assert_eq!((a.held, a.lost, a.twice), (0, list.len() as u32, 0));
}

#[test]
fn a_buffer_of_a_pipe_has_one_owner_on_its_whole_way_round() {
    let mut r = registry();
    let mut m = Program::open(&mut r, "x{1", &all());
    let mut s = Program::open(&mut r, "x}1", &all());
    let mut rng = Rng::new(3);
    let mut spare = r.regions.values_mut().next().unwrap().region.take_buf().unwrap();
    for round in 0..2000 {
        match rng.below(6) {
            0 => {
                let n = rng.below(m.end.bound(Dir::Tx)[0].ready() + 1);
                m.advance(Dir::Tx, n);
            }
            1 => m.sync(Dir::Tx),
            2 => {
                let n = rng.below(s.end.bound(Dir::Rx)[0].ready() + 1);
                s.advance(Dir::Rx, n);
            }
            3 => s.sync(Dir::Rx),
            at => {
                // Exchange a buffer in a slot that its program has.
                let (p, dir) = if at == 4 { (&m, Dir::Tx) } else { (&s, Dir::Rx) };
                if p.end.bound(dir)[0].ready() > 0 {
                    let k = p.end.bound(dir)[0].handle().ring.header.head.load(Relaxed);
                    let before = p.buf(dir, k);
                    p.put(dir, k, spare);
                    spare = before;
                }
            }
        }
        let a = only(&r);
        assert_eq!((a.twice, a.lost, a.bad), (0, 1, 0), "round {round}: {a:?}");
    }
    // Both leave, one after the other; the spare one is nowhere.
    let _keeper = Program::open(&mut r, "vale7:k", &share(m.mem_id()));
    r.unbind(s.id);
    r.unbind(m.id);
    let a = only(&r);
    assert_eq!((a.twice, a.lost, a.bad, a.in_rings), (0, 1, 0, 128));
}

/// A program that bridges two ports of one region is killed between the two stores of an exchange.
#[test]
fn a_death_in_the_middle_of_an_exchange_leaves_each_buffer_one_owner() {
    for first in ["a", "b"] {
        let mut r = registry();
        let keeper = Program::open(&mut r, "vale0:k", &all());
        let clean = only(&r);
        let mem_id = keeper.mem_id();
        let [a, b] = ["vale0:a", "vale1:b"].map(|n| Program::open(&mut r, n, &share(mem_id)));
        let there = a.buf(Dir::Rx, 3);
        b.put(Dir::Tx, 5, there); // The second store never came: `there` twice, what `b` had nowhere.
        assert_eq!((only(&r).twice, only(&r).lost), (1, 1));
        let order = if first == "a" { [a.id, b.id] } else { [b.id, a.id] };
        r.unbind(order[0]);
        assert_eq!((only(&r).twice, only(&r).bad), (0, 0), "{first} gone first");
        r.unbind(order[1]);
        let end = only(&r);
        assert_eq!((end.twice, end.lost, end.bad), (0, 1, 0));
        assert_eq!((end.in_rings, end.free), (clean.in_rings, clean.free - 1));
        // With the last user the missing one comes back.
        r.unbind(keeper.id);
        assert!(r.is_empty());
        let again = Program::open(&mut r, "vale0:k", &all());
        assert_eq!((only(&r), again.mem_id()), (clean, mem_id));
    }
}

/// What a survivor of the region has stays his, whatever the dead one wrote into its rings and lists.
#[test]
fn garbage_of_the_dead_takes_nothing_from_the_living() {
    let mut rng = Rng::new(77);
    let mut r = registry();
    let keeper = Program::open(&mut r, "vale0:k", &nmreq_register { nr_extra_bufs: 4, ..all() });
    let clean = only(&r);
    for round in 0..200 {
        let req = nmreq_register { nr_extra_bufs: rng.below(8), ..share(keeper.mem_id()) };
        let p = Program::open(&mut r, "vale0:p", &req);
        for dir in [Dir::Tx, Dir::Rx] {
            for k in 0..64 {
                match rng.below(4) {
                    0 => p.put(dir, k, keeper.buf(Dir::Rx, rng.below(64))),
                    1 => p.put(dir, k, rng.below(clean.bufs + 10)),
                    2 => p.put(dir, k, rng.next_u64() as u32),
                    _ => {}
                }
            }
        }
        // A list of others' buffers, with a loop.
        let head = p.buf(Dir::Tx, 0);
        let region = &r.regions.values().next().unwrap().region;
        if let Some(payload) = region.bufs().payload(head) {
            payload.store_u32(0, head);
        }
        r.unbind(p.id);
        let a = only(&r);
        assert_eq!((a.twice, a.bad, a.in_rings), (0, 0, clean.in_rings), "round {round}: {a:?}");
        if a.free < 400 {
            break; // The garbage has used up the region.
        }
    }
    r.unbind(keeper.id);
    let again = Program::open(&mut r, "vale0:k", &nmreq_register { nr_extra_bufs: 4, ..all() });
    assert_eq!((only(&r), again.mem_id()), (clean, keeper.mem_id()));
}

/// A program that dies while it exchanges buffers between two pipes, whose other ends live on.
#[test]
fn a_pipe_end_whose_program_died_keeps_no_buffer_of_another() {
    let mut r = registry();
    r.tunables.priv_ring_num = 40;
    let keep = Program::open(&mut r, "vale0:p", &all());
    let name = |id: &str| format!("vale0:p{id}");
    let [mut x, y] = ["{x", "{y"].map(|e| Program::open(&mut r, &name(e), &all()));
    let [mut far_x, _far_y] = ["}x", "}y"].map(|e| Program::open(&mut r, &name(e), &all()));
    // Some packets wait in x, so that its slots have owners on both sides.
    x.advance(Dir::Tx, 20);
    x.sync(Dir::Tx);
    far_x.sync(Dir::Rx);
    let clean = only(&r);
    assert!(clean.is_exact());
    y.put(Dir::Tx, 7, x.buf(Dir::Tx, 30));
    y.put(Dir::Tx, 8, far_x.buf(Dir::Rx, 4));
    y.put(Dir::Tx, 9, 1);
    y.put(Dir::Tx, 10, u32::MAX);
    y.put(Dir::Tx, 11, clean.bufs); // The last one: free.
    assert_eq!((only(&r).twice, only(&r).bad), (2, 3));
    let before = (0..64).map(|k| far_x.buf(Dir::Rx, k)).collect::<Vec<_>>();
    r.unbind(y.id);
    let a = only(&r);
    assert_eq!((a.twice, a.bad, a.lost, a.in_rings), (0, 0, 5, clean.in_rings), "{a:?}");
    assert_eq!(before, (0..64).map(|k| far_x.buf(Dir::Rx, k)).collect::<Vec<_>>(), "the living keep theirs");
    r.unbind(x.id);
    assert_eq!(only(&r).twice, 0);
    // Both pipes still work: what waited arrives.
    far_x.advance(Dir::Rx, 20);
    far_x.sync(Dir::Rx);
    assert_eq!(only(&r).twice, 0);
    r.unbind(keep.id);
}

#[test]
fn a_null_port_keeps_a_region_with_its_losses() {
    let mut r = registry();
    let a = Program::open(&mut r, "vale0:a", &all());
    let null = nmreq_register { nr_mode: NR_REG_NULL, nr_mem_id: a.mem_id(), ..Default::default() };
    let keeper = r.register(ME, "hold", &null).unwrap();
    a.put(Dir::Tx, 0, 0);
    r.unbind(a.id);
    assert_eq!((only(&r).lost, only(&r).in_rings), (1, 0));
    r.unbind(keeper);
    assert!(r.is_empty());
}
