//! A client that sends nonsense, keeps what it should not, and scribbles over all that it maps: the broker lives, answers
//! others at once, and nobody else loses anything.
#![forbid(unsafe_code)]

use ringway_e2e::TestBroker;
use rustix::process::{Pid, Signal, WaitOptions};
use std::path::Path;
use std::process::Command;

mod closing;
mod memory;
mod messages;
mod mixed;

/// The hostile user.
const HOSTILE: u32 = 65534;
/// Another one.
const OTHER: u32 = 65533;

fn peer(broker: &TestBroker, args: &[&str]) -> Command {
    let mut c = broker.command_at(Path::new(env!("CARGO_BIN_EXE_e2e-peer")));
    c.args(args);
    c
}

/// Runs `work` while the broker stands still: what is sent meanwhile is there all at once, its sender gone.
fn while_stopped<T>(broker: &TestBroker, work: impl FnOnce() -> T) -> T {
    let pid = Pid::from_raw(broker.pid() as i32);
    let signal = |s| rustix::process::kill_process(pid.expect("a process"), s).expect("our child");
    signal(Signal::STOP);
    rustix::process::waitpid(pid, WaitOptions::UNTRACED).expect("our child");
    let out = work();
    signal(Signal::CONT);
    out
}
