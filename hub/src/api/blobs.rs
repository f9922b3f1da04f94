//! Blobs: a project's content, by digest; sent once, read in ranges, never changed.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse as _, Response};
use forge_contract::{Digest, FailureCode};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde::{Deserialize, Serialize};
use tokio::io::AsyncSeekExt as _;
use utoipa::{IntoParams, ToSchema};

use super::App;
use super::auth::{Caller, Scope};
use super::content::Shown;
use super::page::{Listed, limit};
use super::problem::{Problem, ProblemBody};
use super::uploads::{UploadState, digest_in_path};
use crate::store::data::{DataWrite, DataWritten};
use crate::store::{BlobRow, Source, StoreError, Write, Written};
use crate::upload::{Agreement, Declared, Received, compare};

/// Content of the project.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct BlobItem {
    /// BLAKE3 of the content: what `args` name it by.
    pub digest: String,
    /// Size, bytes.
    pub bytes: u64,
    /// When the project first sent it: UTC, RFC 3339.
    pub created_at: String,
    /// The same, ms since 1970.
    pub created_at_ms: u64,
    /// The bytes.
    pub url: String,
}

impl BlobItem {
    fn of(row: &BlobRow) -> Self {
        Self {
            digest: row.digest.to_string(),
            bytes: row.bytes,
            created_at: crate::clock::rfc3339(row.created_ms),
            created_at_ms: row.created_ms,
            url: format!("/api/v0/blobs/{}", row.digest),
        }
    }
}

/// Which content.
#[derive(Clone, Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct BlobQuery {
    /// Most to give, 1 to 1000; 50 where absent.
    limit: Option<u32>,
    /// Only what is older than the content of this digest.
    before: Option<String>,
}

/// What a body is.
#[derive(Clone, Copy, Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct PutQuery {
    /// Size of the whole content, bytes.
    bytes: u64,
    /// Where this body begins in it: 0, or where the upload stands. Where absent, 0: it begins anew.
    #[serde(default)]
    offset: u64,
}

/// Sends content, whole or from where an interrupted upload stands.
///
/// The digest is computed while the bytes arrive; nothing is visible before it is the one in the path. Content that
/// is there already stays as it is: the body is compared with it and refused where it differs.
#[utoipa::path(
    put, path = "/api/v0/blobs/{digest}", tag = "data", security(("bearer" = []), ("key" = [])),
    params(("digest" = String, Path, description = "BLAKE3 of the content, 64 hexadecimal digits"), PutQuery),
    request_body(content = Option<String>, content_type = "application/octet-stream", description = "The bytes from `offset` on; none of them where there is no body"),
    responses(
        (status = 201, body = BlobItem, description = "It is there now"),
        (status = 200, body = BlobItem, description = "It was there"),
        (status = 202, body = UploadState, description = "The body ended early; go on at `offset`"),
        (status = 400, body = ProblemBody), (status = 401, body = ProblemBody), (status = 408, body = ProblemBody),
        (status = 409, body = ProblemBody), (status = 413, body = ProblemBody), (status = 422, body = ProblemBody),
        (status = 429, body = ProblemBody), (status = 507, body = ProblemBody)
    )
)]
pub async fn put(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(digest): Path<String>,
    Query(query): Query<PutQuery>,
    body: Body,
) -> Result<Response, Problem> {
    caller.require(Scope::Compute)?;
    let declared = Declared { digest: digest_in_path(&digest)?, bytes: query.bytes, offset: query.offset };
    let project = Arc::clone(&caller.project);
    take(&app, (&project, Some(caller)), declared, body).await
}

/// Takes a body in for a project, where whoever sends it still may when all of it is there. Without a caller a signed URL
/// is its leave.
pub(super) async fn take(
    app: &Arc<App>,
    (project, caller): (&Arc<str>, Option<Caller>),
    declared: Declared,
    body: Body,
) -> Result<Response, Problem> {
    if app.stopping.is_cancelled() {
        return Err(Problem::of(FailureCode::SchedulingShutdown, "the hub is stopping"));
    }
    if let Some(row) = app.store.blob(project, &declared.digest).await? {
        return repeated(app, &row, declared, body).await;
    }
    if let Some(exceeded) = app.store.no_room(project, declared.bytes).await? {
        return Err(exceeded.into());
    }
    let (app, project) = (Arc::clone(app), Arc::clone(project));
    // A task of its own: content that arrived whole is recorded, whether or not its sender still listens.
    let work = async move { arrive(&app, (&project, caller.as_ref()), declared, body).await };
    let work = tracing::Instrument::in_current_span(work);
    tokio::spawn(work).await.unwrap_or_else(|_| Err(unwritten()))
}

