//! A stream that ends its connection if the other end does not read for a while.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use super::places::Places;

/// How long a reader may pause while other requests wait for a place.
const SHORT: Duration = Duration::from_secs(5);
/// How many times `SHORT` a reader may pause while no request waits: it may be a person with a
/// pager.
const TURNS: u32 = 60;

/// A stream with a limit on its reader's pauses.
#[derive(Debug)]
pub(super) struct Patient<S> {
    stream: S,
    places: Places,
    stalled: Option<Pin<Box<Sleep>>>,
    /// How many times `SHORT` the stream has waited.
    turns: u32,
}

impl<S> Patient<S> {
    pub(super) fn new(stream: S, places: Places) -> Self {
        Self {
            stream,
            places,
            stalled: None,
            turns: 0,
        }
    }

    /// Turns a wait into an error once it is too long.
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
