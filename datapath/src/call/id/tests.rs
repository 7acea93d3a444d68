//! Call-IDs as a kernel found them, and arbitrary text compared with a copy of the kernel's code.

use proptest::prelude::*;
use std::string::String;
use std::vec::Vec;

use super::*;
use crate::call::desk;
use crate::host::{Hook, HostFrame, HostTables, Sizes};
use crate::steps::Steps;

/// The Call-ID that is found in a text.
fn found(text: &[u8]) -> Option<Vec<u8>> {
    let tables = HostTables::new(Sizes::default());
    // Text that is left over from an earlier datagram must not matter.
    for word in &tables.calls.desk {
        word.store(
            u64::from_le_bytes(*b"\r\ni:old\n"),
            std::sync::atomic::Ordering::SeqCst,
        );
    }
    let frame = HostFrame::new(Hook::Xdp, text);
    let length = frame.identify(&&tables, 0, text.len() as u32) as usize;
    let words = (&&tables).desk().unwrap().skip(desk::ID);
    let bytes: Vec<u8> = (0..32)
        .flat_map(|at| words.load(at).to_le_bytes())
        .collect();
    assert!(
        bytes[length..].iter().all(|byte| *byte == 0),
        "zeros follow"
    );
    (length != 0).then(|| bytes[..length].to_vec())
}

fn text(found: Option<Vec<u8>>) -> Option<String> {
    found.map(|bytes| bytes.iter().map(|byte| char::from(*byte)).collect())
}

/// Each result was observed on Linux 6.1, with a datagram to a service with `--pe sip`.
#[test]
fn a_call_id_is_what_the_kernel_takes_for_one() {
    let named = |name: &str| {
        std::format!("INVITE sip:x SIP/2.0\r\nVia: y\r\n{name}one@x\r\nCSeq: 1\r\n\r\n")
    };
    for name in [
        "Call-ID: ",
        "i: ",
        "I:",
        "call-id : ",
        "Call-ID:\r\n  ",
        "CALL-ID:\t",
    ] {
        assert_eq!(
            text(found(named(name).as_bytes())).as_deref(),
            Some("one@x"),
            "{name:?}"
        );
    }
    let long = "a".repeat(255);
    let too_long = "b".repeat(256);
    let valued =
        |value: &str| std::format!("INVITE\r\nVia: y\r\nCall-ID: {value}\r\nCSeq: 1\r\n\r\n");
    for value in [long.as_str(), "noat", "<a\"b>@c", "a\"b'c"] {
        assert_eq!(
            text(found(valued(value).as_bytes())).as_deref(),
            Some(value)
        );
    }
    for value in [too_long.as_str(), "", "a@", "a b", "a@b@c", "a,b"] {
        assert_eq!(text(found(valued(value).as_bytes())), None, "{value:?}");
    }
    assert_eq!(
        found(b"INVITE\r\nCall-ID: \xe9a\r\n").as_deref(),
        Some(&b"\xe9a"[..])
    );
    for (whole, id) in [
        ("INVITE\nCall-ID: lf@x\n", Some("lf@x")),
        ("INVITE\r\n\r\nCall-ID: behind@x\r\n\r\n", Some("behind@x")),
        (
            "INVITE\n\nX: y\nCall-ID: behind@x\r\n\r\n",
            Some("behind@x"),
        ),
        ("INVITE\n\nCall-ID: behind@x\r\n\r\n", None),
        ("INVITE\r\nCall-ID: end@x", None),
        ("Call-ID: first@x\r\n\r\n", None),
        ("INVITE\r\nCall-ID: \r\nCall-ID: second@x\r\n\r\n", None),
        ("INVITE\r\nCall-IDx: a\r\nCall-ID: second@x\r\n\r\n", None),
        (
            "INVITE\r\ninfo: a\r\nCall-ID: second@x\r\n\r\n",
            Some("second@x"),
        ),
        ("", None),
    ] {
        assert_eq!(text(found(whole.as_bytes())).as_deref(), id, "{whole:?}");
    }
}

/// `get_callid` and the functions it calls, line by line (ip_vs_pe_sip.c, nf_conntrack_sip.c, Linux
/// 6.1).
fn as_the_kernel(text: &[u8]) -> Option<Vec<u8>> {
    let mut from = 0;
    let (at, length) = loop {
        match header(text, from) {
            Header::Found(at, length) => break (at, length),
            Header::None => return None,
            Header::Empty(at) => from += at,
        }
    };
    let behind = text.get(at + length)?;
    (length <= 255 && [b'\r', b'\n'].contains(behind)).then(|| text[at..at + length].to_vec())
}

enum Header {
    Found(usize, usize),
    Empty(usize),
    None,
}

fn header(text: &[u8], from: usize) -> Header {
    let mut at = from;
    while at < text.len() {
        let byte = text[at];
        at += 1;
        if byte != b'\r' && byte != b'\n' {
            continue;
        }
        if byte == b'\r' && text.get(at) == Some(&b'\n') {
            at += 1;
        }
        if at >= text.len() {
            break;
        }
        let rest = &text[at..];
        if is_blank(rest[0].into()) {
            at += 1;
            continue;
        }
        if rest.len() >= 7 && rest[..7].eq_ignore_ascii_case(b"call-id") {
            at += 7;
        } else if rest.len() >= 2
            && rest[0].eq_ignore_ascii_case(&b'i')
            && !is_letter(rest[1].into())
        {
            at += 1;
        } else {
            at += 1;
            continue;
        }
        let Some(colon) = skip(text, at) else { break };
        if text.get(colon) != Some(&b':') || colon + 1 >= text.len() {
            break;
        }
        let Some(value) = skip(text, colon + 1) else {
            break;
        };
        let word = |from: usize| {
            text[from..]
                .iter()
                .take_while(|byte| is_word(u64::from(**byte)))
                .count()
        };
        let mut length = word(value);
        if length != 0 && text.get(value + length) == Some(&b'@') {
            let domain = word(value + length + 1);
            length = if domain == 0 { 0 } else { length + 1 + domain };
        }
        return if length == 0 {
            Header::Empty(value)
        } else {
            Header::Found(value, length)
        };
    }
    Header::None
}

/// `sip_skip_whitespace`.
fn skip(text: &[u8], mut at: usize) -> Option<usize> {
    let blanks = |mut at: usize| {
        while at < text.len() && is_blank(text[at].into()) {
            at += 1;
        }
        at
    };
    at = blanks(at);
    if at >= text.len() || (text[at] != b'\r' && text[at] != b'\n') {
        return Some(at);
    }
    let byte = text[at];
    at += 1;
    if byte == b'\r' && text.get(at) == Some(&b'\n') {
        at += 1;
    }
    is_blank((*text.get(at)?).into()).then(|| blanks(at))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn any_text_is_read_as_the_kernel_reads_it(
        pieces in prop::collection::vec(prop::sample::select(std::vec![
            "\r\n", "\r\n", "\n", "\r", "call-id", "Call-ID", "CALL-ID:", "i", "I:", "c", "ca", ":", ": ",
            " ", "\t", "a", "one", "@", "x", "one@x", "a@", ",", "Via: y", "\r\nCall-ID: ", "\r\ni: ",
            "\r\nCall-ID: a@\r\n", "\r\ni:\r\n x", "\u{e9}", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        ]), 0..24)
    ) {
        let text: Vec<u8> = pieces.concat().bytes().collect();

        prop_assert_eq!(found(&text), as_the_kernel(&text));
    }
}
