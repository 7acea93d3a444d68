//! The packet's bytes by their place.

use aya_ebpf::bindings::xdp_md;

use crate::context::pointer;

/// The first byte of the frame, if it has `bytes`.
#[inline(always)]
pub fn frame(context: *mut xdp_md, bytes: usize) -> Option<*mut u8> {
    // SAFETY: the kernel hands in a valid context; these are `data` and `data_end`.
    let (start, end) = unsafe { (pointer::<0>(context.cast()), pointer::<4>(context.cast())) };
    if start + bytes > end {
        return None;
    }
    Some(start as *mut u8)
}

/// # Safety
/// The field must lie in the frame; the verifier holds us to it.
#[inline(always)]
pub unsafe fn get<T: Copy>(frame: *const u8, at: usize) -> T {
    // SAFETY: the caller's promise.
    unsafe { frame.add(at).cast::<T>().read_unaligned() }
}

/// # Safety
/// As [`get`].
#[inline(always)]
pub unsafe fn set<T: Copy>(frame: *mut u8, at: usize, value: T) {
    // SAFETY: the caller's promise.
    unsafe { frame.add(at).cast::<T>().write_unaligned(value) }
}

/// Sends a frame back where it came from.
///
/// # Safety
/// The frame must have a whole Ethernet header.
#[inline(always)]
pub unsafe fn turn(frame: *mut u8) {
    // SAFETY: the caller's promise.
    unsafe {
        let (target, source) = (
            (get::<u32>(frame, 0), get::<u16>(frame, 4)),
            (get::<u32>(frame, 6), get::<u16>(frame, 10)),
        );
        set(frame, 0, source.0);
        set(frame, 4, source.1);
        set(frame, 6, target.0);
        set(frame, 10, target.1);
    }
}
