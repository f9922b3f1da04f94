//! Kernels: those that come with the hub, and each project's own.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use forge_contract::limits::COMPONENT_BYTES_MAX;
use forge_contract::{Digest, FailureCode};
use forge_lifecycle::trial::Passed;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::auth::{Caller, Scope};
use super::page::{Listed, limit};
use super::problem::{Problem, ProblemBody};
use super::uploads::{UploadState, digest_in_path};
use super::{App, identifier};
use crate::admission::AdmissionError;
use crate::registry::{Entry, Key};
use crate::store::KernelState;
use crate::upload::{Declared, Received};

const PAGE: u32 = 200;
/// Longest reason of a change, characters.
pub(super) const REASON_CHARS_MAX: usize = 500;
/// States that a kernel's project may choose; the others are for verifiers to say.
pub(super) const CHOSEN: [KernelState; 3] = [KernelState::Deprecated, KernelState::Yanked, KernelState::Admitted];
/// `NAME@VERSION`, as a regular expression.
pub(super) const LABEL_PATTERN: &str = "^[^@]+@[0-9]{1,10}$";

/// What an upload that is not decided yet is.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub enum Sent {
    /// All of it is there.
    Whole(Box<KernelItem>),
    /// Some of it is.
    Partial(UploadState),
}

/// A kernel.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct KernelItem {
    /// `op.name`: of a project's own kernel `PROJECT/NAME`.
    pub name: String,
    /// `op.version`.
    pub version: u32,
    /// The component it is, for ever.
    pub digest: String,
    /// Its size, bytes.
    pub bytes: u64,
    /// Where it stands: only `admitted` and `deprecated` ones run.
    pub state: KernelState,
    /// The stable code of what it was refused for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// Why it was refused, deprecated or yanked; what it waits for while it is pending.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What it does.
    pub summary: String,
    /// Whether it comes with the hub.
    pub built_in: bool,
    /// When it was uploaded: UTC, RFC 3339.
    pub uploaded_at: String,
    /// The same, ms since 1970.
    pub uploaded_at_ms: u64,
    /// When its state was last decided, ms since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decided_at_ms: Option<u64>,
    /// The known answers that verifiers found true.
    pub checks: Vec<CheckItem>,
    /// Its profiles.
    pub profiles: Vec<ProfileItem>,
    /// Its own address.
    pub url: String,
    /// Where its component is.
    pub component_url: String,
}

/// A known answer that a verifier found true.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct CheckItem {
    /// Profile.
    pub profile: String,
    /// Stage.
    pub stage: String,
    /// Unit.
    pub unit: u64,
    /// Engine profile it ran under.
    pub engine: String,
    /// The agent that ran it.
    pub verifier: String,
}

/// A profile.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ProfileItem {
    /// `op.profile`.
    pub name: String,
    /// What it does.
    pub summary: String,
    /// JSON Schema of `args`.
    #[schema(value_type = Object)]
    pub args: serde_json::Value,
    /// Its stages and the parts each gives.
    pub stages: Vec<StageItem>,
}

/// A stage.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct StageItem {
    /// Name.
    pub name: String,
    /// Parts its fragments have.
    pub parts: Vec<String>,
    /// Fuel one unit may burn.
    pub unit_fuel: u64,
    /// Memory one unit may use, bytes.
    pub unit_memory_bytes: u64,
}

/// Which kernels.
#[derive(Clone, Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct KernelQuery {
    /// Most kernels to give, 1 to 1000; 200 where absent.
    limit: Option<u32>,
    /// Only kernels after this `NAME@VERSION`.
    after: Option<String>,
    /// Only kernels in this state: `pending`, `admitted`, `refused`, `deprecated` or `yanked`. Where absent, all but
    /// the refused ones.
    state: Option<String>,
}

/// What is about to be uploaded.
#[derive(Clone, Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct UploadQuery {
    /// BLAKE3 of the whole component, 64 hexadecimal digits.
    digest: String,
    /// Size of the whole component, bytes.
    bytes: u64,
    /// Where this body begins, bytes; 0 where absent.
    offset: Option<u64>,
}

/// A change of a kernel's state.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct KernelChange {
    /// `deprecated` (it runs with a warning), `yanked` (it replays and runs nothing new), or `admitted` again.
    state: KernelState,
    /// Why, for whoever uses it.
    #[serde(default)]
    reason: Option<String>,
}

impl From<AdmissionError> for Problem {
    fn from(error: AdmissionError) -> Self {
        if let AdmissionError::NoRoom(exceeded) = error {
            return exceeded.into();
        }
        let problem = Self::new(error.failure());
        if matches!(error, AdmissionError::Crowded) { problem.retry_after(Duration::from_secs(60)) } else { problem }
    }
}

