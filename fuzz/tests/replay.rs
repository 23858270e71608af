//! Every input of the corpus, once more. Run by plain `cargo test`, with a stable toolchain.

use std::path::PathBuf;

/// Bytes of the whole corpus, at most.
const MAX_BYTES: u64 = 1 << 20;

fn files(target: &str) -> Vec<PathBuf> {
    let dir = ringway_fuzz::corpus(target);
    let mut files: Vec<_> =
        std::fs::read_dir(&dir).expect("a corpus").map(|f| f.expect("a file").path()).collect();
    files.sort();
    files
}

fn replay(target: &str) {
    let (_, run) = ringway_fuzz::TARGETS.iter().find(|t| t.0 == target).expect("a target");
    for file in files(target) {
        // Shown if it panics.
        println!("{}", file.display());
        run(&std::fs::read(&file).expect("a file"));
    }
}

#[test]
fn wire() {
    replay("wire");
}

#[test]
fn request() {
    replay("request");
}

#[test]
fn portspec() {
    replay("portspec");
}

#[test]
fn capture() {
    replay("capture");
}

#[test]
fn scribble() {
    replay("scribble");
}

#[test]
fn the_corpus_holds_the_seeds_and_is_small() {
    let mut bytes = 0;
    for (target, _) in ringway_fuzz::TARGETS {
        for (name, seed) in ringway_fuzz::seeds::seeds(target) {
            let kept = std::fs::read(ringway_fuzz::corpus(target).join(&name)).ok();
            assert_eq!(kept, Some(seed), "{target}/{name}: run the example `seeds`");
        }
        bytes += files(target).iter().map(|f| f.metadata().expect("a file").len()).sum::<u64>();
    }
    assert!(bytes < MAX_BYTES, "{bytes} bytes");
}
