//! The ledger: a project's transactions, the chain they stand in, and the balances of all accounts.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use forge_contract::{Digest, FailureCode};
use forge_lifecycle::books::chain::{Head, Line};
use forge_lifecycle::books::{Kind, Transaction};
use futures_util::stream::try_unfold;
use http::{HeaderMap, header};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::export::{self, Format};
use super::sheet::{Cell, Column, Holds, Row};
use super::{PAGE, Whose};
use crate::api::App;
use crate::api::auth::{Caller, Scope};
use crate::api::page::{Listed, limit};
use crate::api::problem::{Problem, ProblemBody};
use crate::store::books::{BalanceRow, TransactionQuery, TransactionRow};
use crate::store::{Store, StoreError};

/// The media type of one JSON value a line.
const NDJSON: &str = "application/x-ndjson";

/// Which transactions.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct LedgerQuery {
    /// Only those after this number.
    pub after: Option<u64>,
    /// At most this many, 1 to 1000; 100 where nothing is said. Exports hold everything.
    #[param(minimum = 1, maximum = 1000)]
    pub limit: Option<u32>,
    /// Only those about this job.
    pub job: Option<String>,
    /// Only those of this kind.
    pub kind: Option<String>,
    /// Of this project; another than the key's own needs the scope `admin`.
    pub project: Option<String>,
    /// Of everybody, where no project is named; needs the scope `admin`.
    pub all: Option<bool>,
    /// `json`, `csv` or `parquet`; what `Accept` says where absent.
    pub format: Option<String>,
}

/// Whose chain.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ChainQuery {
    /// With every transaction in words; needs the scope `admin`.
    pub all: Option<bool>,
}

/// A page of a ledger.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct LedgerPage {
    /// In the order in which they were posted.
    pub items: Vec<LedgerItem>,
    /// The newest link, signed by the hub.
    #[schema(value_type = Object)]
    pub head: Head,
    /// The next page, where there may be one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// A transaction in its place.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct LedgerItem {
    /// Its number in the whole ledger; a project's numbers have gaps.
    pub seq: u64,
    /// When, UTC.
    pub at: String,
    /// Its digest: BLAKE3 of its canonical JSON, domain `forgepool v1 transaction`.
    pub digest: String,
    /// The link before it.
    pub previous: String,
    /// Its link: of the one before, the number and the digest.
    pub link: String,
    /// The transaction. Amounts and times are decimal text; postings sum to 0.
    #[schema(value_type = Object)]
    pub transaction: Transaction,
}

/// An account that is not empty.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct BalanceItem {
    /// `project:ID`, `hold:JOB`, `held:AGENT`, `payable:AGENT`, `platform:...`, `issued`, `paid`.
    pub account: String,
    /// Micro-credits; below 0 where it owes.
    pub micro: i64,
}

/// Which balances.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct BalanceQuery {
    /// Only accounts after this one.
    pub after: Option<String>,
    /// At most this many, 1 to 1000; 1000 where nothing is said.
    #[param(minimum = 1, maximum = 1000)]
    pub limit: Option<u32>,
}

/// The newest link, signed now.
async fn head(app: &App) -> Result<Head, Problem> {
    let (seq, link) = app.store.chain_head().await?;
    let now_ms = crate::clock::unix_ms();
    Ok(Head::seal(seq, link, now_ms, app.notary.key(), |root| app.notary.sign(root)))
}

