//! Load in a closed loop: each worker asks again when it was answered.
//!
//! It never retries in silence: whatever a user would have seen as an error is counted as one.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::client::Client;
use crate::background::{Background, Stop};
use crate::host::Host;
use crate::latency::Latency;
use crate::wait::until;

/// A worker that failed waits a moment, so that a dead service is not asked a million times.
const PAUSE: Duration = Duration::from_millis(5);
const TIME_LIMIT: Duration = Duration::from_secs(600);
/// Kinds of failure and names of servers are few; whatever comes beyond goes under "other".
const KINDS: usize = 64;

/// What to ask and how; `start` sets it going.
#[derive(Clone, Debug)]
pub struct HttpLoad {
    /// At least one.
    to: Vec<SocketAddr>,
    from: Option<IpAddr>,
    path: String,
    workers: usize,
    keep_alive: bool,
    requests: u64,
    time: Duration,
    patience: Duration,
}

impl HttpLoad {
    /// Four workers that keep their connections and ask for `/`, until stopped.
    pub fn to(to: SocketAddr) -> HttpLoad {
        HttpLoad {
            to: vec![to],
            from: None,
            path: "/".to_owned(),
            workers: 4,
            keep_alive: true,
            requests: u64::MAX,
            time: TIME_LIMIT,
            patience: Duration::from_secs(5),
        }
    }

    /// Asks here too: the workers are dealt out to all addresses in turn.
    pub fn also(mut self, to: SocketAddr) -> HttpLoad {
        self.to.push(to);
        self
    }

    /// Connects from this address of the client.
    pub fn from(mut self, address: IpAddr) -> HttpLoad {
        self.from = Some(address);
        self
    }

    pub fn path(mut self, path: &str) -> HttpLoad {
        path.clone_into(&mut self.path);
        self
    }

    pub fn workers(mut self, workers: usize) -> HttpLoad {
        self.workers = workers.max(1);
        self
    }

    /// A connection for each request, closed by the server.
    pub fn connection_per_request(mut self) -> HttpLoad {
        self.keep_alive = false;
        self
    }

    /// Ends after this many requests.
    pub fn requests(mut self, requests: u64) -> HttpLoad {
        self.requests = requests;
        self
    }

    /// Ends after this time, at most ten minutes.
    pub fn time(mut self, time: Duration) -> HttpLoad {
        self.time = time.min(TIME_LIMIT);
        self
    }

    /// How long a worker waits for an answer, the connection included.
    pub fn patience(mut self, patience: Duration) -> HttpLoad {
        self.patience = patience;
        self
    }

    pub fn start(self, host: &Host) -> Result<RunningLoad> {
        let record = Arc::new(Record::new());
        let seen = Arc::clone(&record);
        let work = Background::start(host, move |stop| drive(self, seen, stop))?;
        Ok(RunningLoad { record, work })
    }

    /// Starts it and waits for its own end: by requests or by time.
    pub fn run(self, host: &Host) -> Result<LoadReport> {
        let limit = self.time + self.patience + Duration::from_secs(1);
        self.start(host)?.finish(limit)
    }
}

/// A load under way; ends when dropped.
#[derive(Debug)]
pub struct RunningLoad {
    record: Arc<Record>,
    work: Background,
}

impl RunningLoad {
    /// What happened so far.
    pub fn so_far(&self) -> LoadReport {
        self.record.report()
    }

    /// Waits until the report says something.
    pub fn wait_for(
        &self,
        what: &str,
        limit: Duration,
        mut condition: impl FnMut(&LoadReport) -> bool,
    ) -> Result<()> {
        until(what, limit, || Ok(condition(&self.so_far())))
    }

    /// Stops and reports. Requests under way are not counted.
    pub fn stop(mut self) -> Result<LoadReport> {
        self.work.finish()?;
        Ok(self.record.end())
    }

    /// Waits for the load's own end and reports.
    pub fn finish(self, limit: Duration) -> Result<LoadReport> {
        until("the load to end", limit, || Ok(!self.work.is_running()))?;
        self.stop()
    }
}

/// What a user would have seen.
#[derive(Clone, Debug, Default)]
pub struct LoadReport {
    pub ok: u64,
    /// How often what went wrong.
    pub failures: BTreeMap<String, u64>,
    /// Good answers of each server.
    pub servers: BTreeMap<String, u64>,
    pub connections: u64,
    /// Of good answers; with a connection per request, its opening included.
    pub latency: Latency,
    /// The longest time in which no good answer came to any worker.
    pub worst_gap: Duration,
    pub elapsed: Duration,
}

impl LoadReport {
    pub fn failed(&self) -> u64 {
        self.failures.values().sum()
    }

