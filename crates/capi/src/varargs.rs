//! `nmctx_ferror`, which takes arguments as `printf` does.
//!
//! Rust can call such functions but not define them. On x86-64 a few instructions do what a C compiler puts at
//! the start of one: spill the argument registers, and build the `va_list`. On other processors the function
//! takes six arguments of the size of a pointer after the format, which on their calling conventions is where
//! the first six are, if none is a floating-point number.

use core::ffi::{c_char, c_int};

use crate::nmctx::{Ctx, MESSAGE_MAX};
use crate::types::nmctx;

/// Formats with `print(buffer, bytes)`, which returns as `snprintf` does, and reports the result.
fn report(ctx: Ctx, print: impl FnOnce(*mut c_char, usize) -> c_int) {
    if !ctx.is_verbose() {
        return;
    }
    let mut buf = [0_u8; MESSAGE_MAX];
    let len = print(buf.as_mut_ptr().cast(), buf.len());
    // Negative: it failed, which reads like an empty message. Too long: what is there is not reported.
    let message = match usize::try_from(len).unwrap_or(0) {
        len @ 0..MESSAGE_MAX => buf[..len].to_vec(),
        len => vec![b' '; len.min(MESSAGE_MAX)],
    };
    ctx.report(&message);
}

#[cfg(target_arch = "x86_64")]
mod entry {
    use super::*;
    use core::ffi::c_void;

    unsafe extern "C" {
        // In C the last one is a `va_list`: on this processor an array, and so passed as a pointer to it.
        fn vsnprintf(buf: *mut c_char, size: usize, fmt: *const c_char, args: *mut c_void) -> c_int;
    }

    /// `nmctx_ferror` with the arguments in a `va_list`.
    unsafe extern "C" fn with_list(ctx: *mut nmctx, fmt: *const c_char, args: *mut c_void) {
        // SAFETY: C contract 3.
        let ctx = unsafe { Ctx::new(ctx) };
        // SAFETY: C contract 2; `args` is the list that `nmctx_ferror` built, used once; the buffer is as
        // long as said.
        report(ctx, |buf, size| unsafe { vsnprintf(buf, size, fmt, args) });
    }

    /// Reports a message to a context, if it wants any. Source: userapi.md 5.
    ///
    /// In C: `void nmctx_ferror(struct nmctx *ctx, const char *fmt, ...)`. Source of the layout: System V
    /// ABI for AMD64, 3.5.7 (variable argument lists).
    ///
    /// # Safety
    /// C contract 2, 3; the arguments are those that the format names.
    #[unsafe(naked)]
    #[unsafe(no_mangle)]
    pub unsafe extern "C" fn nmctx_ferror(ctx: *mut nmctx, fmt: *const c_char) {
        // Stack, from rsp: 176 bytes of saved registers, 24 bytes va_list, 16 to keep the stack aligned.
        core::arch::naked_asm!(
            "sub rsp, 216",
            "mov [rsp + 16], rdx",
            "mov [rsp + 24], rcx",
            "mov [rsp + 32], r8",
            "mov [rsp + 40], r9",
            // al: an upper bound of the vector registers used.
            "test al, al",
            "je 2f",
            "movaps [rsp + 48], xmm0",
            "movaps [rsp + 64], xmm1",
            "movaps [rsp + 80], xmm2",
            "movaps [rsp + 96], xmm3",
            "movaps [rsp + 112], xmm4",
            "movaps [rsp + 128], xmm5",
            "movaps [rsp + 144], xmm6",
            "movaps [rsp + 160], xmm7",
            "2:",
            // gp_offset: two registers were named arguments. fp_offset: behind the six general ones.
            "mov dword ptr [rsp + 176], 16",
            "mov dword ptr [rsp + 180], 48",
            // overflow_arg_area: above the return address. reg_save_area.
            "lea rax, [rsp + 224]",
            "mov [rsp + 184], rax",
            "mov [rsp + 192], rsp",
            "lea rdx, [rsp + 176]",
            "call {with_list}",
            "add rsp, 216",
            "ret",
            with_list = sym with_list,
        )
    }
}

#[cfg(not(target_arch = "x86_64"))]
mod entry {
    use super::*;

    /// Reports a message to a context, if it wants any. Source: userapi.md 5.
    ///
    /// In C: `void nmctx_ferror(struct nmctx *ctx, const char *fmt, ...)`.
    ///
    /// # Safety
    /// C contract 2, 3; the arguments are those that the format names, at most six, integers and pointers.
    #[unsafe(no_mangle)]
    pub unsafe extern "C" fn nmctx_ferror(
        ctx: *mut nmctx,
        fmt: *const c_char,
        a: usize,
        b: usize,
        c: usize,
        d: usize,
        e: usize,
        f: usize,
    ) {
        // SAFETY: C contract 3.
        let ctx = unsafe { Ctx::new(ctx) };
        // SAFETY: C contract 2; the format reads no more than was given; the buffer is as long as said.
        report(ctx, |buf, size| unsafe { libc::snprintf(buf, size, fmt, a, b, c, d, e, f) });
    }
}
