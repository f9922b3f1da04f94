//! The agents, for whoever operates the hub.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use forge_contract::{AgentId, FailureCode};
use http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::auth::{Caller, Scope};
use super::problem::{Problem, ProblemBody};
use super::{App, identifier};
use crate::store::Write;

/// How long an enrolment token works.
const TOKEN_MS: u64 = 24 * 3600 * 1000;

/// Every enrolled agent.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct AgentList {
    /// By id.
    pub items: Vec<AgentItem>,
    /// Agents connected now.
    pub connected: u64,
}

/// An agent.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct AgentItem {
    /// Its id: the digest of its public key.
    pub agent_id: String,
    /// `connected`, `draining`, `gone` or `enrolled`.
    pub state: String,
    /// Whether the operator runs it and trusts it to settle what a kernel gives.
    pub verifier: bool,
    /// The project that enrolled it.
    pub project: String,
    /// Who it belongs to, where somebody was named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    /// The project whose work alone it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reserved_for: Option<String>,
    /// Shards accepted from it since it enrolled or last went wrong: the more, the less often it is audited.
    pub clean: u64,
    /// Shards accepted from it since it enrolled.
    pub accepted: u64,
    /// Whether it was refuted and gets no more work.
    pub quarantined: bool,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quarantine_code: Option<String>,
    /// Whether it was taken out for good.
    pub removed: bool,
    /// When it enrolled, ms since 1970.
    pub enrolled_at_ms: u64,
    /// When its state last changed, ms since 1970.
    pub last_seen_at_ms: u64,
    /// Leases it holds.
    pub leases: u64,
    /// Answers in this process.
    pub reported: u64,
    /// Failed attempts in this process.
    pub failed: u64,
    /// Measured fuel per millisecond of one shard.
    pub fuel_per_ms: u64,
    /// What it says of its machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub capability: Option<serde_json::Value>,
}

/// Longest name of a provider, characters.
pub(super) const PROVIDER_CHARS_MAX: usize = 64;

/// What a token is to be.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenWish {
    /// Whether who enrols with it is a verifier: an agent the operator runs and trusts to settle what a kernel gives.
    #[serde(default)]
    pub verifier: bool,
    /// The provider whose agent it enrols: agents of one provider never check each other. Without one, an agent is its
    /// own. Who is not the operator enrols for its organisation's account, which has the organisation's id.
    #[serde(default)]
    pub provider: Option<String>,
    /// The project whose work alone it will do.
    #[serde(default)]
    pub reserved_for: Option<String>,
}

/// A new enrolment token.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Token {
    /// What an agent is started with; shown once, enrols one agent.
    pub token: String,
    /// Whether who enrols with it is a verifier.
    pub verifier: bool,
    /// The provider whose agent it enrols.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    /// The project whose work alone it will do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reserved_for: Option<String>,
    /// The hub's public key, which the token holds too.
    pub hub_key: String,
    /// Where agents dial.
    pub quic: String,
    /// When it stops working, ms since 1970.
    pub expires_at_ms: u64,
}

/// Enrolled agents and what the scheduler thinks of them: to the operator all, to a provider those of its organisation.
#[utoipa::path(
    get, path = "/api/v0/agents", tag = "pool", security(("bearer" = []), ("key" = [])),
    responses((status = 200, body = AgentList), (status = 401, body = ProblemBody), (status = 403, body = ProblemBody))
)]
pub async fn list(State(app): State<Arc<App>>, caller: Caller) -> Result<Json<AgentList>, Problem> {
    let all = sees_agents(&caller)?;
    let stopped = |_| Problem::of(FailureCode::SchedulingShutdown, "the hub is stopping");
    let live = app.coordinator.agents().await.map_err(stopped)?;
    let live: BTreeMap<AgentId, _> = live.into_iter().map(|view| (view.agent, view)).collect();
    let rows = app.store.agents().await?.into_iter().filter(|row| all || row.organisation == *caller.organisation);
    let mut connected = 0;
    let items = rows.map(|row| {
        let view = live.get(&row.agent);
        connected += u64::from(view.is_some());
        let state = match view {
            Some(view) if view.draining => "draining".into(),
            Some(_) => "connected".into(),
            // The record can be older than the process: who is not in the pool is not here.
            None if row.state == "enrolled" => row.state,
            None => "gone".into(),
        };
        AgentItem {
            agent_id: row.agent.to_string(),
            state,
            verifier: row.verifier,
            project: row.project,
            provider: row.provider,
            reserved_for: row.reserved,
            clean: view.map_or(row.clean, |view| view.clean.max(row.clean)),
            quarantined: row.quarantined.is_some() || view.is_some_and(|view| view.quarantined),
            quarantine_code: row.quarantined.map(|code| code.as_str().into()),
            accepted: row.accepted,
            removed: row.removed_ms.is_some(),
            enrolled_at_ms: row.enrolled_ms,
            last_seen_at_ms: row.last_seen_ms,
            leases: view.map_or(0, |view| view.leases),
            reported: view.map_or(0, |view| view.reported),
            failed: view.map_or(0, |view| view.failed),
            fuel_per_ms: view.map_or(0, |view| view.fuel_per_ms),
            capability: row.capability.and_then(|text| serde_json::from_str(&text).ok()),
        }
    });
    let items = items.collect();
    Ok(Json(AgentList { items, connected }))
}

