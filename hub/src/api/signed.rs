//! Signed URLs: made with a key, used without one.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::response::Response;
use axum::{Extension, Json};
use forge_contract::{Digest, FailureCode};
use http::{HeaderMap, Uri, header};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::App;
use super::auth::{Caller, Scope};
use super::problem::{Problem, ProblemBody};
use super::ticket::{Ticket, Who};
use super::uploads::digest_in_path;
use crate::signed::{Grant, SECONDS_MAX};
use crate::upload::Declared;

/// What a URL is asked for.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UrlRequest {
    /// What it gives leave to.
    method: UrlMethod,
    /// How long, 1 to 900 seconds.
    seconds: u64,
    /// `PUT`: the size of the content, bytes. `GET`: absent.
    bytes: Option<u64>,
}

/// What a URL gives leave to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum UrlMethod {
    /// To read the content.
    Get,
    /// To send it.
    Put,
}

impl UrlMethod {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Put => "PUT",
        }
    }
}

/// A signed URL.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct SignedUrl {
    /// What it gives leave to.
    pub method: UrlMethod,
    /// The URL; nothing else is needed.
    pub url: String,
    /// The content.
    pub digest: String,
    /// Its size, bytes.
    pub bytes: u64,
    /// When the leave ends: UTC, RFC 3339.
    pub expires_at: String,
    /// The same, ms since 1970.
    pub expires_at_ms: u64,
}

/// Makes a URL that reads or sends this content without a key.
///
/// It works at the host this request names, until it expires; it cannot be taken back. What it lets in is this content
/// and nothing else, however often it is used.
#[utoipa::path(
    post, path = "/api/v0/blobs/{digest}/urls", tag = "data", security(("bearer" = []), ("key" = [])),
    params(("digest" = String, Path, description = "BLAKE3 of the content, 64 hexadecimal digits")),
    request_body(content = UrlRequest, content_type = "application/json"),
    responses(
        (status = 200, body = SignedUrl), (status = 400, body = ProblemBody), (status = 401, body = ProblemBody),
        (status = 404, body = ProblemBody), (status = 413, body = ProblemBody), (status = 415, body = ProblemBody)
    )
)]
pub async fn make(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(digest): Path<String>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<SignedUrl>, Problem> {
    caller.require(Scope::Read)?;
    let digest = digest_in_path(&digest)?;
    let asked: UrlRequest = super::body::read_as(&headers, body, app.body_time).await?;
    if asked.method == UrlMethod::Put {
        caller.require(Scope::Compute)?;
    }
    let refused = |pointer: &str, what: String| Problem::of(FailureCode::RequestSchema, what).at(pointer);
    if !(1..=SECONDS_MAX).contains(&asked.seconds) {
        return Err(refused("/seconds", format!("seconds: expected 1 to {SECONDS_MAX}, found {}", asked.seconds)));
    }
    let bytes = match (asked.method, asked.bytes) {
        (UrlMethod::Put, Some(bytes)) if bytes <= app.blob_bytes => bytes,
        (UrlMethod::Put, Some(bytes)) => {
            let detail = format!("bytes: at most {}, found {bytes}", app.blob_bytes);
            return Err(Problem::of(FailureCode::RequestTooLarge, detail).at("/bytes"));
        }
        (UrlMethod::Put, None) => return Err(refused("/bytes", "bytes: required with PUT; the content's size".into())),
        (UrlMethod::Get, Some(_)) => return Err(refused("/bytes", "bytes: only with PUT; leave it out".into())),
        (UrlMethod::Get, None) => {
            let row = app.store.blob(&caller.project, &digest).await?;
            row.ok_or_else(|| Problem::not_found("blob"))?.bytes
        }
    };
    let host = host_of(&uri, &headers)
        .ok_or_else(|| Problem::of(FailureCode::RequestSchema, "the header Host: expected a host name and port"))?;
    let path = format!("/api/v0/signed/{digest}");
    let expires = crate::clock::unix_ms() / 1000 + asked.seconds;
    let grant = Grant {
        method: asked.method.as_str(),
        host: &host,
        path: &path,
        project: &caller.project,
        bytes,
        digest: &digest,
        expires,
    };
    let mac = app.url_key.sign(&grant);
    let project = escaped(&caller.project);
    Ok(Json(SignedUrl {
        method: asked.method,
        url: format!(
            "{}://{host}{path}?project={project}&bytes={bytes}&expires={expires}&mac={mac}",
            if app.tls.is_some() { "https" } else { "http" }
        ),
        digest: digest.to_string(),
        bytes,
        expires_at: crate::clock::rfc3339(expires * 1000),
        expires_at_ms: expires * 1000,
    }))
}

/// The host a request names, as it is signed: lower case, and nothing that could end a URL's host.
fn host_of(uri: &Uri, headers: &HeaderMap) -> Option<String> {
    let named = match uri.authority() {
        Some(authority) => authority.as_str(),
        None => headers.get(header::HOST)?.to_str().ok()?,
    };
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b".-:[]_".contains(&byte);
    let usable = (1..=255).contains(&named.len()) && named.bytes().all(allowed);
    usable.then(|| named.to_ascii_lowercase())
}

/// Text as a value of a query.
pub(super) fn escaped(text: &str) -> String {
    let mut query = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => query.push(char::from(byte)),
            _ => query.push_str(&format!("%{byte:02X}")),
        }
    }
    query
}

