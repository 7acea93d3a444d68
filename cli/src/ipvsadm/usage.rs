//! `ipvsadm -h` and `-v`, in the original's words.

use std::io::{self, Write};

/// The version that scripts look for: the one whose behaviour this is.
const VERSION: &str = "ipvsadm v1.31 2019/12/24 (compiled with popt and IPVS v1.2.1)";

/// `PROGRAM` stands for the name the program was called by.
const USAGE: &str = include_str!("usage.txt");

pub(super) fn write_version(out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "{VERSION}")
}

pub(super) fn write_usage(out: &mut dyn Write, program: &str) -> io::Result<()> {
    write_version(out)?;
    out.write_all(USAGE.replace("PROGRAM", program).as_bytes())
}
