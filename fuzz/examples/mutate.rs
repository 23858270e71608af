//! Fuzzing without any tool: takes inputs of the corpus, changes them at random, and feeds them.
//!
//! `cargo run --release --manifest-path fuzz/Cargo.toml --example mutate -- TARGET SECONDS [SEED]`. An input that panics is kept in
//! `fuzz/artifacts`. It knows nothing of coverage: `cargo fuzz` finds more.

use std::panic::catch_unwind;
use std::time::{Duration, Instant};

struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) as usize % n.max(1)
    }
}

const MAX_LEN: usize = 4096;
const SPECIAL: [u8; 12] = [0, 1, 2, 0x7f, 0x80, 0xfe, 0xff, 16, 15, b'@', b'{', b':'];

fn change(random: &mut Random, data: &mut Vec<u8>, other: &[u8]) {
    let at = random.below(data.len() + 1);
    match random.below(8) {
        0 if at < data.len() => data[at] ^= 1 << random.below(8),
        1 if at < data.len() => data[at] = SPECIAL[random.below(SPECIAL.len())],
        2 if at < data.len() => data[at] = random.below(256) as u8,
        3 => data.insert(at, SPECIAL[random.below(SPECIAL.len())]),
        4 => drop(data.drain(at..(at + random.below(8)).min(data.len()))),
        5 => data.truncate(at),
        6 => {
            let from = random.below(other.len() + 1);
            let to = (from + random.below(32)).min(other.len());
            data.splice(at..at, other[from..to].iter().copied());
        }
        _ => {
            for i in at..(at + 4).min(data.len()) {
                data[i] = [0xff, random.below(256) as u8][random.below(2)];
            }
        }
    }
    data.truncate(MAX_LEN);
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().collect();
    let [_, name, seconds, rest @ ..] = &args[..] else { return Err("TARGET SECONDS [SEED]".into()) };
    let known = ringway_fuzz::TARGETS.iter().find(|t| t.0 == name);
    let (_, target) = known.ok_or("no such target")?;
    let mut random = Random(rest.first().map_or(Ok(1), |s| s.parse())?);
    let mut corpus = vec![];
    for file in std::fs::read_dir(ringway_fuzz::corpus(name))? {
        corpus.push(std::fs::read(file?.path())?);
    }
    let (end, mut runs) = (Instant::now() + Duration::from_secs(seconds.parse()?), 0u64);
    while Instant::now() < end {
        let mut data = corpus[random.below(corpus.len())].clone();
        for _ in 0..=random.below(12) {
            let other = random.below(corpus.len());
            change(&mut random, &mut data, &corpus[other]);
        }
        if catch_unwind(|| target(&data)).is_err() {
            let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("artifacts").join(name);
            std::fs::create_dir_all(&dir)?;
            let file = dir.join(format!("mutate-{runs}"));
            std::fs::write(&file, &data)?;
            return Err(format!("it panicked: {}", file.display()).into());
        }
        runs += 1;
        // Now and then one joins, so that changes add up.
        if random.below(5000) == 0 && corpus.len() < 500 {
            corpus.push(data);
        }
    }
    println!("{name}: {runs} runs, nothing found");
    Ok(())
}
