//! Places for long answers: listings of connections and of all services.
//!
//! Each long answer needs a place, so that neither memory nor threads grow with the number of
//! readers. A few more requests wait for a place. Any further request is refused at once.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use http_body_util::BodyExt;
use hyper::body::{Frame, SizeHint};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// The most long answers at the same time.
pub(super) const PLACES: usize = 8;
/// The most requests that wait for a place.
pub(super) const WAITING: usize = 16;
/// The longest wait for a place.
const LONGEST: Duration = Duration::from_secs(10);
/// Bytes of one piece of a long answer.
const PIECE: usize = 1 << 16;

/// A place. The answer holds it until the answer is sent.
pub type Place = OwnedSemaphorePermit;

/// All places.
#[derive(Clone, Debug)]
pub(super) struct Places {
    free: Arc<Semaphore>,
    waiting: Arc<AtomicUsize>,
}

impl Default for Places {
    fn default() -> Self {
        Self {
            free: Arc::new(Semaphore::new(PLACES)),
            waiting: Arc::default(),
        }
    }
}

impl Places {
    /// Whether a request waits for a place.
    pub(super) fn are_wanted(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }

    /// Takes a place, and waits if all are taken; `None` if none becomes free.
    pub(super) async fn take(&self) -> Option<Place> {
        if let Ok(place) = self.free.clone().try_acquire_owned() {
            return Some(place);
        }
        let waiter = Waiter(&self.waiting);
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= WAITING {
            return None;
        }
        let place = timeout(LONGEST, self.free.clone().acquire_owned()).await;
        drop(waiter);
        place.ok()?.ok()
    }
}

/// A waiting request. Its drop counts it out, also when its client is gone.
struct Waiter<'a>(&'a AtomicUsize);

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A body that holds a value until it is sent or dropped.
#[derive(Debug)]
pub(super) struct Holding<T> {
    body: Body,
    _held: T,
}

impl<T: Send + Unpin + 'static> Holding<T> {
    pub(super) fn body(body: Body, held: T) -> Body {
        Body::new(Self { body, _held: held })
    }
}

impl<T: Unpin> HttpBody for Holding<T> {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.get_mut().body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A body that sends a long text piece by piece.
pub(super) fn in_pieces(text: Bytes) -> Body {
    let mut left = text;
    let pieces = futures_util::stream::poll_fn(move |_| {
        if left.is_empty() {
            return Poll::Ready(None);
        }
        let piece = left.split_to(left.len().min(PIECE));
        Poll::Ready(Some(Ok::<Bytes, std::convert::Infallible>(piece)))
    });
    Body::new(Body::from_stream(pieces).boxed_unsync())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_ninth_waits_and_the_twenty_fifth_is_told_at_once() {
        let places = Places::default();
        let mut taken = Vec::new();
        for _ in 0..PLACES {
            taken.extend(places.take().await);
        }
        assert_eq!((taken.len(), places.are_wanted()), (PLACES, false));

        let waiter = |_| {
            tokio::spawn({
                let places = places.clone();
                async move { places.take().await.is_some() }
            })
        };
        let waiters: Vec<_> = (0..WAITING).map(waiter).collect();
        tokio::task::yield_now().await;
        assert!(places.are_wanted());
        let asked = tokio::time::Instant::now();
        assert!(places.take().await.is_none());
        assert_eq!(asked.elapsed(), Duration::ZERO);

        taken.clear();
        for waiter in waiters {
            assert!(waiter.await.unwrap());
        }
        assert!(!places.are_wanted());
    }
}
