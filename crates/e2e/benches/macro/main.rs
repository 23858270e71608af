//! Whole paths, from program to program, through the real broker: packets per second and nanoseconds of CPU of all processes together,
//! beside what the machine itself gives in the same run.
//!
//! `cargo bench -p ringway-e2e --bench macro [-- WORD...]`: the cases whose name has all these words, one of several where commas
//! stand between (`-- vale,pipe two 60b`). `MACRO_SLICES` and `MACRO_SLICE_MS` set how often and how long each is measured.
//! docs/measurements.md says how to read the tables.
//!
//! Three layers of this one program: it starts a broker and, with the broker's address in its environment, itself as the one that
//! measures (`--measure`); that starts the processes of each case (`--peer`).

mod cases;
mod stats;
mod yardstick;
// Below a case: the shared memory, what its processes do.
mod control;
mod traffic;
// Imported by each other: a section starts processes, which play parts of sections.
mod opening;
mod peer;
mod raw;
mod run;
mod single;
mod veth;

use cases::{PUBLIC_SWITCH, Place, cases, matches};
use ringway_e2e::{TestBroker, release_programs, root_or_skip};
use stats::digits;
use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.first().map(String::as_str) {
        Some("--peer") => match peer::run(&args[1..]) {
            Ok(()) => ExitCode::SUCCESS,
            Err(e) => {
                eprintln!("{}: {e}", args[1..].join(" "));
                ExitCode::FAILURE
            }
        },
        Some("--measure") => measure(&args[1..]),
        _ if args.iter().any(|a| a == "--bench") => {
            launch(&args.into_iter().filter(|a| a != "--bench").collect::<Vec<_>>())
        }
        // `cargo test --benches` runs it too.
        _ => {
            println!("nothing is measured without --bench, which `cargo bench` passes");
            ExitCode::SUCCESS
        }
    }
}

/// Starts the broker, and this program again with its address.
fn launch(filter: &[String]) -> ExitCode {
    let config = format!("admit = \"all\"\npublic_switches = [\"{PUBLIC_SWITCH}\"]");
    let broker = TestBroker::start_from(release_programs(), &config);
    // Where every user can run it.
    let copy = broker.dir.path().join("macro");
    let copied = std::env::current_exe().and_then(|exe| std::fs::copy(exe, &copy));
    copied.expect("a copy of this program");
    let status = broker
        .command_at(&copy)
        .arg("--measure")
        .args(filter)
        .env("MACRO_BROKER_PID", broker.pid().to_string())
        .status()
        .expect("it runs");
    if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn measure(filter: &[String]) -> ExitCode {
    let (count, time) = run::slices();
    println!(
        "{count} slices of {time:?}; medians (least..greatest); Mpps at the receiver; CPU of all processes"
    );
    opening::broker_size("idle, new", filter);
    yardstick::print_all();
    let mut failed = throughput(filter);
    failed += single::section(filter);
    failed += veth::section(filter);
    failed += opening::section(filter);
    opening::broker_size("idle, after all this", filter);
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Prints the section. Returns how many rows failed.
fn throughput(filter: &[String]) -> u32 {
    let table: Vec<_> = cases().into_iter().enumerate().filter(|(_, c)| matches(filter, &c.name())).collect();
    if table.is_empty() {
        return 0;
    }
    let is_root = !table.iter().any(|(_, c)| c.is_brokered()) || root_or_skip("brokered cases");
    let several = yardstick::processors().1.is_some();
    println!(
        "\n| case | line ns | Mpps | ns of CPU | sender | receiver | broker | lost | yardstick ns | ratio |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|");
    let mut failed = 0;
    for (index, case) in table {
        if (case.is_brokered() && !is_root) || (case.place == Place::Two && !several) {
            continue;
        }
        match run::run(index, &case) {
            Ok(row) => {
                let some = |x: Option<f64>| x.map_or(String::new(), digits);
                let yardsticks = [("copy", row.copy), ("ring", row.ring), ("call", row.call)];
                let yardsticks: Vec<String> =
                    yardsticks.iter().filter_map(|(n, v)| Some(format!("{n} {}", digits((*v)?)))).collect();
                println!(
                    "| {} | {} | {} | {} | {} | {} | {} | {} | {} | {} |",
                    case.name(),
                    some(row.line),
                    row.mpps,
                    row.ns,
                    digits(row.tx),
                    digits(row.rx),
                    digits(row.broker),
                    if row.lost > 0.0 { format!("{:.1} %", row.lost * 100.0) } else { String::new() },
                    yardsticks.join(" + "),
                    digits(row.ratio())
                );
            }
            Err(e) => {
                println!("| {} | FAILED: {e} | | | | | | | | |", case.name());
                failed += 1;
            }
        }
    }
    failed
}
