//! Small parts of the engine, each alone, in one thread: what a sync costs before its driver, a slot through a pipe, an address in
//! the MAC table, a batch through the switch.
//!
//! `cargo bench -p ringway-core --bench micro [-- NAME]`. docs/measurements.md says how to read it.

#[path = "hot/bed.rs"]
#[allow(dead_code, reason = "the other bench needs more of it")]
mod bed;
#[path = "hot/case.rs"]
#[allow(dead_code, reason = "the other bench needs more of it")]
mod case;
#[path = "hot/client.rs"]
mod client;

use bed::{Bed, mac};
use case::{Case, Kind, Where, cases};
use client::Client;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ringway_core::adapter::SyncFlags;
use ringway_core::adapter::null::Null;
use ringway_core::layout::Dir;
use ringway_core::vale::mac_table::{self, Place};
use ringway_os::mem::{Map, SharedRef};
use ringway_os::state::SwitchPage;
use std::hint::black_box;
use std::sync::atomic::Ordering::{Relaxed, Release};

/// Frames of 60 bytes, not touched, in one thread.
fn case(kind: Kind, batch: u32) -> Case {
    Case { kind, batch, place: Where::Thread, ..cases()[0] }
}

/// A sync with a driver that does nothing: lock, look at the cursors, publish. Once with nothing new, once with a slot handed over each
/// time (until the ring is full; then it is reset).
fn prologue(c: &mut Criterion) {
    let case = case(Kind::Pipe, 1);
    let (bed, _fds) = Bed::create(case.stride);
    bed.set_up(&case);
    let ring = bed.ring(&case, 0, Dir::Tx);
    let mut group = c.benchmark_group("prologue");
    group.bench_function("idle", |b| b.iter(|| black_box(ring.sync(&mut Null, 2, SyncFlags::empty()))));
    let mut head = 0;
    group.bench_function("one slot", |b| {
        b.iter(|| {
            head += 1;
            if head == bed::SLOTS {
                ring.reset();
                head = 1;
            }
            ring.ring.header.cur.store(head, Relaxed);
            ring.ring.header.head.store(head, Release);
            black_box(ring.sync(&mut Null, 2, SyncFlags::empty()))
        });
    });
    group.finish();
}

/// Batches filled, sent, received and released by one thread; the time is that of a whole batch.
fn batches(c: &mut Criterion, name: &str, kind: Kind, sizes: &[u32]) {
    let mut group = c.benchmark_group(name);
    for batch in sizes {
        let case = case(kind, *batch);
        let (bed, _fds) = Bed::create(case.stride);
        bed.set_up(&case);
        let mut tx = Client::new(bed.ring(&case, 0, Dir::Tx), bed.sender(&case));
        let mut rx = Client::new(bed.ring(&case, 1, Dir::Rx), bed.receiver(&case));
        group.throughput(Throughput::Elements(u64::from(*batch)));
        group.bench_function(BenchmarkId::from_parameter(batch), |b| {
            b.iter(|| {
                let sent = tx.send(&case);
                assert_eq!((sent, rx.receive(&case)), (case.batch, case.batch));
            });
        });
    }
    group.finish();
}

fn slot_exchange(c: &mut Criterion) {
    batches(c, "slot exchange", Kind::Pipe, &[1, 256]);
}

fn switch_batch(c: &mut Criterion) {
    batches(c, "switch batch", Kind::Vale, &[1, 16, 256]);
}

/// One address after the other, found or seen again.
fn mac_lookup(c: &mut Criterion) {
    let page: SharedRef<SwitchPage> =
        SharedRef::new(&Map::anonymous(size_of::<SwitchPage>()).expect("memory"), 0).expect("it fits");
    let place = Place { port: 1, tag: 1 };
    let mut group = c.benchmark_group("MAC lookup");
    for count in [2, 1000] {
        for i in 0..count {
            mac_table::learn(&page, mac(1, i), place, |_| true);
        }
        let next = |at: u32| if at + 1 == count { 0 } else { at + 1 };
        let mut at = 0;
        group.bench_function(BenchmarkId::new("find", count), |b| {
            b.iter(|| {
                at = next(at);
                black_box(mac_table::lookup(&page, mac(1, at)))
            });
        });
        group.bench_function(BenchmarkId::new("learn", count), |b| {
            b.iter(|| {
                at = next(at);
                mac_table::learn(&page, mac(1, at), place, |_| true);
            });
        });
    }
    group.finish();
}

criterion_group!(micro, prologue, slot_exchange, mac_lookup, switch_batch);
criterion_main!(micro);
