//! Blanks the options by which a client would name another one to a server of full NAT.
//!
//! A server behind full NAT believes the SYN of a director ([`crate::wire::toa`]). So no SYN
//! reaches it with an option of this kind that is not the director's own, whether the service
//! announces its clients or not.

use crate::clamp::{END, NOTHING};
use crate::reread::reread;
use crate::table::Tables;
use crate::verdict::{Drop, Word};
use crate::wire::checksum;
use crate::wire::frame::{Frame, Transport};
use crate::wire::packet::{TCP, checksum_at};
use crate::wire::toa::KIND;

/// The kind that the TOA of FullNAT (LVS) has in place of [`KIND`].
const OTHER_KIND: u8 = 200;

/// RFC 9293, 3.1: the header without options.
const FIXED: usize = 20;

/// Overwrites each option that names a client by no-operations (RFC 9293, 3.2) in a SYN that has
/// not been rewritten yet. The frame is read anew: in the kernel this is a separate function.
#[inline(always)]
pub fn disown<P: Frame, T: Tables>(frame: &mut P, tables: &T) -> Word {
    let header = reread!(
        frame,
        tables,
        |packet: F| (packet.protocol == TCP).then_some((packet.l4, checksum_at::<F>(&packet))),
        None
    );
    match header.and_then(|(l4, checksum)| blank(frame, tables, l4, checksum)) {
        Some(()) => Word::server(1),
        None => Word::drop(Drop::NoRoom),
    }
}

#[inline(always)]
fn blank<P: Frame, T: Tables>(
    frame: &mut P,
    tables: &T,
    l4: usize,
    checksum: Transport,
) -> Option<()> {
    let header = ((frame.view::<FIXED>(l4)?.u8::<12>() >> 4) as usize) << 2;
    let bytes = header.saturating_sub(FIXED);
    let first = l4.wrapping_add(FIXED);
    let mut options = Options::default();
    // A loop of the kernel: unrolled, Linux 6.12 needs 630,000 verified instructions for it.
    tables.repeat(bytes as u32, |index| {
        let index = index as usize;
        // The mask is the verifier's, and above every header that is parsed.
        let at = tables.blur(first.wrapping_add(index)) & 0x3ff;
        let room = bytes.wrapping_sub(index);
        let done = options.step(frame, at, room, index & 1 != 0);
        options.read = options.read.wrapping_add(done.is_some() as usize);
        done.is_some()
    });
    if options.sum != 0 {
        frame.carry(checksum, 0, options.sum);
    }
    (options.read == bytes).then_some(())
}

/// The options so far.
#[derive(Clone, Copy, Debug, Default)]
struct Options {
    /// How many bytes were read.
    read: usize,
    /// How many bytes of the last option follow.
    left: usize,
    /// Whether the last option names a client.
    names: bool,
    /// What the blanks change in the checksum.
    sum: u32,
}

impl Options {
    /// Goes on with the byte at `at`, the first of `room`. An `odd` byte is the second half of its
    /// word of the checksum.
    #[inline(always)]
    fn step<P: Frame>(&mut self, frame: &mut P, at: usize, room: usize, odd: bool) -> Option<()> {
        let kind = frame.view::<1>(at)?.u8::<0>();
        if self.left == 0 {
            self.names = kind == KIND || kind == OTHER_KIND;
            self.left = length::<P>(frame, at, kind, room)?;
        }
        self.left = self.left.wrapping_sub(1);
        if self.names {
            frame.edit::<1>(at)?.set_u8::<0>(NOTHING);
            let change = checksum::change_u16(kind as u16, NOTHING as u16);
            let change = if odd { change << 8 } else { change };
            self.sum = checksum::add(self.sum, change);
        }
        Some(())
    }
}

/// Bytes of the option that begins here, of at most `room`. Nothing behind the end of the list, or
/// behind an option without a length, is one.
#[inline(always)]
fn length<P: Frame>(frame: &P, at: usize, kind: u8, room: usize) -> Option<usize> {
    if kind == NOTHING {
        return Some(1);
    }
    if kind == END || room < 2 {
        return Some(room);
    }
    let length = frame.view::<2>(at)?.u8::<1>() as usize;
    Some(if length < 2 { room } else { length })
}
