//! How each shard of a job was checked, and by whom.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Query, State};
use forge_contract::FailureCode;
use forge_lifecycle::action::Accepted;
use forge_lifecycle::verify::{Looked, Standing};
use serde::Serialize;
use utoipa::ToSchema;

use super::App;
use super::auth::{Caller, Scope};
use super::jobs::{ExecutionQuery, job_id, stored};
use super::page::limit;
use super::problem::{Problem, ProblemBody};
use crate::coordinator::accepted_of;
use crate::document::Links;
use crate::store::Page;

/// The accepted shards of a job with their checks.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ShardChecks {
    /// In (stage, shard) order.
    pub items: Vec<ShardCheck>,
    /// The next page, where there may be one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// How one shard was checked.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ShardCheck {
    /// `<stage>/<shard>`.
    pub shard_id: String,
    /// Whose answer was accepted.
    pub agent_id: String,
    /// The lease it was given under.
    pub lease: u64,
    /// `matched` (a whole copy gave the same bits), `checked` (the kernel's own check found it sound), `sampled` (some of
    /// its units ran again and gave the same bits), `unchecked` (a check was drawn and nobody was there to make it), or
    /// `structural` (no check was drawn).
    pub verdict: String,
    /// Who looked at it, and what they found. The structural rules held in any case.
    pub checks: Vec<CheckItem>,
    /// Agents whose word about it proved wrong.
    pub refuted: Vec<String>,
    /// Attempts that failed before.
    pub failed_attempts: u32,
    /// Digest over fragment, units and fuel.
    pub result_hash: String,
}

/// One check of one shard.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct CheckItem {
    /// Who made it.
    pub agent_id: String,
    /// `copy`, `unit` or `proof`.
    pub how: String,
    /// The unit that ran again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unit: Option<u64>,
    /// Whether it found the answer right.
    pub right: bool,
}

impl ShardCheck {
    fn of(accepted: &Accepted) -> Self {
        let verdict = &accepted.verdict;
        let copy = |agent: &forge_contract::AgentId| CheckItem {
            agent_id: agent.to_string(),
            how: "copy".into(),
            unit: None,
            right: true,
        };
        Self {
            shard_id: format!("{}/{}", accepted.stage, accepted.shard),
            agent_id: accepted.agent.to_string(),
            lease: accepted.lease.0,
            verdict: standing_word(verdict.standing).into(),
            checks: verdict.agreed.iter().map(copy).chain(verdict.looks.iter().map(CheckItem::of)).collect(),
            refuted: verdict.refuted.iter().map(ToString::to_string).collect(),
            failed_attempts: verdict.failed,
            result_hash: accepted.result.to_string(),
        }
    }
}

impl CheckItem {
    fn of(look: &Looked) -> Self {
        let how = if look.unit.is_some() { "unit" } else { "proof" };
        Self { agent_id: look.agent.to_string(), how: how.into(), unit: look.unit, right: look.right }
    }
}

const fn standing_word(standing: Standing) -> &'static str {
    match standing {
        Standing::Structural => "structural",
        Standing::Matched => "matched",
        Standing::Unchecked => "unchecked",
        Standing::Sampled => "sampled",
        Standing::Checked => "checked",
    }
}

/// Each accepted shard of a job: whose answer it is, how it was checked, by whom, and what they found.
#[utoipa::path(
    get, path = "/api/v0/jobs/{id}/verification", tag = "jobs", security(("bearer" = []), ("key" = [])),
    params(("id" = String, Path, description = "The hub's job id"), ExecutionQuery),
    responses((status = 200, body = ShardChecks), (status = 400, body = ProblemBody), (status = 401, body = ProblemBody),
        (status = 404, body = ProblemBody))
)]
pub async fn verification(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(id): Path<String>,
    Query(query): Query<ExecutionQuery>,
) -> Result<Json<ShardChecks>, Problem> {
    caller.require(Scope::Read)?;
    let job = job_id(&id)?;
    stored(&app, &caller, job).await?;
    let page = Page { offset: query.offset.unwrap_or(0), limit: limit(query.limit, 200)? };
    let bodies = app.store.accepted_bodies(job, page).await?;
    let unreadable = || Problem::of(FailureCode::AggregationStorage, "a recorded shard is unreadable").about(job);
    let items = bodies.iter().map(|body| accepted_of(body).as_ref().map(ShardCheck::of).ok_or_else(unreadable));
    let items: Vec<ShardCheck> = items.collect::<Result<_, _>>()?;
    let full = items.len() as u64 == u64::from(page.limit);
    let end = page.offset + items.len() as u64;
    let next = full.then(|| format!("{}?limit={}&offset={end}", Links::of(job).verification, page.limit));
    Ok(Json(ShardChecks { items, next }))
}
