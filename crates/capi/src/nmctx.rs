//! Contexts: where messages go, where memory comes from, and the list of what is mapped.

use core::cell::UnsafeCell;
use core::ffi::{c_char, c_int, c_void};
use core::ptr;
use core::sync::atomic::{AtomicI32, AtomicPtr, Ordering};
use ringway_abi::Errno;
use std::ffi::CString;
use std::io::Write;

use crate::errno::{self, Failure};
use crate::types::{nmctx, nmem_d};

/// A static that C code holds pointers to.
#[repr(transparent)]
struct Shared<T>(UnsafeCell<T>);

// SAFETY: only pointers to the content are handed out; C contract 3 says who may use them when.
unsafe impl<T> Sync for Shared<T> {}

/// The context that is there at first.
static FIRST: Shared<nmctx> = Shared(UnsafeCell::new(nmctx {
    verbose: 1,
    error: Some(print),
    malloc: Some(from_libc),
    free: Some(to_libc),
    lock: None,
    mem_descs: ptr::null_mut(),
}));

/// Its copy with a lock, once [`nmctx_set_threadsafe`] was called.
static THREADSAFE: Shared<nmctx> = Shared(UnsafeCell::new(nmctx {
    verbose: 0,
    error: None,
    malloc: None,
    free: None,
    lock: None,
    mem_descs: ptr::null_mut(),
}));

/// The lock of [`THREADSAFE`].
static LOCK: Shared<libc::pthread_mutex_t> = Shared(UnsafeCell::new(libc::PTHREAD_MUTEX_INITIALIZER));

static DEFAULT: AtomicPtr<nmctx> = AtomicPtr::new(FIRST.0.get());

/// For programs built with a header that refers to it so that the linker takes the lock too. Never read.
#[unsafe(no_mangle)]
#[allow(non_upper_case_globals)]
pub static nmctx_threadsafe: AtomicI32 = AtomicI32::new(1);

/// Runs [`nmctx_set_threadsafe`] when the library is loaded.
#[used]
#[unsafe(link_section = ".init_array")]
static AT_START: extern "C" fn() = nmctx_set_threadsafe;

unsafe extern "C" fn print(_: *mut nmctx, message: *const c_char) {
    // SAFETY: C contract 2; our own caller, or a program that calls the function of this context.
    let text = unsafe { core::ffi::CStr::from_ptr(message) }.to_bytes();
    // There is nobody to tell that nobody can be told.
    let _ = std::io::stderr().write_all(&[text, b"\n"].concat());
}

unsafe extern "C" fn from_libc(_: *mut nmctx, size: usize) -> *mut c_void {
    // SAFETY: takes any size.
    unsafe { libc::malloc(size) }
}

unsafe extern "C" fn to_libc(_: *mut nmctx, mem: *mut c_void) {
    // SAFETY: C contract 1: memory comes back to where it came from.
    unsafe { libc::free(mem) }
}

unsafe extern "C" fn mutex(_: *mut nmctx, take: c_int) {
    // SAFETY: initialised, and never destroyed or moved.
    unsafe {
        match take {
            0 => libc::pthread_mutex_unlock(LOCK.0.get()),
            _ => libc::pthread_mutex_lock(LOCK.0.get()),
        }
    };
}

/// A context of the C program.
#[derive(Clone, Copy, Debug)]
pub struct Ctx(*mut nmctx);

/// Bytes of a message, at most, its NUL included.
pub const MESSAGE_MAX: usize = 1000;

impl Ctx {
    /// The default one.
    pub fn default() -> Self {
        Self(DEFAULT.load(Ordering::Acquire))
    }

    /// The one pointed to, the default one for NULL.
    ///
    /// # Safety
    /// C contract 3.
    pub unsafe fn new(ctx: *mut nmctx) -> Self {
        if ctx.is_null() { Self::default() } else { Self(ctx) }
    }

    /// For C.
    pub fn as_ptr(self) -> *mut nmctx {
        self.0
    }

    /// Whether it wants messages.
    pub fn is_verbose(self) -> bool {
        // SAFETY: C contract 3.
        unsafe { (*self.0).verbose != 0 }
    }

    /// Gives a message to its error function. One that is too long is replaced, as is an empty one.
    pub fn report(self, message: &[u8]) {
        if !self.is_verbose() {
            return;
        }
        let message = match message.len() {
            0 => b"internal error",
            1..MESSAGE_MAX => message,
            _ => b"error message too long",
        };
        let text = CString::new(message).unwrap_or_else(|_| c"internal error".into());
        // SAFETY: C contract 3; the message ends with NUL.
        unsafe {
            if let Some(error) = (*self.0).error {
                error(self.0, text.as_ptr());
            }
        }
    }

