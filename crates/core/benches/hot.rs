//! The hot paths, between two processes and in one thread: switch, pipe, and next to them what the machine itself gives in the
//! same run (cache line latency, a bare ring of descriptors, copying a frame).
//!
//! `cargo bench -p ringway-core --bench hot [-- FILTER...]`: cases whose name contains one of the words (ends
//! with it, if a `$` follows). `HOT_SLICES` and
//! `HOT_SLICE_MS` set how often and how long each case is measured. docs/measurements.md says how to read the table.
//!
//! The second process is this program once more; it opens the memory of the first through `/proc/PID/fd`.

use ringway_core::adapter::pipe::{PipeRx, PipeTx};
use ringway_core::adapter::{RingDriver, SyncFlags};
use ringway_core::kring::{RingHandle, distance};
use ringway_core::layout::{
    Dir, Geometry, PoolWish, RegionLayout, RegionWish, RingShared, RingView, state_memfd_bytes,
};
use ringway_core::vale::{Known, Peer, PeerTable, Seat, ValeRx, ValeTx, mac_table, seat_port};
use ringway_os::event::Doorbell;
use ringway_os::mem::{Map, Memfd, SharedRef, SharedSlice, page_size};
use ringway_os::ring::SlotWord;
use ringway_os::state::SwitchPage;
use ringway_os::sys::{monotonic_nanos, pin_to_cpu, thread_cpu_nanos, yield_now};
use std::hint::black_box;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::time::Duration;

const SLOTS: u32 = 1024;
const GEOMETRY: Geometry = Geometry { tx_rings: 1, rx_rings: 1, tx_slots: SLOTS, rx_slots: SLOTS };
/// Most slots that a receiver releases at once.
const RX_BURST: u32 = 256;
/// A sender waits for room for its batch, but never for more than this.
const TX_ROOM: u32 = 512;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    /// One cache line there and back.
    Latency,
    /// Descriptors of 16 bytes, nothing else.
    Spsc,
    /// `copy_frame` from ring to ring.
    Copy,
    Vale,
    Pipe,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Where {
    /// A process on each of two processors.
    Two,
    /// Two processes on one processor.
    One,
    /// One thread.
    Thread,
}

/// One case. Its text form goes to the second process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Case {
    kind: Kind,
    place: Where,
    batch: u32,
    len: u32,
    /// Payload written by the sender and read by the receiver.
    touch: bool,
    /// MAC addresses that the sender writes into its frames in turn, destinations and sources each; 0: it leaves them alone.
    dsts: u32,
    srcs: u32,
    stride: u32,
}

impl Case {
    fn name(&self) -> String {
        let mut s = format!("{:?} {:?} {}B b{}", self.kind, self.place, self.len, self.batch).to_lowercase();
        if self.touch {
            s += " touch";
        }
        if self.dsts > 0 {
            s += &format!(" d{} s{}", self.dsts, self.srcs);
        }
        if self.stride != 2112 {
            s += &format!(" stride{}", self.stride);
        }
        s
    }

    fn to_arg(self) -> String {
        let Case { kind, place, batch, len, touch, dsts, srcs, stride } = self;
        format!("{},{},{batch},{len},{},{dsts},{srcs},{stride}", kind as u32, place as u32, u32::from(touch))
    }

    fn from_arg(s: &str) -> Self {
        let v: Vec<u32> = s.split(',').map(|x| x.parse().unwrap()).collect();
        Case {
            kind: [Kind::Latency, Kind::Spsc, Kind::Copy, Kind::Vale, Kind::Pipe][v[0] as usize],
            place: [Where::Two, Where::One, Where::Thread][v[1] as usize],
            batch: v[2],
            len: v[3],
            touch: v[4] != 0,
            dsts: v[5],
            srcs: v[6],
            stride: v[7],
        }
    }
}

/// Memory that both processes map: regions, states, the switch with what the bench itself needs behind it.
struct Bed {
    layout: RegionLayout,
    region: [Arc<Map>; 2],
    state: [Arc<Map>; 2],
    extra: Arc<Map>,
}