fn parameter(text: String) -> Problem {
    Problem::of(FailureCode::RequestSchema, format!("the parameter {text}"))
}

/// Operations that can be executed, with the schema of their arguments: those that come with the hub, and the
/// project's own.
#[utoipa::path(
    get, path = "/api/v0/kernels", tag = "pool", security(("bearer" = []), ("key" = [])), params(KernelQuery),
    responses((status = 200, body = Listed<KernelItem>), (status = 400, body = ProblemBody), (status = 401, body = ProblemBody))
)]
pub async fn list(
    State(app): State<Arc<App>>,
    caller: Caller,
    Query(query): Query<KernelQuery>,
) -> Result<Json<Listed<KernelItem>>, Problem> {
    caller.require(Scope::Read)?;
    let limit = limit(query.limit, PAGE)?;
    let state = match &query.state {
        Some(text) => Some(
            KernelState::parse(text)
                .ok_or_else(|| parameter("state: expected pending, admitted, refused, deprecated or yanked".into()))?,
        ),
        None => None,
    };
    let after =
        query.after.as_deref().map(|text| label(text).ok_or_else(|| parameter("after: expected NAME@VERSION".into())));
    let entries = app.registry.list(&caller.project, state, after.transpose()?.as_ref(), limit as usize);
    let filter = query.state.as_ref().map_or_else(String::new, |state| format!("&state={state}"));
    let next = |last: &Entry| format!("/api/v0/kernels?limit={limit}&after={}{filter}", last.kernel.manifest.label());
    let waits = app.desk.waits_for().await?;
    Ok(Json(Listed::of(entries, limit, next, |entry| item(&entry, &waits))))
}

fn label(text: &str) -> Option<Key> {
    let (name, version) = text.split_once('@').filter(|(name, _)| !name.is_empty())?;
    let digits = (1..=10).contains(&version.len()) && version.bytes().all(|byte| byte.is_ascii_digit());
    // Nothing comes after a version larger than any.
    digits.then(|| (name.to_owned(), version.parse().unwrap_or(u32::MAX)))
}

/// Uploads a kernel, or goes on with an upload that broke off.
///
/// The component's digest and size are stated up front; what arrived is kept, and GET /api/v0/uploads/{digest} tells
/// where to go on. A complete component is judged by parsing alone and recorded as `pending`; then verifiers run its
/// known answers, which admits or refuses it. The same bytes again change nothing; other bytes under the same name and
/// version are refused. A refused upload does not hold its name and version.
#[utoipa::path(
    post, path = "/api/v0/kernels", tag = "pool", security(("bearer" = []), ("key" = [])), params(UploadQuery),
    request_body(content = Option<String>, content_type = "application/wasm", description = "The component from `offset` on; none of them where there is no body"),
    responses(
        (status = 200, body = KernelItem, description = "It was there before and is decided"),
        (status = 202, body = Sent, description = "Recorded; verifiers will decide. Or the body ended early; go on at `offset`"),
        (status = 400, body = ProblemBody), (status = 401, body = ProblemBody), (status = 408, body = ProblemBody),
        (status = 409, body = ProblemBody, description = "The name and version are taken, or the offset is another"),
        (status = 413, body = ProblemBody), (status = 415, body = ProblemBody),
        (status = 422, body = ProblemBody, description = "The digest is another, or the component breaks a rule")
    )
)]
pub async fn upload(
    State(app): State<Arc<App>>,
    caller: Caller,
    Query(query): Query<UploadQuery>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    caller.require(Scope::Compute)?;
    plain_body(&headers)?;
    let digest: Digest = query
        .digest
        .parse()
        .map_err(|_| parameter("digest: expected 64 hexadecimal digits, the BLAKE3 digest".into()))?;
    if query.bytes > COMPONENT_BYTES_MAX {
        let detail = format!(
            "the component has {} bytes, at most {COMPONENT_BYTES_MAX} are admitted; strip debug sections and build for size",
            query.bytes
        );
        return Err(Problem::of(FailureCode::RequestComponentLimit, detail));
    }
    if app.registry.of_component(&caller.project, &digest).is_none()
        && let Some(exceeded) = app.store.no_room(&caller.project, query.bytes).await?
    {
        return Err(exceeded.into());
    }
    let declared = Declared { digest, bytes: query.bytes, offset: query.offset.unwrap_or(0) };
    let received = app.uploads.receive(&caller.project, &declared, COMPONENT_BYTES_MAX, body).await?;
    super::blobs::good_still(&caller, &received).await?;
    let file = match received {
        Received::Whole(file) => file,
        Received::Partial { offset } => {
            let state = UploadState { digest: digest.to_string(), bytes: declared.bytes, offset };
            let place = [(header::LOCATION, format!("/api/v0/uploads/{digest}"))];
            return Ok((StatusCode::ACCEPTED, place, Json(Sent::Partial(state))).into_response());
        }
    };
    // A task of its own: once complete it is judged, whether or not the client still listens.
    let (desk, project) = (Arc::clone(&app.desk), Arc::clone(&caller.project));
    let judged = tokio::spawn(async move { desk.submit(&project, &file, &digest).await }).await;
    let entry =
        judged.map_err(|_| Problem::of(FailureCode::AggregationStorage, "the upload could not be judged"))??;
    let item = item(&entry, &app.desk.waits_for().await?);
    let status = if item.state == KernelState::Pending { StatusCode::ACCEPTED } else { StatusCode::OK };
    Ok((status, [(header::LOCATION, item.url.clone())], Json(Sent::Whole(Box::new(item)))).into_response())
}

