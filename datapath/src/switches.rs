//! The bits by which settings reach the walk: of the director, of a service, of a server.

/// Bits of [`crate::entry::Service::switches`]: what only packets that open something ask for.
pub mod service_switch {
    /// Any segment opens a TCP connection.
    pub const SLOPPY_TCP: u32 = 1;
    /// Any chunk opens an SCTP association.
    pub const SLOPPY_SCTP: u32 = 2;
    /// ICMP to the virtual address is scheduled.
    pub const SCHEDULE_ICMP: u32 = 4;
    /// What no server can take is left to the kernel's routes.
    pub const BYPASS: u32 = 8;
    /// The director itself is a server beside others by route: these may be directors too.
    pub const PEERS: u32 = 16;
}

/// Bits of [`crate::entry::Server::fate`]: what becomes of the connections of a server. Here, and
/// not with the service, so that the walk finds it where it looks anyway.
pub mod fate {
    /// A SYN of a connection that it has begins another one.
    pub const LEFT_BY_SYN: u16 = 1;
    /// It is gone, and so are its connections: their next packet is as if they were not.
    pub const RESCHEDULED: u16 = 2;
    /// It is gone, and who sends it something is told so.
    pub const RESET: u16 = 4;
    /// New connections of clients with a template leave it.
    pub const LEFT_BY_TEMPLATES: u16 = 8;
    /// With one of these: only UDP's.
    pub const UDP_ONLY: u16 = 16;
    /// A SYN begins a connection in TIME_WAIT or CLOSE anew.
    pub const REUSED: u16 = 32;
    /// One in FIN_WAIT too whose answers take another way.
    pub const REUSED_FIN_WAIT: u16 = 64;
    /// It is gone: a SYN begins another connection, whatever it has of this one.
    pub const OPENED_ANEW: u16 = 128;
    /// Of a server that is gone: its connections are no more.
    pub const ENDED: u16 = RESCHEDULED | RESET;
}

/// Bits of [`crate::entry::Settings::switches`].
pub mod switch {
    /// A masqueraded server whose packets belong to no connection is told so.
    pub const NAT_ICMP_SEND: u32 = 1;
    /// The states of TCP are those of `secure_tcp`.
    pub const SECURE_TCP: u32 = 2;
}

/// Bits of [`crate::entry::Settings::masquerades`].
pub mod nat {
    /// A service uses NAT.
    pub const MASQUERADES: u32 = 1;
    /// And some of its answers belong to translated flows.
    pub const TRANSLATES: u32 = 2;
    /// And a service with NAT has calls, which its servers may begin.
    pub const CALLS: u32 = 4;
    /// And a server with NAT is the director itself, so that answers are looked for on the way out.
    pub const HERE: u32 = 8;
}
