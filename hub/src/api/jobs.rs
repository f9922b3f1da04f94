//! Reading jobs, their executions and their evidence; cancelling.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use forge_contract::{FailureCode, JobId};
use forge_lifecycle::action::{Phase as Stage, Snapshot};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::App;
use super::auth::{Caller, Scope};
use super::execute::{document_response, status_of_end};
use super::page::{Listed, limit};
use super::problem::{Problem, ProblemBody};
use crate::coordinator::execution::Execution;
use crate::coordinator::{LiveJob, waiting};
use crate::document::{ArtifactLink, EstimateBlock, ExecutionsBlock, JobDocument, Links, ProgressBlock};
use crate::metrics::{Label, Metrics};
use crate::store::{JobRow, Page, Phase};

/// A job in a list.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct JobLine {
    /// The hub's id.
    pub job_id: String,
    /// The client's own label.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_job_id: Option<String>,
    /// Trace id.
    pub trace_id: String,
    /// `name@version profile`.
    pub op: String,
    /// Where it stands.
    pub status: String,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// Digest of the contract: equal for equal contracts.
    pub contract_digest: String,
    /// When it was accepted: UTC, RFC 3339.
    pub accepted_at: String,
    /// The same, ms since 1970.
    pub accepted_at_ms: u64,
    /// From acceptance to the end, milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wall_ms: Option<u64>,
    /// When it ended, ms since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finished_at_ms: Option<u64>,
    /// Its document.
    pub url: String,
}

/// Which jobs.
#[derive(Clone, Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct JobQuery {
    /// Most jobs to give, 1 to 1000; 50 where absent.
    limit: Option<u32>,
    /// Only jobs older than this one.
    before: Option<String>,
    /// Only jobs in this state: `RUNNING`, `COMPLETED`, `FAILED` or `CANCELLED`.
    status: Option<String>,
}

/// Which part of a list.
#[derive(Clone, Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct ExecutionQuery {
    /// Most items to give, 1 to 1000; 200 where absent.
    pub(super) limit: Option<u32>,
    /// Items to leave out.
    pub(super) offset: Option<u64>,
}

/// Executions by (stage, shard, lease).
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ExecutionList {
    /// The executions.
    pub items: Vec<Execution>,
    /// How many there are in all.
    pub count: u64,
    /// Where the list goes on; absent at its end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// Evidence, by name.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ArtifactList {
    /// The artifacts.
    pub items: Vec<ArtifactLink>,
}

/// A job id of a path; what is none names no job.
pub(super) fn job_id(text: &str) -> Result<JobId, Problem> {
    text.parse().map_err(|_| Problem::not_found("job"))
}

/// The project's jobs, newest first.
#[utoipa::path(
    get, path = "/api/v0/jobs", tag = "jobs", security(("bearer" = []), ("key" = [])), params(JobQuery),
    responses((status = 200, body = Listed<JobLine>), (status = 400, body = ProblemBody), (status = 401, body = ProblemBody))
)]
pub async fn list(
    State(app): State<Arc<App>>,
    caller: Caller,
    Query(query): Query<JobQuery>,
) -> Result<Json<Listed<JobLine>>, Problem> {
    caller.require(Scope::Read)?;
    let limit = limit(query.limit, 50)?;
    let refused = |what: &str| Problem::of(FailureCode::RequestSchema, format!("the parameter {what}"));
    let before = query.before.as_deref().map(str::parse).transpose();
    let before = before.map_err(|_| refused("before: expected a job id"))?;
    let phase = match &query.status {
        Some(text) => Some(
            Phase::parse(text).ok_or_else(|| refused("status: expected RUNNING, COMPLETED, FAILED or CANCELLED"))?,
        ),
        None => None,
    };
    let rows = app.store.jobs(&caller.project, before, phase, limit).await?;
    let filter = query.status.as_ref().map_or_else(String::new, |status| format!("&status={status}"));
    let next = |row: &JobRow| format!("/api/v0/jobs?limit={limit}&before={}{filter}", row.job);
    Ok(Json(Listed::of(rows, limit, next, |row| line(&app, &row))))
}

fn line(app: &App, row: &JobRow) -> JobLine {
    let live = app.coordinator.board().job(row.job).filter(|_| row.phase == Phase::Running);
    let status = live.map_or(row.phase.as_str(), |live| status_word(live.progress().borrow().snapshot.phase));
    JobLine {
        job_id: row.job.to_string(),
        client_job_id: row.client_job_id.clone(),
        trace_id: row.trace_id.clone(),
        op: row.op.clone(),
        status: status.into(),
        code: row.code.map(|code| code.as_str().into()),
        contract_digest: row.envelope_digest.to_string(),
        accepted_at: crate::clock::rfc3339(row.accepted_ms),
        accepted_at_ms: row.accepted_ms,
        wall_ms: row.finished_ms.map(|finished| finished.saturating_sub(row.accepted_ms)),
        finished_at_ms: row.finished_ms,
        url: Links::of(row.job).this,
    }
}

