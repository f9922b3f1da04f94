//! The audit log, for those whose changes it holds.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{Query, State};
use axum::response::{IntoResponse as _, Response};
use forge_contract::FailureCode;
use forge_lifecycle::trail::text::{self, Opening};
use forge_lifecycle::trail::{Head, Purpose, Row, Tip};
use http::{HeaderValue, header};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::App;
use super::auth::{Caller, Scope};
use super::page::{Listed, limit};
use super::problem::{Problem, ProblemBody};
use crate::store::StoreError;
use crate::store::trail::{Reach, TrailFilter};

/// Rows read at once for an export.
const PAGE: u32 = 500;

/// A row of the audit log.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct AuditItem {
    /// Its number, from 1, without gaps over the whole hub.
    pub seq: u64,
    /// When: UTC, RFC 3339.
    pub at: String,
    /// The same, ms since 1970.
    pub at_ms: u64,
    /// The organisation; empty where there is none.
    pub organisation: String,
    /// The project; empty for what is nobody's.
    pub project: String,
    /// The key, by its id or the start of its text; `operator` for what the hub did at its operator's word.
    pub key: String,
    /// What was asked for: method and route.
    pub action: String,
    /// Of what: the path.
    pub target: String,
    /// The HTTP status of the outcome; of a job, that of its acceptance.
    pub status: u16,
    /// The failure code; empty where there is none.
    pub code: String,
    /// What else there is to say, such as the job's id.
    pub note: String,
    /// BLAKE3 of the request's body as it came.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// The address it came from.
    pub peer: String,
    /// The trace id.
    pub trace_id: String,
    /// Digest of the row.
    pub digest: String,
    /// The chain's link with it.
    pub link: String,
}

impl From<Row> for AuditItem {
    fn from(row: Row) -> Self {
        let Row { seq, entry, digest, link, .. } = row;
        Self {
            seq,
            at: crate::clock::rfc3339(entry.at_ms),
            at_ms: entry.at_ms,
            organisation: entry.organisation,
            project: entry.project,
            key: entry.key,
            action: entry.action,
            target: entry.target,
            status: entry.status,
            code: entry.code,
            note: entry.note,
            body: entry.body.map(|body| body.to_string()),
            peer: entry.peer,
            trace_id: entry.trace_id,
            digest: digest.to_string(),
            link: link.to_string(),
        }
    }
}

/// The hub's word on where its audit log stands.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct AuditHead {
    /// The number of the last row; 0 without one.
    pub seq: u64,
    /// The chain's link with it.
    pub link: String,
    /// When it was signed, ms since 1970.
    pub at_ms: u64,
    /// Why: `asked`.
    pub purpose: String,
    /// Empty: it ends no export.
    pub scope: String,
    /// The hub's public key.
    pub key: String,
    /// Its Ed25519 signature.
    pub signature: String,
}

/// Which rows.
#[derive(Clone, Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct AuditQuery {
    /// Most to give, 1 to 1000; 50 where absent.
    #[param(nullable = false)]
    limit: Option<u32>,
    /// Only rows older than this one.
    #[param(nullable = false)]
    before: Option<u64>,
    /// Only rows from this time on, ms since 1970.
    #[param(nullable = false)]
    since_ms: Option<u64>,
    /// Only rows up to this time, ms since 1970.
    #[param(nullable = false)]
    until_ms: Option<u64>,
    /// Only rows of this project.
    #[param(nullable = false)]
    project: Option<String>,
    /// Only rows of this key.
    #[param(nullable = false)]
    key: Option<String>,
    /// Only rows with this method and route, such as `POST /api/v0/jobs/{id}/cancel`.
    #[param(nullable = false)]
    action: Option<String>,
    /// Only rows with this trace id.
    #[param(nullable = false)]
    trace_id: Option<String>,
}

/// From where on.
#[derive(Clone, Copy, Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct ExportQuery {
    /// The first row; 1 where absent. Beyond the last one there is nothing to show.
    #[param(minimum = 1, nullable = false)]
    from: Option<u64>,
}

/// Every change within the caller's reach, newest first: those of its project; with the scope `admin` those of its
/// organisation; the operator's key sees all.
#[utoipa::path(
    get, path = "/api/v0/audit", tag = "operations", security(("bearer" = []), ("key" = [])), params(AuditQuery),
    responses((status = 200, body = Listed<AuditItem>), (status = 400, body = ProblemBody), (status = 401, body = ProblemBody))
)]
pub async fn list(
    State(app): State<Arc<App>>,
    caller: Caller,
    Query(query): Query<AuditQuery>,
) -> Result<Json<Listed<AuditItem>>, Problem> {
    caller.require(Scope::Read)?;
    let limit = limit(query.limit, 50)?;
    let filter = TrailFilter {
        reach: caller.audit_reach(),
        before: query.before,
        since_ms: query.since_ms,
        until_ms: query.until_ms,
        project: query.project.clone(),
        key: query.key.clone(),
        action: query.action.clone(),
        trace_id: query.trace_id.clone(),
    };
    let rows = app.store.trail_search(&filter, limit).await?;
    Ok(Json(Listed::of(rows, limit, |row| query.next(limit, row.seq), AuditItem::from)))
}

