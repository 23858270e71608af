//! fork: no lock of ours may be held by a thread that the child lacks.
//!
//! vfork, posix_spawn and exec need no door: descriptors are plain fds, and what the library keeps is close-on-exec.

use core::cell::RefCell;
use core::ffi::c_int;
use std::collections::BTreeMap;
use std::sync::MutexGuard;

use crate::maps::{self, Maps};
use crate::table::{self, Entry};

type Held = (MutexGuard<'static, BTreeMap<c_int, Entry>>, MutexGuard<'static, Maps>);

thread_local! {
    static HELD: RefCell<Option<Held>> = const { RefCell::new(None) };
}

extern "C" fn before() {
    let held = (table::hold(), maps::hold());
    let _ = HELD.try_with(|h| *h.borrow_mut() = Some(held));
}

extern "C" fn after() {
    let _ = HELD.try_with(|h| h.borrow_mut().take());
}

/// From now on forks wait for the tables.
pub fn watch_forks() {
    // SAFETY: the functions live as long as the library, which is never unloaded while its doors are in use.
    unsafe { libc::pthread_atfork(Some(before), Some(after), Some(after)) };
}
