//! The process's own memory. One of the few modules of the daemon with `unsafe` code: one call.

/// Returns freed memory to the kernel. Loading takes some 90 MB, most of it for the kernel's BTF
/// types, which the allocator would otherwise keep.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: `malloc_trim` takes a number and may be called at any time.
    unsafe {
        libc::malloc_trim(0);
    }
}