/// Bytes are hashed as they come: an encoding would hide them.
fn plain_body(headers: &HeaderMap) -> Result<(), Problem> {
    let text = |name| headers.get(name).map(|value: &HeaderValue| value.to_str().unwrap_or("(not text)"));
    if let Some(encoding) = text(header::CONTENT_ENCODING).filter(|encoding| *encoding != "identity") {
        let detail = format!("Content-Encoding: a component is sent as it is, found '{encoding}'");
        return Err(Problem::of(FailureCode::RequestMediaType, detail));
    }
    let media = text(header::CONTENT_TYPE).unwrap_or("application/wasm");
    if matches!(media, "application/wasm" | "application/octet-stream") {
        return Ok(());
    }
    Err(Problem::of(FailureCode::RequestMediaType, format!("Content-Type: expected application/wasm, found '{media}'")))
}

async fn found(app: &App, caller: &Caller, name: &str, version: &str) -> Result<Entry, Problem> {
    let version = version.parse().ok();
    version
        .and_then(|version| app.registry.get(&caller.project, name, version))
        .ok_or_else(|| Problem::not_found("kernel"))
}

async fn shown(app: &App, entry: &Entry) -> Result<Json<KernelItem>, Problem> {
    Ok(Json(item(entry, &app.desk.waits_for().await?)))
}

/// A kernel that comes with the hub.
#[utoipa::path(
    get, path = "/api/v0/kernels/{name}/{version}", tag = "pool", security(("bearer" = []), ("key" = [])),
    params(("name" = String, Path, description = "Its name"), ("version" = String, Path, description = "Its version")),
    responses((status = 200, body = KernelItem), (status = 401, body = ProblemBody), (status = 404, body = ProblemBody))
)]
pub async fn show_built_in(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path((name, version)): Path<(String, String)>,
) -> Result<Json<KernelItem>, Problem> {
    caller.require(Scope::Read)?;
    shown(&app, &found(&app, &caller, &name, &version).await?).await
}

/// A kernel of the project's own: where it stands, why, and what verifiers found.
#[utoipa::path(
    get, path = "/api/v0/kernels/{namespace}/{name}/{version}", tag = "pool", security(("bearer" = []), ("key" = [])),
    params(
        ("namespace" = String, Path, description = "The project"), ("name" = String, Path, description = "Its name"),
        ("version" = String, Path, description = "Its version")
    ),
    responses((status = 200, body = KernelItem), (status = 401, body = ProblemBody), (status = 404, body = ProblemBody))
)]
pub async fn show(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path((namespace, name, version)): Path<(String, String, String)>,
) -> Result<Json<KernelItem>, Problem> {
    caller.require(Scope::Read)?;
    shown(&app, &found(&app, &caller, &format!("{namespace}/{name}"), &version).await?).await
}

