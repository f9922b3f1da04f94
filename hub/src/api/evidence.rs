//! A job's evidence as one file.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use forge_contract::{Digest, FailureCode, JobId};
use forge_lifecycle::bundle::{Index, MEDIA_TYPE, is_heavy};
use futures_util::stream::{self, BoxStream, StreamExt as _};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use serde::Deserialize;
use tokio_util::io::ReaderStream;
use utoipa::IntoParams;

use super::App;
use super::auth::{Caller, Scope};
use super::jobs::job_id;
use super::problem::{Problem, ProblemBody};
use crate::coordinator::INDEX;
use crate::store::{Phase, StoreError};

/// Which bundle.
#[derive(Clone, Copy, Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct EvidenceQuery {
    /// Leave out the component and what the job read; index, root and signature are the same.
    #[serde(default)]
    slim: bool,
}

/// All evidence of a job that is over, in one file signed by the hub.
///
/// The file is the same bytes whenever it is asked for. `forgepool verify` checks it, `forgepool replay` repeats the job
/// from it. Jobs that failed or were cancelled have one as well; a request that was refused has none.
#[utoipa::path(
    get, path = "/api/v0/jobs/{id}/evidence", tag = "jobs", security(("bearer" = []), ("key" = [])),
    params(("id" = String, Path, description = "The hub's job id"), EvidenceQuery),
    responses(
        (status = 200, description = "The bundle; `ETag` is its root", body = String, content_type = "application/vnd.forgepool.evidence"),
        (status = 304, description = "Unchanged, as it always is"),
        (status = 401, body = ProblemBody), (status = 404, body = ProblemBody),
        (status = 409, description = "The job is not over", body = ProblemBody)
    )
)]
pub async fn evidence(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(id): Path<String>,
    Query(query): Query<EvidenceQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    caller.require(Scope::Read)?;
    let job = job_id(&id)?;
    let (index, media_type) = (index(&app, &caller, job).await?, HeaderValue::from_static(MEDIA_TYPE));
    let slim = if query.slim { "-slim" } else { "" };
    let tag = format!("\"{}{slim}\"", index.root);
    let fixed = [
        (header::ETAG, tag.clone()),
        (header::CACHE_CONTROL, "private, max-age=31536000, immutable".to_owned()),
        (header::CONTENT_DISPOSITION, format!("attachment; filename=\"{job}{slim}.evidence\"")),
    ];
    let fixed = fixed.map(|(name, value)| (name, HeaderValue::from_str(&value).unwrap_or(media_type.clone())));
    let known = headers.get(header::IF_NONE_MATCH).and_then(|value| value.to_str().ok());
    if known.is_some_and(|known| known.split(',').any(|one| one.trim() == tag)) {
        return Ok((StatusCode::NOT_MODIFIED, fixed).into_response());
    }
    let head = Bytes::from(index.head(|entry| !(query.slim && is_heavy(entry))));
    let leaves: Vec<Digest> = index
        .leaves
        .iter()
        .filter(|entry| entry.bytes > 0 && !(query.slim && is_heavy(entry)))
        .map(|entry| entry.digest)
        .collect();
    let contents = index.leaves.iter().filter(|entry| !(query.slim && is_heavy(entry))).map(|entry| entry.bytes);
    let length = contents.fold(head.len() as u64, u64::saturating_add);
    let sized: [(HeaderName, HeaderValue); 2] =
        [(header::CONTENT_TYPE, media_type), (header::CONTENT_LENGTH, HeaderValue::from(length))];
    Ok((sized, fixed, Body::from_stream(contents_of(app, job, head, leaves))).into_response())
}

/// The head, then each leaf, opened when the one before it has gone and never in memory whole: whoever reads a bundle
/// checks every digest anyway.
fn contents_of(
    app: Arc<App>,
    job: JobId,
    head: Bytes,
    leaves: Vec<Digest>,
) -> impl stream::Stream<Item = Result<Bytes, StoreError>> {
    let open = move |digest: Digest| {
        let app = Arc::clone(&app);
        async move {
            opened(&app, digest).await.unwrap_or_else(|error| {
                // The answer is under way: all that is left is to break it off, and to say so here.
                tracing::error!(%job, %digest, %error, "a leaf of evidence could not be read");
                stream::iter([Err(error)]).boxed()
            })
        }
    };
    stream::iter([Ok(head)]).chain(stream::iter(leaves).then(open).flatten())
}

async fn opened(app: &App, digest: Digest) -> Result<BoxStream<'static, Result<Bytes, StoreError>>, StoreError> {
    let gone = || StoreError::Corrupt { what: "leaf of evidence" };
    let files = Arc::clone(&app.blobs);
    let file =
        tokio::task::spawn_blocking(move || files.open_file(&digest)).await.map_err(|_| StoreError::Closed)??;
    if let Some((file, _)) = file {
        let pieces = ReaderStream::new(tokio::fs::File::from_std(file));
        return Ok(pieces.map(move |piece| piece.map_err(|_| gone())).boxed());
    }
    let bytes = app.store.object(&digest).await?.ok_or_else(gone)?;
    Ok(stream::iter([Ok(Bytes::from(bytes))]).boxed())
}

/// The signed index of a job that is over.
async fn index(app: &App, caller: &Caller, job: JobId) -> Result<Index, Problem> {
    let row = app.store.job(&caller.project, job).await?.ok_or_else(|| Problem::not_found("job"))?;
    if row.phase == Phase::Running {
        let detail =
            "the job is not over yet: its evidence is complete once `status` is COMPLETED, FAILED or CANCELLED";
        return Err(Problem::of(FailureCode::RequestState, detail).about(job));
    }
    let rows = app.store.artifacts(job).await?;
    let Some(entry) = rows.into_iter().find(|row| row.name == INDEX) else {
        let detail =
            "the job left no evidence: its request was refused, or its contract says `artifacts.persist`: false";
        return Err(Problem::of(FailureCode::RequestNotFound, detail).about(job));
    };
    let text = crate::store::read_object(&*app.store, &app.blobs, entry.digest).await?;
    let index = text.and_then(|text| Index::read(&text).ok());
    index.ok_or_else(|| Problem::of(FailureCode::AggregationStorage, "the evidence's index is unreadable").about(job))
}
