//! The C side of the tests: compilers, the library as C programs see it, and programs compiled and run.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// A language of the headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lang {
    C,
    Cxx,
}

/// A compiler that is there.
#[derive(Clone, Debug)]
pub struct Compiler {
    pub program: &'static str,
    pub lang: Lang,
    /// Flags for AddressSanitizer and UndefinedBehaviorSanitizer, if programs built so can run.
    pub sanitize: &'static [&'static str],
}

/// How a program is linked.
#[allow(dead_code, reason = "not every test needs all of this")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// With nothing of ours.
    Headers,
    /// With `libnetmap.so`.
    Shared,
    /// With `libnetmap.a`.
    Static,
}

const SANITIZE: &[&str] =
    &["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer"];

/// The compilers of a language; none is said once, loudly.
pub fn compilers(lang: Lang) -> Vec<Compiler> {
    static ALL: OnceLock<Vec<Compiler>> = OnceLock::new();
    let all = ALL.get_or_init(|| {
        let known = [("gcc", Lang::C), ("clang", Lang::C), ("g++", Lang::Cxx), ("clang++", Lang::Cxx)];
        let all: Vec<_> =
            known.into_iter().filter_map(|(program, lang)| Compiler::find(program, lang)).collect();
        for Compiler { program, sanitize, .. } in &all {
            println!(
                "{program}: used, {}",
                if sanitize.is_empty() { "no sanitizers" } else { "with sanitizers" }
            );
        }
        all
    });
    let found: Vec<_> = all.iter().filter(|compiler| compiler.lang == lang).cloned().collect();
    if found.is_empty() {
        println!("SKIP C programs: no compiler for {lang:?} is here");
    }
    found
}

impl Compiler {
    fn find(program: &'static str, lang: Lang) -> Option<Self> {
        let there = Command::new(program).arg("--version").output().is_ok_and(|out| out.status.success());
        let mut compiler = there.then_some(Self { program, lang, sanitize: &[] })?;
        let dir = TempDir::new();
        let source = dir.path().join("trial.c");
        std::fs::write(&source, "int main(void) { return 0; }\n").expect("a file in /tmp");
        let output = dir.path().join("trial");
        let built = compiler.command(&source).args(SANITIZE).arg("-o").arg(&output).output();
        let runs = built.is_ok_and(|out| out.status.success())
            && Command::new(output).output().is_ok_and(|out| out.status.success());
        if runs {
            compiler.sanitize = SANITIZE;
        }
        Some(compiler)
    }

    /// This compiler on one source, which is C or C++ as the compiler is. No warning is let pass.
    pub fn command(&self, source: &Path) -> Command {
        let mut command = Command::new(self.program);
        command.args(["-Wall", "-Wextra", "-pedantic", "-Werror", "-g", "-O1", "-I"]).arg(include_dir());
        command.args(match self.lang {
            Lang::C => ["-x", "c"],
            Lang::Cxx => ["-x", "c++"],
        });
        command.arg(source).args(["-x", "none"]);
        command
    }

    /// What is to be linked.
    pub fn link(&self, command: &mut Command, link: Link) {
        match link {
            Link::Headers => {}
            Link::Shared => {
                let lib = library();
                command.args(["-Wl,--no-as-needed", "-L"]).arg(lib).arg("-lnetmap");
                command.arg(format!("-Wl,-rpath,{}", lib.display()));
            }
            Link::Static => {
                command.arg(library().join("libnetmap.a")).args(["-lgcc_s", "-lpthread", "-ldl", "-lm"]);
            }
        }
    }

    #[allow(dead_code, reason = "not every test needs it")]
    /// Compiles `tests/NAME` with more flags, runs it with one argument, a path of its own, and expects that it
    /// ends well. Its exit code is given: 77 means that it could not be tried here.
    ///
    /// # Panics
    /// If it does not compile or ends with another code.
    pub fn run(&self, name: &str, flags: &[&str], link: Link) -> i32 {
        let dir = TempDir::new();
        let program = dir.path().join("program");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(name);
        let mut command = self.command(&source);
        command.args(self.sanitize).args(flags).arg("-o").arg(&program);
        self.link(&mut command, link);
        let what = format!("{name} by {} with {flags:?}, {link:?}", self.program);
        expect(&what, &command.output().expect("the compiler runs"), &[0]);
        let file = dir.path().join("file");
        let mut out = Command::new(program)
            .arg(&file)
            .env("RINGWAY_SOCKET", "/dev/null/sock")
            .env("RINGWAYD", "/nonexistent")
            .output()
            .expect("the program runs");
        // Some send their standard error there, and with it what a sanitizer says.
        out.stderr.extend(std::fs::read(file).unwrap_or_default());
        expect(&what, &out, &[0, 77])
    }
}

/// The exit code, one of those allowed.
///
/// # Panics
/// If it is another, with all that was printed.
pub fn expect(what: &str, out: &Output, allowed: &[i32]) -> i32 {
    match out.status.code() {
        Some(code) if allowed.contains(&code) => code,
        _ => panic!(
            "{what}: {}\n{}{}",
            out.status,
            String::from_utf8_lossy(&out.stdout),
            String::from_utf8_lossy(&out.stderr)
        ),
    }
}

/// Where the headers are.
pub fn include_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("include")
}

/// The folder with `libnetmap.so` and `libnetmap.a`, as this source builds them. Built on first use, into the
/// target folder of programs under test: `cargo test` builds neither.
///
/// # Panics
/// If they cannot be built.
pub fn library() -> &'static Path {
    static DIR: OnceLock<PathBuf> = OnceLock::new();
    DIR.get_or_init(|| {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let root = root.canonicalize().expect("the workspace is there");
        let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
        let target = root.join(target).join("e2e");
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let status = Command::new(cargo)
            .current_dir(&root)
            .args(["build", "--quiet", "-p", "ringway-capi", "--lib", "--target-dir"])
            .arg(&target)
            .status()
            .expect("cargo runs");
        assert!(status.success(), "the library does not build");
        target.join("debug")
    })
}

/// A folder of this test alone, gone when dropped.
#[derive(Debug)]
pub struct TempDir(PathBuf);

impl TempDir {
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("ringway-capi-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).expect("a folder in /tmp");
        TempDir(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
