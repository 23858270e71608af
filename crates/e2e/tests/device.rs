//! The device file: programs that make system calls which no library sees. Statically linked, and one that has no C library at all.
//! Root only, since a file system is mounted: in a folder of the test, nowhere else.

use ringway::raw::{self, Joined};
use ringway_abi::Errno;
use ringway_e2e::ns::Ns;
use ringway_e2e::{Peer, TempDir, TestBroker, eventually, root_or_skip};
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant};

const NOBODY: u32 = 65534;
const EACCES: &str = "13";
const ENOENT: &str = "2";

/// A broker with a device file, and the programs that use it.
struct Bed {
    broker: TestBroker,
    dir: TempDir,
}

impl Bed {
    /// None, said loudly, where that cannot be.
    fn new(test: &str, device: &str) -> Option<Bed> {
        Self::with(test, device, &TestBroker::start)
    }

    fn with(test: &str, device: &str, start: &dyn Fn(&str) -> TestBroker) -> Option<Bed> {
        if !root_or_skip(test) {
            return None;
        }
        let dir = TempDir::new();
        for (source, flags) in [
            ("calls", &["-static"][..]),
            ("requests", &["-static"]),
            ("stall", &["-static", "-pthread"]),
            ("raw", &["-static", "-nostdlib", "-ffreestanding", "-fno-stack-protector"]),
        ] {
            let root = Path::new(env!("CARGO_MANIFEST_DIR"));
            let status = Command::new("cc")
                .args(["-O1", "-Wall", "-Wextra", "-Werror", "-I"])
                .arg(root.join("../capi/include"))
                .args(flags)
                .arg("-o")
                .arg(dir.path().join(source))
                .arg(root.join("tests/device").join(source).with_extension("c"))
                .status();
            match status {
                Err(e) => {
                    println!("SKIP {test}: no C compiler: {e}");
                    return None;
                }
                Ok(status) => assert!(status.success(), "{source}.c does not build"),
            }
        }
        let path = dir.path().join("netmap");
        let config = format!("admit = \"all\"\n[device]\npath = {path:?}\n{device}");
        let bed = Bed { broker: start(&config), dir };
        let status = bed.status();
        if status.contains("pass-through") {
            println!("SKIP {test}: {status}");
            return None;
        }
        // A test may itself run in a mount namespace of its own.
        assert_eq!(status.split(" (").next(), path.to_str());
        Some(bed)
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("netmap")
    }

    /// What `ringway broker status` says of it.
    fn status(&self) -> String {
        self.broker.json(&["broker", "status"])[0]["device"].as_str().expect("a text").to_owned()
    }

    fn command(&self, program: &str, args: &[&str], uid: u32) -> Command {
        let mut command = Command::new(self.dir.path().join(program));
        command.arg(self.path()).args(args).uid(uid).gid(uid);
        command
    }

    /// What it prints, if it succeeds.
    fn run(&self, program: &str, args: &[&str], uid: u32) -> String {
        let out = self.command(program, args, uid).output().expect("it runs");
        let said = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.success(), "{program} {args:?} of {uid}: {:?} {said}", out.status);
        String::from_utf8_lossy(&out.stdout).trim().to_owned()
    }

    fn helper(&self) -> u32 {
        let pid = self.broker.pid();
        let children =
            std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).expect("its children");
        children.trim().parse().expect("one child")
    }

    /// The kernel tells the helper of a close some time after it.
    fn all_is_given_back(&self) {
        eventually("all is given back", || self.broker.ports().as_array().is_some_and(Vec::is_empty));
    }

    /// Nothing of the device file is left.
    fn is_clean(&self) -> bool {
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("the mounts");
        let folder = self.broker.dir.path().join("device");
        !mounts.contains(folder.to_str().expect("UTF-8")) && std::fs::symlink_metadata(self.path()).is_err()
    }
}

fn signal(pid: u32, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(pid as i32).expect("a process");
    rustix::process::kill_process(pid, signal).expect("it lives");
}

