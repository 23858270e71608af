//! Packet memory: buffers of a region, and the payload of one.
//!
//! Other processes may write these bytes while we look at them, so they are never lent as `&[u8]` (I3): they are copied by
//! pointer, or read by single typed loads. What is read may be torn by a hostile or careless writer; it is
//! never undefined.

use std::marker::PhantomData;
use std::ptr::NonNull;
use std::sync::Arc;

use crate::mem::{Map, SharedSlice};
use core::sync::atomic::{AtomicBool, AtomicU8, Ordering::Relaxed};

/// Frames up to this length are copied by an inline loop of 64-byte steps, longer ones by the C library's memcpy.
const INLINE_COPY_MAX_BYTES: usize = 320;

/// The buffers of a region: `count` of them, `stride` bytes apart.
#[derive(Clone, Debug)]
pub struct Bufs {
    bytes: SharedSlice<AtomicU8>,
    stride: usize,
    count: u32,
}

impl Bufs {
    /// `count` buffers of `stride` bytes at byte offset `ofs` of the map; None if they do not fit. `stride` must be a multiple of 64.
    #[must_use]
    pub fn new(map: &Arc<Map>, ofs: usize, stride: usize, count: u32) -> Option<Self> {
        if stride == 0 || !stride.is_multiple_of(64) || !ofs.is_multiple_of(64) {
            return None;
        }
        let bytes = SharedSlice::new(map, ofs, stride.checked_mul(count as usize)?)?;
        Some(Bufs { bytes, stride, count })
    }

    /// How many.
    #[inline]
    #[must_use]
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Size of one, in bytes.
    #[inline]
    #[must_use]
    pub fn buf_size(&self) -> u32 {
        // `new` made sure that it fits: stride * count is a length in memory, and sizes above 64 KiB are refused by pools.
        self.stride as u32
    }

    /// True if both look into one mapping at the same place: indexes of one are valid in the other.
    #[must_use]
    pub fn same_as(&self, other: &Bufs) -> bool {
        std::ptr::eq(self.bytes.as_ptr(), other.bytes.as_ptr()) && self.stride == other.stride
    }

    /// The same buffers in a form that a hot loop can keep in registers.
    #[inline]
    #[must_use]
    pub fn view(&self) -> BufsView<'_> {
        let first = self.bytes.as_ptr().cast::<u8>().cast_mut();
        BufsView { first, stride: self.stride, count: self.count, _borrow: PhantomData }
    }

    /// The whole of buffer `idx`; None if there is no such buffer.
    #[inline]
    #[must_use]
    pub fn payload(&self, idx: u32) -> Option<Payload<'_>> {
        let ptr = NonNull::new(self.view().at(idx)?)?;
        Some(Payload { ptr, len: self.stride, _borrow: PhantomData })
    }

    /// As [`BufsView::first_words`].
    #[inline]
    #[must_use]
    pub fn first_words(&self, idx: u32) -> Option<(u64, u64)> {
        self.view().first_words(idx)
    }

    /// As [`BufsView::copy_frame`].
    #[inline]
    #[must_use]
    pub fn copy_frame(&self, from: u32, dst: &Bufs, to: u32, len: usize) -> bool {
        self.view().copy_frame(from, dst.view(), to, len)
    }

    /// As [`BufsView::prefetch_write`].
    #[inline]
    pub fn prefetch_write(&self, idx: u32) {
        self.view().prefetch_write(idx);
    }

    /// As [`BufsView::prefetch_read`].
    #[inline]
    pub fn prefetch_read(&self, idx: u32) {
        self.view().prefetch_read(idx);
    }
}

/// The buffers of a region by value: address, stride and number.
#[derive(Clone, Copy, Debug)]
pub struct BufsView<'a> {
    first: *mut u8,
    stride: usize,
    count: u32,
    _borrow: PhantomData<&'a Bufs>,
}

