//! The client of a real daemon: HTTP/1.1 over its Unix socket, one connection for all requests.

use std::io;
use std::marker::PhantomData;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Method, Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use shunt_model::api::{ConnectionCount, Done, Refusal, ServiceStatus, Statistics, Status};
use shunt_model::batch::{Answer, Batch, Refused};
use shunt_model::change::Change;
use shunt_model::{LocalAddress, MarkRule, ServiceKey, Settings, Timeouts};
use tokio::net::UnixStream;
use tokio::runtime::{Builder, Runtime};

use super::{Client, Connections, Events, Failure, Inputs};

/// The socket of this network namespace's daemon, unless `SHUNT_SOCKET` names another one.
pub fn path() -> io::Result<PathBuf> {
    if let Some(path) = std::env::var_os("SHUNT_SOCKET") {
        return Ok(path.into());
    }
    let namespace = std::fs::metadata("/proc/self/ns/net")?.ino();
    Ok(format!("/run/shunt/{namespace}/api.sock").into())
}

/// A connection to the daemon.
#[derive(Debug)]
pub struct Socket {
    runtime: Runtime,
    sender: SendRequest<Full<Bytes>>,
    path: PathBuf,
}

impl Socket {
    /// Connects to the daemon at `path`.
    pub fn open(path: &Path) -> Result<Self, Failure> {
        let failed = |source| not_connected(path, source);
        let runtime = Builder::new_current_thread()
            .enable_io()
            .build()
            .map_err(failed)?;
        let sender = runtime.block_on(connect(path))?;
        Ok(Self {
            runtime,
            sender,
            path: path.to_owned(),
        })
    }

    /// Sends a request, and returns the answer whatever its status is.
    fn exchange(&mut self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, Failure> {
        let sender = &mut self.sender;
        let path = &self.path;
        self.runtime.block_on(async {
            let lost = |error| not_connected(path, io::Error::other(error));
            let _ = sender.ready().await;
            let answer = match sender.try_send_request(request).await {
                Ok(answer) => answer,
                Err(mut error) => match error.take_message() {
                    // The daemon closed the connection because it was idle. Nothing was sent.
                    Some(request) => {
                        *sender = connect(path).await?;
                        sender.send_request(request).await.map_err(lost)?
                    }
                    None => return Err(lost(error.into_error())),
                },
            };
            Ok(answer)
        })
    }

    /// Sends a request. Any status other than success is a failure.
    fn send(&mut self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, Failure> {
        let answer = self.exchange(request)?;
        self.checked(answer)
    }

    fn checked(&self, answer: Response<Incoming>) -> Result<Response<Incoming>, Failure> {
        match answer.status() {
            StatusCode::OK => Ok(answer),
            StatusCode::FORBIDDEN => Err(Failure::NotPermitted {
                path: self.path.clone(),
            }),
            StatusCode::CONFLICT
            | StatusCode::UNPROCESSABLE_ENTITY
            | StatusCode::SERVICE_UNAVAILABLE => Err(Failure::Refused(self.answer(answer)?)),
            other => Err(broken(format!("status {other}"))),
        }
    }

    fn get<T: DeserializeOwned>(&mut self, target: &str) -> Result<T, Failure> {
        let answer = self.send(request(Method::GET, target, Bytes::new())?)?;
        self.answer(answer)
    }

    fn post<T: DeserializeOwned>(
        &mut self,
        target: &str,
        body: &impl Serialize,
    ) -> Result<T, Failure> {
        let body = serde_json::to_vec(body).map_err(broken)?;
        let answer = self.send(request(Method::POST, target, body.into())?)?;
        self.answer(answer)
    }

    fn lines<Line>(&mut self, target: &str) -> Result<Lines<'_, Line>, Failure> {
        let answer = self.send(request(Method::GET, target, Bytes::new())?)?;
        Ok(Lines {
            runtime: &self.runtime,
            body: answer.into_body(),
            piece: Vec::new(),
            next: 0,
            ended: false,
            of: PhantomData,
        })
    }

    fn answer<T: DeserializeOwned>(&self, answer: Response<Incoming>) -> Result<T, Failure> {
        let body = self.runtime.block_on(answer.into_body().collect());
        serde_json::from_slice(&body.map_err(broken)?.to_bytes()).map_err(broken)
    }
}

async fn connect(path: &Path) -> Result<SendRequest<Full<Bytes>>, Failure> {
    let stream = UnixStream::connect(path).await;
    let stream = stream.map_err(|source| not_connected(path, source))?;
    let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(broken)?;
    // The task ends with the runtime. Each request reports the connection's errors itself.
    tokio::spawn(connection);
    Ok(sender)
}

impl Client for Socket {
    fn change(&mut self, change: &Change) -> Result<Done, Failure> {
        self.post("/v1/change", change)
    }

