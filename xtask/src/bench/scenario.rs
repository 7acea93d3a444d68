//! What is measured, and how much it may cost.

use super::director::Method;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Packets of flows that have an entry.
    Established,
    /// A SYN each, from another client each time.
    New,
    /// An ACK each of a flow that nobody knows.
    Unknown,
    /// Connections of eight packets, 256 at a time.
    Connections,
    /// To an address that is no service's.
    Foreign,
    /// From a masqueraded server to clients.
    Back,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transport {
    Tcp,
    Udp,
}

/// One kind of traffic.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scenario {
    pub name: &'static str,
    pub kind: Kind,
    /// A power of two.
    pub flows: u32,
    pub transport: Transport,
    pub v6: bool,
}

const SOME: u32 = 1 << 14;
const MANY: u32 = 1 << 20;

const fn scenario(name: &'static str, kind: Kind, flows: u32) -> Scenario {
    Scenario {
        name,
        kind,
        flows,
        transport: Transport::Tcp,
        v6: false,
    }
}

/// For one family; the other has the same.
const EACH: [Scenario; 10] = [
    scenario("1 flow", Kind::Established, 1),
    scenario("16k flows", Kind::Established, SOME),
    scenario("1M flows", Kind::Established, MANY),
    Scenario {
        transport: Transport::Udp,
        ..scenario("UDP, 16k flows", Kind::Established, SOME)
    },
    scenario("new flows", Kind::New, 1),
    scenario("connections of eight packets", Kind::Connections, 1),
    scenario("ACK of no known flow", Kind::Unknown, 1),
    scenario("not ours", Kind::Foreign, SOME),
    scenario("way back, 1 flow", Kind::Back, 1),
    scenario("way back, 16k flows", Kind::Back, SOME),
];

/// All that is to be measured; without the largest if it has to be quick.
pub(super) fn all(quick: bool) -> Vec<Scenario> {
    let both = [false, true].into_iter().flat_map(|v6| {
        EACH.into_iter()
            .map(move |scenario| Scenario { v6, ..scenario })
    });
    both.filter(|scenario| !quick || scenario.flows <= SOME)
        .collect()
}

impl Scenario {
    /// The name with its family.
    pub(super) fn title(&self) -> String {
        format!("{}, {}", if self.v6 { "IPv6" } else { "IPv4" }, self.name)
    }

    /// What a packet by this method may cost, in units of `lru_array`. Masquerade may cost 1.3
    /// times the goal of route for known flows, and 1.6 times for connections that begin.
    pub(super) fn goal(&self, method: Method) -> Option<f64> {
        let (route, times) = match self.kind {
            Kind::Established | Kind::Back => (self.known(), 1.3),
            Kind::New => (0.42, 1.6),
            Kind::Connections => (0.65, 1.6),
            Kind::Unknown | Kind::Foreign => return None,
        };
        Some(if method.masquerades() {
            route * times
        } else {
            route
        })
    }

    /// What a packet of a known flow may cost by route.
    fn known(&self) -> f64 {
        match (self.flows, self.transport) {
            (MANY, _) => 0.5,
            (1, _) => 1.1,
            (_, Transport::Tcp) => 0.6,
            (_, Transport::Udp) => 0.7,
        }
    }

    /// The outcome that every packet must have, by its counter's name, and the hook's verdict.
    pub(super) fn expected(&self) -> (&'static str, u32) {
        const PASS: u32 = 2;
        const TX: u32 = 3;
        match self.kind {
            Kind::Unknown => ("pass-not-opening", PASS),
            Kind::Foreign => ("pass-not-ours", PASS),
            Kind::Established | Kind::New | Kind::Connections | Kind::Back => ("sent", TX),
        }
    }
}
