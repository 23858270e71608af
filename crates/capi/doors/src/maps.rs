//! `mmap`, `munmap`, `mremap`: a map keeps its descriptor until it is gone.

use core::ffi::{c_int, c_void};
use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use libc::{MAP_FAILED, off_t, size_t};
use ringway_abi::Errno;
use std::collections::BTreeMap;
use std::os::fd::AsRawFd;
use std::sync::{Arc, Mutex, MutexGuard};

use crate::errno;
use crate::real;
use crate::table::{self, DESC, Desc, Inside, lock};

/// Maps by their first byte: the byte behind the last, and whose they are.
pub type Maps = BTreeMap<usize, (usize, Arc<Desc>)>;

static MAPS: Mutex<Maps> = Mutex::new(BTreeMap::new());
/// How many there are: none in most programs.
static COUNT: AtomicUsize = AtomicUsize::new(0);
/// No map was ever below, or reached above. Written before the program is told of a map, so whoever has its address sees them.
static LOWEST: AtomicUsize = AtomicUsize::new(usize::MAX);
static HIGHEST: AtomicUsize = AtomicUsize::new(0);

/// The maps themselves, for who must hold them across fork.
pub fn hold() -> MutexGuard<'static, Maps> {
    lock(&MAPS)
}

/// Takes a range out. What falls out of it is given: it is to be dropped outside of the lock.
fn cut(maps: &mut Maps, from: usize, to: usize) -> Vec<Arc<Desc>> {
    let hit: Vec<usize> =
        maps.range(..to).rev().take_while(|(_, (end, _))| *end > from).map(|(start, _)| *start).collect();
    let mut out = vec![];
    for start in hit {
        let Some((end, desc)) = maps.remove(&start) else { continue };
        if start < from {
            maps.insert(start, (from, desc.clone()));
        }
        if end > to {
            maps.insert(to, (end, desc.clone()));
        }
        out.push(desc);
    }
    COUNT.store(maps.len(), Relaxed);
    out
}

pub fn pages(len: usize) -> usize {
    len.saturating_add(ringway_os::mem::page_size() - 1) & !(ringway_os::mem::page_size() - 1)
}

/// A range of the program's is something else now: no map keeps a descriptor there any more.
pub fn forget(from: usize, len: usize) {
    let out = cut(&mut hold(), from, from.saturating_add(pages(len)));
    drop(out);
}

/// Records a map.
fn record(maps: &mut Maps, start: usize, end: usize, desc: Arc<Desc>) {
    LOWEST.fetch_min(start, Relaxed);
    HIGHEST.fetch_max(end, Relaxed);
    maps.insert(start, (end, desc));
    COUNT.store(maps.len(), Relaxed);
}

/// True if a range may hold maps of ours, and this process may say so.
fn concerns(from: usize, len: usize) -> bool {
    COUNT.load(Relaxed) > 0
        && from < HIGHEST.load(Relaxed)
        && from.saturating_add(pages(len)) > LOWEST.load(Relaxed)
        && !table::is_inside()
        && !table::is_lent()
}

/// # Safety
/// As mmap(2).
unsafe fn map(at: *mut c_void, len: size_t, prot: c_int, flags: c_int, fd: c_int, ofs: off_t) -> *mut c_void {
    if fd >= 0 && flags & libc::MAP_ANONYMOUS == 0 && table::kind(fd) == DESC && !table::is_inside() {
        // SAFETY: as the caller promises.
        return unsafe { map_device(at, len, prot, flags, fd, ofs) };
    }
    // SAFETY: as the caller promises.
    let mem = unsafe { real::mmap(at, len, prot, flags, fd, ofs) };
    if mem == MAP_FAILED {
        // A socket cannot be mapped. One that came over exec may be a descriptor that nobody has told us of.
        if errno::get() == Errno::ENODEV && fd >= 0 && !table::is_inside() {
            let inside = Inside::enter();
            let found = table::recognise(fd, true).is_some();
            drop(inside);
            if found {
                // SAFETY: as the caller promises.
                return unsafe { map_device(at, len, prot, flags, fd, ofs) };
            }
            errno::set(Errno::ENODEV);
        }
    } else if flags & libc::MAP_FIXED != 0 && concerns(mem as usize, len) {
        let _inside = Inside::enter();
        let out = cut(&mut hold(), mem as usize, (mem as usize).saturating_add(pages(len)));
        drop(out);
    }
    mem
}

