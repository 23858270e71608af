//! What the fuzzers feed, as plain functions: libFuzzer calls them (`fuzz_targets`), a test replays the corpus through them, and
//! `examples/mutate` feeds them without any tool.
//!
//! Each takes any bytes, and panics if something is wrong with what it tests.
#![forbid(unsafe_code)]

mod input;

mod capture;
mod portspec;
mod request;
mod scribble;
mod wire;

pub mod seeds;

pub use capture::capture;
pub use portspec::portspec;
pub use request::request;
pub use scribble::scribble;
pub use wire::wire;

/// What takes any bytes.
pub type Target = fn(&[u8]);

/// All of them, by name.
pub const TARGETS: [(&str, Target); 5] = [
    ("wire", wire),
    ("request", request),
    ("portspec", portspec),
    ("capture", capture),
    ("scribble", scribble),
];

/// The folder of a target's corpus.
#[must_use]
pub fn corpus(target: &str) -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target)
}
