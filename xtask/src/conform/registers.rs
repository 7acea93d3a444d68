//! A preloaded library with which user-mode Linux runs on processors with AMX.
//!
//! `conform` compiles this file alone; it is no module of this program. User-mode Linux 6.1 keeps
//! the floating-point registers of its processes in a buffer of fixed size
//! (`arch/x86/um/ptrace_64.c`). A processor with AMX has more registers. Its kernel refuses to set
//! only a part of them (`xstateregs_set`), and user-mode Linux ends with "set fp regs failed". The
//! `ptrace` of this file replaces the C library's. It completes the registers that are set by those
//! that are missing.

use std::cell::UnsafeCell;
use std::ffi::{c_long, c_void};

/// `include/uapi/linux/ptrace.h` and `include/uapi/linux/elf.h`.
const GET_REGISTERS: c_long = 0x4204;
const SET_REGISTERS: c_long = 0x4205;
const XSTATE: usize = 0x202;
const PEEKS: std::ops::RangeInclusive<c_long> = 1..=3;
/// `ptrace` in the kernel's table of system calls for x86-64.
const PTRACE: c_long = 101;
/// The size of the buffer in bytes. No processor has as many.
const MOST: usize = 1 << 16;

/// `struct iovec`.
#[repr(C)]
struct Slice {
    base: *mut c_void,
    length: usize,
}

#[repr(align(64))]
struct Registers(UnsafeCell<[u8; MOST]>);

// SAFETY: user-mode-linux calls `ptrace` from one thread.
unsafe impl Sync for Registers {}

/// The buffer is not on the stack, because the stack of user-mode Linux is small.
static REGISTERS: Registers = Registers(UnsafeCell::new([0; MOST]));

unsafe extern "C" {
    fn syscall(number: c_long, ...) -> c_long;
    fn __errno_location() -> *mut i32;
}

/// Ptrace(2) with the interface of the C library.
///
/// # Safety
///
/// The pointers must be valid, as for the system call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ptrace(
    request: c_long,
    process: i32,
    address: *mut c_void,
    data: *mut c_void,
) -> c_long {
    // SAFETY: the caller promises that its pointers are valid; the pointers made here outlive the
    // calls.
    unsafe {
        if request == SET_REGISTERS && address as usize == XSTATE {
            let given = &*data.cast::<Slice>();
            let mut all = Slice {
                base: REGISTERS.0.get().cast(),
                length: MOST,
            };
            let there = syscall(PTRACE, GET_REGISTERS, process, address, &raw mut all);
            if there == 0 && all.length > given.length {
                let part = all.base.cast::<u8>();
                part.copy_from_nonoverlapping(given.base.cast(), given.length);
                return syscall(PTRACE, request, process, address, &raw mut all);
            }
        }
        if PEEKS.contains(&request) {
            // The system call writes the word to `data`; the C library returns it.
            let mut word: c_long = 0;
            let done = syscall(PTRACE, request, process, address, &raw mut word);
            if done < 0 {
                return done;
            }
            *__errno_location() = 0;
            return word;
        }
        syscall(PTRACE, request, process, address, data)
    }
}
