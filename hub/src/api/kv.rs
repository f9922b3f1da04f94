//! Values by namespace and key: small state with compare-and-set and an end of its own.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse as _, Response};
use forge_contract::{FailureCode, key};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::App;
use super::auth::{Caller, Scope};
use super::content::{ASK, Shown};
use super::page::{Listed, limit};
use super::problem::{Problem, ProblemBody};
use crate::condition::{Condition, ConditionError};
use crate::document::Links;
use crate::store::Source;
use crate::store::data::{DataWrite, DataWritten, KvEntry, KvKey, KvList, NamespaceRow, NewValue};

const PAGE: u32 = 50;
/// Longest life of a value: ten years, seconds.
pub(super) const TTL_S_MAX: u64 = 315_360_000;
/// Longest media type that is kept, bytes.
const MEDIA_TYPE_BYTES_MAX: usize = 256;
/// BLAKE3 of the value.
const DIGEST_HEADER: HeaderName = HeaderName::from_static("forge-digest");
/// When the value stops being there, RFC 3339.
const EXPIRES_HEADER: HeaderName = HeaderName::from_static("forge-expires-at");

/// An entry, without its value.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct KvItem {
    /// Its namespace.
    pub namespace: String,
    /// Its key.
    pub key: String,
    /// Its entity tag, as `If-Match` takes it: another one after every change, never used twice.
    pub etag: String,
    /// BLAKE3 of its value.
    pub digest: String,
    /// Size of its value, bytes.
    pub bytes: u64,
    /// Media type, as it was sent.
    pub content_type: String,
    /// The job whose artifact it stands for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub job_id: Option<String>,
    /// When there was first something under the key, ms since 1970.
    pub created_at_ms: u64,
    /// When it was last written, ms since 1970.
    pub updated_at_ms: u64,
    /// When it stops being there: UTC, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<String>,
    /// The same, ms since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at_ms: Option<u64>,
    /// The value.
    pub url: String,
    /// The artifact it stands for, in its job.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub artifacts_url: Option<String>,
}

impl KvItem {
    fn of(namespace: &str, entry: &KvEntry) -> Self {
        Self {
            namespace: namespace.into(),
            key: entry.key.clone(),
            etag: tag(entry.revision),
            digest: entry.digest.to_string(),
            bytes: entry.bytes,
            content_type: entry.media_type.clone(),
            job_id: entry.job.map(|job| job.to_string()),
            created_at_ms: entry.created_ms,
            updated_at_ms: entry.updated_ms,
            expires_at: entry.expires_ms.map(crate::clock::rfc3339),
            expires_at_ms: entry.expires_ms,
            url: format!("/api/v0/kv/{namespace}/{}", entry.key),
            artifacts_url: entry.job.map(|job| Links::of(job).artifacts),
        }
    }
}

/// A namespace with what is in it.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct NamespaceItem {
    /// Its name.
    pub namespace: String,
    /// Entries.
    pub keys: u64,
    /// Bytes of their values, artifacts that keys stand for included.
    pub bytes: u64,
    /// The entries.
    pub url: String,
}

/// Which namespaces.
#[derive(Clone, Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct NamespaceQuery {
    /// Most to give, 1 to 1000; 50 where absent.
    limit: Option<u32>,
    /// Only those after this one.
    after: Option<String>,
}

/// Which entries.
#[derive(Clone, Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct KvQuery {
    /// Most to give, 1 to 1000; 50 where absent.
    limit: Option<u32>,
    /// Only keys that begin with this.
    prefix: Option<String>,
    /// Only keys after this one.
    after: Option<String>,
}

/// How long a value stays.
#[derive(Clone, Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct KvPutQuery {
    /// Seconds until it stops being there, 1 to 315,360,000; where absent, it stays.
    ttl_s: Option<u64>,
}

fn tag(revision: u64) -> String {
    format!("\"{revision}\"")
}

fn tag_value(revision: u64) -> HeaderValue {
    HeaderValue::from_str(&tag(revision)).unwrap_or(HeaderValue::from_static(""))
}

impl From<ConditionError> for Problem {
    fn from(error: ConditionError) -> Self {
        Self::of(FailureCode::RequestSchema, error.to_string())
    }
}

