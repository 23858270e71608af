//! What tests across processes share: the programs, built once; a broker of their own; words about what was skipped.

pub mod hostile;
pub mod ns;
pub mod raw;
pub mod requests;
pub mod role;
pub mod udp;

use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// The folder with `ringway` and `pkt-gen`, as this source builds them. Built on first use, into a target folder of its own:
/// `cargo test` does not build the programs of other packages.
///
/// # Panics
/// If they cannot be built.
pub fn programs() -> &'static Path {
    static DIR: OnceLock<PathBuf> = OnceLock::new();
    DIR.get_or_init(|| match std::env::var_os("RINGWAY_E2E_PROGRAMS") {
        Some(dir) => dir.into(),
        None => build_programs(&[]).join("debug"),
    })
}

/// As [`programs`], built for release: what benches measure.
///
/// # Panics
/// If they cannot be built.
pub fn release_programs() -> &'static Path {
    static DIR: OnceLock<PathBuf> = OnceLock::new();
    DIR.get_or_init(|| build_programs(&["--release"]).join("release"))
}

/// Returns the target folder.
fn build_programs(options: &[&str]) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    let target = root.join(target).join("e2e");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .current_dir(&root)
        .args(["build", "--quiet", "-p", "ringway-apps", "--bins", "--target-dir"])
        .arg(&target)
        .args(options)
        .status()
        .expect("cargo runs");
    assert!(status.success(), "the programs do not build");
    target
}

/// A folder of this test alone, gone when dropped.
#[derive(Debug)]
pub struct TempDir(PathBuf);

