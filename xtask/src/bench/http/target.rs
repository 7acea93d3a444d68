//! What has its turn: the direct path, Shunt by each method, and its peers.

use super::peer::{Peer, Pick};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Target {
    /// To the servers' own addresses: the director's host only routes.
    Direct,
    Shunt(Method),
    HaProxy,
    Nftables(Pick),
}

/// How Shunt forwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Method {
    Masquerade,
    Route,
    Tunnel,
}

impl Target {
    /// In the order of their turns.
    pub(super) const ALL: [Target; 7] = [
        Target::Direct,
        Target::Shunt(Method::Masquerade),
        Target::Shunt(Method::Route),
        Target::Shunt(Method::Tunnel),
        Target::HaProxy,
        Target::Nftables(Pick::Numgen),
        Target::Nftables(Pick::Jhash),
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Target::Direct => "direct, routed",
            Target::Shunt(Method::Masquerade) => "Shunt, masquerade (NAT)",
            Target::Shunt(Method::Route) => "Shunt, route (DR)",
            Target::Shunt(Method::Tunnel) => "Shunt, tunnel (IPIP)",
            Target::HaProxy => "HAProxy, TCP mode",
            Target::Nftables(Pick::Numgen) => "nftables DNAT, numgen",
            Target::Nftables(Pick::Jhash) => "nftables DNAT, jhash",
        }
    }

    /// Whose program it is, if it is not ours.
    pub(super) fn peer(self) -> Option<Peer> {
        match self {
            Target::Direct | Target::Shunt(_) => None,
            Target::HaProxy => Some(Peer::HaProxy),
            Target::Nftables(_) => Some(Peer::Nftables),
        }
    }

    /// Whether answers go to the client without the director.
    pub(super) fn answers_directly(self) -> bool {
        matches!(self, Target::Shunt(Method::Route | Method::Tunnel))
    }
}

impl Method {
    /// The option of `ipvsadm`.
    pub(crate) fn option(self) -> &'static str {
        match self {
            Method::Masquerade => "-m",
            Method::Route => "-g",
            Method::Tunnel => "-i",
        }
    }
}
