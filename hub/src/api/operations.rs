//! What an operator asks: is it up, is it ready, what does it count, what does it offer.

use std::sync::Arc;

use axum::extract::{FromRequestParts as _, State};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use bytes::Bytes;
use forge_contract::FailureCode;
use http::header;
use http::request::Parts;
use serde::Serialize;
use utoipa::ToSchema;

use super::App;
use super::auth::Caller;
use super::problem::Problem;

/// The description as served.
#[derive(Clone, Debug)]
pub struct Served {
    json: Bytes,
    routes: Arc<Vec<RouteLine>>,
}

/// A route.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct RouteLine {
    /// Method.
    pub method: String,
    /// Path.
    pub path: String,
    /// What it does.
    pub summary: String,
}

/// What the hub is and offers.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Index {
    /// Name.
    pub name: String,
    /// Version.
    pub version: String,
    /// The OpenAPI document.
    pub openapi: String,
    /// The hub's public key, which agents pin.
    pub hub_key: String,
    /// Every route.
    pub routes: Vec<RouteLine>,
}

impl Served {
    /// Renders a description once.
    #[must_use]
    pub fn of(openapi: &serde_json::Value) -> Self {
        let json = openapi.to_string();
        let mut routes = Vec::new();
        for (path, item) in openapi.get("paths").and_then(|paths| paths.as_object()).into_iter().flatten() {
            for (method, operation) in item.as_object().into_iter().flatten() {
                let summary = operation.get("summary").and_then(|summary| summary.as_str()).unwrap_or_default();
                routes.push(RouteLine { method: method.to_uppercase(), path: path.clone(), summary: summary.into() });
            }
        }
        Self { json: json.into(), routes: Arc::new(routes) }
    }
}

/// What this is, and every route.
#[utoipa::path(get, path = "/", tag = "operations", responses((status = 200, body = Index)))]
pub async fn index(State(app): State<Arc<App>>, Extension(served): Extension<Served>) -> Json<Index> {
    Json(Index {
        name: "Forge Pool hub".into(),
        version: env!("CARGO_PKG_VERSION").into(),
        openapi: "/api/v0/openapi.json".into(),
        hub_key: app.tokens.hub_key(),
        routes: served.routes.to_vec(),
    })
}

/// This API as an OpenAPI 3.1 document.
#[utoipa::path(get, path = "/api/v0/openapi.json", tag = "operations", responses((status = 200, description = "OpenAPI 3.1", body = Object)))]
pub async fn openapi(Extension(served): Extension<Served>) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], served.json).into_response()
}

/// Whether the process lives.
#[utoipa::path(get, path = "/healthz", tag = "operations", responses((status = 200, description = "It lives", body = String)))]
pub async fn healthz() -> &'static str {
    "ok\n"
}

/// Whether it takes work: the database answers and no shutdown has begun.
#[utoipa::path(
    get, path = "/readyz", tag = "operations",
    responses((status = 200, description = "It takes work", body = String), (status = 503, description = "It does not", body = super::problem::ProblemBody))
)]
pub async fn readyz(State(app): State<Arc<App>>) -> Result<&'static str, Problem> {
    if app.stopping.is_cancelled() {
        return Err(Problem::of(FailureCode::SchedulingShutdown, "the hub is stopping"));
    }
    app.store.ready().await?;
    Ok("ready\n")
}

/// Counters and latencies, in the OpenMetrics text format. A hub with `--private-metrics` asks for the operator's key.
#[utoipa::path(
    get, path = "/metrics", tag = "operations",
    responses(
        (status = 200, description = "OpenMetrics text", body = String, content_type = "application/openmetrics-text"), (status = 401, body = super::problem::ProblemBody),
        (status = 403, body = super::problem::ProblemBody)
    )
)]
pub async fn metrics(State(app): State<Arc<App>>, mut parts: Parts) -> Result<Response, Problem> {
    if app.private_metrics {
        Caller::from_request_parts(&mut parts, &app).await?.require_operator()?;
    }
    let live = app.coordinator.board().all();
    super::jobs::count_phases(&app.metrics, &live);
    // A hub that stops no longer knows its agents.
    app.metrics.count_agents(&app.coordinator.agents().await.unwrap_or_default());
    app.metrics.spans_dropped.set(app.telemetry.dropped());
    let ends_ms = app.tls.as_ref().and_then(|tls| tls.ends_ms());
    app.metrics.certificate_ends.set(ends_ms.unwrap_or(0) / 1000);
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, kind)], app.metrics.render()).into_response())
}