const SCRATCH_AT: usize = size_of::<SwitchPage>().next_multiple_of(4096);
const SCRATCH_WORDS: usize = 2 * SLOTS as usize + 512;

impl Bed {
    fn layout(stride: u32) -> RegionLayout {
        let floor = RegionWish {
            ifs: PoolWish { objsize: 1024, objtotal: 2 },
            rings: PoolWish { objsize: 20480, objtotal: 4 },
            bufs: PoolWish { objsize: stride, objtotal: 4098 },
        };
        RegionWish::for_port(&floor, &GEOMETRY, 0, 0).lay_out(true).unwrap()
    }

    fn create(stride: u32) -> (Self, Vec<Memfd>) {
        let layout = Self::layout(stride);
        let make = |len: usize| Memfd::create("hot", len).unwrap();
        let region = layout.memsize as usize + page_size();
        let state = state_memfd_bytes(&GEOMETRY);
        let fds =
            vec![make(region), make(region), make(state), make(state), make(SCRATCH_AT + SCRATCH_WORDS * 8)];
        (Self::of(&fds, stride), fds)
    }

    fn of(fds: &[Memfd], stride: u32) -> Self {
        let m: Vec<_> = fds.iter().map(|f| f.map().unwrap()).collect();
        Bed {
            layout: Self::layout(stride),
            region: [m[0].clone(), m[1].clone()],
            state: [m[2].clone(), m[3].clone()],
            extra: m[4].clone(),
        }
    }

    fn page(&self) -> SharedRef<SwitchPage> {
        SharedRef::new(&self.extra, 0).unwrap()
    }

    fn scratch(&self) -> SharedSlice<AtomicU64> {
        SharedSlice::new(&self.extra, SCRATCH_AT, SCRATCH_WORDS).unwrap()
    }

    /// The ring of one port. The ends of a pipe lie in one region.
    fn ring(&self, case: &Case, port: usize, dir: Dir) -> RingHandle {
        let object = 2 * port + usize::from(dir == Dir::Rx);
        let ofs = self.layout.rings.offset + object as u64 * u64::from(self.layout.rings.objsize);
        let region = &self.region[if case.kind == Kind::Pipe { 0 } else { port }];
        RingHandle {
            ring: RingView::new(region, &self.layout, ofs, SLOTS).unwrap(),
            shared: RingShared::new(&self.state[port], &GEOMETRY, dir, 0).unwrap(),
            dir,
        }
    }

    /// Port 0 sends to port 1.
    fn set_up(&self, case: &Case) {
        for (port, dir) in [(0, Dir::Tx), (1, Dir::Rx)] {
            let handle = self.ring(case, port, dir);
            let first = if case.kind == Kind::Pipe || dir == Dir::Tx { 2 } else { 2 + SLOTS };
            for (k, slot) in handle.ring.slots.iter().enumerate() {
                let idx = first + k as u32;
                slot.store(SlotWord::new(idx, 0, 0));
                let payload = handle.ring.bufs.payload(idx).unwrap();
                payload.copy_from(&[7; 2048]);
                payload.store_u64(0, mac(1, 0) | mac(0, 0) << 48);
                payload.store_u64(8, mac(0, 0) >> 16 | 0x0008 << 32);
            }
            handle.reset();
        }
        let page = self.page();
        for (port, count) in [(0, case.srcs.max(1)), (1, case.dsts.max(1))] {
            seat_port(&page, port, 1 + u32::from(port));
            let place = mac_table::Place { port, tag: mac_table::tag_of(1 + u32::from(port)) };
            for i in 0..count {
                mac_table::learn(&page, mac(port, i), place, |_| true);
            }
        }
        self.ring(case, 1, Dir::Rx).shared.state.senders.bound.store(1, Relaxed);
    }

    fn sender(&self, case: &Case) -> Box<dyn RingDriver> {
        let bell = Arc::new(Doorbell::new().unwrap());
        if case.kind == Kind::Pipe {
            return Box::new(PipeTx { peer: self.ring(case, 1, Dir::Rx).shared, bell });
        }
        let table = Arc::new(PeerTable::default());
        let peer = Peer::new((1, 2), &GEOMETRY, &self.layout, &self.region[1], &self.state[1], bell).unwrap();
        table.set(1, Known::Peer(Arc::new(peer)));
        Box::new(ValeTx::new(Seat { page: self.page(), index: 0, generation: 1 }, 0, table))
    }

