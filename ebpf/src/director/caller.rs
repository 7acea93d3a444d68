//! The programs for processes of the director itself: they rewrite the address that a process
//! connects or sends to, before the kernel makes a packet. They are attached to the machine's root
//! control group, and act only on sockets of the director's network namespace.

use aya_ebpf::Global;
use aya_ebpf::bindings::{BPF_ANY, bpf_sock_addr};
use aya_ebpf::btf_maps::LruHashMap;
use aya_ebpf::helpers::generated::{bpf_get_netns_cookie, bpf_get_socket_cookie};
use aya_ebpf::macros::btf_map;
use shunt_datapath::caller;
use shunt_datapath::family::{V4, V6};
use shunt_datapath::packet::UDP;

use crate::shell::maps::Maps;

/// The cookie of the director's network namespace.
#[unsafe(no_mangle)]
static NAMESPACE: Global<u64> = Global::new(0);

/// A socket and the server that sends to it. An IPv4 address is mapped (RFC 4291, 2.5.5.2).
#[repr(C, align(8))]
#[derive(Clone, Copy)]
pub struct Heard {
    socket: u64,
    address: [u64; 2],
    port: u32,
    reserved: u32,
}

/// The address and port that the process sent to.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
pub struct Asked {
    address: [u64; 2],
    port: u32,
    reserved: u32,
}

/// For UDP: the address from which a socket shall see the datagrams of a server.
#[btf_map]
static CALLERS: LruHashMap<Heard, Asked, 16384> = LruHashMap::new();

/// The system call goes on, rewritten or not.
const GO_ON: i32 = 1;

/// A system call's address, which the program may rewrite.
#[derive(Clone, Copy)]
struct Call(*mut bpf_sock_addr);

impl Call {
    /// Whether the socket is in the director's network namespace.
    #[inline(always)]
    fn is_ours(self) -> bool {
        // SAFETY: `self.0` is the program's own context, which the helper takes.
        unsafe { bpf_get_netns_cookie(self.0.cast()) == NAMESPACE.load() }
    }

    #[inline(always)]
    fn socket(self) -> u64 {
        // SAFETY: `self.0` is the program's own context, which the helper takes.
        unsafe { bpf_get_socket_cookie(self.0.cast()) }
    }

    #[inline(always)]
    fn protocol(self) -> u8 {
        // SAFETY: `self.0` is the program's own context. A volatile read is one load of the
        // field's own size, as the verifier demands.
        unsafe { (&raw const (*self.0).protocol).read_volatile() as u8 }
    }

    #[inline(always)]
    fn port(self) -> u16 {
        // SAFETY: `self.0` is the program's own context. A volatile read is one load of the
        // field's own size, as the verifier demands.
        unsafe { (&raw const (*self.0).user_port).read_volatile() as u16 }
    }

    #[inline(always)]
    fn set_port(self, port: u16) {
        // SAFETY: `self.0` is the program's own context. A volatile write is one store of the
        // field's own size, as the verifier demands.
        unsafe { (&raw mut (*self.0).user_port).write_volatile(port as u32) }
    }

    #[inline(always)]
    fn address4(self) -> u32 {
        // SAFETY: `self.0` is the program's own context. A volatile read is one load of the
        // field's own size, as the verifier demands.
        unsafe { (&raw const (*self.0).user_ip4).read_volatile() }
    }

    #[inline(always)]
    fn set_address4(self, address: u32) {
        // SAFETY: `self.0` is the program's own context. A volatile write is one store of the
        // field's own size, as the verifier demands.
        unsafe { (&raw mut (*self.0).user_ip4).write_volatile(address) }
    }

    #[inline(always)]
    fn address6(self) -> [u64; 2] {
        // SAFETY: `self.0` is the program's own context, and `index` is below 4, the words of
        // `user_ip6`. A volatile read is one load of one word, as the verifier demands.
        let at = |index: usize| unsafe {
            let words = (&raw const (*self.0).user_ip6).cast::<u32>();
            words.add(index).read_volatile() as u64
        };
        [at(0) | at(1) << 32, at(2) | at(3) << 32]
    }

    #[inline(always)]
    fn set_address6(self, address: [u64; 2]) {
        // SAFETY: `self.0` is the program's own context, and `index` is below 4, the words of
        // `user_ip6`. A volatile write is one store of one word, as the verifier demands.
        let put = |index: usize, word: u64| unsafe {
            let words = (&raw mut (*self.0).user_ip6).cast::<u32>();
            words.add(index).write_volatile(word as u32);
        };
        put(0, address[0]);
        put(1, address[0] >> 32);
        put(2, address[1]);
        put(3, address[1] >> 32);
    }
}

/// An IPv4 address, mapped into IPv6 (RFC 4291, 2.5.5.2).
#[inline(always)]
fn mapped(address: u32) -> [u64; 2] {
    [0, MAPPED | (address as u64) << 32]
}

/// The prefix of a mapped IPv4 address, in the second word as it lies in memory.
const MAPPED: u64 = 0xffff_0000;

