//! Running a case: its processes, its slices, and what came of them.

use crate::cases::{Case, Link, PUBLIC_SWITCH, Place, Ports};
use crate::control::{Control, MAX_SLICES, Snapshot};
use crate::peer::{HOLDER, RX, TX};
use crate::stats::{Spread, env, spread};
use crate::yardstick;
use ringway::Broker;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A user other than root, for brokered cases: `nobody`.
const OTHER_USER: u32 = 65534;
/// Before the first slice.
const WARM_UP: Duration = Duration::from_millis(60);
/// Until a process is ready, or has ended.
const LIMIT: Duration = Duration::from_secs(20);

pub type Failed = String;

/// A process of a case; killed when dropped.
pub struct Process(Child);

impl Process {
    /// Starts this program with a role, in a network namespace (a file; `-`: this one), for a user.
    pub fn start(
        control: &Control,
        role: &str,
        netns: &str,
        args: &[&str],
        uid: Option<u32>,
    ) -> Result<Self, Failed> {
        Self::start_with(control, role, netns, args, uid, Stdio::inherit())
    }

    fn start_with(
        control: &Control,
        role: &str,
        netns: &str,
        args: &[&str],
        uid: Option<u32>,
        stdout: Stdio,
    ) -> Result<Self, Failed> {
        let exe = std::env::current_exe().map_err(|e| e.to_string())?;
        let fd = control.fd().map_err(|e| e.to_string())?;
        let mut command = Command::new(exe);
        command.args(["--peer", role, netns]).args(args).stdin(Stdio::from(fd)).stdout(stdout);
        if let Some(uid) = uid {
            command.uid(uid).gid(uid);
        }
        command.spawn().map(Process).map_err(|e| e.to_string())
    }

