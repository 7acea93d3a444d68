//! States of an SCTP association as a director sees them; [`crate::wire::sctp`] has the events.
//!
//! The tables are the kernel's `sctp_states` and `sctp_events`
//! (net/netfilter/ipvs/ip_vs_proto_sctp.c, Linux 6.1), row for row. The states are the server's.

use super::{Direction, State};

/// The client has sent its first INIT.
pub const INIT1: State = 17;
/// The client has repeated its INIT.
pub const INIT: State = 18;
/// The server has sent INIT ACK.
pub const COOKIE_SENT: State = 19;
/// The client has sent COOKIE ECHO.
pub const COOKIE_REPLIED: State = 20;
/// The server has sent an INIT of its own.
pub const COOKIE_WAIT: State = 21;
/// The client has answered the server's INIT with INIT ACK.
pub const COOKIE: State = 22;
/// The server has sent COOKIE ECHO.
pub const COOKIE_ECHOED: State = 23;
/// The association is open.
pub const ESTABLISHED: State = 24;
/// The server has sent SHUTDOWN.
pub const SHUTDOWN_SENT: State = 25;
/// The client has sent SHUTDOWN.
pub const SHUTDOWN_RECEIVED: State = 26;
/// The server has sent SHUTDOWN ACK.
pub const SHUTDOWN_ACK_SENT: State = 27;
/// The server has answered an INIT with ABORT.
pub const REJECTED: State = 28;
/// The association has ended.
pub const CLOSED: State = 29;

/// `IP_VS_SCTP_S_NONE`: no chunk was seen. Only an entry that an ICMP error opened has it.
pub const NONE: State = 16;
/// `IP_VS_SCTP_S_LAST`.
const STATES: usize = 14;

/// Seconds that an entry lives in each of [`INIT1`] to [`CLOSED`]: `sctp_timeouts` of the kernel.
pub const TIMEOUTS_S: [u32; 13] = [4, 61, 61, 61, 61, 61, 61, 900, 61, 61, 61, 4, 61];

/// The states in which an entry may be displaced, a bit each: the server has not accepted the
/// association, or it has ended.
pub const YIELDING: u32 = 1 << INIT1
    | 1 << INIT
    | 1 << COOKIE_SENT
    | 1 << COOKIE_REPLIED
    | 1 << COOKIE_WAIT
    | 1 << COOKIE
    | 1 << COOKIE_ECHOED
    | 1 << REJECTED
    | 1 << CLOSED;

/// The number of rows: one for each value of four bits. The verifier of Linux 6.1 takes a mask for
/// a bound, and forgets a comparison. No packet has an event above ABORT.
const EVENTS: usize = 16;

/// Packs a row of the kernel's table: the next state from each state, four bits each, the first
/// state lowest.
const fn row(next: [u64; STATES]) -> u64 {
    let mut packed = 0;
    let mut at = 0;
    while at < STATES {
        // Evaluated at compile time: an overflow does not compile.
        #[allow(clippy::indexing_slicing, clippy::arithmetic_side_effects)]
        {
            packed |= next[at] << (at * 4);
            at += 1;
        }
    }
    packed
}

/// The states by the kernel's numbers and short names.
#[rustfmt::skip]
mod letters {
    pub const I1: u64 = 1;
    pub const IN: u64 = 2;
    pub const CS: u64 = 3;
    pub const CR: u64 = 4;
    pub const CW: u64 = 5;
    pub const CO: u64 = 6;
    pub const CE: u64 = 7;
    pub const ES: u64 = 8;
    pub const SS: u64 = 9;
    pub const SR: u64 = 10;
    pub const SA: u64 = 11;
    pub const RJ: u64 = 12;
    pub const CL: u64 = 13;
}
use letters::*;

