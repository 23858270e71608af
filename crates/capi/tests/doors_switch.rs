//! As `doors.rs`, for what needs interfaces: a veth pair in a network namespace of each test.

mod cc;

use cc::{Lang, TempDir, compilers, expect, library};
use ringway_e2e::ns::Ns;
use ringway_e2e::{TestBroker, root_or_skip};
use std::path::Path;

fn run(test: &str) {
    if !root_or_skip(test) {
        return;
    }
    let (Some(ns), Some(compiler)) = (Ns::new(test), compilers(Lang::C).into_iter().next()) else { return };
    ns.sh("ip link add va type veth peer name vb; ip link set va up; ip link set vb up");
    let dir = TempDir::new();
    let program = dir.path().join("doors_switch");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/doors_switch.c");
    expect(
        "doors_switch.c",
        &compiler.command(&source).arg("-o").arg(&program).output().expect("it runs"),
        &[0],
    );
    let broker = TestBroker::start("");
    let mut command = broker.command_at(&program);
    command.arg(test).env("LD_PRELOAD", library().join("libnetmap.so"));
    let out = ns.run(|| command.output().expect("it runs"));
    expect(test, &out, &[0]);
}

#[test]
fn an_interface_on_a_switch() {
    run("an_interface_on_a_switch");
}

#[test]
fn an_interface_on_a_switch_by_older_requests() {
    run("an_interface_on_a_switch_by_older_requests");
}

#[test]
fn a_persistent_port_on_two_switches() {
    run("a_persistent_port_on_two_switches");
}

#[test]
fn a_monitor_of_an_interface() {
    run("a_monitor_of_an_interface");
}
