//! Waiting until every packet that is under way is through.

/// Waits for a grace period of RCU, under which the packet path runs: a packet that comes after
/// sees all that was written before. False if the kernel does not offer to wait.
pub fn wait() -> bool {
    // SAFETY: the system call takes numbers only.
    let done = unsafe { libc::syscall(libc::SYS_membarrier, libc::MEMBARRIER_CMD_GLOBAL, 0, 0) };
    done == 0
}