/// The word of a phase, from a closed set.
pub(super) const fn status_word(stage: Stage) -> &'static str {
    match stage {
        Stage::Queued => "QUEUED",
        Stage::Running => "RUNNING",
        Stage::Verifying => "VERIFYING",
        Stage::Reducing => "REDUCING",
        // A job whose end is being written is not over for anybody yet.
        Stage::Completed | Stage::Failed | Stage::Cancelled => "REDUCING",
    }
}

/// Progress as shown.
pub(super) fn progress_block(snapshot: &Snapshot) -> ProgressBlock {
    ProgressBlock {
        stage: snapshot.stage,
        shards_total: snapshot.shards_total,
        shards_done: snapshot.shards_done,
        units_total: snapshot.units_total,
        units_done: snapshot.units_done,
        items_done: snapshot.items_done,
        agents_active: snapshot.agents_active,
        estimate: snapshot.estimate.as_ref().map(|estimate| EstimateBlock {
            name: estimate.name.clone(),
            n: estimate.n,
            mean: estimate.mean,
            ci95_half_width: estimate.ci95_half_width,
            target: estimate.target.map(Into::into),
        }),
    }
}

/// The document of a job in hand.
pub(super) fn live_document(live: &LiveJob) -> JobDocument {
    let stamped = live.progress().borrow().clone();
    JobDocument {
        progress: Some(progress_block(&stamped.snapshot)),
        executions: Some(ExecutionsBlock {
            count: stamped.snapshot.shards_done,
            url: Links::of(live.info.job).executions,
        }),
        ..waiting(&live.info, status_word(stamped.snapshot.phase))
    }
}

/// How many jobs in hand are in each phase.
pub(super) fn count_phases(metrics: &Metrics, live: &[Arc<LiveJob>]) {
    for stage in [Stage::Queued, Stage::Running, Stage::Verifying, Stage::Reducing] {
        let kind = status_word(stage);
        let count = live.iter().filter(|job| status_word(job.progress().borrow().snapshot.phase) == kind).count();
        metrics.jobs.get_or_create(&Label { kind }).set(i64::try_from(count).unwrap_or(i64::MAX));
    }
}

/// The answer to a job that is over, with the status it had.
pub(super) fn answer_stored(row: &JobRow) -> Result<Response, Problem> {
    let text = row.document.clone().ok_or_else(|| {
        let detail = "the job's record has no answer yet; it goes on when the hub restarts";
        Problem::of(FailureCode::AggregationStorage, detail).about(row.job)
    })?;
    Ok(document_response(status_of_end(row.phase, row.code), text, &row.trace_id))
}

pub(super) async fn stored(app: &App, caller: &Caller, job: JobId) -> Result<JobRow, Problem> {
    app.store.job(&caller.project, job).await?.ok_or_else(|| Problem::not_found("job"))
}

/// A job: its answer, or how far it is. Always 200 for a job that exists; `status` tells its end.
#[utoipa::path(
    get, path = "/api/v0/jobs/{id}", tag = "jobs", security(("bearer" = []), ("key" = [])),
    params(("id" = String, Path, description = "The hub's job id")),
    responses((status = 200, body = JobDocument), (status = 401, body = ProblemBody), (status = 404, body = ProblemBody))
)]
pub async fn show(State(app): State<Arc<App>>, caller: Caller, Path(id): Path<String>) -> Result<Response, Problem> {
    caller.require(Scope::Read)?;
    let job = job_id(&id)?;
    if let Some(live) = app.coordinator.board().job_of(&caller.project, job) {
        let document = match live.ended().borrow().as_ref() {
            Some(ended) => (*ended.document).clone(),
            None => live_document(&live),
        };
        return Ok(Json(document).into_response());
    }
    let row = stored(&app, &caller, job).await?;
    let mut response = answer_stored(&row)?;
    *response.status_mut() = StatusCode::OK;
    Ok(response)
}

/// Asks for a job's end. A job that is over stays as it is.
#[utoipa::path(
    post, path = "/api/v0/jobs/{id}/cancel", tag = "jobs", security(("bearer" = []), ("key" = [])),
    params(("id" = String, Path, description = "The hub's job id")),
    responses(
        (status = 202, description = "It will end as CANCELLED unless it ends otherwise first", body = JobDocument),
        (status = 200, description = "It was over", body = JobDocument),
        (status = 401, body = ProblemBody), (status = 404, body = ProblemBody)
    )
)]
pub async fn cancel(State(app): State<Arc<App>>, caller: Caller, Path(id): Path<String>) -> Result<Response, Problem> {
    caller.require(Scope::Compute)?;
    let job = job_id(&id)?;
    if let Some(live) = app.coordinator.board().job_of(&caller.project, job) {
        app.coordinator.cancel(job).await?;
        return Ok((StatusCode::ACCEPTED, Json(live_document(&live))).into_response());
    }
    let row = stored(&app, &caller, job).await?;
    let mut response = answer_stored(&row)?;
    *response.status_mut() = StatusCode::OK;
    Ok(response)
}