/// Deprecates or yanks a kernel of the project's own, or takes that back. Its bytes never change.
#[utoipa::path(
    patch, path = "/api/v0/kernels/{namespace}/{name}/{version}", tag = "pool", security(("bearer" = []), ("key" = [])),
    params(
        ("namespace" = String, Path, description = "The project"), ("name" = String, Path, description = "Its name"),
        ("version" = String, Path, description = "Its version")
    ),
    request_body(content = KernelChange, content_type = "application/json"),
    responses(
        (status = 200, body = KernelItem), (status = 400, body = ProblemBody), (status = 401, body = ProblemBody),
        (status = 404, body = ProblemBody), (status = 409, body = ProblemBody, description = "It is pending or refused")
    )
)]
pub async fn change(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path((namespace, name, version)): Path<(String, String, String)>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<KernelItem>, Problem> {
    caller.require(Scope::Compute)?;
    let entry = found(&app, &caller, &format!("{namespace}/{name}"), &version).await?;
    let change: KernelChange = super::body::read_as(&headers, body, app.body_time).await?;
    if !CHOSEN.contains(&change.state) {
        let rule = "state: expected deprecated, yanked or admitted; the others are for verifiers to say";
        return Err(Problem::of(FailureCode::RequestSchema, rule).at("/state"));
    }
    let reason = change.reason.map(|reason| identifier::words("reason", reason, 0, REASON_CHARS_MAX)).transpose()?;
    let reason = reason.filter(|reason| !reason.is_empty());
    let changed = app.desk.change(&entry, change.state, reason).await?;
    shown(&app, &changed).await
}

/// A component's bytes: of a kernel that comes with the hub, or of the project's own.
#[utoipa::path(
    get, path = "/api/v0/components/{digest}", tag = "pool", security(("bearer" = []), ("key" = [])),
    params(("digest" = String, Path, description = "BLAKE3 of the component, 64 hexadecimal digits")),
    responses(
        (status = 200, description = "The bytes; `ETag` is their BLAKE3 digest", body = Vec<u8>, content_type = "application/wasm"),
        (status = 304, description = "Unchanged, as it always is"),
        (status = 400, body = ProblemBody), (status = 401, body = ProblemBody), (status = 404, body = ProblemBody)
    )
)]
pub async fn component(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(digest): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    caller.require(Scope::Read)?;
    let digest = digest_in_path(&digest)?;
    let entry = app.registry.of_component(&caller.project, &digest).ok_or_else(|| Problem::not_found("component"))?;
    let tag = format!("\"{digest}\"");
    let known = headers.get(header::IF_NONE_MATCH).and_then(|value| value.to_str().ok());
    if known.is_some_and(|known| known.split(',').any(|one| one.trim() == tag)) {
        return Ok((StatusCode::NOT_MODIFIED, [(header::ETAG, tag)]).into_response());
    }
    let bytes = app.registry.bytes(&entry).await.map_err(crate::store::StoreError::from)?;
    let bytes = bytes.ok_or_else(|| Problem::of(FailureCode::AggregationStorage, "the component's bytes are gone"))?;
    let headers = [
        (header::CONTENT_TYPE, "application/wasm".to_owned()),
        (header::ETAG, tag),
        (header::CACHE_CONTROL, "private, max-age=31536000, immutable".to_owned()),
    ];
    Ok((headers, Body::from(bytes)).into_response())
}

fn item(entry: &Entry, waits: &str) -> KernelItem {
    let (kernel, manifest, standing) = (&entry.kernel, &entry.kernel.manifest, &entry.standing);
    let profiles = manifest.profiles.iter().map(|(name, profile)| ProfileItem {
        name: name.clone(),
        summary: profile.summary.clone(),
        args: profile.args.clone(),
        stages: profile.stages.iter().map(stage).collect(),
    });
    let waiting = (standing.state == KernelState::Pending).then(|| waits.to_owned());
    let passed: Vec<Passed> = serde_json::from_str(&standing.checks).unwrap_or_default();
    KernelItem {
        name: manifest.name.clone(),
        version: manifest.version,
        digest: kernel.digest.to_string(),
        bytes: kernel.bytes,
        state: standing.state,
        code: standing.code.map(|code| code.as_str().into()),
        reason: standing.reason.clone().or(waiting),
        summary: manifest.summary.clone(),
        built_in: entry.project.is_none(),
        uploaded_at: crate::clock::rfc3339(entry.recorded_ms),
        uploaded_at_ms: entry.recorded_ms,
        decided_at_ms: standing.decided_ms,
        checks: passed.into_iter().map(check).collect(),
        profiles: profiles.collect(),
        url: format!("/api/v0/kernels/{}/{}", manifest.name, manifest.version),
        component_url: format!("/api/v0/components/{}", kernel.digest),
    }
}

fn check(passed: Passed) -> CheckItem {
    let Passed { profile, stage, unit, engine, verifier } = passed;
    CheckItem { profile, stage, unit, engine: engine.to_string(), verifier: verifier.to_string() }
}

fn stage(stage: &forge_contract::manifest::Stage) -> StageItem {
    StageItem {
        name: stage.name.clone(),
        parts: stage.parts.iter().map(|part| part.name.clone()).collect(),
        unit_fuel: stage.limits.fuel,
        unit_memory_bytes: stage.limits.memory_bytes,
    }
}
