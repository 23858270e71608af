//! `install.sh`: what it puts is complete and works, and it takes away that and nothing else.

use ringway_e2e::{Peer, TempDir};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

/// Reads names only: no broker, no device.
const PROGRAM: &str = r#"
#include <libnetmap.h>
#include <stdio.h>
#include <string.h>
int main(void)
{
	struct nmport_d *d = nmport_prepare("vale0:a@conf:rings=2");
	if (d == NULL || strcmp(d->hdr.nr_name, "vale0:a") != 0 || d->reg.nr_tx_rings != 2)
		return 1;
	nmport_undo_prepare(d);
	puts(NETMAP_API == 14 ? "prepared" : "another netmap");
	return 0;
}
"#;

/// A thread that waits on a port is cancelled: it is unwound past the doors, which abort on panics in a release.
const CANCELLED: &str = r#"
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#define NETMAP_WITH_LIBS
#include <net/netmap_user.h>
static void *wait_for_ever(void *fd)
{
	struct pollfd p = {.fd = *(int *)fd, .events = POLLIN};
	poll(&p, 1, -1);
	return NULL;
}
int main(void)
{
	struct nm_desc *d = nm_open("vale0:c", NULL, 0, NULL);
	pthread_t thread;
	void *result;
	if (d == NULL || pthread_create(&thread, NULL, wait_for_ever, &d->fd) != 0)
		return 1;
	if (pthread_cancel(thread) != 0 || pthread_join(thread, &result) != 0)
		return 2;
	puts(result == PTHREAD_CANCELED ? "cancelled" : "not cancelled");
	return nm_close(d);
}
"#;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("the workspace is there")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A command that must end with 0; its standard output.
fn done(command: &mut Command) -> String {
    let out = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(out.status.success(), "{command:?}: {}\n{}{}", out.status, text(&out.stdout), text(&out.stderr));
    text(&out.stdout)
}

/// Where `install.sh build` laid out the programs of this source, for debugging; done once.
fn built() -> &'static Path {
    static STAGE: OnceLock<PathBuf> = OnceLock::new();
    STAGE.get_or_init(|| {
        let target =
            std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
        let said = done(
            Command::new(root().join("install.sh"))
                .args(["build", "--profile", "dev"])
                .env("CARGO_TARGET_DIR", root().join(target).join("e2e")),
        );
        said.lines().find_map(|l| l.strip_prefix("built: ")).expect("it says where").into()
    })
}

/// A prefix of this test alone.
struct Prefix {
    dir: TempDir,
}

impl Prefix {
    fn new() -> Self {
        Prefix { dir: TempDir::new() }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("opt/ringway")
    }

    fn installer(&self, args: &[&str]) -> Command {
        let mut command = Command::new(built().join("install.sh"));
        command.args(args).arg("--prefix").arg(self.path()).env_remove("DESTDIR");
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        self.installer(args).output().expect("install.sh runs")
    }

    fn good(&self, args: &[&str]) -> String {
        let out = self.run(args);
        assert!(out.status.success(), "{args:?}: {}{}", text(&out.stdout), text(&out.stderr));
        text(&out.stdout)
    }

    /// What it says when it refuses.
    fn bad(&self, args: &[&str]) -> String {
        let out = self.run(args);
        assert_eq!(out.status.code(), Some(1), "{args:?}: {}{}", text(&out.stdout), text(&out.stderr));
        text(&out.stderr)
    }

    /// A command of this installation, with a broker of its own.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.path().join(program));
        command
            .env("RINGWAY_SOCKET", self.dir.path().join("sock"))
            .env_remove("RINGWAYD")
            .env("PATH", "/nowhere");
        command
    }
}

/// Every path below a folder, with mode, owner, and content if it is a file.
fn tree(dir: &Path) -> BTreeMap<PathBuf, (u32, u32, Vec<u8>)> {
    let mut out = BTreeMap::new();
    let mut todo = vec![dir.to_owned()];
    while let Some(path) = todo.pop() {
        let meta = fs::symlink_metadata(&path).expect("it is there");
        let content = if meta.is_file() { fs::read(&path).expect("it can be read") } else { vec![] };
        if meta.is_dir() {
            todo.extend(fs::read_dir(&path).expect("a folder").map(|e| e.expect("an entry").path()));
        }
        out.insert(path, (meta.mode(), meta.uid(), content));
    }
    out
}

fn write(path: &Path, content: &str) {
    fs::create_dir_all(path.parent().expect("a folder")).expect("folders");
    fs::write(path, content).expect("a file");
}

