//! HTTP/1.1, as little of it as traffic needs (RFC 9112): bodies have a length, never chunks.

mod client;
mod load;
mod message;
mod server;
mod transfer;

pub use load::{HttpLoad, LoadReport, RunningLoad};
pub use server::HttpServer;
pub use transfer::{Answer, Transfer, get, transfer_down, transfer_up};