/// A text of a path or query, where it is what it must be.
pub(super) fn named(what: &str, text: &str, rule: impl Fn(&str) -> Result<(), key::KeyError>) -> Result<(), Problem> {
    rule(text).map_err(|error| {
        let shown: String = text.chars().take(80).flat_map(char::escape_default).collect();
        Problem::of(FailureCode::RequestSchema, format!("the {what}: {error}, in '{shown}'"))
    })
}

fn place(caller: &Caller, namespace: String, name: String) -> Result<KvKey, Problem> {
    named("namespace", &namespace, key::word)?;
    named("key", &name, key::key)?;
    Ok(KvKey { project: caller.project.to_string(), namespace, key: name })
}

fn unmet(revision: Option<u64>) -> Problem {
    let found =
        revision.map_or_else(|| "there is no such key".to_owned(), |revision| format!("its ETag is {}", tag(revision)));
    let problem = Problem::of(
        FailureCode::RequestPrecondition,
        format!("the condition of If-Match or If-None-Match does not hold: {found}; nothing was changed"),
    );
    match revision {
        Some(revision) => problem.with_header(header::ETAG, tag_value(revision)),
        None => problem,
    }
}

/// The namespaces in which there is something, by name.
#[utoipa::path(
    get, path = "/api/v0/kv", tag = "data", security(("bearer" = []), ("key" = [])), params(NamespaceQuery),
    responses((status = 200, body = Listed<NamespaceItem>), (status = 400, body = ProblemBody), (status = 401, body = ProblemBody))
)]
pub async fn namespaces(
    State(app): State<Arc<App>>,
    caller: Caller,
    Query(query): Query<NamespaceQuery>,
) -> Result<Json<Listed<NamespaceItem>>, Problem> {
    caller.require(Scope::Read)?;
    let limit = limit(query.limit, PAGE)?;
    if let Some(after) = &query.after {
        named("parameter after", after, key::word)?;
    }
    let now = crate::clock::unix_ms();
    let rows = app.store.kv_namespaces(&caller.project, query.after.as_deref(), limit, now).await?;
    let next = |row: &NamespaceRow| format!("/api/v0/kv?limit={limit}&after={}", row.name);
    let item = |row: NamespaceRow| NamespaceItem {
        url: format!("/api/v0/kv/{}", row.name),
        namespace: row.name,
        keys: row.keys,
        bytes: row.bytes,
    };
    Ok(Json(Listed::of(rows, limit, next, item)))
}

/// The entries of a namespace by key, without their values. A namespace in which there is nothing is an empty list.
#[utoipa::path(
    get, path = "/api/v0/kv/{namespace}", tag = "data", security(("bearer" = []), ("key" = [])),
    params(("namespace" = String, Path, description = "1 to 64 letters, digits, '.', '_', '-', a letter or digit first"), KvQuery),
    responses((status = 200, body = Listed<KvItem>), (status = 400, body = ProblemBody), (status = 401, body = ProblemBody))
)]
pub async fn list(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(namespace): Path<String>,
    Query(query): Query<KvQuery>,
) -> Result<Json<Listed<KvItem>>, Problem> {
    caller.require(Scope::Read)?;
    named("namespace", &namespace, key::word)?;
    let limit = limit(query.limit, PAGE)?;
    let prefix = query.prefix.unwrap_or_default();
    named("parameter prefix", &prefix, key::prefix)?;
    if let Some(after) = &query.after {
        named("parameter after", after, key::prefix)?;
    }
    let list = KvList { prefix, after: query.after, limit };
    let rows = app.store.kv_entries(&caller.project, &namespace, &list, crate::clock::unix_ms()).await?;
    let next = |row: &KvEntry| {
        let (prefix, after) = (super::signed::escaped(&list.prefix), super::signed::escaped(&row.key));
        format!("/api/v0/kv/{namespace}?limit={limit}&prefix={prefix}&after={after}")
    };
    Ok(Json(Listed::of(rows, limit, next, |row| KvItem::of(&namespace, &row))))
}

