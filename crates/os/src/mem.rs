//! Shared memory: sealed memfds, mappings, and typed views into them.
//!
//! Source: memfd_create(2), fcntl(2) "File Sealing", mmap(2).

use std::io;
use std::marker::PhantomData;
use std::ops::Deref;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::Arc;

use rustix::fs::{FallocateFlags, MemfdFlags, SealFlags};
use rustix::mm::{MapFlags, ProtFlags};

/// Types that may lie in memory which other processes write: atomics, and structures of nothing else.
///
/// # Safety
/// Every bit pattern must be a valid value, no bit may be padding that code reads, and all fields must be atomics (so
/// that a shared reference permits writes by others).
pub unsafe trait Shared: Sync {}

// SAFETY: atomics of plain integers: all bit patterns are valid.
unsafe impl Shared for core::sync::atomic::AtomicU8 {}
// SAFETY: as above.
unsafe impl Shared for core::sync::atomic::AtomicU32 {}
// SAFETY: as above.
unsafe impl Shared for core::sync::atomic::AtomicU64 {}

/// A sealed memfd, or a window of one: a region, or the state of a port's rings.
#[derive(Debug)]
pub struct Memfd {
    fd: OwnedFd,
    /// Where the window begins in the file.
    ofs: usize,
    len_bytes: usize,
}

impl Memfd {
    /// Makes a memfd of `len_bytes` (rounded up to pages), sealed against shrinking, growing and further sealing, and not
    /// executable where the kernel can say so. Its pages are allocated when touched.
    ///
    /// # Errors
    /// What memfd_create, ftruncate or fcntl answer: EMFILE, ENOMEM. EFBIG where the limit of file sizes (RLIMIT_FSIZE) is below that;
    /// asking the kernel would end the process (SIGXFSZ).
    pub fn create(name: &str, len_bytes: usize) -> io::Result<Self> {
        let len_bytes = round_to_pages(len_bytes);
        let limit = rustix::process::getrlimit(rustix::process::Resource::Fsize).current;
        if limit.is_some_and(|limit| len_bytes as u64 > limit) {
            return Err(rustix::io::Errno::FBIG.into());
        }
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let fd = match rustix::fs::memfd_create(name, flags | MemfdFlags::NOEXEC_SEAL) {
            // Kernels before 6.3 do not know NOEXEC_SEAL.
            Err(rustix::io::Errno::INVAL) => rustix::fs::memfd_create(name, flags)?,
            other => other?,
        };
        rustix::fs::ftruncate(&fd, len_bytes as u64)?;
        rustix::fs::fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
        Ok(Memfd { fd, ofs: 0, len_bytes })
    }

    /// Takes in an fd that another process sent.
    ///
    /// # Errors
    /// EINVAL unless it is a memfd sealed against shrinking (I4), or what fstat answers.
    pub fn adopt(fd: OwnedFd) -> io::Result<Self> {
        let seals = rustix::fs::fcntl_get_seals(&fd)?;
        if !seals.contains(SealFlags::SHRINK) {
            return Err(io::Error::from(io::ErrorKind::InvalidInput));
        }
        let len = usize::try_from(rustix::fs::fstat(&fd)?.st_size).unwrap_or(0);
        if len == 0 {
            return Err(io::Error::from(io::ErrorKind::InvalidInput));
        }
        Ok(Memfd { fd, ofs: 0, len_bytes: len })
    }

    /// As [`Memfd::adopt`], of which only `len_bytes` from `ofs` are meant.
    ///
    /// # Errors
    /// EINVAL too if the window does not lie in the file or does not begin at a page.
    pub fn adopt_window(fd: OwnedFd, ofs: usize, len_bytes: usize) -> io::Result<Self> {
        let whole = Self::adopt(fd)?;
        let fits = ofs.checked_add(len_bytes).is_some_and(|end| end <= whole.len_bytes);
        if !fits || len_bytes == 0 || !ofs.is_multiple_of(page_size()) {
            return Err(io::Error::from(io::ErrorKind::InvalidInput));
        }
        Ok(Memfd { fd: whole.fd, ofs, len_bytes })
    }

