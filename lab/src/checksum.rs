//! Checks the checksums of a captured frame, independently of the packet path's code.

use anyhow::{Context, Result, bail, ensure};

const ICMP: u8 = 1;
const IPIP: u8 = 4;
const TCP: u8 = 6;
const UDP: u8 = 17;
const IPV6: u8 = 41;
const ICMP6: u8 = 58;
const FRAGMENT: u8 = 44;
/// The extension headers that are skipped: hop-by-hop options, routing, destination options.
const EXTENSIONS: [u8; 3] = [0, 43, 60];
/// The deepest nesting of tunnels.
const DEPTH: u8 = 4;

/// Checks the checksums of IPv4, TCP, UDP, ICMP and ICMPv6 in an Ethernet frame, through VLAN tags
/// and IP in IP. The error names the wrong one. Of a later fragment only the IPv4 header is
/// checked.
pub fn verify_checksums(frame: &[u8]) -> Result<()> {
    let mut at = 12;
    let mut kind = word(frame, at)?;
    while kind == 0x8100 || kind == 0x88a8 {
        at += 4;
        kind = word(frame, at)?;
    }
    let packet = frame.get(at + 2..).unwrap_or_default();
    match kind {
        0x0800 => ipv4(packet, DEPTH),
        0x86dd => ipv6(packet, DEPTH),
        _ => Ok(()),
    }
}

fn ipv4(packet: &[u8], depth: u8) -> Result<()> {
    let header_bytes = usize::from(byte(packet, 0)? & 0x0f) * 4;
    ensure!(header_bytes >= 20, "IPv4 header of {header_bytes} bytes");
    let header = packet
        .get(..header_bytes)
        .context("IPv4 header cut short")?;
    ensure!(folded(&[header]) == 0xffff, "IPv4 header checksum is wrong");
    let total = usize::from(word(packet, 2)?);
    let payload = packet
        .get(header_bytes..total)
        .context("IPv4 packet cut short")?;
    let fragment = word(packet, 6)?;
    if fragment & 0x3fff != 0 {
        return Ok(());
    }
    let protocol = byte(packet, 9)?;
    let length = u32::try_from(payload.len())?.to_be_bytes();
    let pseudo = [&header[12..20], &[0, 0, 0, protocol][..], &length[..]];
    transport(protocol, payload, pseudo, true, depth)
}

fn ipv6(packet: &[u8], depth: u8) -> Result<()> {
    let header = packet.get(..40).context("IPv6 header cut short")?;
    let end = 40 + usize::from(word(packet, 4)?);
    let mut at = 40;
    let mut protocol = byte(packet, 6)?;
    while EXTENSIONS.contains(&protocol) {
        protocol = byte(packet, at)?;
        at += 8 + usize::from(byte(packet, at + 1)?) * 8;
    }
    if protocol == FRAGMENT {
        return Ok(());
    }
    let payload = packet.get(at..end).context("IPv6 packet cut short")?;
    let length = u32::try_from(payload.len())?.to_be_bytes();
    let pseudo = [&header[8..40], &[0, 0, 0, protocol][..], &length[..]];
    transport(protocol, payload, pseudo, false, depth)
}

fn transport(protocol: u8, payload: &[u8], pseudo: [&[u8]; 3], v4: bool, depth: u8) -> Result<()> {
    let [addresses, next, length] = pseudo;
    let with_pseudo = || folded(&[addresses, next, length, payload]) == 0xffff;
    match protocol {
        TCP => ensure!(with_pseudo(), "TCP checksum is wrong"),
        // RFC 768: zero means that the sender computed none. RFC 8200, 8.1: not allowed with IPv6.
        UDP if v4 && word(payload, 6)? == 0 => {}
        UDP => ensure!(
            word(payload, 6)? != 0 && with_pseudo(),
            "UDP checksum is wrong"
        ),
        ICMP => ensure!(folded(&[payload]) == 0xffff, "ICMP checksum is wrong"),
        ICMP6 => ensure!(with_pseudo(), "ICMPv6 checksum is wrong"),
        IPIP | IPV6 if depth == 0 => bail!("more than {DEPTH} tunnels in one another"),
        IPIP => ipv4(payload, depth - 1).context("inside the tunnel")?,
        IPV6 => ipv6(payload, depth - 1).context("inside the tunnel")?,
        _ => {}
    }
    Ok(())
}

/// RFC 1071: the ones' complement sum of 16-bit words. All pieces but the last must have an even
/// length.
fn folded(pieces: &[&[u8]]) -> u16 {
    let mut sum: u64 = 0;
    for piece in pieces {
        for pair in piece.chunks(2) {
            let high = pair.first().copied().unwrap_or(0);
            let low = pair.get(1).copied().unwrap_or(0);
            sum += u64::from(u16::from_be_bytes([high, low]));
        }
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

fn byte(bytes: &[u8], at: usize) -> Result<u8> {
    bytes.get(at).copied().context("frame cut short")
}

fn word(bytes: &[u8], at: usize) -> Result<u16> {
    Ok(u16::from_be_bytes([byte(bytes, at)?, byte(bytes, at + 1)?]))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A UDP datagram "hi" from 198.51.100.11:1000 to 192.0.2.1:53.
    fn datagram() -> Vec<u8> {
        let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x08, 0x00];
        frame.extend([
            0x45, 0, 0, 30, 0, 1, 0x40, 0, 64, 17, 0, 0, 198, 51, 100, 11, 192, 0, 2, 1,
        ]);
        frame.extend([0x03, 0xe8, 0, 53, 0, 10, 0, 0, b'h', b'i']);
        let header = !folded(&[&frame[14..34]]);
        frame[24..26].copy_from_slice(&header.to_be_bytes());
        let udp = !folded(&[&frame[26..34], &[0, 17, 0, 10], &frame[34..]]);
        frame[40..42].copy_from_slice(&udp.to_be_bytes());
        frame
    }

    #[test]
    fn a_whole_frame_passes_and_any_changed_byte_is_found() {
        let frame = datagram();
        verify_checksums(&frame).unwrap();
        for at in 22..frame.len() {
            let mut changed = frame.clone();
            changed[at] ^= 0x10;
            assert!(verify_checksums(&changed).is_err(), "byte {at}");
        }
    }

    #[test]
    fn a_vlan_tag_is_stepped_over() {
        let mut frame = datagram();
        frame.splice(12..12, [0x81, 0x00, 0x00, 0x07]);
        verify_checksums(&frame).unwrap();
        frame[46] ^= 1;
        assert!(verify_checksums(&frame).is_err());
    }

    #[test]
    fn no_frame_however_short_is_read_beyond_its_end() {
        let frame = datagram();
        for length in 0..frame.len() {
            assert!(
                verify_checksums(&frame[..length]).is_err(),
                "{length} bytes"
            );
        }
    }
}
