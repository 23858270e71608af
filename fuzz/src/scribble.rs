//! A writer on mapped rings. Two ports of a switch and one pipe carry numbered frames; a third port of the switch, and another pipe, are
//! written over as the bytes say. Nobody panics, and those who are not written over lose nothing.

use crate::input::Input;
use ringway_abi::{NR_REG_ALL_NIC, nmreq_register};
use ringway_core::adapter::SyncFlags;
use ringway_core::control::{Asker, BindingId, Registry, Tunables};
use ringway_core::kring::{SyncOutcome, next};
use ringway_core::layout::Dir;
use ringway_core::lease::{Endpoint, GrantKind, PeerGrant, PeerSource};
use ringway_os::mem::{Map, SharedSlice};
use ringway_os::ring::SlotWord;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

const USER: Asker = Asker { uid: 1000 };
const SLOTS: u32 = 16;
/// Steps of one input, at most.
const MAX_STEPS: usize = 48;

struct End<'r> {
    end: Endpoint,
    binding: BindingId,
    registry: &'r Registry,
}

struct Source<'r>(&'r Registry, BindingId);

impl PeerSource for Source<'_> {
    fn peer(&mut self, index: u8) -> Option<PeerGrant> {
        self.0.peer_grant(self.1, index).ok()
    }
}

impl<'r> End<'r> {
    fn open(registry: &'r Registry, binding: BindingId, me: u32) -> Self {
        let grant = registry.grant(binding).expect("it is bound");
        End { end: Endpoint::new(grant, me).expect("the memory holds the rings"), binding, registry }
    }

    fn sync(&mut self, dir: Dir) -> SyncOutcome {
        self.end.sync(dir, 0, SyncFlags::empty(), &mut Source(self.registry, self.binding))
    }

    /// Puts a frame into the first free slot and syncs.
    fn send(&mut self, frame: &[u8]) -> SyncOutcome {
        let handle = self.end.bound(Dir::Tx)[0].handle();
        let header = &handle.ring.header;
        let head = header.head.load(Relaxed);
        assert_ne!(head, header.tail.load(Relaxed), "no room");
        let slot = &handle.ring.slots[head as usize];
        let idx = slot.load().buf_idx();
        handle.ring.bufs.payload(idx).expect("our own buffer").copy_from(frame);
        slot.store(SlotWord::new(idx, frame.len() as u16, 0));
        let to = next(handle.num_slots(), head);
        header.cur.store(to, Relaxed);
        header.head.store(to, Relaxed);
        self.sync(Dir::Tx)
    }

    /// Everything that is there.
    fn receive(&mut self) -> Vec<Vec<u8>> {
        assert_eq!(self.sync(Dir::Rx), SyncOutcome::Done);
        let handle = self.end.bound(Dir::Rx)[0].handle();
        let header = &handle.ring.header;
        let (mut at, tail) = (header.head.load(Relaxed), header.tail.load(Relaxed));
        let mut out = vec![];
        while at != tail {
            let word = handle.ring.slots[at as usize].load();
            let payload = handle.ring.bufs.payload(word.buf_idx()).expect("our own buffer");
            out.push(payload.slice(0, word.len().into()).to_vec());
            at = next(handle.num_slots(), at);
        }
        header.cur.store(at, Relaxed);
        header.head.store(at, Relaxed);
        out
    }
}

fn frame(seq: u32) -> [u8; 60] {
    let mut f = [0xff; 60];
    f[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 7]);
    f[14..18].copy_from_slice(&seq.to_le_bytes());
    f
}

/// Writes where the input says: the start of a map (records, rings, states) rather than its buffers.
fn write(input: &mut Input<'_>, map: &Arc<Map>, ring_words: &[usize]) {
    let words: SharedSlice<AtomicU32> =
        SharedSlice::new(map, 0, map.len_bytes() / 4).expect("it holds its words");
    for _ in 0..=input.u8() % 16 {
        let at = match input.u8() {
            // Near the start of a ring or state.
            n @ 0..0xc0 => ring_words[usize::from(n) % ring_words.len()] + usize::from(input.u8()),
            _ => input.u16().into(),
        };
        let value = match input.u8() {
            0xff => input.u32(),
            0xfe => u32::MAX - u32::from(input.u8()),
            n => u32::from(n) % 40,
        };
        if let Some(word) = words.get(at) {
            word.store(value, Relaxed);
        }
    }
}