    /// A window of this file, with an fd of its own.
    ///
    /// # Errors
    /// As [`Memfd::adopt_window`]; EMFILE.
    pub fn window(&self, ofs: usize, len_bytes: usize) -> io::Result<Self> {
        Self::adopt_window(self.fd.try_clone()?, self.ofs + ofs, round_to_pages(len_bytes))
    }

    /// Where this window begins in the file; 0 of a whole file.
    #[must_use]
    pub fn ofs(&self) -> usize {
        self.ofs
    }

    /// A copy of an fd of a client whom we do not trust, that we are to map: a plain memfd, which nobody can shrink, grow, or seal any
    /// further. What the kernel is asked looks at no file system's own methods until it has said that it is a memfd: so nobody can make us wait.
    ///
    /// # Errors
    /// EINVAL if it is anything else: a file, huge pages (holes in which could fault), seals missing, not writable. EMFILE.
    pub fn copy_foreign(fd: BorrowedFd<'_>) -> io::Result<Self> {
        /// Source: include/uapi/linux/magic.h, TMPFS_MAGIC: memfds without huge pages.
        const TMPFS: u64 = 0x0102_1994;
        let (seals, wanted) =
            (rustix::fs::fcntl_get_seals(fd)?, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL);
        let is_ours = seals.contains(wanted)
            && !seals.intersects(SealFlags::WRITE | SealFlags::FUTURE_WRITE)
            && rustix::fs::fstatfs(fd)?.f_type as u64 == TMPFS;
        if !is_ours {
            return Err(rustix::io::Errno::INVAL.into());
        }
        Self::adopt(fd.try_clone_to_owned()?)
    }

    /// Maps all of it, shared, for reading and writing.
    ///
    /// # Errors
    /// What mmap answers: ENOMEM.
    pub fn map(&self) -> io::Result<Arc<Map>> {
        // SAFETY: a fresh mapping at an address that the kernel chooses; it aliases nothing of this process, and
        // it is only seen through `Shared` types and pointer copies (I3).
        let ptr = unsafe {
            rustix::mm::mmap(
                std::ptr::null_mut(),
                self.len_bytes,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                &self.fd,
                self.ofs as u64,
            )?
        };
        let ptr = NonNull::new(ptr.cast::<u8>()).ok_or(io::ErrorKind::OutOfMemory)?;
        // SAFETY: advice on our own mapping; it does not change contents. Kernels without huge pages refuse: no harm.
        let _ = unsafe {
            rustix::mm::madvise(ptr.as_ptr().cast(), self.len_bytes, rustix::mm::Advice::LinuxHugepage)
        };
        Ok(Arc::new(Map { ptr, len_bytes: self.len_bytes }))
    }

    /// Writes `data` at its start, as much as fits.
    ///
    /// # Errors
    /// What pwrite answers.
    pub fn write_at_start(&self, data: &[u8]) -> io::Result<()> {
        self.write_at(data, 0)
    }

    /// Writes `data` at byte `ofs`, as much as fits.
    ///
    /// # Errors
    /// What pwrite answers.
    pub fn write_at(&self, data: &[u8], ofs: usize) -> io::Result<()> {
        let data = &data[..data.len().min(self.len_bytes.saturating_sub(ofs))];
        let mut done = 0;
        while done < data.len() {
            done += rustix::io::pwrite(&self.fd, &data[done..], (self.ofs + ofs + done) as u64)?;
        }
        Ok(())
    }

    /// Writes `data` at byte `ofs` of a file that is still all zeros: pages of zeros are left out, so that they take no memory.
    ///
    /// # Errors
    /// What pwrite answers.
    pub fn fill_at(&self, data: &[u8], ofs: usize) -> io::Result<()> {
        let page = page_size();
        let is_zero = |page: &[u8]| page.iter().all(|b| *b == 0);
        let mut at = 0;
        for run in data.chunks(page).collect::<Vec<_>>().chunk_by(|a, b| is_zero(a) == is_zero(b)) {
            let len: usize = run.iter().map(|p| p.len()).sum();
            if !is_zero(run[0]) {
                self.write_at(&data[at..at + len], ofs + at)?;
            }
            at += len;
        }
        Ok(())
    }