#[test]
fn static_programs_and_raw_calls_run_for_several_users_at_once() {
    let Some(bed) = Bed::new("device", "mode = \"0666\"") else { return };
    std::thread::scope(|s| {
        for (uid, switch) in [(0, "vale1"), (0, "vale2"), (NOBODY, "vale3"), (1000, "vale4")] {
            let bed = &bed;
            s.spawn(move || assert_eq!(bed.run("calls", &["all", switch], uid), "ok"));
        }
    });
    for uid in [0, NOBODY] {
        assert_eq!(bed.run("raw", &[], uid), "");
    }
    bed.all_is_given_back();
}

#[test]
fn persistent_ports_and_monitors_are_had_through_the_file() {
    let Some(bed) = Bed::new("device", "mode = \"0666\"") else { return };
    // Root's persistent ports are interfaces, too.
    let Some(ns) = Ns::new("device") else { return };
    for (uid, name, switch) in [(0, "dev0", "vale0"), (NOBODY, "dev1", "vale1")] {
        let made = ns.run(|| bed.run("requests", &["persistent", name, switch], uid));
        assert_eq!(made, "ok", "{uid}");
        assert_eq!(bed.run("requests", &["monitor", name, switch], uid), "ok", "{uid}");
    }
    bed.all_is_given_back();
}

#[test]
fn s13_s27_what_needs_the_library_is_refused_at_once_and_the_log_says_so() {
    let log = TempDir::new();
    let file = log.path().join("log");
    let script = format!("exec \"$@\" 2>{}", file.display());
    let start = |config: &str| TestBroker::start_through(&["sh", "-c", &script, "sh"], config);
    let Some(bed) = Bed::with("device", "mode = \"0666\"", &start) else { return };
    for uid in [0, NOBODY] {
        assert_eq!(bed.run("requests", &["refused", "a", &format!("vale{uid}")], uid), "ok", "{uid}");
        let text = std::fs::read_to_string(&file).expect("the log");
        for what in ["memory of the program (EXTMEM)", "CSB mode", "the sync loop"] {
            let line = format!("user {uid}: {what} is not to be had through the device file (EOPNOTSUPP)");
            assert!(text.contains(&line), "{line}: {text}");
        }
    }
    bed.all_is_given_back();
}

#[test]
fn s10_another_user_who_holds_the_descriptor_holds_the_port() {
    let Some(bed) = Bed::new("device", "mode = \"0600\"") else { return };
    assert_eq!(bed.run("requests", &["other-user", "a", "vale1"], 0), "ok");
    bed.all_is_given_back();
}

#[test]
fn a_go_program_runs() {
    let Some(bed) = Bed::new("device", "mode = \"0666\"") else { return };
    let program = bed.dir.path().join("raw-go");
    let built = Command::new("go")
        .args(["build", "-o"])
        .arg(&program)
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/device/raw.go"))
        .env("CGO_ENABLED", "0")
        .env("GO111MODULE", "off")
        .env("GOCACHE", bed.dir.path().join("cache"))
        .status();
    match built {
        Err(e) => println!("SKIP a_go_program_runs: no Go: {e}"),
        Ok(status) => {
            assert!(status.success(), "it does not build");
            for uid in [0, NOBODY] {
                assert_eq!(bed.run("raw-go", &[], uid), "ok");
            }
        }
    }
}

#[test]
fn a_program_with_the_library_and_one_with_the_file_meet_on_a_switch() {
    let Some(bed) = Bed::new("device", "") else { return };
    let receiver = Peer::start(bed.command("calls", &["receive", "vale1:r", "500"], 0)).expect("it starts");
    let mut receiver = receiver;
    let sent =
        bed.broker.command("pkt-gen").args(["-i", "vale1:s", "-f", "tx", "-n", "500", "-l", "60"]).output();
    let sent = sent.expect("pkt-gen runs");
    assert!(sent.status.success(), "{}", String::from_utf8_lossy(&sent.stderr));
    assert_eq!(receiver.line(), "ok");
}

