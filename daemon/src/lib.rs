//! The shell of control: sockets, netlink, tables, the API. It touches the system and decides
//! nothing.

pub mod netlink;