    fn receiver(&self, case: &Case) -> Box<dyn RingDriver> {
        let bell = Arc::new(Doorbell::new().unwrap());
        match case.kind {
            Kind::Pipe => Box::new(PipeRx { peer: self.ring(case, 0, Dir::Tx).shared, bell }),
            _ => Box::new(ValeRx),
        }
    }
}

/// Address `i` of a port, in memory order.
fn mac(port: u8, i: u32) -> u64 {
    0x02 | u64::from(port) << 8 | u64::from(i.swap_bytes()) << 16
}

/// What one side did in one slice.
#[derive(Clone, Copy, Default)]
struct Part {
    packets: u64,
    cpu: u64,
    wall: u64,
}

/// Words of the bench in shared memory, a line each: phase, ready, and the results of the second process.
struct Control(SharedSlice<AtomicU64>);

const PHASE: usize = 0;
const READY: usize = 8;
const RESULTS: usize = 24;
const AREA: usize = 512;

/// The clock of one side: cut into slices by the sender.
struct Laps<'c> {
    control: &'c Control,
    phase: u64,
    from: Part,
    parts: Vec<Part>,
}

impl<'c> Laps<'c> {
    fn new(control: &'c Control) -> Self {
        Laps { control, phase: 0, from: Part::default(), parts: vec![] }
    }

    /// Sender: sets the phase.
    fn turn(&mut self, packets: u64) {
        self.control.0[PHASE].store(self.phase + 1, Release);
        self.follow(packets);
    }

    /// Looks at the phase; true when all is over.
    #[inline]
    fn follow(&mut self, packets: u64) -> bool {
        let phase = self.control.0[PHASE].load(Acquire);
        phase != self.phase && self.cut(phase, packets)
    }

    #[cold]
    fn cut(&mut self, phase: u64, packets: u64) -> bool {
        let now = Part { packets, cpu: thread_cpu_nanos(), wall: monotonic_nanos() };
        if self.phase > 0 {
            self.parts.push(Part {
                packets: packets - self.from.packets,
                cpu: now.cpu - self.from.cpu,
                wall: now.wall - self.from.wall,
            });
        }
        self.from = now;
        self.phase = phase;
        self.parts.len() >= slices()
    }
}

fn env(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default)
}

fn slices() -> usize {
    env("HOT_SLICES", 9).min(24) as usize
}

#[inline]
fn wait(place: Where) {
    if place == Where::Two {
        std::hint::spin_loop();
    } else {
        yield_now();
    }
}

/// A client's side of a ring.
struct Client {
    handle: RingHandle,
    driver: Box<dyn RingDriver>,
    head: u32,
    packets: u64,
    dst: u32,
    src: u32,
}

impl Client {
    fn new(handle: RingHandle, driver: Box<dyn RingDriver>) -> Self {
        Client { handle, driver, head: 0, packets: 0, dst: 0, src: 0 }
    }

    fn space(&self) -> u32 {
        distance(SLOTS, self.head, self.handle.ring.header.tail.load(Acquire))
    }

    fn sync(&mut self) {
        let header = &self.handle.ring.header;
        header.cur.store(self.head, Relaxed);
        header.head.store(self.head, Release);
        black_box(self.handle.sync(&mut *self.driver, 2, SyncFlags::empty()));
    }