// From:  NO  I1  IN  CS  CR  CW  CO  CE  ES  SS  SR  SA  RJ  CL
#[rustfmt::skip]
const INPUT: [u64; EVENTS] = [
    row([ES, I1, IN, CS, CR, CW, CO, CE, ES, SS, SR, SA, RJ, CL]),
    row([I1, IN, IN, CS, CR, CW, CO, CE, ES, SS, SR, SA, IN, IN]),
    row([CW, CW, CW, CS, CR, CO, CO, CE, ES, SS, SR, SA, RJ, CL]),
    row([CR, IN, IN, CR, CR, CW, CO, CE, ES, SS, SR, SA, RJ, CL]),
    row([ES, I1, IN, CS, CR, CW, CO, ES, ES, SS, SR, SA, RJ, CL]),
    row([SR, I1, IN, CS, CR, CW, CO, CE, SR, SS, SR, SA, RJ, CL]),
    row([CL, IN, IN, CS, CR, CW, CO, CE, ES, CL, SR, CL, RJ, CL]),
    row([CL, CL, CL, CS, CR, CW, CO, CE, ES, SS, SR, CL, RJ, CL]),
    row([CL, I1, IN, CS, CR, CW, CO, CL, ES, SS, SR, SA, RJ, CL]),
    row([CL, CL, CL, CL, CL, RJ, CL, CL, CL, CL, CL, CL, CL, CL]),
    0, 0, 0, 0, 0, 0,
];

#[rustfmt::skip]
const OUTPUT: [u64; EVENTS] = [
    row([ES, I1, IN, CS, CR, CW, CO, CE, ES, SS, SR, SA, RJ, CL]),
    row([CW, CW, CW, CW, CW, CW, CW, CW, ES, CW, CW, CW, CW, CW]),
    row([CS, CS, CS, CS, CR, CW, CO, CE, ES, SS, SR, SA, RJ, CL]),
    row([CE, CE, CE, CE, CE, CE, CE, CE, ES, SS, SR, SA, RJ, CL]),
    row([ES, ES, ES, ES, ES, ES, ES, ES, ES, SS, SR, SA, RJ, CL]),
    row([SS, SS, SS, SS, SS, SS, SS, SS, SS, SS, SR, SA, RJ, CL]),
    row([SA, SA, SA, SA, SA, CW, CO, CE, ES, SA, SA, SA, RJ, CL]),
    row([CL, I1, IN, CS, CR, CW, CO, CE, ES, SS, SR, SA, RJ, CL]),
    row([CL, CL, CL, CL, CL, CW, CO, CE, ES, SS, SR, SA, RJ, CL]),
    row([CL, RJ, CL, CL, CL, CL, CL, CL, CL, CL, CL, CL, CL, CL]),
    0, 0, 0, 0, 0, 0,
];

#[rustfmt::skip]
const INPUT_ONLY: [u64; EVENTS] = [
    row([ES, I1, IN, CS, CR, ES, CO, CE, ES, SS, SR, SA, RJ, CL]),
    row([I1, IN, IN, IN, IN, IN, CO, CE, ES, SS, SR, SA, IN, IN]),
    row([CE, CE, CE, CE, CE, CE, CO, CE, ES, SS, SR, SA, RJ, CL]),
    row([ES, ES, ES, ES, ES, ES, CO, CE, ES, SS, SR, SA, RJ, CL]),
    row([ES, I1, IN, ES, ES, CW, ES, ES, ES, SS, SR, SA, RJ, CL]),
    row([SR, I1, IN, CS, CR, CW, CO, CE, SR, SS, SR, SA, RJ, CL]),
    row([CL, IN, IN, CS, CR, CW, CO, CE, CL, CL, SR, CL, RJ, CL]),
    row([CL, CL, CL, CL, CL, CW, CO, CE, ES, SS, CL, CL, RJ, CL]),
    row([CL, I1, IN, CS, CR, CW, CO, CE, ES, SS, SR, SA, RJ, CL]),
    row([CL, CL, CL, CL, CL, RJ, CL, CL, CL, CL, CL, CL, CL, CL]),
    0, 0, 0, 0, 0, 0,
];

