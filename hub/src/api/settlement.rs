//! Settling by the operator's word, without waiting for the hub's own turn.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::App;
use super::auth::Caller;
use super::problem::{Problem, ProblemBody};

/// What was settled, and what was taken up.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
pub struct Settlement {
    /// Stakes that settled: what agents did for a job and were not refuted for in time.
    pub settled: u64,
    /// Erratum runs begun.
    pub errata: u64,
}

/// Settles what is due and begins every erratum run that waits, also those that failed and wait for their next try.
#[utoipa::path(
    post, path = "/api/v0/settlement", tag = "pool", security(("bearer" = []), ("key" = [])),
    responses((status = 200, body = Settlement), (status = 401, body = ProblemBody), (status = 403, body = ProblemBody))
)]
pub async fn settle(State(app): State<Arc<App>>, caller: Caller) -> Result<Json<Settlement>, Problem> {
    caller.require_operator()?;
    let swept = app.coordinator.sweep().await?;
    Ok(Json(Settlement { settled: swept.settled, errata: swept.errata }))
}
