//! Every buffer has one owner, whatever safe code does with views: tested where the type system does not settle it (`src/cannot.rs` has what
//! it refuses).

use ringway::{
    Csb, Dir, Errno, ExtraBuf, NS_BUF_CHANGED, Netmap, Port, SwapError, SyncError, Tunables, swap,
};
use ringway::{Payload, RxRing, TxRing};
use std::collections::BTreeSet;
use std::mem::forget;
use std::panic::{AssertUnwindSafe, catch_unwind};

type Outcome = Result<(), Box<dyn std::error::Error>>;

/// The buffers of all slots that are ours, on a switch port of the engine's too, and of all extra buffers; each once. (Both ends of a pipe
/// have slots for its buffers; only the window says which end has them.)
fn census(ports: &mut [Port], extras: &[ExtraBuf]) -> usize {
    let mut all: Vec<_> = extras.iter().map(|e| e.buf_idx().unwrap()).collect();
    for port in ports {
        let is_switch = port.name().starts_with("vale");
        let (tx, rx) = port.rings();
        for ring in tx {
            let slots = if is_switch { ring.num_slots() } else { ring.space() };
            all.extend(
                (0..slots)
                    .map_while(|k| ring.peek((ring.head() + k) % ring.num_slots()))
                    .map(|w| w.buf_idx()),
            );
        }
        for ring in rx {
            let slots = if is_switch { ring.num_slots() } else { ring.len() };
            all.extend(
                (0..slots)
                    .map_while(|k| ring.peek((ring.head() + k) % ring.num_slots()))
                    .map(|w| w.buf_idx()),
            );
        }
    }
    let unique: BTreeSet<_> = all.iter().collect();
    assert_eq!(unique.len(), all.len(), "a buffer has two owners");
    all.len()
}

/// Brings all buffers of pipes back to their senders.
fn come_to_rest(ports: &mut [Port]) -> Result<(), SyncError> {
    for _ in 0..2 {
        for port in &mut *ports {
            port.rxsync()?;
            port.rx(0).release(u32::MAX);
            port.rxsync()?;
        }
        ports.iter_mut().try_for_each(Port::txsync)?;
    }
    Ok(())
}

/// Random numbers, the same ones each time.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u32) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % u64::from(n)) as u32
    }
}

#[test]
fn whatever_is_swapped_forwarded_forgotten_and_synced_each_buffer_has_one_owner() -> Outcome {
    let netmap = Netmap::embedded();
    let keeper = netmap.open("vale9:keeper")?;
    let open = |n: &str| netmap.builder(n).slots(8).extra_buffers(6).share_memory_with(&keeper).open();
    // Pipes exchange buffers on each sync; the switch copies.
    let names = ["netmap:x{1", "netmap:x}1", "netmap:y{1", "netmap:y}1", "vale0:a", "vale0:b"];
    let mut ports = names.iter().map(|n| open(n)).collect::<Result<Vec<_>, _>>()?;
    assert!(ports.iter().all(|p| p.mem_id() == keeper.mem_id() && p.extra_left() == 6));
    let mut extras: Vec<_> = ports.iter().flat_map(|p| (0..6).map_while(|_| p.take_extra())).collect();
    let all = census(&mut ports, &extras);
    assert_eq!(all, 4 * 7 + 2 * 16 + 6 * 6);
    let mut dice = Dice(0x5eed);
    for round in 0..60_000 {
        if round % 64 == 0 {
            census(&mut ports, &extras);
        }
        let (a, b) = (dice.below(6) as usize, dice.below(6) as usize);
        let (k, j, what) = (dice.below(9), dice.below(9), dice.below(12));
        let (e, f) = (dice.below(36) as usize, dice.below(36) as usize);
        if what == 0 {
            let _ = if dice.below(2) == 0 { ports[a].txsync() } else { ports[a].rxsync() };
            continue;
        }
        if what == 1 {
            let len = 14 + dice.below(46) as usize;
            let mut tx = ports[a].tx(0);
            tx.send(&vec![0xff; len]);
            tx.sync()?;
            continue;
        }
        if what == 2 && e != f {
            let [one, other] = extras.get_disjoint_mut([e, f]).unwrap();
            swap(one.place(), other.place())?;
            continue;
        }
        if what == 3 {
            extras.swap(e, f);
            continue;
        }
        let (mut tx, mut rx);
        if a == b {
            let (mut all_tx, mut all_rx) = ports[a].rings();
            (tx, rx) = (all_tx.remove(0), all_rx.remove(0));
        } else {
            let [one, other] = ports.get_disjoint_mut([a, b]).unwrap();
            (tx, rx) = (one.tx(0), other.rx(0));
        }
        match what {
            4 => drop(tx.place(k).and_then(|p| swap(p, rx.place(j)?))),
            5 => drop(tx.place(k).and_then(|p| swap(p, extras[e].place()))),
            6 => drop(rx.place(k).and_then(|p| swap(extras[e].place(), p))),
            7 => {
                tx.forward(&mut rx, k)?;
            }
            8 => drop((tx.set_head(k), rx.set_cur(j), rx.set_head(k))),
            9 => {
                // What was published is all that was done.
                tx.forward(&mut rx, k)?;
                forget(tx);
                if dice.below(2) == 0 {
                    forget(rx);
                }
            }
            10 => drop((tx.advance(k), rx.release(j), rx.hold(k))),
            _ => drop((tx.sync(), rx.sync())),
        }
    }
    come_to_rest(&mut ports)?;
    assert_eq!(census(&mut ports, &extras), all, "a buffer has no owner");
    // Closed in any order, all of them can be had again.
    while !ports.is_empty() {
        drop(ports.swap_remove(dice.below(ports.len() as u32) as usize));
    }
    drop(extras);
    let again = names.iter().map(|n| open(n)).collect::<Result<Vec<_>, _>>()?;
    assert!(again.iter().all(|p| p.extra_left() == 6));
    Ok(())
}

