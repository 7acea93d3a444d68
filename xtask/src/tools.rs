//! What has to be on the machine besides Rust, and how it gets there.

use anyhow::{Result, bail};
use nix::unistd::geteuid;

use crate::process;

/// A Debian package, known by a program that it brings.
pub struct Package {
    name: &'static str,
    program: &'static str,
}

/// For the checks and tests.
pub const FOR_TESTS: [Package; 7] = [
    // Unpacks the sources of core.
    Package {
        name: "xz-utils",
        program: "xz",
    },
    // A real server and a real client of FTP, and the rule that its active form needs behind NAT.
    Package {
        name: "vsftpd",
        program: "vsftpd",
    },
    Package {
        name: "curl",
        program: "curl",
    },
    NFTABLES,
    // Routes by a mark.
    Package {
        name: "iproute2",
        program: "ip",
    },
    // Servers that read the PROXY protocol.
    HAPROXY,
    Package {
        name: "nginx",
        program: "nginx",
    },
];

/// For loading programs into other kernels.
pub const FOR_KERNELS: [Package; 1] = [Package {
    name: "qemu-system-x86",
    program: "qemu-system-x86_64",
}];

/// For counting instructions.
pub const FOR_COUNTING: [Package; 1] = [Package {
    name: "valgrind",
    program: "valgrind",
}];

/// Also what `bench --http` compares with.
pub const HAPROXY: Package = Package {
    name: "haproxy",
    program: "haproxy",
};
pub const NFTABLES: Package = Package {
    name: "nftables",
    program: "nft",
};

impl Package {
    pub fn is_installed(&self) -> bool {
        process::is_installed(self.program)
    }
}

/// Installs those that are missing, if we may; otherwise says which.
pub fn install(packages: &[Package]) -> Result<()> {
    let missing: Vec<_> = packages
        .iter()
        .filter(|p| !process::is_installed(p.program))
        .map(|p| p.name)
        .collect();
    if missing.is_empty() {
        println!("nothing to install");
        return Ok(());
    }
    let names = missing.join(" ");
    if !process::is_installed("apt-get") {
        bail!("missing: {names} (these are Debian's names); this machine has no apt-get");
    }
    if !geteuid().is_root() {
        bail!("missing: {names}; run `apt-get install {names}` as root");
    }
    let apt = || {
        let mut apt = process::command("apt-get");
        apt.env("DEBIAN_FRONTEND", "noninteractive").arg("--quiet");
        apt
    };
    process::run(apt().arg("update"))?;
    process::run(
        apt()
            .args(["install", "--yes", "--no-install-recommends"])
            .args(missing),
    )
}

/// Adds a component of the toolchain, such as rustfmt, if it is missing.
pub fn component(name: &str, subcommand: &str) -> Result<()> {
    if process::output(process::cargo().args([subcommand, "--version"])).is_ok() {
        return Ok(());
    }
    if !process::is_installed("rustup") {
        bail!("missing: {name}, and there is no rustup to add it");
    }
    process::run(process::command("rustup").args(["component", "add", name]))
}