#[inline(always)]
fn unmapped(address: [u64; 2]) -> Option<u32> {
    let is_mapped = address[0] == 0 && address[1] & 0xffff_ffff == MAPPED;
    is_mapped.then_some((address[1] >> 32) as u32)
}

/// Picks a server for the IPv4 address that a process asked for, and returns the server's address.
/// `None` if the process shall reach the address itself.
#[inline(always)]
fn ask4(call: Call, asked: u32) -> Option<u32> {
    let (protocol, port) = (call.protocol(), call.port());
    let (address, own) = caller::server::<V4, Maps>(&Maps, protocol, asked, port)?;
    remember(call, mapped(asked), mapped(address), own);
    call.set_port(own);
    Some(address)
}

/// Picks a server for the IPv6 address that a process asked for, and returns the server's address.
/// `None` if the process shall reach the address itself.
#[inline(always)]
fn ask6(call: Call, asked: [u64; 2]) -> Option<[u64; 2]> {
    let (protocol, port) = (call.protocol(), call.port());
    let (address, own) = caller::server::<V6, Maps>(&Maps, protocol, asked, port)?;
    remember(call, asked, address, own);
    call.set_port(own);
    Some(address)
}

/// Remembers, for UDP, the address from which the socket shall see the datagrams of a server. The
/// call must still have the port that the process asked for.
#[inline(always)]
fn remember(call: Call, asked: [u64; 2], heard: [u64; 2], port: u16) {
    if call.protocol() != UDP {
        return;
    }
    let heard = Heard {
        socket: call.socket(),
        address: heard,
        port: port as u32,
        reserved: 0,
    };
    let asked = Asked {
        address: asked,
        port: call.port() as u32,
        reserved: 0,
    };
    let _ = CALLERS.insert(&heard, &asked, BPF_ANY.into());
}

/// The address and port that the socket sent to, if datagrams of a server come from `address`.
#[inline(always)]
fn recall(call: Call, address: [u64; 2]) -> Option<Asked> {
    let heard = Heard {
        socket: call.socket(),
        address,
        port: call.port() as u32,
        reserved: 0,
    };
    // SAFETY: the value is copied at once. An entry that is replaced meanwhile may be reused, which
    // can mix two values but stays readable memory.
    unsafe { CALLERS.get(&heard) }.copied()
}

#[inline(always)]
fn asks4(context: *mut bpf_sock_addr) -> i32 {
    let call = Call(context);
    if call.is_ours()
        && let Some(address) = ask4(call, call.address4())
    {
        call.set_address4(address);
    }
    GO_ON
}

#[inline(always)]
fn asks6(context: *mut bpf_sock_addr) -> i32 {
    let call = Call(context);
    if !call.is_ours() {
        return GO_ON;
    }
    let asked = call.address6();
    let server = match unmapped(asked) {
        Some(asked) => ask4(call, asked).map(mapped),
        None => ask6(call, asked),
    };
    if let Some(address) = server {
        call.set_address6(address);
    }
    GO_ON
}

/// A process connects an IPv4 socket.
#[unsafe(no_mangle)]
#[unsafe(link_section = "cgroup/connect4")]
pub extern "C" fn caller_connect4(context: *mut bpf_sock_addr) -> i32 {
    asks4(context)
}

/// A process connects an IPv6 socket.
#[unsafe(no_mangle)]
#[unsafe(link_section = "cgroup/connect6")]
pub extern "C" fn caller_connect6(context: *mut bpf_sock_addr) -> i32 {
    asks6(context)
}

/// A process sends a datagram by an IPv4 socket that is not connected.
#[unsafe(no_mangle)]
#[unsafe(link_section = "cgroup/sendmsg4")]
pub extern "C" fn caller_sendmsg4(context: *mut bpf_sock_addr) -> i32 {
    asks4(context)
}

/// A process sends a datagram by an IPv6 socket that is not connected.
#[unsafe(no_mangle)]
#[unsafe(link_section = "cgroup/sendmsg6")]
pub extern "C" fn caller_sendmsg6(context: *mut bpf_sock_addr) -> i32 {
    asks6(context)
}

/// A process asks for the source of a datagram of an IPv4 socket.
#[unsafe(no_mangle)]
#[unsafe(link_section = "cgroup/recvmsg4")]
pub extern "C" fn caller_recvmsg4(context: *mut bpf_sock_addr) -> i32 {
    let call = Call(context);
    if call.is_ours()
        && let Some(asked) = recall(call, mapped(call.address4()))
        && let Some(address) = unmapped(asked.address)
    {
        call.set_address4(address);
        call.set_port(asked.port as u16);
    }
    GO_ON
}

/// A process asks for the source of a datagram of an IPv6 socket.
#[unsafe(no_mangle)]
#[unsafe(link_section = "cgroup/recvmsg6")]
pub extern "C" fn caller_recvmsg6(context: *mut bpf_sock_addr) -> i32 {
    let call = Call(context);
    if call.is_ours()
        && let Some(asked) = recall(call, call.address6())
    {
        call.set_address6(asked.address);
        call.set_port(asked.port as u16);
    }
    GO_ON
}