#[test]
fn a_process_with_the_library_gets_the_fast_sync_of_a_file_that_it_is_handed() {
    let Some(bed) = Bed::new("device", "") else { return };
    let file = std::fs::File::options().read(true).write(true).open(bed.path()).expect("the device opens");
    assert_eq!(raw::behind_file(file.as_fd()).expect_err("nothing is bound").errno(), Errno::ENXIO);
    let other = std::fs::File::open("/dev/null").expect("it opens");
    assert!(raw::behind_file(other.as_fd()).expect("asked").is_none());
    let mut child = bed.command("calls", &["bind-stdin", "vale1:lent"], 0);
    let status = child.stdin(file.try_clone().expect("a copy")).status().expect("it runs");
    assert!(status.success());
    // It has kept the copy.
    drop(child);
    let lent = raw::behind_file(file.as_fd()).expect("it is lent").expect("it is the device file");
    let Ok(Joined::Bound(bound)) = raw::join(lent.as_fd()) else { panic!("it is bound") };
    assert_eq!(bound.name(), "vale1:lent");
    let start = Instant::now();
    for _ in 0..10_000 {
        bound.txsync().expect("it syncs");
    }
    // Through the file each takes ten microseconds at the very least.
    assert!(start.elapsed() < Duration::from_millis(50), "{:?}", start.elapsed());
    // One binding: it lives until both are gone.
    drop(file);
    assert_eq!(bed.broker.json(&["ports"]).as_array().map(Vec::len), Some(1));
    bound.txsync().expect("it syncs");
    drop((bound, lent));
    bed.all_is_given_back();
}

#[test]
fn mode_and_owner_are_the_configurations_and_rights_the_callers() {
    let Some(bed) = Bed::new("device", "mode = \"0660\"\ngroup = 65534") else { return };
    assert_eq!(bed.run("calls", &["open"], 0), "0");
    assert_eq!(bed.run("calls", &["open"], NOBODY), "0");
    assert_eq!(bed.run("calls", &["open"], 1000), EACCES);
    // Root's port is not theirs, though the helper is root.
    let _held = Peer::start(bed.command("calls", &["hold", "vale1:mine"], 0)).expect("it starts");
    assert_eq!(bed.run("calls", &["bind", "vale1:mine"], NOBODY), EACCES);
    assert_eq!(bed.run("calls", &["bind", "vale1:other"], NOBODY), EACCES, "nor his switch");
    assert_eq!(bed.run("calls", &["bind", "vale2:own"], NOBODY), "0");
    drop(bed);
    let Some(bed) = Bed::new("device", "") else { return };
    assert_eq!(bed.run("calls", &["open"], NOBODY), EACCES, "root's alone by default");
}

#[test]
fn interfaces_are_those_of_the_callers_network_namespace() {
    let Some(bed) = Bed::new("device", "") else { return };
    let Some(ns) = Ns::new("device") else { return };
    ns.sh("ip link add rwdev0 type veth peer name rwdev1 && ip link set rwdev0 up && ip link set rwdev1 up");
    assert_eq!(ns.run(|| bed.run("calls", &["bind", "rwdev0"], 0)), "0");
    assert_eq!(bed.run("calls", &["bind", "rwdev0"], 0), "6", "ENXIO: there is none here");
}

#[test]
fn a_user_has_so_many_descriptors_and_no_more() {
    let Some(bed) = Bed::new("device", "mode = \"0666\"\ndescriptors = 1") else { return };
    let held = Peer::start(bed.command("calls", &["hold", "vale1:a"], NOBODY)).expect("it starts");
    assert_eq!(bed.run("calls", &["open"], NOBODY), "24", "EMFILE");
    assert_eq!(bed.run("calls", &["open"], 0), "0", "another user is not concerned");
    drop(held);
    eventually("the killed one's place is free", || bed.run("calls", &["open"], NOBODY) == "0");
}