impl BufsView<'_> {
    #[inline(always)]
    fn at(&self, idx: u32) -> Option<*mut u8> {
        if idx >= self.count {
            return None;
        }
        // SAFETY: idx < count, and count * stride bytes lie in the map (I2), which the borrow keeps (I1).
        Some(unsafe { self.first.add(idx as usize * self.stride) })
    }

    /// The first 16 bytes of buffer `idx`, as two words in memory order: destination and source address.
    #[inline(always)]
    #[must_use]
    pub fn first_words(&self, idx: u32) -> Option<(u64, u64)> {
        let ptr = self.at(idx)?.cast::<u64>();
        // SAFETY: a buffer has at least 64 bytes and is 64-aligned within the map, whose start is page aligned (I2, I4);
        // volatile, since others may write.
        Some(unsafe { (ptr.read_volatile(), ptr.add(1).read_volatile()) })
    }

    /// Copies `len` bytes of buffer `from` of these into buffer `to` of `dst`. Both buffers may be written up to the next
    /// multiple of 64. False, and nothing copied, if an index is out of range or `len` is more than either buffer holds.
    #[inline(always)]
    #[must_use]
    pub fn copy_frame(&self, from: u32, dst: BufsView<'_>, to: u32, len: usize) -> bool {
        let (Some(src), Some(out)) = (self.at(from), dst.at(to)) else { return false };
        if len <= 64 {
            if len > 0 {
                // SAFETY: every buffer has at least 64 bytes, since strides are multiples of 64 above 0 (I2).
                unsafe { copy_64(src, out) };
            }
            return true;
        }
        if len > self.stride || len > dst.stride {
            return false;
        }
        // SAFETY: both buffers hold `len` rounded up to 64 bytes, since strides are multiples of 64 (I2, I4). They may be the
        // same buffer, if a client gave one index twice: every step loads its 64 bytes before it stores.
        unsafe { copy_longer(src, out, len) };
        true
    }

    /// Asks for the first line of buffer `idx` in the cache, for writing.
    #[inline(always)]
    pub fn prefetch_write(&self, idx: u32) {
        if let Some(ptr) = self.at(idx) {
            prefetch_write(ptr);
        }
    }

    /// Asks for the first line of buffer `idx` in the cache, for reading.
    #[inline(always)]
    pub fn prefetch_read(&self, idx: u32) {
        if let Some(ptr) = self.at(idx) {
            prefetch_read(ptr);
        }
    }
}