impl TempDir {
    /// A new one, which others may enter.
    ///
    /// # Panics
    /// If it cannot be made.
    pub fn new() -> Self {
        use std::os::unix::fs::PermissionsExt;
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("ringway-e2e-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).expect("a folder in /tmp");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("its mode");
        TempDir(path)
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Default for TempDir {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A broker of this test alone.
#[derive(Debug)]
pub struct TestBroker {
    /// Where it keeps its socket.
    pub dir: TempDir,
    programs: &'static Path,
    child: Child,
}

impl TestBroker {
    /// Starts one with a configuration (TOML), and waits until it serves.
    ///
    /// # Panics
    /// If it does not.
    pub fn start(config: &str) -> Self {
        Self::start_from(programs(), config)
    }

    /// As [`TestBroker::start`], with the programs in a folder: [`release_programs`].
    ///
    /// # Panics
    /// If it does not serve.
    pub fn start_from(programs: &'static Path, config: &str) -> Self {
        Self::start_by(Command::new(programs.join("ringway")), programs, config)
    }

    /// As [`TestBroker::start`], by a program that is given the command line of the broker behind its own.
    ///
    /// # Panics
    /// If it does not serve.
    pub fn start_through(wrapper: &[&str], config: &str) -> Self {
        let mut command = Command::new(wrapper[0]);
        command.args(&wrapper[1..]).arg(programs().join("ringway"));
        Self::start_by(command, programs(), config)
    }

    fn start_by(command: Command, programs: &'static Path, config: &str) -> Self {
        let dir = TempDir::new();
        let child = Self::spawn(command, dir.path(), config);
        TestBroker { dir, programs, child }
    }

    fn spawn(mut command: Command, dir: &Path, config: &str) -> Child {
        let file = dir.join("config.toml");
        std::fs::write(&file, config).expect("the configuration is written");
        let mut child = command
            .args(["broker", "run", "--stay", "--socket"])
            .arg(dir.join("sock"))
            .arg("--config")
            .arg(file)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the broker starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("the broker speaks");
        assert_eq!(line.trim(), "ready");
        child
    }

    /// Its socket.
    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("sock")
    }

    /// Where this process opens ports with it.
    pub fn netmap(&self) -> ringway::Netmap {
        ringway::Netmap::at(self.socket())
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// A command with `$RINGWAY_SOCKET` set to this broker: a program by its name.
    pub fn command(&self, program: &str) -> Command {
        self.command_at(&self.programs.join(program))
    }

    /// As [`TestBroker::command`], for the program at a path.
    pub fn command_at(&self, program: &Path) -> Command {
        let mut c = Command::new(program);
        c.env("RINGWAY_SOCKET", self.socket()).env("RINGWAYD", "/nonexistent");
        c
    }

    /// Kills it with SIGKILL.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Starts another where it was.
    pub fn restart(&mut self, config: &str) {
        self.kill();
        self.child = Self::spawn(Command::new(self.programs.join("ringway")), self.dir.path(), config);
    }

    /// What `ringway ARGS --json` says.
    ///
    /// # Panics
    /// If it fails.
    pub fn json(&self, args: &[&str]) -> serde_json::Value {
        let out = self.command("ringway").args(args).arg("--json").output().expect("ringway runs");
        assert!(out.status.success(), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
        serde_json::from_slice(&out.stdout).expect("JSON")
    }

    /// Who owns each buffer, and which locks are held (`ringwayd::listing::Audit`). Starts no process.
    #[must_use]
    pub fn audit(&self) -> serde_json::Value {
        raw::json(&self.socket(), ringway_abi::wire::Kind::Audit)
    }

    /// All ports. Starts no process.
    #[must_use]
    pub fn ports(&self) -> serde_json::Value {
        raw::json(&self.socket(), ringway_abi::wire::Kind::List)
    }

    /// The broker itself. Starts no process.
    #[must_use]
    pub fn status(&self) -> serde_json::Value {
        raw::json(&self.socket(), ringway_abi::wire::Kind::Status)
    }

    /// Nanoseconds of CPU that the broker has used.
    pub fn cpu_ns(&self) -> u64 {
        self.json(&["broker", "status"])[0]["cpu_ns"].as_u64().expect("a number")
    }
}

impl Drop for TestBroker {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Copies a program so that it can be run at once. Not by this process: a child of another thread would inherit the file while it
/// is written, and then it could not be run (ETXTBSY).
///
/// # Panics
/// If it cannot be copied.
pub fn copy_program(from: &Path, to: &Path) {
    let copied = Command::new("cp").args([from, to]).status().expect("cp runs");
    assert!(copied.success(), "a copy of {}", from.display());
}

/// Looks until `met` holds: for what other processes do, and of which nobody tells us.
///
/// # Panics
/// If it does not within twenty seconds.
pub fn eventually(what: &str, mut met: impl FnMut() -> bool) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while !met() {
        assert!(std::time::Instant::now() < deadline, "not within twenty seconds: {what}");
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
}

/// True for root. Otherwise says loudly that `test` is skipped.
pub fn root_or_skip(test: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        println!("SKIP {test}: needs root");
    }
    root
}

/// A process of a test; killed when dropped.
#[derive(Debug)]
pub struct Peer {
    child: Child,
    out: BufReader<std::process::ChildStdout>,
}

impl Peer {
    /// Starts it, and waits until it says `ready`.
    ///
    /// # Errors
    /// What it says instead.
    pub fn start(mut command: Command) -> Result<Self, String> {
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().map_err(|e| e.to_string())?;
        let out = BufReader::new(child.stdout.take().ok_or("no pipe")?);
        let mut peer = Peer { child, out };
        match peer.line().as_str() {
            "ready" => Ok(peer),
            other => Err(other.to_owned()),
        }
    }

    /// Its next line.
    pub fn line(&mut self) -> String {
        let mut line = String::new();
        let _ = self.out.read_line(&mut line);
        line.trim().to_owned()
    }

    /// Its next line, if it comes in time.
    ///
    /// # Panics
    /// If its output cannot be waited for.
    pub fn line_within(&mut self, limit: std::time::Duration) -> Option<String> {
        let is_there = !self.out.buffer().is_empty()
            || ringway_os::sys::wait_readable(self.out.get_ref().as_fd(), limit).expect("a pipe");
        is_there.then(|| self.line())
    }

    /// Tells it something: a line on its standard input.
    pub fn tell(&mut self, line: &str) {
        if let Some(stdin) = &mut self.child.stdin {
            // A process that is gone hears nothing.
            let _ = writeln!(stdin, "{line}");
        }
    }

    /// SIGSTOP; returns when it stands still.
    ///
    /// # Panics
    /// If it is gone.
    pub fn freeze(&self) {
        self.signal(rustix::process::Signal::STOP);
        let pid = rustix::process::Pid::from_raw(self.child.id() as i32);
        let status = rustix::process::waitpid(pid, rustix::process::WaitOptions::UNTRACED);
        let stopped = matches!(status, Ok(Some((_, s))) if s.stopped());
        assert!(stopped, "process {} did not stop: {status:?}", self.child.id());
    }

    /// SIGCONT.
    pub fn thaw(&self) {
        self.signal(rustix::process::Signal::CONT);
    }

    /// Asks it to stop, and returns the numbers that it says at the end.
    ///
    /// # Panics
    /// If it says something else.
    pub fn finish(mut self) -> Vec<u64> {
        self.child.stdin = None;
        let line = self.line();
        line.split(' ').map(|n| n.parse().unwrap_or_else(|_| panic!("it said {line:?}"))).collect()
    }

    /// The numbers that it says at the end by itself.
    ///
    /// # Panics
    /// If it says something else.
    pub fn result(mut self) -> Vec<u64> {
        let line = self.line();
        line.split(' ').map(|n| n.parse().unwrap_or_else(|_| panic!("it said {line:?}"))).collect()
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: rustix::process::Signal) {
        if let Some(pid) = rustix::process::Pid::from_raw(self.child.id() as i32) {
            let _ = rustix::process::kill_process(pid, signal);
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.kill();
    }
}