#[test]
fn a_closure_that_panics_hands_nothing_over() -> Outcome {
    let netmap = Netmap::embedded();
    let (mut a, mut b) = (netmap.open("netmap:x{1")?, netmap.open("netmap:x}1")?);
    let mut tx = a.tx(0);
    let space = tx.space();
    let mut left = 3;
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        tx.fill(9, |slot| {
            assert!(left > 0, "as meant");
            left -= 1;
            slot.set(60, 0);
            true
        })
    }));
    assert!(panicked.is_err());
    assert_eq!((tx.space(), tx.head()), (space, 0));
    tx.fill(2, |slot| {
        slot.set(60, 0);
        true
    });
    drop(tx);
    // While it unwinds, the view is dropped: what was advanced over before is published.
    a.txsync()?;
    b.rxsync()?;
    let panicked = catch_unwind(AssertUnwindSafe(|| b.rx(0).drain(9, |_| panic!("as meant"))));
    assert!(panicked.is_err());
    let mut rx = b.rx(0);
    assert_eq!((rx.len(), rx.drain(9, |_| true), rx.len()), (2, 2, 0));
    Ok(())
}

#[test]
fn rings_of_every_size_wrap_around() -> Outcome {
    for slots in [1, 2, 3, 4, 5, 7, 1024, 16_384, 16_385, u32::MAX] {
        let netmap = Netmap::embedded();
        let open = |name: &str| netmap.builder(name).slots(slots).open();
        let (mut a, mut b) = match (open("netmap:x{1"), open("netmap:x}1")) {
            (Ok(a), Ok(b)) => (a, b),
            (a, _) => {
                assert_eq!(a.unwrap_err().errno(), Errno::EINVAL, "{slots} slots");
                continue;
            }
        };
        let n = a.tx(0).num_slots();
        assert!(n >= 2, "{slots} slots became {n}");
        for round in 0..3 * n.min(2000) {
            let burst = 1 + round % (n - 1);
            let mut sent = 0;
            let mut tx = a.tx(0);
            tx.sync()?;
            tx.fill(burst, |slot| {
                slot.payload().store_u32(0, sent);
                slot.set(60, 0);
                sent += 1;
                true
            });
            tx.sync()?;
            assert_eq!((sent, tx.slot(tx.space()).is_none()), (burst, true));
            let mut rx = b.rx(0);
            rx.sync()?;
            let mut next = 0;
            rx.drain(u32::MAX, |slot| {
                assert_eq!(slot.payload().load_u32(0), Some(next));
                next += 1;
                true
            });
            rx.sync()?;
            assert_eq!((next, rx.len(), rx.slot_at(n).is_none(), rx.peek(n)), (burst, 0, true, None));
            assert!(!rx.set_head(n) && !rx.set_cur(n));
        }
    }
    Ok(())
}

#[test]
fn a_buffer_longer_than_a_slot_can_say_takes_two_slots() -> Outcome {
    let mut tunables = Tunables { buf_num: 500, priv_buf_num: 500, ..Tunables::default() };
    (tunables.buf_size, tunables.priv_buf_size) = (65_536, 65_536);
    let netmap = Netmap::embedded_with(tunables);
    let open = |name: &str| netmap.builder(name).slots(8).open();
    let (mut a, mut b) = (open("netmap:x{1")?, open("netmap:x}1")?);
    assert_eq!(a.buf_size(), 65_536);
    let mut out = vec![0; 70_000];
    for len in [65_535, 65_536, 65_537] {
        let packet: Vec<u8> = (0..len).map(|i| (i * 7) as u8).collect();
        assert!(a.tx(0).send(&packet));
        a.txsync()?;
        b.rxsync()?;
        assert_eq!(b.rx(0).recv(&mut out), Some(len));
        assert_eq!(out[..len], packet);
    }
    Ok(())
}

