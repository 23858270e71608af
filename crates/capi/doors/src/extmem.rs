//! The EXTMEM option: the program's own pages become the region. Source: abi.md 9.12, semantics.md 13.
//!
//! netmap pins the pages. Here another process, the broker, must map them, and it maps nothing that could shrink under it. So the contents
//! move into a sealed memfd, which the broker gets; and when the request was served, that is mapped over the program's range: its own
//! addresses show the region, as the contract says.
//!
//! * What is private to the program (anonymous memory, a private map of a file) is the region's from then on.
//! * A shared map of a file, or shared anonymous memory: whoever asks with the same pages, in this process or in others of the user that
//!   map them, gets the same region. The file itself keeps what it held.
//!
//! While the region is used, one page of a file that was there stays mapped elsewhere: the file's number tells the pages from others, and
//! must not be given to another file.

use core::ffi::c_void;
use core::ptr::null_mut;
use libc::{MAP_FAILED, MAP_FIXED, MAP_SHARED, PROT_EXEC, PROT_READ, PROT_WRITE};
use ringway::raw::{Memory, PagesKey, ReqOption};
use ringway_abi::Errno;
use ringway_os::mem::{Memfd, page_size, round_to_pages};
use ringway_os::sys::file_id;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::MetadataExt;

use crate::options::Opt;
use crate::ranges::{self, Range};
use crate::table::{Desc, lock};
use crate::{maps, real, user};

/// Bytes copied at a time.
const CHUNK_BYTES: usize = 1 << 20;
/// Bytes of an option before `nro_info`.
const ADDRESS_BYTES: usize = 8;

/// Memory of the program, moved, but not put in its place yet.
#[derive(Debug)]
pub struct Moved {
    pub memory: Memory,
    start: usize,
    len: usize,
    prot: i32,
    /// The number of the file that was there may be given to another once nobody has that any more.
    pins: bool,
    ranges: Vec<Range>,
}

/// Reads what the option names, and copies what is there. Statuses are for the caller to set.
///
/// # Errors
/// EFAULT if that is not all there, to be read and written; ENOMEM.
pub fn prepare(option: &ReqOption) -> Result<Moved, Errno> {
    let wish = option.as_extmem().ok_or(Errno::EINVAL)?;
    let size = usize::try_from(wish.nro_info.nr_memsize).map_err(|_| Errno::EFAULT)?;
    let start = usize::try_from(wish.nro_usrptr).map_err(|_| Errno::EFAULT)?;
    if size == 0 {
        return Err(Errno::ENOMEM);
    }
    let end = start.checked_add(size).and_then(|end| end.checked_next_multiple_of(page_size()));
    let end = end.filter(|_| start.is_multiple_of(page_size())).ok_or(Errno::EFAULT)?;
    let len = end - start;
    let ranges = ranges::mapped(start as u64, end as u64).ok_or(Errno::EFAULT)?;
    let there: u64 = ranges.iter().map(|r| r.end - r.start).sum();
    if there < len as u64 || !ranges.iter().all(can_move) {
        return Err(Errno::EFAULT);
    }
    let pages = shared_file(&ranges, size as u64);
    let memfd = Memfd::create("ringway-extmem", len).map_err(|_| Errno::ENOMEM)?;
    copy(start, len, &memfd)?;
    let exec = if ranges.iter().any(|r| r.is_executable) { PROT_EXEC } else { 0 };
    // The kernel counts those of memory without a file system on.
    let is_memory = |r: &Range| r.path.starts_with("/memfd:") || r.path.starts_with("/dev/zero");
    let pins = pages.is_some() && !ranges.iter().any(is_memory);
    let prot = PROT_READ | PROT_WRITE | exec;
    Ok(Moved { memory: Memory::new(memfd, pages), start, len, prot, pins, ranges })
}

/// Memory that the program may use as it likes. Not a stack, on which it runs, nor what is a device's.
fn can_move(range: &Range) -> bool {
    let path = range.path.as_str();
    let ordinary = ["/dev/zero", "/dev/shm/", "/dev/hugepages"];
    let is_device = path.starts_with("/dev/") && !ordinary.iter().any(|p| path.starts_with(p));
    let is_special = path.starts_with('[') && path != "[heap]" && !path.starts_with("[anon:");
    range.is_readable && range.is_writable && !is_device && !is_special
}

