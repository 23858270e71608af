//! What the doors cost: on fds that are not netmap's, and for a C program beside the Rust API.
//!
//! `cargo bench -p ringway-capi --bench doors`. Needs a C compiler. Slices of both sides take turns; medians are told.

use ringway::{Interest, Port};
use ringway_e2e::{TempDir, TestBroker, release_programs};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const BATCH: u32 = 256;
const SLICE: Duration = Duration::from_millis(200);
const SLICES: usize = 15;
const ROUNDS: usize = 9;

/// The library, built for release.
fn library() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let root = root.canonicalize().expect("the workspace is there");
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    let target = root.join(target).join("e2e");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    build.current_dir(&root).args([
        "build",
        "--quiet",
        "--release",
        "-p",
        "ringway-capi",
        "--lib",
        "--target-dir",
    ]);
    assert!(build.arg(&target).status().expect("cargo runs").success(), "the library does not build");
    target.join("release/libnetmap.so")
}

fn median(mut of: Vec<f64>) -> f64 {
    of.sort_by(f64::total_cmp);
    of[of.len() / 2]
}

/// Nanoseconds of each call.
fn costs(mut command: Command) -> BTreeMap<String, f64> {
    let out = command.output().expect("it runs");
    assert!(out.status.success(), "{out:?}");
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    let line = |l: &str| l.split_once(' ').and_then(|(name, ns)| Some((name.to_owned(), ns.parse().ok()?)));
    text.lines().filter_map(line).collect()
}

/// What the doors add to calls on other fds.
fn cost(broker: &TestBroker, program: &Path, library: &Path) {
    let mut all: BTreeMap<String, [Vec<f64>; 3]> = BTreeMap::new();
    for _ in 0..ROUNDS {
        for way in 0..3 {
            let mut command = broker.command_at(program);
            command.arg("cost");
            if way > 0 {
                command.env("LD_PRELOAD", library);
            }
            if way == 2 {
                command.arg("netmap:cost{1");
            }
            for (name, ns) in costs(command) {
                all.entry(name).or_default()[way].push(ns);
            }
        }
    }
    println!("{:<14}{:>10}{:>10}{:>18}", "ns per call", "bare", "preloaded", "and a port open");
    for (name, ways) in all {
        let [bare, with, port] = ways.map(median);
        println!("{name:<14}{bare:>10.1}{:>+10.1}{:>+18.1}", with - bare, port - bare);
    }
}

/// Packets per microsecond of the Rust API, in a slice.
fn rust_slice(a: &mut Port, b: &mut Port) -> f64 {
    let (start, mut packets) = (Instant::now(), 0);
    while start.elapsed() < SLICE {
        let mut tx = a.tx(0);
        tx.fill(BATCH, |slot| {
            slot.set(60, 0);
            true
        });
        drop(tx);
        let ready =
            a.wait(Interest::TX, Some(Duration::ZERO)).and(b.wait(Interest::RX, Some(Duration::ZERO)));
        ready.expect("the broker lives");
        packets += b.rx(0).drain(u32::MAX, |slot| slot.len() == 60);
    }
    f64::from(packets) / start.elapsed().as_nanos() as f64 * 1000.0
}

/// One thread that sends and receives: in C through the doors, and in Rust.
fn rate(broker: &TestBroker, program: &Path, library: &Path, name: &str, way: &str, ports: [&str; 2]) {
    let c_ports = ports.map(|p| p.replace('N', "c"));
    let mut c = broker.command_at(program);
    c.arg(way).args(&c_ports).env("LD_PRELOAD", library).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut c = c.spawn().expect("it runs");
    let (mut ask, mut answers) =
        (c.stdin.take().expect("piped"), BufReader::new(c.stdout.take().expect("piped")));
    let [mut a, mut b] =
        ports.map(|p| Port::open(&p.replace('N', "r")).unwrap_or_else(|e| panic!("{p}: {e}")));
    let tx = a.tx(0);
    let header = [2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0, 0];
    for k in 0..tx.space() {
        if let Some(slot) = tx.slot(k) {
            slot.payload().copy_from(&header);
        }
    }
    drop(tx);
    let (mut in_c, mut in_rust) = (vec![], vec![]);
    for slice in 0..=SLICES {
        ask.write_all(b"\n").expect("it lives");
        let mut line = String::new();
        answers.read_line(&mut line).expect("it lives");
        let numbers: Vec<f64> = line.split_whitespace().filter_map(|n| n.parse().ok()).collect();
        let [packets, nanos] = numbers[..] else { panic!("it said {line:?}") };
        let rust = rust_slice(&mut a, &mut b);
        if slice > 0 {
            in_c.push(packets / nanos * 1000.0);
            in_rust.push(rust);
        }
    }
    drop(ask);
    assert!(c.wait().expect("it ends").success());
    let (c, rust) = (median(in_c), median(in_rust));
    println!("{name:<14}{c:>10.1}{rust:>10.1}{:>17.0}%", 100.0 * c / rust);
}

fn main() {
    if !std::env::args().any(|a| a == "--bench") {
        println!("nothing is measured without --bench, which `cargo bench` passes");
        return;
    }
    let dir = TempDir::new();
    let program = dir.path().join("doors");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/doors.c");
    let mut compile = Command::new("cc");
    compile
        .args(["-O2", "-I"])
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("include"))
        .arg(source)
        .arg("-o")
        .arg(&program);
    if !compile.status().is_ok_and(|s| s.success()) {
        println!("SKIP: no C compiler");
        return;
    }
    let library = library();
    let broker = TestBroker::start_from(release_programs(), "");
    // SAFETY: this is the only thread.
    unsafe { std::env::set_var("RINGWAY_SOCKET", broker.socket()) };
    let words: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let wanted = |name: &str| words.is_empty() || words.iter().any(|w| name.contains(w.as_str()));
    if wanted("cost") {
        cost(&broker, &program, &library);
    }
    if wanted("rate") {
        println!("{:<14}{:>10}{:>10}{:>18}", "Mpps, 60 bytes", "C", "Rust", "C of Rust");
        for (how, way) in [("", "rate"), (", slots", "rate-slots")] {
            rate(&broker, &program, &library, &format!("pipe{how}"), way, ["netmap:N{1", "netmap:N}1"]);
            rate(&broker, &program, &library, &format!("vale{how}"), way, ["valeN:a", "valeN:b"]);
        }
    }
}