/// The broker's repair of locks that nobody living holds.
fn break_locks(registry: &Registry) {
    registry.break_locks(|holder| !(100..110).contains(&holder));
}

/// Bytes decide what is written over, and when who syncs.
///
/// # Panics
/// If somebody who is not written over loses a frame.
pub fn scribble(data: &[u8]) {
    let input = &mut Input::new(data);
    let mut registry = Registry::new(Tunables::default());
    let req = nmreq_register {
        nr_mode: NR_REG_ALL_NIC,
        nr_tx_slots: SLOTS,
        nr_rx_slots: SLOTS,
        ..Default::default()
    };
    let names = ["vale0:a", "vale0:b", "vale0:h", "x{1", "x}1", "h{1", "h}1"];
    let ids = names.map(|n| registry.register(USER, n, &req).expect("a legal name"));
    {
        let registry = &registry;
        let mut number = 100..;
        let mut open = |id| End::open(registry, id, number.next().unwrap_or(0));
        let [mut a, mut b, mut h, mut p, mut q, mut hp, mut hq] = ids.map(&mut open);
        let hostile = [&h, &hp, &hq].map(|e| e.end.grant().clone());
        let mut maps = vec![];
        for g in &hostile {
            let rings = g.tx.offsets.iter().chain(&g.rx.offsets).map(|o| *o as usize / 4).collect::<Vec<_>>();
            maps.push((g.region.map.clone(), rings));
            // Each ring's state, its fields a cache line apart.
            let lines = (0..g.state.map.len_bytes() / 256).map(|i| i * 64).take(64).collect::<Vec<_>>();
            maps.push((g.state.map.clone(), lines));
        }
        let page = match &hostile[0].kind {
            GrantKind::Vale { page, .. } => page.map.clone(),
            _ => unreachable!("a switch port"),
        };
        let mut page_is_good = true;
        let mut seq = 0;
        for _ in 0..MAX_STEPS {
            if input.is_empty() {
                break;
            }
            match input.u8() % 12 {
                0..=3 => {
                    let (map, rings) = &maps[usize::from(input.u8()) % maps.len()];
                    write(input, map, rings);
                    // Waiting for a lock that nobody holds takes a millisecond: not in most runs.
                    if input.u8() % 8 != 7 {
                        break_locks(registry);
                    }
                }
                4 => {
                    // All members share it: from here on the switch may lose frames.
                    page_is_good = false;
                    write(input, &page, &[0, 256, 512, 1024]);
                }
                5 => drop(h.sync(Dir::Tx)),
                6 => drop(h.sync(Dir::Rx)),
                7 => drop((hp.sync(Dir::Tx), hq.sync(Dir::Rx))),
                8 => drop((hq.sync(Dir::Tx), hp.sync(Dir::Rx))),
                9 => break_locks(registry),
                10 => drop(registry.list(USER)),
                _ => {
                    let e = *input.pick(&[0, 1, 2]);
                    let end = &[&h, &hp, &hq][e].end;
                    for dir in [Dir::Tx, Dir::Rx] {
                        let ring = &end.bound(dir)[0];
                        let _ = (ring.ready(), ring.announce(3), ring.has_moved(1), ring.peer_cpu());
                    }
                }
            }
            seq += 1;
            // A pipe that nobody writes over.
            assert_eq!(p.send(&frame(seq)), SyncOutcome::Done);
            assert_eq!(q.receive(), [frame(seq)]);
            assert_eq!(p.sync(Dir::Tx), SyncOutcome::Done);
            // Two members of the switch: broadcasts go to the hostile one as well.
            let outcome = a.send(&frame(seq));
            let got = b.receive();
            a.receive();
            if page_is_good {
                assert_eq!(outcome, SyncOutcome::Done);
                assert!(got.contains(&frame(seq).to_vec()), "{seq}: {got:?}");
            } else if a.sync(Dir::Tx) != SyncOutcome::Done {
                break;
            }
        }
    }
    ids.into_iter().for_each(|id| registry.unbind(id));
    drop(registry.take_retired());
    assert!(registry.is_empty(), "left: {registry:?}");
}
