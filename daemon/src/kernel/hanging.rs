//! The interface to which a pinned link is attached, as the kernel reports it.
//!
//! A link stays pinned when its device goes or somebody detaches it. The pin does not show that.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// `BPF_OBJ_GET` and `BPF_OBJ_GET_INFO_BY_FD`.
const GET: libc::c_long = 7;
const GET_INFO: libc::c_long = 15;

/// `union bpf_attr` as `BPF_OBJ_GET` reads it.
#[repr(C)]
#[derive(Default)]
struct ByPath {
    path: u64,
    fd: u32,
    flags: u32,
}

/// `union bpf_attr` as `BPF_OBJ_GET_INFO_BY_FD` reads it.
#[repr(C)]
#[derive(Default)]
struct ByFd {
    fd: u32,
    length: u32,
    info: u64,
}

/// The beginning of `struct bpf_link_info`, of a link of XDP or tcx.
#[repr(C)]
#[derive(Default)]
struct Info {
    kind: u32,
    id: u32,
    program: u32,
    reserved: u32,
    interface: u32,
    point: u32,
}

/// The interface to which a pinned link is attached; 0 if it is detached.
pub fn interface(pin: &Path) -> io::Result<u32> {
    let path = CString::new(pin.as_os_str().as_bytes())?;
    let mut by_path = ByPath {
        path: path.as_ptr() as u64,
        ..ByPath::default()
    };
    let fd = bpf(GET, &mut by_path)?;
    // SAFETY: the call succeeded, so this is an open descriptor that nothing else owns.
    let link = unsafe { File::from_raw_fd(fd) };
    let mut info = Info::default();
    let mut by_fd = ByFd {
        fd: link.as_raw_fd() as u32,
        length: size_of::<Info>() as u32,
        info: (&raw mut info) as u64,
    };
    bpf(GET_INFO, &mut by_fd)?;
    Ok(info.interface)
}

fn bpf<T>(command: libc::c_long, attributes: &mut T) -> io::Result<i32> {
    // SAFETY: the attributes are of the command's type and valid for the length passed, and the
    // memory that they point to outlives the call.
    let done = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_mut(attributes),
            size_of::<T>(),
        )
    };
    match i32::try_from(done) {
        Ok(done) if done >= 0 => Ok(done),
        _ => Err(io::Error::last_os_error()),
    }
}
