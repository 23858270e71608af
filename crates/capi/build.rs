//! Gives `libnetmap.so` its name for the dynamic linker. See docs/installing.md for why it has no version.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,libnetmap.so");
}
