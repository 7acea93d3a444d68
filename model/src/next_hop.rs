//! How packets get to a server.

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// The next hop of a server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum NextHop {
    /// The server is the director itself.
    Local,
    /// A neighbour on a link.
    Neighbour {
        /// The device that leads to the neighbour.
        device: String,
        /// The neighbour's MAC address.
        mac: Mac,
        /// The server itself, or the gateway of the route.
        neighbour: IpAddr,
        /// The largest packet in bytes.
        mtu: u32,
    },
    /// The kernel has no MAC address of the neighbour yet.
    Unresolved {
        /// The server itself, or the gateway of the route.
        neighbour: IpAddr,
    },
    /// No route leads to the server, or one that refuses.
    Unreachable {
        /// The reason as a clause.
        why: String,
    },
}

/// A MAC address, as text in JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Mac(pub [u8; 6]);

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl From<Mac> for String {
    fn from(mac: Mac) -> Self {
        mac.to_string()
    }
}

impl TryFrom<String> for Mac {
    type Error = UnreadableMac;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let bytes = text.split(':').map(|byte| {
            let is_byte = byte.len() == 2 && byte.bytes().all(|digit| digit.is_ascii_hexdigit());
            is_byte.then(|| u8::from_str_radix(byte, 16).ok()).flatten()
        });
        let bytes: Option<Vec<u8>> = bytes.collect();
        let bytes = bytes.and_then(|bytes| bytes.try_into().ok());
        bytes.map(Mac).ok_or(UnreadableMac { text })
    }
}

/// The text is not a MAC address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{text}\" is not a MAC address; write it as 02:00:00:00:00:01")]
pub struct UnreadableMac {
    /// The text as it was given.
    pub text: String,
}

/// What becomes of new connections for a server that cannot be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OutOfReach {
    /// Another server of the service gets them.
    NotPicked,
    /// No server of the service can be reached.
    Dropped,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_next_hop_has_fields_for_programs() {
        let hop = NextHop::Neighbour {
            device: "eth1".to_owned(),
            mac: Mac([2, 0, 0, 0, 1, 0xab]),
            neighbour: [10, 1, 0, 11].into(),
            mtu: 1500,
        };
        let text = serde_json::to_string(&hop).unwrap();
        assert_eq!(
            text,
            r#"{"kind":"neighbour","device":"eth1","mac":"02:00:00:00:01:ab","neighbour":"10.1.0.11","mtu":1500}"#
        );
        assert_eq!(serde_json::from_str::<NextHop>(&text).unwrap(), hop);
        for wrong in [
            "02:00:00:00:01",
            "02:00:00:00:01:xy",
            "02:00:00:00:01:+a",
            "",
        ] {
            let read = serde_json::from_str::<Mac>(&format!("\"{wrong}\""));
            let told = read.unwrap_err().to_string();
            assert!(told.contains("is not a MAC address"), "{told}");
        }
    }
}
