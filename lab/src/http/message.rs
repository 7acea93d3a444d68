//! The head of a message, read from a stream that both sides share.

use anyhow::{Context, Result, bail};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

/// A longer head is refused.
const HEAD_BYTES: usize = 16 * 1024;
/// The most bytes that one read takes.
const PIECE_BYTES: usize = 64 * 1024;

/// The start line, and the fields that the lab uses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) start: String,
    pub(crate) length: u64,
    pub(crate) close: bool,
    pub(crate) server: String,
}

/// A connection, and the bytes read from it that are not used yet.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) socket: TcpStream,
    unused: Vec<u8>,
}

impl Stream {
    pub(crate) fn new(socket: TcpStream) -> Stream {
        Stream {
            socket,
            unused: Vec::with_capacity(1024),
        }
    }

    /// Returns the next head, or `None` if the peer closed the connection before one began.
    pub(crate) async fn head(&mut self) -> Result<Option<Head>> {
        loop {
            if let Some(end) = find(&self.unused, b"\r\n\r\n") {
                let head = parse(&self.unused[..end])?;
                self.unused.drain(..end + 4);
                return Ok(Some(head));
            }
            if self.unused.len() > HEAD_BYTES {
                bail!("head longer than {HEAD_BYTES} bytes");
            }
            if self.socket.read_buf(&mut self.unused).await? == 0 {
                if self.unused.is_empty() {
                    return Ok(None);
                }
                bail!("closed in the middle of a head");
            }
        }
    }

    /// Reads a body of `length` bytes piece by piece.
    pub(crate) async fn body(&mut self, length: u64, mut take: impl FnMut(&[u8])) -> Result<()> {
        let early = self
            .unused
            .len()
            .min(usize::try_from(length).unwrap_or(usize::MAX));
        take(&self.unused[..early]);
        self.unused.drain(..early);
        let mut left = length - early as u64;
        if left == 0 {
            return Ok(());
        }
        let mut piece = vec![0; PIECE_BYTES.min(usize::try_from(left).unwrap_or(PIECE_BYTES))];
        while left > 0 {
            let room = piece
                .len()
                .min(usize::try_from(left).unwrap_or(PIECE_BYTES));
            let read = self.socket.read(&mut piece[..room]).await?;
            if read == 0 {
                bail!("closed with {left} of {length} bytes missing");
            }
            take(&piece[..read]);
            left -= read as u64;
        }
        Ok(())
    }
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

fn parse(bytes: &[u8]) -> Result<Head> {
    let text = std::str::from_utf8(bytes).context("head is not text")?;
    let mut lines = text.split("\r\n");
    let mut head = Head {
        start: lines.next().unwrap_or_default().to_owned(),
        ..Head::default()
    };
    // RFC 9112, 9.3: before version 1.1, a connection ends after one message.
    head.close = head.start.contains("HTTP/1.0");
    for line in lines {
        let (name, value) = line.split_once(':').context("field without a colon")?;
        let value = value.trim();
        match name.to_ascii_lowercase().as_str() {
            "content-length" => head.length = value.parse().context("not a length")?,
            "connection" => head.close = value.eq_ignore_ascii_case("close"),
            "server" => value.clone_into(&mut head.server),
            "transfer-encoding" => bail!("chunked bodies are not supported"),
            _ => {}
        }
    }
    Ok(head)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_that_matter_are_read_whatever_their_case() {
        let head =
            parse(b"HTTP/1.1 200 OK\r\nServer: s1\r\nCONTENT-LENGTH: 7\r\nconnection: Close")
                .unwrap();
        let wanted = Head {
            start: "HTTP/1.1 200 OK".into(),
            length: 7,
            close: true,
            server: "s1".into(),
        };
        assert_eq!(head, wanted);
        assert!(parse(b"GET / HTTP/1.0").unwrap().close);
        assert!(parse(b"GET / HTTP/1.1\r\nnonsense").is_err());
    }
}
