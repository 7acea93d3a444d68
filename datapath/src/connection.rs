//! Connection states as seen by a director, which may see only one side's packets.
//!
//! Pure: a state and a packet give the next state. The tables are row for row the kernel's
//! `tcp_states` (net/netfilter/ipvs/ip_vs_proto_tcp.c, Linux 6.1); [`sctp`] has the tables
//! of SCTP. [`Meta`] is an entry's state, its flags and the time of its last packet.

pub mod sctp;

pub use crate::wire::ports::flag;

/// The state of a connection. The first eleven have IPVS's numbers.
pub type State = u32;

/// `IP_VS_TCP_S_NONE`: no segment of the flow itself was seen.
pub const NONE: State = 0;
/// `IP_VS_TCP_S_ESTABLISHED`.
pub const ESTABLISHED: State = 1;
/// `IP_VS_TCP_S_SYN_SENT`: the server has sent a SYN.
pub const SYN_SENT: State = 2;
/// `IP_VS_TCP_S_SYN_RECV`: the client has sent a SYN.
pub const SYN_RECV: State = 3;
/// `IP_VS_TCP_S_FIN_WAIT`: the server has sent a FIN; if answers do not pass the director, the
/// client has.
pub const FIN_WAIT: State = 4;
/// `IP_VS_TCP_S_TIME_WAIT`: both sides have sent a FIN.
pub const TIME_WAIT: State = 5;
/// `IP_VS_TCP_S_CLOSE`: the connection was reset or has ended.
pub const CLOSE: State = 6;
/// `IP_VS_TCP_S_CLOSE_WAIT`: the client has sent a FIN.
pub const CLOSE_WAIT: State = 7;
/// `IP_VS_TCP_S_LAST_ACK`: the last FIN waits for its acknowledgement.
pub const LAST_ACK: State = 8;
/// `IP_VS_TCP_S_LISTEN`.
pub const LISTEN: State = 9;
/// `IP_VS_TCP_S_SYNACK`: the server has accepted, the client has not confirmed (`secure_tcp`).
pub const SYNACK: State = 10;
/// A UDP flow with one packet so far.
pub const UDP_FIRST: State = 11;
/// A UDP flow with more than one packet. It may be displaced only until it is proved
/// ([`Meta::PROVED`]).
pub const UDP: State = 12;

/// The index of the timeout of a way-back entry that may not be displaced: the longest timeout of
/// all connections. A way-back entry has no state.
pub const WAY_BACK: State = 13;
/// The index of the timeout of a way-back entry that may be displaced: [`WAY_BACK`] and the longest
/// timeout of a state that gives way. Such an entry is older than [`WAY_BACK`] from the beginning:
/// see [`Meta::yielding`].
pub const WAY_BACK_YIELDING: State = 14;
/// A persistence template of a client that has had no established connection; it may be displaced.
pub const TEMPLATE: State = 15;
/// A template of a client that has had an established connection.
pub const TEMPLATE_ASSURED: State = 16;
/// The longest life of a template in ticks: more than IPVS's 31 days. A template with a shorter
/// life is entered with an earlier tick: see [`Meta::template`].
pub const TEMPLATE_LIVES: u32 = 2_700_000;
/// The number of states; 17 to 29 belong to [`sctp`].
pub const STATES: usize = 32;

/// Seconds that an entry lives in each state: `tcp_timeouts`, `udp_timeouts` and `sctp_timeouts` of
/// the kernel.
pub const TIMEOUTS_S: [u32; STATES] = complete(with_sctp([
    2, 900, 120, 60, 120, 120, 10, 60, 30, 120, 120, 300, 300, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0,
]));

/// Fills in the timeouts of the SCTP states.
// Every index is below the length, and nothing here runs for a packet.
#[allow(clippy::indexing_slicing, clippy::arithmetic_side_effects)]
const fn with_sctp(mut timeouts: [u32; STATES]) -> [u32; STATES] {
    let mut at = 0;
    while at < sctp::TIMEOUTS_S.len() {
        timeouts[sctp::INIT1 as usize + at] = sctp::TIMEOUTS_S[at];
        at += 1;
    }
    timeouts
}

