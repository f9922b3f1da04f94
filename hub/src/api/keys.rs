//! API keys: made and shown once, listed, rotated, revoked.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, Query, State};
use forge_contract::FailureCode;
use http::{HeaderMap, HeaderName, StatusCode, header};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::auth::{Caller, Scope, Scopes};
use super::page::{Listed, limit};
use super::problem::{Problem, ProblemBody};
use super::projects::submit;
use super::{App, identifier};
use crate::store::TenancyWrite;
use crate::store::tenancy::{KeyFilter, KeyRow, NewKey};
use crate::tenancy::key;

/// Longest life of a key that has an end, seconds: ten years.
pub(super) const SECONDS_MAX: u64 = 10 * 366 * 86_400;
/// Longest time that a replaced key goes on working, seconds.
pub(super) const GRACE_SECONDS_MAX: u64 = 86_400;

/// A key, without its text.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct KeyItem {
    /// What it is called by.
    pub id: String,
    /// What it is for, in its maker's words.
    pub name: String,
    /// The start of its text.
    pub hint: String,
    /// Its organisation.
    pub organisation: String,
    /// Its project.
    pub project: String,
    /// What it may do.
    pub scopes: Vec<Scope>,
    /// The member whose it is; the role narrows what it may do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub member: Option<String>,
    /// When it was made: UTC, RFC 3339.
    pub created_at: String,
    /// The same, ms since 1970.
    pub created_at_ms: u64,
    /// When it stops working, ms since 1970; never where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at_ms: Option<u64>,
    /// When it was last used, to about a minute, ms since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_used_at_ms: Option<u64>,
    /// When it was revoked, ms since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revoked_at_ms: Option<u64>,
    /// Its own address.
    pub url: String,
}

impl KeyItem {
    fn of(row: KeyRow) -> Self {
        Self {
            url: format!("/api/v0/keys/{}", row.id),
            id: row.id,
            name: row.name,
            hint: row.hint,
            organisation: row.organisation,
            project: row.project,
            scopes: row.scopes.iter().collect(),
            member: row.member,
            created_at: crate::clock::rfc3339(row.created_ms),
            created_at_ms: row.created_ms,
            expires_at_ms: row.expires_ms,
            last_used_at_ms: row.used_ms,
            revoked_at_ms: row.revoked_ms,
        }
    }
}

/// A key that was just made.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct KeyMade {
    /// Its text: shown here and never again.
    pub key: String,
    /// The rest of it.
    #[serde(flatten)]
    pub item: KeyItem,
}

/// Which keys.
#[derive(Clone, Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct KeyQuery {
    /// Most to give, 1 to 1000; 200 where absent.
    limit: Option<u32>,
    /// Only those after this id.
    after: Option<String>,
    /// Only those of this project.
    project: Option<String>,
    /// Only those of this member.
    member: Option<String>,
    /// Also those that are revoked.
    #[serde(default)]
    revoked: bool,
}

/// A key to make.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct KeyWish {
    /// What it is for.
    #[serde(default)]
    name: Option<String>,
    /// What it may do, at least one of them.
    #[schema(min_items = 1)]
    scopes: Vec<Scope>,
    /// Its project; the caller's own where absent.
    #[serde(default)]
    project: Option<String>,
    /// The member whose it is.
    #[serde(default)]
    member: Option<String>,
    /// How long it works, seconds; for ever where absent.
    #[serde(default)]
    seconds: Option<u64>,
}

/// How a key is replaced.
#[derive(Clone, Copy, Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RotateWish {
    /// How long the old one goes on working, seconds; 0 where absent.
    #[serde(default)]
    grace_seconds: u64,
}

/// Who the caller is.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct CallerItem {
    /// The organisation.
    pub organisation: String,
    /// The project.
    pub project: String,
    /// The key's id.
    pub key: String,
    /// The member whose key it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub member: Option<String>,
    /// What it may do, as its member's role allows.
    pub scopes: Vec<Scope>,
    /// Whether it runs the hub.
    pub operator: bool,
    /// When the key stops working, ms since 1970; never where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at_ms: Option<u64>,
}

/// Routes of keys.
pub(super) fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new()
        .routes(routes!(list, make))
        .routes(routes!(current))
        .routes(routes!(show, revoke))
        .routes(routes!(rotate))
}

/// A key that the caller manages.
async fn managed(app: &App, caller: &Caller, id: &str) -> Result<KeyRow, Problem> {
    caller.require(Scope::Admin)?;
    let row = app.store.key(id).await?;
    row.filter(|row| caller.manages(&row.organisation)).ok_or_else(|| Problem::not_found("key"))
}

