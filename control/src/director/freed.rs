//! Ids that nobody needs any more.

use std::net::IpAddr;

use shunt_model::{ServerAddress, ServiceKey};

use super::slots::NatKey;

/// What was given back.
#[derive(Debug, Default)]
pub struct Freed {
    /// Ids of servers, those of earlier methods included.
    pub servers: Vec<u32>,
    /// Servers whose ids are different, or that have none any more.
    pub slots: Vec<(ServiceKey, ServerAddress)>,
    pub services: Vec<ServiceKey>,
    pub nat: Vec<NatKey>,
    pub endpoints: Vec<(IpAddr, u32)>,
}

impl Freed {
    pub fn is_empty(&self) -> bool {
        self.servers.is_empty() && self.services.is_empty() && self.nat.is_empty()
    }
}
