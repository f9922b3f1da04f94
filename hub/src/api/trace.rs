//! Around every request: a trace id, a span, a latency, and one shape for whatever went wrong.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::Response;
use forge_contract::FailureCode;
use forge_contract::trace::TraceContext;
use forge_telemetry::{Kind, Span};
use futures_util::FutureExt as _;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use http_body_util::{BodyExt as _, Limited};
use tracing::Instrument as _;

use super::App;
use super::problem::Problem;

/// The header a trace id travels in.
pub const TRACE_HEADER: HeaderName = HeaderName::from_static("x-trace-id");

/// The header of W3C Trace Context.
const TRACE_PARENT: HeaderName = HeaderName::from_static("traceparent");

/// The id of a request, as its caller calls it, and its span.
#[derive(Clone, Debug)]
pub struct TraceId(pub String, pub TraceContext);

/// Handles one request from its head to its response's head.
pub async fn layer(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    let (started, from) = (Instant::now(), SystemTime::now());
    let Asked { text: trace, parent, own } = Asked::of(request.headers());
    let method = request.method().clone();
    let route =
        request.extensions().get::<MatchedPath>().map_or_else(|| "(none)".to_owned(), |path| path.as_str().to_owned());
    request.extensions_mut().insert(TraceId(trace.clone(), own));
    let span = tracing::info_span!("request", trace_id = trace, %method, route);
    let handled = AssertUnwindSafe(next.run(request)).catch_unwind().instrument(span.clone()).await;
    let response = handled.unwrap_or_else(|_| {
        tracing::error!(parent: &span, "a handler panicked");
        axum::response::IntoResponse::into_response(Problem::of(
            FailureCode::AggregationStorage,
            "the hub failed on this request",
        ))
    });
    let mut response = shape(response, &trace).await;
    let status = response.status();
    // The contract's own trace id, where the client gave one, is what it will look for.
    if !response.headers().contains_key(TRACE_HEADER)
        && let Ok(value) = HeaderValue::from_str(&trace)
    {
        response.headers_mut().insert(TRACE_HEADER, value);
    }
    if let Ok(value) = HeaderValue::from_str(&own.to_string()) {
        response.headers_mut().insert(TRACE_PARENT, value);
    }
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if app.telemetry.is_on() {
        app.telemetry.record(span_of((&method, &route), status, (own, parent), from));
    }
    app.metrics.request(&route, &method, status.as_u16(), started.elapsed());
    tracing::debug!(parent: &span, status = status.as_u16(), took_us = started.elapsed().as_micros(), "answered");
    response
}

/// What a request belongs to.
struct Asked {
    /// The trace id as its caller calls it.
    text: String,
    /// The caller's span; zeros where it named none.
    parent: [u8; 8],
    /// The request's own span.
    own: TraceContext,
}

impl Asked {
    /// By W3C `traceparent`, else `X-Trace-Id`, else a new trace.
    fn of(headers: &HeaderMap) -> Self {
        let said = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let parent = said("traceparent").and_then(TraceContext::parse);
        let named = said("x-trace-id")
            .filter(|id| (1..=128).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic()));
        let text = match (parent, named) {
            (Some(parent), _) => parent.trace_id(),
            (None, Some(named)) => named.to_owned(),
            (None, None) => crate::clock::trace_id(),
        };
        let within = parent.unwrap_or_else(|| TraceContext::of_text(&text));
        Self { text, parent: within.span, own: TraceContext { span: crate::clock::random(), ..within } }
    }
}

/// A request from its arrival to its response's head.
fn span_of(
    (method, route): (&http::Method, &str),
    status: StatusCode,
    (context, parent): (TraceContext, [u8; 8]),
    from: SystemTime,
) -> Span {
    Span {
        name: format!("{method} {route}"),
        kind: Kind::Server,
        context,
        parent,
        from,
        until: SystemTime::now(),
        attributes: vec![
            ("http.request.method", method.as_str().into()),
            ("http.route", route.into()),
            ("http.response.status_code", u64::from(status.as_u16()).into()),
        ],
        failed: status.is_server_error().then(|| status.to_string()),
    }
}

/// Renders problems; turns errors that a library made into problems too.
async fn shape(mut response: Response, trace: &str) -> Response {
    if let Some(problem) = response.extensions_mut().remove::<Problem>() {
        // The router has put the methods it knows on a 405.
        let problem = problem.allowing(response.headers().get(header::ALLOW).cloned());
        let mut rendered = problem.render(trace);
        if let Some(given) = problem.trace().and_then(|given| HeaderValue::from_str(given).ok()) {
            rendered.headers_mut().insert(TRACE_HEADER, given);
        }
        tracing::info!(trace_id = problem.trace().unwrap_or(trace), code = %problem.code(), detail = problem.failure().detail, "refused");
        return rendered;
    }
    let status = response.status();
    let is_error = status.is_client_error() || status.is_server_error();
    let kind = response.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or("");
    if !is_error || kind.starts_with("application/") {
        return response;
    }
    let allow = response.headers().get(header::ALLOW).cloned();
    let said = Limited::new(response.into_body(), 4096).collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let said = String::from_utf8_lossy(&said).trim().to_owned();
    let code = match status {
        StatusCode::NOT_FOUND => FailureCode::RequestNotFound,
        StatusCode::METHOD_NOT_ALLOWED => FailureCode::RequestMethod,
        StatusCode::PAYLOAD_TOO_LARGE => FailureCode::RequestTooLarge,
        StatusCode::UNSUPPORTED_MEDIA_TYPE => FailureCode::RequestMediaType,
        StatusCode::REQUEST_TIMEOUT => FailureCode::RequestTimeout,
        _ if status.is_client_error() => FailureCode::RequestSchema,
        _ => FailureCode::AggregationStorage,
    };
    let detail = if said.is_empty() { format!("the request was refused with status {status}") } else { said };
    Problem::of(code, detail).allowing(allow).render(trace)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn trace_ids_come_from_the_caller_where_they_are_well_formed() {
        let of = |name: &'static str, value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(name, value.parse().unwrap());
            Asked::of(&headers).text
        };
        let id = "0af7651916cd43dd8448eb211c80319c";
        assert_eq!(of("traceparent", &format!("00-{id}-b7ad6b7169203331-01")), id);
        assert_eq!(of("x-trace-id", "trace-7"), "trace-7");
        for (name, value) in
            [("traceparent", "00-00000000000000000000000000000000-1-01"), ("traceparent", "x"), ("x-trace-id", "a b")]
        {
            let made = of(name, value);
            assert_eq!(made.len(), 32);
            assert_ne!(made, value);
        }
    }
}