/// Fills in the timeouts of templates and of way-back entries, given those of connections.
// Every index is below the length, and nothing here runs for a packet.
#[allow(clippy::indexing_slicing, clippy::arithmetic_side_effects)]
#[must_use]
pub const fn complete(mut timeouts: [u32; STATES]) -> [u32; STATES] {
    let (mut longest, mut longest_yielding, mut state) = (0, 0, 0);
    while state < STATES {
        let (timeout, is_other) = (timeouts[state], state >= 13 && state <= 16);
        if !is_other && timeout > longest {
            longest = timeout;
        }
        if !is_other && timeout > longest_yielding && may_give_way(state as State) {
            longest_yielding = timeout;
        }
        state += 1;
    }
    timeouts[TEMPLATE as usize] = TEMPLATE_LIVES;
    timeouts[TEMPLATE_ASSURED as usize] = TEMPLATE_LIVES;
    timeouts[WAY_BACK as usize] = longest;
    timeouts[WAY_BACK_YIELDING as usize] = longest.saturating_add(longest_yielding);
    timeouts
}

/// Who sent a packet, and whether the server's answers pass the director.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the client; the answers pass the director too.
    Input,
    /// From the server.
    Output,
    /// From the client; the answers do not pass the director (route, tunnel).
    InputOnly,
}

/// A row of the kernel's table: the next state from each of the eleven TCP states, four bits each,
/// the first state in the lowest bits.
const fn row(next: [State; 11]) -> u64 {
    let mut packed = 0;
    let mut at = 0;
    while at < 11 {
        // Evaluated by the compiler: an index out of range or an overflow does not compile.
        #[allow(clippy::indexing_slicing, clippy::arithmetic_side_effects)]
        {
            packed |= (next[at] as u64) << (at * 4);
        }
        #[allow(clippy::arithmetic_side_effects)]
        {
            at += 1;
        }
    }
    packed
}

use {
    CLOSE as CL, CLOSE_WAIT as CW, ESTABLISHED as ES, FIN_WAIT as FW, LAST_ACK as LA, LISTEN as LI,
    SYN_RECV as SR, SYN_SENT as SS, TIME_WAIT as TW,
};

// From:                                   NO  ES  SS  SR  FW  TW  CL  CW  LA  LI  SA
const INPUT_SYN: u64 = row([SR, ES, ES, SR, SR, SR, SR, SR, SR, SR, SR]);
const INPUT_FIN: u64 = row([CL, CW, SS, TW, TW, TW, CL, CW, LA, LI, TW]);
const INPUT_ACK: u64 = row([ES, ES, SS, ES, FW, TW, CL, CW, CL, LI, ES]);
const INPUT_RST: u64 = row([CL, CL, CL, SR, CL, CL, CL, CL, LA, LI, SR]);

const OUTPUT_SYN: u64 = row([SS, ES, SS, SR, SS, SS, SS, SS, SS, LI, SR]);
const OUTPUT_FIN: u64 = row([TW, FW, SS, TW, FW, TW, CL, TW, LA, LI, TW]);
const OUTPUT_ACK: u64 = row([ES, ES, SS, ES, FW, TW, CL, CW, LA, ES, ES]);
const OUTPUT_RST: u64 = row([CL, CL, SS, CL, CL, TW, CL, CL, CL, CL, CL]);

const INPUT_ONLY_SYN: u64 = row([SR, ES, ES, SR, SR, SR, SR, SR, SR, SR, SR]);
const INPUT_ONLY_FIN: u64 = row([CL, FW, SS, TW, FW, TW, CL, CW, LA, LI, TW]);
const INPUT_ONLY_ACK: u64 = row([ES, ES, SS, ES, FW, TW, CL, CW, CL, LI, ES]);
const INPUT_ONLY_RST: u64 = row([CL, CL, CL, SR, CL, CL, CL, CL, LA, LI, CL]);