    /// Its contents.
    ///
    /// # Errors
    /// What pread answers.
    pub fn read_all(&self) -> io::Result<Vec<u8>> {
        let mut out = vec![0; self.len_bytes];
        let mut done = 0;
        while done < out.len() {
            match rustix::io::pread(&self.fd, &mut out[done..], (self.ofs + done) as u64)? {
                0 => break,
                n => done += n,
            }
        }
        out.truncate(done);
        Ok(out)
    }

    /// Gives the pages of a part back to the system; contents read as zeros afterwards. Waits for whoever is writing to the file.
    ///
    /// # Errors
    /// What fallocate answers.
    pub fn discard_part(&self, part: std::ops::Range<usize>) -> io::Result<()> {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        let end = part.end.min(self.len_bytes);
        let Some(len) = end.checked_sub(part.start).filter(|len| *len > 0) else { return Ok(()) };
        Ok(rustix::fs::fallocate(&self.fd, flags, (self.ofs + part.start) as u64, len as u64)?)
    }

    /// As [`Memfd::discard_part`], all of it.
    ///
    /// # Errors
    /// What fallocate answers.
    pub fn discard(&self) -> io::Result<()> {
        self.discard_part(0..self.len_bytes)
    }

    /// True if the whole file, also what is outside of this window, has any page.
    ///
    /// # Errors
    /// What fstat answers.
    pub fn has_pages(&self) -> io::Result<bool> {
        Ok(rustix::fs::fstat(&self.fd)?.st_blocks != 0)
    }

    /// Its length.
    #[must_use]
    pub fn len_bytes(&self) -> usize {
        self.len_bytes
    }
}

impl AsFd for Memfd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// The size of a page.
#[must_use]
pub fn page_size() -> usize {
    rustix::param::page_size()
}

/// `len_bytes` rounded up to whole pages.
#[must_use]
pub fn round_to_pages(len_bytes: usize) -> usize {
    len_bytes.next_multiple_of(page_size())
}

/// A shared mapping. Unmapped when the last `Arc` goes (I1).
#[derive(Debug)]
pub struct Map {
    ptr: NonNull<u8>,
    len_bytes: usize,
}

// SAFETY: the map is plain shared memory; all access is through atomics or pointer copies (I3), from any thread.
unsafe impl Send for Map {}
// SAFETY: as for Send.
unsafe impl Sync for Map {}

impl Drop for Map {
    fn drop(&mut self) {
        // SAFETY: made by mmap with this length; no view is left (I1).
        let _ = unsafe { rustix::mm::munmap(self.ptr.as_ptr().cast(), self.len_bytes) };
    }
}

impl Map {
    /// A private zeroed mapping, not shared with other processes: what a broker keeps to itself.
    ///
    /// # Errors
    /// ENOMEM.
    pub fn anonymous(len_bytes: usize) -> io::Result<Arc<Map>> {
        let len_bytes = round_to_pages(len_bytes.max(1));
        // SAFETY: a fresh anonymous mapping at an address that the kernel chooses.
        let ptr = unsafe {
            rustix::mm::mmap_anonymous(
                std::ptr::null_mut(),
                len_bytes,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE,
            )?
        };
        let ptr = NonNull::new(ptr.cast::<u8>()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Arc::new(Map { ptr, len_bytes }))
    }

    /// Where it starts. For handing to the kernel (UMEM), or to C.
    #[must_use]
    pub fn as_ptr(&self) -> *mut u8 {
        self.ptr.as_ptr()
    }

    /// Its length.
    #[must_use]
    pub fn len_bytes(&self) -> usize {
        self.len_bytes
    }

    /// The address of `len` bytes at `ofs`, if they lie inside and `ofs` is a multiple of `align` (I2).
    fn at(&self, ofs: usize, len: usize, align: usize) -> Option<NonNull<u8>> {
        let end = ofs.checked_add(len)?;
        if end > self.len_bytes || !ofs.is_multiple_of(align) {
            return None;
        }
        // SAFETY: `ofs` is within the mapping, so the sum stays inside one allocation.
        Some(unsafe { self.ptr.add(ofs) })
    }
}

