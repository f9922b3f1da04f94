//! Projects: what keys, jobs, kernels and data belong to.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, Query, State};
use forge_contract::FailureCode;
use forge_contract::capability::{LABELS_MAX, word_is_valid};
use http::{HeaderMap, HeaderName, StatusCode, header};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::auth::{Caller, Scope};
use super::page::{Listed, limit};
use super::problem::{Problem, ProblemBody};
use super::{App, identifier};
use crate::store::tenancy::{Binding, LIMIT_MAX, Limits, NewProject, ProjectRow};
use crate::store::{StoreError, TenancyWrite, Write, Written};

/// A project.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ProjectItem {
    /// Its id.
    pub id: String,
    /// Whose it is.
    pub organisation: String,
    /// Its name, for people.
    pub name: String,
    /// Its own limits.
    pub limits: Limits,
    /// The limits in force: its own within its organisation's ceilings.
    pub limits_in_force: Limits,
    /// Where its jobs run.
    pub pool: Binding,
    /// When it was made: UTC, RFC 3339.
    pub created_at: String,
    /// The same, ms since 1970.
    pub created_at_ms: u64,
    /// What it uses; only where one project is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage: Option<ProjectUsage>,
    /// Its own address.
    pub url: String,
}

/// What a project uses.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
pub struct ProjectUsage {
    /// Jobs without an end.
    pub concurrent_jobs: u64,
    /// Bytes stored: content, kernels, values and arrays.
    pub storage_bytes: u64,
}

impl ProjectItem {
    fn of(row: ProjectRow, usage: Option<ProjectUsage>) -> Self {
        Self {
            url: format!("/api/v0/projects/{}", row.id),
            limits_in_force: row.effective(),
            id: row.id,
            organisation: row.organisation,
            name: row.name,
            limits: row.limits,
            pool: row.binding,
            created_at: crate::clock::rfc3339(row.created_ms),
            created_at_ms: row.created_ms,
            usage,
        }
    }
}

/// Which projects.
#[derive(Clone, Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct ProjectQuery {
    /// Most to give, 1 to 1000; 200 where absent.
    limit: Option<u32>,
    /// Only those after this id.
    after: Option<String>,
    /// Only those of this organisation.
    organisation: Option<String>,
}

/// A project to make.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ProjectWish {
    /// Its id, which never changes: its kernels are named `ID/NAME`.
    id: String,
    /// Its name; the id where absent.
    #[serde(default)]
    name: Option<String>,
    /// Whose it is; the caller's organisation where absent.
    #[serde(default)]
    organisation: Option<String>,
    /// Its limits, at most the organisation's ceilings.
    #[serde(default)]
    limits: Limits,
    /// Where its jobs run.
    #[serde(default)]
    pool: Binding,
}

/// A change of a project.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ProjectChange {
    /// Its new name.
    #[serde(default)]
    name: Option<String>,
    /// Limits to set, and with `null` to lift; others stay.
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    limits: Option<Map<String, Value>>,
    /// Where its jobs run from now on: the whole of it. Jobs that were accepted before stay where they may.
    #[serde(default)]
    pool: Option<Binding>,
}

/// Routes of projects.
pub(super) fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new().routes(routes!(list, make)).routes(routes!(show, change))
}

/// Records a change of tenancy; whether there was anything to change.
pub(super) async fn submit(app: &App, write: TenancyWrite) -> Result<bool, Problem> {
    match app.store.submit(Write::Tenancy(Box::new(write))).await? {
        Written::Applied(applied) => Ok(applied),
        _ => Err(StoreError::Corrupt { what: "answer to a change" }.into()),
    }
}

/// A project that the caller sees: its own, those of its organisation to an admin, all to the operator.
pub(super) async fn visible(app: &App, caller: &Caller, id: &str) -> Result<ProjectRow, Problem> {
    let row = app.store.project(id).await?;
    let sees = |row: &ProjectRow| row.id == *caller.project || caller.manages(&row.organisation);
    row.filter(sees).ok_or_else(|| Problem::not_found("project"))
}

/// One that it manages.
pub(super) async fn managed(app: &App, caller: &Caller, id: &str) -> Result<ProjectRow, Problem> {
    caller.require(Scope::Admin)?;
    visible(app, caller, id).await
}

