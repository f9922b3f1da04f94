//! Members: the people of an organisation, and what their keys may do at most.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use forge_contract::FailureCode;
use http::{HeaderMap, HeaderName, StatusCode, header};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::auth::{Caller, Scope};
use super::organisations::managed;
use super::problem::{Problem, ProblemBody};
use super::projects::submit;
use super::{App, identifier};
use crate::store::TenancyWrite;
use crate::store::tenancy::{MemberRow, NewMember, Role};
use crate::tenancy::key;

/// A member.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct MemberItem {
    /// Its id.
    pub id: String,
    /// Its organisation.
    pub organisation: String,
    /// Its name, such as an address of mail.
    pub name: String,
    /// What it may be.
    pub role: Role,
    /// What its keys may do at most.
    pub scopes: Vec<Scope>,
    /// When it was added: UTC, RFC 3339.
    pub created_at: String,
    /// The same, ms since 1970.
    pub created_at_ms: u64,
    /// Its own address.
    pub url: String,
}

impl MemberItem {
    fn of(row: MemberRow) -> Self {
        Self {
            url: format!("/api/v0/organisations/{}/members/{}", row.organisation, row.id),
            id: row.id,
            organisation: row.organisation,
            name: row.name,
            role: row.role,
            scopes: row.role.scopes().iter().collect(),
            created_at: crate::clock::rfc3339(row.created_ms),
            created_at_ms: row.created_ms,
        }
    }
}

/// The members of an organisation.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct MemberList {
    /// By name.
    pub items: Vec<MemberItem>,
}

/// A member to add.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MemberWish {
    /// Its name, such as an address of mail.
    name: String,
    /// What it may be.
    role: Role,
}

/// A change of a member.
#[derive(Clone, Copy, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MemberChange {
    /// What it may be from now on.
    role: Role,
}

/// Routes of members.
pub(super) fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new().routes(routes!(list, add)).routes(routes!(show, change, remove))
}

/// A member of an organisation.
pub(super) async fn of(app: &App, organisation: &str, id: &str) -> Result<MemberRow, Problem> {
    let row = app.store.member(id).await?;
    row.filter(|row| row.organisation == organisation).ok_or_else(|| Problem::not_found("member"))
}

/// Owners are for owners to make and to remove; who holds a key that is nobody's may, like the operator.
async fn may_touch(app: &App, caller: &Caller, roles: &[Role]) -> Result<(), Problem> {
    let Some(own) = caller.member.as_deref().filter(|_| roles.contains(&Role::Owner) && !caller.is_operator()) else {
        return Ok(());
    };
    if app.store.member(own).await?.is_some_and(|row| row.role == Role::Owner) {
        return Ok(());
    }
    let detail = "role: only an owner makes or removes owners";
    Err(Problem::of(FailureCode::RequestForbidden, detail).at("/role"))
}

/// The members of an organisation, by name.
#[utoipa::path(
    get, path = "/api/v0/organisations/{organisation}/members", tag = "tenancy", security(("bearer" = []), ("key" = [])),
    params(("organisation" = String, Path, description = "The organisation's id")),
    responses((status = 200, body = MemberList), (status = 401, body = ProblemBody), (status = 404, body = ProblemBody))
)]
pub async fn list(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(organisation): Path<String>,
) -> Result<Json<MemberList>, Problem> {
    managed(&app, &caller, &organisation).await?;
    let rows = app.store.members(&organisation).await?;
    Ok(Json(MemberList { items: rows.into_iter().map(MemberItem::of).collect() }))
}