    /// Tells of a failure, and leaves its errno.
    pub fn fail(self, failure: &Failure) {
        errno::set(failure.errno);
        if let Some(message) = &failure.message {
            self.report(message);
        }
        // Whatever the error function did.
        errno::set(failure.errno);
    }

    /// What a C function returns: 0, or -1 with errno.
    pub fn status(self, result: Result<(), Failure>) -> c_int {
        match result {
            Ok(()) => 0,
            Err(failure) => {
                self.fail(&failure);
                -1
            }
        }
    }

    /// Memory for one `T`, all of it zero; or ENOMEM with a message.
    ///
    /// `T` must be valid as zeros: each user says so.
    pub fn alloc<T>(self, message: impl Into<Vec<u8>>) -> Result<*mut T, Failure> {
        // SAFETY: C contract 3.
        let mem = unsafe { nmctx_malloc(self.0, size_of::<T>()) };
        if mem.is_null() {
            return Err(Failure::new(Errno::ENOMEM, message));
        }
        // SAFETY: C contract 3: as many bytes as asked for, and nobody else knows them.
        unsafe { ptr::write_bytes(mem.cast::<u8>(), 0, size_of::<T>()) };
        Ok(mem.cast())
    }

    /// Gives memory back.
    ///
    /// # Safety
    /// It came from [`Ctx::alloc`] of this context, and nobody uses it any more.
    pub unsafe fn free<T>(self, mem: *mut T) {
        // SAFETY: C contract 3, and as the caller promises.
        unsafe { nmctx_free(self.0, mem.cast()) }
    }

    /// Runs `f` on the list of mapped memory, under the lock if there is one.
    pub fn with_mem_descs<R>(self, f: impl FnOnce(&mut *mut nmem_d) -> R) -> R {
        // SAFETY: C contract 3: the lock guards the list. Nothing in `f` calls back into the program but
        // its malloc and free.
        unsafe {
            nmctx_lock(self.0);
            let result = f(&mut (*self.0).mem_descs);
            nmctx_unlock(self.0);
            result
        }
    }
}

/// The context of those who name none. Source: userapi.md 5.
#[unsafe(no_mangle)]
pub extern "C" fn nmctx_get() -> *mut nmctx {
    DEFAULT.load(Ordering::Acquire)
}

/// Replaces it; returns the one before. Source: userapi.md 5.
#[unsafe(no_mangle)]
pub extern "C" fn nmctx_set_default(ctx: *mut nmctx) -> *mut nmctx {
    DEFAULT.swap(ctx, Ordering::AcqRel)
}

/// Copies the default context, gives the copy a lock and makes it the default. Source: userapi.md 5.
#[unsafe(no_mangle)]
pub extern "C" fn nmctx_set_threadsafe() {
    let old = nmctx_get();
    let new = THREADSAFE.0.get();
    if old == new {
        return;
    }
    // SAFETY: C contract 3: the old context lives; the new one is ours, and nobody's default before this.
    unsafe {
        *new = *old;
        (*new).lock = Some(mutex);
    }
    nmctx_set_default(new);
}

/// Memory from the context. Source: userapi.md 5.
///
/// # Safety
/// C contract 3.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nmctx_malloc(ctx: *mut nmctx, size: usize) -> *mut c_void {
    // SAFETY: C contract 3.
    unsafe {
        let ctx = Ctx::new(ctx).as_ptr();
        (*ctx).malloc.map_or(ptr::null_mut(), |malloc| malloc(ctx, size))
    }
}

/// Memory back to the context. Source: userapi.md 5.
///
/// # Safety
/// C contract 3; the memory came from [`nmctx_malloc`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nmctx_free(ctx: *mut nmctx, mem: *mut c_void) {
    // SAFETY: C contract 3.
    unsafe {
        let ctx = Ctx::new(ctx).as_ptr();
        if let Some(free) = (*ctx).free {
            free(ctx, mem);
        }
    }
}

/// Takes the lock, if there is one. Source: userapi.md 5.
///
/// # Safety
/// C contract 3.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nmctx_lock(ctx: *mut nmctx) {
    // SAFETY: C contract 3.
    unsafe {
        let ctx = Ctx::new(ctx).as_ptr();
        if let Some(lock) = (*ctx).lock {
            lock(ctx, 1);
        }
    }
}

/// Gives it back. Source: userapi.md 5.
///
/// # Safety
/// C contract 3.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nmctx_unlock(ctx: *mut nmctx) {
    // SAFETY: C contract 3.
    unsafe {
        let ctx = Ctx::new(ctx).as_ptr();
        if let Some(lock) = (*ctx).lock {
            lock(ctx, 0);
        }
    }
}
