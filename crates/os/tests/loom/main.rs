//! Models of the protocols of `words`, checked over all interleavings and all values that the memory model lets a load
//! return: `RUSTFLAGS="--cfg loom" cargo test -p ringway-os --test loom --release`.
//!
//! Each model also runs on words weakened in one place, and must fail there: so the model sees what the place is for.
#![cfg(loom)]

mod hands;
mod lock;
mod sleep;

/// The attachment number of the broker.
const BROKER: u32 = 1;

/// Runs `f` over all interleavings with so many preemptions at most.
fn check(preemptions: usize, f: impl Fn() + Send + Sync + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(preemptions);
    model.check(f);
}
