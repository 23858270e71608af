//! One frame now and then to a receiver that sleeps: how old it is when the program has it, beside a bare wake-up.

use crate::cases::{PUBLIC_SWITCH, Place, matches};
use crate::run::{Failed, single, wake_ups};
use crate::stats::{digits, env, percentile};
use crate::yardstick::{line, processors};
use ringway_e2e::root_or_skip;

/// Names of the case and of the ports, place, wake-ups that it takes.
struct SingleCase {
    name: &'static str,
    from: String,
    to: String,
    place: Place,
    wake_ups: f64,
}

fn table() -> Vec<SingleCase> {
    let case = |name, from: &str, to: &str, place, wake_ups| SingleCase {
        name,
        from: from.into(),
        to: to.into(),
        place,
        wake_ups,
    };
    vec![
        case("single vale two", "vale0:a", "vale0:b", Place::Two, 1.0),
        case("single vale one", "vale0:a", "vale0:b", Place::One, 1.0),
        case("single pipe two", "netmap:x{1", "netmap:x}1", Place::Two, 1.0),
        case("single pipe one", "netmap:x{1", "netmap:x}1", Place::One, 1.0),
        case(
            "single brokered two",
            &format!("{PUBLIC_SWITCH}:a"),
            &format!("{PUBLIC_SWITCH}:b"),
            Place::Two,
            2.0,
        ),
    ]
}

/// Prints the section. Returns how many rows failed.
pub fn section(filter: &[String]) -> u32 {
    let table: Vec<SingleCase> = table().into_iter().filter(|c| matches(filter, c.name)).collect();
    if table.is_empty() {
        return 0;
    }
    let count = (env("MACRO_SINGLES", 1500) as usize).min(crate::control::MAX_SAMPLES);
    println!(
        "\n| case | line ns | median us | 99 % us | bare wake-up, median us | 99 % us | wake-ups | ratio of medians | of 99 % |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    let mut failed = 0;
    for case in table {
        let skip = (case.place == Place::Two && processors().1.is_none())
            || (case.wake_ups > 1.0 && !root_or_skip(case.name));
        if skip {
            continue;
        }
        match ages(&case, count) {
            Ok((line, mut frames, mut bare)) => {
                frames.sort_unstable();
                bare.sort_unstable();
                let us = |all: &[u64], share| percentile(all, share) as f64 / 1e3;
                let (f50, f99) = (us(&frames, 0.5), us(&frames, 0.99));
                let (b50, b99) = (us(&bare, 0.5), us(&bare, 0.99));
                let times = case.wake_ups;
                println!(
                    "| {} | {} | {f50:.1} | {f99:.1} | {b50:.1} | {b99:.1} | {times} | {} | {} |",
                    case.name,
                    digits(line),
                    digits(f50 / b50 / times),
                    digits(f99 / b99 / times)
                );
            }
            Err(e) => {
                println!("| {} | FAILED: {e} | | | | | | | |", case.name);
                failed += 1;
            }
        }
    }
    failed
}

/// Line, ages of frames, and of bare wake-ups, measured in turns.
fn ages(case: &SingleCase, count: usize) -> Result<(f64, Vec<u64>, Vec<u64>), Failed> {
    const TURNS: usize = 3;
    let line = if processors().1.is_some() { line() } else { f64::NAN };
    let (mut frames, mut bare) = (vec![], vec![]);
    for _ in 0..TURNS {
        bare.extend(wake_ups(case.place, count / TURNS)?);
        frames.extend(single(&case.from, &case.to, case.place, count / TURNS)?);
    }
    Ok((line, frames, bare))
}
