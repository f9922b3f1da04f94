//! Arrays by name: the next version in, any version or part of one out.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse as _, Response};
use forge_contract::array::slice::{self, Selection};
use forge_contract::array::{ArrayType, dtype};
use forge_contract::vmem::VERSION_MAX;
use forge_contract::{FailureCode, key};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::App;
use super::auth::{Caller, Scope};
use super::content::{ASK, FOR_EVER, Shown, serve};
use super::kv::named;
use super::page::{Listed, limit};
use super::problem::{Problem, ProblemBody};
use crate::condition::Condition;
use crate::document::Links;
use crate::store::data::{ArrayRow, DataWrite, DataWritten, NewArray};
use crate::store::{Source, StoreError};
use crate::vmem::{ArrayError, Format, Part, Taken};

const PAGE: u32 = 50;
/// Most digits of a version: those of the largest number that JSON carries exactly.
const VERSION_DIGITS_MAX: usize = 16;
/// A version's number, as a regular expression.
pub(super) const NUMBER_PATTERN: &str = "^[1-9][0-9]{0,15}$";
/// The same, or the latest one.
pub(super) const VERSION_PATTERN: &str = "^([1-9][0-9]{0,15}|latest)$";

/// Which version is given.
const VERSION_HEADER: HeaderName = HeaderName::from_static("forge-version");
/// Type of its numbers.
const DTYPE_HEADER: HeaderName = HeaderName::from_static("forge-dtype");
/// Shape of what is given.
const SHAPE_HEADER: HeaderName = HeaderName::from_static("forge-shape");
/// BLAKE3 of the whole array's file.
const DIGEST_HEADER: HeaderName = HeaderName::from_static("forge-digest");

/// A version of an array.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct VmemItem {
    /// Its name.
    pub name: String,
    /// Its version, from 1.
    pub version: u64,
    /// Type of its numbers: `f32`, `f64`, `i32`, `i64`.
    pub dtype: String,
    /// Numbers along each dimension.
    pub shape: Vec<u64>,
    /// Size of its `.npy` file, bytes.
    pub bytes: u64,
    /// BLAKE3 of that file: what a result that reads it is a function of. Absent once it was deleted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// The job it is a result of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub job_id: Option<String>,
    /// Which part of the result.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub part: Option<String>,
    /// The job.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub job_url: Option<String>,
    /// When it was kept: UTC, RFC 3339.
    pub created_at: String,
    /// The same, ms since 1970.
    pub created_at_ms: u64,
    /// When it was deleted, ms since 1970. Its number is never given again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deleted_at_ms: Option<u64>,
    /// Where it is read.
    pub url: String,
}

impl VmemItem {
    fn of(row: &ArrayRow) -> Self {
        Self {
            name: row.name.clone(),
            version: row.version,
            dtype: dtype(row.array.number).into(),
            shape: row.array.shape.clone(),
            bytes: row.bytes,
            digest: row.digest.map(|digest| digest.to_string()),
            job_id: row.job.map(|job| job.to_string()),
            part: row.part.clone(),
            job_url: row.job.map(|job| Links::of(job).this),
            created_at: crate::clock::rfc3339(row.created_ms),
            created_at_ms: row.created_ms,
            deleted_at_ms: row.deleted_ms,
            url: format!("/api/v0/vmem/{}/{}", row.name, row.version),
        }
    }
}

/// Which arrays.
#[derive(Clone, Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct VmemQuery {
    /// Most to give, 1 to 1000; 50 where absent.
    limit: Option<u32>,
    /// Only names after this one.
    after: Option<String>,
}

/// Which versions.
#[derive(Clone, Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct VersionQuery {
    /// Most to give, 1 to 1000; 50 where absent.
    limit: Option<u32>,
    /// Only versions after this one.
    after: Option<u64>,
}

/// Which part of an array.
#[derive(Clone, Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct PartQuery {
    /// As numpy's basic slicing: `0:10,:,3`. Only these numbers are read and sent.
    slice: Option<String>,
}