impl AuditQuery {
    /// The same question about what is older than a row.
    fn next(&self, limit: u32, before: u64) -> String {
        let mut next = format!("/api/v0/audit?limit={limit}&before={before}");
        for (name, number) in [("since_ms", self.since_ms), ("until_ms", self.until_ms)] {
            if let Some(number) = number {
                next += &format!("&{name}={number}");
            }
        }
        for (name, text) in
            [("project", &self.project), ("key", &self.key), ("action", &self.action), ("trace_id", &self.trace_id)]
        {
            if let Some(text) = text {
                next += &format!("&{name}={}", super::signed::escaped(text));
            }
        }
        next
    }
}

/// The whole log as text that `forgepool audit verify` checks without a network.
///
/// One JSON object a line. Rows beyond the caller's reach are there by their digests alone, so that the chain is whole.
/// The last line is signed: an export without it was cut off.
#[utoipa::path(
    get, path = "/api/v0/audit/export", tag = "operations", security(("bearer" = []), ("key" = [])), params(ExportQuery),
    responses(
        (status = 200, description = "The export", body = String, content_type = "application/vnd.forgepool.audit+jsonl"),
        (status = 400, body = ProblemBody), (status = 401, body = ProblemBody)
    )
)]
pub async fn export(
    State(app): State<Arc<App>>,
    caller: Caller,
    Query(query): Query<ExportQuery>,
) -> Result<Response, Problem> {
    caller.require(Scope::Read)?;
    let (from, tip) = (query.from.unwrap_or(1), app.store.trail_tip().await?);
    if from == 0 {
        return Err(refused("from: expected 1 or more, found 0".into()));
    }
    let from = from.min(tip.seq + 1);
    let before = match from {
        1 => Tip::default(),
        _ => app.store.trail(from - 2, 1).await?.first().map(Row::tip).unwrap_or_default(),
    };
    let reach = caller.audit_reach();
    let opening = Opening::new(&reach.to_string(), before);
    let first = text::opening(&opening);
    let state = Exporting { app, reach, opening, at: before.seq, tip, first: Some(first), over: false };
    let stream = futures_util::stream::try_unfold(state, |mut state| async move {
        let chunk = state.next().await?;
        Ok::<_, StoreError>(chunk.map(|chunk| (bytes::Bytes::from(chunk), state)))
    });
    let kind = HeaderValue::from_static(text::MEDIA_TYPE);
    let name = HeaderValue::from_static("attachment; filename=\"audit.jsonl\"");
    Ok(([(header::CONTENT_TYPE, kind), (header::CONTENT_DISPOSITION, name)], Body::from_stream(stream)).into_response())
}

/// An export on its way: the rows there were when it began.
struct Exporting {
    app: Arc<App>,
    reach: Reach,
    opening: Opening,
    at: u64,
    tip: Tip,
    first: Option<String>,
    over: bool,
}

impl Exporting {
    async fn next(&mut self) -> Result<Option<String>, StoreError> {
        if self.over {
            return Ok(None);
        }
        let mut chunk = self.first.take().unwrap_or_default();
        let wanted = u64::from(PAGE).min(self.tip.seq - self.at);
        let rows = match u32::try_from(wanted).unwrap_or(PAGE) {
            0 => Vec::new(),
            limit => self.app.store.trail(self.at, limit).await?,
        };
        let heads = self.app.store.trail_heads(self.at.max(1), 2 * PAGE).await?;
        for row in &rows {
            chunk += &if self.reach.sees(&row.entry) { text::row(row) } else { text::hidden(row) };
            heads.iter().filter(|head| head.seq == row.seq).for_each(|head| chunk += &text::head(head));
            self.at = row.seq;
        }
        if self.at >= self.tip.seq || rows.is_empty() {
            self.over = true;
            chunk += &text::head(&sign(&self.app, self.tip, (Purpose::Export, self.opening.sealed())));
        }
        Ok(Some(chunk))
    }
}

fn sign(app: &App, tip: Tip, of: (Purpose, String)) -> Head {
    Head::seal(tip, crate::clock::unix_ms(), of, app.notary.key(), |bytes| app.notary.sign(bytes))
}

/// Where the log stands, signed: whoever keeps it can hold the hub to every row up to it.
#[utoipa::path(
    get, path = "/api/v0/audit/head", tag = "operations", security(("bearer" = []), ("key" = [])),
    responses((status = 200, body = AuditHead), (status = 401, body = ProblemBody))
)]
pub async fn head(State(app): State<Arc<App>>, _caller: Caller) -> Result<Json<AuditHead>, Problem> {
    let head = sign(&app, app.store.trail_tip().await?, (Purpose::Asked, String::new()));
    Ok(Json(AuditHead {
        seq: head.seq,
        link: head.link.to_string(),
        at_ms: head.at_ms,
        purpose: head.purpose.as_str().into(),
        scope: head.scope,
        key: head.key.to_string(),
        signature: head.signature.to_string(),
    }))
}

fn refused(what: String) -> Problem {
    Problem::of(FailureCode::RequestSchema, format!("the parameter {what}"))
}
