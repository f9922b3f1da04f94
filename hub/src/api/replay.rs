//! Executing a job again on the pool, as it was planned.

use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::Response;
use forge_contract::envelope::Envelope;
use forge_contract::{FailureCode, JobId};
use forge_lifecycle::plan::{Parallel, Plan, PlannedSource};
use http::HeaderMap;
use serde_json::{Map, Value};

use super::App;
use super::auth::{Caller, Scope};
use super::execute::{Wishes, answer, beyond};
use super::jobs::job_id;
use super::problem::{Problem, ProblemBody};
use super::trace::TraceId;
use crate::coordinator::JobInfo;
use crate::document::JobDocument;
use crate::store::{Phase, PlannedRow};
use crate::tenancy::quota;

/// What of a policy a replay may set anew. The plan is pinned, so its shards are not among them.
pub(super) const POLICY: [&str; 6] = ["max_agents", "min_agents", "strict_agents", "target", "timeout_ms", "verify"];

/// Executes a job again: the pinned plan, the pinned component, newer or yanked versions notwithstanding.
///
/// A new job, whose document, events and evidence name the job repeated and say whether every unit gave the same bits
/// and burned the same fuel, or which is the first that did not. It is billed as the job it repeats. `policy` sets other
/// agents, time or verification; waiting and `Idempotency-Key` are as for executing.
#[utoipa::path(
    post, path = "/api/v0/jobs/{id}/replay", tag = "jobs", security(("bearer" = []), ("key" = [])),
    params(
        ("id" = String, Path, description = "The hub's id of the job to repeat"),
        ("Prefer" = Option<String>, Header, description = "`respond-async`, optionally with `wait=SECONDS`"),
        ("Idempotency-Key" = Option<String>, Header, description = "The same key, job and policy give the same replay")
    ),
    request_body(content = Option<Object>, content_type = "application/json", description = "`{\"policy\": {...}}`, or nothing"),
    responses(
        (status = 200, body = JobDocument), (status = 202, body = JobDocument),
        (status = 400, body = ProblemBody), (status = 401, body = ProblemBody), (status = 404, body = ProblemBody),
        (status = 409, description = "The job has no result to compare with", body = ProblemBody),
        (status = 422, body = JobDocument),
        (status = 429, description = "The project's budget does not allow it", body = ProblemBody), (status = 502, body = JobDocument), (status = 503, body = JobDocument),
        (status = 504, body = JobDocument)
    )
)]
pub async fn replay(
    State(app): State<Arc<App>>,
    Extension(trace): Extension<TraceId>,
    caller: Caller,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    caller.require(Scope::Compute)?;
    let of = job_id(&id)?;
    let wishes = Wishes::of(&headers)?;
    if app.stopping.is_cancelled() {
        return Err(Problem::of(FailureCode::SchedulingShutdown, "the hub is stopping"));
    }
    let policy = policy(&app, &headers, body).await?;
    let recorded = recorded(&app, &caller, of).await?;
    let (envelope, mut plan) = again(&recorded, policy).map_err(|problem| problem.about(of))?;
    caller.binding().check(&plan.requires).map_err(|failure| Problem::from(failure).about(of))?;
    plan.terms = quota::terms(caller.limits(), caller.binding());
    let asked = envelope.digest();
    let held = plan.content().into_iter().map(|digest| app.blobs.hold(digest)).collect();
    is_here(&app, &plan).await.map_err(|problem| problem.about(of))?;
    let terms = super::execute::terms(&app, &envelope, &plan);
    let info = JobInfo {
        job: crate::clock::job_id(),
        project: Arc::clone(&caller.project),
        trace_id: trace.0.clone(),
        trace: trace.1,
        envelope,
        plan: Arc::new(plan),
        accepted_ms: crate::clock::unix_ms(),
        notices: Vec::new(),
        replay_of: Some(of),
        erratum: None,
        asked,
        held: Arc::new(held),
        terms,
    };
    match quota::broken(caller.limits(), &info.plan) {
        Some(exceeded) => beyond(&app, &caller, &info, &wishes, exceeded).await,
        None => answer(app, &caller, info, wishes).await,
    }
}

