//! Calls: templates of the SIP persistence engine ([`crate::call`]).

/// The longest Call-ID (`IP_VS_PEDATA_MAXLEN`).
pub const LONGEST: u32 = 255;
/// The Call-ID is searched in this many bytes of a datagram.
pub const TEXT: usize = 4096;

/// The key of a call. Unused bytes of the Call-ID are 0.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallKey {
    /// The client's address, masked by the granularity, wire order; IPv4 in the first four bytes.
    pub client: [u64; 2],
    /// [`crate::table::entry::Service::template`].
    pub service: u32,
    /// The length of the Call-ID in bytes.
    pub length: u32,
    /// The Call-ID.
    pub id: [u64; 32],
}
const _: () = assert!(size_of::<CallKey>() == 280);

/// The value of a call.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Call {
    /// [`crate::table::flows::value`], as in the last word of a template's entry.
    pub value: u64,
    /// The key of the call's last connection, which keeps the call alive; all 0 if the call has had
    /// no entry.
    pub connection: [u64; 4],
}
const _: () = assert!(size_of::<Call>() == 40);

/// Words of a [`Call`].
pub mod word {
    /// [`Call::value`](super::Call::value).
    pub const VALUE: usize = 0;
    /// [`Call::connection`](super::Call::connection), four words.
    pub const CONNECTION: usize = 1;
    /// Number of words.
    pub const WORDS: usize = 5;
}

/// A buffer of one CPU in which a datagram's text is searched.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug)]
pub struct Desk {
    /// The key of the datagram's call.
    pub key: CallKey,
    /// The first bytes of the datagram's payload.
    pub text: [u64; TEXT / 8],
}
const _: () = assert!(size_of::<Desk>() == desk::WORDS * 8);

/// Words of a [`Desk`].
pub mod desk {
    /// The client's address, two words.
    pub const CLIENT: usize = 0;
    /// The service in the low half, the Call-ID's length in the high half.
    pub const NAMES: usize = 2;
    /// The Call-ID, 32 words.
    pub const ID: usize = 3;
    /// The text of the datagram.
    pub const TEXT: usize = 35;
    /// Number of words.
    pub const WORDS: usize = TEXT + super::TEXT / 8;
}
