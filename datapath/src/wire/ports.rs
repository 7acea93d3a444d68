//! Ports and flags of a transport header.

/// The fields of the transport header that the walk needs. Ports in wire order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ports {
    /// The source port.
    pub source: u16,
    /// The destination port.
    pub target: u16,
    /// TCP flags; 0 for UDP; for SCTP the event of its chunks ([`super::sctp::flags`]).
    pub flags: u8,
}

impl Ports {
    /// The ports in a word that [`Ports::both`] made, without flags.
    #[inline(always)]
    #[must_use]
    pub fn of(both: u32) -> Self {
        Self {
            source: both as u16,
            target: (both >> 16) as u16,
            flags: 0,
        }
    }

    /// Both ports in a word, the source in the low half.
    #[inline(always)]
    #[must_use]
    pub fn both(&self) -> u32 {
        self.source as u32 | (self.target as u32) << 16
    }
}

/// TCP flags as they lie in the header's 14th byte (RFC 9293, 3.1).
pub mod flag {
    /// No more data follows.
    pub const FIN: u8 = 0x01;
    /// Opens a connection.
    pub const SYN: u8 = 0x02;
    /// Resets a connection.
    pub const RST: u8 = 0x04;
    /// The acknowledgement number holds.
    pub const ACK: u8 = 0x10;
}
