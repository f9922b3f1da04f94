//! Organisations: who owns projects.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, Query, State};
use forge_contract::FailureCode;
use http::{HeaderMap, HeaderName, StatusCode, header};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::App;
use super::auth::{Caller, Scope, Scopes};
use super::keys::KeyMade;
use super::page::{Listed, limit};
use super::problem::{Problem, ProblemBody};
use super::projects::{limits_with, submit};
use super::{identifier, projects};
use crate::store::TenancyWrite;
use crate::store::tenancy::{Limits, NewOrganisation, NewProject, OrganisationRow};
use crate::tenancy::key;

/// An organisation.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct OrganisationItem {
    /// Its id.
    pub id: String,
    /// Its name, for people.
    pub name: String,
    /// Whether its admins run the hub.
    pub operator: bool,
    /// What its projects' limits are at most.
    pub ceilings: Limits,
    /// When it was made: UTC, RFC 3339.
    pub created_at: String,
    /// The same, ms since 1970.
    pub created_at_ms: u64,
    /// Its own address.
    pub url: String,
}

impl OrganisationItem {
    fn of(row: OrganisationRow) -> Self {
        Self {
            url: format!("/api/v0/organisations/{}", row.id),
            id: row.id,
            name: row.name,
            operator: row.operator,
            ceilings: row.ceilings,
            created_at: crate::clock::rfc3339(row.created_ms),
            created_at_ms: row.created_ms,
        }
    }
}

/// Which organisations.
#[derive(Clone, Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct OrganisationQuery {
    /// Most to give, 1 to 1000; 200 where absent.
    limit: Option<u32>,
    /// Only those after this id.
    after: Option<String>,
}

/// An organisation to make.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct OrganisationWish {
    /// Its id, which never changes; its first project has the same.
    id: String,
    /// Its name; the id where absent.
    #[serde(default)]
    name: Option<String>,
    /// What its projects' limits may be at most.
    #[serde(default)]
    ceilings: Limits,
}

/// A change of an organisation.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct OrganisationChange {
    /// Its new name.
    #[serde(default)]
    name: Option<String>,
    /// Ceilings to set, and with `null` to lift; others stay. For the operator alone.
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    ceilings: Option<Map<String, Value>>,
}

/// What was made.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct OrganisationMade {
    /// The organisation.
    pub organisation: OrganisationItem,
    /// The id of its first project.
    pub project: String,
    /// Its first key, with `compute` and `admin`. Its text is shown once.
    pub key: KeyMade,
}

/// Routes of organisations.
pub(super) fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new().routes(routes!(list, make)).routes(routes!(show, change))
}

/// An organisation that the caller sees: its own, or any to the operator.
pub(super) async fn visible(app: &App, caller: &Caller, id: &str) -> Result<OrganisationRow, Problem> {
    let missing = || Problem::not_found("organisation");
    if !caller.is_operator() && *caller.organisation != *id {
        return Err(missing());
    }
    app.store.organisation(id).await?.ok_or_else(missing)
}

/// One that it manages.
pub(super) async fn managed(app: &App, caller: &Caller, id: &str) -> Result<OrganisationRow, Problem> {
    caller.require(Scope::Admin)?;
    visible(app, caller, id).await
}

/// The caller's organisation; to the operator all of them.
#[utoipa::path(
    get, path = "/api/v0/organisations", tag = "tenancy", security(("bearer" = []), ("key" = [])),
    params(OrganisationQuery),
    responses((status = 200, body = Listed<OrganisationItem>), (status = 400, body = ProblemBody), (status = 401, body = ProblemBody))
)]
pub async fn list(
    State(app): State<Arc<App>>,
    caller: Caller,
    Query(query): Query<OrganisationQuery>,
) -> Result<Json<Listed<OrganisationItem>>, Problem> {
    caller.require(Scope::Read)?;
    let limit = limit(query.limit, 200)?;
    let rows = if caller.is_operator() {
        app.store.organisations(query.after.as_deref(), limit).await?
    } else {
        let own = app.store.organisation(&caller.organisation).await?;
        own.into_iter().filter(|row| query.after.as_ref().is_none_or(|after| row.id > *after)).collect()
    };
    let next = |row: &OrganisationRow| format!("/api/v0/organisations?limit={limit}&after={}", row.id);
    Ok(Json(Listed::of(rows, limit, next, OrganisationItem::of)))
}

