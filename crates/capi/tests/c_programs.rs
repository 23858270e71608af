//! C and C++ programs against the headers and the library: they compile without a warning, and what they check
//! holds. The programs are the `.c` files beside this one.

mod cc;

use cc::{Compiler, Lang, Link, TempDir, compilers, expect};
use ringway_abi::{CONSTANTS, LAYOUTS, LIBRARY_LAYOUTS, STRING_CONSTANTS};
use std::collections::HashSet;
use std::fmt::Write;
use std::path::Path;

const HEADERS: [&str; 5] =
    ["net/netmap.h", "net/netmap_user.h", "net/netmap_legacy.h", "net/netmap_virt.h", "libnetmap.h"];

/// The C library's `open`, `ioctl` and so on are those of `fake_device.h`.
const FAKE_DEVICE: &[&str] =
    &["-Wl,--wrap=open,--wrap=ioctl,--wrap=mmap,--wrap=munmap,--wrap=close", "-Wno-unused-function"];

/// All compilers of both languages.
fn all_compilers() -> impl Iterator<Item = Compiler> {
    compilers(Lang::C).into_iter().chain(compilers(Lang::Cxx))
}

/// Compiles a text, without linking.
fn compiles(compiler: &Compiler, what: &str, text: &str, flags: &[&str]) {
    let dir = TempDir::new();
    let source = dir.path().join("text.c");
    std::fs::write(&source, text).expect("a file in /tmp");
    let mut command = compiler.command(&source);
    let out = command.args(flags).args(["-S", "-o", "/dev/null"]).output().expect("the compiler runs");
    expect(&format!("{what} by {} with {flags:?}", compiler.program), &out, &[0]);
}

#[test]
fn each_header_compiles_alone() {
    for compiler in all_compilers() {
        let standards: &[&str] = match compiler.lang {
            Lang::C => &["-std=c99", "-std=gnu99", "-std=c11"],
            Lang::Cxx => &["-std=c++11", "-std=c++17"],
        };
        for header in HEADERS {
            for libs in ["-UNETMAP_WITH_LIBS", "-DNETMAP_WITH_LIBS"] {
                for standard in standards {
                    let text = format!("#include <{header}>\nint unused;\n");
                    compiles(&compiler, header, &text, &[standard, libs]);
                }
                if compiler.lang == Lang::Cxx {
                    let text = format!("extern \"C\" {{\n#include <{header}>\n}}\nint unused;\n");
                    compiles(&compiler, header, &text, &["-std=c++11", libs]);
                }
            }
        }
    }
}

#[test]
fn programs_may_bring_their_own_messages() {
    for compiler in all_compilers() {
        let include = "#define NETMAP_WITH_LIBS\n#include <net/netmap_user.h>\n";
        let none = "#define ND(x) x\n";
        compiles(&compiler, "ND", &format!("{none}{include}#ifdef D\n#error D\n#endif\nint unused;\n"), &[]);
        let own = "#include <stdio.h>\n#define ND(x)\n#define D(...) printf(__VA_ARGS__)\n";
        compiles(&compiler, "D", &format!("{own}{include}#ifdef RD\n#error RD\n#endif\nint unused;\n"), &[]);
        // Later than the first time: the static functions are there all the same.
        let later =
            format!("#include <libnetmap.h>\n{include}void *f(void) {{ return (void *)&nm_open; }}\n");
        compiles(&compiler, "later", &later, &["-Wno-pedantic"]);
    }
}

/// Static assertions from the tables of `ringway-abi`, which hold for its Rust types as well.
fn assertions() -> String {
    let mut text = String::from(
        "#define NETMAP_WITH_LIBS\n#include <libnetmap.h>\n#include <net/netmap_user.h>\n#include <net/netmap_virt.h>\n\
         #ifdef __cplusplus\n#define IS(a, b) static_assert((unsigned long long)(a) == (b), #a)\n\
         #define ALIGN(t) alignof(t)\n#else\n\
         #define IS(a, b) _Static_assert((unsigned long long)(a) == (b), #a)\n\
         #define ALIGN(t) _Alignof(t)\n#endif\n",
    );
    for layout in LAYOUTS.iter().chain(LIBRARY_LAYOUTS) {
        let name = layout.name;
        writeln!(text, "IS(sizeof(struct {name}), {}ULL);", layout.size).unwrap();
        writeln!(text, "IS(ALIGN(struct {name}), {}ULL);", layout.align).unwrap();
        for field in layout.fields {
            let (f, offset, size) = (field.name, field.offset, field.size);
            writeln!(text, "IS(offsetof(struct {name}, {f}), {offset}ULL);").unwrap();
            writeln!(text, "IS(sizeof(((struct {name} *)0)->{f}), {size}ULL);").unwrap();
        }
    }
    let arrays = [
        ("netmap_ring", "slot", ringway_abi::RING_SLOT_OFS, 16),
        ("netmap_if", "ring_ofs", ringway_abi::IF_RING_OFS, 8),
        ("nmreq_opt_sync_kloop_eventfds", "eventfds", 24, 8),
    ];
    for (name, field, offset, size) in arrays {
        writeln!(text, "IS(offsetof(struct {name}, {field}), {offset}ULL);").unwrap();
        writeln!(text, "IS(sizeof(((struct {name} *)0)->{field}[0]), {size}ULL);").unwrap();
    }
    for (name, value) in CONSTANTS {
        writeln!(text, "IS({name}, {value}ULL);").unwrap();
    }
    // Constant expressions for the compilers that we use.
    for (name, value) in STRING_CONSTANTS {
        writeln!(text, "IS(__builtin_strcmp({name}, \"{value}\"), 0ULL);").unwrap();
    }
    text
}