/// What is shown of a key that was just made, once.
pub(super) async fn made(app: &App, id: String, text: String) -> Result<KeyMade, Problem> {
    let row = app.store.key(&id).await?.ok_or_else(|| Problem::not_found("key"))?;
    Ok(KeyMade { key: text, item: KeyItem::of(row) })
}

/// A key's life in milliseconds.
fn life(field: &str, seconds: u64) -> Result<u64, Problem> {
    if (1..=SECONDS_MAX).contains(&seconds) {
        return Ok(seconds * 1000);
    }
    let detail = format!("{field}: expected 1 to {SECONDS_MAX}, found {seconds}");
    Err(Problem::of(FailureCode::RequestSchema, detail).at(&format!("/{field}")))
}

/// The keys of the caller's organisation; of all of them to the operator. Their texts are not kept.
#[utoipa::path(
    get, path = "/api/v0/keys", tag = "tenancy", security(("bearer" = []), ("key" = [])), params(KeyQuery),
    responses((status = 200, body = Listed<KeyItem>), (status = 400, body = ProblemBody), (status = 401, body = ProblemBody))
)]
pub async fn list(
    State(app): State<Arc<App>>,
    caller: Caller,
    Query(query): Query<KeyQuery>,
) -> Result<Json<Listed<KeyItem>>, Problem> {
    caller.require(Scope::Admin)?;
    let limit = limit(query.limit, 200)?;
    let filter = KeyFilter {
        organisation: (!caller.is_operator()).then_some(&*caller.organisation),
        project: query.project.as_deref(),
        member: query.member.as_deref(),
        revoked: query.revoked,
        after: query.after.as_deref(),
        limit,
    };
    let rows = app.store.keys(filter).await?;
    let next = |row: &KeyRow| {
        let also = |name: &str, value: &Option<String>| {
            value.as_ref().map_or_else(String::new, |value| format!("&{name}={}", super::signed::escaped(value)))
        };
        let rest = format!("{}{}", also("project", &query.project), also("member", &query.member));
        let revoked = if query.revoked { "&revoked=true" } else { "" };
        format!("/api/v0/keys?limit={limit}&after={}{rest}{revoked}", row.id)
    };
    Ok(Json(Listed::of(rows, limit, next, KeyItem::of)))
}

/// Makes a key. Its text is in this answer and nowhere else: what is kept is its BLAKE3 digest.
#[utoipa::path(
    post, path = "/api/v0/keys", tag = "tenancy", security(("bearer" = []), ("key" = [])),
    request_body(content = KeyWish, content_type = "application/json"),
    responses(
        (status = 201, body = KeyMade), (status = 400, body = ProblemBody), (status = 401, body = ProblemBody),
        (status = 403, body = ProblemBody), (status = 404, body = ProblemBody, description = "No such project or member"),
        (status = 408, body = ProblemBody), (status = 413, body = ProblemBody), (status = 415, body = ProblemBody)
    )
)]
pub async fn make(
    State(app): State<Arc<App>>,
    caller: Caller,
    headers: HeaderMap,
    body: Body,
) -> Result<(StatusCode, [(HeaderName, String); 1], Json<KeyMade>), Problem> {
    caller.require(Scope::Admin)?;
    let wish: KeyWish = super::body::read_as(&headers, body, app.body_time).await?;
    let project = wish.project.unwrap_or_else(|| caller.project.to_string());
    let row = super::projects::managed(&app, &caller, &project).await.map_err(|problem| problem.at("/project"))?;
    let scopes = Scopes::of(&wish.scopes);
    if scopes.is_empty() {
        let detail = "scopes: expected at least one of compute, read, admin, provider";
        return Err(Problem::of(FailureCode::RequestSchema, detail).at("/scopes"));
    }
    let name = wish.name.map_or(Ok(String::new()), |name| identifier::name("name", name))?;
    let expires = wish.seconds.map(|seconds| life("seconds", seconds)).transpose()?;
    if let Some(member) = &wish.member {
        super::members::of(&app, &row.organisation, member).await.map_err(|problem| problem.at("/member"))?;
    }
    let text = key::new_text();
    let expires_ms = expires.map(|ms| crate::clock::unix_ms() + ms);
    let new = NewKey { name, member: wish.member, expires_ms, ..key::kept(&text, &project, scopes) };
    let id = new.id.clone();
    if !submit(&app, TenancyWrite::Key(new)).await? {
        return Err(Problem::not_found("member").at("/member"));
    }
    tracing::info!(key = id, project, scopes = scopes.words(), by = &*caller.key, "key made");
    let made = made(&app, id, text).await?;
    Ok((StatusCode::CREATED, [(header::LOCATION, made.item.url.clone())], Json(made)))
}