/// Makes an organisation with a project and a key that manages it. For the operator.
///
/// The key's text is in this answer and nowhere else. Ids of organisations and projects are one namespace for the whole
/// hub, because kernels are named after projects.
#[utoipa::path(
    post, path = "/api/v0/organisations", tag = "tenancy", security(("bearer" = []), ("key" = [])),
    request_body(content = OrganisationWish, content_type = "application/json"),
    responses(
        (status = 201, body = OrganisationMade), (status = 400, body = ProblemBody), (status = 401, body = ProblemBody),
        (status = 403, body = ProblemBody), (status = 408, body = ProblemBody), (status = 413, body = ProblemBody),
        (status = 409, body = ProblemBody, description = "The id is taken"), (status = 415, body = ProblemBody)
    )
)]
pub async fn make(
    State(app): State<Arc<App>>,
    caller: Caller,
    headers: HeaderMap,
    body: Body,
) -> Result<(StatusCode, [(HeaderName, String); 1], Json<OrganisationMade>), Problem> {
    caller.require_operator()?;
    let wish: OrganisationWish = super::body::read_as(&headers, body, app.body_time).await?;
    let id = identifier::id("id", wish.id)?;
    let name = identifier::name("name", wish.name.unwrap_or_else(|| id.clone()))?;
    projects::check(&wish.ceilings, "/ceilings")?;
    let text = key::new_text();
    let first = key::kept(&text, &id, Scopes::of(&[Scope::Compute, Scope::Admin]));
    let new = NewOrganisation {
        id: id.clone(),
        name,
        ceilings: wish.ceilings,
        project: NewProject::plain(&id, &id),
        key: first.clone(),
    };
    if !submit(&app, TenancyWrite::Organisation(Box::new(new))).await? {
        let detail = format!("id: '{id}' is the id of an organisation or project already; choose another");
        return Err(Problem::of(FailureCode::RequestTaken, detail).at("/id"));
    }
    tracing::info!(organisation = id, by = &*caller.key, "organisation made");
    let row = app.store.organisation(&id).await?.ok_or_else(|| Problem::not_found("organisation"))?;
    let key = super::keys::made(&app, first.id, text).await?;
    let organisation = OrganisationItem::of(row);
    let location = [(header::LOCATION, organisation.url.clone())];
    Ok((StatusCode::CREATED, location, Json(OrganisationMade { organisation, project: id, key })))
}

/// An organisation.
#[utoipa::path(
    get, path = "/api/v0/organisations/{organisation}", tag = "tenancy", security(("bearer" = []), ("key" = [])),
    params(("organisation" = String, Path, description = "Its id")),
    responses((status = 200, body = OrganisationItem), (status = 401, body = ProblemBody), (status = 404, body = ProblemBody))
)]
pub async fn show(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<OrganisationItem>, Problem> {
    caller.require(Scope::Read)?;
    Ok(Json(OrganisationItem::of(visible(&app, &caller, &id).await?)))
}

/// Changes an organisation's name, or, for the operator, its ceilings. They hold from the next request on.
#[utoipa::path(
    patch, path = "/api/v0/organisations/{organisation}", tag = "tenancy", security(("bearer" = []), ("key" = [])),
    params(("organisation" = String, Path, description = "Its id")),
    request_body(content = OrganisationChange, content_type = "application/json"),
    responses(
        (status = 200, body = OrganisationItem), (status = 400, body = ProblemBody), (status = 401, body = ProblemBody),
        (status = 403, body = ProblemBody), (status = 404, body = ProblemBody), (status = 408, body = ProblemBody),
        (status = 413, body = ProblemBody), (status = 415, body = ProblemBody)
    )
)]
pub async fn change(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<OrganisationItem>, Problem> {
    managed(&app, &caller, &id).await?;
    let change: OrganisationChange = super::body::read_as(&headers, body, app.body_time).await?;
    if change.ceilings.is_some() {
        caller.require_operator().map_err(|problem| problem.at("/ceilings"))?;
    }
    let name = change.name.map(|name| identifier::name("name", name)).transpose()?;
    let turn = app.keys.turn.lock().await;
    let row = managed(&app, &caller, &id).await?;
    let ceilings = change.ceilings.map(|change| limits_with(&row.ceilings, change, "/ceilings")).transpose()?;
    submit(&app, TenancyWrite::ChangeOrganisation { id: id.clone(), name, ceilings }).await?;
    app.keys.changed(|held| *held.organisation == *id);
    drop(turn);
    tracing::info!(organisation = id, by = &*caller.key, "organisation changed");
    Ok(Json(OrganisationItem::of(managed(&app, &caller, &id).await?)))
}