    fn batch(&mut self, batch: &Batch) -> Result<Vec<Refused>, Failure> {
        let body = serde_json::to_vec(batch).map_err(broken)?;
        let answer = self.exchange(request(Method::POST, "/v1/batch", body.into())?)?;
        let answer: Answer = match answer.status() {
            StatusCode::CONFLICT => self.answer(answer)?,
            _ => self
                .checked(answer)
                .and_then(|answer| self.answer(answer))?,
        };
        match answer {
            // Refused for a reason that is not that of one change.
            Answer {
                reason: Some(reason),
                text: Some(text),
                refused,
            } if refused.is_empty() => Err(Failure::Refused(Refusal { reason, text })),
            Answer { refused, .. } => Ok(refused),
        }
    }

    fn services(&mut self) -> Result<Vec<ServiceStatus>, Failure> {
        self.get("/v1/services")
    }

    fn service(&mut self, key: &ServiceKey) -> Result<Option<ServiceStatus>, Failure> {
        let key_text = key.to_string().replace(' ', "/");
        let services: Vec<ServiceStatus> = self.get(&format!("/v1/services?key={key_text}"))?;
        let mut services = services.into_iter();
        // An older daemon ignores the key and returns all services.
        Ok(services.find(|status| status.service.key == *key))
    }

    fn connections(&mut self) -> Result<Connections<'_>, Failure> {
        Ok(Box::new(self.lines("/v1/connections")?))
    }

    fn events(&mut self, follow: bool) -> Result<Events<'_>, Failure> {
        Ok(Box::new(self.lines(match follow {
            true => "/v1/events?follow=true",
            false => "/v1/events",
        })?))
    }

    fn inputs(&mut self) -> Result<Inputs<'_>, Failure> {
        Ok(Box::new(self.lines("/v1/inputs")?))
    }

    fn connection_count(&mut self) -> Result<ConnectionCount, Failure> {
        self.get("/v1/connections/count")
    }

    fn timeouts(&mut self) -> Result<Timeouts, Failure> {
        self.get("/v1/timeouts")
    }

    fn settings(&mut self) -> Result<Settings, Failure> {
        self.get("/v1/settings")
    }

    fn marks(&mut self) -> Result<Vec<MarkRule>, Failure> {
        self.get("/v1/marks")
    }

    fn locals(&mut self) -> Result<Vec<LocalAddress>, Failure> {
        self.get("/v1/locals")
    }

    fn statistics(&mut self) -> Result<Statistics, Failure> {
        self.get("/v1/statistics")
    }

    fn status(&mut self) -> Result<Status, Failure> {
        self.get("/v1/status")
    }
}

fn request(method: Method, target: &str, body: Bytes) -> Result<Request<Full<Bytes>>, Failure> {
    Request::builder()
        .method(method)
        .uri(target)
        .header(header::HOST, "shunt")
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::new(body))
        .map_err(broken)
}

/// Values of one line each, read from the answer piece by piece.
struct Lines<'a, Line> {
    runtime: &'a Runtime,
    body: Incoming,
    /// Received bytes. Those from `next` on were not returned yet.
    piece: Vec<u8>,
    next: usize,
    ended: bool,
    of: PhantomData<Line>,
}

impl<Line: DeserializeOwned> Iterator for Lines<'_, Line> {
    type Item = Result<Line, Failure>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(entry) = self.take_line() {
                return Some(entry);
            }
            if self.ended {
                return None;
            }
            match self.runtime.block_on(self.body.frame()) {
                None => self.ended = true,
                Some(Ok(frame)) => {
                    // What is left is a part of a line.
                    self.piece.drain(..self.next);
                    self.next = 0;
                    let more = frame.into_data().unwrap_or_default();
                    self.piece.extend_from_slice(&more);
                }
                Some(Err(error)) => {
                    self.ended = true;
                    self.piece.clear();
                    self.next = 0;
                    return Some(Err(broken(error)));
                }
            }
        }
    }
}

impl<Line: DeserializeOwned> Lines<'_, Line> {
    /// Returns the next line that is not empty. The last line may lack its newline.
    fn take_line(&mut self) -> Option<Result<Line, Failure>> {
        loop {
            let rest = self.piece.get(self.next..).unwrap_or_default();
            let (line, length) = match rest.iter().position(|&byte| byte == b'\n') {
                Some(end) => (rest.get(..end).unwrap_or_default(), end + 1),
                None if self.ended && !rest.is_empty() => (rest, rest.len()),
                None => return None,
            };
            self.next += length;
            if !line.trim_ascii().is_empty() {
                return Some(serde_json::from_slice(line).map_err(broken));
            }
        }
    }
}

fn not_connected(path: &Path, source: io::Error) -> Failure {
    let path = path.to_owned();
    match source.kind() {
        io::ErrorKind::PermissionDenied => Failure::NotPermitted { path },
        _ => Failure::NotReachable { path, source },
    }
}

fn broken(error: impl ToString) -> Failure {
    Failure::Broken(error.to_string())
}