/// Maps the region of what the descriptor has bound. Source: abi.md 10.
///
/// # Safety
/// As mmap(2).
unsafe fn map_device(
    at: *mut c_void,
    len: size_t,
    prot: c_int,
    flags: c_int,
    fd: c_int,
    ofs: off_t,
) -> *mut c_void {
    let _inside = Inside::enter();
    let fail = |e: Errno| {
        errno::set(e);
        MAP_FAILED
    };
    let Some(desc) = table::recognise(fd, true) else { return fail(Errno::EBADF) };
    let Some(bound) = desc.bound(fd) else { return fail(Errno::EINVAL) };
    let Ok(start) = u64::try_from(ofs) else { return fail(Errno::EINVAL) };
    // Through a device file all is counted from the start of the file in which the region lies.
    let region_ofs = bound.region_ofs();
    let (file, in_file, checked) = if desc.is_file() {
        let end = start.saturating_add(len as u64);
        (fd, start, bound.check_map(0, end.saturating_sub(region_ofs)))
    } else {
        let region = bound.region().as_raw_fd();
        (region, start.saturating_add(region_ofs), bound.check_map(start, len as u64))
    };
    if let Err(e) = checked {
        return fail(e);
    }
    let Ok(in_file) = off_t::try_from(in_file) else { return fail(Errno::EINVAL) };
    // Held meanwhile, so that nobody records the place in between.
    let mut maps = hold();
    // SAFETY: as the caller promises; the file is as long as was checked.
    let mem = unsafe { real::mmap(at, len, prot, flags, file, in_file) };
    if mem == MAP_FAILED {
        return mem;
    }
    let (start, end) = (mem as usize, mem as usize + pages(len));
    let old = cut(&mut maps, start, end);
    record(&mut maps, start, end, desc);
    drop(maps);
    drop(old);
    mem
}

/// # Safety
/// As mmap(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmap(
    at: *mut c_void,
    len: size_t,
    prot: c_int,
    flags: c_int,
    fd: c_int,
    ofs: off_t,
) -> *mut c_void {
    // SAFETY: as the caller promises.
    unsafe { map(at, len, prot, flags, fd, ofs) }
}

/// # Safety
/// As mmap(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmap64(
    at: *mut c_void,
    len: size_t,
    prot: c_int,
    flags: c_int,
    fd: c_int,
    ofs: off_t,
) -> *mut c_void {
    // SAFETY: as the caller promises.
    unsafe { map(at, len, prot, flags, fd, ofs) }
}

/// # Safety
/// As munmap(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn munmap(at: *mut c_void, len: size_t) -> c_int {
    let from = at as usize;
    if !concerns(from, len) || len == 0 || from != pages(from) {
        // SAFETY: as the caller promises.
        return unsafe { real::munmap(at, len) };
    }
    let _inside = Inside::enter();
    let mut maps = hold();
    // SAFETY: as the caller promises.
    let done = unsafe { real::munmap(at, len) };
    let out = if done == 0 { cut(&mut maps, from, from.saturating_add(pages(len))) } else { vec![] };
    drop(maps);
    // The last map of a port that is closed already: this unbinds it.
    let error = errno::get();
    drop(out);
    errno::set(error);
    done
}

/// # Safety
/// As mremap(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mremap(
    at: *mut c_void,
    old: size_t,
    new: size_t,
    flags: c_int,
    to: *mut c_void,
) -> *mut c_void {
    // A map of ours can be what moves (`old` 0: what is copied), or what is in the way.
    let in_the_way = flags & libc::MREMAP_FIXED != 0 && concerns(to as usize, new);
    if !concerns(at as usize, old.max(1)) && !in_the_way {
        // SAFETY: as the caller promises.
        return unsafe { real::mremap(at, old, new, flags, to) };
    }
    let _inside = Inside::enter();
    let mut maps = hold();
    // SAFETY: as the caller promises.
    let mem = unsafe { real::mremap(at, old, new, flags, to) };
    if mem == MAP_FAILED {
        return mem;
    }
    let (from, landed) = (at as usize, mem as usize);
    let mut out = vec![];
    if flags & libc::MREMAP_FIXED != 0 {
        out.extend(cut(&mut maps, landed, landed + pages(new)));
    }
    let moved = if old == 0 {
        // A second map of the same.
        maps.range(..=from).next_back().filter(|(_, (end, _))| *end > from).map(|(_, (_, desc))| desc.clone())
    } else {
        let cut = cut(&mut maps, from, from + pages(old));
        let first = cut.first().cloned();
        out.extend(cut);
        first
    };
    if let Some(desc) = moved {
        record(&mut maps, landed, landed + pages(new), desc);
    }
    drop(maps);
    drop(out);
    mem
}
