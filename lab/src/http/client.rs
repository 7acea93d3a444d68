//! One client's connection.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream};

use super::message::{Head, Stream};

#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) stream: Stream,
    host: String,
}

impl Client {
    /// Connects, from a given address if the host has several addresses.
    pub(crate) async fn connect(to: SocketAddr, from: Option<IpAddr>) -> Result<Client> {
        let socket = match from {
            None => TcpStream::connect(to).await,
            Some(from) => {
                let socket = if to.is_ipv4() {
                    TcpSocket::new_v4()?
                } else {
                    TcpSocket::new_v6()?
                };
                socket.bind(SocketAddr::new(from, 0))?;
                socket.connect(to).await
            }
        }
        .context("connect")?;
        socket.set_nodelay(true)?;
        Ok(Client {
            stream: Stream::new(socket),
            host: to.to_string(),
        })
    }

    /// Sends the head of a request. With a length, the caller must send the body.
    pub(crate) async fn request(
        &mut self,
        method: &str,
        path: &str,
        length: Option<u64>,
        close: bool,
    ) -> Result<()> {
        let connection = if close { "close" } else { "keep-alive" };
        let length = match length {
            Some(length) => format!("Content-Length: {length}\r\n"),
            None => String::new(),
        };
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\n{length}Connection: {connection}\r\n\r\n",
            self.host
        );
        self.stream
            .socket
            .write_all(request.as_bytes())
            .await
            .context("send")
    }

    /// Reads an answer and passes its body to `take`.
    pub(crate) async fn answer(&mut self, take: impl FnMut(&[u8])) -> Result<(u16, Head)> {
        let head = self.stream.head().await.context("answer")?;
        let head = head.context("closed without an answer")?;
        let status = head
            .start
            .split(' ')
            .nth(1)
            .and_then(|word| word.parse().ok());
        let status = status.with_context(|| format!("answer without a status: {}", head.start))?;
        self.stream.body(head.length, take).await.context("body")?;
        Ok((status, head))
    }
}
