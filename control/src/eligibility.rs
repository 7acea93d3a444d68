//! Eligibility: whether the scheduler of a service may pick a server, and with which weight.
//!
//! Each factor is one fact about the server, and has a name. The effective weight follows from all
//! factors whenever somebody asks for it. No factor is written back to the configured weight.

use shunt_model::api::{self, Factor};

/// The facts about a server that decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The configured weight; 0 quiesces.
    pub weight: u32,
    /// Whether packets can get to the server.
    pub reach: Reach,
    /// The packet path sees more connections than the upper threshold allows. The packet path
    /// checks that itself for each new connection, so no pool is compiled from this fact.
    pub is_overloaded: bool,
}

/// Whether a server has a next hop, and whether that decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// The server has a next hop.
    Reached,
    /// The server has no next hop, and another server that may be picked has one.
    Unreached,
    /// No server that may be picked has a next hop, so all of them stay in the pool.
    NobodyReached,
}

impl Reach {
    /// `is_served`: some server of the service has a next hop and may be picked ([`is_served`]).
    #[must_use]
    pub fn new(is_reached: bool, is_served: bool) -> Self {
        match (is_reached, is_served) {
            (true, true | false) => Reach::Reached,
            (false, true) => Reach::Unreached,
            (false, false) => Reach::NobodyReached,
        }
    }
}

/// Whether a service has a server that is reached and may be picked. `servers` have their
/// configured weight, and whether they are reached.
pub fn is_served(mut servers: impl Iterator<Item = (u32, bool)>) -> bool {
    servers.any(|(weight, is_reached)| weight > 0 && is_reached)
}

/// The weight that each factor leaves, in the order in which the factors apply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Eligibility {
    factors: [(&'static str, u32); 3],
    is_listed: bool,
}

/// Whether a server may be picked, and with which weight.
#[must_use]
pub fn of(facts: Facts) -> Eligibility {
    let configured = facts.weight;
    let reached = match facts.reach {
        Reach::Reached | Reach::NobodyReached => configured,
        Reach::Unreached => 0,
    };
    let spared = if facts.is_overloaded { 0 } else { reached };
    Eligibility {
        factors: [
            ("configured", configured),
            ("reach", reached),
            ("overload", spared),
        ],
        is_listed: facts.reach != Reach::Unreached,
    }
}

impl Eligibility {
    /// The effective weight; 0 for a server that must not be picked.
    #[must_use]
    pub fn weight(&self) -> u32 {
        let [.., (_, weight)] = self.factors;
        weight
    }

    /// Whether the server is part of its pool. A quiesced server is: the turn of rr and wrr counts
    /// it, and hash schedulers keep its places.
    #[must_use]
    pub fn is_listed(&self) -> bool {
        self.is_listed
    }
}

impl From<Eligibility> for api::Eligibility {
    fn from(eligibility: Eligibility) -> Self {
        let factor = |(name, weight): &(&str, u32)| Factor {
            name: (*name).to_owned(),
            weight: *weight,
        };
        Self {
            weight: eligibility.weight(),
            factors: eligibility.factors.iter().map(factor).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FACTS: Facts = Facts {
        weight: 7,
        reach: Reach::Reached,
        is_overloaded: false,
    };

    #[test]
    fn a_reached_server_has_its_configured_weight() {
        let eligibility = of(FACTS);
        assert_eq!((eligibility.weight(), eligibility.is_listed()), (7, true));
    }

    #[test]
    fn each_factor_takes_the_weight_away_and_is_shown_by_name() {
        let unreached = of(Facts {
            reach: Reach::Unreached,
            ..FACTS
        });
        assert_eq!((unreached.weight(), unreached.is_listed()), (0, false));
        let overloaded = of(Facts {
            is_overloaded: true,
            ..FACTS
        });
        assert_eq!((overloaded.weight(), overloaded.is_listed()), (0, true));
        let shown = api::Eligibility::from(overloaded);
        let shown: Vec<_> = shown
            .factors
            .into_iter()
            .map(|f| (f.name, f.weight))
            .collect();
        let wanted = [("configured", 7), ("reach", 7), ("overload", 0)];
        assert_eq!(
            shown,
            wanted.map(|(name, weight)| (name.to_owned(), weight))
        );
    }

    #[test]
    fn reach_does_not_decide_where_no_server_that_may_be_picked_is_reached() {
        let only_quiesced_is_reached = is_served([(0, true), (7, false)].into_iter());
        let reach = Reach::new(false, only_quiesced_is_reached);
        let eligibility = of(Facts { reach, ..FACTS });
        assert_eq!((eligibility.weight(), eligibility.is_listed()), (7, true));
    }

    #[test]
    fn a_quiesced_server_stays_listed() {
        let eligibility = of(Facts { weight: 0, ..FACTS });
        assert_eq!((eligibility.weight(), eligibility.is_listed()), (0, true));
    }
}