/// A caller whose request lies in memory that never comes, and somebody waits for it.
fn stalled(bed: &Bed) -> Peer {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let file = bed.dir.path().join(format!("stall-{}", NEXT.fetch_add(1, Relaxed)));
    std::fs::write(&file, "").expect("a place for a file system");
    let mut peer = Peer::start(bed.command("stall", &[file.to_str().expect("UTF-8")], 0)).expect("it starts");
    assert_eq!(peer.line(), "stalled");
    peer
}

#[test]
fn a_caller_whose_memory_never_comes_stalls_nobody_and_can_be_killed() {
    let Some(bed) = Bed::new("device", "mode = \"0666\"") else { return };
    let (start, mut caller) = (Instant::now(), stalled(&bed));
    for uid in [0, NOBODY] {
        assert_eq!(bed.run("calls", &["bind", &format!("vale{uid}:x")], uid), "0");
    }
    let others = start.elapsed();
    assert_eq!(caller.line(), "EFAULT");
    println!("others took {others:?}, the stalled one {:?}", start.elapsed());
    assert!(start.elapsed() >= Duration::from_millis(900), "it was not waited for: the test tests nothing");
    // As many as may hang, and one more: others of this user are refused, another user is not concerned.
    let mut callers: Vec<Peer> = (1..16).map(|_| stalled(&bed)).collect();
    callers.iter_mut().for_each(|c| assert_eq!(c.line(), "EFAULT"));
    assert_eq!(bed.run("calls", &["bind", "vale0:x"], 0), "14", "EFAULT");
    assert_eq!(bed.run("calls", &["bind", "vale1:x"], NOBODY), "0");
    // Their memory goes with them, and with it what waits there.
    callers.iter_mut().for_each(Peer::kill);
    caller.kill();
    eventually("all is as before", || bed.run("calls", &["bind", "vale0:x"], 0) == "0");
    assert_eq!(bed.run("calls", &["all"], 0), "ok");
}

#[test]
fn a_caller_whose_memory_never_comes_does_not_keep_the_broker_from_ending() {
    let Some(mut bed) = Bed::new("device", "") else { return };
    let mut caller = stalled(&bed);
    assert_eq!(caller.line(), "EFAULT");
    let start = Instant::now();
    assert!(bed.broker.command("ringway").args(["broker", "stop"]).status().expect("it runs").success());
    eventually("all is taken away", || bed.is_clean());
    let config = format!("[device]\npath = {:?}", bed.path());
    bed.broker.restart(&config);
    println!("the next broker after {:?}: {}", start.elapsed(), bed.status());
    assert_eq!(bed.run("calls", &["all"], 0), "ok");
    caller.kill();
}

/// A holder of a port, and its answers: errno of a sync, and the events of a poll.
struct Holder(Child, std::io::BufReader<std::process::ChildStdout>);

impl Holder {
    fn start(mut command: Command) -> Holder {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it starts");
        let out = std::io::BufReader::new(child.stdout.take().expect("piped"));
        let mut holder = Holder(child, out);
        assert_eq!(holder.line(), "ready");
        holder
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        let _ = std::io::BufRead::read_line(&mut self.1, &mut line);
        line.trim().to_owned()
    }

    fn ask(&mut self) -> String {
        self.0.stdin.as_mut().expect("piped").write_all(b"\n").expect("it reads");
        self.line()
    }

    fn kill(&mut self) -> ExitStatus {
        let _ = self.0.kill();
        self.0.wait().expect("it ends")
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        self.kill();
    }
}

#[test]
fn a_killed_caller_leaves_its_name_free() {
    let Some(bed) = Bed::new("device", "") else { return };
    for _ in 0..10 {
        let mut holder = Holder::start(bed.command("calls", &["hold", "vale1:a"], 0));
        assert_eq!(holder.ask(), "0 0");
        holder.kill();
        bed.all_is_given_back();
    }
}