/// Whether a caller sees all agents; false for a provider, which sees its own.
///
/// # Errors
/// `request.forbidden` for whoever sees none.
pub(super) fn sees_agents(caller: &Caller) -> Result<bool, Problem> {
    if caller.is_operator() {
        return Ok(true);
    }
    caller.require(Scope::Provider)?;
    Ok(false)
}

/// A project that agents may be reserved for: any by the operator, by a provider one of its own organisation.
pub(super) async fn reservation(app: &App, caller: &Caller, project: &str) -> Result<(), Problem> {
    let row = app.store.project(project).await?;
    let may =
        |row: &crate::store::tenancy::ProjectRow| caller.is_operator() || row.organisation == *caller.organisation;
    if row.as_ref().is_some_and(may) {
        return Ok(());
    }
    let detail = format!("reserved_for: there is no project '{project}' in this organisation");
    Err(Problem::of(FailureCode::RequestNotFound, detail).at("/reserved_for"))
}

/// A token that enrols one agent, once, within a day. A body is optional. Only the operator makes verifiers, and names
/// providers; a provider enrols agents for its organisation's account.
#[utoipa::path(
    post, path = "/api/v0/agents/tokens", tag = "pool", security(("bearer" = []), ("key" = [])),
    request_body(content = Option<TokenWish>, content_type = "application/json"),
    responses(
        (status = 201, body = Token), (status = 400, body = ProblemBody), (status = 401, body = ProblemBody),
        (status = 403, body = ProblemBody), (status = 404, description = "No such project", body = ProblemBody)
    )
)]
pub async fn token(
    State(app): State<Arc<App>>,
    caller: Caller,
    headers: HeaderMap,
    body: Body,
) -> Result<(StatusCode, Json<Token>), Problem> {
    let operator = sees_agents(&caller)?;
    let wish: TokenWish = super::body::read_or_default(&headers, body, app.body_time).await?;
    let made = app.tokens.make();
    let (token, hash) =
        made.ok_or_else(|| Problem::of(FailureCode::AggregationStorage, "the system gives no random bytes"))?;
    let expires_ms = crate::clock::unix_ms() + TOKEN_MS;
    let TokenWish { verifier, provider, reserved_for } = wish;
    let named = provider.map(|name| identifier::words("provider", name, 1, PROVIDER_CHARS_MAX));
    let provider = named.transpose()?;
    let provider = if operator { provider } else { Some(own_account(&caller, verifier, provider.as_deref())?) };
    if let Some(project) = &reserved_for {
        reservation(&app, &caller, project).await?;
    }
    let (project, reserved) = (caller.project.to_string(), reserved_for.clone());
    let token_row = Write::EnrolToken { hash, project, expires_ms, verifier, provider: provider.clone(), reserved };
    app.store.submit(token_row).await?;
    let answer = Token {
        token,
        verifier,
        provider,
        reserved_for,
        hub_key: app.tokens.hub_key(),
        quic: app.quic_address.clone(),
        expires_at_ms: expires_ms,
    };
    Ok((StatusCode::CREATED, Json(answer)))
}

/// The account a provider's agents belong to. Were each its own, a provider's agents could vouch for each other.
fn own_account(caller: &Caller, verifier: bool, provider: Option<&str>) -> Result<String, Problem> {
    if verifier {
        let detail = "verifier: only the operator enrols verifiers; leave it out";
        return Err(Problem::of(FailureCode::RequestForbidden, detail).at("/verifier"));
    }
    let own = caller.organisation.to_string();
    if let Some(other) = provider.filter(|name| *name != own) {
        let detail =
            format!("provider: this key enrols agents of the provider '{own}', not of '{other}'; leave it out");
        return Err(Problem::of(FailureCode::RequestForbidden, detail).at("/provider"));
    }
    Ok(own)
}
