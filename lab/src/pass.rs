//! An XDP program that passes everything, for the peer of a device that answers by XDP_TX.
//!
//! The veth driver wakes the receiver of such frames only if the receiver has an XDP program
//! itself. Without one, the frames wait in its ring until another frame arrives.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use anyhow::{Context, Result};

use crate::host::Host;

/// Commands and codes of linux/bpf.h.
const BPF_PROG_LOAD: i32 = 5;
const BPF_LINK_CREATE: i32 = 28;
const BPF_PROG_TYPE_XDP: u32 = 6;
const BPF_XDP: u32 = 37;
const BPF_F_XDP_HAS_FRAGS: u32 = 1 << 5;
const XDP_FLAGS_DRV_MODE: u32 = 1 << 2;
/// `r0 = XDP_PASS; exit`.
const PASS: [u64; 2] = [0xb7 | 2 << 32, 0x95];

/// The part of union bpf_attr that the kernel reads to load a program.
#[repr(C)]
#[derive(Default)]
struct Load {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
}

impl Host {
    /// Lets a device receive what its peer sends back by native XDP, for as long as the host lives.
    /// No other XDP program can be attached to the device meanwhile.
    pub fn pass_xdp(&self, device: &str) -> Result<()> {
        let index = self.index_of(device)?;
        let link = self.run(|| {
            let program = load().context("cannot load an XDP program (needs CAP_BPF)")?;
            attach(&program, index).with_context(|| format!("cannot attach XDP to {device}"))
        })?;
        self.keep(link);
        Ok(())
    }
}

fn load() -> io::Result<OwnedFd> {
    bpf(
        BPF_PROG_LOAD,
        &Load {
            kind: BPF_PROG_TYPE_XDP,
            count: PASS.len() as u32,
            instructions: PASS.as_ptr() as u64,
            license: c"GPL".as_ptr() as u64,
            flags: BPF_F_XDP_HAS_FRAGS,
            ..Load::default()
        },
    )
}

/// Attaches the program. The result holds the program and its attachment.
fn attach(program: &OwnedFd, device: u32) -> io::Result<OwnedFd> {
    let link = [
        program.as_raw_fd() as u32,
        device,
        BPF_XDP,
        XDP_FLAGS_DRV_MODE,
    ];
    bpf(BPF_LINK_CREATE, &link)
}

fn bpf<T>(command: i32, attributes: &T) -> io::Result<OwnedFd> {
    // SAFETY: the attributes and all they point to outlive the call, and their size is given;
    // both commands only read them.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, command, attributes, size_of::<T>()) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor for this process.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}