/// Reads a value, with the media type it was sent with. A key that stands for an artifact gives the artifact.
#[utoipa::path(
    method(get, head), path = "/api/v0/kv/{namespace}/{*key}", tag = "data", security(("bearer" = []), ("key" = [])),
    params(
        ("namespace" = String, Path, description = "1 to 64 letters, digits, '.', '_', '-', a letter or digit first"),
        ("key" = String, Path, description = "1 to 512 bytes: steps of letters, digits and ._-~:@=+, between slashes"),
        ("If-Match" = Option<String>, Header, description = "Only where its ETag is one of these, or `*`"),
        ("If-None-Match" = Option<String>, Header, description = "Only where its ETag is none of these"),
        ("Range" = Option<String>, Header, description = "`bytes=FIRST-LAST`: one range; several are answered with the whole")
    ),
    responses(
        (status = 200, description = "The value; `ETag`, `Forge-Digest`, and `Forge-Expires-At` where it has an end", body = String, content_type = "*/*"),
        (status = 206, description = "The range", body = String, content_type = "*/*"),
        (status = 304, description = "Unchanged"),
        (status = 400, body = ProblemBody), (status = 401, body = ProblemBody), (status = 404, body = ProblemBody),
        (status = 412, body = ProblemBody), (status = 416, body = ProblemBody)
    )
)]
pub async fn show(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path((namespace, key)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    caller.require(Scope::Read)?;
    let at = place(&caller, namespace, key)?;
    let condition = Condition::of(&headers)?;
    let found = app.store.kv(&at, crate::clock::unix_ms()).await?;
    let revision = found.as_ref().map(|(entry, _)| entry.revision);
    if !condition.expects(revision.map(|revision| revision.to_string()).as_deref()) {
        return Err(unmet(revision));
    }
    let (entry, value) = found.ok_or_else(|| Problem::not_found("key"))?;
    let source = match value {
        Some(value) => Source::Bytes(value.into()),
        None => Source::of(&*app.store, &app.blobs, entry.digest).await?.ok_or_else(|| {
            Problem::of(FailureCode::AggregationStorage, "the artifact is recorded but its bytes are gone")
        })?,
    };
    let media_type = HeaderValue::from_str(&entry.media_type);
    let media_type = media_type.unwrap_or(HeaderValue::from_static("application/octet-stream"));
    let shown = Shown { tag: tag(entry.revision), media_type, cache: ASK };
    let mut response = super::content::serve(&headers, &shown, source).await?;
    let fields = response.headers_mut();
    // A page that somebody kept here must not act in the name of this hub.
    fields.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static("sandbox; default-src 'none'"));
    add(fields, DIGEST_HEADER, &entry.digest.to_string());
    if let Some(expires_ms) = entry.expires_ms {
        add(fields, EXPIRES_HEADER, &crate::clock::rfc3339(expires_ms));
    }
    Ok(response)
}

fn add(fields: &mut HeaderMap, name: HeaderName, text: &str) {
    if let Ok(value) = HeaderValue::from_str(text) {
        fields.insert(name, value);
    }
}

