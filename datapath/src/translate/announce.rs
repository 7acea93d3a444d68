//! Tells a server of full NAT who the client is: its address and port in an option of the SYN.
//!
//! ```text
//! +--------+--------+--------+--------+--------+--------+--------+--------+
//! |  254   |   8    |      port       |         IPv4 address              |
//! +--------+--------+--------+--------+--------+--------+--------+--------+
//! |  254   |   20   |      port       |         IPv6 address, 16 bytes    |
//! +--------+--------+--------+--------+--------+--------+--------+--------+
//! ```
//! The TOA modules of other directors read this option (kind 254 is for experiments, RFC 3692). It
//! comes before all other options, so that an option which the client sent is not believed. A SYN
//! with data, or without room for the option, is dropped: its sender retransmits without data.

use crate::reread::reread;
use crate::table::Tables;
use crate::table::family::Family;
use crate::verdict::{Drop, Word};
use crate::wire::checksum;
use crate::wire::frame::Frame;
use crate::wire::packet::{Packet, TCP, checksum_at};
use crate::wire::toa::KIND;

/// The longest TCP header (RFC 9293, 3.1).
const LONGEST: u32 = 60;

/// Inserts the option into a client's SYN, which is not rewritten yet. Parses the frame again: in
/// the kernel this is a separate function.
#[inline(always)]
pub fn announce<P: Frame, T: Tables>(frame: &mut P, tables: &T) -> Word {
    let done = reread!(
        frame,
        tables,
        |packet: F| insert::<F, P, T>(frame, tables, &packet),
        None
    );
    match done {
        Some(()) => Word::server(1),
        None => Word::drop(Drop::NoRoom),
    }
}

#[inline(always)]
fn insert<F: Family, P: Frame, T: Tables>(
    frame: &mut P,
    tables: &T,
    packet: &Packet<F>,
) -> Option<()> {
    const BYTES4: usize = 8;
    const BYTES6: usize = 20;
    let bytes = if F::V6 { BYTES6 } else { BYTES4 };
    let tcp = frame.view::<20>(packet.l4)?;
    let (port, offset) = (tcp.u16::<0>(), tcp.u16::<12>());
    let header = (offset as u32 >> 4 & 15) << 2;
    let network = (packet.l4 as u32).wrapping_sub(packet.l3 as u32);
    if packet.protocol != TCP
        || header.wrapping_add(bytes as u32) > LONGEST
        || network.wrapping_add(header) != packet.length
    {
        return None;
    }
    let end = packet.l3.wrapping_add(packet.length as usize);
    if !frame.extend(end.wrapping_add(bytes)) {
        return None;
    }
    // The offset is bounded again: the verifier knows nothing of a frame whose length has changed.
    let l3 = packet.l3;
    let l4 = l3.wrapping_add(tables.blur(network as usize) & 0x1ff);
    move_options::<P>(frame, l4, header, bytes)?;
    let own = write::<F, P>(frame, l4, packet.source, port)?;
    let longer = offset.wrapping_add((bytes as u16 >> 2) << 4);
    frame.edit::<20>(l4)?.set_u16::<12>(longer);
    let before = packet.length;
    let after = before.wrapping_add(bytes as u32);
    // The pseudo-header has the length of the TCP segment, which grows as the packet does.
    let grown = checksum::change_u16((before as u16).to_be(), (after as u16).to_be());
    let placed = Packet { l3, l4, ..*packet };
    frame.carry(
        checksum_at(&placed),
        grown,
        checksum::add(own, checksum::change_u16(offset, longer)),
    );
    length::<F, P>(frame, l3, after, grown)
}

/// Moves the present options behind the place of the new one: word by word from the last, since
/// both places overlap.
#[inline(always)]
fn move_options<P: Frame>(frame: &mut P, l4: usize, header: u32, bytes: usize) -> Option<()> {
    macro_rules! word {
        ($number:expr) => {{
            const AT: usize = 20 + 4 * $number;
            if header > AT as u32 {
                let from = l4.wrapping_add(AT);
                let word = frame.view::<4>(from)?.u32::<0>();
                frame
                    .edit::<4>(from.wrapping_add(bytes))?
                    .set_u32::<0>(word);
            }
        }};
    }
    word!(9);
    word!(8);
    word!(7);
    word!(6);
    word!(5);
    word!(4);
    word!(3);
    word!(2);
    word!(1);
    word!(0);
    Some(())
}

/// Writes the option; returns its sum for the checksum.
#[inline(always)]
fn write<F: Family, P: Frame>(
    frame: &mut P,
    l4: usize,
    client: F::Address,
    port: u16,
) -> Option<u32> {
    let [a, b] = F::words(client);
    let length = if F::V6 { 20u16 } else { 8 };
    let head = KIND as u32 | (length as u32) << 8 | (port as u32) << 16;
    if F::V6 {
        let mut option = frame.edit::<40>(l4)?;
        option.set_u32::<20>(head);
        option.set_u64::<24>(a);
        option.set_u64::<32>(b);
    } else {
        let mut option = frame.edit::<28>(l4)?;
        option.set_u32::<20>(head);
        option.set_u32::<24>(a as u32);
    }
    Some(checksum::add(head, F::sum(client)))
}

/// Writes the packet's length into its network header. `grown` is what it adds to the checksum.
#[inline(always)]
pub fn length<F: Family, P: Frame>(
    frame: &mut P,
    l3: usize,
    length: u32,
    grown: u32,
) -> Option<()> {
    if F::V6 {
        let payload = (length as u16).wrapping_sub(40);
        frame.edit::<8>(l3)?.set_u16::<4>(payload.to_be());
    } else {
        let mut ip = frame.edit::<20>(l3)?;
        let sum = checksum::update(ip.view().u16::<10>(), grown);
        ip.set_u16::<2>((length as u16).to_be());
        ip.set_u16::<10>(sum);
    }
    Some(())
}
