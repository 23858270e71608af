//! The doors: C programs against a broker, with the library preloaded and linked. The programs are the files `doors_*.c`; each
//! test here is one of their functions.

mod cc;

use cc::{Lang, Link, TempDir, compilers, expect, library};
use ringway_e2e::ns::Ns;
use ringway_e2e::{TestBroker, root_or_skip};
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, OnceLock};

/// How a program comes by the doors, and who compiles it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum By {
    /// Compiled by gcc, with the library preloaded.
    Preload,
    /// Compiled by clang, if it is there.
    Shared,
    Static,
    /// With gcc's sanitizers, linked: what is preloaded would come before the sanitizer.
    GccSanitized,
    /// With clang's, or gcc's where there is no clang.
    Sanitized,
}

/// A program, compiled once for all of its tests. None without a compiler that can do it.
fn program(source: &'static str, by: By) -> Option<PathBuf> {
    type Built = HashMap<(&'static str, By), Option<PathBuf>>;
    static BUILT: OnceLock<(TempDir, Mutex<Built>)> = OnceLock::new();
    let (dir, built) = BUILT.get_or_init(|| (TempDir::new(), Mutex::default()));
    let mut built = built.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let build = || {
        let all = compilers(Lang::C);
        let compiler = match by {
            By::Preload | By::GccSanitized => all.first(),
            By::Shared | By::Static | By::Sanitized => all.last(),
        }?;
        let sanitized = matches!(by, By::Sanitized | By::GccSanitized);
        if sanitized && compiler.sanitize.is_empty() {
            return None;
        }
        let out = dir.path().join(format!("{source}-{by:?}"));
        let mut command = compiler.command(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(source));
        command.args(["-pthread", "-o"]).arg(&out);
        match by {
            By::Preload => {}
            By::Shared => compiler.link(&mut command, Link::Shared),
            By::Static => compiler.link(&mut command, Link::Static),
            By::Sanitized | By::GccSanitized => compiler.link(command.args(compiler.sanitize), Link::Shared),
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

fn run(source: &'static str, test: &str, by: By, config: &str) {
    let Some(program) = program(source, by) else { return };
    let broker = TestBroker::start(config);
    let mut command = command(&broker, &program, by, &[test]);
    if by != By::Preload {
        // Preloaded it is a million.
        command.env("EVENTS", "100000");
    }
    // Persistent ports are interfaces, too, if root asks.
    let with_interfaces = match source {
        "doors_nic.c" | "doors_attach.c" if !root_or_skip(test) => return,
        "doors_nic.c" | "doors_attach.c" => true,
        // SAFETY: touches no memory.
        "doors_switch.c" => unsafe { libc::geteuid() == 0 },
        _ => false,
    };
    let out = if with_interfaces {
        let Some(ns) = Ns::new(test) else { return };
        ns.sh("ip link add va type veth peer name vb; ip link set va up; ip link set vb up");
        ns.run(|| command.output())
    } else {
        command.output()
    };
    let out = out.expect("it runs");
    expect(&format!("{test}, {by:?}"), &out, &[0]);
    told(&out.stdout);
}

/// What a program says about tests that it leaves out.
fn told(out: &[u8]) {
    String::from_utf8_lossy(out).lines().filter(|l| l.starts_with("SKIP ")).for_each(|l| println!("{l}"));
}

/// The tests of a program, by their names in it: preloaded, linked, and linked with sanitizers.
macro_rules! tests {
    ($module:ident: $source:literal, $config:expr; $($test:ident)*) => {
        mod $module {
            use super::*;

            fn each(by: By) -> impl Fn(&'static str) {
                move |test| run($source, test, by, $config)
            }

            mod preload {
                $(#[test] fn $test() { super::each(super::By::Preload)(stringify!($test)); })*
            }

            mod linked {
                $(#[test] fn $test() { super::each(super::By::Shared)(stringify!($test)); })*
            }

            mod sanitized {
                $(#[test] fn $test() { super::each(super::By::Sanitized)(stringify!($test)); })*
            }

            #[test]
            fn none_is_left_out() {
                all_are_listed($source, &[$(stringify!($test)),*]);
            }
        }
    };
}

/// Tests that need more than a broker: see below.
const WITH_A_DRIVER: &[&str] = &[
    "a_broker_that_dies",
    "all_waits_end",
    "all_requests_end",
    "a_sync_by_the_broker_ends",
    "kloop_of_a_broker_that_dies",
    "s21_pipes_of_one_parent",
];

/// The tests that a program has are those that are run.
fn all_are_listed(source: &'static str, tests: &[&str]) {
    let Some(program) = program(source, By::Preload) else { return };
    let out = Command::new(program).output().expect("it runs");
    expect(source, &out, &[0]);
    let text = String::from_utf8(out.stdout).expect("names");
    let has: Vec<_> = text.lines().filter(|t| !WITH_A_DRIVER.contains(t)).collect();
    assert_eq!(has, tests, "the tests of {source}");
}

tests! { basic: "doors_basic.c", "";
    two_ports_of_a_switch
    two_ends_of_a_pipe
    other_ways_to_open
    what_a_device_refuses
    an_unbound_descriptor
    maps
}

tests! { semantics: "doors_semantics.c", "";
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

tests! { switch: "doors_switch.c", "";
    s11_the_pools_fit_into_the_memory
    s11_a_swap_delivers_without_copying
    s14_a_larger_offset_later_is_refused
    s14_not_on_a_zero_copy_monitor
    s17_headers_are_opaque_or_converted
    s17_a_checksum_is_filled_in
    s17_a_large_packet_is_cut
    s17_headers_that_are_no_headers
    s17_who_opens_must_accept_the_header
    s18_a_persistent_port_lives_by_requests
    s18_both_names_are_one_port
    s18_older_requests_make_and_end_one
    s18_a_detach_leaves_who_is_bound
    s28_names_and_modes_that_are_refused
    s28_syncs_and_maps_of_nothing
    s28_requests_about_ports
}

tests! { attach: "doors_attach.c", "";
    an_interface_on_a_switch
    an_interface_on_a_switch_by_older_requests
    a_persistent_port_on_two_switches
    a_monitor_of_an_interface
}

tests! { monitor: "doors_monitor.c", "";
    s22_a_copy_monitor_sees_what_was_sent
    s22_it_sees_what_arrives_though_nobody_reads
    s22_a_zero_copy_monitor_sees_what_is_released
    s22_it_changes_the_buffer_of_the_slot
    s22_sending_on_a_monitor_fails
    s22_the_port_must_be_open
    s22_a_full_monitor_holds_nobody_up
    s22_each_open_is_a_monitor_of_its_own
    s22_a_monitor_without_its_port
}

tests! { nic: "doors_nic.c", "";
    s24_frames_pass_both_ways
    s24_the_device_says_how_many
    s24_an_interface_that_is_down
    s24_an_interface_that_is_removed
}

tests! { life: "doors_life.c", "";
    close_unbinds_at_once
    a_map_keeps_the_port
    copies_keep_the_port
    fork_shares
    daemons_fork_twice_and_close_all
    what_the_library_keeps
    close_loops
    closed_by_a_bare_system_call
    closefrom_closes_ports
    s10_a_descriptor_arrives
    over_exec
    s10_a_killed_process_is_gone
    low_numbers_and_select
}

tests! { server: "doors_server.c", "";
    descriptors_outlive_their_server
    later_receivers_go_on
}

tests! { wait: "doors_wait.c", "";
    foreign_files_in_one_poll
    signals_end_a_wait
    threads_on_one_descriptor
    work_takes_no_system_call
    epoll_level
    epoll_edge
    epoll_of_many
    waits_can_be_cancelled
}

tests! { events: "doors_events.c", "";
    no_edge_is_lost
}

tests! { ctrl: "doors_ctrl.c", "";
    order_of_checks
    option_list
    answers_that_cannot_be_written
    s14_offsets_of_a_pipe
    older_requests
    older_modes_and_commands
}

tests! { csb: "doors_csb.c", "";
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

tests! { extmem: "doors_extmem.c", "";
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
fn none_of_the_dying_is_left_out() {
    all_are_listed("doors_dying.c", &[]);
}

/// Each section of the contract with lines to be tested has tests: those whose name begins with its number.
#[test]
fn no_section_of_the_contract_is_left_out() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let contract =
        std::fs::read_to_string(here.join("../../docs/contract/semantics.md")).expect("the contract");
    let texts = ["semantics", "switch", "monitor", "life", "ctrl", "nic"]
        .map(|name| std::fs::read_to_string(here.join(format!("tests/doors_{name}.c"))).expect("its source"));
    let mut sections = 0;
    for section in contract.split("\n## ").filter(|s| s.contains("\n**T:**")) {
        let number = section.split('.').next().expect("a number");
        let start = format!("\t{{\"s{number}_");
        assert!(texts.iter().any(|t| t.contains(&start)), "no test of section {number}");
        sections += 1;
    }
    assert!(sections > 10, "{sections}");
}

const BOTH: [By; 2] = [By::Preload, By::Shared];

#[test]
fn s21_pipes_of_one_parent() {
    let config = "[tunables]\npriv_ring_num = 400\npriv_if_num = 100\n";
    for by in BOTH {
        run("doors_semantics.c", "s21_pipes_of_one_parent", by, config);
    }
}

#[test]
fn nm_open_and_nmport_open_on_ports() {
    for by in [By::Shared, By::Static] {
        for test in ["nm_open_on_ports", "nmport_on_ports", "nmport_shares_memory", "nmport_in_a_file"] {
            run("doors_library.c", test, by, "");
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

/// With what it may do that its caller may not, it would run whatever he names.
#[test]
fn a_set_user_id_program_starts_no_broker_that_its_caller_names() {
    use std::os::unix::fs::{PermissionsExt, chown};
    if !root_or_skip("a_set_user_id_program_starts_no_broker_that_its_caller_names") {
        return;
    }
    let Some(program) = program("doors_basic.c", By::Static) else { return };
    let dir = TempDir::new();
    let open_to_all = |path: &Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("it is ours");
    };
    open_to_all(dir.path(), 0o777);
    let (ran, named) = (dir.path().join("ran"), dir.path().join("named"));
    std::fs::write(&named, format!("#!/bin/sh\ntouch {}\n", ran.display())).expect("a script");
    open_to_all(&named, 0o755);
    for (owner, mode, runs) in [(0, 0o755, true), (12345, 0o4755, false)] {
        let copy = dir.path().join(format!("program-{mode:o}"));
        std::fs::copy(&program, &copy).expect("a copy");
        chown(&copy, Some(owner), None).expect("root may");
        open_to_all(&copy, mode);
        let mut command = Command::new(&copy);
        command.arg("two_ports_of_a_switch").env("RINGWAYD", &named);
        command.env("RINGWAY_SOCKET", dir.path().join(format!("folder-{mode:o}/sock")));
        let out = command.output().expect("it runs");
        assert_eq!(ran.exists(), runs, "{mode:o}: {out:?}");
        assert_eq!(dir.path().join(format!("folder-{mode:o}")).exists(), runs, "{mode:o}");
        let _ = std::fs::remove_file(&ran);
    }
}

/// Somebody's `touch /dev/netmap`, in a mount namespace of its own.
#[test]
fn a_plain_file_is_not_taken_for_the_device() {
    let test = "a_plain_file_is_not_taken_for_the_device";
    if !root_or_skip(test) {
        return;
    }
    let Some(program) = program("doors_basic.c", By::Preload) else { return };
    let broker = TestBroker::start("");
    let mut command = broker.command_at(Path::new("unshare"));
    command.args(["--mount", "--propagation", "private", "sh", "-c"]);
    command
        .arg("mount -t tmpfs none /dev && : >/dev/netmap && LD_PRELOAD=$1 exec \"$2\" two_ports_of_a_switch");
    command.arg("sh").arg(library().join("libnetmap.so")).arg(program);
    expect(test, &command.output().expect("it runs"), &[0]);
}

/// Kills the broker when the program says `ready`; if `asks`, stops it then, and kills it when the program says `asked`.
fn run_and_kill(source: &'static str, test: &str, by: By, asks: bool) {
    let Some(program) = program(source, by) else { return };
    let mut broker = TestBroker::start("admit = \"all\"");
    let mut command = command(&broker, &program, by, &[test]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it runs");
    let mut stdin = child.stdin.take().expect("piped");
    let mut out = BufReader::new(child.stdout.take().expect("piped"));
    let mut says = |what: &str| {
        let mut line = String::new();
        out.read_line(&mut line).expect("it speaks");
        if line.trim() != what {
            out.read_to_string(&mut line).expect("it speaks");
            panic!("{test}, {by:?}: {line}");
        }
    };
    says("ready");
    if asks {
        let pid = libc::pid_t::try_from(broker.pid()).expect("a pid");
        // SAFETY: touches no memory.
        assert_eq!(unsafe { libc::kill(pid, libc::SIGSTOP) }, 0);
        writeln!(stdin, "stopped").expect("it listens");
        says("asked");
    }
    broker.kill();
    let mut rest = String::new();
    out.read_to_string(&mut rest).expect("it speaks");
    assert!(child.wait().expect("it ends").success(), "{test}, {by:?}: {rest}");
}

#[test]
fn a_broker_that_dies() {
    for by in BOTH {
        run_and_kill("doors_wait.c", "a_broker_that_dies", by, false);
    }
}

#[test]
fn kloop_of_a_broker_that_dies() {
    for by in BOTH {
        run_and_kill("doors_csb.c", "kloop_of_a_broker_that_dies", by, false);
    }
}

#[test]
fn all_waits_end_when_the_broker_is_killed() {
    for by in BOTH {
        run_and_kill("doors_dying.c", "all_waits_end", by, false);
    }
}

#[test]
fn all_requests_end_when_the_broker_is_killed() {
    for by in BOTH {
        run_and_kill("doors_dying.c", "all_requests_end", by, true);
    }
}

#[test]
fn a_sync_by_the_broker_ends_when_it_is_killed() {
    if root_or_skip("a_sync_by_the_broker_ends_when_it_is_killed") {
        for by in BOTH {
            run_and_kill("doors_dying.c", "a_sync_by_the_broker_ends", by, true);
        }
    }
}

#[test]
fn linked_programs_have_the_doors_too() {
    for by in [By::Static, By::GccSanitized] {
        for test in ["two_ports_of_a_switch", "two_ends_of_a_pipe", "other_ways_to_open", "maps"] {
            run("doors_basic.c", test, by, "");
        }
        for test in ["csb_order_of_checks", "csb_at_register", "kloop_events"] {
            run("doors_csb.c", test, by, "");
        }
        for test in ["extmem_is_the_region", "extmem_errors", "extmem_is_shared"] {
            run("doors_extmem.c", test, by, "");
        }
    }
}