/// Keeps a value under a key, of at most 1 MiB and of any media type.
///
/// `If-Match` with the ETag that was read makes it a compare-and-set: of any number of writers that read the same value, one
/// wins, and the others are told 412. `If-None-Match: *` keeps it only where there is nothing. An ETag is never used
/// twice, so a value that was changed and changed back is another one.
#[utoipa::path(
    put, path = "/api/v0/kv/{namespace}/{*key}", tag = "data", security(("bearer" = []), ("key" = [])),
    params(
        ("namespace" = String, Path, description = "1 to 64 letters, digits, '.', '_', '-', a letter or digit first"),
        ("key" = String, Path, description = "1 to 512 bytes: steps of letters, digits and ._-~:@=+, between slashes"),
        KvPutQuery,
        ("If-Match" = Option<String>, Header, description = "Only where its ETag is one of these, or `*`"),
        ("If-None-Match" = Option<String>, Header, description = "Only where its ETag is none of these; `*`: only where there is nothing")
    ),
    request_body(content = Option<String>, content_type = "application/octet-stream", description = "The value; any media type, which is kept. Empty where there is no body"),
    responses(
        (status = 200, body = KvItem, description = "It took the place of another value"),
        (status = 201, body = KvItem, description = "There was nothing under the key"),
        (status = 400, body = ProblemBody), (status = 401, body = ProblemBody), (status = 408, body = ProblemBody),
        (status = 412, body = ProblemBody), (status = 413, body = ProblemBody), (status = 415, body = ProblemBody),
        (status = 422, body = ProblemBody, description = "The project may not store as much")
    )
)]
pub async fn put(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path((namespace, key)): Path<(String, String)>,
    Query(query): Query<KvPutQuery>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    caller.require(Scope::Compute)?;
    let at = place(&caller, namespace, key)?;
    let condition = Condition::of(&headers)?;
    let expires_ms = query.ttl_s.map(expiry).transpose()?;
    let media_type = media_type(&headers)?;
    let value = super::body::read_raw(&headers, body, app.body_time).await?.to_vec();
    caller.still().await?;
    let namespace = at.namespace.clone();
    let new = NewValue { at, value, media_type, expires_ms, condition };
    match caller.ticket.with(&app, DataWrite::KvPut(Box::new(new)), StatusCode::OK).await? {
        DataWritten::Kept { entry, new } => {
            let status = if new { StatusCode::CREATED } else { StatusCode::OK };
            let tag = [(header::ETAG, tag_value(entry.revision))];
            Ok((status, tag, Json(KvItem::of(&namespace, &entry))).into_response())
        }
        DataWritten::Unmet(revision) => Err(unmet(revision)),
        DataWritten::Exceeded(exceeded) => Err(exceeded.into()),
        _ => Err(Problem::of(FailureCode::AggregationStorage, "the hub could not record the value")),
    }
}

fn expiry(seconds: u64) -> Result<u64, Problem> {
    if (1..=TTL_S_MAX).contains(&seconds) {
        return Ok(crate::clock::unix_ms() + seconds * 1000);
    }
    let detail = format!(
        "the parameter ttl_s: expected 1 to {TTL_S_MAX} seconds, found {seconds}; leave it out to keep the value"
    );
    Err(Problem::of(FailureCode::RequestSchema, detail))
}

fn media_type(headers: &HeaderMap) -> Result<String, Problem> {
    let Some(value) = headers.get(header::CONTENT_TYPE) else { return Ok("application/octet-stream".into()) };
    let text = value.to_str().ok().filter(|text| (1..=MEDIA_TYPE_BYTES_MAX).contains(&text.len()));
    text.map(str::to_owned).ok_or_else(|| {
        let detail = format!("Content-Type: expected 1 to {MEDIA_TYPE_BYTES_MAX} printable ASCII characters");
        Problem::of(FailureCode::RequestMediaType, detail)
    })
}

/// Removes a key. Of one that stands for an artifact only the key goes: the evidence stays with its job.
#[utoipa::path(
    delete, path = "/api/v0/kv/{namespace}/{*key}", tag = "data", security(("bearer" = []), ("key" = [])),
    params(
        ("namespace" = String, Path, description = "1 to 64 letters, digits, '.', '_', '-', a letter or digit first"),
        ("key" = String, Path, description = "1 to 512 bytes: steps of letters, digits and ._-~:@=+, between slashes"),
        ("If-Match" = Option<String>, Header, description = "Only where its ETag is one of these, or `*`")
    ),
    responses(
        (status = 204, description = "It is gone"),
        (status = 400, body = ProblemBody), (status = 401, body = ProblemBody), (status = 404, body = ProblemBody),
        (status = 412, body = ProblemBody)
    )
)]
pub async fn remove(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path((namespace, key)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<StatusCode, Problem> {
    caller.require(Scope::Compute)?;
    let at = place(&caller, namespace, key)?;
    let condition = Condition::of(&headers)?;
    match caller.ticket.with(&app, DataWrite::KvDelete { at, condition }, StatusCode::NO_CONTENT).await? {
        DataWritten::Removed(true) => Ok(StatusCode::NO_CONTENT),
        DataWritten::Unmet(revision) => Err(unmet(revision)),
        _ => Err(Problem::not_found("key")),
    }
}

/// The routes of values by key.
pub fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new().routes(routes!(namespaces)).routes(routes!(list)).routes(routes!(show, put, remove))
}