/// The next state of an association. `direction` is a [`Direction`] as a number. In the kernel this
/// is a separate function ([`crate::steps::Choices::association_next`]).
#[inline(always)]
#[must_use]
pub fn next(state: State, direction: u32, flags: u32) -> State {
    let rows = match direction {
        INPUT_WAY => &INPUT,
        OUTPUT_WAY => &OUTPUT,
        _ => &INPUT_ONLY,
    };
    let row = rows.get((flags >> 4 & 15) as usize).copied().unwrap_or(0);
    let next = row >> (state.wrapping_sub(NONE) & 15).wrapping_mul(4) & 15;
    NONE.wrapping_add(next as State)
}

const INPUT_WAY: u32 = Direction::Input as u32;
const OUTPUT_WAY: u32 = Direction::Output as u32;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connection::{TIMEOUTS_S as ALL, is_active, may_give_way};
    use crate::wire::ports::flag;
    use crate::wire::sctp::flags;

    const DATA: u8 = 0;
    const INIT_CHUNK: u8 = 1;
    const INIT_ACK: u8 = 2;
    const ABORT: u8 = 6;
    const SHUTDOWN: u8 = 7;
    const SHUTDOWN_ACK: u8 = 8;
    const COOKIE_ECHO: u8 = 10;
    const COOKIE_ACK: u8 = 11;
    const SHUTDOWN_COMPLETE: u8 = 14;

    fn after(steps: &[(Direction, u8)]) -> std::vec::Vec<State> {
        let mut state = INIT1;
        let mut states = std::vec::Vec::new();
        for (direction, kind) in steps {
            state = next(state, *direction as u32, flags(*kind).into());
            states.push(state);
        }
        states
    }

    // RFC 9260, 5.1 and 9.2, heard from both sides.
    #[test]
    fn an_association_heard_from_both_sides_opens_and_closes() {
        use Direction::{Input, Output};
        let steps = [
            (Output, INIT_ACK),
            (Input, COOKIE_ECHO),
            (Output, COOKIE_ACK),
            (Input, DATA),
            (Input, SHUTDOWN),
            (Output, SHUTDOWN_ACK),
            (Input, SHUTDOWN_COMPLETE),
        ];
        let states = [
            COOKIE_SENT,
            COOKIE_REPLIED,
            ESTABLISHED,
            ESTABLISHED,
            SHUTDOWN_RECEIVED,
            SHUTDOWN_ACK_SENT,
            CLOSED,
        ];
        assert_eq!(after(&steps), states);
    }

    #[test]
    fn an_association_heard_from_the_client_opens_and_closes() {
        use Direction::InputOnly;
        let steps = [COOKIE_ECHO, DATA, SHUTDOWN, SHUTDOWN_COMPLETE];
        let states = [ESTABLISHED, ESTABLISHED, SHUTDOWN_RECEIVED, CLOSED];
        assert_eq!(after(&steps.map(|kind| (InputOnly, kind))), states);
    }

    #[test]
    fn an_init_that_the_server_aborts_is_rejected() {
        assert_eq!(after(&[(Direction::Output, ABORT)]), [REJECTED]);
        assert_eq!(after(&[(Direction::Input, ABORT)]), [CLOSED]);
    }

    // Every state that a packet leads to must have a timeout and a name.
    #[test]
    fn every_packet_leads_to_a_state_of_sctp() {
        for direction in [Direction::Input, Direction::Output, Direction::InputOnly] {
            for (state, kind) in (INIT1..=CLOSED).flat_map(|s| (0..=255).map(move |k| (s, k))) {
                let next = next(state, direction as u32, flags(kind).into());
                assert!((INIT1..=CLOSED).contains(&next), "{state} {kind}: {next}");
            }
        }
    }

    #[test]
    fn only_an_init_opens() {
        for kind in 0..=255 {
            assert_eq!(flags(kind) & flag::SYN != 0, kind == INIT_CHUNK, "{kind}");
        }
    }

    #[test]
    fn only_an_established_association_is_active_and_none_alive_gives_way() {
        for state in INIT1..=CLOSED {
            assert_eq!(is_active(state), state == ESTABLISHED);
            let alive = (ESTABLISHED..=SHUTDOWN_ACK_SENT).contains(&state);
            assert_eq!(may_give_way(state), !alive);
            assert_eq!(ALL[state as usize], TIMEOUTS_S[(state - INIT1) as usize]);
        }
    }
}
