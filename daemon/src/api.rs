//! The HTTP API on the local socket: a request becomes a question to the daemon's task.
//!
//! The daemon's task never waits for a client. The number of connections is limited (`seats.rs`),
//! and so is the number of long answers (`places.rs`). A client that does not read is disconnected
//! (`patience.rs`).

mod patience;
mod peer;
mod places;
mod seats;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Query, State};
use axum::http::{Request, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use futures_util::StreamExt;
use hyper::body::Incoming;
use hyper::service::Service;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use serde::Serialize;
use serde::de::DeserializeOwned;
use shunt_model::api::{ConnectionCount, Done, Reason, Refusal, ServiceStatus, Statistics, Status};
use shunt_model::batch::{Answer, Batch};
use shunt_model::change::Change;
use shunt_model::{LocalAddress, MarkRule, ServiceKey, Settings, Timeouts};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{Semaphore, broadcast, mpsc, oneshot};
use tokio::time::timeout;

use patience::Patient;
use places::{Holding, Places, in_pieces};
use seats::{SEATS, Seats};

use crate::events::Account;

pub use peer::administers;
pub use places::Place;

/// A question to the daemon's task, with the channel for its answer.
#[derive(Debug)]
pub enum Ask {
    /// Make a change.
    Change(Box<Change>, oneshot::Sender<Result<Done, Refusal>>),
    /// Make the changes of a batch.
    Batch(Box<Batch>, oneshot::Sender<Result<Answer, Refusal>>),
    /// All services, or the one with this key.
    Services(Option<ServiceKey>, oneshot::Sender<Vec<ServiceStatus>>),
    /// Lines of JSON, many in one piece. The thread that makes them holds the place.
    Connections(mpsc::Sender<Bytes>, Option<Place>),
    /// How many entries each state has. The thread that counts holds the place.
    Count(oneshot::Sender<ConnectionCount>, Option<Place>),
    /// The timeouts of `ipvsadm --set`.
    Timeouts(oneshot::Sender<Timeouts>),
    /// The rules that mark packets.
    Marks(oneshot::Sender<Vec<MarkRule>>),
    /// The local addresses of full NAT.
    Locals(oneshot::Sender<Vec<LocalAddress>>),
    /// The director's settings.
    Settings(oneshot::Sender<Settings>),
    /// The counters of the packet path.
    Statistics(oneshot::Sender<Statistics>),
    /// The daemon, its devices and its warnings.
    Status(oneshot::Sender<Status>),
    /// The events that are kept, and a channel for those that follow.
    Events(oneshot::Sender<Account>),
    /// Lines of JSON: the last inputs of control. The thread that makes them holds the place.
    Inputs(mpsc::Sender<Bytes>, Option<Place>),
}

type Asks = mpsc::Sender<Ask>;

/// The most bytes of a request's body. A change is short.
const LARGEST: usize = 1 << 20;
/// The largest batch: every service and server that a table can have.
const LARGEST_BATCH: usize = 1 << 27;
/// The most time for the head of a request to arrive, and then for its body. An idle connection
/// ends after that time too.
const ARRIVAL: Duration = Duration::from_secs(30);
/// The most bytes of an answer that wait for the client.
const BUFFER: usize = 1 << 16;
/// Readers that follow the events at the same time.
const FOLLOWERS: usize = 16;

/// Serves the API for ever. Members of `group` may use it besides the network's administrators.
pub async fn serve(listener: UnixListener, asks: Asks, group: Option<u32>) {
    let places = Places::default();
    let router = router(asks, places.clone());
    let seats = Seats::new(SEATS);
    for number in 0.. {
        let seat = seats.take(number).await;
        let stream = loop {
            match listener.accept().await {
                Ok((stream, _)) => break stream,
                // Most likely no descriptor is free. Other connections will free some.
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        };
        let table = Connection {
            router: TowerToHyperService::new(match peer::may_ask(&stream, group) {
                true => router.clone(),
                false => Router::new().fallback(forbidden),
            }),
            seats: seats.clone(),
            number,
        };
        let places = places.clone();
        let task = tokio::spawn(async move {
            let _seat = seat;
            table.serve(stream, places).await;
        });
        seats.serve_by(number, task.abort_handle());
    }
}

/// One connection.
#[derive(Clone)]
struct Connection {
    router: TowerToHyperService<Router>,
    seats: Seats,
    number: u64,
}

impl Connection {
    async fn serve(self, stream: UnixStream, places: Places) {
        let mut builder = hyper::server::conn::http1::Builder::new();
        builder
            .timer(TokioTimer::new())
            .header_read_timeout(ARRIVAL)
            .max_buf_size(BUFFER);
        let stream = TokioIo::new(Patient::new(stream, places));
        let service = hyper::service::service_fn(move |request: Request<Incoming>| {
            let connection = self.clone();
            async move { Ok::<_, std::convert::Infallible>(connection.answer(request).await) }
        });
        let _ = builder.serve_connection(stream, service).await;
    }

    async fn answer(self, request: Request<Incoming>) -> Response {
        let Some(busy) = self.seats.begin(self.number) else {
            return too_many();
        };
        let Ok(answer) = self.router.call(request).await;
        answer.map(|body| Holding::body(body, busy))
    }
}

/// The state of the handlers.
#[derive(Clone, Debug)]
struct Desk {
    asks: Asks,
    places: Places,
    /// Places for readers that follow the events. They stay for as long as they like, so they have
    /// no place among the long answers.
    followers: Arc<Semaphore>,
}

/// The API. Its questions go to `asks`.
fn router(asks: Asks, places: Places) -> Router {
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/services", get(services))
        .route("/v1/change", post(change))
        .route("/v1/batch", post(batch))
        .route("/v1/connections", get(connections))
        .route("/v1/connections/count", get(count))
        .route("/v1/timeouts", get(timeouts))
        .route("/v1/marks", get(marks))
        .route("/v1/locals", get(locals))
        .route("/v1/settings", get(settings))
        .route("/v1/statistics", get(statistics))
        .route("/v1/events", get(events))
        .route("/v1/inputs", get(inputs))
        .fallback(nothing)
        .with_state(Desk {
            asks,
            places,
            followers: Arc::new(Semaphore::new(FOLLOWERS)),
        })
}

/// The API without its socket, for tests and the fuzzer.
pub struct Inside(TowerToHyperService<Router>);

impl Inside {
    /// An API that passes its questions to `asks`.
    #[must_use]
    pub fn new(asks: mpsc::Sender<Ask>) -> Self {
        Self(TowerToHyperService::new(router(asks, Places::default())))
    }

    /// The status of the answer, once the whole answer has come; `None` if the request is invalid.
    pub async fn ask(&self, method: &str, target: &str, body: Vec<u8>) -> Option<u16> {
        let request = Request::builder().method(method).uri(target);
        let request = request.body(Body::from(body)).ok()?;
        let Ok(answer) = self.0.call(request).await;
        let status = answer.status().as_u16();
        to_bytes(answer.into_body(), usize::MAX).await.ok()?;
        Some(status)
    }
}

fn json(status: StatusCode, value: &impl Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(text) => (status, [(header::CONTENT_TYPE, "application/json")], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

fn refusal(status: StatusCode, reason: Reason, text: &str) -> Response {
    json(
        status,
        &Refusal {
            reason,
            text: text.to_owned(),
        },
    )
}

async fn nothing() -> Response {
    let text = "there is nothing at this path; see shunt_model::api for what there is";
    refusal(StatusCode::NOT_FOUND, Reason::BadRequest, text)
}

async fn forbidden() -> Response {
    let text = "only who has CAP_NET_ADMIN here, or is in the group of the socket, may ask shuntd";
    refusal(StatusCode::FORBIDDEN, Reason::NotPermitted, text)
}

fn too_many() -> Response {
    let text = format!(
        "{} long answers are on their way and {} wait already; try again in a moment",
        places::PLACES,
        places::WAITING
    );
    refusal(
        StatusCode::SERVICE_UNAVAILABLE,
        Reason::TooManyRequests,
        &text,
    )
}

fn stopping() -> Response {
    let text = "shuntd is stopping and does not answer any more";
    refusal(StatusCode::SERVICE_UNAVAILABLE, Reason::Stopping, text)
}

impl Desk {
    /// Asks the daemon's task and waits for its answer.
    async fn ask<T>(&self, make: impl FnOnce(oneshot::Sender<T>) -> Ask) -> Option<T> {
        let (answer, heard) = oneshot::channel();
        self.asks.send(make(answer)).await.ok()?;
        heard.await.ok()
    }

    async fn told<T: Serialize>(&self, make: impl FnOnce(oneshot::Sender<T>) -> Ask) -> Response {
        match self.ask(make).await {
            Some(value) => json(StatusCode::OK, &value),
            None => stopping(),
        }
    }
}

async fn status(State(desk): State<Desk>) -> Response {
    desk.told(Ask::Status).await
}

/// The query of the path of the services.
#[derive(Debug, serde::Deserialize)]
struct Which {
    key: Option<String>,
}

async fn services(State(desk): State<Desk>, Query(which): Query<Which>) -> Response {
    let key = match which.key.map(|key| key.parse::<ServiceKey>()).transpose() {
        Ok(Some(key)) => Some(key),
        Ok(None) => return all_services(desk).await,
        Err(error) => {
            let text = error.to_string();
            return refusal(StatusCode::UNPROCESSABLE_ENTITY, Reason::BadRequest, &text);
        }
    };
    desk.told(|answer| Ask::Services(key, answer)).await
}

async fn all_services(desk: Desk) -> Response {
    let Some(place) = desk.places.take().await else {
        return too_many();
    };
    let Some(services) = desk.ask(|answer| Ask::Services(None, answer)).await else {
        return stopping();
    };
    match serde_json::to_vec(&services) {
        Ok(text) => {
            let kind = [(header::CONTENT_TYPE, "application/json")];
            let body = Holding::body(in_pieces(text.into()), place);
            (StatusCode::OK, kind, body).into_response()
        }
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

async fn count(State(desk): State<Desk>) -> Response {
    let Some(place) = desk.places.take().await else {
        return too_many();
    };
    desk.told(|answer| Ask::Count(answer, Some(place))).await
}

async fn timeouts(State(desk): State<Desk>) -> Response {
    desk.told(Ask::Timeouts).await
}

async fn marks(State(desk): State<Desk>) -> Response {
    desk.told(Ask::Marks).await
}

async fn locals(State(desk): State<Desk>) -> Response {
    desk.told(Ask::Locals).await
}

async fn settings(State(desk): State<Desk>) -> Response {
    desk.told(Ask::Settings).await
}

async fn statistics(State(desk): State<Desk>) -> Response {
    desk.told(Ask::Statistics).await
}

async fn change(State(desk): State<Desk>, request: Request<Body>) -> Response {
    let change: Change = match body(request, LARGEST).await {
        Ok(change) => change,
        Err(why) => return unreadable("change", &why),
    };
    match desk
        .ask(|answer| Ask::Change(Box::new(change), answer))
        .await
    {
        Some(Ok(done)) => json(StatusCode::OK, &done),
        Some(Err(no)) => json(StatusCode::CONFLICT, &no),
        None => stopping(),
    }
}

async fn batch(State(desk): State<Desk>, request: Request<Body>) -> Response {
    // Of long batches only a few may be on their way.
    let _place = match is_long(&request) {
        true => match desk.places.take().await {
            Some(place) => Some(place),
            None => return too_many(),
        },
        false => None,
    };
    let batch: Batch = match body(request, LARGEST_BATCH).await {
        Ok(batch) => batch,
        Err(why) => return unreadable("batch", &why),
    };
    match desk.ask(|answer| Ask::Batch(Box::new(batch), answer)).await {
        Some(Ok(answer)) if answer.is_refusal() => json(StatusCode::CONFLICT, &answer),
        Some(Ok(answer)) => json(StatusCode::OK, &answer),
        Some(Err(no)) => json(StatusCode::CONFLICT, &no),
        None => stopping(),
    }
}

/// Whether a body is longer than that of a few thousand changes, or may be.
fn is_long(request: &Request<Body>) -> bool {
    let most = hyper::body::Body::size_hint(request.body()).upper();
    most.is_none_or(|most| most > LARGEST as u64)
}

/// The body of a request, or why it cannot be read.
async fn body<T: DeserializeOwned>(request: Request<Body>, most: usize) -> Result<T, String> {
    let body = timeout(ARRIVAL, to_bytes(request.into_body(), most)).await;
    let body = body.map_err(|late| late.to_string())?;
    let body = body.map_err(|error| error.to_string())?;
    serde_json::from_slice(&body).map_err(|error| error.to_string())
}

fn unreadable(what: &str, why: &str) -> Response {
    let text = format!("the {what} cannot be read: {why}");
    refusal(StatusCode::UNPROCESSABLE_ENTITY, Reason::BadRequest, &text)
}

async fn connections(State(desk): State<Desk>) -> Response {
    stream(desk, Ask::Connections).await
}

async fn inputs(State(desk): State<Desk>) -> Response {
    stream(desk, Ask::Inputs).await
}

/// Lines that another thread makes, as fast as the client reads.
async fn stream(desk: Desk, ask: fn(mpsc::Sender<Bytes>, Option<Place>) -> Ask) -> Response {
    let Some(place) = desk.places.take().await else {
        return too_many();
    };
    let (lines, mut heard) = mpsc::channel::<Bytes>(2);
    if desk.asks.send(ask(lines, Some(place))).await.is_err() {
        return stopping();
    }
    let stream = futures_util::stream::poll_fn(move |context| {
        heard
            .poll_recv(context)
            .map(|lines| lines.map(Ok::<Bytes, std::convert::Infallible>))
    });
    let kind = [(header::CONTENT_TYPE, "application/x-ndjson")];
    (StatusCode::OK, kind, Body::from_stream(stream)).into_response()
}

/// What may follow the path of the events.
#[derive(Debug, serde::Deserialize)]
struct How {
    #[serde(default)]
    follow: bool,
}

async fn events(State(desk): State<Desk>, Query(how): Query<How>) -> Response {
    let follower = desk.followers.clone().try_acquire_owned();
    let follower = match (how.follow, follower) {
        (true, Err(_)) => {
            let text = format!("{FOLLOWERS} readers follow the events already");
            return refusal(StatusCode::SERVICE_UNAVAILABLE, Reason::NoRoom, &text);
        }
        (true, Ok(follower)) => Some(follower),
        (false, _) => None,
    };
    let Some((kept, following)) = desk.ask(Ask::Events).await else {
        return stopping();
    };
    let following = how.follow.then_some(following);
    let kept = futures_util::stream::iter(kept);
    let lines = kept.chain(futures_util::stream::unfold(following, next_event));
    let body = Body::from_stream(lines.map(Ok::<Bytes, std::convert::Infallible>));
    let kind = [(header::CONTENT_TYPE, "application/x-ndjson")];
    (StatusCode::OK, kind, Holding::body(body, follower)).into_response()
}

/// The next event for who follows. Events that a slow reader missed are left out.
async fn next_event(
    following: Option<broadcast::Receiver<Bytes>>,
) -> Option<(Bytes, Option<broadcast::Receiver<Bytes>>)> {
    let mut following = following?;
    loop {
        match following.recv().await {
            Ok(line) => return Some((line, Some(following))),
            Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => return None,
        }
    }
}

#[cfg(test)]
mod tests;
