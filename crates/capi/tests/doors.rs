//! The doors: C programs against a broker, with the library preloaded and linked. The programs are the files `doors_*.c`; each
//! test here is one of their functions.

mod cc;

use cc::{Lang, Link, TempDir, compilers, expect, library};
use ringway_e2e::TestBroker;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, OnceLock};

/// How a program comes by the doors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum By {
    Preload,
    Shared,
    Static,
}

/// A program, compiled once for all of its tests. None without a compiler.
fn program(source: &'static str, by: By) -> Option<PathBuf> {
    type Built = HashMap<(&'static str, By), Option<PathBuf>>;
    static BUILT: OnceLock<(TempDir, Mutex<Built>)> = OnceLock::new();
    let (dir, built) = BUILT.get_or_init(|| (TempDir::new(), Mutex::default()));
    let mut built = built.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let build = || {
        let compiler = compilers(Lang::C).into_iter().next()?;
        let out = dir.path().join(format!("{source}-{by:?}"));
        let mut command = compiler.command(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(source));
        command.args(["-pthread", "-o"]).arg(&out);
        match by {
            By::Preload => {}
            By::Shared => compiler.link(&mut command, Link::Shared),
            By::Static => compiler.link(&mut command, Link::Static),
        }
        expect(source, &command.output().expect("the compiler runs"), &[0]);
        Some(out)
    };
    built.entry((source, by)).or_insert_with(build).clone()
}

/// The command for a test, with a broker.
fn command(broker: &TestBroker, program: &Path, by: By, args: &[&str]) -> Command {
    let mut command = broker.command_at(program);
    command.args(args);
    if by == By::Preload {
        command.env("LD_PRELOAD", library().join("libnetmap.so"));
    }
    command
}

fn run_by(source: &'static str, test: &str, by: By) {
    let Some(program) = program(source, by) else { return };
    let broker = TestBroker::start("");
    let out = command(&broker, &program, by, &[test]).output().expect("it runs");
    expect(&format!("{test}, {by:?}"), &out, &[0]);
}

/// Runs a test with the library preloaded.
fn run(source: &'static str, test: &str) {
    run_by(source, test, By::Preload);
}

macro_rules! tests {
    ($source:literal: $($test:ident)*) => {$(
        #[test]
        fn $test() {
            run($source, stringify!($test));
        }
    )*};
}

tests! { "doors_basic.c":
    two_ports_of_a_switch
    two_ends_of_a_pipe
    other_ways_to_open
    what_a_device_refuses
    an_unbound_descriptor
    maps
}

#[test]
fn linked_programs_have_the_doors_too() {
    for by in [By::Shared, By::Static] {
        for test in ["two_ports_of_a_switch", "two_ends_of_a_pipe", "other_ways_to_open", "maps"] {
            run_by("doors_basic.c", test, by);
        }
    }
}
