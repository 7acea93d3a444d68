//! Load in a closed loop: each worker sends its next request when the last one is answered.
//!
//! A worker never retries in silence. Everything that a user would see as an error counts as one.

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

/// A worker waits this long after a failure, so that a dead service does not get a million
/// requests.
const PAUSE: Duration = Duration::from_millis(5);
const TIME_LIMIT: Duration = Duration::from_secs(600);
/// The limit of different failures and server names. Any beyond it count as "other".
const KINDS: usize = 64;

/// The requests to send, and how. `start` starts the load.
#[derive(Clone, Debug)]
pub struct HttpLoad {
    /// At least one address.
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
    /// Four workers that keep their connections and request `/`, until stopped.
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

    /// Adds an address. The workers are distributed over all addresses in turn.
    pub fn also(mut self, to: SocketAddr) -> HttpLoad {
        self.to.push(to);
        self
    }

    /// Connects from this address of the client.
    pub fn from(mut self, address: IpAddr) -> HttpLoad {
        self.from = Some(address);
        self
    }

    /// Asks for this path instead of `/`.
    pub fn path(mut self, path: &str) -> HttpLoad {
        path.clone_into(&mut self.path);
        self
    }

    /// Sets the number of workers, each of which sends one request after another; at least 1.
    pub fn workers(mut self, workers: usize) -> HttpLoad {
        self.workers = workers.max(1);
        self
    }

    /// Uses a connection for each request, which the server closes.
    pub fn connection_per_request(mut self) -> HttpLoad {
        self.keep_alive = false;
        self
    }

    /// Ends the load after this many requests.
    pub fn requests(mut self, requests: u64) -> HttpLoad {
        self.requests = requests;
        self
    }

    /// Ends the load after this time, at most ten minutes.
    pub fn time(mut self, time: Duration) -> HttpLoad {
        self.time = time.min(TIME_LIMIT);
        self
    }

    /// Sets how long a worker waits for an answer, including the time to connect.
    pub fn patience(mut self, patience: Duration) -> HttpLoad {
        self.patience = patience;
        self
    }

    /// Starts the load from this host.
    pub fn start(self, host: &Host) -> Result<RunningLoad> {
        let record = Arc::new(Record::new());
        let seen = Arc::clone(&record);
        let work = Background::start(host, move |stop| drive(self, seen, stop))?;
        Ok(RunningLoad { record, work })
    }

    /// Starts the load and waits until it ends by requests or by time.
    pub fn run(self, host: &Host) -> Result<LoadReport> {
        let limit = self.time + self.patience + Duration::from_secs(1);
        self.start(host)?.finish(limit)
    }
}

/// A running load. Dropping it ends it.
#[derive(Debug)]
pub struct RunningLoad {
    record: Arc<Record>,
    work: Background,
}

impl RunningLoad {
    /// The report so far.
    pub fn so_far(&self) -> LoadReport {
        self.record.report()
    }

    /// Waits until the condition holds for the report.
    pub fn wait_for(
        &self,
        what: &str,
        limit: Duration,
        mut condition: impl FnMut(&LoadReport) -> bool,
    ) -> Result<()> {
        until(what, limit, || Ok(condition(&self.so_far())))
    }

    /// Stops the load and returns the report. Requests that are not answered yet do not count.
    pub fn stop(mut self) -> Result<LoadReport> {
        self.work.finish()?;
        Ok(self.record.end())
    }

    /// Waits until the load ends by itself, and returns the report.
    pub fn finish(self, limit: Duration) -> Result<LoadReport> {
        until("the load to end", limit, || Ok(!self.work.is_running()))?;
        self.stop()
    }
}

/// The result of a load, as users would see it.
#[derive(Clone, Debug, Default)]
pub struct LoadReport {
    /// Good answers.
    pub ok: u64,
    /// The number of failures of each kind.
    pub failures: BTreeMap<String, u64>,
    /// The number of good answers of each server.
    pub servers: BTreeMap<String, u64>,
    /// Connections that were opened.
    pub connections: u64,
    /// Latencies of good answers; with a connection per request, the time to connect is included.
    pub latency: Latency,
    /// The longest time during which no worker received a good answer.
    pub worst_gap: Duration,
    /// From the start to the end, or to the question.
    pub elapsed: Duration,
}

impl LoadReport {
    /// Requests without a good answer.
    pub fn failed(&self) -> u64 {
        self.failures.values().sum()
    }

    /// Good answers per second.
    pub fn rate(&self) -> f64 {
        self.ok as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }

    /// The share of good answers that came from a server, between 0 and 1.
    pub fn share(&self, server: &str) -> f64 {
        let own = self.servers.get(server).copied().unwrap_or(0);
        if self.ok == 0 {
            0.0
        } else {
            own as f64 / self.ok as f64
        }
    }
}

/// The counters that the workers share.
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
            done.context("a worker of the load panicked")?;
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

/// Makes one request. Returns the server's name, and the connection if it can be used again.
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

/// Names a failure. The same kind of failure always has the same name.
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
