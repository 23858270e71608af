//! The doors, and a real device file: `doors_device.c` with the library preloaded. As root only, since a file system is mounted (in a folder of
//! the test).

mod cc;

use cc::{Lang, TempDir, compilers, expect, library};
use ringway_e2e::{TestBroker, root_or_skip};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

fn program() -> Option<&'static Path> {
    static BUILT: OnceLock<(TempDir, Option<PathBuf>)> = OnceLock::new();
    let (_, program) = BUILT.get_or_init(|| {
        let dir = TempDir::new();
        let out = dir.path().join("doors_device");
        let program = compilers(Lang::C).into_iter().next().map(|compiler| {
            let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/doors_device.c");
            let mut command = compiler.command(&source);
            command.arg("-o").arg(&out);
            expect("doors_device.c", &command.output().expect("the compiler runs"), &[0]);
            out
        });
        (dir, program)
    });
    program.as_deref()
}

fn run(test: &str) {
    if !root_or_skip(test) {
        return;
    }
    let Some(program) = program() else { return };
    let dir = TempDir::new();
    let path = dir.path().join("netmap");
    let broker = TestBroker::start(&format!("admit = \"all\"\n[device]\npath = {path:?}\nmode = \"0666\""));
    let device = broker.status()["device"].as_str().expect("a text").to_owned();
    if device.contains("pass-through") {
        println!("SKIP {test}: {device}");
        return;
    }
    let broker_pid = broker.pid();
    let children = std::fs::read_to_string(format!("/proc/{broker_pid}/task/{broker_pid}/children"));
    let helper = children.expect("its children").trim().to_owned();
    let mut command = broker.command_at(program);
    command
        .arg(test)
        .env("LD_PRELOAD", library().join("libnetmap.so"))
        .env("RINGWAY_TEST_DEVICE", &path)
        .env("RINGWAY_TEST_HELPER", &helper);
    let out = command.output().expect("it runs");
    // A test that failed may have left it stopped, and then it would stay.
    let _ = Command::new("kill").args(["-CONT", &helper]).status();
    expect(test, &out, &[0]);
}

macro_rules! tests {
    ($($test:ident)*) => {$(
        #[test]
        fn $test() {
            run(stringify!($test));
        }
    )*};
}

tests! {
    a_file_gets_the_fast_sync
    a_file_is_in_the_kernels_epoll_already
    a_file_arrives
    a_file_over_exec
    a_file_of_another_user_is_left_to_the_kernel
    open_takes_the_library_where_a_file_is
}
