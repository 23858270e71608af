//! The doors: C programs against a broker, with the library preloaded and linked. The programs are the files `doors_*.c`; each
//! test here is one of their functions.

mod cc;

use cc::{Lang, Link, TempDir, compilers, expect, library};
use ringway_e2e::TestBroker;
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
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
    run_with(source, test, by, "");
}

fn run_with(source: &'static str, test: &str, by: By, config: &str) {
    let Some(program) = program(source, by) else { return };
    let broker = TestBroker::start(config);
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

tests! { "doors_semantics.c":
    s1_one_binding_per_descriptor
    s1_a_failed_bind_can_be_tried_again
    s2_slots_of_a_ring
    s3_bad_rings
    s5_poll_pushes
    s5_a_full_pipe_blocks
    s5_cur_ahead_of_head
    s5_any_ring_is_enough
    s7_timestamps
    s8_modes
    s9_exclusive
    s11_regions
    s12_extra_buffers
    s15_limits_of_a_switch
    s16_learning
    s16_packets_of_several_slots
    s16_a_full_receiver_keeps_the_oldest
    s21_pipes
    s21_a_partial_packet_is_not_seen
    s23_null_ports
}

tests! { "doors_life.c":
    close_unbinds_at_once
    a_map_keeps_the_port
    copies_keep_the_port
    fork_shares
    daemons_fork_twice_and_close_all
    what_the_library_keeps
    close_loops
    closed_by_a_bare_system_call
    closefrom_closes_ports
    a_descriptor_arrives
    over_exec
    a_killed_process_is_gone
    low_numbers_and_select
}

tests! { "doors_wait.c":
    foreign_files_in_one_poll
    signals_end_a_wait
    threads_on_one_descriptor
    work_takes_no_system_call
    epoll_level
    epoll_edge
    epoll_of_many
}

tests! { "doors_ctrl.c":
    order_of_checks
    option_list
    offsets
    older_requests
}

tests! { "doors_csb.c":
    csb_order_of_checks
    csb_at_register
    csb_values
    kloop_busy
    kloop_events
    kloop_negative_eventfds
    kloop_bad_options
    kloop_stop_before_start
    kloop_bad_ring
    kloop_direct
    kloop_stream
    kloop_on_rings_of_the_broker
    kloop_stopped_by_another_process
    kloop_killed
    kloop_closed
}

tests! { "doors_extmem.c":
    extmem_is_the_region
    extmem_of_any_kind
    extmem_errors
    extmem_sizes_as_given
    extmem_is_shared
    extmem_of_a_file
    extmem_lives_until_the_last_user
    extmem_of_other_ports
}

#[test]
fn s21_pipes_of_one_parent() {
    let config = "[tunables]\npriv_ring_num = 400\npriv_if_num = 100\n";
    run_with("doors_semantics.c", "s21_pipes_of_one_parent", By::Preload, config);
}

#[test]
fn nm_open_and_nmport_open_on_ports() {
    for by in [By::Shared, By::Static] {
        for test in ["nm_open_on_ports", "nmport_on_ports", "nmport_shares_memory", "nmport_in_a_file"] {
            run_by("doors_library.c", test, by);
        }
    }
}

/// What an ordinary command says and how it ends, without the library and with it.
fn is_the_same(command: impl Fn() -> Command) {
    let plain = command().output().expect("it runs");
    let mut with = command();
    with.env("LD_PRELOAD", library().join("libnetmap.so"));
    let with = with.output().expect("it runs");
    assert!(plain.status.success() && !plain.stdout.is_empty(), "{plain:?}");
    assert_eq!((plain.status, plain.stdout, plain.stderr), (with.status, with.stdout, with.stderr));
}

#[test]
fn programs_that_never_touch_netmap_do_not_notice() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    is_the_same(|| {
        let mut c = Command::new("ls");
        c.arg("-la").arg(here);
        c
    });
    is_the_same(|| {
        let mut c = Command::new("sh");
        c.args(["-c", "exec 5<&0; (echo a; ls /nonexistent || true) 2>&1 | sort | cat; ls -l /proc/self/fd | grep -c netmap || true"]);
        c
    });
    let Some(program) = program("doors_foreign.c", By::Preload) else { return };
    is_the_same(|| Command::new(&program));
}

#[test]
fn ringway_run_preloads_the_library() {
    let Some(program) = program("doors_basic.c", By::Preload) else { return };
    let broker = TestBroker::start("");
    let mut run = broker.command("ringway");
    run.env("RINGWAY_LIB", library().join("libnetmap.so")).arg("run").arg(&program).arg("two_ends_of_a_pipe");
    expect("ringway run", &run.output().expect("it runs"), &[0]);
    let out = broker.command("ringway").args(["run", "ringway-nowhere"]).output().expect("it runs");
    expect("ringway run of nothing", &out, &[2]);
    assert!(String::from_utf8_lossy(&out.stderr).contains("no program ringway-nowhere in PATH"));
}

#[test]
fn a_broker_that_dies() {
    with_a_broker_that_dies("doors_wait.c", "a_broker_that_dies");
}

#[test]
fn kloop_of_a_broker_that_dies() {
    with_a_broker_that_dies("doors_csb.c", "kloop_of_a_broker_that_dies");
}

fn with_a_broker_that_dies(source: &'static str, test: &str) {
    let Some(program) = program(source, By::Preload) else { return };
    let mut broker = TestBroker::start("");
    let mut command = command(&broker, &program, By::Preload, &[test]);
    let mut child = command.stdout(Stdio::piped()).spawn().expect("it runs");
    let mut out = BufReader::new(child.stdout.take().expect("piped"));
    let mut line = String::new();
    out.read_line(&mut line).expect("it speaks");
    assert_eq!(line, "ready\n");
    broker.kill();
    let mut rest = String::new();
    out.read_to_string(&mut rest).expect("it speaks");
    assert!(child.wait().expect("it ends").success(), "{rest}");
}

#[test]
fn linked_programs_have_the_doors_too() {
    for by in [By::Shared, By::Static] {
        for test in ["two_ports_of_a_switch", "two_ends_of_a_pipe", "other_ways_to_open", "maps"] {
            run_by("doors_basic.c", test, by);
        }
        for test in ["csb_order_of_checks", "csb_at_register", "kloop_events"] {
            run_by("doors_csb.c", test, by);
        }
        for test in ["extmem_is_the_region", "extmem_errors", "extmem_is_shared"] {
            run_by("doors_extmem.c", test, by);
        }
    }
}
