//! What a project was granted and may spend.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use forge_contract::FailureCode;
use forge_lifecycle::books::budget::{Budget, Period};
use forge_lifecycle::ledger::MICRO_MAX;
use http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{amount, reference};
use crate::api::App;
use crate::api::auth::{Caller, Scope};
use crate::api::body;
use crate::api::problem::{Problem, ProblemBody};
use crate::store::books::{BooksWrite, BooksWritten, Position};
use crate::store::{Write, Written};

/// Credits for a project.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Grant {
    /// Micro-credits.
    pub credits_micro: u64,
    /// The payment's own number: the same one again changes nothing.
    pub reference: String,
}

/// What was posted.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Posted {
    /// The transaction's number in the ledger.
    pub seq: u64,
    /// Micro-credits.
    pub credits_micro: u64,
    /// The payment's own number.
    pub reference: String,
}

/// What a project may spend.
#[derive(Clone, Copy, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BudgetWish {
    /// Micro-credits; null for no limit.
    #[serde(default)]
    pub budget_micro: Option<u64>,
    /// `month` (the calendar month, UTC), `total`, or `prepaid`: what was granted, and this much on top.
    #[serde(default)]
    pub budget_period: BudgetPeriod,
}

/// What counts against a budget.
#[derive(Clone, Copy, Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum BudgetPeriod {
    /// What was charged in the calendar month, UTC.
    #[default]
    Month,
    /// Whatever was ever charged.
    Total,
    /// The same, and what was granted is added to the budget.
    Prepaid,
}

impl From<BudgetPeriod> for Period {
    fn from(period: BudgetPeriod) -> Self {
        match period {
            BudgetPeriod::Month => Self::Month,
            BudgetPeriod::Total => Self::Total,
            BudgetPeriod::Prepaid => Self::Prepaid,
        }
    }
}

/// What a project may spend, and what is left. Amounts are micro-credits.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct BudgetBlock {
    /// The project.
    pub project: String,
    /// The budget; absent for no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub budget_micro: Option<u64>,
    /// `month`, `total` or `prepaid`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub budget_period: Option<String>,
    /// Charged in the period; of everything without a budget.
    pub charged_micro: i64,
    /// Held for jobs that run.
    pub held_micro: u64,
    /// Granted.
    pub granted_micro: u64,
    /// What is left of the budget.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub left_micro: Option<u64>,
    /// When the budget begins anew, ms since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resets_at_ms: Option<u64>,
    /// The account: what was granted less what was charged and is held. Below 0 where the project owes.
    pub balance_micro: i64,
}

impl BudgetBlock {
    /// Of a project's position.
    #[must_use]
    pub fn of(project: &str, position: &Position, now_ms: u64) -> Self {
        let Position { balance_micro, budget, spending, .. } = position;
        let left = budget.map(|budget| u64::try_from(budget.left(spending).max(0)).unwrap_or(u64::MAX));
        Self {
            project: project.into(),
            budget_micro: budget.map(|budget| budget.budget_micro),
            budget_period: budget.map(|budget| budget.period.as_str().into()),
            charged_micro: i64::try_from(spending.charged_micro).unwrap_or(i64::MAX),
            held_micro: spending.held_micro,
            granted_micro: spending.granted_micro,
            left_micro: left,
            resets_at_ms: budget.and_then(|budget| budget.resets(now_ms)),
            balance_micro: *balance_micro,
        }
    }
}