/// The next state of a TCP connection. RST outweighs SYN, SYN outweighs FIN, FIN outweighs ACK; a
/// segment with none of these flags closes the connection (`tcp_state_idx`, `set_tcp_state`).
#[inline(always)]
#[must_use]
pub fn next(state: State, direction: Direction, flags: u8) -> State {
    // Nearly every packet is an ACK of an established connection.
    if state == ESTABLISHED && flags & (flag::RST | flag::SYN | flag::FIN | flag::ACK) == flag::ACK
    {
        return ESTABLISHED;
    }
    let row = if flags & flag::RST != 0 {
        match direction {
            Direction::Input => INPUT_RST,
            Direction::Output => OUTPUT_RST,
            Direction::InputOnly => INPUT_ONLY_RST,
        }
    } else if flags & flag::SYN != 0 {
        match direction {
            Direction::Input => INPUT_SYN,
            Direction::Output => OUTPUT_SYN,
            Direction::InputOnly => INPUT_ONLY_SYN,
        }
    } else if flags & flag::FIN != 0 {
        match direction {
            Direction::Input => INPUT_FIN,
            Direction::Output => OUTPUT_FIN,
            Direction::InputOnly => INPUT_ONLY_FIN,
        }
    } else if flags & flag::ACK != 0 {
        match direction {
            Direction::Input => INPUT_ACK,
            Direction::Output => OUTPUT_ACK,
            Direction::InputOnly => INPUT_ONLY_ACK,
        }
    } else {
        return CLOSE;
    };
    ((row >> ((state & 15).wrapping_mul(4))) & 15) as State
}

/// The next state under `secure_tcp` (`tcp_states_dos`); `to` is the result of [`next`]. A
/// connection is established only after packets of both sides, or after two packets of the client
/// if the answers do not pass the director. The two tables differ in how a connection begins and
/// where `from` is half-open.
#[inline(always)]
#[must_use]
pub fn secured(from: State, to: State, direction: Direction, flags: u8) -> State {
    if flags & (flag::RST | flag::SYN | flag::FIN | flag::ACK) == 0 {
        return to;
    }
    match direction {
        Direction::Input if from == SYNACK => {
            if flags & flag::RST != 0 {
                CLOSE
            } else {
                SYNACK
            }
        }
        Direction::Input if from == SYN_RECV && to == ESTABLISHED => SYN_RECV,
        Direction::Output if to == SYN_RECV => SYNACK,
        Direction::InputOnly if to == SYN_RECV && from != SYN_RECV => SYNACK,
        _ => to,
    }
}

/// Whether a connection in this state counts as active (`tcp_state_active_table`). Of the SCTP
/// states only established is active, and UDP flows never are.
#[inline(always)]
#[must_use]
pub fn is_active(state: State) -> bool {
    const ACTIVE: u32 =
        1 << ESTABLISHED | 1 << SYN_SENT | 1 << SYN_RECV | 1 << SYNACK | 1 << sctp::ESTABLISHED;
    ACTIVE >> (state & 31) & 1 != 0
}

/// Whether an entry in this state may give way to a new flow, which displaces it when both buckets
/// are full: the connection is half-open or closed. An entry in any other state gives way while it
/// is not proved ([`Meta::yields`]).
#[inline(always)]
#[must_use]
pub const fn may_give_way(state: State) -> bool {
    gives_way(state) != 0
}

/// [`may_give_way`] as 1 or 0.
#[inline(always)]
#[must_use]
pub const fn gives_way(state: State) -> u32 {
    const MAY: u32 = 1 << NONE
        | 1 << SYN_SENT
        | 1 << SYN_RECV
        | 1 << SYNACK
        | 1 << CLOSE
        | 1 << TIME_WAIT
        | 1 << LISTEN
        | 1 << UDP_FIRST
        | 1 << TEMPLATE
        | sctp::YIELDING;
    MAY >> (state & 31) & 1
}