impl From<ArrayError> for Problem {
    fn from(error: ArrayError) -> Self {
        match error {
            ArrayError::Blob(error) => crate::upload::failed(error, 0).into(),
            ArrayError::Io(error) => {
                tracing::error!(%error, "an array that arrived cannot be read back");
                Self::of(FailureCode::AggregationStorage, "the hub could not read back what arrived")
            }
            error => Self::of(FailureCode::RequestArray, error.to_string()),
        }
    }
}

/// Keeps an array as the next version of its name, which the answer says.
///
/// The body is `.npy` (versions 1.0 to 3.0) or an Arrow IPC stream or file of one column: numbers for one dimension,
/// `arrow.fixed_shape_tensor` or lists of one size for more. It is float32, float64, int32 or int64, little-endian, of at
/// most eight dimensions in C order. A version never changes.
#[utoipa::path(
    post, path = "/api/v0/vmem/{name}", tag = "data", security(("bearer" = []), ("key" = [])),
    params(("name" = String, Path, description = "1 to 64 letters, digits, '.', '_', '-', a letter or digit first")),
    request_body(
        content((String = "application/x-npy"), (String = "application/vnd.apache.arrow.stream"), (String = "application/vnd.apache.arrow.file")),
        description = "The array"
    ),
    responses(
        (status = 201, body = VmemItem, description = "It is there under this version"),
        (status = 400, body = ProblemBody), (status = 401, body = ProblemBody), (status = 408, body = ProblemBody),
        (status = 413, body = ProblemBody), (status = 415, body = ProblemBody),
        (status = 422, body = ProblemBody, description = "The bytes are no array, or one that is not kept"),
        (status = 507, body = ProblemBody)
    )
)]
pub async fn put(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    caller.require(Scope::Compute)?;
    named("name", &name, key::word)?;
    let format = format_of(&headers)?;
    if app.stopping.is_cancelled() {
        return Err(Problem::of(FailureCode::SchedulingShutdown, "the hub is stopping"));
    }
    // A task of its own: what arrived whole is recorded, whether or not its sender still listens.
    let work = async move { take(&app, &caller, name, format, body).await };
    let unwritten = || Problem::of(FailureCode::AggregationStorage, "the hub could not record the array");
    tokio::spawn(tracing::Instrument::in_current_span(work)).await.unwrap_or_else(|_| Err(unwritten()))
}

async fn take(app: &Arc<App>, caller: &Caller, name: String, format: Format, body: Body) -> Result<Response, Problem> {
    let project = &*caller.project;
    // What is known to be too much is not read; what it came to is counted again where it is recorded.
    if let Some(exceeded) = app.store.no_room(project, axum::body::HttpBody::size_hint(&body).lower()).await? {
        return Err(exceeded.into());
    }
    let body = crate::vmem::receive(&app.blobs, body, app.blob_bytes, app.body_time).await?;
    caller.still().await?;
    let blobs = Arc::clone(&app.blobs);
    let converted = tokio::task::spawn_blocking(move || crate::vmem::convert(&blobs, body, format)).await;
    // A reader of Arrow may give up on bytes that it was never meant to see.
    let unread = |_| Problem::of(FailureCode::RequestArray, "the body is no Arrow that is read here");
    let Taken { hold, bytes, array, data_at } = converted.map_err(unread)??;
    let digest = hold.digest();
    let new = NewArray {
        project: project.into(),
        name: name.clone(),
        digest,
        bytes,
        array,
        data_at,
        source: None,
        version: None,
    };
    let written = caller.ticket.with(app, DataWrite::Array(Box::new(new)), StatusCode::CREATED).await?;
    drop(hold);
    let unwritten = || Problem::of(FailureCode::AggregationStorage, "the hub could not record the array");
    let version = match written {
        DataWritten::Version(version) => version,
        DataWritten::Exceeded(exceeded) => return Err(exceeded.into()),
        _ => return Err(unwritten()),
    };
    let row = app.store.array(project, &name, Some(version)).await?.ok_or_else(unwritten)?;
    tracing::info!(name, version, %digest, bytes, project, "array stored");
    let item = VmemItem::of(&row);
    let location = HeaderValue::from_str(&item.url).unwrap_or(HeaderValue::from_static(""));
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], Json(item)).into_response())
}