/// The part of a file that others may map too, if the range is one such map.
fn shared_file(ranges: &[Range], len: u64) -> Option<PagesKey> {
    let first = ranges.first()?;
    let mut offset = first.offset;
    for r in ranges {
        if !r.is_shared || r.ino == 0 || (r.dev, r.ino, r.offset) != (first.dev, first.ino, offset) {
            return None;
        }
        offset += r.end - r.start;
    }
    let (major, minor) = first.dev;
    // Some file systems have other numbers for their devices here than everywhere else.
    let same = std::fs::metadata(&first.path).ok().filter(|m| m.ino() == first.ino);
    let dev = same.map_or_else(|| libc::makedev(major, minor), |m| m.dev());
    Some(PagesKey { file: (dev, first.ino), offset: first.offset, len })
}

/// Copies what is there, but for pages of zeros.
fn copy(start: usize, len: usize, memfd: &Memfd) -> Result<(), Errno> {
    let mut chunk = vec![0; CHUNK_BYTES.min(len)];
    let mut done = 0;
    while done < len {
        let n = chunk.len().min(len - done);
        user::read_bytes((start + done) as u64, &mut chunk[..n])?;
        memfd.fill_at(&chunk[..n], done).map_err(|_| Errno::ENOMEM)?;
        done += n;
    }
    Ok(())
}

/// What the program sees of a served option: its own address.
pub fn take(option: &mut Opt, served: &ReqOption) {
    option.status = served.nro_status;
    if let (0, Some(info)) = (served.nro_status, served.body.get(ADDRESS_BYTES..))
        && let Some(own) = option.body.get_mut(ADDRESS_BYTES..)
        && own.len() == info.len()
    {
        own.copy_from_slice(info);
    }
}

impl Moved {
    /// Maps the region over the program's range, if the port has that region.
    pub fn put_in_place(self, desc: &Desc, served: &ReqOption) -> Result<(), Errno> {
        let Some(bound) = desc.known() else { return Ok(()) };
        let id = served.as_extmem().map_or(0, |o| o.nro_usrptr);
        if id != u64::from(bound.mem_id()) || bound.region_bytes() < self.len as u64 {
            return Ok(());
        }
        let region = bound.region();
        let (dev, ino) = file_id(region.as_fd()).unwrap_or_default();
        let is_it = |r: &Range| {
            let (major, minor) = r.dev;
            r.is_shared && r.ino == ino && libc::makedev(major, minor) == dev && r.offset == 0
        };
        if let [one] = &self.ranges[..]
            && is_it(one)
        {
            // It has been moved before.
            return Ok(());
        }
        if self.pins {
            *lock(&desc.pin) = Pin::new(self.start);
        }
        let at = core::ptr::with_exposed_provenance_mut::<c_void>(self.start);
        maps::forget(self.start, self.len);
        // SAFETY: the program gave this range to be the region (C contract 1): it is whole pages, all mapped, and shows the
        // same contents afterwards. The region's file is as long as was checked.
        let mem =
            unsafe { real::mmap(at, self.len, self.prot, MAP_SHARED | MAP_FIXED, region.as_raw_fd(), 0) };
        // Huge pages that the range does not cover whole, or sealed mappings: the descriptor stays bound until it is closed.
        if mem == MAP_FAILED { Err(Errno::EFAULT) } else { Ok(()) }
    }
}

/// One page of a shared map, mapped once more: as long as it lives, the number of the file is not given to another.
#[derive(Debug)]
pub struct Pin {
    at: usize,
}

impl Pin {
    /// Of the page at `start`. None if the kernel refuses: then the file is kept by whoever has it open, or not at all.
    fn new(start: usize) -> Option<Self> {
        let old = core::ptr::with_exposed_provenance_mut::<c_void>(start);
        // SAFETY: an old size of 0 makes a second map of a shared one, elsewhere; nothing is taken away. Source: mremap(2).
        let at = unsafe { real::mremap(old, 0, page_size(), libc::MREMAP_MAYMOVE, null_mut()) };
        (at != MAP_FAILED).then(|| Pin { at: at.expose_provenance() })
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        // SAFETY: our own page, which nobody looks at.
        unsafe { real::munmap(core::ptr::with_exposed_provenance_mut(self.at), round_to_pages(1)) };
    }
}