/// What an entry holds besides its key and target, in 32 bits: the tick of its last packet (22 high
/// bits), flags (5 bits) and the state (5 low bits). In a way-back entry, the ten low bits are the
/// hop to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meta(pub u32);

/// Bits of the tick in a [`Meta`].
pub const TICK_BITS: u32 = 22;
/// The bits of a tick that count.
pub const TICK_MASK: u32 = (1 << TICK_BITS) - 1;

/// How many ticks make a stretch of [`Meta::heard`], as a power of two: about a minute.
const STRETCH_BITS: u32 = 6;

/// A tick that is at most about this many ticks after `now` has age 0, and not nearly a whole turn
/// of the clock: another CPU wrote it after `now` was read.
const LATE: u32 = 1 << 10;

/// Ticks from `then` to `now`. The clock wraps after 2^22 ticks, about 48 days. 0 if `then` is
/// shortly after `now`.
#[inline(always)]
#[must_use]
pub fn age(then: u32, now: u32) -> u32 {
    let age = now.wrapping_sub(then) & TICK_MASK;
    let late = TICK_MASK.wrapping_sub(LATE).wrapping_sub(age) >> 31;
    age & late.wrapping_sub(1)
}

impl Meta {
    /// The connection counts as inactive (`IP_VS_CONN_F_INACTIVE`).
    pub const INACTIVE: u32 = 1 << 5;
    /// No answer has passed the director, so [`Direction::InputOnly`] applies
    /// (`IP_VS_CONN_F_NOOUTPUT`).
    pub const NO_OUTPUT: u32 = 1 << 6;
    /// The connection's client has a template.
    pub const CONTROLLED: u32 = 1 << 7;
    /// What has been heard of a connection since its first packet: all bits of it say that it is
    /// proved. An answer that passes here proves it at once. Where none passes, only time proves
    /// that the client lives: see [`Meta::heard`].
    pub const PROVED: u32 = 3 << 8;
    const HEARD: u32 = 1 << 8;
    /// The client of an established connection has sent two more packets.
    const TALKED: u32 = 2 << 8;
    const LOW: u32 = 0x3ff;

    /// The meta of an entry whose last packet came at this tick.
    #[inline(always)]
    #[must_use]
    pub fn new(tick: u32, state: State, flags: u32) -> Self {
        Self(tick << 10 | state | flags)
    }

    /// The tick at which a packet was last seen.
    #[inline(always)]
    #[must_use]
    pub fn tick(self) -> u32 {
        self.0 >> 10
    }

    /// Ticks since the last packet; see [`age`].
    #[inline(always)]
    #[must_use]
    pub fn age(self, now: u32) -> u32 {
        age(self.tick(), now)
    }

    /// The state of the connection.
    #[inline(always)]
    #[must_use]
    pub fn state(self) -> State {
        self.0 & 31
    }

    /// Whether a flag is set, or any of several.
    #[inline(always)]
    #[must_use]
    pub fn has(self, flag: u32) -> bool {
        self.0 & flag != 0
    }

    /// The ten low bits: flags and state, or the hop.
    #[inline(always)]
    #[must_use]
    pub fn low(self) -> u32 {
        self.0 & Self::LOW
    }