#[test]
fn layouts_and_constants_are_those_of_the_tables() {
    let text = assertions();
    assert!(text.lines().count() > 500);
    for compiler in all_compilers() {
        let flags: &[&str] = match compiler.lang {
            Lang::C => &["-std=gnu11"],
            Lang::Cxx => &["-std=gnu++11", "-Wno-invalid-offsetof"],
        };
        compiles(&compiler, "layout", &text, flags);
        // The check itself works.
        let dir = TempDir::new();
        let source = dir.path().join("wrong.c");
        std::fs::write(&source, format!("{text}IS(offsetof(struct netmap_slot, len), 5ULL);\n")).unwrap();
        let out = compiler.command(&source).args(flags).args(["-S", "-o", "/dev/null"]).output().unwrap();
        assert!(!out.status.success());
    }
}

#[test]
fn nm_parse() {
    for compiler in all_compilers() {
        compiler.run("nm_parse.c", &[], Link::Headers);
    }
}

#[test]
fn nm_helpers() {
    for compiler in all_compilers() {
        compiler.run("nm_helpers.c", &[], Link::Headers);
        compiler.run("nm_helpers.c", &["-O3", "-DNDEBUG"], Link::Headers);
    }
}

#[test]
fn nm_messages() {
    for compiler in all_compilers() {
        compiler.run("nm_messages.c", &[], Link::Headers);
    }
}

#[test]
fn nm_open() {
    for compiler in all_compilers() {
        compiler.run("nm_open.c", FAKE_DEVICE, Link::Headers);
    }
}

#[test]
fn nmport_parse() {
    for compiler in all_compilers() {
        compiler.run("nmport_parse.c", &[], Link::Shared);
        compiler.run("nmport_parse.c", &[], Link::Static);
    }
}

#[test]
fn nmreq_and_nmctx() {
    for compiler in all_compilers() {
        compiler.run("nmreq.c", &[], Link::Shared);
        compiler.run("nmreq.c", &[], Link::Static);
        compiler.run("nmreq.c", &["-DLIBNETMAP_NOTHREADSAFE"], Link::Shared);
    }
}

/// Each function of the library's header, each of netmap_user.h, and each of its macros is used in one of the tests at least.
#[test]
fn no_function_and_no_macro_is_left_out() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut tests = String::new();
    for entry in std::fs::read_dir(here.join("tests")).expect("the tests") {
        let path = entry.expect("an entry").path();
        if path.extension().is_some_and(|e| e == "c" || e == "h") {
            tests += &std::fs::read_to_string(path).expect("its source");
        }
    }
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let used: HashSet<&str> = tests.split(|c| !is_word(c)).collect();
    let mut count = 0;
    let mut check = |name: &str| {
        // Those that end so are the header's own business.
        let is_ours = !name.is_empty() && !name.starts_with('_') && !name.ends_with('_');
        if is_ours && !["HAVE_NETMAP_WITH_LIBS", "NM_ERRBUF_SIZE"].contains(&name) {
            assert!(used.contains(name), "no test uses {name}");
            count += 1;
        }
    };
    let read = |name: &str| std::fs::read_to_string(here.join("include").join(name)).expect("the header");
    let library = read("libnetmap.h");
    for (at, _) in library.match_indices('(') {
        let name = library[..at].rsplit(|c| !is_word(c)).next().expect("a part");
        if ["nmport_", "nmreq_", "nmctx_"].iter().any(|start| name.starts_with(start)) {
            check(name);
        }
    }
    let user = read("net/netmap_user.h");
    for line in user.lines() {
        if let Some(rest) = line.strip_prefix("#define ") {
            check(rest.split(|c| !is_word(c)).next().expect("a part"));
        } else if let Some((name, _)) = line.split_once('(')
            && name.starts_with("nm_")
            && name.chars().all(is_word)
        {
            check(name);
        }
    }
    assert!(count > 70, "{count}");
}

#[test]
fn nmport_on_a_device() {
    for compiler in all_compilers() {
        compiler.run("nmport_device.c", FAKE_DEVICE, Link::Static);
    }
}

#[test]
fn without_a_device() {
    for compiler in all_compilers() {
        for link in [Link::Shared, Link::Static] {
            if compiler.run("no_device.c", &[], link) == 77 {
                println!("SKIP without_a_device: there is a device");
            }
        }
    }
}
