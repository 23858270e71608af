//! One ring of an AF_XDP socket, mapped: its counters and entries, and who may read and write how many of them. What the entries
//! mean is the matter of [`ring`](super::ring), which also has the picture and the ordering.

use std::io;
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags};
use rustix::net::xdp::XdpRingOffset;

/// `struct xdp_desc` in shared memory.
#[repr(C)]
#[derive(Debug)]
pub(super) struct RawDesc {
    pub addr: AtomicU64,
    pub len: AtomicU32,
    pub options: AtomicU32,
}
const _: () = assert!(size_of::<RawDesc>() == 16);

/// Types that entries may have: atomics, or structures of them without padding, so that any bit pattern is
/// valid and any writer is tolerated.
pub(super) trait Entry {}
impl Entry for AtomicU64 {}
impl Entry for RawDesc {}

/// The mapping of a ring. Unmapped when dropped.
#[derive(Debug)]
pub(super) struct RingMap {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: an address and a length; what is behind them is only seen as atomics.
unsafe impl Send for RingMap {}
// SAFETY: as above.
unsafe impl Sync for RingMap {}

impl Drop for RingMap {
    fn drop(&mut self) {
        // SAFETY: those of a mapping that `Ring::map` made; the views into it hold this, and die with it.
        let _ = unsafe { rustix::mm::munmap(self.start.as_ptr().cast(), self.len) };
    }
}

impl RingMap {
    /// Puts zeros where the kernel's ring was. Whoever looks at it meanwhile sees the one or the other.
    pub(super) fn let_go(&self) -> io::Result<()> {
        // SAFETY: replaces the whole of our own mapping, in one step, by memory that can be read and written
        // in the same way; references into it stay valid, to atomics, of which every value is valid.
        unsafe {
            rustix::mm::mmap_anonymous(
                self.start.as_ptr().cast(),
                self.len,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE | MapFlags::FIXED,
            )
        }?;
        Ok(())
    }
}

/// A mapped ring.
#[derive(Debug)]
pub(super) struct Ring<T> {
    pub map: Arc<RingMap>,
    producer: NonNull<AtomicU32>,
    consumer: NonNull<AtomicU32>,
    flags: NonNull<AtomicU32>,
    entries: NonNull<T>,
    pub size: u32,
}

// SAFETY: the pointers lead into the map that the ring holds; everything behind them is atomics.
unsafe impl<T: Entry + Send> Send for Ring<T> {}
// SAFETY: as above; a shared reference only loads atomics, and the kernel tolerates any number of readers.
unsafe impl<T: Entry + Sync> Sync for Ring<T> {}

impl<T: Entry> Ring<T> {
    pub(super) fn map(
        fd: BorrowedFd<'_>,
        page_offset: u64,
        at: &XdpRingOffset,
        size: u32,
    ) -> io::Result<Ring<T>> {
        let bad = || io::Error::from(Errno::PROTO);
        // Kernels before 5.4 have no flags, hence no need-wakeup either.
        let flags_at = at.flags.ok_or_else(|| io::Error::from(Errno::OPNOTSUPP))?;
        let to_usize = |ofs: u64| usize::try_from(ofs).map_err(|_| bad());
        let desc = to_usize(at.desc)?;
        let map_len =
            (size as usize).checked_mul(size_of::<T>()).and_then(|n| n.checked_add(desc)).ok_or_else(bad)?;
        let words = [to_usize(at.producer)?, to_usize(at.consumer)?, to_usize(flags_at)?];
        // At least one entry, so map_len >= 8.
        if words.iter().any(|ofs| ofs % 4 != 0 || *ofs > map_len - 4) || desc % align_of::<T>() != 0 {
            return Err(bad());
        }
        // SAFETY: a new mapping at an address of the kernel's choice. The kernel refuses (EINVAL) one longer
        // than the ring really is, and never shrinks a ring, so the mapping cannot fault.
        let map = unsafe {
            rustix::mm::mmap(
                std::ptr::null_mut(),
                map_len,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED | MapFlags::POPULATE,
                fd,
                page_offset,
            )
        }?;
        let map = NonNull::new(map.cast::<u8>()).ok_or_else(bad)?;
        // SAFETY: each offset was checked above to leave room for its type within the map.
        let (p, c, f, d) =
            unsafe { (map.add(words[0]), map.add(words[1]), map.add(words[2]), map.add(desc)) };
        Ok(Ring {
            map: Arc::new(RingMap { start: map, len: map_len }),
            producer: p.cast(),
            consumer: c.cast(),
            flags: f.cast(),
            entries: d.cast(),
            size,
        })
    }