/// Adds a member. It gets in by keys that name it.
#[utoipa::path(
    post, path = "/api/v0/organisations/{organisation}/members", tag = "tenancy",
    security(("bearer" = []), ("key" = [])),
    params(("organisation" = String, Path, description = "The organisation's id")),
    request_body(content = MemberWish, content_type = "application/json"),
    responses(
        (status = 201, body = MemberItem), (status = 400, body = ProblemBody), (status = 401, body = ProblemBody),
        (status = 403, body = ProblemBody), (status = 404, body = ProblemBody), (status = 408, body = ProblemBody),
        (status = 409, body = ProblemBody, description = "The name is taken"), (status = 413, body = ProblemBody),
        (status = 415, body = ProblemBody)
    )
)]
pub async fn add(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(organisation): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<(StatusCode, [(HeaderName, String); 1], Json<MemberItem>), Problem> {
    managed(&app, &caller, &organisation).await?;
    let wish: MemberWish = super::body::read_as(&headers, body, app.body_time).await?;
    let name = identifier::name("name", wish.name)?;
    may_touch(&app, &caller, &[wish.role]).await?;
    let id = key::new_id("mem_");
    let new = NewMember { id: id.clone(), organisation: organisation.clone(), name: name.clone(), role: wish.role };
    if !submit(&app, TenancyWrite::Member(new)).await? {
        let detail = format!("name: '{name}' is a member already; choose another or change that one");
        return Err(Problem::of(FailureCode::RequestTaken, detail).at("/name"));
    }
    tracing::info!(member = id, organisation, by = &*caller.key, "member added");
    let item = MemberItem::of(of(&app, &organisation, &id).await?);
    Ok((StatusCode::CREATED, [(header::LOCATION, item.url.clone())], Json(item)))
}

/// A member.
#[utoipa::path(
    get, path = "/api/v0/organisations/{organisation}/members/{member}", tag = "tenancy",
    security(("bearer" = []), ("key" = [])),
    params(
        ("organisation" = String, Path, description = "The organisation's id"),
        ("member" = String, Path, description = "The member's id")
    ),
    responses((status = 200, body = MemberItem), (status = 401, body = ProblemBody), (status = 404, body = ProblemBody))
)]
pub async fn show(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path((organisation, id)): Path<(String, String)>,
) -> Result<Json<MemberItem>, Problem> {
    managed(&app, &caller, &organisation).await?;
    Ok(Json(MemberItem::of(of(&app, &organisation, &id).await?)))
}

/// Changes a member's role. What its keys may do follows at once.
#[utoipa::path(
    patch, path = "/api/v0/organisations/{organisation}/members/{member}", tag = "tenancy",
    security(("bearer" = []), ("key" = [])),
    params(
        ("organisation" = String, Path, description = "The organisation's id"),
        ("member" = String, Path, description = "The member's id")
    ),
    request_body(content = MemberChange, content_type = "application/json"),
    responses(
        (status = 200, body = MemberItem), (status = 400, body = ProblemBody), (status = 401, body = ProblemBody),
        (status = 403, body = ProblemBody), (status = 404, body = ProblemBody), (status = 408, body = ProblemBody),
        (status = 409, body = ProblemBody, description = "It is the last owner"), (status = 413, body = ProblemBody),
        (status = 415, body = ProblemBody)
    )
)]
pub async fn change(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path((organisation, id)): Path<(String, String)>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<MemberItem>, Problem> {
    managed(&app, &caller, &organisation).await?;
    let old = of(&app, &organisation, &id).await?;
    let MemberChange { role } = super::body::read_as(&headers, body, app.body_time).await?;
    may_touch(&app, &caller, &[old.role, role]).await?;
    let changed = submit(&app, TenancyWrite::ChangeMember { id: id.clone(), role }).await?;
    app.keys.changed(|held| held.member.as_deref() == Some(&*id));
    if !changed {
        return Err(last_owner());
    }
    tracing::info!(member = id, role = role.as_str(), by = &*caller.key, "member changed");
    Ok(Json(MemberItem::of(of(&app, &organisation, &id).await?)))
}

fn last_owner() -> Problem {
    Problem::of(FailureCode::RequestState, "this is the organisation's last owner; make another one first")
}

/// Removes a member and revokes its keys.
#[utoipa::path(
    delete, path = "/api/v0/organisations/{organisation}/members/{member}", tag = "tenancy",
    security(("bearer" = []), ("key" = [])),
    params(
        ("organisation" = String, Path, description = "The organisation's id"),
        ("member" = String, Path, description = "The member's id")
    ),
    responses(
        (status = 204, description = "It is gone, and its keys work no more"), (status = 401, body = ProblemBody),
        (status = 404, body = ProblemBody), (status = 409, body = ProblemBody, description = "It is the last owner")
    )
)]
pub async fn remove(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path((organisation, id)): Path<(String, String)>,
) -> Result<StatusCode, Problem> {
    managed(&app, &caller, &organisation).await?;
    let old = of(&app, &organisation, &id).await?;
    may_touch(&app, &caller, &[old.role]).await?;
    let removed = submit(&app, TenancyWrite::RemoveMember { id: id.clone() }).await?;
    app.keys.changed(|held| held.member.as_deref() == Some(&*id));
    if !removed {
        return Err(last_owner());
    }
    tracing::info!(member = id, by = &*caller.key, "member removed");
    Ok(StatusCode::NO_CONTENT)
}