/// Who computed which shard, when, how long, and what came of it.
#[utoipa::path(
    get, path = "/api/v0/jobs/{id}/executions", tag = "jobs", security(("bearer" = []), ("key" = [])),
    params(("id" = String, Path, description = "The hub's job id"), ExecutionQuery),
    responses((status = 200, body = ExecutionList), (status = 401, body = ProblemBody), (status = 404, body = ProblemBody))
)]
pub async fn executions(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(id): Path<String>,
    Query(query): Query<ExecutionQuery>,
) -> Result<Json<ExecutionList>, Problem> {
    caller.require(Scope::Read)?;
    let job = job_id(&id)?;
    stored(&app, &caller, job).await?;
    let page = Page { offset: query.offset.unwrap_or(0), limit: limit(query.limit, 200)? };
    let rows = app.store.attempts(job, page).await?;
    let count = app.store.attempts_count(job).await?;
    let unreadable = |_| Problem::of(FailureCode::AggregationStorage, "a recorded execution is unreadable").about(job);
    let items: Result<Vec<Execution>, _> = rows.iter().map(|row| serde_json::from_str(&row.body)).collect();
    let items = items.map_err(unreadable)?;
    let end = page.offset + items.len() as u64;
    let next = (end < count && !items.is_empty())
        .then(|| format!("{}?limit={}&offset={end}", Links::of(job).executions, page.limit));
    Ok(Json(ExecutionList { items, count, next }))
}

/// A job's evidence, leaf by leaf: contract, plan, executions, verification, output, metrics, and their signed index.
#[utoipa::path(
    get, path = "/api/v0/jobs/{id}/artifacts", tag = "jobs", security(("bearer" = []), ("key" = [])),
    params(("id" = String, Path, description = "The hub's job id")),
    responses((status = 200, body = ArtifactList), (status = 401, body = ProblemBody), (status = 404, body = ProblemBody))
)]
pub async fn artifacts(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<ArtifactList>, Problem> {
    caller.require(Scope::Read)?;
    let job = job_id(&id)?;
    let row = stored(&app, &caller, job).await?;
    let document: Option<JobDocument> = row.document.as_deref().and_then(|text| serde_json::from_str(text).ok());
    Ok(Json(ArtifactList { items: document.map(|document| document.artifacts).unwrap_or_default() }))
}

/// An artifact's bytes, verified against their digest.
#[utoipa::path(
    get, path = "/api/v0/jobs/{id}/artifacts/{name}", tag = "jobs", security(("bearer" = []), ("key" = [])),
    params(("id" = String, Path, description = "The hub's job id"), ("name" = String, Path, description = "The artifact's name")),
    responses(
        (status = 200, description = "The bytes; `ETag` is their BLAKE3 digest", body = String, content_type = "application/octet-stream"),
        (status = 304, description = "Unchanged, as it always is"),
        (status = 401, body = ProblemBody), (status = 404, body = ProblemBody)
    )
)]
pub async fn artifact(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path((id, name)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    caller.require(Scope::Read)?;
    let job = job_id(&id)?;
    stored(&app, &caller, job).await?;
    let rows = app.store.artifacts(job).await?;
    let row = rows.into_iter().find(|row| row.name == name).ok_or_else(|| Problem::not_found("artifact").about(job))?;
    let tag = format!("\"{}\"", row.digest);
    let header_of =
        |text: &str| HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static("application/octet-stream"));
    let known = headers.get(header::IF_NONE_MATCH).and_then(|value| value.to_str().ok());
    if known.is_some_and(|known| known.split(',').any(|one| one.trim() == tag)) {
        return Ok((StatusCode::NOT_MODIFIED, [(header::ETAG, header_of(&tag))]).into_response());
    }
    let bytes = crate::store::read_object(&*app.store, &app.blobs, row.digest).await?;
    let bytes = bytes
        .ok_or_else(|| Problem::of(FailureCode::AggregationStorage, "the artifact's bytes are gone").about(job))?;
    let headers = [
        (header::CONTENT_TYPE, header_of(&row.media_type)),
        (header::ETAG, header_of(&tag)),
        (header::CACHE_CONTROL, HeaderValue::from_static("private, max-age=31536000, immutable")),
    ];
    Ok((headers, Body::from(bytes)).into_response())
}