fn format_of(headers: &HeaderMap) -> Result<Format, Problem> {
    let refused = |detail: String| Problem::of(FailureCode::RequestMediaType, detail);
    if headers.contains_key(header::CONTENT_ENCODING) {
        return Err(refused("Content-Encoding: an array is sent as it is; leave the header out".into()));
    }
    let given = headers.get(header::CONTENT_TYPE).map(|value| value.to_str().unwrap_or("(not text)"));
    given.and_then(Format::of_body).ok_or_else(|| {
        let [npy, stream, file, _] = Format::ALL.map(Format::media_type);
        let found = given.map_or_else(|| "none".into(), |given| format!("'{given}'"));
        refused(format!("Content-Type: expected {npy}, {stream} or {file}, found {found}"))
    })
}

/// Reads the latest version of an array that was not deleted, whole or in part. Answers as the versions' own route does.
#[utoipa::path(
    method(get, head), path = "/api/v0/vmem/{name}", tag = "data", security(("bearer" = []), ("key" = [])),
    params(("name" = String, Path, description = "1 to 64 letters, digits, '.', '_', '-', a letter or digit first"))
)]
pub async fn latest(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(name): Path<String>,
    Query(query): Query<PartQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    caller.require(Scope::Read)?;
    let row = row(&app, &caller, &name, None).await?;
    give(&app, &row, query, &headers, ASK).await
}

/// Reads a version of an array, whole or in part; `latest` is a version, too.
///
/// A slice is computed from the bytes it needs: the rest of the array is not read.
#[utoipa::path(
    method(get, head), path = "/api/v0/vmem/{name}/{version}", tag = "data", security(("bearer" = []), ("key" = [])),
    params(
        ("name" = String, Path, description = "1 to 64 letters, digits, '.', '_', '-', a letter or digit first"),
        ("version" = String, Path, description = "An integer from 1, or `latest`"), PartQuery,
        ("Accept" = Option<String>, Header, description = "`application/x-npy`, `application/vnd.apache.arrow.stream`, `application/vnd.apache.arrow.file`, or `application/json` for what is known of it"),
        ("Range" = Option<String>, Header, description = "`bytes=FIRST-LAST` of the whole `.npy` file"),
        ("If-None-Match" = Option<String>, Header, description = "Only where its ETag is none of these")
    ),
    responses(
        (status = 200, description = "The array; `Forge-Version`, `Forge-Dtype`, `Forge-Shape`, `Forge-Digest` say which", content(
            (String = "application/x-npy"), (String = "application/vnd.apache.arrow.stream"),
            (String = "application/vnd.apache.arrow.file"), (VmemItem = "application/json"))),
        (status = 206, description = "The range", body = String, content_type = "application/x-npy"),
        (status = 304, description = "Unchanged, as a version always is"),
        (status = 400, body = ProblemBody), (status = 401, body = ProblemBody), (status = 404, body = ProblemBody),
        (status = 406, body = ProblemBody), (status = 416, body = ProblemBody),
        (status = 422, description = "The array has no such part", body = ProblemBody)
    )
)]
pub async fn show(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path((name, version)): Path<(String, String)>,
    Query(query): Query<PartQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    caller.require(Scope::Read)?;
    let version = version_of(&version)?;
    let row = row(&app, &caller, &name, version).await?;
    give(&app, &row, query, &headers, if version.is_some() { FOR_EVER } else { ASK }).await
}

fn version_of(text: &str) -> Result<Option<u64>, Problem> {
    if text == "latest" {
        return Ok(None);
    }
    let spelt = text.bytes().all(|byte| byte.is_ascii_digit()) && !text.starts_with('0');
    let version = text.parse::<u64>().ok().filter(|_| spelt && text.len() <= VERSION_DIGITS_MAX);
    let version = version.ok_or_else(|| {
        let shown: String = text.chars().take(40).flat_map(char::escape_default).collect();
        let detail = format!("the version: expected an integer from 1, or latest, found '{shown}'");
        Problem::of(FailureCode::RequestSchema, detail)
    })?;
    // No array has as many.
    if version > VERSION_MAX { Err(Problem::not_found("array")) } else { Ok(Some(version)) }
}