#[test]
fn what_is_installed_works_and_goes_away_again() {
    let prefix = Prefix::new();
    let before = tree(prefix.dir.path());
    assert!(prefix.good(&["install", "--dry-run"]).contains("would put"));
    assert_eq!(tree(prefix.dir.path()), before, "a dry run changes nothing");
    prefix.good(&["install"]);
    let installed = tree(prefix.dir.path());
    let uid = rustix::process::geteuid().as_raw();
    for (path, (mode, owner, _)) in &installed {
        let name = path.strip_prefix(prefix.path()).unwrap_or(Path::new("")).to_owned();
        let program = name.starts_with("bin") || name.starts_with("libexec");
        let wanted = if path.is_dir() || program { 0o755 } else { 0o644 };
        assert_eq!((mode & 0o7777, *owner), (wanted, uid), "{}", path.display());
    }

    // The programs, with the broker that is installed with them.
    assert!(done(prefix.command("bin/ringway").arg("--version")).starts_with("ringway "));
    let gen_args = ["gen", "vale0:a", "vale0:b", "--duration", "1", "--json"];
    let result: serde_json::Value =
        serde_json::from_str(&done(prefix.command("bin/ringway").args(gen_args))).expect("JSON");
    assert!(result["received"].as_u64().is_some_and(|n| n > 0), "{result}");
    done(prefix.command("bin/ringway").args(["broker", "stop"]));
    // Without `ringway` beside it, a program finds the one in libexec.
    let (program, aside) = (prefix.path().join("bin/ringway"), prefix.path().join("bin/aside"));
    fs::rename(&program, &aside).unwrap();
    done(prefix.command("bin/pkt-gen").args(["-i", "vale0:a", "-f", "tx", "-n", "10"]));
    fs::rename(&aside, &program).unwrap();
    done(prefix.command("bin/ringway").args(["broker", "stop"]));

    // And a program from anywhere else, with the library: through the doors as `ringway run` opens them.
    done(
        prefix
            .command("bin/ringway")
            .args(["run", "sh", "-c", "exec 3<>/dev/netmap"])
            .env("PATH", "/usr/bin:/bin"),
    );
    done(prefix.command("bin/ringway").args(["broker", "stop"]));

    // The example is a configuration, and the daemon serves with it.
    let example = prefix.path().join("share/doc/ringway/ringway.toml");
    let mut daemon = prefix.command("libexec/ringwayd");
    daemon.arg("--config").arg(&example);
    drop(Peer::start(daemon).expect("it serves"));

    let c = TempDir::new();
    link_with_the_library(&prefix.path(), c.path());
    cancel_a_wait(&prefix, c.path());
    pages_can_be_read(&prefix.path().join("share/man"));
    unit_is_understood(&prefix.path());

    // Again: nothing changes. Then away: as before.
    let socket_folder = |tree: BTreeMap<PathBuf, _>| -> BTreeMap<PathBuf, _> {
        tree.into_iter().filter(|(p, _)| p.starts_with(prefix.path())).collect()
    };
    prefix.good(&["install"]);
    assert_eq!(socket_folder(tree(prefix.dir.path())), socket_folder(installed));
    prefix.good(&["uninstall"]);
    assert!(!prefix.dir.path().join("opt").exists(), "{:?}", tree(prefix.dir.path()).keys());
    assert!(prefix.bad(&["uninstall"]).contains("nothing of ours"));
}

fn compiler_or_skip(name: &str) -> bool {
    let found = Command::new("cc").arg("--version").output().is_ok_and(|o| o.status.success());
    if !found {
        println!("SKIP {name}: no C compiler");
    }
    found
}

fn cancel_a_wait(prefix: &Prefix, dir: &Path) {
    if !compiler_or_skip("cancel_a_wait") {
        return;
    }
    let (source, program) = (dir.join("cancelled.c"), dir.join("cancelled"));
    write(&source, CANCELLED);
    let include = prefix.path().join("include");
    done(Command::new("cc").arg("-pthread").arg("-I").arg(include).arg("-o").arg(&program).arg(&source));
    let mut run = prefix.command("bin/ringway");
    assert_eq!(done(run.arg("run").arg(&program)), "cancelled\n");
    done(prefix.command("bin/ringway").args(["broker", "stop"]));
}

