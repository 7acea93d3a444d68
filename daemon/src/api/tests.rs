//! Tests with misbehaving clients at a real socket.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::*;

const LIMIT: Duration = Duration::from_secs(60);

/// A served API whose task answers timeouts and lists without an end.
struct Served {
    path: PathBuf,
    listings: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
}

impl Served {
    fn start(name: &str, group: Option<u32>) -> Self {
        let path = std::env::temp_dir().join(format!("shunt-api-{}-{name}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(&path).unwrap();
        let (asks, mut heard) = mpsc::channel(64);
        tokio::spawn(serve(listener, asks, group));
        let served = Self {
            path,
            listings: Arc::default(),
            most: Arc::default(),
        };
        let (listings, most) = (served.listings.clone(), served.most.clone());
        tokio::spawn(async move {
            while let Some(ask) = heard.recv().await {
                match ask {
                    Ask::Connections(lines, place) => {
                        let now = listings.fetch_add(1, Ordering::SeqCst) + 1;
                        most.fetch_max(now, Ordering::SeqCst);
                        let listings = listings.clone();
                        tokio::spawn(async move {
                            while lines.send(Bytes::from(vec![b'\n'; 1 << 16])).await.is_ok() {}
                            listings.fetch_sub(1, Ordering::SeqCst);
                            drop(place);
                        });
                    }
                    Ask::Timeouts(answer) => drop(answer.send(Timeouts::default())),
                    other => drop(other),
                }
            }
        });
        served
    }

    async fn connect(&self) -> UnixStream {
        // The backlog of a local socket is short, so a connection may be refused.
        loop {
            match UnixStream::connect(&self.path).await {
                Ok(stream) => return stream,
                Err(_) => tokio::task::yield_now().await,
            }
        }
    }

    /// The first bytes of an answer.
    async fn get(&self, path: &str) -> String {
        let mut stream = self.connect().await;
        let request = format!("GET {path} HTTP/1.1\r\nhost: shunt\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut bytes = [0; 32];
        let read = stream.read(&mut bytes).await.unwrap_or_default();
        String::from_utf8_lossy(&bytes[..read]).into_owned()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

fn own_group() -> Option<u32> {
    Some(nix::unistd::getgid().as_raw())
}

async fn is_answered(served: &Served) {
    let answer = timeout(LIMIT, served.get("/v1/timeouts")).await;
    let answer = answer.expect("no answer in a minute");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[tokio::test]
async fn idle_connections_shut_nobody_out() {
    let served = Served::start("idle", own_group());
    let mut idle = Vec::new();
    for _ in 0..600 {
        let stream = timeout(LIMIT, served.connect()).await;
        idle.push(stream.expect("no seat in a minute"));
    }
    is_answered(&served).await;
}

#[tokio::test]
async fn listings_that_nobody_reads_are_few_and_in_nobodys_way() {
    let served = Served::start("unread", own_group());
    let mut unread = Vec::new();
    for _ in 0..100 {
        let mut stream = served.connect().await;
        let request = b"GET /v1/connections HTTP/1.1\r\nhost: shunt\r\n\r\n";
        stream.write_all(request).await.unwrap();
        unread.push(stream);
    }
    is_answered(&served).await;
    assert!(served.most.load(Ordering::SeqCst) <= places::PLACES);
}

#[tokio::test]
async fn who_may_not_ask_is_told_so() {
    let may = peer::administers(std::process::id() as i32);
    let served = Served::start("stranger", None);
    let answer = served.get("/v1/timeouts").await;
    let wanted = if may { "HTTP/1.1 200" } else { "HTTP/1.1 403" };
    assert!(answer.starts_with(wanted), "{answer}");
}

#[tokio::test]
async fn what_is_no_request_is_refused_and_the_next_one_answered() {
    let (asks, _heard) = mpsc::channel(1);
    let api = Inside::new(asks);
    for (method, path, body, status) in [
        ("POST", "/v1/change", "", 422),
        ("POST", "/v1/change", "{\"change\":\"x\"}", 422),
        ("POST", "/v1/change", "[]", 422),
        ("GET", "/v1/change", "", 405),
        ("GET", "/", "", 404),
        ("GET", "/v1/services?key=nothing", "", 422),
    ] {
        let answer = api.ask(method, path, body.into()).await;
        assert_eq!(answer, Some(status), "{method} {path} {body}");
    }
    let long = api.ask("POST", "/v1/change", vec![b' '; LARGEST + 1]).await;
    assert_eq!(long, Some(422));
}
