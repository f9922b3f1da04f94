//! Removing files that nothing names, at the operator's word.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Query, State};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::App;
use super::auth::Caller;
use super::problem::{Problem, ProblemBody};

/// How long nothing must have named a file.
#[derive(Clone, Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct CollectQuery {
    /// Seconds; the hub's own grace period where absent.
    grace_s: Option<u64>,
}

/// What a collection came to.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
pub struct CollectAnswer {
    /// Files removed.
    pub removed: u64,
    /// Their size, bytes.
    pub bytes: u64,
    /// Files that nothing names and that stay until the grace period is over.
    pub marked: u64,
}

/// Looks at every stored file now, and removes those that nothing has named for the grace period. Expired keys go, too.
///
/// What a job, a kernel, evidence, an accepted shard, an array, a key or a project's claim names is never removed, nor what
/// is being recorded. The hub does the same every hour by itself.
#[utoipa::path(
    post, path = "/api/v0/garbage", tag = "operations", security(("bearer" = []), ("key" = [])), params(CollectQuery),
    responses(
        (status = 200, body = CollectAnswer), (status = 400, body = ProblemBody), (status = 401, body = ProblemBody),
        (status = 403, body = ProblemBody)
    )
)]
pub async fn collect(
    State(app): State<Arc<App>>,
    caller: Caller,
    Query(query): Query<CollectQuery>,
) -> Result<Json<CollectAnswer>, Problem> {
    caller.require_operator()?;
    let collected = app.collector.collect(query.grace_s.map(Duration::from_secs)).await?;
    let crate::store::data::Collected { removed, bytes, marked } = collected;
    Ok(Json(CollectAnswer { removed, bytes, marked }))
}