    /// The bits of [`Meta::PROVED`] after one more packet: an answer, or one of the client. Where
    /// no answer passes, the first two packets of the client of an established connection count at
    /// once, and after them one that comes in another stretch of `STRETCH_BITS` than the packet
    /// before it. So neither a burst of packets, however long, nor one that a server sends back
    /// proves a connection. `phase` is the flow's own, so that no moment proves all at once.
    #[inline(always)]
    #[must_use]
    pub fn heard(self, output: bool, now: u32, phase: u32) -> u32 {
        if output {
            return Self::PROVED;
        }
        // Without a branch: each would be verified once more wherever a packet is noted.
        let bit = |mask: u32| self.0 >> mask.trailing_zeros() & 1;
        let stretch = |tick: u32| (tick.wrapping_add(phase) & TICK_MASK) >> STRETCH_BITS;
        let apart = stretch(self.tick()) ^ stretch(now);
        let is_later = (apart | apart.wrapping_neg()) >> 31;
        let waits = bit(Self::TALKED);
        let at_once = (gives_way(self.state()) | waits) ^ 1;
        let step = at_once | is_later & waits & !bit(Self::HEARD);
        let so_far = self.0 & Self::PROVED;
        so_far.wrapping_add((step & bit(Self::NO_OUTPUT)).wrapping_mul(Self::HEARD))
    }

    /// Whether the connection is proved ([`Meta::PROVED`]).
    #[inline(always)]
    #[must_use]
    pub fn is_proved(self) -> bool {
        self.0 & Self::PROVED == Self::PROVED
    }

    /// Whether a packet would change nothing, of a connection that is proved or can be proved in a
    /// later tick alone.
    #[inline(always)]
    #[must_use]
    pub fn is_settled(self, now: u32, state: State) -> bool {
        const OTHERS: u32 = Meta::INACTIVE | Meta::NO_OUTPUT | Meta::CONTROLLED | Meta::HEARD;
        self.0 & !OTHERS == now << 10 | state | Meta::TALKED
    }

    /// 1 if the client of a connection that is not proved has sent two packets since it was
    /// established, else 0. Such an entry is the last to give way.
    #[inline(always)]
    #[must_use]
    pub fn has_talked(self) -> u32 {
        self.0 >> Self::TALKED.trailing_zeros() & 1
    }

    /// Whether the entry has this tick, state and proof already.
    #[inline(always)]
    #[must_use]
    pub fn is_as(self, now: u32, state: State, proved: u32) -> bool {
        const FLAGS: u32 = Meta::INACTIVE | Meta::NO_OUTPUT | Meta::CONTROLLED;
        self.0 & !FLAGS == now << 10 | state | proved
    }

    /// Whether nothing would change in this state, neither the tick nor what proves the connection,
    /// by one more packet of the client.
    #[inline(always)]
    #[must_use]
    pub fn is_steady(self, now: u32, state: State) -> bool {
        const KEPT: u32 = Meta::INACTIVE | Meta::NO_OUTPUT | Meta::CONTROLLED | Meta::PROVED;
        let told = self.has(Self::TALKED) || !self.has(Self::NO_OUTPUT);
        self.0 & !KEPT == now << 10 | state && told
    }

    /// 1 if a new flow may displace the entry when both buckets are full, else 0.
    #[inline(always)]
    #[must_use]
    pub fn yields(self) -> u32 {
        // All bits of `PROVED` are set if one more overflows them.
        let proved = (self.0 & Self::PROVED).wrapping_add(Self::HEARD) >> 10;
        gives_way(self.state()) | proved ^ 1
    }

    /// The meta after a packet at this tick that changes nothing else.
    #[inline(always)]
    #[must_use]
    pub fn seen(self, now: u32) -> Self {
        Self(now << 10 | self.low())
    }

    /// The meta of a template that lives for `lives` ticks from `now`.
    #[inline(always)]
    #[must_use]
    pub fn template(now: u32, lives: u32, state: State) -> Self {
        let passed = TEMPLATE_LIVES.saturating_sub(lives);
        Self::new(now.wrapping_sub(passed), state, 0)
    }

    /// The same template with `lives` ticks left from `now`.
    #[inline(always)]
    #[must_use]
    pub fn renewed(self, now: u32, lives: u32) -> Self {
        Self::template(now, lives, self.low())
    }