/// The members of the body's `policy`; none for an empty body.
async fn policy(app: &App, headers: &HeaderMap, body: Body) -> Result<Map<String, Value>, Problem> {
    let wrong = |detail: String| Problem::of(FailureCode::RequestSchema, detail);
    let body: Map<String, Value> = super::body::read_or_default(headers, body, app.body_time).await?;
    let mut policy = Map::new();
    for (name, value) in body {
        match (name.as_str(), value) {
            ("policy", Value::Object(members)) => policy = members,
            ("policy", _) => return Err(wrong("policy: expected an object".into()).at("/policy")),
            _ => {
                let detail = format!("{name}: a replay's body has the field policy alone; remove it");
                return Err(wrong(detail).at(&format!("/{name}")));
            }
        }
    }
    if let Some(name) = policy.keys().find(|name| !POLICY.contains(&name.as_str())) {
        let detail = format!(
            "policy.{name}: the plan of a replay is pinned; what can be set anew is {}; remove it",
            POLICY.join(", ")
        );
        return Err(wrong(detail).at(&format!("/policy/{name}")));
    }
    Ok(policy)
}

/// What a job with a result was to do.
async fn recorded(app: &App, caller: &Caller, of: JobId) -> Result<PlannedRow, Problem> {
    let row = app.store.job(&caller.project, of).await?.ok_or_else(|| Problem::not_found("job"))?;
    if row.phase != Phase::Completed {
        let detail = match row.phase {
            Phase::Running => "the job is not over yet: it can be repeated once `status` is COMPLETED".to_owned(),
            other => format!(
                "the job is {} and has no result to compare with; submit its contract again instead",
                other.as_str()
            ),
        };
        return Err(Problem::of(FailureCode::RequestState, detail).about(of));
    }
    let planned = app.store.planned(&caller.project, of).await?;
    planned.ok_or_else(|| Problem::of(FailureCode::AggregationStorage, "the job's plan is not recorded").about(of))
}

/// The contract with the policy set anew, and the plan with what follows from the policy but for its shards.
fn again(recorded: &PlannedRow, policy: Map<String, Value>) -> Result<(Envelope, Plan), Problem> {
    let unreadable = || Problem::of(FailureCode::AggregationStorage, "the job's contract or plan cannot be read");
    let mut plan: Plan = serde_json::from_str(&recorded.plan).map_err(|_| unreadable())?;
    let mut contract: Map<String, Value> = serde_json::from_str(&recorded.envelope).map_err(|_| unreadable())?;
    if !policy.is_empty() {
        let members = contract.entry("policy").or_insert_with(|| Value::Object(Map::new()));
        members.as_object_mut().ok_or_else(unreadable)?.extend(policy);
    }
    let text = serde_json::to_vec(&contract).map_err(|_| unreadable())?;
    let envelope = Envelope::parse(&text)?;
    let policy = &envelope.policy;
    plan.verify = policy.verify;
    plan.target = policy.target;
    plan.timeout_ms = policy.timeout_ms;
    plan.parallel =
        Parallel { min_agents: policy.min_agents, max_agents: policy.max_agents, strict: policy.strict_agents };
    Ok((envelope, plan))
}

/// Component and inputs must still be stored.
async fn is_here(app: &App, plan: &Plan) -> Result<(), Problem> {
    let sources = plan.stages.iter().flat_map(|stage| &stage.inputs).map(|input| &input.source);
    let inputs = sources.filter_map(|source| match source {
        PlannedSource::Content { digest, .. } => Some(("input", *digest)),
        PlannedSource::Stage { .. } => None,
    });
    for (what, digest) in std::iter::once(("component", plan.component)).chain(inputs) {
        if app.blobs.has(&digest) || app.store.object(&digest).await?.is_some() {
            continue;
        }
        let detail = format!("the {what} {digest} is no longer stored; upload the same bytes and repeat the job again");
        return Err(Problem::of(FailureCode::RequestNotFound, detail));
    }
    Ok(())
}