async fn row(app: &App, caller: &Caller, name: &str, version: Option<u64>) -> Result<ArrayRow, Problem> {
    named("name", name, key::word)?;
    let row = app.store.array(&caller.project, name, version).await?;
    let row = row.ok_or_else(|| Problem::not_found("array"))?;
    if row.digest.is_some() {
        return Ok(row);
    }
    let when = row.deleted_ms.map(crate::clock::rfc3339).unwrap_or_default();
    let detail = format!("version {} of '{name}' was deleted at {when}; its number is never given again", row.version);
    Err(Problem::of(FailureCode::RequestNotFound, detail))
}

async fn give(
    app: &App,
    row: &ArrayRow,
    query: PartQuery,
    headers: &HeaderMap,
    cache: &'static str,
) -> Result<Response, Problem> {
    let condition = Condition::of(headers)?;
    let format = Format::accepted(headers).ok_or_else(|| {
        let detail = format!("Accept: an array is given as {}", Format::ALL.map(Format::media_type).join(", "));
        Problem::of(FailureCode::RequestNotAcceptable, detail)
    })?;
    let unreadable = || Problem::of(FailureCode::AggregationStorage, "the array is recorded but its bytes are gone");
    let digest = row.digest.ok_or_else(unreadable)?;
    let selection = query.slice.as_deref().map(|text| Selection::parse(text, &row.array)).transpose();
    let selection = selection.map_err(|error| {
        let spelt = query.slice.as_deref().is_some_and(slice::is_spelt);
        let code = if spelt { FailureCode::RequestConflict } else { FailureCode::RequestSchema };
        Problem::of(code, format!("the parameter slice: {error}; the array is {:?}", row.array.shape))
    })?;
    let shape = selection.as_ref().map_or(row.array.shape.as_slice(), Selection::shape).to_vec();
    let array = ArrayType { number: row.array.number, shape };
    let text = format!("{:?}", array.shape).replace(' ', "");
    let mut response = if format == Format::Json {
        Json(VmemItem::of(row)).into_response()
    } else {
        let source = Source::of(&*app.store, &app.blobs, digest).await?.ok_or_else(unreadable)?;
        if format == Format::Npy && selection.is_none() {
            let media_type = HeaderValue::from_static(Format::Npy.media_type());
            serve(headers, &Shown { tag: format!("\"{digest}\""), media_type, cache }, source).await?
        } else {
            let tag = format!("\"{digest}.{}.{}\"", format.media_type(), query.slice.as_deref().unwrap_or_default());
            let whole = || Selection::parse("...", &row.array);
            let selection = selection.map_or_else(whole, Ok).map_err(|_| unreadable())?;
            made(&condition, tag, cache, Part { source, data_at: row.data_at, selection, array }, format)?
        }
    };
    let fields = response.headers_mut();
    fields.insert(header::VARY, HeaderValue::from_static("Accept"));
    for (name, text) in [
        (VERSION_HEADER, row.version.to_string()),
        (DTYPE_HEADER, dtype(row.array.number).to_owned()),
        (SHAPE_HEADER, text),
        (DIGEST_HEADER, digest.to_string()),
    ] {
        fields.extend(HeaderValue::from_str(&text).ok().map(|value| (name, value)));
    }
    Ok(response)
}

/// The answer for bytes that are made while they are sent.
fn made(
    condition: &Condition,
    tag: String,
    cache: &'static str,
    part: Part,
    format: Format,
) -> Result<Response, Problem> {
    if format != Format::Npy && !crate::vmem::arrow_holds(&part.array) {
        let detail = "Accept: a row of this array has more numbers than an Arrow list holds; ask for application/x-npy";
        return Err(Problem::of(FailureCode::RequestNotAcceptable, detail));
    }
    let value = HeaderValue::from_str(&tag).unwrap_or(HeaderValue::from_static(""));
    let always = [(header::ETAG, value), (header::CACHE_CONTROL, HeaderValue::from_static(cache))];
    if !condition.misses(Some(tag.trim_matches('"'))) {
        return Ok((StatusCode::NOT_MODIFIED, always).into_response());
    }
    let bytes = forge_contract::array::npy::header(&part.array).len() as u64 + part.array.bytes();
    let kind = [(header::CONTENT_TYPE, HeaderValue::from_static(format.media_type()))];
    let body = crate::vmem::stream(move |pipe| crate::vmem::write(part, format, pipe));
    let mut response = (always, kind, body).into_response();
    if format == Format::Npy {
        response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(bytes));
    }
    Ok(response)
}

