//! A wire carries what XDP sends. The tests cover the pitfalls of veth.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

use anyhow::{Context, Result};
use shunt_lab::{Host, PacketSocket, skipped, verify_checksums, veth};

const LIMIT: Duration = Duration::from_secs(5);
const FRAMES: u8 = 20;

#[test]
fn a_wire_brings_back_every_frame_that_native_xdp_returns() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let (a, b) = (Host::new("a")?, Host::new("b")?);
    veth(&a, "left", &b, "right")?;
    a.wire("left")?;
    a.pass_xdp("left")?;
    b.wire("right")?;
    let right = b.link("right")?;
    let _attached = b.run(|| return_all(right.index))?;

    a.address("left", "10.1.0.1/24")?;
    a.neighbour("left", "10.1.0.2".parse()?, right.mac)?;
    let mut left = PacketSocket::open(&a, "left")?;
    for number in 0..FRAMES {
        a.run(|| {
            let socket = std::net::UdpSocket::bind("10.1.0.1:0")?;
            socket.send_to(&[b'#', number], "10.1.0.2:9")?;
            Ok(())
        })?;
        let back = left.receive(LIMIT, |captured| {
            !captured.outgoing && captured.frame.ends_with(&[b'#', number])
        })?;
        verify_checksums(
            &back
                .with_context(|| format!("frame {number} is lost"))?
                .frame,
        )?;
    }
    Ok(())
}

/// Attaches `r0 = XDP_TX; exit` in native mode. The program stays as long as the result lives.
fn return_all(device: u32) -> Result<OwnedFd> {
    const BPF_PROG_LOAD: i32 = 5;
    const BPF_LINK_CREATE: i32 = 28;
    const BPF_PROG_TYPE_XDP: u64 = 6;
    const BPF_XDP: u32 = 37;
    const XDP_FLAGS_DRV_MODE: u32 = 1 << 2;
    let instructions = [0xb7_u64 | 3 << 32, 0x95];
    let count = instructions.len() as u64;
    let [code, license] = [instructions.as_ptr() as u64, c"GPL".as_ptr() as u64];
    let program = bpf(
        BPF_PROG_LOAD,
        &[BPF_PROG_TYPE_XDP | count << 32, code, license],
    )
    .context("cannot load the program")?;
    let link = [
        program.as_raw_fd() as u32,
        device,
        BPF_XDP,
        XDP_FLAGS_DRV_MODE,
    ];
    bpf(BPF_LINK_CREATE, &link).context("cannot attach the program")
}

fn bpf<T>(command: i32, attributes: &T) -> io::Result<OwnedFd> {
    // SAFETY: the attributes and all they point to outlive the call, and their size is given.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, command, attributes, size_of::<T>()) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor for this process.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}
