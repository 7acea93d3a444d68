//! Parses a packet again, in functions and programs of the kernel that receive only its frame.

/// Runs `$then` with the packet of a frame, for the packet's family. Gives `$otherwise` if the
/// frame cannot be parsed. A macro, since no closure takes packets of both families.
macro_rules! reread {
    ($frame:expr, $tables:expr, |$packet:ident: $of:ident| $then:expr, $otherwise:expr) => {
        if let Some(link) = $crate::wire::link::parse($frame) {
            if link.ethertype == $crate::wire::link::IPV4 {
                type $of = $crate::table::family::V4;
                match $crate::wire::packet::parse4($frame, link.l3) {
                    Ok($packet) => $then,
                    Err(_) => $otherwise,
                }
            } else {
                type $of = $crate::table::family::V6;
                match $crate::wire::packet::parse6($frame, $tables, link.l3) {
                    Ok($packet) => $then,
                    Err(_) => $otherwise,
                }
            }
        } else {
            $otherwise
        }
    };
}

pub(crate) use reread;