/// Refuses limits that could not be kept.
pub(super) fn check(limits: &Limits, pointer: &str) -> Result<(), Problem> {
    let large = limits.numbers().into_iter().find(|(_, value)| value.is_some_and(|value| value > LIMIT_MAX));
    match large {
        Some((name, _)) => {
            let (name, at) = (name.as_str(), format!("{pointer}/{}", name.as_str()));
            let detail = format!("{name}: expected an integer from 0 to {LIMIT_MAX}, or null for no limit");
            Err(Problem::of(FailureCode::RequestSchema, detail).at(&at))
        }
        None => Ok(()),
    }
}

/// Limits with some of them set anew.
pub(super) fn limits_with(old: &Limits, change: Map<String, Value>, pointer: &str) -> Result<Limits, Problem> {
    let mut all = match serde_json::to_value(old) {
        Ok(Value::Object(all)) => all,
        _ => Map::new(),
    };
    all.extend(change);
    let limits = super::body::typed(Value::Object(all), pointer)?;
    check(&limits, pointer)?;
    Ok(limits)
}

/// Refuses limits above what the operator allows.
fn within(limits: &Limits, ceilings: &Limits) -> Result<(), Problem> {
    let Some(name) = limits.above(ceilings) else { return Ok(()) };
    let name = name.as_str();
    let ceiling = serde_json::to_value(ceilings).ok().and_then(|all| all.get(name).cloned()).unwrap_or_default();
    let detail = format!("limits.{name}: the operator allows this organisation {ceiling} and nothing looser");
    Err(Problem::of(FailureCode::RequestForbidden, detail).at(&format!("/limits/{name}")))
}

/// A binding whose labels are such as agents have, sorted, each once.
fn bound(mut binding: Binding) -> Result<Binding, Problem> {
    let wrong = |at: String, rule: &str| Err(Problem::of(FailureCode::RequestSchema, rule).at(&at));
    if binding.labels.len() > LABELS_MAX {
        return wrong("/pool/labels".into(), "pool.labels: expected at most 64 labels");
    }
    if let Some(at) = binding.labels.iter().position(|label| !word_is_valid(label)) {
        return wrong(format!("/pool/labels/{at}"), "pool.labels: expected labels of 1 to 128 printable ASCII bytes");
    }
    let is_region = |region: &String| word_is_valid(region) && region.len() <= identifier::REGION_CHARS_MAX;
    if binding.region.as_ref().is_some_and(|region| !is_region(region)) {
        return wrong("/pool/region".into(), "pool.region: expected 1 to 64 printable ASCII bytes");
    }
    binding.labels.sort();
    binding.labels.dedup();
    Ok(binding)
}

/// The caller's project; to an admin those of its organisation, to the operator all.
#[utoipa::path(
    get, path = "/api/v0/projects", tag = "tenancy", security(("bearer" = []), ("key" = [])), params(ProjectQuery),
    responses((status = 200, body = Listed<ProjectItem>), (status = 400, body = ProblemBody), (status = 401, body = ProblemBody))
)]
pub async fn list(
    State(app): State<Arc<App>>,
    caller: Caller,
    Query(query): Query<ProjectQuery>,
) -> Result<Json<Listed<ProjectItem>>, Problem> {
    caller.require(Scope::Read)?;
    let limit = limit(query.limit, 200)?;
    let own = (!caller.is_operator()).then(|| caller.organisation.to_string());
    let of = match (own, query.organisation) {
        // Another organisation's projects are not there.
        (Some(own), Some(asked)) if own != asked => return Ok(Json(Listed { items: Vec::new(), next: None })),
        (own, asked) => own.or(asked),
    };
    let rows = app.store.projects(of.as_deref(), query.after.as_deref(), limit).await?;
    let filter = of.as_ref().map_or_else(String::new, |of| format!("&organisation={of}"));
    let last = rows.last().filter(|_| rows.len() == limit as usize);
    let next = last.map(|row| format!("/api/v0/projects?limit={limit}&after={}{filter}", row.id));
    let seen = rows.into_iter().filter(|row| row.id == *caller.project || caller.manages(&row.organisation));
    Ok(Json(Listed { items: seen.map(|row| ProjectItem::of(row, None)).collect(), next }))
}

