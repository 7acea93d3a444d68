//! Single requests: a question with its answer, and transfers that check every byte.

use std::future::Future;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tokio::io::AsyncWriteExt;

use super::client::Client;
use crate::host::Host;
use crate::pattern::{Pattern, Sum};

const GET_LIMIT: Duration = Duration::from_secs(5);
const TRANSFER_LIMIT: Duration = Duration::from_secs(60);
const PIECE_BYTES: usize = 64 * 1024;

/// A server's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The server's name.
    pub server: String,
    /// The text after the headers.
    pub body: String,
}

impl Answer {
    /// Returns the line of the body with this first word: `answer.field("client")`.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.body
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))
    }

    /// The client as the server saw it.
    pub fn client(&self) -> Option<SocketAddr> {
        self.field("client")?.parse().ok()
    }

    /// The address to which the request came.
    pub fn address(&self) -> Option<SocketAddr> {
        self.field("address")?.parse().ok()
    }
}

/// The bytes that arrived complete and in order.
#[derive(Clone, Debug, PartialEq)]
pub struct Transfer {
    /// The number of bytes.
    pub bytes: u64,
    /// From the request to the last byte.
    pub elapsed: Duration,
    /// The name of the server that sent them.
    pub server: String,
}

impl Transfer {
    /// The rate of the bytes, without headers.
    pub fn bits_per_second(&self) -> f64 {
        self.bytes as f64 * 8.0 / self.elapsed.as_secs_f64().max(1e-9)
    }
}

/// Sends one request on a connection of its own.
pub fn get(host: &Host, to: SocketAddr, path: &str) -> Result<Answer> {
    let work = async || {
        let mut client = Client::connect(to, None).await?;
        client.request("GET", path, None, true).await?;
        let mut body = Vec::new();
        let (status, head) = client.answer(|piece| body.extend_from_slice(piece)).await?;
        let body = String::from_utf8(body).context("the answer is not text")?;
        Ok(Answer {
            status,
            server: head.server,
            body,
        })
    };
    host.run_async(|| limited(GET_LIMIT, work()))
        .with_context(|| format!("GET http://{to}{path}"))
}

/// Downloads, and compares every byte with the pattern.
pub fn transfer_down(host: &Host, to: SocketAddr, bytes: u64) -> Result<Transfer> {
    let work = async || {
        let begin = Instant::now();
        let mut client = Client::connect(to, None).await?;
        client
            .request("GET", &format!("/bytes/{bytes}"), None, true)
            .await?;
        let mut pattern = Pattern::new();
        let mut wanted = vec![0; PIECE_BYTES];
        let (mut seen, mut wrong) = (0, None);
        let (status, head) = client
            .answer(|piece| {
                let wanted = &mut wanted[..piece.len()];
                pattern.fill(wanted);
                if wrong.is_none() && wanted != piece {
                    wrong = Some(seen);
                }
                seen += piece.len() as u64;
            })
            .await?;
        ensure!(status == 200, "answered {status}");
        ensure!(seen == bytes, "{seen} bytes arrived");
        if let Some(at) = wrong {
            bail!("the data differs within the piece that begins at byte {at}");
        }
        Ok(Transfer {
            bytes,
            elapsed: begin.elapsed(),
            server: head.server,
        })
    };
    host.run_async(|| limited(TRANSFER_LIMIT, work()))
        .with_context(|| format!("download of {bytes} bytes from {to}"))
}

/// Uploads, and compares the server's checksum with ours.
pub fn transfer_up(host: &Host, to: SocketAddr, bytes: u64) -> Result<Transfer> {
    let work = async || {
        let begin = Instant::now();
        let mut client = Client::connect(to, None).await?;
        client.request("POST", "/upload", Some(bytes), true).await?;
        let (mut pattern, mut sum) = (Pattern::new(), Sum::new());
        let mut piece = vec![0; PIECE_BYTES];
        let mut left = bytes;
        while left > 0 {
            let now = piece
                .len()
                .min(usize::try_from(left).unwrap_or(PIECE_BYTES));
            pattern.fill(&mut piece[..now]);
            sum.add(&piece[..now]);
            client
                .stream
                .socket
                .write_all(&piece[..now])
                .await
                .context("send")?;
            left -= now as u64;
        }
        let mut body = Vec::new();
        let (status, head) = client.answer(|piece| body.extend_from_slice(piece)).await?;
        ensure!(status == 200, "answered {status}");
        let said = String::from_utf8_lossy(&body);
        let wanted = format!("bytes {bytes}\nsum {}\n", sum.text());
        ensure!(
            said == wanted,
            "the server received something else: {said:?}, not {wanted:?}"
        );
        Ok(Transfer {
            bytes,
            elapsed: begin.elapsed(),
            server: head.server,
        })
    };
    host.run_async(|| limited(TRANSFER_LIMIT, work()))
        .with_context(|| format!("upload of {bytes} bytes to {to}"))
}

async fn limited<R>(limit: Duration, work: impl Future<Output = Result<R>>) -> Result<R> {
    match tokio::time::timeout(limit, work).await {
        Ok(result) => result,
        Err(_) => bail!("no end after {:.1} s", limit.as_secs_f64()),
    }
}
