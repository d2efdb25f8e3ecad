//! What happens around every request: its id, its log line, its count, and a panic's answer.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as Task, Poll};
use std::time::Instant;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use http_body::{Body as HttpBody, Frame, SizeHint};
use tower_http::catch_panic::CatchPanicLayer;
use uuid::Uuid;

use super::{ApiError, Context};
use crate::domain::ModelId;
use crate::telemetry::Metrics;

const REQUEST_ID: &str = "x-request-id";
const LONGEST_ID: usize = 128;
const PROBES: [&str; 3] = ["/livez", "/readyz", "/metrics"];
/// nginx's code for a client that left; it is never sent, only counted and logged.
const CLIENT_GONE: u16 = 499;

pub(super) fn around(router: Router<Arc<Context>>, context: Arc<Context>) -> Router<Arc<Context>> {
    let panicked = |_| ApiError::internal("the server made a mistake; it is in its log").into_response();
    router.layer(CatchPanicLayer::custom(panicked)).layer(from_fn_with_state(context, follow))
}

/// Follows a request from its head to the last byte of its answer.
async fn follow(State(context): State<Arc<Context>>, request: Request, next: Next) -> Response {
    let id = request_id(request.headers());
    let route = request.extensions().get::<MatchedPath>().map_or("unmatched", MatchedPath::as_str).to_owned();
    let mut record = Record {
        metrics: context.metrics.clone(),
        id: id.clone(),
        method: request.method().clone(),
        route,
        model: None,
        status: CLIENT_GONE,
        started: Instant::now(),
    };
    let mut response = next.run(request).await;
    response.headers_mut().insert(REQUEST_ID, id);
    record.model = response.extensions().get::<ModelId>().cloned();
    let status = response.status().as_u16();
    if record.method == Method::HEAD || response.body().is_end_stream() {
        // Nobody will ask for a body that is not there.
        record.status = status;
    }
    response.map(|body| Body::new(Followed { body, record, status }))
}

/// The client's own id if it is one, or a new one.
fn request_id(headers: &HeaderMap) -> HeaderValue {
    let given = headers.get(REQUEST_ID).filter(|id| (1..=LONGEST_ID).contains(&id.len()) && id.to_str().is_ok());
    let new = || HeaderValue::from_str(&Uuid::now_v7().to_string()).unwrap_or(HeaderValue::from_static("none"));
    given.cloned().unwrap_or_else(new)
}

/// What is known of a request; logged and counted when it is dropped, so on every way out.
struct Record {
    metrics: Arc<Metrics>,
    id: HeaderValue,
    method: Method,
    route: String,
    model: Option<ModelId>,
    /// What the client saw; [`CLIENT_GONE`] until the answer was given in full.
    status: u16,
    started: Instant,
}

impl Drop for Record {
    fn drop(&mut self) {
        let status = self.status.to_string();
        self.metrics.http_requests.with_label_values(&[self.route.as_str(), &status]).inc();
        // Probes and scrapes come every few seconds and say nothing new.
        if PROBES.contains(&self.route.as_str()) {
            return;
        }
        tracing::info!(
            request.id = self.id.to_str().unwrap_or_default(),
            method = %self.method,
            route = self.route,
            status = self.status,
            model = self.model.as_ref().map(ModelId::as_str),
            seconds = self.started.elapsed().as_secs_f64(),
            "request"
        );
    }
}

/// A body that tells its record when it was sent whole.
struct Followed {
    body: Body,
    record: Record,
    status: u16,
}

impl HttpBody for Followed {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Task<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        if matches!(frame, Poll::Ready(None)) || self.body.is_end_stream() {
            self.record.status = self.status;
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        false
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