    /// Fills a batch and sends it; returns how many slots.
    fn send(&mut self, case: &Case) -> u32 {
        let want = case.batch.min(TX_ROOM);
        if self.space() < want {
            self.sync();
            if self.space() < want {
                return 0;
            }
        }
        let count = case.batch.min(self.space());
        let (slots, bufs) = (&self.handle.ring.slots[..], &self.handle.ring.bufs);
        let mut at = self.head;
        for _ in 0..count {
            let slot = &slots[at as usize];
            let idx = slot.load().buf_idx();
            slot.store(SlotWord::new(idx, case.len as u16, 0));
            if (case.touch || case.dsts > 0)
                && let Some(p) = bufs.payload(idx)
            {
                let (mut d, mut s) = (mac(1, 0), mac(0, 0));
                if case.dsts > 0 {
                    (d, s) = (mac(1, self.dst), mac(0, self.src));
                    self.dst = if self.dst + 1 >= case.dsts { 0 } else { self.dst + 1 };
                    self.src = if self.src + 1 >= case.srcs { 0 } else { self.src + 1 };
                }
                p.store_u64(0, d | s << 48);
                p.store_u64(8, s >> 16 | 0x0008 << 32);
                if case.touch {
                    for word in 2..case.len as usize / 8 {
                        p.store_u64(8 * word, u64::from(at));
                    }
                }
            }
            at = if at + 1 == SLOTS { 0 } else { at + 1 };
        }
        self.head = at;
        self.sync();
        self.packets += u64::from(count);
        count
    }

    /// Syncs and takes what is there; returns how many slots.
    fn receive(&mut self, case: &Case) -> u32 {
        self.sync();
        let count = self.space().min(RX_BURST);
        if count == 0 {
            return 0;
        }
        let (slots, bufs) = (&self.handle.ring.slots[..], &self.handle.ring.bufs);
        let mut sum = 0;
        let mut at = self.head;
        for _ in 0..count {
            let word = slots[at as usize].load();
            sum += u64::from(word.len());
            if case.touch
                && let Some(p) = bufs.payload(word.buf_idx())
            {
                for i in 0..word.len() as usize / 8 {
                    sum = sum.wrapping_add(p.load_u64(8 * i).unwrap_or(0));
                }
            }
            at = if at + 1 == SLOTS { 0 } else { at + 1 };
        }
        black_box(sum);
        self.head = at;
        self.packets += u64::from(count);
        count
    }
}

/// Calls `step` until all slices are over; it returns the packets so far.
fn lead(control: &Control, mut step: impl FnMut() -> u64) -> Vec<Part> {
    let slice = env("HOT_SLICE_MS", 30) * 1_000_000;
    let mut laps = Laps::new(control);
    let mut next = monotonic_nanos() + slice;
    loop {
        let mut packets = 0;
        for _ in 0..32 {
            packets = step();
        }
        if monotonic_nanos() >= next {
            laps.turn(packets);
            if laps.parts.len() >= slices() {
                return laps.parts;
            }
            next = laps.from.wall + slice;
        }
    }
}

fn first_side(case: &Case, bed: &Bed, control: &Control) -> Vec<Part> {
    let words = bed.scratch();
    let area = &words[AREA..];
    match case.kind {
        Kind::Latency => {
            let mut n = 0;
            lead(control, || {
                n += 1;
                area[0].store(n, Release);
                while area[8].load(Acquire) != n {}
                n
            })
        }
        Kind::Spsc => {
            let ring = &area[..2 * SLOTS as usize];
            let (mut tail, mut head) = (0u64, 0u64);
            let (head_word, tail_word) = (&words[128], &words[144]);
            let n = u64::from(SLOTS);
            lead(control, || {
                let batch = u64::from(case.batch).min(n);
                if n - (tail - head) < batch {
                    head = head_word.load(Acquire);
                    if n - (tail - head) < batch {
                        wait(case.place);
                        return tail;
                    }
                }
                for i in tail..tail + batch {
                    let k = (i % n) as usize * 2;
                    ring[k].store(i, Relaxed);
                    ring[k + 1].store(i, Relaxed);
                }
                tail += batch;
                tail_word.store(tail, Release);
                tail
            })
        }
        Kind::Copy => {
            let (a, b) = (bed.ring(case, 0, Dir::Tx), bed.ring(case, 1, Dir::Rx));
            let mut n = 0;
            lead(control, || {
                for k in 2..2 + SLOTS {
                    black_box(a.ring.bufs.copy_frame(k, &b.ring.bufs, k + SLOTS, case.len as usize));
                }
                n += u64::from(SLOTS);
                n
            })
        }
        Kind::Vale | Kind::Pipe => {
            let mut tx = Client::new(bed.ring(case, 0, Dir::Tx), bed.sender(case));
            if case.place == Where::Thread {
                let mut rx = Client::new(bed.ring(case, 1, Dir::Rx), bed.receiver(case));
                return lead(control, || {
                    tx.send(case);
                    while rx.receive(case) == RX_BURST {}
                    rx.packets
                });
            }
            lead(control, || {
                if tx.send(case) == 0 {
                    wait(case.place);
                }
                tx.packets
            })
        }
    }
}