/// Gives credits to a project, once for each reference.
#[utoipa::path(
    post, path = "/api/v0/projects/{project}/credits", tag = "money", security(("bearer" = []), ("key" = [])),
    params(("project" = String, Path, description = "The project")),
    request_body(content = Grant, content_type = "application/json"),
    responses(
        (status = 201, body = Posted), (status = 200, description = "It was posted before", body = Posted),
        (status = 400, body = ProblemBody), (status = 401, body = ProblemBody), (status = 403, body = ProblemBody),
        (status = 404, body = ProblemBody), (status = 408, body = ProblemBody),
        (status = 409, description = "The reference stands for something else", body = ProblemBody),
        (status = 413, body = ProblemBody), (status = 415, body = ProblemBody)
    )
)]
pub async fn grant(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(project): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<(StatusCode, Json<Posted>), Problem> {
    caller.require_operator()?;
    let wish: Grant = body::read_as(&headers, body, app.body_time).await?;
    amount(wish.credits_micro)?;
    reference(&wish.reference)?;
    let Grant { credits_micro, reference } = wish;
    let write = BooksWrite::Grant { project, micro: credits_micro, reference: reference.clone() };
    posted(&app, write, "project", credits_micro, reference).await
}

/// What a project may spend, what it spent, and what is left.
#[utoipa::path(
    get, path = "/api/v0/projects/{project}/budget", tag = "money", security(("bearer" = []), ("key" = [])),
    params(("project" = String, Path, description = "The project; another than the key's own needs the scope `admin`")),
    responses((status = 200, body = BudgetBlock), (status = 401, body = ProblemBody), (status = 404, body = ProblemBody))
)]
pub async fn show(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(project): Path<String>,
) -> Result<Json<BudgetBlock>, Problem> {
    caller.require(Scope::Read)?;
    if !caller.is_operator() && *project != *caller.project {
        return Err(Problem::not_found("project"));
    }
    block(&app, &project).await.map(Json)
}

/// Sets what a project may spend. A job that may cost more than is left is refused; one that runs goes on.
#[utoipa::path(
    put, path = "/api/v0/projects/{project}/budget", tag = "money", security(("bearer" = []), ("key" = [])),
    params(("project" = String, Path, description = "The project")),
    request_body(content = BudgetWish, content_type = "application/json"),
    responses(
        (status = 200, body = BudgetBlock), (status = 400, body = ProblemBody), (status = 401, body = ProblemBody),
        (status = 403, body = ProblemBody), (status = 404, body = ProblemBody), (status = 408, body = ProblemBody),
        (status = 413, body = ProblemBody), (status = 415, body = ProblemBody)
    )
)]
pub async fn set(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(project): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<BudgetBlock>, Problem> {
    caller.require_operator()?;
    let wish: BudgetWish = body::read_as(&headers, body, app.body_time).await?;
    if let Some(micro) = wish.budget_micro.filter(|micro| *micro > MICRO_MAX) {
        let detail = format!("budget_micro: expected at most {MICRO_MAX} micro-credits, found {micro}");
        return Err(Problem::of(FailureCode::RequestSchema, detail).at("/budget_micro"));
    }
    let budget = wish.budget_micro.map(|budget_micro| Budget { budget_micro, period: wish.budget_period.into() });
    let write = Write::Books(Box::new(BooksWrite::Budget { project: project.clone(), budget }));
    match app.store.submit(write).await? {
        Written::Books(given) if *given == BooksWritten::Nobody => Err(Problem::not_found("project")),
        _ => {
            app.keys.changed(|held| *held.project == *project);
            block(&app, &project).await.map(Json)
        }
    }
}

async fn block(app: &App, project: &str) -> Result<BudgetBlock, Problem> {
    let now_ms = crate::clock::unix_ms();
    let position = app.store.position(project, now_ms, now_ms).await?;
    let position = position.ok_or_else(|| Problem::not_found("project"))?;
    Ok(BudgetBlock::of(project, &position, now_ms))
}

/// Posts a payment from outside; once for each reference.
pub(super) async fn posted(
    app: &App,
    write: BooksWrite,
    whom: &str,
    credits_micro: u64,
    reference: String,
) -> Result<(StatusCode, Json<Posted>), Problem> {
    let Written::Books(given) = app.store.submit(Write::Books(Box::new(write))).await? else {
        return Err(Problem::of(FailureCode::AggregationStorage, "the store gave another answer than was asked for"));
    };
    let (status, seq) = match *given {
        BooksWritten::Posted(seq) => (StatusCode::CREATED, seq),
        BooksWritten::Existing(seq) => (StatusCode::OK, seq),
        BooksWritten::Mismatch(seq) => {
            let detail = format!(
                "the reference '{reference}' was posted as number {seq} with another amount or for somebody else; a payment \
                 has a reference of its own"
            );
            return Err(Problem::of(FailureCode::RequestIdempotency, detail).at("/reference"));
        }
        BooksWritten::Short(payable) => {
            let detail = format!("credits_micro: {payable} micro-credits are payable, {credits_micro} are not");
            return Err(Problem::of(FailureCode::RequestState, detail).at("/credits_micro"));
        }
        BooksWritten::Nobody | BooksWritten::OverBudget(_) => return Err(Problem::not_found(whom)),
    };
    Ok((status, Json(Posted { seq, credits_micro, reference })))
}