async fn arrive(
    app: &App,
    (project, caller): (&str, Option<&Caller>),
    declared: Declared,
    body: Body,
) -> Result<Response, Problem> {
    let Declared { digest, bytes, .. } = declared;
    let received = app.uploads.receive(project, &declared, app.blob_bytes, body).await?;
    if let Some(caller) = caller {
        good_still(caller, &received).await?;
    }
    let file = match received {
        Received::Partial { offset } => {
            let state = UploadState { digest: digest.to_string(), bytes, offset };
            return Ok((StatusCode::ACCEPTED, Json(state)).into_response());
        }
        Received::Whole(file) => file,
    };
    // Until it is recorded: content that nobody named could be freed between two looks at it.
    let hold = app.blobs.hold(digest);
    let blobs = Arc::clone(&app.blobs);
    let moved = tokio::task::spawn_blocking(move || blobs.adopt(&file, &digest)).await.map_err(|_| unwritten())?;
    moved.map_err(StoreError::from)?;
    // Others may have taken the room meanwhile. The bytes lie under their digest, and this project cannot name them.
    if let Written::Exceeded(exceeded) =
        app.store.submit(Write::Blob { project: project.to_owned(), digest, bytes }).await?
    {
        return Err(exceeded.into());
    }
    drop(hold);
    let row = app.store.blob(project, &digest).await?.ok_or_else(unwritten)?;
    tracing::info!(%digest, bytes, project, "content stored");
    let item = BlobItem::of(&row);
    let location = HeaderValue::from_str(&item.url).unwrap_or(HeaderValue::from_static(""));
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], Json(item)).into_response())
}

/// Refuses what arrived while its key stopped working. What is whole goes; of what is not, the project may send the rest.
pub(super) async fn good_still(caller: &Caller, received: &Received) -> Result<(), Problem> {
    let still = caller.still().await;
    if let (Err(_), Received::Whole(file)) = (&still, received)
        && let Err(error) = tokio::fs::remove_file(file).await
    {
        tracing::warn!(path = %file.display(), %error, "an upload whose key was revoked stays until the next start");
    }
    still
}

fn unwritten() -> Problem {
    Problem::of(FailureCode::AggregationStorage, "the hub could not record the content")
}

/// Content that the project has: the body may only say the same again.
async fn repeated(app: &App, row: &BlobRow, declared: Declared, body: Body) -> Result<Response, Problem> {
    let digest = row.digest;
    let other = |how: String| {
        let detail = format!("{how}; the content {digest} is stored and never changes");
        Problem::of(FailureCode::RequestDigest, detail)
    };
    let (file, _) = opened(app, &digest).await?;
    let mut file = tokio::fs::File::from_std(file);
    let sought = file.seek(std::io::SeekFrom::Start(declared.offset)).await;
    sought.map_err(|_| Problem::of(FailureCode::AggregationStorage, "the hub cannot read the content"))?;
    match compare(file, declared.offset, body, app.body_time).await? {
        Agreement::Differs { at } => Err(other(format!("the body differs from it at byte {at}"))),
        Agreement::Same if declared.bytes != row.bytes => {
            Err(other(format!("bytes={} is declared where it has {}", declared.bytes, row.bytes)))
        }
        Agreement::Same => Ok(Json(BlobItem::of(row)).into_response()),
    }
}

async fn opened(app: &App, digest: &Digest) -> Result<(std::fs::File, u64), Problem> {
    let (blobs, digest) = (Arc::clone(&app.blobs), *digest);
    let opened = tokio::task::spawn_blocking(move || blobs.open_file(&digest)).await;
    let opened = opened.map_err(|_| StoreError::Closed)?.map_err(StoreError::from)?;
    opened.ok_or_else(|| {
        tracing::error!(%digest, "recorded content is not on the disk");
        Problem::of(FailureCode::AggregationStorage, "the content is recorded but its bytes are gone")
    })
}

