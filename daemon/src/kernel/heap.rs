//! The process's own memory. One of the few modules of the daemon with `unsafe` code: one call.

/// Gives back to the kernel what was freed. Loading takes some 90 MB, most of it for the kernel's
/// types, which the allocator keeps otherwise.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: the function takes a number and has no conditions.
    unsafe {
        libc::malloc_trim(0);
    }
}