    /// Waits for something that it does.
    pub fn wait_until(&mut self, done: impl Fn() -> bool) -> Result<(), Failed> {
        let end = Instant::now() + LIMIT;
        while !done() {
            if let Ok(Some(status)) = self.0.try_wait()
                && !done()
            {
                return Err(format!("a process ended with {status}"));
            }
            if Instant::now() > end {
                return Err("a process hangs".into());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// Waits until it has ended well.
    pub fn finish(&mut self) -> Result<(), Failed> {
        match self.0.wait() {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(format!("a process ended with {status}")),
            Err(e) => Err(e.to_string()),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Processes that use processors and do nothing.
pub fn busy(count: u32) -> Result<Vec<Process>, Failed> {
    let control = Control::create().map_err(|e| e.to_string())?;
    (0..count).map(|_| Process::start(&control, "busy", "-", &[], None)).collect()
}

/// Slices of each case, and how long each is.
pub fn slices() -> (usize, Duration) {
    let count = env("MACRO_SLICES", 7).clamp(1, MAX_SLICES as u64) as usize;
    (count, Duration::from_millis(env("MACRO_SLICE_MS", 50).max(1)))
}

/// Nanoseconds of CPU that the broker has used.
fn broker_cpu() -> Result<u64, Failed> {
    let status = Broker::connect().and_then(|b| b.status_json()).map_err(|e| e.to_string())?;
    let status: serde_json::Value = serde_json::from_slice(&status).map_err(|e| e.to_string())?;
    status["cpu_ns"].as_u64().ok_or_else(|| "the broker does not say what it used".into())
}

/// One slice: what each process did in it, and the CPU of the broker.
pub struct Slice {
    peers: Vec<(Snapshot, Snapshot)>,
    broker: u64,
}

impl Slice {
    fn of(&self, peer: usize) -> Snapshot {
        let (from, to) = self.peers[peer];
        Snapshot {
            packets: to.packets - from.packets,
            lost: to.lost - from.lost,
            cpu: to.cpu - from.cpu,
            wall: to.wall - from.wall,
        }
    }

    /// Millions of packets a second, at a process.
    pub fn mpps(&self, peer: usize) -> f64 {
        let s = self.of(peer);
        s.packets as f64 * 1e3 / s.wall as f64
    }

    /// Nanoseconds of CPU of a process for each packet that `at` counted.
    pub fn cost(&self, peer: usize, at: usize) -> f64 {
        self.of(peer).cpu as f64 / self.of(at).packets as f64
    }

    fn broker_cost(&self, at: usize) -> f64 {
        self.broker as f64 / self.of(at).packets as f64
    }

    fn lost_share(&self, at: usize) -> f64 {
        let lost = self.peers.iter().map(|(from, to)| to.lost - from.lost).sum::<u64>() as f64;
        lost / (lost + self.of(at).packets as f64)
    }
}

/// Measures processes that are ready: `peers` are their numbers, and their processes.
pub fn measure(
    control: &Control,
    peers: &mut [(usize, &mut Process)],
    count: usize,
    time: Duration,
) -> Result<Vec<Slice>, Failed> {
    std::thread::sleep(WARM_UP);
    let last = count as u64 + 1;
    let mut broker = vec![];
    for phase in 1..=last {
        broker.push(broker_cpu()?);
        control.begin(phase, last);
        if phase < last {
            std::thread::sleep(time);
        }
    }
    for (number, process) in &mut *peers {
        process.wait_until(|| control.is_done(*number))?;
    }
    let numbers = peers.iter().map(|(n, _)| *n).max().map_or(0, |n| n + 1);
    let slices = (1..=count).map(|phase| Slice {
        peers: (0..numbers).map(|n| (control.snapshot(n, phase), control.snapshot(n, phase + 1))).collect(),
        broker: broker[phase] - broker[phase - 1],
    });
    // A process that had no processor for a whole slice has not seen it.
    let seen = |s: &Slice| peers.iter().all(|(n, _)| s.peers[*n].0.wall > 0 && s.peers[*n].1.wall > 0);
    Ok(slices.filter(seen).collect())
}

/// What a row says.
pub struct Row {
    pub line: Option<f64>,
    pub mpps: Spread,
    pub ns: Spread,
    pub tx: f64,
    pub rx: f64,
    pub broker: f64,
    pub lost: f64,
    /// Copying such a frame; a descriptor over a bare ring; a null system call.
    pub copy: Option<f64>,
    pub ring: Option<f64>,
    pub call: Option<f64>,
}

impl Row {
    /// The cost as a multiple of what the yardsticks of the row cost together.
    pub fn ratio(&self) -> f64 {
        let sum: f64 = [self.copy, self.ring, self.call].into_iter().flatten().sum();
        self.ns.median / sum
    }
}

/// Runs the case with number `index`.
pub fn run(index: usize, case: &Case) -> Result<Row, Failed> {
    let crosses = matches!(case.place, Place::Two | Place::Free);
    let line = crosses.then(yardstick::line);
    let copies = !matches!(case.link, Link::Null | Link::Pipe);
    let copy = (copies || case.touch).then(|| yardstick::copy(case.len.into()));
    let hands_over = !matches!(case.link, Link::Null | Link::Embedded);
    let ring = hands_over.then(|| yardstick::bare_ring(case.place, case.batch as usize));
    let call = (case.link == Link::Null).then(yardstick::null_call);

    let (count, time) = slices();
    // The scheduler's own slices must be short beside ours.
    let time = if case.busy > 0 { 2 * time } else { time };
    let slices = play(index, case, count, time)?;
    if slices.is_empty() || slices.iter().any(|s| s.of(RX).packets == 0) {
        return Err("nothing arrived in a slice".into());
    }
    let of = |f: &dyn Fn(&Slice) -> f64| spread(&mut slices.iter().map(f).collect::<Vec<_>>());
    let tx = |s: &Slice| if case.place == Place::Thread { 0.0 } else { s.cost(TX, RX) };
    Ok(Row {
        line,
        mpps: of(&|s| s.mpps(RX)),
        ns: of(&|s| tx(s) + s.cost(RX, RX) + s.broker_cost(RX)),
        tx: of(&tx).median,
        rx: of(&|s| s.cost(RX, RX)).median,
        broker: of(&|s| s.broker_cost(RX)).median,
        lost: of(&|s| s.lost_share(RX)).median,
        copy,
        ring,
        call,
    })
}

fn play(index: usize, case: &Case, count: usize, time: Duration) -> Result<Vec<Slice>, Failed> {
    let control = Control::create().map_err(|e| e.to_string())?;
    let number = index.to_string();
    let start = |role: &str, peer: usize, uid| -> Result<Process, Failed> {
        let mut process = Process::start(&control, role, "-", &[&number], uid)?;
        process.wait_until(|| control.is_ready(peer))?;
        Ok(process)
    };
    if case.place == Place::Thread {
        let role = if case.link == Link::Null { "null" } else { "thread" };
        let mut only = start(role, RX, None)?;
        return measure(&control, &mut [(RX, &mut only)], count, time);
    }
    let _holder = match case.ports {
        Ports::Idle(ports) => {
            let names: Vec<String> = (0..ports).map(|i| format!("vale0:idle{i}")).collect();
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let mut holder = Process::start(&control, "hold", "-", &names, None)?;
            holder.wait_until(|| control.is_ready(HOLDER))?;
            Some(holder)
        }
        _ => None,
    };
    let mut rx = start("rx", RX, case.is_brokered().then_some(OTHER_USER))?;
    let mut tx = start("tx", TX, None)?;
    let _busy = busy(case.busy)?;
    measure(&control, &mut [(TX, &mut tx), (RX, &mut rx)], count, time)
}

/// Single frames from one port to a receiver that sleeps: their ages in nanoseconds.
pub fn single(from: &str, to: &str, place: Place, count: usize) -> Result<Vec<u64>, Failed> {
    let control = Control::create().map_err(|e| e.to_string())?;
    let uid = to.starts_with(PUBLIC_SWITCH).then_some(OTHER_USER);
    let word = format!("{place:?}").to_lowercase();
    let mut rx = Process::start(&control, "single-rx", "-", &[to, &word, &count.to_string()], uid)?;
    rx.wait_until(|| control.is_ready(RX))?;
    let mut tx = Process::start(&control, "single-tx", "-", &[from, &word], None)?;
    tx.wait_until(|| control.is_ready(TX))?;
    rx.wait_until(|| control.is_done(RX))?;
    control.begin(1, 1);
    tx.finish()?;
    rx.finish()?;
    Ok(control.samples())
}

/// Ages of `count` writes to an eventfd in whose `read` another process sleeps, in nanoseconds.
pub fn wake_ups(place: Place, count: usize) -> Result<Vec<u64>, Failed> {
    let control = Control::create().map_err(|e| e.to_string())?;
    let bell = rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC).map_err(|e| e.to_string())?;
    let word = format!("{place:?}").to_lowercase();
    let start = |role, args: &[&str]| {
        let bell = bell.try_clone().map_err(|e| e.to_string())?;
        Process::start_with(&control, role, "-", args, None, Stdio::from(bell))
    };
    let mut sleeper = start("sleeper", &[&word, &count.to_string()])?;
    sleeper.wait_until(|| control.is_ready(RX))?;
    let mut waker = start("waker", &[&word])?;
    sleeper.wait_until(|| control.is_done(RX))?;
    control.begin(1, 1);
    waker.finish()?;
    sleeper.finish()?;
    Ok(control.samples())
}