/// The latest version of every array, by name.
#[utoipa::path(
    get, path = "/api/v0/vmem", tag = "data", security(("bearer" = []), ("key" = [])), params(VmemQuery),
    responses((status = 200, body = Listed<VmemItem>), (status = 400, body = ProblemBody), (status = 401, body = ProblemBody))
)]
pub async fn list(
    State(app): State<Arc<App>>,
    caller: Caller,
    Query(query): Query<VmemQuery>,
) -> Result<Json<Listed<VmemItem>>, Problem> {
    caller.require(Scope::Read)?;
    let limit = limit(query.limit, PAGE)?;
    if let Some(after) = &query.after {
        named("parameter after", after, key::word)?;
    }
    let rows = app.store.arrays(&caller.project, query.after.as_deref(), limit).await?;
    let next = |row: &ArrayRow| format!("/api/v0/vmem?limit={limit}&after={}", row.name);
    Ok(Json(Listed::of(rows, limit, next, |row| VmemItem::of(&row))))
}

/// The versions of an array, rising; those that were deleted are shown as such.
#[utoipa::path(
    get, path = "/api/v0/vmem/{name}/versions", tag = "data", security(("bearer" = []), ("key" = [])),
    params(("name" = String, Path, description = "1 to 64 letters, digits, '.', '_', '-', a letter or digit first"), VersionQuery),
    responses(
        (status = 200, body = Listed<VmemItem>), (status = 400, body = ProblemBody), (status = 401, body = ProblemBody),
        (status = 404, body = ProblemBody)
    )
)]
pub async fn versions(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(name): Path<String>,
    Query(query): Query<VersionQuery>,
) -> Result<Json<Listed<VmemItem>>, Problem> {
    caller.require(Scope::Read)?;
    named("name", &name, key::word)?;
    let limit = limit(query.limit, PAGE)?;
    let after = query.after.unwrap_or(0);
    let rows = app.store.array_versions(&caller.project, &name, after, limit).await?;
    if rows.is_empty() && app.store.next_version(&caller.project, &name).await? == 1 {
        return Err(Problem::not_found("array"));
    }
    let next = |row: &ArrayRow| format!("/api/v0/vmem/{name}/versions?limit={limit}&after={}", row.version);
    Ok(Json(Listed::of(rows, limit, next, |row| VmemItem::of(&row))))
}

/// Deletes a version for good: its number is never given again. Jobs that read it keep its content.
#[utoipa::path(
    delete, path = "/api/v0/vmem/{name}/{version}", tag = "data", security(("bearer" = []), ("key" = [])),
    params(
        ("name" = String, Path, description = "1 to 64 letters, digits, '.', '_', '-', a letter or digit first"),
        ("version" = String, Path, description = "An integer from 1")
    ),
    responses(
        (status = 204, description = "It is gone"),
        (status = 400, body = ProblemBody), (status = 401, body = ProblemBody), (status = 404, body = ProblemBody)
    )
)]
pub async fn remove(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path((name, version)): Path<(String, String)>,
) -> Result<StatusCode, Problem> {
    caller.require(Scope::Compute)?;
    let version = version_of(&version)?.ok_or_else(|| {
        Problem::of(FailureCode::RequestSchema, "the version: a deletion names its number; latest is refused")
    })?;
    let row = row(&app, &caller, &name, Some(version)).await?;
    let write = DataWrite::ArrayDelete { project: caller.project.to_string(), name: row.name, version };
    match caller.ticket.with(&app, write, StatusCode::NO_CONTENT).await? {
        DataWritten::Removed(true) => {
            tracing::info!(name, version, project = &*caller.project, "array deleted");
            Ok(StatusCode::NO_CONTENT)
        }
        DataWritten::Removed(false) => Err(Problem::not_found("array")),
        _ => Err(StoreError::Corrupt { what: "answer to a deletion" }.into()),
    }
}

/// The routes of arrays by name.
pub fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(latest, put))
        .routes(routes!(versions))
        .routes(routes!(show, remove))
}
