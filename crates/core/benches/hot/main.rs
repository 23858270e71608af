//! The hot paths, between two processes and in one thread: switch, pipe, and next to them what the machine itself gives in the
//! same run (cache line latency, a bare ring of descriptors, copying a frame).
//!
//! `cargo bench -p ringway-core --bench hot [-- FILTER...]`: cases whose name contains one of the words (ends
//! with it, if a `$` follows). `HOT_SLICES` and
//! `HOT_SLICE_MS` set how often and how long each case is measured. docs/measurements.md says how to read the table.
//!
//! The second process is this program once more; it opens the memory of the first through `/proc/PID/fd`.

mod case;

mod bed;
mod client;
mod laps;
mod sides;

use bed::Bed;
use case::{Case, Kind, Where, cases};
use laps::{Control, Part, READY, RESULTS, env, slices};
use ringway_os::mem::Memfd;
use ringway_os::sys::{pin_to_cpu, yield_now};
use sides::{first_side, second_side};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::process::{Child, Command};
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::time::Duration;

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
