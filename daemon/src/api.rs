//! The HTTP API on the local socket: a request becomes a question to the daemon's task.

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use serde::Serialize;
use shunt_model::api::{
    Change, ConnectionCount, Done, Reason, Refusal, ServiceStatus, Statistics, Status,
};
use shunt_model::{LocalAddress, MarkRule, ServiceKey, Settings, Timeouts};
use tokio::sync::{mpsc, oneshot};

/// A question to the daemon's task, with where the answer goes.
#[derive(Debug)]
pub enum Ask {
    Change(Box<Change>, oneshot::Sender<Result<Done, Refusal>>),
    /// All, or one.
    Services(Option<ServiceKey>, oneshot::Sender<Vec<ServiceStatus>>),
    /// Lines of JSON, many at a time.
    Connections(mpsc::Sender<Bytes>),
    Count(oneshot::Sender<ConnectionCount>),
    Timeouts(oneshot::Sender<Timeouts>),
    Marks(oneshot::Sender<Vec<MarkRule>>),
    Locals(oneshot::Sender<Vec<LocalAddress>>),
    Settings(oneshot::Sender<Settings>),
    Statistics(oneshot::Sender<Statistics>),
    Status(oneshot::Sender<Status>),
}

type Asks = mpsc::Sender<Ask>;

/// The largest request: a change is short.
const LARGEST: usize = 1 << 20;

/// Serves the API until the listener fails.
pub async fn serve(listener: tokio::net::UnixListener, asks: Asks) {
    let router = router(asks);
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // Out of descriptors, most likely: others will close theirs.
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            continue;
        };
        let service = TowerToHyperService::new(router.clone());
        tokio::spawn(async move {
            let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
            let _ = builder
                .http1_only()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

fn router(asks: Asks) -> Router {
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/services", get(services))
        .route("/v1/change", post(change))
        .route("/v1/connections", get(connections))
        .route("/v1/connections/count", get(count))
        .route("/v1/timeouts", get(timeouts))
        .route("/v1/marks", get(marks))
        .route("/v1/locals", get(locals))
        .route("/v1/settings", get(settings))
        .route("/v1/statistics", get(statistics))
        .fallback(nothing)
        .layer(axum::extract::DefaultBodyLimit::max(LARGEST))
        .with_state(asks)
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

/// Asks the daemon's task and waits for its answer.
async fn ask<T>(asks: &Asks, make: impl FnOnce(oneshot::Sender<T>) -> Ask) -> Option<T> {
    let (answer, heard) = oneshot::channel();
    asks.send(make(answer)).await.ok()?;
    heard.await.ok()
}

async fn told<T: Serialize>(asks: &Asks, make: impl FnOnce(oneshot::Sender<T>) -> Ask) -> Response {
    match ask(asks, make).await {
        Some(value) => json(StatusCode::OK, &value),
        None => refusal(
            StatusCode::SERVICE_UNAVAILABLE,
            Reason::BadRequest,
            "shuntd is stopping and does not answer any more",
        ),
    }
}

async fn status(State(asks): State<Asks>) -> Response {
    told(&asks, Ask::Status).await
}

/// What may follow the path of the services.
#[derive(Debug, serde::Deserialize)]
struct Which {
    key: Option<String>,
}

async fn services(State(asks): State<Asks>, Query(which): Query<Which>) -> Response {
    let key = match which.key.map(|key| key.parse::<ServiceKey>()).transpose() {
        Ok(key) => key,
        Err(error) => {
            let text = error.to_string();
            return refusal(StatusCode::UNPROCESSABLE_ENTITY, Reason::BadRequest, &text);
        }
    };
    told(&asks, |answer| Ask::Services(key, answer)).await
}

async fn count(State(asks): State<Asks>) -> Response {
    told(&asks, Ask::Count).await
}

async fn timeouts(State(asks): State<Asks>) -> Response {
    told(&asks, Ask::Timeouts).await
}

async fn marks(State(asks): State<Asks>) -> Response {
    told(&asks, Ask::Marks).await
}

async fn locals(State(asks): State<Asks>) -> Response {
    told(&asks, Ask::Locals).await
}

async fn settings(State(asks): State<Asks>) -> Response {
    told(&asks, Ask::Settings).await
}

async fn statistics(State(asks): State<Asks>) -> Response {
    told(&asks, Ask::Statistics).await
}

async fn change(State(asks): State<Asks>, body: Bytes) -> Response {
    let change: Change = match serde_json::from_slice(&body) {
        Ok(change) => change,
        Err(error) => {
            let text = format!("the change cannot be read: {error}");
            return refusal(StatusCode::UNPROCESSABLE_ENTITY, Reason::BadRequest, &text);
        }
    };
    match ask(&asks, |answer| Ask::Change(Box::new(change), answer)).await {
        Some(Ok(done)) => json(StatusCode::OK, &done),
        Some(Err(no)) => json(StatusCode::CONFLICT, &no),
        None => refusal(
            StatusCode::SERVICE_UNAVAILABLE,
            Reason::BadRequest,
            "shuntd is stopping and does not answer any more",
        ),
    }
}

async fn connections(State(asks): State<Asks>) -> Response {
    let (lines, mut heard) = mpsc::channel::<Bytes>(16);
    if asks.send(Ask::Connections(lines)).await.is_err() {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    let stream = futures_util::stream::poll_fn(move |context| {
        heard
            .poll_recv(context)
            .map(|lines| lines.map(Ok::<Bytes, std::convert::Infallible>))
    });
    let kind = [(header::CONTENT_TYPE, "application/x-ndjson")];
    (StatusCode::OK, kind, Body::from_stream(stream)).into_response()
}
