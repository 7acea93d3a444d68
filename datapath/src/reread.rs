//! A packet read anew, in functions and programs that get no more of it than its frame.

/// What is done with the packet of a frame, by the functions of its family; `$otherwise` where it
/// cannot be read. A macro, since a closure cannot be of either family.
macro_rules! reread {
    ($frame:expr, $tables:expr, |$packet:ident: $of:ident| $then:expr, $otherwise:expr) => {
        if let Some(link) = $crate::link::parse($frame) {
            if link.ethertype == $crate::link::IPV4 {
                type $of = $crate::family::V4;
                match $crate::packet::parse4($frame, link.l3) {
                    Ok($packet) => $then,
                    Err(_) => $otherwise,
                }
            } else {
                type $of = $crate::family::V6;
                match $crate::packet::parse6($frame, $tables, link.l3) {
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