/// A project's transactions, oldest first, with their place in the chain and its signed head. As CSV or Parquet: one row a
/// posting, everything at once.
#[utoipa::path(
    get, path = "/api/v0/ledger", tag = "money", security(("bearer" = []), ("key" = [])), params(LedgerQuery),
    responses(
        (status = 200, content((LedgerPage = "application/json"), (String = "text/csv"), (Vec<u8> = "application/vnd.apache.parquet"))),
        (status = 400, body = ProblemBody), (status = 401, body = ProblemBody), (status = 403, body = ProblemBody),
        (status = 404, body = ProblemBody)
    )
)]
pub async fn ledger(
    State(app): State<Arc<App>>,
    caller: Caller,
    headers: HeaderMap,
    Query(query): Query<LedgerQuery>,
) -> Result<Response, Problem> {
    caller.require(Scope::Read)?;
    let whose = Whose::of(&caller, query.project.as_deref(), query.all.unwrap_or(false))?;
    let format = Format::of(&headers, query.format.as_deref())?;
    let limit = limit(query.limit, 100)?;
    let refused = |what: &str| Problem::of(FailureCode::RequestSchema, format!("the parameter {what}"));
    let job = query.job.as_deref().map(str::parse).transpose().map_err(|_| refused("job: expected a job id"))?;
    let kind = query.kind.as_deref().map(|text| {
        let words: Vec<&str> = Kind::ALL.iter().map(|kind| kind.as_str()).collect();
        Kind::parse(text).ok_or_else(|| refused(&format!("kind: expected one of {}", words.join(", "))))
    });
    let kind = kind.transpose()?;
    let after = query.after.unwrap_or(0);
    if format != Format::Json {
        let store = Arc::clone(&app.store);
        let whose = Arc::new(whose);
        return export::table((format == Format::Parquet, "ledger"), COLUMNS, after, move |after| {
            let (store, whose) = (Arc::clone(&store), Arc::clone(&whose));
            async move {
                let query = TransactionQuery { project: whose.project(), job, kind, after, limit: PAGE };
                postings(&*store, query).await
            }
        });
    }
    let rows = app.store.transactions(TransactionQuery { project: whose.project(), job, kind, after, limit }).await?;
    let full = rows.len() == limit as usize;
    let mut next = format!("/api/v0/ledger?limit={limit}");
    for (name, value) in [("job", &query.job), ("kind", &query.kind), ("project", &query.project)] {
        if let Some(value) = value {
            next.push_str(&format!("&{name}={value}"));
        }
    }
    if query.all.unwrap_or(false) {
        next.push_str("&all=true");
    }
    let next = rows.last().filter(|_| full).map(|row| format!("{next}&after={}", row.seq));
    let items = rows.iter().map(item).collect::<Result<_, _>>()?;
    Ok(Json(LedgerPage { items, head: head(&app).await?, next }).into_response())
}

fn item(row: &TransactionRow) -> Result<LedgerItem, StoreError> {
    let transaction = row.transaction()?;
    Ok(LedgerItem {
        seq: row.seq,
        at: crate::clock::rfc3339(u64::try_from(transaction.at_ms).unwrap_or(0)),
        digest: row.digest.to_string(),
        previous: row.previous.to_string(),
        link: row.link.to_string(),
        transaction,
    })
}

const COLUMNS: &[Column] = &[
    ("seq", Holds::Integer),
    ("at_ms", Holds::Integer),
    ("at", Holds::Text),
    ("kind", Holds::Text),
    ("project", Holds::Text),
    ("job_id", Holds::Text),
    ("agent_id", Holds::Text),
    ("note", Holds::Text),
    ("account", Holds::Text),
    ("micro", Holds::Integer),
    ("digest", Holds::Text),
    ("link", Holds::Text),
];