fn second_side(case: &Case, bed: &Bed, control: &Control) -> Vec<Part> {
    let words = bed.scratch();
    let area = &words[AREA..];
    let mut laps = Laps::new(control);
    match case.kind {
        Kind::Latency => {
            let mut n = 0;
            while !laps.follow(n) {
                let seen = area[0].load(Acquire);
                if seen == n {
                    continue;
                }
                n = seen;
                area[8].store(n, Release);
            }
        }
        Kind::Spsc => {
            let n = u64::from(SLOTS);
            let ring = &area[..2 * SLOTS as usize];
            let (mut head, mut sum) = (0u64, 0u64);
            let (head_word, tail_word) = (&words[128], &words[144]);
            while !laps.follow(head) {
                let tail = tail_word.load(Acquire);
                if tail == head {
                    wait(case.place);
                    continue;
                }
                for i in head..tail {
                    let k = (i % n) as usize * 2;
                    sum += ring[k].load(Relaxed) + ring[k + 1].load(Relaxed);
                }
                head = tail;
                head_word.store(head, Release);
            }
            black_box(sum);
        }
        Kind::Copy => unreachable!(),
        Kind::Vale | Kind::Pipe => {
            let mut rx = Client::new(bed.ring(case, 1, Dir::Rx), bed.receiver(case));
            while !laps.follow(rx.packets) {
                if rx.receive(case) == 0 {
                    wait(case.place);
                }
            }
        }
    }
    laps.parts
}

/// The other process: `hot --child CASE FD-PATHS...`.
fn child(mut args: impl Iterator<Item = String>) {
    let case = Case::from_arg(&args.next().unwrap());
    let parent = std::os::unix::process::parent_id();
    std::thread::spawn(move || {
        while std::os::unix::process::parent_id() == parent {
            std::thread::sleep(Duration::from_millis(200));
        }
        std::process::exit(1);
    });
    let open = |path: String| std::fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    let fds: Vec<_> = args.map(|p| Memfd::adopt(OwnedFd::from(open(p))).unwrap()).collect();
    let bed = Bed::of(&fds, case.stride);
    pin_to_cpu(usize::from(case.place == Where::Two)).unwrap();
    let control = Control(bed.scratch());
    control.0[READY].store(1, Release);
    let parts = second_side(&case, &bed, &control);
    for (i, p) in parts.iter().enumerate() {
        let at = RESULTS + 4 * i;
        control.0[at].store(p.packets, Relaxed);
        control.0[at + 1].store(p.cpu, Relaxed);
        control.0[at + 2].store(p.wall, Relaxed);
    }
}

fn spawn(case: &Case, fds: &[Memfd]) -> Child {
    let path = |f: &Memfd| format!("/proc/{}/fd/{}", std::process::id(), f.as_fd().as_raw_fd());
    Command::new(std::env::current_exe().unwrap())
        .arg("--child")
        .arg(case.to_arg())
        .args(fds.iter().map(path))
        .spawn()
        .unwrap()
}