/// Makes a project. It has no key yet.
#[utoipa::path(
    post, path = "/api/v0/projects", tag = "tenancy", security(("bearer" = []), ("key" = [])),
    request_body(content = ProjectWish, content_type = "application/json"),
    responses(
        (status = 201, body = ProjectItem), (status = 400, body = ProblemBody), (status = 401, body = ProblemBody),
        (status = 403, body = ProblemBody, description = "The key may not, or a limit is above the ceiling"),
        (status = 404, body = ProblemBody, description = "There is no such organisation"),
        (status = 408, body = ProblemBody), (status = 409, body = ProblemBody, description = "The id is taken"),
        (status = 413, body = ProblemBody), (status = 415, body = ProblemBody)
    )
)]
pub async fn make(
    State(app): State<Arc<App>>,
    caller: Caller,
    headers: HeaderMap,
    body: Body,
) -> Result<(StatusCode, [(HeaderName, String); 1], Json<ProjectItem>), Problem> {
    caller.require(Scope::Admin)?;
    let wish: ProjectWish = super::body::read_as(&headers, body, app.body_time).await?;
    let organisation = wish.organisation.unwrap_or_else(|| caller.organisation.to_string());
    let ceilings = super::organisations::managed(&app, &caller, &organisation).await?.ceilings;
    let id = identifier::id("id", wish.id)?;
    let name = identifier::name("name", wish.name.unwrap_or_else(|| id.clone()))?;
    check(&wish.limits, "/limits")?;
    within(&wish.limits, &ceilings)?;
    let new = NewProject { id: id.clone(), organisation, name, limits: wish.limits, binding: bound(wish.pool)? };
    if !submit(&app, TenancyWrite::Project(new)).await? {
        let detail = format!("id: '{id}' is a project's already; choose another");
        return Err(Problem::of(FailureCode::RequestTaken, detail).at("/id"));
    }
    tracing::info!(project = id, by = &*caller.key, "project made");
    let item = ProjectItem::of(managed(&app, &caller, &id).await?, None);
    Ok((StatusCode::CREATED, [(header::LOCATION, item.url.clone())], Json(item)))
}

/// A project, its limits, and what it uses.
#[utoipa::path(
    get, path = "/api/v0/projects/{project}", tag = "tenancy", security(("bearer" = []), ("key" = [])),
    params(("project" = String, Path, description = "Its id")),
    responses((status = 200, body = ProjectItem), (status = 401, body = ProblemBody), (status = 404, body = ProblemBody))
)]
pub async fn show(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<ProjectItem>, Problem> {
    caller.require(Scope::Read)?;
    let row = visible(&app, &caller, &id).await?;
    used(&app, row).await.map(Json)
}

async fn used(app: &App, row: ProjectRow) -> Result<ProjectItem, Problem> {
    let used = app.store.project_use(&row.id).await?;
    Ok(ProjectItem::of(row, Some(ProjectUsage { concurrent_jobs: used.jobs, storage_bytes: used.bytes })))
}

/// Changes a project's name, limits or pool. Limits hold from the next request on.
#[utoipa::path(
    patch, path = "/api/v0/projects/{project}", tag = "tenancy", security(("bearer" = []), ("key" = [])),
    params(("project" = String, Path, description = "Its id")),
    request_body(content = ProjectChange, content_type = "application/json"),
    responses(
        (status = 200, body = ProjectItem), (status = 400, body = ProblemBody), (status = 401, body = ProblemBody),
        (status = 403, body = ProblemBody, description = "The key may not, or a limit is above the ceiling"),
        (status = 404, body = ProblemBody), (status = 408, body = ProblemBody), (status = 413, body = ProblemBody),
        (status = 415, body = ProblemBody)
    )
)]
pub async fn change(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<ProjectItem>, Problem> {
    managed(&app, &caller, &id).await?;
    let change: ProjectChange = super::body::read_as(&headers, body, app.body_time).await?;
    let name = change.name.map(|name| identifier::name("name", name)).transpose()?;
    let binding = change.pool.map(bound).transpose()?;
    let turn = app.keys.turn.lock().await;
    let row = managed(&app, &caller, &id).await?;
    if let Some(change) = &change.limits {
        // What is not touched may be above a ceiling that was lowered since; the ceiling holds all the same.
        within(&limits_with(&Limits::default(), change.clone(), "/limits")?, &row.ceilings)?;
    }
    let limits = change.limits.map(|change| limits_with(&row.limits, change, "/limits")).transpose()?;
    submit(&app, TenancyWrite::ChangeProject { id: id.clone(), name, limits, binding }).await?;
    app.keys.changed(|held| *held.project == *id);
    drop(turn);
    tracing::info!(project = id, by = &*caller.key, "project changed");
    let row = managed(&app, &caller, &id).await?;
    used(&app, row).await.map(Json)
}