/// A C program, with the flags of `netmap.pc`, in the three ways of linking.
fn link_with_the_library(prefix: &Path, dir: &Path) {
    if !compiler_or_skip("link_with_the_library") {
        return;
    }
    let file = fs::read_to_string(prefix.join("lib/pkgconfig/netmap.pc")).expect("netmap.pc");
    assert!(!file.contains("@"), "{file}");
    let flags = |options: &[&str]| -> Vec<String> {
        let out = Command::new("pkg-config")
            .args(options)
            .arg("netmap")
            .env("PKG_CONFIG_PATH", prefix.join("lib/pkgconfig"))
            .output();
        let line = match out {
            Ok(out) => {
                assert!(out.status.success(), "pkg-config: {}", text(&out.stderr));
                text(&out.stdout)
            }
            // Without pkg-config: what it would do with this file.
            Err(_) => {
                let private = options.contains(&"--static");
                let keys = ["Cflags: ", "Libs: ", "Libs.private: "];
                let fields = keys.iter().filter(|k| private || **k != "Libs.private: ");
                let of = |k: &&str| file.lines().find_map(|l| l.strip_prefix(*k)).expect("the field");
                let line = fields.map(of).collect::<Vec<_>>().join(" ");
                line.replace("${includedir}", prefix.join("include").to_str().expect("UTF-8"))
                    .replace("${libdir}", prefix.join("lib").to_str().expect("UTF-8"))
            }
        };
        line.split_whitespace().map(Into::into).collect()
    };
    let source = dir.join("prog.c");
    write(&source, PROGRAM);
    let shared = flags(&["--cflags", "--libs"]);
    let private = flags(&["--cflags", "--static", "--libs"]);
    let archive: Vec<String> =
        private.iter().map(|f| if f == "-lnetmap" { "-l:libnetmap.a".into() } else { f.clone() }).collect();
    for (name, first, flags) in
        [("shared", "-pie", &shared), ("archive", "-pie", &archive), ("static", "-static", &private)]
    {
        let program = dir.join(name);
        done(
            Command::new("cc").args(["-Wall", "-Werror", first, "-o"]).arg(&program).arg(&source).args(flags),
        );
        let mut run = Command::new(&program);
        if name == "shared" {
            // Not found without, so it is the library that is used.
            assert!(
                !Command::new(&program)
                    .env_remove("LD_LIBRARY_PATH")
                    .output()
                    .expect("runs")
                    .status
                    .success()
            );
            run.env("LD_LIBRARY_PATH", prefix.join("lib"));
        }
        assert_eq!(done(&mut run), "prepared\n", "{name}");
    }
    // The name that programs look for is that of netmap's own library, so a preloaded one answers to it.
    let program = dir.join("shared");
    let out = done(Command::new(program).env("LD_PRELOAD", prefix.join("lib/libnetmap.so")));
    assert_eq!(out, "prepared\n");
}

/// Every page has a name, a heading line, and what `man` needs; and `man` reads it, if it is there.
fn pages_can_be_read(dir: &Path) {
    let pages: Vec<PathBuf> = tree(dir).into_keys().filter(|p| p.is_file()).collect();
    for name in ["ringway.1", "ringway-gen.1", "pkt-gen.8", "ringwayd.8", "libnetmap.3", "netmap.4"] {
        let there = pages.iter().filter(|p| p.file_name().is_some_and(|n| n == name)).count();
        assert_eq!(there, 1, "{name} in {pages:?}");
    }
    let man = Command::new("man").arg("--version").output().is_ok_and(|out| out.status.success());
    for page in &pages {
        let source = fs::read_to_string(page).expect("a page");
        let name = page.file_stem().and_then(|s| s.to_str()).expect("a name");
        let section = page.extension().and_then(|s| s.to_str()).expect("a section");
        let heading = source.lines().find(|l| l.starts_with(".TH ")).expect("a heading");
        assert!(heading.starts_with(&format!(".TH {name} {section} ")), "{heading}");
        assert!(page.parent().is_some_and(|p| p.ends_with(format!("man{section}"))), "{}", page.display());
        assert!(
            source.contains(&format!("{} \\- ", name.replace('-', "\\-"))),
            "{}: what it is",
            page.display()
        );
        if man {
            let out = Command::new("man")
                .args(["--warnings", "-l"])
                .arg(page)
                .env("LC_ALL", "C.UTF-8")
                .env("MANROFFSEQ", "")
                .env("MANWIDTH", "100")
                .output()
                .expect("man runs");
            assert!(
                out.status.success() && out.stderr.is_empty(),
                "{}: {}",
                page.display(),
                text(&out.stderr)
            );
            assert!(text(&out.stdout).contains(name), "{}", text(&out.stdout));
        }
    }
}