/// Who the caller is, by the key it sends. Any key may ask.
#[utoipa::path(
    get, path = "/api/v0/keys/current", tag = "tenancy", security(("bearer" = []), ("key" = [])),
    responses((status = 200, body = CallerItem), (status = 401, body = ProblemBody))
)]
pub async fn current(caller: Caller) -> Json<CallerItem> {
    Json(CallerItem {
        organisation: caller.organisation.to_string(),
        project: caller.project.to_string(),
        key: caller.key.to_string(),
        member: caller.member.as_ref().map(ToString::to_string),
        scopes: caller.scopes.iter().collect(),
        operator: caller.is_operator(),
        expires_at_ms: caller.expires_ms(),
    })
}

/// A key, revoked or not.
#[utoipa::path(
    get, path = "/api/v0/keys/{key}", tag = "tenancy", security(("bearer" = []), ("key" = [])),
    params(("key" = String, Path, description = "Its id")),
    responses((status = 200, body = KeyItem), (status = 401, body = ProblemBody), (status = 404, body = ProblemBody))
)]
pub async fn show(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<KeyItem>, Problem> {
    Ok(Json(KeyItem::of(managed(&app, &caller, &id).await?)))
}

/// Revokes a key, for ever. When this answers it works no more, and what waits with it ends with 401; jobs it began go
/// on.
#[utoipa::path(
    delete, path = "/api/v0/keys/{key}", tag = "tenancy", security(("bearer" = []), ("key" = [])),
    params(("key" = String, Path, description = "Its id")),
    responses(
        (status = 200, body = KeyItem), (status = 401, body = ProblemBody), (status = 404, body = ProblemBody),
        (status = 409, body = ProblemBody, description = "It was revoked before")
    )
)]
pub async fn revoke(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<KeyItem>, Problem> {
    managed(&app, &caller, &id).await?;
    let revoked = submit(&app, TenancyWrite::RevokeKey { id: id.clone() }).await?;
    app.keys.changed(|held| *held.key == *id);
    if !revoked {
        return Err(Problem::of(FailureCode::RequestState, "the key was revoked before"));
    }
    tracing::info!(key = id, by = &*caller.key, "key revoked");
    let row = app.store.key(&id).await?.ok_or_else(|| Problem::not_found("key"))?;
    Ok(Json(KeyItem::of(row)))
}

/// Replaces a key by one that may do the same; the old one works on for as long as is asked, at most a day. A body is
/// optional.
#[utoipa::path(
    post, path = "/api/v0/keys/{key}/rotate", tag = "tenancy", security(("bearer" = []), ("key" = [])),
    params(("key" = String, Path, description = "Its id")),
    request_body(content = Option<RotateWish>, content_type = "application/json"),
    responses(
        (status = 201, body = KeyMade), (status = 400, body = ProblemBody), (status = 401, body = ProblemBody),
        (status = 403, body = ProblemBody), (status = 404, body = ProblemBody), (status = 408, body = ProblemBody),
        (status = 409, body = ProblemBody, description = "It is revoked"), (status = 413, body = ProblemBody),
        (status = 415, body = ProblemBody)
    )
)]
pub async fn rotate(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<(StatusCode, [(HeaderName, String); 1], Json<KeyMade>), Problem> {
    let old = managed(&app, &caller, &id).await?;
    let wish: RotateWish = super::body::read_or_default(&headers, body, app.body_time).await?;
    if wish.grace_seconds > GRACE_SECONDS_MAX {
        let detail = format!("grace_seconds: expected 0 to {GRACE_SECONDS_MAX}, found {}", wish.grace_seconds);
        return Err(Problem::of(FailureCode::RequestSchema, detail).at("/grace_seconds"));
    }
    let (text, now) = (key::new_text(), crate::clock::unix_ms());
    // As long as the old one was given, from now on.
    let expires_ms = old.expires_ms.map(|end| now + end.saturating_sub(old.created_ms));
    let new = NewKey { name: old.name, member: old.member, expires_ms, ..key::kept(&text, &old.project, old.scopes) };
    let new_id = new.id.clone();
    let until_ms = (wish.grace_seconds > 0).then(|| now + wish.grace_seconds * 1000);
    let rotated = submit(&app, TenancyWrite::RotateKey { id: id.clone(), new, until_ms }).await?;
    app.keys.changed(|held| *held.key == *id);
    if !rotated {
        return Err(Problem::of(FailureCode::RequestState, "the key is revoked; make a new one instead"));
    }
    tracing::info!(key = id, new = new_id, by = &*caller.key, "key rotated");
    let made = made(&app, new_id, text).await?;
    Ok((StatusCode::CREATED, [(header::LOCATION, made.item.url.clone())], Json(made)))
}
