//! Bits that bring settings to the walk: of the director, of a service, of a server.

/// Bits of [`super::entry::Service::switches`]. Only packets that may open a connection read them.
pub mod service_switch {
    /// Any segment opens a TCP connection (`sloppy_tcp`).
    pub const SLOPPY_TCP: u32 = 1;
    /// Any chunk opens an SCTP association (`sloppy_sctp`).
    pub const SLOPPY_SCTP: u32 = 2;
    /// ICMP errors about answers of unknown connections are scheduled (`schedule_icmp`).
    pub const SCHEDULE_ICMP: u32 = 4;
    /// A packet that no server can take goes by the kernel's routes (`cache_bypass`).
    pub const BYPASS: u32 = 8;
    /// The pool has the director itself and servers by direct routing, which may be directors too.
    pub const PEERS: u32 = 16;
}

/// Bits of [`super::entry::Server::fate`]: what becomes of the connections of a server. They lie
/// with the server, not with the service, since the walk reads the server anyway.
pub mod fate {
    /// A SYN of an existing connection opens another one.
    pub const LEFT_BY_SYN: u16 = 1;
    /// The server is gone and its connections have ended: their packets are those of unknown
    /// connections.
    pub const RESCHEDULED: u16 = 2;
    /// The server is gone: whoever sends to it gets a TCP reset or an ICMP error.
    pub const RESET: u16 = 4;
    /// A template for this server is not used: the client's next connection is scheduled again.
    pub const LEFT_BY_TEMPLATES: u16 = 8;
    /// [`RESCHEDULED`] and [`RESET`] hold for UDP only.
    pub const UDP_ONLY: u16 = 16;
    /// A SYN of a connection in TIME_WAIT or CLOSE opens another one.
    pub const REUSED: u16 = 32;
    /// A SYN of a connection in FIN_WAIT whose answers do not pass the director opens another one.
    pub const REUSED_FIN_WAIT: u16 = 64;
    /// The server is gone: a SYN opens another connection, whatever the state of this one.
    pub const OPENED_ANEW: u16 = 128;
    /// The server is gone and its connections have ended.
    pub const ENDED: u16 = RESCHEDULED | RESET;
}

/// Bits of [`super::entry::Settings::switches`].
pub mod switch {
    /// A masqueraded server whose packet belongs to no connection gets an ICMP error
    /// (`nat_icmp_send`).
    pub const NAT_ICMP_SEND: u32 = 1;
    /// The states of TCP are those of `secure_tcp`.
    pub const SECURE_TCP: u32 = 2;
}

/// Bits of [`super::entry::Settings::masquerades`].
pub mod nat {
    /// A service masquerades.
    pub const MASQUERADES: u32 = 1;
    /// Some answers of masqueraded servers belong to translated flows.
    pub const TRANSLATES: u32 = 2;
    /// A service that masquerades has calls, which its servers may begin.
    pub const CALLS: u32 = 4;
    /// A masqueraded server is the director itself, so answers are looked for among outgoing
    /// packets.
    pub const HERE: u32 = 8;
}
