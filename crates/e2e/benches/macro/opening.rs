//! What does not move packets: opening ports, memory pinned by an interface, the size of an idle broker.

use crate::cases::matches;
use crate::control::Control;
use crate::peer::HOLDER;
use crate::run::{Failed, Process};
use crate::stats::{env, spread};
use ringway_e2e::ns::Pair;
use ringway_e2e::root_or_skip;
use std::time::Duration;

/// Openings of each kind.
const COUNT: usize = 15;
/// A queue that was just closed stays busy for some 20 ms.
const QUEUE_PAUSE: Duration = Duration::from_millis(80);
const MIB: f64 = 1024.0 * 1024.0;

/// A line of `/proc/PID/status`, in kB.
fn status_kb(pid: u64, name: &str) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = text.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(':'))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Bytes that the kernel has pinned for devices, of all processes: `nr_foll_pin_*` of `/proc/vmstat` (Linux 5.7), in pages.
fn pinned_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/vmstat").ok()?;
    let word =
        |name: &str| -> Option<u64> { text.lines().find_map(|l| l.strip_prefix(name)?.trim().parse().ok()) };
    let pages = word("nr_foll_pin_acquired ")?.checked_sub(word("nr_foll_pin_released ")?)?;
    Some(pages * ringway_os::mem::page_size() as u64)
}

/// Prints what the broker has resident.
pub fn broker_size(when: &str, filter: &[String]) {
    if !matches(filter, "idle broker") {
        return;
    }
    let pid = env("MACRO_BROKER_PID", 0);
    // A region goes when the kernel has let go of the queue that it was registered with.
    std::thread::sleep(2 * QUEUE_PAUSE);
    let mib = |name| status_kb(pid, name).map(|kb| kb as f64 / 1024.0);
    match (mib("VmRSS"), mib("RssAnon"), mib("RssShmem")) {
        (Some(all), Some(own), Some(shared)) => println!(
            "broker, {when}: {all:.1} MiB resident, of that {own:.1} of its own and {shared:.1} of regions"
        ),
        _ => println!("SKIP idle broker: no /proc/{pid}/status"),
    }
}

/// Opens `names` one after the other in a new process; nanoseconds of each.
fn open(netns: &str, names: &[&str]) -> Result<Vec<u64>, Failed> {
    let control = Control::create().map_err(|e| e.to_string())?;
    Process::start(&control, "open", netns, names, None)?.finish()?;
    Ok(control.samples())
}

fn row(name: &str, netns: &str, first: &[&str], later: &[&str], pause: Duration) -> Result<(), Failed> {
    let times = |names: &[&str]| -> Result<String, Failed> {
        let mut all = vec![];
        for _ in 0..COUNT {
            std::thread::sleep(pause);
            let times = open(netns, names)?;
            all.push(*times.last().ok_or("it opened nothing")? as f64 / 1e6);
        }
        let s = spread(&mut all);
        Ok(format!("{:.2} ({:.2}..{:.2})", s.median, s.min, s.max))
    };
    println!("| {name} | {} | {} |", times(first)?, times(later)?);
    Ok(())
}

/// What stays pinned while a process holds an interface with one queue.
fn pinned(pair: &Pair) -> Result<(), Failed> {
    std::thread::sleep(QUEUE_PAUSE);
    let before = pinned_bytes().ok_or("/proc/vmstat does not tell what is pinned")?;
    let control = Control::create().map_err(|e| e.to_string())?;
    let mut holder = Process::start(&control, "hold", &pair.a.path(), &["netmap:va"], None)?;
    holder.wait_until(|| control.is_ready(HOLDER))?;
    let now = pinned_bytes().unwrap_or(before).saturating_sub(before);
    let pid = env("MACRO_BROKER_PID", 0);
    println!(
        "pinned by a veth port with one queue: {:.1} MiB (the broker's VmPin {} kB, VmLck {} kB)",
        now as f64 / MIB,
        status_kb(pid, "VmPin").unwrap_or(0),
        status_kb(pid, "VmLck").unwrap_or(0)
    );
    control.begin(1, 1);
    holder.finish()
}

/// Prints the section. Returns how many rows failed.
pub fn section(filter: &[String]) -> u32 {
    let wanted = |name: &str| matches(filter, name);
    let names = ["open vale", "open pipe", "open veth"];
    if !names.iter().any(|n| wanted(n)) {
        return 0;
    }
    println!("\n| opening, ms | first port of a process | later |\n|---|---|---|");
    let mut results = vec![];
    if wanted(names[0]) {
        results.push(row(names[0], "-", &["vale0:a"], &["vale0:a", "vale0:b"], Duration::ZERO));
    }
    if wanted(names[1]) {
        results.push(row(names[1], "-", &["netmap:x{1"], &["vale0:a", "netmap:x{1"], Duration::ZERO));
    }
    if wanted(names[2])
        && root_or_skip(names[2])
        && let Some(pair) = Pair::new(names[2], 1)
    {
        let ns = pair.a.path();
        results.push(row(names[2], &ns, &["netmap:va"], &["vale0:a", "netmap:va"], QUEUE_PAUSE));
        println!();
        results.push(pinned(&pair));
    }
    let failures: Vec<_> = results.into_iter().filter_map(Result::err).collect();
    for e in &failures {
        println!("FAILED: {e}");
    }
    failures.len() as u32
}