    #[inline]
    pub(super) fn producer(&self) -> &AtomicU32 {
        // SAFETY: within the map, aligned (checked in `map`), alive as long as `self`; an atomic, whoever
        // writes it.
        unsafe { self.producer.as_ref() }
    }

    #[inline]
    pub(super) fn consumer(&self) -> &AtomicU32 {
        // SAFETY: as `producer`.
        unsafe { self.consumer.as_ref() }
    }

    #[inline]
    pub(super) fn flags(&self) -> u32 {
        // SAFETY: as `producer`.
        unsafe { self.flags.as_ref() }.load(Ordering::Relaxed)
    }

    /// The entry that a counter stands for.
    #[inline]
    pub(super) fn entry(&self, counter: u32) -> &T {
        let index = (counter & (self.size - 1)) as usize;
        // SAFETY: `size` is a power of two (checked by `RingSizes::check`), so index < size, and the map has
        // room for `size` entries from `entries` on, aligned (checked in `map`). They are atomics, whoever
        // writes them.
        unsafe { self.entries.add(index).as_ref() }
    }

    /// For the producer: entries that may be written, and its counter.
    #[inline]
    pub(super) fn room(&self) -> (u32, u32) {
        let producer = self.producer().load(Ordering::Acquire);
        // Pairs with the kernel's release store of the consumer: it has read those entries.
        let used = producer.wrapping_sub(self.consumer().load(Ordering::Acquire));
        (self.size.saturating_sub(used), producer)
    }

    /// For the consumer: entries that may be read, and its counter.
    #[inline]
    pub(super) fn filled(&self) -> (u32, u32) {
        let consumer = self.consumer().load(Ordering::Acquire);
        // Pairs with the kernel's release store of the producer: it has written those entries.
        let used = self.producer().load(Ordering::Acquire).wrapping_sub(consumer);
        (used.min(self.size), consumer)
    }

    /// Publishes `n` entries that the producer wrote. Pairs with the kernel's acquire load.
    #[inline]
    pub(super) fn publish(&self, n: u32) {
        let producer = self.producer().load(Ordering::Relaxed);
        self.producer().store(producer.wrapping_add(n), Ordering::Release);
    }

    /// Gives back `n` entries that the consumer read. Pairs with the kernel's acquire load.
    #[inline]
    pub(super) fn give_back(&self, n: u32) {
        let consumer = self.consumer().load(Ordering::Relaxed);
        self.consumer().store(consumer.wrapping_add(n), Ordering::Release);
    }

    #[inline]
    pub(super) fn needs_wakeup(&self) -> bool {
        // The store of the producer must be visible before the flag is read, else we and the kernel, which sets
        // the flag and then looks for entries, could miss each other.
        fence(Ordering::SeqCst);
        self.flags() & libc::XDP_RING_NEED_WAKEUP != 0
    }

    /// A ring in anonymous memory: a test plays the kernel.
    #[cfg(test)]
    pub(super) fn anonymous(size: u32) -> Ring<T> {
        let map_len = 64 + size as usize * size_of::<T>();
        // SAFETY: a new anonymous mapping.
        let map = unsafe {
            rustix::mm::mmap_anonymous(
                std::ptr::null_mut(),
                map_len,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE,
            )
        };
        let map = NonNull::new(map.unwrap().cast::<u8>()).unwrap();
        // SAFETY: all within the map.
        let (c, f, d) = unsafe { (map.add(4), map.add(8), map.add(64)) };
        Ring {
            map: Arc::new(RingMap { start: map, len: map_len }),
            producer: map.cast(),
            consumer: c.cast(),
            flags: f.cast(),
            entries: d.cast(),
            size,
        }
    }
}
