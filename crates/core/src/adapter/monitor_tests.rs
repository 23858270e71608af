use super::*;
use crate::layout::Geometry;
use crate::sim::{Memory, Rng};
use ringway_os::mem::Map;
use std::collections::VecDeque;

const BUF: u32 = 128;

struct Bench {
    memory: Memory,
}

impl Bench {
    fn new(rings: u32, slots: u32) -> Self {
        Bench { memory: Memory::new(rings, slots, BUF, 0) }
    }

    fn ring(&mut self, dir: Dir, slots: u32) -> RingHandle {
        let g = Geometry { tx_rings: 1, rx_rings: 1, tx_slots: slots, rx_slots: slots };
        let map = Map::anonymous(crate::layout::state_memfd_bytes(&g)).unwrap();
        let shared = RingShared::new(&map, &g, dir, 0).unwrap();
        self.memory.ring(shared, dir, 0, None)
    }

    fn sink(&mut self, slots: u32) -> Sink {
        let ring = self.ring(Dir::Rx, slots);
        let public = ring.shared.clone();
        Sink { ring, public, bell: Arc::new(Doorbell::new().unwrap()) }
    }
}

/// What a reader of the sink gets: number, flags. Releases it all.
fn read(sink: &Sink) -> Vec<(u64, u16)> {
    let n = sink.ring.num_slots();
    let mut kring = sink.ring.load(1);
    MonitorRx.sync(&mut kring).unwrap();
    let mut out = vec![];
    let mut k = kring.rhead;
    while k != kring.hwtail {
        let word = sink.ring.ring.slots[k as usize].load();
        let payload = sink.ring.ring.bufs.payload(word.buf_idx()).unwrap();
        out.push((payload.load_u64(0).unwrap(), word.flags()));
        k = next(n, k);
    }
    kring.rtail = kring.hwtail;
    (kring.rhead, kring.rcur) = (kring.rtail, kring.rtail);
    MonitorRx.sync(&mut kring).unwrap();
    sink.ring.save(&kring);
    out
}

fn number(ring: &RingHandle, k: u32, seq: u64, flags: u16) {
    let slot = &ring.ring.slots[k as usize];
    let idx = slot.load().buf_idx();
    ring.ring.bufs.payload(idx).unwrap().store_u64(0, seq);
    slot.store(SlotWord::new(idx, 64, flags));
}

fn all_buffers(rings: &[&RingHandle]) -> Vec<u32> {
    let mut out: Vec<u32> =
        rings.iter().flat_map(|r| r.ring.slots.iter().map(|s| s.load().buf_idx())).collect();
    out.sort_unstable();
    out
}

/// Batches of every size at every place, against a queue: copies and swaps show the newest that fit, in order, and count the rest.
#[test]
fn a_sink_keeps_the_newest_that_fit_whatever_the_sizes() {
    for (seed, zcopy) in (0..200).flat_map(|s| [(s, false), (s, true)]) {
        let mut rng = Rng::new(seed);
        let (slots, sink_slots) = (2 + rng.below(15), 2 + rng.below(15));
        let mut bench = Bench::new(2, 16);
        let (ring, sink) = (bench.ring(Dir::Tx, slots), bench.sink(sink_slots));
        let before = all_buffers(&[&ring, &sink.ring]);
        let mut model: VecDeque<(u64, u16)> = VecDeque::new();
        let (mut at, mut seq, mut skipped) = (0, 0u64, 0u64);
        for _ in 0..60 {
            let count = rng.below(slots);
            let to = forward(slots, at, count);
            let mut batch = vec![];
            let mut k = at;
            while k != to {
                let flags = if rng.one_in(3) { NS_MOREFRAG | NS_TXMON } else { 0 };
                number(&ring, k, seq, flags);
                batch.push((seq, flags | NS_TXMON));
                seq += 1;
                k = next(slots, k);
            }
            let room = sink_slots as usize - 1 - model.len();
            let lost = batch.len().saturating_sub(room);
            skipped += lost as u64;
            model.extend(&batch[lost..]);
            if zcopy {
                let held: Vec<u32> = ring.ring.slots.iter().map(|s| s.load().buf_idx()).collect();
                sink.swap(&ring, at, to, Seen::Tx);
                let mut k = at;
                for i in 0..batch.len() {
                    let word = ring.ring.slots[k as usize].load();
                    let swapped = word.buf_idx() != held[k as usize];
                    assert_eq!(swapped, i >= lost, "seed {seed}");
                    assert_eq!(word.flags() & NS_BUF_CHANGED != 0, swapped);
                    k = next(slots, k);
                }
            } else {
                copy_slots(&sink, &ring, Span { num_slots: slots, from: at, to }, Seen::Tx);
            }
            at = to;
            if rng.one_in(2) {
                assert_eq!(read(&sink), model.drain(..).collect::<Vec<_>>(), "seed {seed} zcopy {zcopy}");
            }
            assert_eq!(all_buffers(&[&ring, &sink.ring]), before, "each buffer has one owner");
        }
        let state = &*sink.ring.shared.state;
        assert_eq!(state.counters[Drop::ReceiverFull as usize].get(), skipped, "seed {seed}");
    }
}

#[test]
fn a_frame_longer_than_the_monitors_buffer_is_cut() {
    let mut bench = Bench::new(1, 8);
    let ring = bench.ring(Dir::Tx, 8);
    let mut small = Bench { memory: Memory::new(1, 8, 64, 0) };
    let sink = small.sink(8);
    number(&ring, 0, 7, 0);
    let idx = ring.ring.slots[0].load().buf_idx();
    ring.ring.slots[0].store(SlotWord::new(idx, 100, 0));
    copy_slots(&sink, &ring, Span { num_slots: 8, from: 0, to: 1 }, Seen::Rx);
    assert_eq!(sink.ring.ring.slots[0].load().len(), 64);
    assert_eq!(read(&sink), [(7, 0)]);
}

#[test]
fn what_is_no_buffer_is_neither_read_nor_swapped() {
    let mut bench = Bench::new(2, 8);
    let (ring, sink) = (bench.ring(Dir::Rx, 8), bench.sink(8));
    for idx in [0, 1, u32::MAX, ring.ring.bufs.count()] {
        ring.ring.slots[0].store(SlotWord::new(idx, 64, 0));
        sink.swap(&ring, 0, 1, Seen::Rx);
        assert_eq!(ring.ring.slots[0].load().buf_idx(), idx);
    }
    assert_eq!(read(&sink), []);
    ring.ring.slots[1].store(SlotWord::new(u32::MAX, 64, 0));
    copy_slots(&sink, &ring, Span { num_slots: 8, from: 1, to: 2 }, Seen::Rx);
    assert_eq!(sink.ring.ring.slots[0].load().len(), 0, "the slot is there, without bytes");
    assert_eq!(sink.ring.shared.state.counters[Drop::BadSlot as usize].get(), 4);
}
