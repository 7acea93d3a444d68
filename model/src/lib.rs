//! The vocabulary of Shunt: services, real servers, connections, counters, and the messages of the
//! API between the daemon and its clients.
//!
//! The crate has plain data and its text forms. It never touches the system, keeps state or
//! decides.

pub mod api;
pub mod batch;
pub mod change;
pub mod connection;
pub mod counters;
pub mod device;
pub mod event;
pub mod local;
pub mod mark;
pub mod nearest;
pub mod next_hop;
pub mod origin;
pub mod outcome;
pub mod program;
pub mod scheduler;
pub mod server;
pub mod service;
pub mod settings;
pub mod wanted;
pub mod warning;

pub use connection::{Connection, EngineData, State};
pub use counters::{Counters, Rates};
pub use local::{LocalAddress, LocalPorts};
pub use mark::MarkRule;
pub use origin::Origin;
pub use scheduler::{Scheduler, SchedulerFlags};
pub use server::{Encapsulation, Method, Server, ServerAddress, TunnelChecksum};
pub use service::{Announce, Family, Persistence, Protocol, Service, ServiceKey, Timeouts};
pub use settings::{Defence, OnDown, ServiceSettings, Setting, Settings};
pub use wanted::Wanted;
