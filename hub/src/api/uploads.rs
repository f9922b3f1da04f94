//! Uploads on their way, of blobs and of kernels: how far they are, and what refuses them.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use forge_contract::{Digest, FailureCode};
use http::{HeaderName, HeaderValue};
use serde::Serialize;
use utoipa::ToSchema;

use super::App;
use super::auth::{Caller, Scope};
use super::problem::{Problem, ProblemBody};
use crate::upload::UploadError;

/// Where an upload goes on, beside the sentence that says so.
const OFFSET_HEADER: HeaderName = HeaderName::from_static("upload-offset");

impl From<UploadError> for Problem {
    fn from(error: UploadError) -> Self {
        use FailureCode as C;
        let code = match &error {
            UploadError::Busy { .. } => C::RequestInProgress,
            UploadError::Crowded { .. } => C::RequestQuota,
            UploadError::TooLarge { .. } => C::RequestTooLarge,
            UploadError::Offset { .. } => C::RequestOffset,
            UploadError::TooLong { .. } => C::RequestLength,
            UploadError::Digest { .. } => C::RequestDigest,
            UploadError::Cut { .. } | UploadError::Slow { .. } => C::RequestTimeout,
            UploadError::Full { .. } => C::AggregationDiskFull,
            UploadError::Io { .. } => {
                tracing::error!(%error, "an upload could not be written");
                return Self::of(C::AggregationStorage, "the hub could not write the upload to its disk");
            }
        };
        let gone = match &error {
            UploadError::Digest { .. } | UploadError::Full { .. } => "; nothing of it is kept",
            _ => "",
        };
        let problem = Self::of(code, format!("{error}{gone}"));
        match error {
            UploadError::Offset { expected, .. } => problem.with_header(OFFSET_HEADER, HeaderValue::from(expected)),
            UploadError::Crowded { .. } => problem.retry_after(Duration::from_secs(1)),
            _ => problem,
        }
    }
}

/// A digest as a path names it.
///
/// # Errors
/// `request.schema`: what a digest looks like, and what was found.
pub(super) fn digest_in_path(text: &str) -> Result<Digest, Problem> {
    text.parse().map_err(|error| {
        let shown: String = text.chars().take(80).flat_map(char::escape_default).collect();
        Problem::of(FailureCode::RequestSchema, format!("the digest in the path: {error}, in '{shown}'"))
    })
}

/// How far an upload is.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct UploadState {
    /// BLAKE3 of the whole content, as declared.
    pub digest: String,
    /// Size of the whole content, bytes, as declared.
    pub bytes: u64,
    /// Bytes that are there: the next request goes on here.
    pub offset: u64,
}

/// How far an unfinished upload of this project is.
#[utoipa::path(
    get, path = "/api/v0/uploads/{digest}", tag = "data", security(("bearer" = []), ("key" = [])),
    params(("digest" = String, Path, description = "BLAKE3 of the content, 64 hexadecimal digits")),
    responses(
        (status = 200, body = UploadState), (status = 400, body = ProblemBody), (status = 401, body = ProblemBody),
        (status = 404, body = ProblemBody, description = "Nothing of it is there, or it is complete")
    )
)]
pub async fn show(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(digest): Path<String>,
) -> Result<Json<UploadState>, Problem> {
    caller.require(Scope::Read)?;
    let digest = digest_in_path(&digest)?;
    let (offset, bytes) =
        app.uploads.offset(&caller.project, &digest).await.ok_or_else(|| Problem::not_found("unfinished upload"))?;
    Ok(Json(UploadState { digest: digest.to_string(), bytes, offset }))
}
