//! A stream whose other end must read: what it does not take for a while ends the connection.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use super::places::Places;

/// Others wait for a place among the long answers: so long may one be in their way without being
/// read.
const SHORT: Duration = Duration::from_secs(5);
/// Nobody waits: somebody may be turning pages.
const TURNS: u32 = 60;

/// A stream with bounded patience for its reader.
#[derive(Debug)]
pub struct Patient<S> {
    stream: S,
    places: Places,
    stalled: Option<Pin<Box<Sleep>>>,
    /// How many short times it waited.
    turns: u32,
}

impl<S> Patient<S> {
    pub fn new(stream: S, places: Places) -> Self {
        Self {
            stream,
            places,
            stalled: None,
            turns: 0,
        }
    }

    /// An error in place of waiting longer.
    fn bounded<T>(
        &mut self,
        context: &mut Context<'_>,
        polled: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            (self.stalled, self.turns) = (None, 0);
            return polled;
        }
        loop {
            let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(SHORT)));
            if stalled.as_mut().poll(context).is_pending() {
                return Poll::Pending;
            }
            self.stalled = None;
            self.turns += 1;
            if self.turns >= TURNS || self.places.are_wanted() {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(context, into)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.stream).poll_write(context, bytes);
        this.bounded(context, polled)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.stream).poll_write_vectored(context, bytes);
        this.bounded(context, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}