/// The unit starts the program that is installed, and systemd has nothing to say against it, if it is there.
fn unit_is_understood(prefix: &Path) {
    let unit = prefix.join("lib/systemd/system/ringway.service");
    let source = fs::read_to_string(&unit).expect("the unit");
    let start = source.lines().find_map(|l| l.strip_prefix("ExecStart=")).expect("what it starts");
    assert_eq!(start.split(' ').next().map(Path::new), Some(&*prefix.join("libexec/ringwayd")));
    // As it is, and with the drop-in for a device file.
    let copy = TempDir::new();
    let dropped = copy.path().join("ringway.service");
    fs::copy(&unit, &dropped).expect("a copy");
    let device =
        fs::read_to_string(prefix.join("share/doc/ringway/ringway-device.conf")).expect("the drop-in");
    write(&copy.path().join("ringway.service.d/device.conf"), &device);
    for unit in [unit, dropped] {
        match Command::new("systemd-analyze")
            .arg("verify")
            .arg(&unit)
            .env("MANPATH", prefix.join("share/man"))
            .output()
        {
            Ok(out) => assert!(out.status.success() && out.stderr.is_empty(), "{}", text(&out.stderr)),
            Err(_) => println!("systemd-analyze is not here: the unit was read by this test only"),
        }
    }
}

#[test]
fn files_of_others_stay() {
    let prefix = Prefix::new();
    let theirs = prefix.path().join("lib/libnetmap.so");
    let header = prefix.path().join("include/net/netmap.h");
    write(&theirs, "the real one");
    write(&header, "its header");
    let before = tree(prefix.dir.path());
    let said = prefix.bad(&["install"]);
    assert!(said.contains("lib/libnetmap.so: Ringway did not install it"), "{said}");
    assert!(said.contains("include/net/netmap.h") && said.contains("--force"), "{said}");
    assert!(prefix.bad(&["install", "--dry-run"]).contains("libnetmap.so"));
    assert_eq!(tree(prefix.dir.path()), before, "a refusal changes nothing");

    prefix.good(&["install", "--force"]);
    assert_ne!(fs::read(&theirs).unwrap(), b"the real one");
    // Somebody edits one file of ours, and puts one of his own beside them.
    let edited = prefix.path().join("share/doc/ringway/ringway.toml");
    let own = prefix.path().join("include/own.h");
    write(&edited, "stay = true\n");
    write(&own, "own");
    assert!(prefix.bad(&["install"]).contains("ringway.toml: it was changed after it was installed"));
    let out = prefix.run(&["uninstall"]);
    assert!(out.status.success() && text(&out.stderr).contains("kept"), "{}", text(&out.stderr));
    let left: Vec<PathBuf> = tree(&prefix.path()).into_keys().filter(|p| p.is_file()).collect();
    assert_eq!(left, [own, edited]);
    let lib = prefix.path().join("lib");
    assert!(lib.is_dir() && fs::read_dir(lib).unwrap().next().is_none(), "a folder that was there stays");
}

#[test]
fn links_and_folders_in_the_way_are_no_trap() {
    let prefix = Prefix::new();
    let outside = prefix.dir.path().join("outside");
    fs::create_dir_all(&outside).unwrap();
    fs::create_dir_all(prefix.path().join("bin")).unwrap();
    std::os::unix::fs::symlink(&outside, prefix.path().join("bin/ringway")).unwrap();
    assert!(prefix.bad(&["install"]).contains("it is not a plain file"));
    prefix.good(&["install", "--force"]);
    assert!(fs::read_dir(&outside).unwrap().next().is_none(), "nothing went through the link");
    assert!(fs::symlink_metadata(prefix.path().join("bin/ringway")).unwrap().is_file());
    prefix.good(&["uninstall"]);
    fs::create_dir_all(prefix.path().join("bin/pkt-gen")).unwrap();
    assert!(prefix.bad(&["install", "--force"]).contains("pkt-gen is in the way: it is a folder"));
    fs::remove_dir_all(prefix.path()).unwrap();
    write(&prefix.path(), "a file");
    assert!(prefix.bad(&["install"]).contains("it is not a folder"));
}

#[test]
fn another_version_replaces_the_one_before() {
    let prefix = Prefix::new();
    let other = TempDir::new();
    done(Command::new("cp").arg("-R").arg(built()).arg(other.path().join("stage")));
    let stage = other.path().join("stage");
    write(&stage.join("share/doc/ringway/gone.md"), "only in the old version");
    write(&stage.join("share/doc/ringway/README.md"), "older");
    prefix.good(&["install", "--from", stage.to_str().unwrap()]);
    let doc = prefix.path().join("share/doc/ringway");
    assert!(doc.join("gone.md").exists());
    prefix.good(&["install"]);
    assert!(!doc.join("gone.md").exists());
    assert_eq!(fs::read(doc.join("README.md")).unwrap(), fs::read(root().join("README.md")).unwrap());
    prefix.good(&["uninstall"]);
    assert!(!prefix.dir.path().join("opt").exists());
}

