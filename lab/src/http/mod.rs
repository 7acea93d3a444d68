//! HTTP/1.1 (RFC 9112), only as far as the lab's traffic needs it: bodies have a length and are
//! never chunked.

mod client;
mod load;
mod message;
mod server;
mod transfer;

pub use load::{HttpLoad, LoadReport, RunningLoad};
pub use server::HttpServer;
pub use transfer::{Answer, Transfer, get, transfer_down, transfer_up};
