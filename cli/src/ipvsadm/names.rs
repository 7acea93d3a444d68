//! Names of hosts and ports, from the system's own sources.

use std::ffi::{CStr, CString};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use nix::sys::socket::{SockaddrLike, SockaddrStorage};
use shunt_model::Protocol;

/// Where names come from: the system, or what a test says.
pub trait Names {
    /// The first IPv4 address of a host. ipvsadm asks for no other.
    fn address(&self, host: &str) -> Option<Ipv4Addr>;
    /// The name of the host with that address.
    fn host(&self, address: IpAddr) -> Option<String>;
    /// The port of a service such as `http`.
    fn port(&self, service: &str, protocol: Protocol) -> Option<u16>;
    /// The name of the service on that port.
    fn service(&self, port: u16, protocol: Protocol) -> Option<String>;
}

/// The system's resolver: `/etc/hosts`, DNS, `/etc/services` and whatever `nsswitch.conf` says.
#[derive(Clone, Copy, Debug, Default)]
pub struct System;

impl Names for System {
    fn address(&self, host: &str) -> Option<Ipv4Addr> {
        let host = CString::new(host).ok()?;
        if host.is_empty() {
            return None;
        }
        // SAFETY: all zeroes is a valid addrinfo that asks for nothing.
        let mut wanted: libc::addrinfo = unsafe { std::mem::zeroed() };
        wanted.ai_family = libc::AF_INET;
        wanted.ai_socktype = libc::SOCK_STREAM;
        let mut found = std::ptr::null_mut();
        // SAFETY: the pointers live through the call; the service may be null.
        let status =
            unsafe { libc::getaddrinfo(host.as_ptr(), std::ptr::null(), &wanted, &mut found) };
        if status != 0 || found.is_null() {
            return None;
        }
        // SAFETY: getaddrinfo succeeded, so `found` is an entry with an IPv4 socket address,
        // because no other family was asked for; it is freed exactly once, after it was read.
        unsafe {
            let address = (*found)
                .ai_addr
                .cast::<libc::sockaddr_in>()
                .read_unaligned();
            libc::freeaddrinfo(found);
            Some(Ipv4Addr::from_bits(u32::from_be(address.sin_addr.s_addr)))
        }
    }

    fn host(&self, address: IpAddr) -> Option<String> {
        let address = SockaddrStorage::from(SocketAddr::new(address, 0));
        let mut name = [0u8; 1025];
        // SAFETY: the address is valid for its length, the buffer for its own; no service is
        // asked for, so that its buffer may be null.
        let status = unsafe {
            libc::getnameinfo(
                address.as_ptr(),
                address.len(),
                name.as_mut_ptr().cast(),
                1025,
                std::ptr::null_mut(),
                0,
                libc::NI_NAMEREQD,
            )
        };
        if status != 0 {
            return None;
        }
        let name = CStr::from_bytes_until_nul(&name).ok()?;
        Some(name.to_string_lossy().into_owned())
    }

    fn port(&self, service: &str, protocol: Protocol) -> Option<u16> {
        let service = CString::new(service).ok()?;
        // SAFETY: both are strings; the answer is libc's own memory, read before any other call
        // on this, the only thread that asks.
        unsafe {
            let found = libc::getservbyname(service.as_ptr(), lower_case(protocol).as_ptr());
            let found = found.as_ref()?;
            Some(u16::from_be(found.s_port as u16))
        }
    }

    fn service(&self, port: u16, protocol: Protocol) -> Option<String> {
        let port = libc::c_int::from(port.to_be());
        // SAFETY: as above.
        unsafe {
            let found = libc::getservbyport(port, lower_case(protocol).as_ptr());
            let found = found.as_ref()?;
            Some(CStr::from_ptr(found.s_name).to_string_lossy().into_owned())
        }
    }
}

fn lower_case(protocol: Protocol) -> &'static CStr {
    match protocol {
        Protocol::Tcp => c"tcp",
        Protocol::Udp => c"udp",
        Protocol::Sctp => c"sctp",
    }
}