/// Runs a case: for each slice Mpps, nanoseconds of CPU per packet of sender and receiver.
fn run(case: &Case) -> Vec<[f64; 3]> {
    let (bed, fds) = Bed::create(case.stride);
    bed.set_up(case);
    let control = Control(bed.scratch());
    pin_to_cpu(0).unwrap();
    let per = |a: Part, b: Part| {
        let packets = if case.place == Where::Thread { a.packets } else { b.packets } as f64;
        let wall = if case.place == Where::Thread { a.wall } else { b.wall } as f64;
        [packets / wall * 1e3, a.cpu as f64 / packets, b.cpu as f64 / packets]
    };
    if case.place == Where::Thread {
        return first_side(case, &bed, &control).into_iter().map(|a| per(a, Part::default())).collect();
    }
    let mut child = spawn(case, &fds);
    while control.0[READY].load(Acquire) == 0 {
        yield_now();
    }
    let first = first_side(case, &bed, &control);
    assert!(child.wait().unwrap().success());
    let word = |i: usize| control.0[i].load(Relaxed);
    let second = (0..slices()).map(|i| RESULTS + 4 * i);
    let second = second.map(|at| Part { packets: word(at), cpu: word(at + 1), wall: word(at + 2) });
    first.into_iter().zip(second).map(|(a, b)| per(a, b)).collect()
}

fn median_and_best(mut values: Vec<f64>, best_is_low: bool) -> (f64, f64) {
    values.sort_by(f64::total_cmp);
    let best = if best_is_low { values[0] } else { values[values.len() - 1] };
    (values[values.len() / 2], best)
}

fn cases() -> Vec<Case> {
    let base = Case {
        kind: Kind::Vale,
        place: Where::Two,
        batch: 256,
        len: 60,
        touch: false,
        dsts: 0,
        srcs: 0,
        stride: 2112,
    };
    let mut all = vec![];
    for batch in [1, 32, 256] {
        all.push(Case { kind: Kind::Spsc, batch, len: 16, ..base });
    }
    for len in [60, 1514] {
        all.push(Case { kind: Kind::Copy, place: Where::Thread, len, ..base });
    }
    for kind in [Kind::Vale, Kind::Pipe] {
        for place in [Where::Two, Where::One, Where::Thread] {
            for batch in [1, 8, 64, 256, 1024] {
                all.push(Case { kind, place, batch, ..base });
            }
            all.push(Case { kind, place, touch: true, ..base });
            all.push(Case { kind, place, len: 1514, ..base });
            all.push(Case { kind, place, len: 1514, touch: true, ..base });
            if kind == Kind::Vale {
                for (dsts, srcs) in [(1, 1), (999, 1), (500, 500)] {
                    all.push(Case { kind, place, dsts, srcs, ..base });
                }
            }
        }
    }
    for stride in [2048, 192] {
        all.push(Case { stride, ..base });
        all.push(Case { stride, place: Where::Thread, ..base });
        all.push(Case { stride, kind: Kind::Copy, place: Where::Thread, ..base });
    }
    all
}

fn main() {
    let mut args = std::env::args().skip(1).filter(|a| a != "--bench").peekable();
    if args.next_if(|a| a == "--child").is_some() {
        return child(args);
    }
    let filters: Vec<String> = args.collect();
    let latency = Case { kind: Kind::Latency, batch: 1, len: 8, ..cases()[0] };
    let line = || median_and_best(run(&latency).iter().map(|s| 500.0 / s[0]).collect(), true).0;
    println!(
        "{} slices of {} ms; Mpps at the receiver; ns of CPU per packet, sender + receiver",
        slices(),
        env("HOT_SLICE_MS", 30)
    );
    println!("| case | line ns | Mpps | best | ns | best | tx | rx |\n|---|---|---|---|---|---|---|---|");
    for case in cases() {
        let name = case.name();
        let matches =
            |f: &String| f.strip_suffix('$').map_or(name.contains(f.as_str()), |f| name.ends_with(f));
        if !filters.is_empty() && !filters.iter().any(matches) {
            continue;
        }
        let ns = if case.place == Where::Two { format!("{:.0}", line()) } else { String::new() };
        let all = run(&case);
        let (pps, pps_best) = median_and_best(all.iter().map(|s| s[0]).collect(), false);
        let (cost, cost_best) = median_and_best(all.iter().map(|s| s[1] + s[2]).collect(), true);
        let (tx, _) = median_and_best(all.iter().map(|s| s[1]).collect(), true);
        let (rx, _) = median_and_best(all.iter().map(|s| s[2]).collect(), true);
        println!(
            "| {name} | {ns} | {pps:.1} | {pps_best:.1} | {cost:.1} | {cost_best:.1} | {tx:.1} | {rx:.1} |"
        );
    }
}
