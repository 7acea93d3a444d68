//! Waits until the packet path is done with every packet that it has begun.

/// Waits for a grace period of RCU. The packet path runs under RCU, so a packet that comes
/// afterwards sees everything that was written before. False if the kernel does not offer this.
pub fn wait() -> bool {
    // SAFETY: `membarrier` takes only numbers.
    let done = unsafe { libc::syscall(libc::SYS_membarrier, libc::MEMBARRIER_CMD_GLOBAL, 0, 0) };
    done == 0
}