    /// The template of a client that has an established connection (`IP_VS_CONN_F_TEMPLATE` with
    /// `IP_VS_CTPL_S_ASSURED`). The template gives way until one of its connections is proved.
    #[inline(always)]
    #[must_use]
    pub fn assured(self, proved: bool) -> Self {
        let so_far = if self.state() == TEMPLATE_ASSURED {
            self.0 & Self::PROVED
        } else {
            0
        };
        let proved = if proved { Self::PROVED } else { so_far };
        Self(self.0 & !Self::LOW | TEMPLATE_ASSURED | proved)
    }

    /// Whether the entry is a template.
    #[inline(always)]
    #[must_use]
    pub fn is_template(self) -> bool {
        self.state() == TEMPLATE || self.state() == TEMPLATE_ASSURED
    }

    /// The way back of a connection that gives way: older than [`WAY_BACK`], so that the way back
    /// gives way too. `lives` is the timeout of [`WAY_BACK`] in ticks.
    #[inline(always)]
    #[must_use]
    pub fn yielding(self, now: u32, lives: u32) -> Self {
        self.seen(now.wrapping_sub(lives).wrapping_sub(1))
    }
}

#[cfg(test)]
mod tests {
    use std::string::String;
    use std::vec::Vec;

    /// A connection by route after its client's packets at these ticks. The first two establish it.
    fn told_by_the_client(phase: u32, ticks: &[u32]) -> Meta {
        let begun = Meta::new(ticks[0], SYN_RECV, Meta::NO_OUTPUT);
        ticks.iter().skip(1).fold(begun, |meta, tick| {
            let flags = meta.heard(false, *tick, phase) | Meta::NO_OUTPUT;
            Meta::new(*tick, ESTABLISHED, flags)
        })
    }

    #[test]
    fn packets_at_once_prove_nothing_and_one_a_minute_later_does() {
        for phase in [0, 1, 63, 1000, u32::MAX] {
            let meta = told_by_the_client(phase, &[700; 40]);
            assert_eq!((meta.is_proved(), meta.has_talked()), (false, 1));
            assert_eq!(told_by_the_client(phase, &[700; 3]).has_talked(), 0);
            let slow = told_by_the_client(phase, &[700, 700, 700, 700, 764]);
            assert!(slow.is_proved());
        }
        // At the phase's own moment, and not before.
        assert!(!told_by_the_client(0, &[700, 700, 700, 700, 703]).is_proved());
        assert!(told_by_the_client(0, &[700, 700, 700, 700, 703, 704]).is_proved());
        assert!(told_by_the_client(1, &[700, 700, 700, 700, 703]).is_proved());
        // Also where the clock goes round.
        let late = TICK_MASK - 2;
        assert!(!told_by_the_client(32, &[late, late, late, late, late + 1]).is_proved());
        assert!(told_by_the_client(0, &[late, late, late, late, late + 2, 0]).is_proved());
    }

    #[test]
    fn an_answer_proves_at_once_and_a_client_whose_server_is_silent_never() {
        let begun = Meta::new(7, ESTABLISHED, 0);
        assert_eq!(begun.heard(true, 7, 0), Meta::PROVED);
        assert_eq!(begun.heard(false, 7 + 640, 0), 0);
    }

    use super::*;

    const NAMES: [&str; 11] = [
        "NO", "ES", "SS", "SR", "FW", "TW", "CL", "CW", "LA", "LI", "SA",
    ];

    fn next_names(direction: Direction, flags: u8) -> String {
        let names: Vec<_> = (0..11)
            .map(|state| NAMES[next(state, direction, flags) as usize])
            .collect();
        names.join(" ")
    }

