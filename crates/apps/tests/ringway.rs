//! `ringway` as it is used: real processes, with a broker that the first of them starts.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// A folder with the broker of one test.
struct Place(PathBuf);

impl Place {
    fn new() -> Place {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("ringway-cli-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let dir = std::env::temp_dir().join(name);
        fs::create_dir(&dir).unwrap();
        Place(dir)
    }

    /// `ringway` with the words of `line`.
    fn command(&self, line: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringway"));
        command.args(line.split_whitespace()).env("RINGWAY_SOCKET", self.0.join("sock"));
        command.env("RINGWAYD", env!("CARGO_BIN_EXE_ringway"));
        command
    }

    /// Its exit status, and what it said on standard output and on standard error.
    fn run(&self, line: &str) -> (i32, String, String) {
        done(
            self.command(line)
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap(),
        )
    }

    fn json(&self, line: &str) -> Value {
        let (status, out, err) = self.run(line);
        assert_eq!(status, 0, "{line}: {err}");
        serde_json::from_str(&out).unwrap_or_else(|e| panic!("{line}: {e} in {out}"))
    }

    /// Runs what must be refused: the one line on standard error.
    fn mistake(&self, line: &str) -> String {
        let (status, out, err) = self.run(line);
        assert_eq!((status, out.as_str()), (2, ""), "{line}: {err}");
        let text = err.strip_prefix("ringway: ").and_then(|t| t.strip_suffix('\n'));
        let text = text.filter(|t| !t.contains('\n')).unwrap_or_else(|| panic!("{line}: {err:?}"));
        text.to_owned()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = self.run("broker stop");
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn done(child: Child) -> (i32, String, String) {
    let out = child.wait_with_output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (out.status.code().unwrap_or(-1), text(&out.stdout), text(&out.stderr))
}

fn count(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} is no count"))
}

/// A capture with one Ethernet frame of each of these lengths.
fn capture(place: &Place, name: &str, lens: &[usize]) -> String {
    let words = |words: &[u32]| words.iter().flat_map(|w| w.to_le_bytes()).collect::<Vec<u8>>();
    let mut file = words(&[0xa1b2_c3d4, 0x0004_0002, 0, 0, 65535, 1]);
    for len in lens {
        file.extend(words(&[0, 0, *len as u32, *len as u32]));
        file.extend((0..*len).map(|i| if i < 6 { 0xff } else { i as u8 }));
    }
    let path = place.0.join(name);
    fs::write(&path, file).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn gen_tells_what_became_of_every_packet() {
    let place = Place::new();
    let all = [
        "vale0:a vale0:b",
        "vale0:a vale0:b --embedded",
        "vale0:a vale0:b --threads 2 --flows 50 --touch --size 1514",
        "vale0:a vale0:b --slots 64 --batch 7",
        "vale0:a vale0:b --size 9000",
        "netmap:x{1 netmap:x}1",
        "netmap:x{1 netmap:x}1 --embedded --size 300",
    ];
    for line in all {
        let said = place.json(&format!("gen {line} --json --duration 0.2"));
        let lost: u64 = said["lost"].as_object().unwrap().values().map(count).sum();
        assert!(count(&said["received"]) > 0 && said["lost"]["unknown"].is_null(), "{line}: {said}");
        assert_eq!(count(&said["sent"]), count(&said["received"]) + lost, "{line}: {said}");
        assert!(!line.contains('{') || lost == 0, "a pipe loses nothing: {said}");
        assert!(said["mpps"].as_f64() > Some(0.0) && said["gbps"].as_f64() > Some(0.0), "{said}");
        assert!(said["tx_cpu_ns"].as_f64() > Some(0.0) && said["rx_cpu_ns"].as_f64() > Some(0.0), "{said}");
        assert_eq!(said["latency_ns"], Value::Null, "not asked for");
    }
}

#[test]
fn gen_prints_a_table() {
    let place = Place::new();
    let (status, out, err) = place.run("gen vale0:a vale0:b --duration 0.2 --latency");
    assert_eq!(status, 0, "{err}");
    let rows = [
        "sent ",
        "received ",
        "lost ",
        "rate ",
        "CPU per packet ",
        "batch ",
        "latency 50 % ",
        "latency max ",
    ];
    let mut lines = out.lines().map(str::trim_start);
    for row in rows {
        assert!(lines.any(|l| l.starts_with(row)), "no {row:?}, or in another order: {out}");
    }
}

#[test]
fn gen_measures_latencies_and_keeps_a_rate() {
    let place = Place::new();
    let said = place.json("gen vale0:a vale0:b --duration 1 --rate 2000 --latency --json");
    let sent = count(&said["sent"]);
    assert!((1000..=2100).contains(&sent), "{said}");
    let at = |name: &str| count(&said["latency_ns"][name]);
    assert!(at("50 %") > 0 && at("50 %") <= at("99 %") && at("99 %") <= at("max"), "{said}");
}

#[test]
fn gen_sends_the_frames_of_a_capture() {
    let place = Place::new();
    let path = capture(&place, "frames.pcap", &[60, 1000, 5000]);
    let said = place.json(&format!("gen netmap:x{{1 netmap:x}}1 --pcap {path} --duration 0.2 --json"));
    let (packets, bits) = (count(&said["received"]) as f64, said["gbps"].as_f64().unwrap());
    let mean = bits * 1e9 / 8.0 / (said["mpps"].as_f64().unwrap() * 1e6);
    assert!(packets > 0.0 && (1900.0..2200.0).contains(&mean), "mean of {mean} bytes: {said}");
}

#[test]
fn gen_says_in_one_line_what_cannot_be() {
    let place = Place::new();
    let long = capture(&place, "long.pcap", &[60, 200_000]);
    let short = capture(&place, "short.pcap", &[20]);
    let junk = place.0.join("junk").to_str().unwrap().to_owned();
    fs::write(&junk, "junk and nothing else").unwrap();
    for (line, want) in [
        (format!("vale0:a vale0:b --pcap {long}"), "200000 bytes does not fit"),
        (format!("vale0:a vale0:b --embedded --pcap {long}"), "200000 bytes does not fit"),
        ("vale0:a vale0:b --slots 4 --size 9000".into(), "9000 bytes does not fit"),
        (format!("vale0:a vale0:b --latency --pcap {short}"), "50 bytes or more"),
        ("vale0:a vale0:b --latency --size 49".into(), "50 bytes or more"),
        (format!("vale0:a vale0:b --pcap {junk}"), "not a pcap or pcapng file"),
        ("vale0:a vale0:b --pcap /nonexistent".into(), "/nonexistent"),
        ("netmap:nosuchnic vale0:b".into(), "nosuchnic"),
        ("vale0:a netmap:nosuchnic".into(), "nosuchnic"),
        ("vale0:a vale0:a".into(), "vale0:a"),
        ("vale0 vale0:b".into(), "missing ':'"),
        ("vale0:a@mode=copy vale0:b".into(), "a mode is for interfaces"),
        ("vale0:a vale0:b@mode=copy --embedded".into(), "a mode is for interfaces"),
    ] {
        let said = place.mistake(&format!("gen --duration 0.2 {line}"));
        assert!(said.contains(want), "{line}: {said}");
    }
    // No option is without effect: these are refused before anything is opened.
    for line in
        ["--pcap x --size 70", "--pcap x --flows 2", "--rate 1e-9", "--rate nan", "--duration 0", "--size 41"]
    {
        let (status, out, err) = place.run(&format!("gen vale0:a vale0:b {line}"));
        assert_eq!((status, out.as_str()), (2, ""), "{line}: {err}");
    }
    let (status, _, err) = place.run("gen vale0:a vale1:b --duration 0.2");
    assert_eq!((status, err.as_str()), (1, "ringway: nothing was received\n"));
}

/// Processes that were started with this folder's socket and `--role`: halves of a `gen`.
fn halves(place: &Place) -> usize {
    let ours = |pid: &str| {
        let read = |file: &str| fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
        let has = |bytes: Vec<u8>, word: &str| String::from_utf8_lossy(&bytes).contains(word);
        has(read("cmdline"), "--role") && has(read("environ"), place.0.to_str().unwrap())
    };
    let names = fs::read_dir("/proc").unwrap().filter_map(|e| e.ok()?.file_name().into_string().ok());
    names.filter(|n| n.parse::<u32>().is_ok() && ours(n)).count()
}

fn eventually(what: &str, mut met: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !met() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::yield_now();
    }
}

/// A `gen` that would run for a minute, with packets under way.
fn running(place: &Place) -> Child {
    let mut command = place.command("gen vale0:a vale0:b --duration 60 --json");
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    eventually("both halves send and receive", || {
        let ports: Value = serde_json::from_str(&place.run("ports --json --interval 0").1).unwrap();
        let moved = |p: &Value| count(&p["rx"]["packets"]) > 0;
        ports.as_array().unwrap().iter().any(|p| p["name"] == "vale0:b" && moved(p))
    });
    child
}

#[test]
fn control_c_ends_gen_with_its_table() {
    let place = Place::new();
    let child = running(&place);
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let (status, out, err) = done(child);
    assert_eq!((status, err.as_str()), (0, ""));
    let said: Value = serde_json::from_str(&out).unwrap();
    assert!(count(&said["received"]) > 0, "{said}");
}

#[test]
fn halves_of_gen_end_with_it_and_it_with_them() {
    let place = Place::new();
    let mut child = running(&place);
    assert_eq!(halves(&place), 2);
    child.kill().unwrap();
    child.wait().unwrap();
    eventually("the halves end", || halves(&place) == 0);

    let child = running(&place);
    assert_eq!(place.run("broker stop").0, 0);
    let (status, out, err) = done(child);
    assert_eq!((status, out.as_str()), (2, ""));
    assert!(err.contains("the broker is gone"), "{err}");
}

#[test]
fn ports_are_listed_with_all_that_the_user_asks() {
    let place = Place::new();
    assert_eq!(place.run("ports").1, "no ports: no broker runs\n");
    assert_eq!(place.json("ports --json"), Value::Array(vec![]));
    let mut child = running(&place);
    let (status, out, _) = place.run("ports");
    assert_eq!(status, 0);
    for word in
        ["port", "kind", "mode", "lease", "rings", "held by", "tx pps", "rx pps", "sent", "received", "drops"]
    {
        assert!(out.lines().next().unwrap().contains(word), "no {word}: {out}");
    }
    assert!(
        out.contains("vale0:a") && out.contains("direct") && out.contains("1x1024 tx, 1x1024 rx"),
        "{out}"
    );
    for bad in ["ports --interval inf", "ports --interval x", "ports more"] {
        assert_eq!(place.run(bad).0, 2, "{bad}");
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_name_commands_no_terminal() {
    let place = Place::new();
    let mut command = Command::new(env!("CARGO_BIN_EXE_pkt-gen"));
    command.args(["-f", "rx", "-i", "vale0:\x1b[2J"]).env("RINGWAY_SOCKET", place.0.join("sock"));
    command.env("RINGWAYD", env!("CARGO_BIN_EXE_ringway")).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    let mut listed = String::new();
    eventually("it is listed", || {
        listed = place.run("ports --interval 0").1;
        listed.contains("vale0:")
    });
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(listed.contains(r"vale0:\u{1b}[2J") && !listed.contains('\x1b'), "{listed:?}");
}

#[test]
fn parameters_are_shown_set_and_refused() {
    let place = Place::new();
    let (status, all, _) = place.run("tune");
    assert!(
        status == 0 && all.contains("priv_buf_size = 2112\n") && all.contains("max_bridges = 8  ("),
        "{all}"
    );
    assert_eq!(place.run("tune priv_buf_num 5000").1, "priv_buf_num = 5000\n");
    assert_eq!(place.run("tune priv_buf_num").1, "priv_buf_num = 5000\n");
    assert_eq!(place.mistake("tune nosuch"), "there is no tunable nosuch");
    assert!(place.mistake("tune max_bridges 9").contains("set it in its file"));
    assert_eq!(place.run("tune priv_buf_size -1").1, "priv_buf_size = -1\n");
    let said = place.mistake("gen vale0:a vale0:b --duration 0.2");
    assert!(said.contains("priv_buf_size is -1"), "{said}");
    place.run("tune priv_buf_size 2112");
    place.run("tune priv_if_size 1");
    let said = place.mistake("gen vale0:a vale0:b --duration 0.2");
    assert!(said.contains("raise tunable priv_if_size"), "{said}");
}

#[test]
fn a_broker_that_is_named_and_not_there_is_said() {
    let place = Place::new();
    let mut command = place.command("gen vale0:a vale0:b");
    command.env("RINGWAYD", "/nonexistent/ringwayd").stdin(Stdio::null()).stdout(Stdio::piped());
    let (status, _, err) = done(command.stderr(Stdio::piped()).spawn().unwrap());
    assert_eq!(
        (status, err.as_str()),
        (2, "ringway: no broker: RINGWAYD names /nonexistent/ringwayd, which is not there\n")
    );
}