/// A row for each posting; one without an account for a transaction that moves nothing.
async fn postings(store: &dyn Store, query: TransactionQuery<'_>) -> Result<(Vec<Row>, Option<u64>), StoreError> {
    let found = store.transactions(query).await?;
    let next = found.last().filter(|_| found.len() == query.limit as usize).map(|row| row.seq);
    let mut rows = Vec::new();
    for row in &found {
        let transaction = row.transaction()?;
        let text = |text: Option<String>| Cell::from(text.unwrap_or_default());
        let at_ms = u64::try_from(transaction.at_ms).unwrap_or(0);
        let line = |account: String, micro: i64| -> Row {
            vec![
                row.seq.into(),
                at_ms.into(),
                crate::clock::rfc3339(at_ms).into(),
                transaction.kind.as_str().to_owned().into(),
                text(transaction.project.clone()),
                text(transaction.job.map(|job| job.to_string())),
                text(transaction.agent.map(|agent| agent.to_string())),
                text(transaction.note.clone()),
                account.into(),
                micro.into(),
                row.digest.to_string().into(),
                row.link.to_string().into(),
            ]
        };
        if transaction.postings.is_empty() {
            rows.push(line(String::new(), 0));
        }
        rows.extend(transaction.postings.iter().map(|posting| line(posting.account.to_string(), posting.micro)));
    }
    Ok((rows, next))
}

/// The whole chain, one JSON value a line: of the project's own transactions all of it, of others the digest alone, and at
/// the end the signed head. What `forgepool ledger verify` checks.
#[utoipa::path(
    get, path = "/api/v0/ledger/chain", tag = "money", security(("bearer" = []), ("key" = [])), params(ChainQuery),
    responses(
        (status = 200, body = String, content_type = "application/x-ndjson"), (status = 400, body = ProblemBody),
        (status = 401, body = ProblemBody), (status = 403, body = ProblemBody)
    )
)]
pub async fn chain(
    State(app): State<Arc<App>>,
    caller: Caller,
    Query(query): Query<ChainQuery>,
) -> Result<Response, Problem> {
    caller.require(Scope::Read)?;
    let whose = Whose::of(&caller, None, query.all.unwrap_or(false))?;
    let head = head(&app).await?;
    let (store, whose) = (Arc::clone(&app.store), Arc::new(whose));
    let pages = try_unfold(Some(0), move |after: Option<u64>| {
        let (store, whose, head) = (Arc::clone(&store), Arc::clone(&whose), head.clone());
        async move {
            let Some(after) = after else { return Ok::<_, std::io::Error>(None) };
            let lines = store.chain(whose.project(), after, head.seq, PAGE).await.map_err(std::io::Error::other)?;
            let mut text = String::new();
            for row in &lines {
                text.push_str(&line(row.seq, row.digest, row.body.as_deref())?);
                text.push('\n');
            }
            let last = lines.last().filter(|_| lines.len() == PAGE as usize).map(|row| row.seq);
            if last.is_none() {
                text.push_str(&serde_json::json!({ "head": head }).to_string());
                text.push('\n');
            }
            Ok(Some((Bytes::from(text), last)))
        }
    });
    Ok(([(header::CONTENT_TYPE, NDJSON)], Body::from_stream(pages)).into_response())
}

fn line(seq: u64, digest: Digest, body: Option<&str>) -> Result<String, std::io::Error> {
    let transaction = body.map(serde_json::from_str::<Transaction>).transpose()?;
    Ok(serde_json::to_string(&Line { seq, digest, transaction })?)
}

/// The balances of all accounts that are not empty: their sum is 0.
#[utoipa::path(
    get, path = "/api/v0/ledger/balances", tag = "money", security(("bearer" = []), ("key" = [])), params(BalanceQuery),
    responses(
        (status = 200, body = Listed<BalanceItem>), (status = 400, body = ProblemBody), (status = 401, body = ProblemBody),
        (status = 403, body = ProblemBody)
    )
)]
pub async fn balances(
    State(app): State<Arc<App>>,
    caller: Caller,
    Query(query): Query<BalanceQuery>,
) -> Result<Json<Listed<BalanceItem>>, Problem> {
    caller.require_operator()?;
    let limit = limit(query.limit, PAGE)?;
    let rows = app.store.balances(query.after.as_deref(), limit).await?;
    let next = |last: &BalanceRow| format!("/api/v0/ledger/balances?limit={limit}&after={}", last.account);
    let item = |row: BalanceRow| BalanceItem { account: row.account.to_string(), micro: row.micro };
    Ok(Json(Listed::of(rows, limit, next, item)))
}
