//! Access to the frame's bytes by offset.

use aya_ebpf::bindings::xdp_md;

use crate::context::pointer;

/// The first byte of the frame, if the frame has at least so many bytes.
#[inline(always)]
pub fn frame(context: *mut xdp_md, bytes: usize) -> Option<*mut u8> {
    // SAFETY: `context` is the program's own, with `data` at offset 0 and `data_end` at offset 4.
    let (start, end) = unsafe { (pointer::<0>(context.cast()), pointer::<4>(context.cast())) };
    if start + bytes > end {
        return None;
    }
    Some(start as *mut u8)
}

/// Reads a field at offset `at`.
///
/// # Safety
/// The field must lie in the frame.
#[inline(always)]
pub unsafe fn get<T: Copy>(frame: *const u8, at: usize) -> T {
    // SAFETY: the caller promises that the field lies in the frame; the access may be unaligned.
    unsafe { frame.add(at).cast::<T>().read_unaligned() }
}

/// Writes a field at offset `at`.
///
/// # Safety
/// The field must lie in the frame.
#[inline(always)]
pub unsafe fn set<T: Copy>(frame: *mut u8, at: usize, value: T) {
    // SAFETY: the caller promises that the field lies in the frame; the access may be unaligned.
    unsafe { frame.add(at).cast::<T>().write_unaligned(value) }
}

/// Swaps the MAC addresses, so that the frame goes back to its sender.
///
/// # Safety
/// The frame must have a whole Ethernet header.
#[inline(always)]
pub unsafe fn turn(frame: *mut u8) {
    // SAFETY: the caller promises fourteen bytes; every field ends before that.
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
