//! What providers earned and were paid.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use forge_contract::{AgentId, FailureCode};
use http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::budget::{Posted, posted};
use super::export::{self, Format};
use super::sheet::{Cell, Column, Holds, Row};
use super::{PAGE, Whose, amount, reference};
use crate::api::App;
use crate::api::auth::{Caller, Scope};
use crate::api::body;
use crate::api::page::{Listed, limit};
use crate::api::problem::{Problem, ProblemBody};
use crate::store::books::{BooksWrite, PayRow};
use crate::store::{Store, StoreError};

/// Whose pay.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct PayQuery {
    /// Only agents after this one.
    pub after: Option<String>,
    /// At most this many, 1 to 1000; 100 where nothing is said. Exports hold everything.
    #[param(minimum = 1, maximum = 1000)]
    pub limit: Option<u32>,
    /// Of the agents of everybody; needs the scope `admin`.
    pub all: Option<bool>,
    /// `json`, `csv` or `parquet`; what `Accept` says where absent.
    pub format: Option<String>,
}

/// What an agent earned. Amounts are micro-credits.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct PayItem {
    /// Who.
    pub agent_id: String,
    /// The project it was enrolled in.
    pub project: String,
    /// Who it belongs to, where somebody was named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    /// Can still be lost.
    pub held_micro: u64,
    /// To be paid.
    pub payable_micro: u64,
    /// Paid.
    pub paid_micro: u64,
    /// Lost.
    pub forfeited_micro: u64,
}

/// A payment to a provider.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Payout {
    /// The agent it is for.
    pub agent_id: String,
    /// Micro-credits; at most what is payable.
    pub credits_micro: u64,
    /// The payment's own number: the same one again changes nothing.
    pub reference: String,
}

/// What the agents of the key's project earned: held, payable, paid, lost.
#[utoipa::path(
    get, path = "/api/v0/payouts", tag = "money", security(("bearer" = []), ("key" = [])), params(PayQuery),
    responses(
        (status = 200, content((Listed<PayItem> = "application/json"), (String = "text/csv"), (Vec<u8> = "application/vnd.apache.parquet"))),
        (status = 400, body = ProblemBody), (status = 401, body = ProblemBody), (status = 403, body = ProblemBody)
    )
)]
pub async fn list(
    State(app): State<Arc<App>>,
    caller: Caller,
    headers: HeaderMap,
    Query(query): Query<PayQuery>,
) -> Result<Response, Problem> {
    if !caller.is_operator() {
        caller.require(Scope::Provider)?;
    }
    let whose = Whose::of(&caller, None, query.all.unwrap_or(false))?;
    let format = Format::of(&headers, query.format.as_deref())?;
    let limit = limit(query.limit, 100)?;
    let after = query.after.as_deref().map(str::parse::<AgentId>).transpose();
    let refused = |_| Problem::of(FailureCode::RequestSchema, "the parameter after: expected an agent id");
    let after = after.map_err(refused)?;
    if format != Format::Json {
        let (store, whose) = (Arc::clone(&app.store), Arc::new(whose));
        return export::table((format == Format::Parquet, "payouts"), COLUMNS, after, move |after| {
            let (store, whose) = (Arc::clone(&store), Arc::clone(&whose));
            async move { rows(&*store, whose.project(), after).await }
        });
    }
    let found = app.store.pay(whose.project(), after, limit).await?;
    let all = if query.all.unwrap_or(false) { "&all=true" } else { "" };
    let next = |row: &PayRow| format!("/api/v0/payouts?limit={limit}{all}&after={}", row.agent);
    Ok(Json(Listed::of(found, limit, next, item)).into_response())
}

fn item(row: PayRow) -> PayItem {
    PayItem {
        agent_id: row.agent.to_string(),
        project: row.project,
        provider: row.provider,
        held_micro: row.held_micro,
        payable_micro: row.payable_micro,
        paid_micro: row.paid_micro,
        forfeited_micro: row.forfeited_micro,
    }
}

const COLUMNS: &[Column] = &[
    ("agent_id", Holds::Text),
    ("project", Holds::Text),
    ("provider", Holds::Text),
    ("held_micro", Holds::Integer),
    ("payable_micro", Holds::Integer),
    ("paid_micro", Holds::Integer),
    ("forfeited_micro", Holds::Integer),
];

/// The outer `None` ends the table, the inner one begins it.
type Cursor = Option<AgentId>;

async fn rows(
    store: &dyn Store,
    project: Option<&str>,
    after: Cursor,
) -> Result<(Vec<Row>, Option<Cursor>), StoreError> {
    let found = store.pay(project, after, PAGE).await?;
    let next = found.last().filter(|_| found.len() == PAGE as usize).map(|row| Some(row.agent));
    let row = |row: PayRow| -> Row {
        vec![
            Cell::from(row.agent.to_string()),
            row.project.into(),
            row.provider.unwrap_or_default().into(),
            row.held_micro.into(),
            row.payable_micro.into(),
            row.paid_micro.into(),
            row.forfeited_micro.into(),
        ]
    };
    Ok((found.into_iter().map(row).collect(), next))
}

/// Records that a provider was paid, once for each reference. The payment itself is made elsewhere.
#[utoipa::path(
    post, path = "/api/v0/payouts", tag = "money", security(("bearer" = []), ("key" = [])),
    request_body(content = Payout, content_type = "application/json"),
    responses(
        (status = 201, body = Posted), (status = 200, description = "It was posted before", body = Posted),
        (status = 400, body = ProblemBody), (status = 401, body = ProblemBody), (status = 403, body = ProblemBody),
        (status = 404, body = ProblemBody), (status = 408, body = ProblemBody),
        (status = 409, description = "Less is payable, or the reference stands for something else", body = ProblemBody),
        (status = 413, body = ProblemBody), (status = 415, body = ProblemBody)
    )
)]
pub async fn pay(
    State(app): State<Arc<App>>,
    caller: Caller,
    headers: HeaderMap,
    body: Body,
) -> Result<(StatusCode, Json<Posted>), Problem> {
    caller.require_operator()?;
    let wish: Payout = body::read_as(&headers, body, app.body_time).await?;
    amount(wish.credits_micro)?;
    reference(&wish.reference)?;
    let agent = wish.agent_id.parse().map_err(|_| Problem::not_found("agent"))?;
    let write = BooksWrite::Payout { agent, micro: wish.credits_micro, reference: wish.reference.clone() };
    posted(&app, write, "agent", wish.credits_micro, wish.reference).await
}