/// Asks for the line of `value` in the cache, for writing.
#[inline]
pub fn prefetch_write<T>(value: *const T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a hint; it neither faults nor changes memory or flags.
    unsafe {
        std::arch::asm!("prefetchw [{}]", in(reg) value, options(nostack, preserves_flags, readonly));
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = value;
}

/// Asks for the line of `value` in the cache, for reading.
#[inline]
pub fn prefetch_read<T>(value: *const T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a hint; it neither faults nor changes memory.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(value.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = value;
}

/// Copies `len` bytes, rounded up to 64 where that is faster. Kept out of the loops that copy small frames.
///
/// # Safety
/// Both must be valid for `len` rounded up to 64 bytes. Overlap is permitted only if they are equal.
#[inline(never)]
unsafe fn copy_longer(src: *const u8, dst: *mut u8, len: usize) {
    if len > INLINE_COPY_MAX_BYTES {
        // SAFETY: the caller's condition; `copy` permits overlap.
        unsafe { std::ptr::copy(src, dst, len) };
        return;
    }
    let mut ofs = 0;
    while ofs < len {
        // SAFETY: ofs + 64 <= len rounded up to 64.
        unsafe { copy_64(src.add(ofs), dst.add(ofs)) };
        ofs += 64;
    }
}

/// Copies 64 bytes: all loads, then all stores.
///
/// # Safety
/// Both must be valid for 64 bytes.
#[inline(always)]
unsafe fn copy_64(src: *const u8, dst: *mut u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: SSE2 is part of x86-64; unaligned loads and stores within the 64 bytes of the caller's condition.
    unsafe {
        use std::arch::x86_64::{__m128i, _mm_loadu_si128, _mm_storeu_si128};
        let (src, dst) = (src.cast::<__m128i>(), dst.cast::<__m128i>());
        let a = _mm_loadu_si128(src);
        let b = _mm_loadu_si128(src.add(1));
        let c = _mm_loadu_si128(src.add(2));
        let d = _mm_loadu_si128(src.add(3));
        _mm_storeu_si128(dst, a);
        _mm_storeu_si128(dst.add(1), b);
        _mm_storeu_si128(dst.add(2), c);
        _mm_storeu_si128(dst.add(3), d);
    }
    #[cfg(not(target_arch = "x86_64"))]
    // SAFETY: the caller's condition; `copy` permits overlap.
    unsafe {
        std::ptr::copy(src, dst, 64);
    }
}

/// The bytes of one buffer, or part of it. It is never a slice, since others may write it at any moment: bytes are copied in and out, or
/// loaded and stored by value. Copies of a `Payload` are the same bytes. What two threads write at once may be torn.
#[derive(Clone, Copy, Debug)]
pub struct Payload<'a> {
    ptr: NonNull<u8>,
    len: usize,
    _borrow: PhantomData<&'a AtomicU8>,
}

// SAFETY: pointer copies of shared memory (I3), from any thread; the borrow keeps the map (I1).
unsafe impl Send for Payload<'_> {}
// SAFETY: as for Send.
unsafe impl Sync for Payload<'_> {}

/// A value at any address. Volatile loads of this stay single ones: what was checked is what is used, whoever writes there meanwhile.
/// (Stores may be merged, which programs that fill packets word by word are faster by.)
#[repr(C, packed)]
struct Unaligned<T>(T);

macro_rules! typed {
    ($($load:ident $store:ident $type:ty),*) => { $(
        #[doc = concat!("A `", stringify!($type), "` at byte offset `ofs`, native order, one load; None past the end.")]
        #[inline]
        #[must_use]
        pub fn $load(&self, ofs: usize) -> Option<$type> {
            self.check(ofs, size_of::<$type>())?;
            // SAFETY: inside the payload (checked), aligned to 1 as `Unaligned` is (I2, I4); volatile, since others may write.
            Some(unsafe { self.ptr.as_ptr().add(ofs).cast::<Unaligned<$type>>().read_volatile().0 })
        }
        #[doc = concat!("Stores a `", stringify!($type), "` at byte offset `ofs`, native order; None past the end.")]
        #[inline]
        pub fn $store(&self, ofs: usize, value: $type) -> Option<()> {
            self.check(ofs, size_of::<$type>())?;
            // SAFETY: inside the payload (checked), unaligned is permitted here (I2, I4).
            unsafe { self.ptr.as_ptr().add(ofs).cast::<$type>().write_unaligned(value) };
            Some(())
        }
    )* };
}

impl<'a> Payload<'a> {
    /// Its length in bytes.
    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// True if it has no bytes.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The part that starts at `ofs`, at most `len` bytes; empty past the end.
    #[inline]
    #[must_use]
    pub fn slice(&self, ofs: usize, len: usize) -> Payload<'a> {
        let ofs = ofs.min(self.len);
        // SAFETY: ofs <= len, so it stays inside or one past the end.
        let ptr = unsafe { self.ptr.add(ofs) };
        Payload { ptr, len: len.min(self.len - ofs), _borrow: PhantomData }
    }

    #[inline]
    fn check(&self, ofs: usize, len: usize) -> Option<()> {
        (ofs <= self.len && len <= self.len - ofs).then_some(())
    }

    /// Copies out as many bytes as fit both; returns how many.
    #[inline]
    pub fn copy_to(&self, out: &mut [u8]) -> usize {
        let n = out.len().min(self.len);
        // SAFETY: n bytes inside both; `out` is an exclusive Rust slice, so it cannot be shared memory (I3).
        unsafe { std::ptr::copy_nonoverlapping(self.ptr.as_ptr(), out.as_mut_ptr(), n) };
        n
    }

    /// Copies in as many bytes as fit; returns how many.
    #[inline]
    pub fn copy_from(&self, data: &[u8]) -> usize {
        let n = data.len().min(self.len);
        // SAFETY: n bytes inside both; a Rust slice is never shared memory (I3).
        unsafe { std::ptr::copy_nonoverlapping(data.as_ptr(), self.ptr.as_ptr(), n) };
        n
    }

    /// Copies the bytes of `from` in, as many as fit both; returns how many.
    #[inline]
    pub fn copy_payload(&self, from: &Payload<'_>) -> usize {
        let n = from.len.min(self.len);
        // SAFETY: n bytes inside both; `copy` permits overlap.
        unsafe { std::ptr::copy(from.ptr.as_ptr(), self.ptr.as_ptr(), n) };
        n
    }

    /// A copy of all bytes.
    #[must_use]
    pub fn to_vec(&self) -> Vec<u8> {
        let mut out = vec![0; self.len];
        self.copy_to(&mut out);
        out
    }

    typed!(load_u8 store_u8 u8, load_u16 store_u16 u16, load_u32 store_u32 u32, load_u64 store_u64 u64);

    /// The bytes as a slice.
    ///
    /// # Safety
    /// Nobody else may write these bytes while the slice lives: those who share the region leave my slots alone.
    #[must_use]
    pub unsafe fn as_slice(&self) -> &'a [u8] {
        // SAFETY: inside the map (I2), kept by the borrow (I1); the caller vouches for the rest.
        unsafe { std::slice::from_raw_parts(self.ptr.as_ptr(), self.len) }
    }

    /// Its address, for handing to the kernel. Valid as long as this is.
    #[must_use]
    pub fn as_ptr(&self) -> *mut u8 {
        self.ptr.as_ptr()
    }
}