    /// Good answers a second.
    pub fn rate(&self) -> f64 {
        self.ok as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }

    /// The part of good answers that came from a server, between 0 and 1.
    pub fn share(&self, server: &str) -> f64 {
        let own = self.servers.get(server).copied().unwrap_or(0);
        if self.ok == 0 {
            0.0
        } else {
            own as f64 / self.ok as f64
        }
    }
}

/// What workers write down.
#[derive(Debug)]
struct Record {
    begun: AtomicU64,
    start: Instant,
    page: Mutex<Page>,
}

#[derive(Debug)]
struct Page {
    report: LoadReport,
    last_success: Instant,
    ended: bool,
}

impl Record {
    fn new() -> Record {
        let start = Instant::now();
        let page = Page {
            report: LoadReport::default(),
            last_success: start,
            ended: false,
        };
        Record {
            begun: AtomicU64::new(0),
            start,
            page: Mutex::new(page),
        }
    }

    fn page(&self) -> MutexGuard<'_, Page> {
        self.page.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn succeeded(&self, server: &str, latency: Duration) {
        let mut page = self.page();
        page.gap_ends();
        page.report.ok += 1;
        page.report.latency.add(latency);
        count(&mut page.report.servers, server);
    }

    fn failed(&self, error: &anyhow::Error) {
        count(&mut self.page().report.failures, &kind(error));
    }

    fn connected(&self) {
        self.page().report.connections += 1;
    }

    fn report(&self) -> LoadReport {
        let mut page = self.page();
        if !page.ended {
            page.report.elapsed = self.start.elapsed();
        }
        page.report.clone()
    }

    fn end(&self) -> LoadReport {
        let mut page = self.page();
        if !page.ended {
            page.gap_ends();
            page.report.elapsed = self.start.elapsed();
            page.ended = true;
        }
        page.report.clone()
    }
}

impl Page {
    fn gap_ends(&mut self) {
        let now = Instant::now();
        let gap = now.saturating_duration_since(self.last_success);
        self.report.worst_gap = self.report.worst_gap.max(gap);
        self.last_success = now;
    }
}

async fn drive(load: HttpLoad, record: Arc<Record>, mut stop: Stop) -> Result<()> {
    let load = Arc::new(load);
    let mut workers = JoinSet::new();
    for to in load.to.iter().cycle().take(load.workers) {
        workers.spawn(work(*to, Arc::clone(&load), Arc::clone(&record)));
    }
    let all = async {
        while let Some(done) = workers.join_next().await {
            done.context("a worker of the load ended by a fault of its own")?;
        }
        Ok(())
    };
    let result = tokio::select! {
        result = timeout(load.time, all) => result.unwrap_or(Ok(())),
        () = stop.asked() => Ok(()),
    };
    record.end();
    result
}

async fn work(to: SocketAddr, load: Arc<HttpLoad>, record: Arc<Record>) {
    let mut kept = None;
    while record.begun.fetch_add(1, Ordering::Relaxed) < load.requests {
        let begin = Instant::now();
        let asked = timeout(load.patience, ask(to, &load, &record, kept.take()));
        match asked
            .await
            .unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut).into()))
        {
            Ok((server, client)) => {
                record.succeeded(&server, begin.elapsed());
                kept = client;
            }
            Err(error) => {
                record.failed(&error);
                sleep(PAUSE).await;
            }
        }
    }
}

/// One request; returns who answered, and the connection if it may be used again.
async fn ask(
    to: SocketAddr,
    load: &HttpLoad,
    record: &Record,
    kept: Option<Client>,
) -> Result<(String, Option<Client>)> {
    let mut client = match kept {
        Some(client) => client,
        None => {
            let client = Client::connect(to, load.from).await?;
            record.connected();
            client
        }
    };
    client
        .request("GET", &load.path, None, !load.keep_alive)
        .await?;
    let (status, head) = client.answer(|_| {}).await?;
    anyhow::ensure!(status == 200, "answered {status}");
    let kept = (load.keep_alive && !head.close).then_some(client);
    Ok((head.server, kept))
}

/// What went wrong, in words that are the same for the same thing.
fn kind(error: &anyhow::Error) -> String {
    let stage = error.to_string();
    match error
        .chain()
        .find_map(|cause| cause.downcast_ref::<io::Error>())
    {
        Some(cause) if cause.kind() == io::ErrorKind::TimedOut => "timed out".to_owned(),
        Some(cause) => format!("{stage}: {}", cause.kind()),
        None => stage,
    }
}

fn count(counts: &mut BTreeMap<String, u64>, name: &str) {
    let name = if counts.len() < KINDS || counts.contains_key(name) {
        name
    } else {
        "other"
    };
    *counts.entry(name.to_owned()).or_default() += 1;
}