    // ip_vs_proto_tcp.c, tcp_states[]: the three directions, four rows each.
    #[test]
    fn transitions_are_the_kernels() {
        use Direction::*;
        let table = [
            (Input, flag::SYN, "SR ES ES SR SR SR SR SR SR SR SR"),
            (
                Input,
                flag::FIN | flag::ACK,
                "CL CW SS TW TW TW CL CW LA LI TW",
            ),
            (Input, flag::ACK, "ES ES SS ES FW TW CL CW CL LI ES"),
            (Input, flag::RST, "CL CL CL SR CL CL CL CL LA LI SR"),
            (
                Output,
                flag::SYN | flag::ACK,
                "SS ES SS SR SS SS SS SS SS LI SR",
            ),
            (Output, flag::FIN, "TW FW SS TW FW TW CL TW LA LI TW"),
            (Output, flag::ACK, "ES ES SS ES FW TW CL CW LA ES ES"),
            (
                Output,
                flag::RST | flag::ACK,
                "CL CL SS CL CL TW CL CL CL CL CL",
            ),
            (InputOnly, flag::SYN, "SR ES ES SR SR SR SR SR SR SR SR"),
            (InputOnly, flag::FIN, "CL FW SS TW FW TW CL CW LA LI TW"),
            (InputOnly, flag::ACK, "ES ES SS ES FW TW CL CW CL LI ES"),
            (InputOnly, flag::RST, "CL CL CL SR CL CL CL CL LA LI CL"),
        ];
        for (direction, flags, wanted) in table {
            assert_eq!(
                next_names(direction, flags),
                wanted,
                "{direction:?} {flags:#x}"
            );
        }
    }

    // ip_vs_proto_tcp.c, tcp_states_dos[].
    #[test]
    fn secure_transitions_are_the_kernels() {
        use Direction::*;
        let table = [
            (Input, flag::SYN, "SR ES ES SR SR SR SR SR SR SR SA"),
            (Input, flag::FIN, "CL CW SS TW TW TW CL CW LA LI SA"),
            (Input, flag::ACK, "ES ES SS SR FW TW CL CW CL LI SA"),
            (Input, flag::RST, "CL CL CL SR CL CL CL CL LA LI CL"),
            (Output, flag::SYN, "SS ES SS SA SS SS SS SS SS LI SA"),
            (Output, flag::FIN, "TW FW SS TW FW TW CL TW LA LI TW"),
            (Output, flag::ACK, "ES ES SS ES FW TW CL CW LA ES ES"),
            (Output, flag::RST, "CL CL SS CL CL TW CL CL CL CL CL"),
            (InputOnly, flag::SYN, "SA ES ES SR SA SA SA SA SA SA SA"),
            (InputOnly, flag::FIN, "CL FW SS TW FW TW CL CW LA LI TW"),
            (InputOnly, flag::ACK, "ES ES SS ES FW TW CL CW CL LI ES"),
            (InputOnly, flag::RST, "CL CL CL SR CL CL CL CL LA LI CL"),
            (Input, 0, "CL CL CL CL CL CL CL CL CL CL CL"),
        ];
        for (direction, flags, wanted) in table {
            let names: Vec<_> = (0..11)
                .map(|from| {
                    let to = secured(from, next(from, direction, flags), direction, flags);
                    NAMES[to as usize]
                })
                .collect();
            assert_eq!(names.join(" "), wanted, "{direction:?} {flags:#x}");
        }
    }

    #[test]
    fn a_segment_without_a_flag_closes() {
        for state in 0..11 {
            assert_eq!(next(state, Direction::Input, 0), CLOSE);
        }
    }

    // Another CPU writes meanwhile, or a sweep takes longer than a tick.
    #[test]
    fn what_was_seen_after_the_clock_was_read_is_not_old() {
        let meta = Meta::new(8, SYN_RECV, 0);
        assert_eq!(meta.age(7), 0);
        assert_eq!(Meta::new(0, SYN_RECV, 0).age(TICK_MASK), 0);
    }

    #[test]
    fn the_age_goes_round_with_the_clock() {
        let meta = Meta::new(TICK_MASK, ESTABLISHED, 0);
        assert_eq!(meta.age(4), 5);
        assert_eq!(meta.seen(4).age(4), 0);
        assert_eq!(meta.seen(4).state(), ESTABLISHED);
    }
}
