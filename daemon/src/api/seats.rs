//! Seats: the connections to the API, and which of them ends when there are too many.
//!
//! An idle connection keeps its seat until another client needs it. So idle connections never shut
//! out a client, and clients never take all the descriptors that the daemon needs for devices and
//! files.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::task::AbortHandle;
use tokio::time::timeout;

/// The most connections at the same time.
pub(super) const SEATS: usize = 256;
/// How long a connection must be idle before it may be ended: the last bytes of its answer may
/// still be on their way.
const GRACE: Duration = Duration::from_millis(500);
/// The pause before the next search for a connection that is idle for long enough.
const PAUSE: Duration = Duration::from_millis(50);

/// All seats.
#[derive(Clone, Debug)]
pub(super) struct Seats(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    free: Arc<Semaphore>,
    taken: Mutex<BTreeMap<u64, Taken>>,
    /// A connection became idle or ended.
    changed: Notify,
}

#[derive(Debug)]
struct Taken {
    /// The time since which no request is under way.
    idle: Option<Instant>,
    /// The handle that ends the connection, once its task is known.
    task: Option<AbortHandle>,
}

/// A seat. Its drop frees it.
#[derive(Debug)]
pub(super) struct Seat {
    seats: Seats,
    number: u64,
    _permit: OwnedSemaphorePermit,
}

/// A request is under way.
#[derive(Debug)]
pub(super) struct Busy {
    seats: Seats,
    number: u64,
}

impl Seats {
    pub(super) fn new(seats: usize) -> Self {
        Self(Arc::new(Shared {
            free: Arc::new(Semaphore::new(seats)),
            taken: Mutex::default(),
            changed: Notify::new(),
        }))
    }

    fn taken(&self) -> MutexGuard<'_, BTreeMap<u64, Taken>> {
        self.0.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a seat for the next connection. If none is free, the connection that is idle for the
    /// longest ends.
    pub(super) async fn take(&self, number: u64) -> Seat {
        let permit = loop {
            if let Ok(permit) = self.0.free.clone().try_acquire_owned() {
                break permit;
            }
            self.send_away();
            let _ = timeout(PAUSE, self.0.changed.notified()).await;
        };
        let taken = Taken {
            idle: Some(Instant::now()),
            task: None,
        };
        self.taken().insert(number, taken);
        Seat {
            seats: self.clone(),
            number,
            _permit: permit,
        }
    }

    /// Ends the connection that is idle for the longest, if it is idle for long enough.
    fn send_away(&self) {
        let mut taken = self.taken();
        let idle = taken.iter().filter_map(|(number, taken)| {
            let since = taken.idle?;
            (since.elapsed() >= GRACE).then_some((since, *number))
        });
        let Some((_, number)) = idle.min() else {
            return;
        };
        if let Some(task) = taken.remove(&number).and_then(|taken| taken.task) {
            task.abort();
        }
    }

    /// Notes the task that serves a seat.
    pub(super) fn serve_by(&self, number: u64, task: AbortHandle) {
        if let Some(taken) = self.taken().get_mut(&number) {
            taken.task = Some(task);
        }
    }

    /// Begins a request; `None` if the seat was just given away.
    pub(super) fn begin(&self, number: u64) -> Option<Busy> {
        self.taken().get_mut(&number)?.idle = None;
        Some(Busy {
            seats: self.clone(),
            number,
        })
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        if let Some(taken) = self.seats.taken().get_mut(&self.number) {
            taken.idle = Some(Instant::now());
        }
        self.seats.0.changed.notify_one();
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.seats.taken().remove(&self.number);
        self.seats.0.changed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_is_idle_for_the_longest_leaves_and_who_is_busy_stays() {
        let seats = Seats::new(3);
        let mut tasks = Vec::new();
        for number in 0..3 {
            let seat = seats.take(number).await;
            let task = tokio::spawn(async move {
                let _seat = seat;
                std::future::pending::<()>().await;
            });
            seats.serve_by(number, task.abort_handle());
            tasks.push(task);
        }
        let busy = seats.begin(0).unwrap();

        let _fourth = seats.take(3).await;

        assert!(tasks.remove(1).await.unwrap_err().is_cancelled());
        assert!(seats.begin(1).is_none());
        assert!(seats.begin(2).is_some());
        drop(busy);
        tasks.iter().for_each(tokio::task::JoinHandle::abort);
    }
}