#[test]
fn what_was_cut_off_can_be_repeated_or_taken_away() {
    let prefix = Prefix::new();
    let before = tree(prefix.dir.path());
    // A `cp` that fails in the middle of one of the files.
    let tools = TempDir::new();
    let cp = tools.path().join("cp");
    write(
        &cp,
        "#!/bin/sh\ncase $1 in *netmap_user.h) echo half >\"$2\"; exit 1 ;; esac\nPATH=\"$REST\" exec cp \"$@\"\n",
    );
    fs::set_permissions(&cp, fs::Permissions::from_mode(0o755)).unwrap();
    let rest = std::env::var("PATH").unwrap();
    let cut_off = || {
        let mut command = prefix.installer(&["install"]);
        command.env("PATH", format!("{}:{rest}", tools.path().display())).env("REST", &rest);
        assert!(!command.output().expect("it runs").status.success());
        assert!(prefix.path().join("bin/ringway").exists(), "some are there");
        assert!(!prefix.path().join("share/man").join("man1/ringway.1").exists(), "others not");
        let odd = tree(&prefix.path()).into_keys().find(|p| p.to_string_lossy().contains(".ringway-install"));
        assert_eq!(odd, None, "no half of a file is left");
    };
    cut_off();
    prefix.good(&["uninstall"]);
    assert_eq!(tree(prefix.dir.path()), before);
    cut_off();
    prefix.good(&["install"]);
    assert!(prefix.path().join("include/net/netmap_user.h").exists());
    prefix.good(&["uninstall"]);
    assert_eq!(tree(prefix.dir.path()), before);
}

#[test]
fn packages_are_made_in_a_folder_of_their_own() {
    let dir = TempDir::new();
    let run = |args: &[&str]| {
        done(
            Command::new(built().join("install.sh"))
                .args(args)
                .args(["--prefix", "/usr", "--libdir", "/usr/lib64"])
                .env("DESTDIR", dir.path()),
        )
    };
    run(&["install"]);
    let pc = fs::read_to_string(dir.path().join("usr/lib64/pkgconfig/netmap.pc")).unwrap();
    assert!(pc.contains("prefix=/usr\n") && pc.contains("libdir=/usr/lib64\n"), "{pc}");
    let unit = fs::read_to_string(dir.path().join("usr/lib/systemd/system/ringway.service")).unwrap();
    assert!(unit.contains("ExecStart=/usr/libexec/ringwayd "), "{unit}");
    let place = dir.path().to_str().unwrap();
    for (path, (_, _, content)) in tree(dir.path()) {
        assert!(!text(&content).contains(place), "{} has the folder in it", path.display());
    }
    run(&["uninstall"]);
    assert!(fs::read_dir(dir.path()).unwrap().next().is_none());
}

#[test]
fn mistakes_are_told() {
    let dir = TempDir::new();
    let script = built().join("install.sh");
    let run = |args: &[&str]| Command::new(&script).args(args).output().expect("install.sh runs");
    for (args, code, said) in [
        (&["install", "--prefix", "relative"][..], 2, "must begin with /"),
        (&["install", "--prefix", "/a b"], 2, "only letters"),
        (&["install", "--prefix", "/a/../b"], 2, "without .."),
        (&["install", "--prefix"], 2, "needs a value"),
        (&["install", "--perfix", "/a"], 2, "unknown: --perfix"),
        (&["install", "uninstall"], 2, "one of"),
        (&[], 2, "Usage"),
        (&["install", "--from", "/nowhere"], 1, "nothing is built"),
        (&["build"], 1, "nothing to build"),
    ] {
        let out = run(args);
        assert_eq!(out.status.code(), Some(code), "{args:?}: {}", text(&out.stderr));
        assert!(text(&out.stderr).contains(said), "{args:?}: {}", text(&out.stderr));
    }
    // An ordinary user and a prefix of root's.
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o555)).unwrap();
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(&script);
    if !rustix::process::geteuid().is_root() {
        command = Command::new(&script);
    }
    let out =
        command.args(["install", "--prefix"]).arg(dir.path().join("x")).env("HOME", "/nonexistent").output();
    let out = out.expect("it runs");
    assert!(text(&out.stderr).contains("no permission to write"), "{}", text(&out.stderr));
}