/// The signed fields of a URL, and what an upload says of itself.
#[derive(Clone, Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct SignedQuery {
    /// Whose content.
    project: String,
    /// Its size, bytes.
    bytes: u64,
    /// When the leave ends, seconds since 1970.
    expires: u64,
    /// The signature.
    mac: String,
    /// `PUT`: where this body begins; not signed, so that an upload can go on.
    #[serde(default)]
    offset: u64,
}

/// A use of a signed URL, as it came.
struct Use<'a> {
    method: &'static str,
    path: Result<Path<String>, PathRejection>,
    query: Result<Query<SignedQuery>, QueryRejection>,
    uri: &'a Uri,
    headers: &'a HeaderMap,
}

impl Use<'_> {
    /// What the URL gives leave to.
    ///
    /// # Errors
    /// `request.signature` where any part of it is not as it was signed; `request.url_expired`.
    fn check(self, app: &App) -> Result<(Digest, SignedQuery), Problem> {
        let Self { method, path, query, uri, headers } = self;
        let altered = || {
            let detail = format!(
                "this URL was not signed by this hub for {method} here: method, host, path, project, bytes, expires and mac \
                 must be as they were given"
            );
            Problem::of(FailureCode::RequestSignature, detail)
        };
        let (Ok(Path(digest)), Ok(Query(query)), Some(host)) = (path, query, host_of(uri, headers)) else {
            return Err(altered());
        };
        let digest = digest.parse::<Digest>().map_err(|_| altered())?;
        let SignedQuery { project, bytes, expires, mac, .. } = &query;
        let grant =
            Grant { method, host: &host, path: uri.path(), project, bytes: *bytes, digest: &digest, expires: *expires };
        if !app.url_key.verify(&grant, mac) {
            return Err(altered());
        }
        let now_ms = crate::clock::unix_ms();
        let expires_ms = expires.saturating_mul(1000);
        if now_ms >= expires_ms {
            let (then, now) = (crate::clock::rfc3339(expires_ms), crate::clock::rfc3339(now_ms));
            let detail = format!("this URL expired at {then}; it is {now}");
            return Err(Problem::of(FailureCode::RequestUrlExpired, detail));
        }
        Ok((digest, query))
    }
}

/// Reads content by a signed URL; no key is needed.
#[utoipa::path(
    method(get, head), path = "/api/v0/signed/{digest}", tag = "data",
    params(("digest" = String, Path, description = "BLAKE3 of the content"), SignedQuery),
    responses(
        (status = 200, description = "The bytes", body = String, content_type = "application/octet-stream"),
        (status = 206, description = "The range", body = String, content_type = "application/octet-stream"),
        (status = 304, description = "Unchanged, as it always is"),
        (status = 403, body = ProblemBody), (status = 404, body = ProblemBody), (status = 416, body = ProblemBody)
    )
)]
pub async fn get(
    State(app): State<Arc<App>>,
    path: Result<Path<String>, PathRejection>,
    query: Result<Query<SignedQuery>, QueryRejection>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let (digest, query) = Use { method: "GET", path, query, uri: &uri, headers: &headers }.check(&app)?;
    super::blobs::give(&app, &query.project, &digest, &headers).await
}

/// Sends content by a signed URL; no key is needed. As `PUT /api/v0/blobs/{digest}`, of exactly the signed size.
#[utoipa::path(
    put, path = "/api/v0/signed/{digest}", tag = "data",
    params(("digest" = String, Path, description = "BLAKE3 of the content"), SignedQuery),
    request_body(content = Option<String>, content_type = "application/octet-stream", description = "The bytes from `offset` on; none of them where there is no body"),
    responses(
        (status = 201, body = super::blobs::BlobItem), (status = 200, body = super::blobs::BlobItem),
        (status = 202, body = super::uploads::UploadState),
        (status = 403, body = ProblemBody), (status = 408, body = ProblemBody), (status = 409, body = ProblemBody),
        (status = 413, body = ProblemBody), (status = 422, body = ProblemBody), (status = 507, body = ProblemBody)
    )
)]
pub async fn put(
    State(app): State<Arc<App>>,
    Extension(ticket): Extension<Ticket>,
    path: Result<Path<String>, PathRejection>,
    query: Result<Query<SignedQuery>, QueryRejection>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let (digest, query) = Use { method: "PUT", path, query, uri: &uri, headers: &headers }.check(&app)?;
    ticket.identify(Who { project: query.project.clone(), key: "signed url".into(), ..Who::default() });
    let declared = Declared { digest, bytes: query.bytes, offset: query.offset };
    super::blobs::take(&app, (&query.project.into(), None), declared, body).await
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn hosts_and_queries_are_written_plainly() {
        let mut headers = HeaderMap::new();
        let uri = Uri::from_static("/api/v0/signed/x");
        assert_eq!(host_of(&uri, &headers), None);
        headers.insert("host", "Example.org:8080".parse().unwrap());
        assert_eq!(host_of(&uri, &headers).as_deref(), Some("example.org:8080"));
        let absolute = Uri::from_static("http://[::1]:9/x");
        assert_eq!(host_of(&absolute, &headers).as_deref(), Some("[::1]:9"));
        for bad in ["a/b", "a?b", "u@h", "h#", "h h"] {
            headers.insert("host", bad.parse().unwrap());
            assert_eq!(host_of(&uri, &headers), None, "{bad}");
        }
        assert_eq!(escaped("a-b.c_1~"), "a-b.c_1~");
        assert_eq!(escaped("a&b=c/é"), "a%26b%3Dc%2F%C3%A9");
    }
}