/// `len` shared values of type `T` at an offset of a map.
pub struct SharedSlice<T> {
    map: Arc<Map>,
    ptr: NonNull<T>,
    len: usize,
    _type: PhantomData<T>,
}

// SAFETY: a pointer into a map that it keeps alive (I1), to values that are Sync (`Shared`).
unsafe impl<T: Shared> Send for SharedSlice<T> {}
// SAFETY: as for Send.
unsafe impl<T: Shared> Sync for SharedSlice<T> {}

impl<T: Shared> SharedSlice<T> {
    /// A view of `len` values at byte offset `ofs`; None if they do not fit or are not aligned.
    #[must_use]
    pub fn new(map: &Arc<Map>, ofs: usize, len: usize) -> Option<Self> {
        let ptr = map.at(ofs, len.checked_mul(size_of::<T>())?, align_of::<T>())?.cast();
        Some(SharedSlice { map: map.clone(), ptr, len, _type: PhantomData })
    }

    /// The map that it looks into.
    #[must_use]
    pub fn map(&self) -> &Arc<Map> {
        &self.map
    }
}

impl<T: Shared> Deref for SharedSlice<T> {
    type Target = [T];
    #[inline]
    fn deref(&self) -> &[T] {
        // SAFETY: `len` aligned values inside the map (I2), which `self.map` keeps (I1); `T: Shared`, so every bit
        // pattern is valid and writes by others are permitted (I3).
        unsafe { std::slice::from_raw_parts(self.ptr.as_ptr(), self.len) }
    }
}

impl<T> Clone for SharedSlice<T> {
    fn clone(&self) -> Self {
        SharedSlice { map: self.map.clone(), ptr: self.ptr, len: self.len, _type: PhantomData }
    }
}

impl<T> std::fmt::Debug for SharedSlice<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SharedSlice(len {})", self.len)
    }
}

/// One shared value at an offset of a map.
#[derive(Debug)]
pub struct SharedRef<T>(SharedSlice<T>);

impl<T> Clone for SharedRef<T> {
    fn clone(&self) -> Self {
        SharedRef(self.0.clone())
    }
}

impl<T: Shared> SharedRef<T> {
    /// A view of the value at byte offset `ofs`; None if it does not fit or is not aligned.
    #[must_use]
    pub fn new(map: &Arc<Map>, ofs: usize) -> Option<Self> {
        SharedSlice::new(map, ofs, 1).map(SharedRef)
    }
}

impl<T: Shared> Deref for SharedRef<T> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: as in SharedSlice::deref, for one value.
        unsafe { self.0.ptr.as_ref() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memfd(seals: SealFlags) -> OwnedFd {
        let fd = rustix::fs::memfd_create("test", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
        rustix::fs::ftruncate(&fd, 8192).unwrap();
        rustix::fs::fcntl_add_seals(&fd, seals).unwrap();
        fd
    }

    #[test]
    fn only_memory_that_cannot_change_its_size_is_taken_from_strangers() {
        let wanted = SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
        let taken = |fd: OwnedFd| Memfd::copy_foreign(fd.as_fd()).is_ok();
        assert!(taken(memfd(wanted)));
        for less in [SealFlags::SHRINK, SealFlags::GROW, SealFlags::SEAL] {
            assert!(!taken(memfd(wanted - less)), "without {less:?}");
        }
        assert!(!taken(memfd(wanted | SealFlags::FUTURE_WRITE)));
        let (a, _b) = std::os::unix::net::UnixStream::pair().unwrap();
        assert!(!taken(a.into()) && !taken(std::fs::File::open("/dev/zero").unwrap().into()));
    }

    #[test]
    fn zeros_are_left_out_of_what_is_filled() {
        let memfd = Memfd::create("test", 8 * 4096).unwrap();
        let mut data = vec![0; 6 * page_size() + 100];
        for at in [0, page_size() + 1, 5 * page_size(), data.len() - 1] {
            data[at] = 7;
        }
        memfd.fill_at(&data, page_size()).unwrap();
        let got = memfd.read_all().unwrap();
        assert_eq!(&got[page_size()..][..data.len()], data);
        let blocks = rustix::fs::fstat(&memfd).unwrap().st_blocks as usize * 512;
        assert_eq!(blocks, 4 * page_size());
    }
}