#[test]
fn packets_that_do_not_fit_are_left_where_they_are_not_called_an_offset() -> Outcome {
    let netmap = Netmap::embedded();
    let open = |name: &str| netmap.builder(name).offset(0).max_offset(256).slots(8).open();
    let (mut source, mut here) = (open("netmap:x{1")?, open("netmap:x}1")?);
    let mut onward = open("netmap:x{2")?;
    let long = vec![1; 2 * source.buf_size()];
    assert!(source.tx(0).send(&long));
    source.txsync()?;
    here.rxsync()?;
    assert_eq!(here.rx(0).first_packet(), Some(3));
    assert_eq!(onward.tx(0).forward(&mut here.rx(0), 2), Ok(0));
    onward.tx(0).advance(5);
    assert_eq!(onward.tx(0).forward(&mut here.rx(0), 9), Ok(0), "two slots are free");
    assert_eq!(here.rx(0).len(), 3);
    Ok(())
}

#[test]
fn rings_that_a_sync_loop_serves_take_no_part_in_swaps() -> Outcome {
    let netmap = Netmap::embedded();
    let mut guest = netmap.builder("vale0:vm").extra_buffers(1).open()?;
    let mut other = netmap.builder("vale0:b").share_memory_with(&guest).open()?;
    let mut extra = guest.take_extra().unwrap();
    swap(guest.tx(0).place(0)?, other.tx(0).place(0)?)?;
    let (csb, _) = Csb::create(2)?;
    guest.enter_csb(&csb)?;
    assert_eq!(guest.tx(0).place(0).unwrap_err(), SwapError::Shared);
    assert_eq!(other.tx(0).forward(&mut guest.rx(0), 1), Err(SwapError::Shared));
    // Extra buffers lie in no slot that the guest could write.
    swap(extra.place(), other.tx(0).place(0)?)?;
    Ok(())
}

#[test]
fn flags_neither_set_nor_take_the_mark_of_a_swap() -> Outcome {
    let netmap = Netmap::embedded();
    let mut port = netmap.builder("vale0:a").extra_buffers(1).open()?;
    let mut extra = port.take_extra().unwrap();
    let mut tx = port.tx(0);
    tx.slot(0).unwrap().set_flags(NS_BUF_CHANGED);
    tx.slot(1).unwrap().set(60, u16::MAX);
    assert_eq!((tx.slot(0).unwrap().flags(), tx.slot(1).unwrap().flags()), (0, !NS_BUF_CHANGED));
    swap(tx.place(0)?, extra.place())?;
    tx.slot(0).unwrap().set(60, 0);
    assert_eq!(tx.slot(0).unwrap().flags(), NS_BUF_CHANGED);
    Ok(())
}

#[test]
fn extra_buffers_of_a_closed_port_go_nowhere() -> Outcome {
    let netmap = Netmap::embedded();
    let a = netmap.builder("vale0:a").extra_buffers(2).open()?;
    let mut b = netmap.builder("vale0:b").extra_buffers(2).share_memory_with(&a).open()?;
    let (mut one, mut two) = (a.take_extra().unwrap(), a.take_extra().unwrap());
    let mut alive = b.take_extra().unwrap();
    drop(a);
    let idx = alive.buf_idx();
    assert_eq!(swap(one.place(), two.place()), Err(SwapError::NoSlot));
    assert_eq!(swap(one.place(), alive.place()), Err(SwapError::NoSlot));
    assert_eq!(swap(alive.place(), one.place()), Err(SwapError::NoSlot));
    assert_eq!(swap(b.tx(0).place(0)?, one.place()), Err(SwapError::NoSlot));
    assert_eq!((one.buf_idx(), one.payload(&b).is_none(), alive.buf_idx()), (None, true, idx));
    Ok(())
}

#[test]
fn ports_and_views_go_to_other_threads_and_payloads_are_shared() {
    fn send<T: Send>() {}
    fn sync<T: Sync>() {}
    send::<Port>();
    send::<TxRing<'_>>();
    send::<RxRing<'_>>();
    send::<ExtraBuf>();
    sync::<ExtraBuf>();
    sync::<Netmap>();
    send::<Payload<'_>>();
    assert_eq!(Netmap::embedded().open("vale0:a").unwrap().bound_rings(Dir::Tx), 0..1);
}
