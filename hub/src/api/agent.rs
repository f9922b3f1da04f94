//! One agent: how it stands, why that moved, and the operator's word on it.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use forge_contract::{AgentId, FailureCode};
use forge_lifecycle::event::{Event, ProjectTag};
use http::HeaderMap;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::App;
use super::agents::{reservation, sees_agents};
use super::auth::Caller;
use super::problem::{Problem, ProblemBody};
use crate::coordinator::News;
use crate::document::Links;
use crate::store::settlement::{AgentEventKind, AgentEventRow, AgentRecord, Earnings};
use crate::store::{TenancyWrite, Write, Written};

/// Events shown.
const EVENTS: u32 = 100;

/// How an agent stands.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct AgentDetail {
    /// Its id: the digest of its public key.
    pub agent_id: String,
    /// Whether it is connected.
    pub connected: bool,
    /// Whether the operator runs it.
    pub verifier: bool,
    /// The project that enrolled it.
    pub project: String,
    /// Who it belongs to, where somebody was named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    /// The project whose work alone it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reserved_for: Option<String>,
    /// Shards accepted from it since it enrolled or last went wrong.
    pub clean: u64,
    /// Shards accepted from it since it enrolled: the clock by which what it earns settles.
    pub accepted: u64,
    /// The share of its answers that is audited now, per million.
    pub audit_ppm: u32,
    /// Answers that broke a rule since it enrolled or was last readmitted; three are too many.
    pub strikes: u64,
    /// Whether it gets no more work.
    pub quarantined: bool,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quarantine_code: Option<String>,
    /// When a quarantine of it was last lifted, ms since 1970. Until its probation is over it gets one shard at a time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub readmitted_at_ms: Option<u64>,
    /// When it was taken out for good, ms since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub removed_at_ms: Option<u64>,
    /// What it earned, micro-credits.
    pub earnings: Earnings,
    /// When it enrolled, ms since 1970.
    pub enrolled_at_ms: u64,
    /// What happened to it, newest first: why its standing moved.
    pub events: Vec<AgentEventItem>,
}

/// What happened to an agent.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct AgentEventItem {
    /// When, ms since 1970.
    pub at_ms: u64,
    /// What.
    pub kind: AgentEventKind,
    /// In which job.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub job_id: Option<String>,
    /// The job's executions, which say who answered what; for keys of its project.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// At which stage of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stage: Option<u32>,
    /// At which shard of the stage.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shard: Option<u32>,
    /// A failure code, or a sentence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

fn agent_id(text: &str) -> Result<AgentId, Problem> {
    text.parse().map_err(|_| Problem::not_found("agent"))
}

async fn record(app: &App, agent: AgentId) -> Result<AgentRecord, Problem> {
    app.store.agent_record(agent, EVENTS).await?.ok_or_else(|| Problem::not_found("agent"))
}

/// An agent that the caller sees.
async fn visible(app: &App, caller: &Caller, id: &str) -> Result<AgentRecord, Problem> {
    let all = sees_agents(caller)?;
    let record = record(app, agent_id(id)?).await?;
    if all || record.agent.organisation == *caller.organisation { Ok(record) } else { Err(Problem::not_found("agent")) }
}

