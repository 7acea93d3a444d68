//! The programs that the chores need besides Rust, and their installation.

use anyhow::{Result, bail};
use nix::unistd::geteuid;

use crate::process;

/// A Debian package, recognised by a program that it contains.
pub(crate) struct Package {
    name: &'static str,
    program: &'static str,
}

/// The packages for the checks and tests.
pub(crate) const FOR_TESTS: [Package; 7] = [
    // Unpacks the sources of core.
    Package {
        name: "xz-utils",
        program: "xz",
    },
    // A server and a client of FTP, and the NAT rule that active FTP needs.
    Package {
        name: "vsftpd",
        program: "vsftpd",
    },
    Package {
        name: "curl",
        program: "curl",
    },
    NFTABLES,
    // Routes by firewall mark.
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

/// The packages for loading programs into other kernels.
pub(crate) const FOR_KERNELS: [Package; 1] = [Package {
    name: "qemu-system-x86",
    program: "qemu-system-x86_64",
}];

/// The packages for counting instructions.
pub(crate) const FOR_COUNTING: [Package; 1] = [Package {
    name: "valgrind",
    program: "valgrind",
}];

/// The packages of the programs that `bench --http` compares Shunt with.
pub(crate) const HAPROXY: Package = Package {
    name: "haproxy",
    program: "haproxy",
};
pub(crate) const NFTABLES: Package = Package {
    name: "nftables",
    program: "nft",
};

impl Package {
    pub(crate) fn is_installed(&self) -> bool {
        process::is_installed(self.program)
    }
}

/// Installs the missing packages if the process has the rights. Otherwise it names them.
pub(crate) fn install(packages: &[Package]) -> Result<()> {
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
pub(crate) fn component(name: &str, subcommand: &str) -> Result<()> {
    if process::output(process::cargo().args([subcommand, "--version"])).is_ok() {
        return Ok(());
    }
    if !process::is_installed("rustup") {
        bail!("missing: {name}, and there is no rustup to add it");
    }
    process::run(process::command("rustup").args(["component", "add", name]))
}