#[test]
fn when_the_helper_is_killed_callers_see_it_and_nothing_is_left() {
    let Some(bed) = Bed::new("device", "") else { return };
    let mut holder = Holder::start(bed.command("calls", &["hold", "vale1:a"], 0));
    signal(bed.helper(), rustix::process::Signal::KILL);
    eventually("the mount goes", || bed.is_clean());
    let answer = holder.ask();
    let (errno, events) = answer.split_once(' ').expect("two numbers");
    assert!(["103", "107"].contains(&errno), "ECONNABORTED or ENOTCONN, not {answer}");
    assert_ne!(events, "0", "poll tells it too");
    assert!(bed.status().starts_with("off: its helper ended"), "{}", bed.status());
    assert_eq!(bed.run("calls", &["open"], 0), ENOENT);
    bed.all_is_given_back();
}

#[test]
fn when_the_broker_ends_or_is_killed_nothing_is_left() {
    let Some(mut bed) = Bed::new("device", "") else { return };
    let mut holder = Holder::start(bed.command("calls", &["hold", "vale1:a"], 0));
    bed.broker.kill();
    eventually("the helper takes the mount away", || bed.is_clean());
    eventually("its caller sees it", || holder.ask().split(' ').next() != Some("0"));
    let config = format!("[device]\npath = {:?}", bed.path());
    bed.broker.restart(&config);
    assert_eq!(bed.run("calls", &["all"], 0), "ok", "the next broker has one again");
    assert!(bed.broker.command("ringway").args(["broker", "stop"]).status().expect("it runs").success());
    eventually("all is taken away", || bed.is_clean());
    // Both at once: the next broker finds a dead mount.
    bed.broker.restart(&config);
    signal(bed.helper(), rustix::process::Signal::STOP);
    let helper = bed.helper();
    bed.broker.kill();
    signal(helper, rustix::process::Signal::KILL);
    assert!(!bed.is_clean());
    bed.broker.restart(&config);
    assert_eq!(bed.run("calls", &["all"], 0), "ok");
}

#[test]
fn the_capabilities_of_the_packaged_unit_are_enough_and_needed() {
    let packaging = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging");
    let of = |file: &str| -> Vec<String> {
        let text = std::fs::read_to_string(packaging.join(file)).expect("it is there");
        let line = text.lines().find_map(|l| l.strip_prefix("CapabilityBoundingSet=")).expect("the key");
        line.split(' ').map(|c| format!("+{}", c.strip_prefix("CAP_").expect(c).to_lowercase())).collect()
    };
    // As systemd starts it: no capability beyond these, and none to be gained.
    let through = |capabilities: &[String], config: &str| {
        let bounding = format!("--bounding-set=-all,{}", capabilities.join(","));
        TestBroker::start_through(&["setpriv", "--no-new-privs", "--inh-caps=-all", &bounding], config)
    };
    let unit = of("ringway.service.in");
    let all = [unit.clone(), of("ringway-device.conf")].concat();
    let Some(bed) = Bed::with("device", "", &|config| through(&all, config)) else { return };
    assert_eq!(bed.run("calls", &["all"], 0), "ok");
    let path = bed.dir.path().join("other");
    let broker = through(&unit, &format!("[device]\npath = {path:?}"));
    let told = broker.status()["device"].as_str().expect("a text").to_owned();
    assert!(told.starts_with("off: its helper needs CAP_SYS_ADMIN, CAP_SYS_PTRACE"), "{told}");
}

#[test]
fn where_it_cannot_be_the_reason_is_told() {
    if !root_or_skip("device") {
        return;
    }
    let broker = TestBroker::start("");
    let device =
        |broker: &TestBroker| broker.json(&["broker", "status"])[0]["device"].as_str().map(str::to_owned);
    assert_eq!(device(&broker).as_deref(), Some("off: not configured ([device])"));
    let dir = TempDir::new();
    let path = dir.path().join("netmap");
    std::fs::write(&path, "somebody's").expect("a file");
    let broker = TestBroker::start(&format!("[device]\npath = {path:?}"));
    let told = device(&broker).expect("a text");
    assert!(told.starts_with("off:") && told.contains("is there already"), "{told}");
    assert_eq!(std::fs::read(&path).expect("it is left alone"), b"somebody's");
}
