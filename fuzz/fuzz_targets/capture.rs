//! `cargo +nightly fuzz run --features libfuzzer capture`; what it does stands in the library.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ringway_fuzz::capture(data));