/// Reads content, or one range of it. Verify what you read against the digest; the hub streams without looking.
#[utoipa::path(
    method(get, head), path = "/api/v0/blobs/{digest}", tag = "data", security(("bearer" = []), ("key" = [])),
    params(
        ("digest" = String, Path, description = "BLAKE3 of the content, 64 hexadecimal digits"),
        ("Range" = Option<String>, Header, description = "`bytes=FIRST-LAST`: one range; several are answered with the whole"),
        ("If-None-Match" = Option<String>, Header, description = "The digest in quotes")
    ),
    responses(
        (status = 200, description = "The bytes; `ETag` is their digest", body = String, content_type = "application/octet-stream"),
        (status = 206, description = "The range", body = String, content_type = "application/octet-stream"),
        (status = 304, description = "Unchanged, as it always is"),
        (status = 400, body = ProblemBody), (status = 401, body = ProblemBody), (status = 404, body = ProblemBody),
        (status = 416, body = ProblemBody)
    )
)]
pub async fn show(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(digest): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    caller.require(Scope::Read)?;
    give(&app, &caller.project, &digest_in_path(&digest)?, &headers).await
}

/// Gives up the project's claim on content: it is not listed, read or named by a new contract any more. Jobs, arrays and
/// evidence that name it keep it; once nothing does, its bytes are removed.
#[utoipa::path(
    delete, path = "/api/v0/blobs/{digest}", tag = "data", security(("bearer" = []), ("key" = [])),
    params(("digest" = String, Path, description = "BLAKE3 of the content, 64 hexadecimal digits")),
    responses(
        (status = 204, description = "The claim is given up"),
        (status = 400, body = ProblemBody), (status = 401, body = ProblemBody), (status = 404, body = ProblemBody)
    )
)]
pub async fn remove(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(digest): Path<String>,
) -> Result<StatusCode, Problem> {
    caller.require(Scope::Compute)?;
    let digest = digest_in_path(&digest)?;
    let write = DataWrite::Unclaim { project: caller.project.to_string(), digest };
    match caller.ticket.with(&app, write, StatusCode::NO_CONTENT).await? {
        DataWritten::Removed(true) => {
            tracing::info!(%digest, project = &*caller.project, "content given up");
            Ok(StatusCode::NO_CONTENT)
        }
        _ => Err(Problem::not_found("blob")),
    }
}

/// The content of a project, as the headers ask for it.
pub(super) async fn give(app: &App, project: &str, digest: &Digest, headers: &HeaderMap) -> Result<Response, Problem> {
    app.store.blob(project, digest).await?.ok_or_else(|| Problem::not_found("blob"))?;
    let (file, bytes) = opened(app, digest).await?;
    super::content::serve(headers, &Shown::content(digest), Source::File(file, bytes)).await
}

/// The project's content, newest first.
#[utoipa::path(
    get, path = "/api/v0/blobs", tag = "data", security(("bearer" = []), ("key" = [])), params(BlobQuery),
    responses((status = 200, body = Listed<BlobItem>), (status = 400, body = ProblemBody), (status = 401, body = ProblemBody))
)]
pub async fn list(
    State(app): State<Arc<App>>,
    caller: Caller,
    Query(query): Query<BlobQuery>,
) -> Result<Json<Listed<BlobItem>>, Problem> {
    caller.require(Scope::Read)?;
    let limit = limit(query.limit, 50)?;
    let before = query.before.as_deref().map(str::parse::<Digest>).transpose();
    let before =
        before.map_err(|error| Problem::of(FailureCode::RequestSchema, format!("the parameter before: {error}")))?;
    let rows = app.store.blobs(&caller.project, before.as_ref(), limit).await?;
    let next = |row: &BlobRow| format!("/api/v0/blobs?limit={limit}&before={}", row.digest);
    Ok(Json(Listed::of(rows, limit, next, |row| BlobItem::of(&row))))
}
