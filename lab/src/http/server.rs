//! A real server of the lab. Its answer names the server, the client that it sees, and the address
//! to which the request came.
//!
//! - `GET /` and any other path: three lines, `server NAME`, `client ADDRESS:PORT`,
//!   `address ADDRESS:PORT`.
//! - `GET /bytes/N`: N bytes of the pattern.
//! - `GET /status/N`: an empty answer with that status, for health checks.
//! - `POST`: `bytes N` and `sum S` of the uploaded body.

use std::net::{Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use anyhow::{Context, Result};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use super::message::{Head, Stream};
use crate::background::{Background, Stop};
use crate::host::Host;
use crate::pattern::{Pattern, Sum};

const BACKLOG: i32 = 4096;
/// Connections beyond this many wait in the backlog.
const CONNECTIONS: usize = 16_384;
const PIECE_BYTES: usize = 64 * 1024;

#[derive(Debug, Default)]
struct Counts {
    connections: AtomicU64,
    open: AtomicUsize,
    requests: AtomicU64,
    uploaded: AtomicU64,
}

/// An HTTP server inside a host. Dropping it ends it.
#[derive(Debug)]
pub struct HttpServer {
    name: String,
    address: SocketAddr,
    counts: Arc<Counts>,
    work: Background,
}

impl HttpServer {
    /// Listens on all addresses of the host, of both families.
    pub fn start(host: &Host, port: u16) -> Result<HttpServer> {
        HttpServer::start_at(host, SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)))
    }

    /// Listens on one address; `[::]` means both families. With port 0 the kernel chooses the port.
    pub fn start_at(host: &Host, address: SocketAddr) -> Result<HttpServer> {
        let listener =
            host.run(|| listen(address).with_context(|| format!("cannot listen on {address}")))?;
        let address = listener.local_addr()?;
        let name = host.name().to_owned();
        let counts = Arc::new(Counts::default());
        let (whose, seen) = (Arc::from(name.as_str()), Arc::clone(&counts));
        let work = Background::start(host, move |stop| serve(listener, whose, seen, stop))?;
        Ok(HttpServer {
            name,
            address,
            counts,
            work,
        })
    }

    /// The name in its answers: that of its host.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The address and port on which it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Connections accepted so far.
    pub fn connections(&self) -> u64 {
        self.counts.connections.load(Ordering::Relaxed)
    }

    /// Connections open at the moment.
    pub fn open(&self) -> usize {
        self.counts.open.load(Ordering::Relaxed)
    }

    /// Requests answered so far.
    pub fn requests(&self) -> u64 {
        self.counts.requests.load(Ordering::Relaxed)
    }

    /// Bytes received by POST so far.
    pub fn uploaded(&self) -> u64 {
        self.counts.uploaded.load(Ordering::Relaxed)
    }

    /// Ends the server with all its connections. Returns a failure of the server itself.
    pub fn stop(mut self) -> Result<()> {
        self.work.finish()
    }
}

fn listen(address: SocketAddr) -> Result<std::net::TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

async fn serve(
    listener: std::net::TcpListener,
    name: Arc<str>,
    counts: Arc<Counts>,
    mut stop: Stop,
) -> Result<()> {
    let listener = TcpListener::from_std(listener)?;
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let accepted = async {
            let place = Arc::clone(&places).acquire_owned().await?;
            anyhow::Ok((place, listener.accept().await))
        };
        let (place, socket) = tokio::select! {
            accepted = accepted => accepted?,
            () = stop.asked() => return Ok(()),
        };
        // An error of the client before it was accepted is not a failure of the server.
        let Ok((socket, _)) = socket else { continue };
        let (name, counts) = (Arc::clone(&name), Arc::clone(&counts));
        counts.connections.fetch_add(1, Ordering::Relaxed);
        tokio::spawn(async move {
            counts.open.fetch_add(1, Ordering::Relaxed);
            // A client may break off its connection at any time. That is not an error.
            let _ = converse(socket, &name, &counts).await;
            counts.open.fetch_sub(1, Ordering::Relaxed);
            drop(place);
        });
    }
}

async fn converse(socket: TcpStream, name: &str, counts: &Counts) -> Result<()> {
    socket.set_nodelay(true)?;
    let client = canonical(socket.peer_addr()?);
    let address = canonical(socket.local_addr()?);
    let mut stream = Stream::new(socket);
    while let Some(request) = stream.head().await? {
        let close = request.close;
        let mut words = request.start.split(' ');
        let method = words.next().unwrap_or_default();
        let path = words.next().unwrap_or_default();
        if let Some(count) = number(path, "/bytes/") {
            head(&mut stream, "200 OK", name, count, close, b"").await?;
            send_pattern(&mut stream, count).await?;
        } else if let Some(status) = number(path, "/status/") {
            head(
                &mut stream,
                &format!("{status} as asked"),
                name,
                0,
                close,
                b"",
            )
            .await?;
        } else {
            let body = if method == "POST" {
                upload(&mut stream, &request, counts).await?
            } else {
                format!("server {name}\nclient {client}\naddress {address}\n")
            };
            let body = body.as_bytes();
            head(&mut stream, "200 OK", name, body.len() as u64, close, body).await?;
        }
        counts.requests.fetch_add(1, Ordering::Relaxed);
        if close {
            stream.socket.shutdown().await?;
            return Ok(());
        }
    }
    Ok(())
}

/// Writes the head and, with it, a short body.
async fn head(
    stream: &mut Stream,
    status: &str,
    name: &str,
    length: u64,
    close: bool,
    body: &[u8],
) -> Result<()> {
    let connection = if close { "close" } else { "keep-alive" };
    let mut answer = format!(
        "HTTP/1.1 {status}\r\nServer: {name}\r\nContent-Length: {length}\r\n\
         Connection: {connection}\r\n\r\n"
    )
    .into_bytes();
    answer.extend_from_slice(body);
    stream.socket.write_all(&answer).await?;
    Ok(())
}

async fn send_pattern(stream: &mut Stream, count: u64) -> Result<()> {
    let mut pattern = Pattern::new();
    let mut piece = vec![0; PIECE_BYTES];
    let mut left = count;
    while left > 0 {
        let now = piece
            .len()
            .min(usize::try_from(left).unwrap_or(PIECE_BYTES));
        pattern.fill(&mut piece[..now]);
        stream.socket.write_all(&piece[..now]).await?;
        left -= now as u64;
    }
    Ok(())
}

async fn upload(stream: &mut Stream, request: &Head, counts: &Counts) -> Result<String> {
    let mut sum = Sum::new();
    stream
        .body(request.length, |piece| {
            sum.add(piece);
            counts
                .uploaded
                .fetch_add(piece.len() as u64, Ordering::Relaxed);
        })
        .await?;
    Ok(format!("bytes {}\nsum {}\n", request.length, sum.text()))
}

fn number(path: &str, before: &str) -> Option<u64> {
    path.strip_prefix(before)?.parse().ok()
}

/// An IPv4 client of a socket for both families, written as IPv4.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
