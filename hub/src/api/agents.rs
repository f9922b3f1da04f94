//! The agents, for whoever operates the hub.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::body::{Body, HttpBody as _};
use axum::extract::State;
use forge_contract::{AgentId, FailureCode};
use http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::App;
use super::auth::Caller;
use super::problem::{Problem, ProblemBody};
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
    /// Who it belongs to, where somebody was named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
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

/// Longest name of a provider, bytes.
const PROVIDER_BYTES_MAX: usize = 64;

/// What a token is to be.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenWish {
    /// Whether who enrols with it is a verifier: an agent the operator runs and trusts to settle what a kernel gives.
    #[serde(default)]
    pub verifier: bool,
    /// The provider whose agent it enrols: agents of one provider never check each other. Without one, an agent is its own.
    #[serde(default)]
    pub provider: Option<String>,
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
    /// The hub's public key, which the token holds too.
    pub hub_key: String,
    /// Where agents dial.
    pub quic: String,
    /// When it stops working, ms since 1970.
    pub expires_at_ms: u64,
}

/// Every enrolled agent and what the scheduler thinks of it.
#[utoipa::path(
    get, path = "/api/v0/agents", tag = "pool", security(("bearer" = []), ("key" = [])),
    responses((status = 200, body = AgentList), (status = 401, body = ProblemBody), (status = 403, body = ProblemBody))
)]
pub async fn list(State(app): State<Arc<App>>, caller: Caller) -> Result<Json<AgentList>, Problem> {
    caller.require_admin()?;
    let stopped = |_| Problem::of(FailureCode::SchedulingShutdown, "the hub is stopping");
    let live = app.coordinator.agents().await.map_err(stopped)?;
    let connected = live.len() as u64;
    let live: BTreeMap<AgentId, _> = live.into_iter().map(|view| (view.agent, view)).collect();
    let items = app.store.agents().await?.into_iter().map(|row| {
        let view = live.get(&row.agent);
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
            provider: row.provider,
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
    Ok(Json(AgentList { items: items.collect(), connected }))
}

/// A token that enrols one agent, once, within a day. A body is optional.
#[utoipa::path(
    post, path = "/api/v0/agents/tokens", tag = "pool", security(("bearer" = []), ("key" = [])),
    request_body(content = Option<TokenWish>, content_type = "application/json"),
    responses(
        (status = 201, body = Token), (status = 400, body = ProblemBody), (status = 401, body = ProblemBody),
        (status = 403, body = ProblemBody)
    )
)]
pub async fn token(
    State(app): State<Arc<App>>,
    caller: Caller,
    headers: HeaderMap,
    body: Body,
) -> Result<(StatusCode, Json<Token>), Problem> {
    caller.require_admin()?;
    let wish: TokenWish = match body.size_hint().exact() {
        Some(0) => TokenWish::default(),
        _ => super::body::read_as(&headers, body, app.body_time).await?,
    };
    let made = app.tokens.make();
    let (token, hash) =
        made.ok_or_else(|| Problem::of(FailureCode::AggregationStorage, "the system gives no random bytes"))?;
    let expires_ms = crate::clock::unix_ms() + TOKEN_MS;
    let TokenWish { verifier, provider } = wish;
    if let Some(name) = provider.as_deref().filter(|name| name.is_empty() || name.len() > PROVIDER_BYTES_MAX) {
        let detail = format!(
            "provider: a name has 1 to {PROVIDER_BYTES_MAX} bytes, this one has {}; leave it out for an agent of its own",
            name.len()
        );
        return Err(Problem::of(FailureCode::RequestSchema, detail).at("/provider"));
    }
    let project = caller.project.to_string();
    app.store.submit(Write::EnrolToken { hash, project, expires_ms, verifier, provider: provider.clone() }).await?;
    let answer = Token {
        token,
        verifier,
        provider,
        hub_key: app.tokens.hub_key(),
        quic: app.quic_address.clone(),
        expires_at_ms: expires_ms,
    };
    Ok((StatusCode::CREATED, Json(answer)))
}