/// How an agent stands: its record, what it earned, and what happened to it.
#[utoipa::path(
    get, path = "/api/v0/agents/{id}", tag = "pool", security(("bearer" = []), ("key" = [])),
    params(("id" = String, Path, description = "The agent's id")),
    responses(
        (status = 200, body = AgentDetail), (status = 401, body = ProblemBody), (status = 403, body = ProblemBody),
        (status = 404, body = ProblemBody)
    )
)]
pub async fn show(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<AgentDetail>, Problem> {
    let record = visible(&app, &caller, &id).await?;
    detail(&app, record).await.map(Json)
}

/// Lifts an agent's quarantine. It starts again as a stranger: no clean record, every answer audited, one shard at a time
/// until its probation is over. What it lost stays lost.
#[utoipa::path(
    post, path = "/api/v0/agents/{id}/readmit", tag = "pool", security(("bearer" = []), ("key" = [])),
    params(("id" = String, Path, description = "The agent's id")),
    responses(
        (status = 200, body = AgentDetail), (status = 401, body = ProblemBody), (status = 403, body = ProblemBody),
        (status = 404, body = ProblemBody),
        (status = 409, description = "It is not quarantined, or it was removed", body = ProblemBody)
    )
)]
pub async fn readmit(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<AgentDetail>, Problem> {
    caller.require_operator()?;
    let agent = agent_id(&id)?;
    record(&app, agent).await?;
    if app.store.submit(Write::Readmit { agent }).await? != Written::Applied(true) {
        let detail = "the agent is not quarantined, or it was removed for good; `GET` of it says which";
        return Err(Problem::of(FailureCode::RequestState, detail));
    }
    tracing::warn!(%agent, "agent readmitted");
    app.coordinator.event(Event::AgentReadmitted { agent }).await?;
    app.coordinator.tell(News::Moved(agent));
    detail(&app, record(&app, agent).await?).await.map(Json)
}

/// Takes an agent out for good: its key is refused from now on, it loses what it holds, and what rests on it alone in
/// jobs that are not settled runs again. An agent that merely leaves needs none of this.
#[utoipa::path(
    post, path = "/api/v0/agents/{id}/remove", tag = "pool", security(("bearer" = []), ("key" = [])),
    params(("id" = String, Path, description = "The agent's id")),
    responses(
        (status = 200, body = AgentDetail), (status = 401, body = ProblemBody), (status = 403, body = ProblemBody),
        (status = 404, body = ProblemBody), (status = 409, description = "It was removed before", body = ProblemBody)
    )
)]
pub async fn remove(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<AgentDetail>, Problem> {
    caller.require_operator()?;
    let agent = agent_id(&id)?;
    record(&app, agent).await?;
    if app.store.submit(Write::Remove { agent }).await? != Written::Applied(true) {
        return Err(Problem::of(FailureCode::RequestState, "the agent was removed before"));
    }
    tracing::warn!(%agent, "agent removed");
    app.coordinator.event(Event::AgentRemoved { agent }).await?;
    for view in app.coordinator.agents().await?.into_iter().filter(|view| view.agent == agent) {
        app.coordinator.dismiss(view.session);
    }
    app.coordinator.doubt();
    detail(&app, record(&app, agent).await?).await.map(Json)
}

/// Whom an agent works for.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Reservation {
    /// The project whose work alone it does from now on; `null` for everybody's.
    #[serde(deserialize_with = "Option::deserialize")]
    #[schema(required = true)]
    reserved_for: Option<String>,
}

/// Reserves an agent for one project, whose work alone it does from now on, or for none. What it runs it finishes.
///
/// For the operator, and for the provider whose agent it is: that one for projects of its own organisation.
#[utoipa::path(
    put, path = "/api/v0/agents/{id}/reservation", tag = "pool", security(("bearer" = []), ("key" = [])),
    params(("id" = String, Path, description = "The agent's id")),
    request_body(content = Reservation, content_type = "application/json"),
    responses(
        (status = 200, body = AgentDetail), (status = 400, body = ProblemBody), (status = 401, body = ProblemBody),
        (status = 403, body = ProblemBody), (status = 404, body = ProblemBody), (status = 408, body = ProblemBody),
        (status = 413, body = ProblemBody), (status = 415, body = ProblemBody)
    )
)]
pub async fn reserve(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<AgentDetail>, Problem> {
    let agent = visible(&app, &caller, &id).await?.agent.agent;
    let Reservation { reserved_for } = super::body::read_as(&headers, body, app.body_time).await?;
    if let Some(project) = &reserved_for {
        reservation(&app, &caller, project).await?;
    }
    let tag = reserved_for.as_deref().map(ProjectTag::of);
    let write = TenancyWrite::ReserveAgent { agent, project: reserved_for.clone() };
    app.store.submit(Write::Tenancy(Box::new(write))).await?;
    tracing::info!(%agent, reserved_for, "agent reserved");
    app.coordinator.event(Event::AgentReserved { agent, project: tag }).await?;
    detail(&app, record(&app, agent).await?).await.map(Json)
}

async fn detail(app: &App, record: AgentRecord) -> Result<AgentDetail, Problem> {
    let AgentRecord { agent: row, earnings, strikes, events } = record;
    let view = app.coordinator.agents().await?.into_iter().find(|view| view.agent == row.agent);
    let clean = view.as_ref().map_or(row.clean, |view| view.clean.max(row.clean));
    let counted = if row.verifier { u64::MAX } else { clean };
    Ok(AgentDetail {
        agent_id: row.agent.to_string(),
        connected: view.is_some(),
        verifier: row.verifier,
        project: row.project,
        provider: row.provider,
        reserved_for: row.reserved,
        clean,
        accepted: row.accepted,
        audit_ppm: app.audits.rate_ppm(counted),
        strikes,
        quarantined: row.quarantined.is_some() || view.is_some_and(|view| view.quarantined),
        quarantine_code: row.quarantined.map(|code| code.as_str().into()),
        readmitted_at_ms: row.readmitted_ms,
        removed_at_ms: row.removed_ms,
        earnings,
        enrolled_at_ms: row.enrolled_ms,
        events: events.into_iter().map(event).collect(),
    })
}

fn event(row: AgentEventRow) -> AgentEventItem {
    AgentEventItem {
        at_ms: row.at_ms,
        kind: row.event.kind,
        job_id: row.event.job.map(|job| job.to_string()),
        url: row.event.job.map(|job| Links::of(job).executions),
        stage: row.event.place.map(|(stage, _)| stage),
        shard: row.event.place.map(|(_, shard)| shard),
        detail: row.event.detail,
    }
}