static OWN_MEMORY_FORBIDDEN: AtomicBool = AtomicBool::new(false);

/// From now on [`copy_from_user`] fails always: for a process that syncs the rings of others, whose addresses are not its own.
pub fn forbid_own_memory() {
    OWN_MEMORY_FORBIDDEN.store(true, Relaxed);
}

/// Copies `len` bytes from address `addr` of this very process, as the kernel's copy_from_user would: a bad address is an
/// error, not a fault. True if all were copied.
///
/// Source: process_vm_readv(2) on oneself.
#[must_use]
pub fn copy_from_user(addr: u64, out: &Payload<'_>, len: usize) -> bool {
    if len > out.len || OWN_MEMORY_FORBIDDEN.load(Relaxed) {
        return false;
    }
    let local = libc::iovec { iov_base: out.ptr.as_ptr().cast(), iov_len: len };
    let remote = libc::iovec { iov_base: addr as usize as *mut libc::c_void, iov_len: len };
    // SAFETY: the local vector lies inside the payload; the kernel checks the remote one.
    let n = unsafe { libc::process_vm_readv(libc::getpid(), &local, 1, &remote, 1, 0) };
    usize::try_from(n) == Ok(len)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bufs(count: u32) -> Bufs {
        let map = Map::anonymous(count as usize * 2112).unwrap();
        Bufs::new(&map, 0, 2112, count).unwrap()
    }

    #[test]
    fn copies_every_length_and_nothing_past_the_rounded_end() {
        let (src, dst) = (bufs(4), bufs(4));
        for len in (0..700).chain([1499, 1500, 1514, 2048, 2111, 2112]) {
            let data: Vec<u8> = (0..2112u32).map(|i| (i * 7 + len as u32) as u8).collect();
            src.payload(2).unwrap().copy_from(&data);
            dst.payload(3).unwrap().copy_from(&[0xee; 2112]);
            assert!(src.copy_frame(2, &dst, 3, len));
            let got = dst.payload(3).unwrap().to_vec();
            assert_eq!(got[..len], data[..len]);
            assert!(got[len.next_multiple_of(64)..].iter().all(|&b| b == 0xee), "len {len}");
        }
    }

    #[test]
    fn refuses_what_is_out_of_range() {
        let b = bufs(4);
        assert!(
            !b.copy_frame(4, &b, 0, 1) && !b.copy_frame(0, &b, u32::MAX, 1) && !b.copy_frame(0, &b, 1, 2113)
        );
        assert!(b.payload(4).is_none() && b.first_words(4).is_none());
        let p = b.payload(1).unwrap();
        assert_eq!((p.load_u32(2109), p.load_u32(2108), p.load_u64(usize::MAX)), (None, Some(0), None));
        assert!(p.slice(5000, 10).is_empty());
    }

    #[test]
    fn a_bad_user_address_is_an_answer_not_a_fault() {
        let b = bufs(1);
        let p = b.payload(0).unwrap();
        assert!(!copy_from_user(8, &p, 64));
        let data = [7u8; 64];
        assert!(copy_from_user(data.as_ptr() as u64, &p, 64));
        assert_eq!(p.load_u8(63), Some(7));
    }
}
