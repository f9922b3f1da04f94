//! Executing and planning contracts.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use forge_contract::envelope::{BillingMode, Envelope};
use forge_contract::{Digest, Failure, FailureCode, JobId};
use forge_lifecycle::books::budget::{Budget, OverBudget};
use forge_lifecycle::books::price::{Estimate, estimate};
use forge_lifecycle::plan::Plan;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use serde::Serialize;
use utoipa::ToSchema;

use super::App;
use super::auth::{Caller, Scope};
use super::jobs::answer_stored;
use super::named::{Planned, planned};
use super::problem::{Problem, ProblemBody};
use super::ticket::Ticket;
use super::trace::{TRACE_HEADER, TraceId};
use crate::code::status_of;
use crate::coordinator::{Ended, JobInfo, LiveJob, decimal, over_budget, waiting};
use crate::document::JobDocument;
use crate::store::books::{BooksWritten, NewCharge, Terms};
use crate::store::{Ack, Exceeded, JobRow, NewJob, Phase, RejectedRequest, Write, Written};
use crate::tenancy::quota;

const IDEMPOTENCY_HEADER: &str = "idempotency-key";
/// What such a key is, as a regular expression.
pub(super) const IDEMPOTENCY_PATTERN: &str = "^[!-~]([ -~]{0,253}[!-~])?$";
const REPLAYED_HEADER: HeaderName = HeaderName::from_static("idempotency-replayed");
const PREFERENCE_HEADER: HeaderName = HeaderName::from_static("preference-applied");
/// Longest `wait` honoured together with `respond-async`.
const WAIT_MAX: Duration = Duration::from_secs(300);

/// What the headers ask for.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Wishes {
    /// `Prefer: respond-async`, and how long to wait before answering 202.
    later: Option<Duration>,
    /// `Idempotency-Key`.
    key: Option<String>,
}

impl Wishes {
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, Problem> {
        let mut wishes = Self::default();
        let (mut later, mut wait) = (false, Duration::ZERO);
        // RFC 7240: what is not understood is ignored.
        for value in headers.get_all("prefer").iter().filter_map(|value| value.to_str().ok()) {
            for preference in value.split([',', ';']).map(str::trim) {
                if preference.eq_ignore_ascii_case("respond-async") {
                    later = true;
                } else if let Some(seconds) = preference.strip_prefix("wait=").and_then(|text| text.parse().ok()) {
                    wait = Duration::from_secs(seconds).min(WAIT_MAX);
                }
            }
        }
        wishes.later = later.then_some(wait);
        if let Some(value) = headers.get(IDEMPOTENCY_HEADER) {
            let printable = |key: &&str| key.bytes().all(|byte| (b' '..=b'~').contains(&byte));
            let text = value.to_str().ok().filter(|key| (1..=255).contains(&key.len())).filter(printable);
            let key = text.ok_or_else(|| {
                Problem::of(
                    FailureCode::RequestSchema,
                    "the header Idempotency-Key: expected 1 to 255 printable ASCII characters",
                )
            })?;
            wishes.key = Some(key.to_owned());
        }
        Ok(wishes)
    }
}

/// Executes a contract.
///
/// Answers with the result, or at once with 202 where `Prefer: respond-async` asks for it (`wait=SECONDS` waits that
/// long first). A client that leaves cancels nothing. The status of a job that failed follows from its code:
/// scheduling 503 (out of time 504), a kernel's own failure 422, other agent or verification failures 502, cancelled
/// 409, aggregation 422 or 500. Where the key is revoked or expires while the request waits, it ends with 401; the job
/// goes on. A limit of the project that time mends is answered with 429 and `Retry-After`, another one with 422.
#[utoipa::path(
    post, path = "/api/v0/ops/execute", tag = "ops", security(("bearer" = []), ("key" = [])),
    params(
        ("Prefer" = Option<String>, Header, description = "`respond-async`, optionally with `wait=SECONDS`"),
        ("Idempotency-Key" = Option<String>, Header, description = "The same key and contract give the same job")
    ),
    request_body(content = Object, content_type = "application/json", description = "The contract: ctx, op, seed, policy, args, artifacts"),
    responses(
        (status = 200, body = JobDocument), (status = 202, body = JobDocument),
        (status = 400, body = ProblemBody), (status = 401, body = ProblemBody), (status = 404, body = ProblemBody),
        (status = 408, body = ProblemBody), (status = 409, body = ProblemBody),
        (status = 413, body = ProblemBody), (status = 415, body = ProblemBody), (status = 422, body = JobDocument),
        (status = 429, description = "The project's budget does not allow it", body = ProblemBody),
        (status = 502, body = JobDocument), (status = 503, body = JobDocument), (status = 504, body = JobDocument)
    )
)]
pub async fn execute(
    State(app): State<Arc<App>>,
    Extension(trace): Extension<TraceId>,
    caller: Caller,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    caller.require(Scope::Compute)?;
    let wishes = Wishes::of(&headers)?;
    if app.stopping.is_cancelled() {
        return Err(Problem::of(FailureCode::SchedulingShutdown, "the hub is stopping"));
    }
    let bytes = super::body::read(&headers, body, app.body_time).await?;
    let info = match draft(&app, &caller, &trace, &bytes).await {
        Ok(info) => info,
        Err(problem) => return Err(recorded(&app, &caller, &trace, &bytes, problem).await),
    };
    if let Some(exceeded) = quota::broken(caller.limits(), &info.plan) {
        if let Some(known) = known(&app, &info, &wishes).await? {
            return shown(&app, &caller, known, &wishes).await;
        }
        let problem = Problem::from(exceeded).traced(&info.trace_id);
        return Err(recorded(&app, &caller, &trace, &bytes, problem).await);
    }
    match answer(Arc::clone(&app), &caller, info, wishes).await {
        // What could not be afforded is on record like whatever else was refused; what only came too soon is not.
        Err(problem) if problem.code() == FailureCode::RequestQuota && !problem.is_limited() => {
            Err(recorded(&app, &caller, &trace, &bytes, problem).await)
        }
        answered => answered,
    }
}

/// Submits a job within its project's limits and answers as its caller wishes.
pub(super) async fn answer(app: Arc<App>, caller: &Caller, info: JobInfo, wishes: Wishes) -> Result<Response, Problem> {
    // A task of its own: once begun it ends, whether or not the client still listens.
    let (job, shared) = (info.job, Arc::clone(&app));
    let bounds = Bounds { counted: caller.limits().concurrent_jobs.is_some(), budget: caller.budget() };
    caller.ticket.note(format!("job {job}"));
    let submitted = tokio::spawn(submit(shared, info, wishes.key.clone(), (bounds, caller.ticket.clone()))).await;
    let submitted =
        submitted.map_err(|_| Problem::of(FailureCode::AggregationStorage, "the submission failed").about(job))??;
    shown(&app, caller, submitted, &wishes).await
}

async fn shown(app: &App, caller: &Caller, submitted: Submitted, wishes: &Wishes) -> Result<Response, Problem> {
    match submitted {
        Submitted::New { live, ack } => answer_live(app, caller, &live, Some(ack), wishes.later).await,
        Submitted::Known(live) => answer_live(app, caller, &live, None, wishes.later).await.map(replayed),
        Submitted::Over(row) => Ok(replayed(answer_stored(&row)?)),
    }
}

/// The job that a repeated request made, whatever its project may by now.
///
/// # Errors
/// `request.idempotency_mismatch`.
pub(super) async fn known(app: &App, info: &JobInfo, wishes: &Wishes) -> Result<Option<Submitted>, Problem> {
    let Some(key) = &wishes.key else { return Ok(None) };
    match app.store.idempotent(&info.project, key).await? {
        Some((digest, earlier)) if digest == request_digest(info) => {
            earlier_job(app, &info.project, earlier).await.map(Some)
        }
        Some((_, earlier)) => Err(mismatch(earlier)),
        None => Ok(None),
    }
}

/// Answers with the job that a repeated request made; refuses a new one that its project may not.
pub(super) async fn beyond(
    app: &App,
    caller: &Caller,
    info: &JobInfo,
    wishes: &Wishes,
    exceeded: Exceeded,
) -> Result<Response, Problem> {
    match known(app, info, wishes).await? {
        Some(known) => shown(app, caller, known, wishes).await,
        None => Err(Problem::from(exceeded).traced(&info.trace_id)),
    }
}

fn mismatch(earlier: JobId) -> Problem {
    let detail = format!("this Idempotency-Key belongs to job {earlier}, whose contract differs");
    Problem::of(FailureCode::RequestIdempotency, detail).about(earlier)
}

/// What became of a submission.
pub(super) enum Submitted {
    New { live: Arc<LiveJob>, ack: Ack },
    Known(Arc<LiveJob>),
    Over(Box<JobRow>),
}

/// Reads and plans a contract.
async fn draft(app: &App, caller: &Caller, trace: &TraceId, bytes: &[u8]) -> Result<JobInfo, Problem> {
    let envelope = Envelope::parse(bytes)?;
    let trace_id = envelope.ctx.trace_id.clone().unwrap_or_else(|| trace.0.clone());
    let asked = envelope.digest();
    let Planned { envelope, plan, notices, held } =
        planned(app, caller, envelope).await.map_err(|problem| problem.traced(&trace_id))?;
    let terms = terms(app, &envelope, &plan);
    Ok(JobInfo {
        job: crate::clock::job_id(),
        project: Arc::clone(&caller.project),
        trace_id,
        trace: trace.1,
        envelope,
        plan: Arc::new(plan),
        accepted_ms: crate::clock::unix_ms(),
        notices,
        replay_of: None,
        erratum: None,
        asked,
        held,
        terms,
    })
}

/// What is agreed for a job: today's prices, and what is set aside.
pub(super) fn terms(app: &App, envelope: &Envelope, plan: &Plan) -> Terms {
    let tariff = app.prices.tariff(&plan.op);
    let hold_micro = match envelope.ctx.billing.mode {
        BillingMode::Billable => estimate(&tariff, plan).hold_micro,
        BillingMode::Test => 0,
    };
    Terms { tariff, held_micro: Some(hold_micro) }
}

/// Keeps a refused request as a failed job, so that it can be looked up by the id its problem names.
async fn recorded(app: &App, caller: &Caller, trace: &TraceId, bytes: &[u8], problem: Problem) -> Problem {
    app.metrics.rejected.inc();
    let job = crate::clock::job_id();
    let at_ms = crate::clock::unix_ms();
    let trace_id = problem.trace().unwrap_or(&trace.0).to_owned();
    let document = JobDocument::rejected(job, &trace_id, at_ms, problem.failure());
    let request = RejectedRequest {
        job,
        project: caller.project.to_string(),
        trace_id,
        body: Digest::of(bytes),
        code: problem.code(),
        at_ms,
        document: serde_json::to_string(&document).unwrap_or_default(),
    };
    caller.ticket.note(format!("job {job}"));
    let entry = caller.ticket.entry(status_of(problem.code()), Some(problem.code()));
    match app.store.submit(Write::Reject(Box::new(request)).audited(entry)).await {
        Ok(_) => {
            caller.ticket.done();
            problem.about(job)
        }
        Err(error) => {
            tracing::error!(%job, %error, "a refusal could not be recorded");
            problem
        }
    }
}

fn new_job(info: &JobInfo, key: Option<String>, budget: Option<Budget>) -> Result<NewJob, Problem> {
    let op = &info.envelope.op;
    let unwritable = |_| Problem::of(FailureCode::AggregationStorage, "the plan cannot be written down");
    Ok(NewJob {
        job: info.job,
        project: info.project.to_string(),
        client_job_id: info.envelope.ctx.job_id.clone(),
        trace_id: info.trace_id.clone(),
        op: format!("{} {}", op.label(), op.profile),
        envelope: info.envelope.canonical().to_owned(),
        envelope_digest: info.envelope.digest(),
        plan: serde_json::to_string(&*info.plan).map_err(unwritable)?,
        accepted_ms: info.accepted_ms,
        idempotency_key: key,
        request_digest: request_digest(info),
        replay_of: info.replay_of,
        content: info.plan.content().into_iter().collect(),
        charge: Some(NewCharge {
            kernel: info.plan.op.clone(),
            mode: info.envelope.ctx.billing.mode.as_str(),
            tariff: info.terms.tariff,
            hold_micro: info.terms.held_micro.unwrap_or(0),
            budget,
        }),
    })
}

/// What an idempotency key stands for: the contract, and of a replay also the job repeated.
fn request_digest(info: &JobInfo) -> Digest {
    let Some(of) = info.replay_of else { return info.asked };
    let mut w = forge_contract::canon::Writer::new();
    w.str(&of.to_string());
    w.digest(&info.asked);
    Digest::tagged("forgepool v1 replay request", &w.into_bytes())
}

/// What of its project's a job may break only once it is recorded: then nothing begins before it is.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    /// The project may have so many jobs and no more.
    counted: bool,
    /// What the project may spend.
    budget: Option<Budget>,
}

async fn submit(
    app: Arc<App>,
    info: JobInfo,
    key: Option<String>,
    (bounds, ticket): (Bounds, Ticket),
) -> Result<Submitted, Problem> {
    let (job, project) = (info.job, Arc::clone(&info.project));
    // The row of the audit log goes with the acceptance: together they cost one flush.
    let entry = ticket.entry(StatusCode::ACCEPTED, None);
    let write = Write::Accept(Box::new(new_job(&info, key.clone(), bounds.budget)?)).audited(entry);
    let live = LiveJob::new(info);
    let board = app.coordinator.board();
    // On the board before it is recorded: whoever finds the record finds the job.
    let count = board.insert(&live);
    app.metrics.live_max.set(app.metrics.live_max.get().max(count as u64));
    let mut ack = app.store.submit(write);
    if key.is_some() || bounds.counted || bounds.budget.is_some() {
        let written = (&mut ack).await;
        if !matches!(written, Ok(Written::Done)) {
            board.remove(job);
        }
        match written? {
            Written::Existing(earlier) => return earlier_job(&app, &project, earlier).await,
            Written::Mismatch(earlier) => return Err(mismatch(earlier)),
            Written::Exceeded(exceeded) => return Err(Problem::from(exceeded).traced(&live.info.trace_id)),
            Written::Books(given) => {
                if let BooksWritten::OverBudget(over) = *given {
                    return Err(unaffordable(&over).traced(&live.info.trace_id));
                }
            }
            _ => {}
        }
        ack = Ack::given(Written::Done);
    }
    // Not awaited: a sync answer's last write is behind this one in the queue, and starting early hides the disk.
    if app.coordinator.submit(Arc::clone(&live)).await.is_err() {
        if ack.await.is_ok() {
            ticket.done();
        }
        return Err(Problem::of(FailureCode::SchedulingShutdown, "the hub is stopping").about(job));
    }
    tracing::info!(%job, trace_id = live.info.trace_id, project = &*project, op = live.info.plan.op, profile = live.info.plan.profile, "job accepted");
    Ok(Submitted::New { live, ack })
}

/// A job that the project's budget does not allow, and when that may change.
fn unaffordable(over: &OverBudget) -> Problem {
    let problem = Problem::new(over_budget(over));
    let Some(resets) = over.resets_ms else { return problem };
    let seconds = resets.saturating_sub(crate::clock::unix_ms()).div_ceil(1000);
    problem.retry_after(Duration::from_secs(seconds))
}

async fn earlier_job(app: &App, project: &str, job: JobId) -> Result<Submitted, Problem> {
    if let Some(live) = app.coordinator.board().job_of(project, job) {
        return Ok(Submitted::Known(live));
    }
    let row = app.store.job(project, job).await?;
    row.map(|row| Submitted::Over(Box::new(row))).ok_or_else(|| Problem::not_found("job").about(job))
}

/// Waits as long as the client wants, then answers with the result or where it will be.
async fn answer_live(
    app: &App,
    caller: &Caller,
    live: &LiveJob,
    ack: Option<Ack>,
    later: Option<Duration>,
) -> Result<Response, Problem> {
    let job = live.info.job;
    let end = async {
        match later {
            None => tokio::select! {
                ended = live.wait() => ended,
                () = app.stopping.cancelled() => None,
            },
            Some(wait) if wait.is_zero() => None,
            Some(wait) => tokio::time::timeout(wait, live.wait()).await.ok().flatten(),
        }
    };
    let ended = tokio::select! {
        biased;
        ended = end => Some(ended),
        () = caller.lapsed() => None,
    };
    if let Some(ack) = ack {
        recorded_well(app, live, ack).await?;
        caller.ticket.done();
    }
    // The job goes on: only whoever waits for it is no longer known.
    let Some(ended) = ended else { return Err(super::auth::lapsed().about(job).traced(&live.info.trace_id)) };
    match (ended, later) {
        (Some(ended), _) => Ok(answer_ended(&ended, &live.info.trace_id)),
        (None, Some(_)) => Ok(accepted(live)),
        (None, None) => {
            let detail = "the hub is stopping; the job is recorded and goes on when the hub is back";
            Err(Problem::of(FailureCode::SchedulingShutdown, detail).about(job).traced(&live.info.trace_id))
        }
    }
}

/// A job that began before it was recorded ends where it cannot be, or where its project got a limit in that moment.
async fn recorded_well(app: &App, live: &LiveJob, ack: Ack) -> Result<(), Problem> {
    let job = live.info.job;
    let problem = match ack.await {
        Ok(Written::Exceeded(exceeded)) => Problem::from(exceeded).traced(&live.info.trace_id),
        Ok(_) => return Ok(()),
        Err(error) => {
            tracing::error!(%job, %error, "an acceptance could not be stored");
            Problem::of(FailureCode::AggregationStorage, "the hub could not record the job").about(job)
        }
    };
    // Stopped already is as good as cancelled.
    let _ = app.coordinator.cancel(job).await;
    Err(problem)
}

fn replayed(mut response: Response) -> Response {
    response.headers_mut().insert(REPLAYED_HEADER, HeaderValue::from_static("true"));
    response
}

/// The status a job's end has: 200, or what its code says.
pub(super) fn status_of_end(phase: Phase, code: Option<FailureCode>) -> StatusCode {
    match (phase, code) {
        (Phase::Completed, _) => StatusCode::OK,
        (Phase::Running, _) => StatusCode::ACCEPTED,
        (_, Some(code)) => status_of(code),
        (_, None) => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// A job document as it was stored.
pub(super) fn document_response(status: StatusCode, text: String, trace_id: &str) -> Response {
    let mut response = (status, [(header::CONTENT_TYPE, "application/json")], text).into_response();
    if let Ok(value) = HeaderValue::from_str(trace_id) {
        response.headers_mut().insert(TRACE_HEADER, value);
    }
    response
}

fn answer_ended(ended: &Ended, trace_id: &str) -> Response {
    document_response(status_of_end(ended.phase, ended.code), ended.text.to_string(), trace_id)
}

fn accepted(live: &LiveJob) -> Response {
    let document = waiting(&live.info, "QUEUED");
    let location = document.links.this.clone();
    let mut response = (StatusCode::ACCEPTED, Json(document)).into_response();
    let headers = response.headers_mut();
    if let Ok(value) = HeaderValue::from_str(&location) {
        headers.insert(header::LOCATION, value);
    }
    headers.insert(PREFERENCE_HEADER, HeaderValue::from_static("respond-async"));
    if let Ok(value) = HeaderValue::from_str(&live.info.trace_id) {
        headers.insert(TRACE_HEADER, value);
    }
    response
}

/// A plan and its price; nothing is run and nothing recorded.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct PlanAnswer {
    /// Always true.
    pub ok: bool,
    /// Digest of the plan.
    pub plan_digest: String,
    /// Identity of the result: component, profile, args, seed.
    pub replay_key: String,
    /// The root of all randomness.
    pub root_seed: String,
    /// Shards of all stages.
    pub shards: u64,
    /// Units of all stages.
    pub units: u64,
    /// Items of work: iterations, cells, elements.
    pub iterations: u64,
    /// What it is expected to cost.
    pub quote: QuoteBlock,
    /// What the client should know.
    pub warnings: Vec<String>,
    /// The whole plan.
    #[schema(value_type = Object)]
    pub plan: Plan,
}

/// An expected cost.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
pub struct QuoteBlock {
    /// Fuel.
    pub fuel: u64,
    /// Credits that the client is expected to be charged.
    pub credits: f64,
    /// The same in euros.
    pub eur: f64,
    /// Credits as an integer of millionths.
    pub credits_micro: u64,
    /// Euros as an integer of millionths.
    pub eur_micro: u64,
    /// What the verified work is expected to cost, micro-credits.
    pub work_micro: u64,
    /// Fuel of the answers that only check others.
    pub check_fuel: u64,
    /// What that is expected to cost, whoever bears it, micro-credits.
    pub verification_micro: u64,
    /// The client's part of that, micro-credits; the platform bears the rest.
    pub verification_charged_micro: u64,
    /// What is held at acceptance of a `billable` job, micro-credits. Whatever is not used comes back; a job that burns more
    /// raises its hold, or ends where the budget does.
    pub hold_micro: u64,
}

impl QuoteBlock {
    fn of(expected: &Estimate) -> Self {
        Self {
            fuel: expected.fuel,
            credits: decimal(expected.credits_micro),
            eur: decimal(expected.eur_micro),
            credits_micro: expected.credits_micro,
            eur_micro: expected.eur_micro,
            work_micro: expected.work_micro,
            check_fuel: expected.check_fuel,
            verification_micro: expected.verification_micro,
            verification_charged_micro: expected.verification_charged_micro,
            hold_micro: expected.hold_micro,
        }
    }
}

/// Plans a contract: what would be done, and what it would cost. Refused where the project may not execute it.
#[utoipa::path(
    post, path = "/api/v0/ops/plan", tag = "ops", security(("bearer" = []), ("key" = [])),
    request_body(content = Object, content_type = "application/json", description = "The contract"),
    responses(
        (status = 200, body = PlanAnswer), (status = 400, body = ProblemBody), (status = 401, body = ProblemBody),
        (status = 404, body = ProblemBody), (status = 408, body = ProblemBody), (status = 409, body = ProblemBody),
        (status = 413, body = ProblemBody), (status = 415, body = ProblemBody)
    )
)]
pub async fn plan(
    State(app): State<Arc<App>>,
    caller: Caller,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<PlanAnswer>, Problem> {
    caller.require(Scope::Compute)?;
    let bytes = super::body::read(&headers, body, app.body_time).await?;
    let envelope = Envelope::parse(&bytes)?;
    let trace = envelope.ctx.trace_id.clone();
    let planned = planned(&app, &caller, envelope).await.map_err(|problem| match &trace {
        Some(trace) => problem.traced(trace),
        None => problem,
    })?;
    let Planned { plan, notices: warnings, .. } = planned;
    if let Some(exceeded) = quota::broken(caller.limits(), &plan) {
        return Err(exceeded.into());
    }
    Ok(Json(PlanAnswer {
        ok: true,
        plan_digest: plan.digest().to_string(),
        replay_key: plan.replay_key.to_string(),
        root_seed: plan.root_seed.as_str().into(),
        shards: plan.stages.iter().map(|stage| u64::from(stage.shards)).sum(),
        units: plan.stages.iter().map(|stage| stage.units).sum(),
        iterations: plan.stages.iter().map(|stage| stage.items).sum(),
        quote: QuoteBlock::of(&estimate(&app.prices.tariff(&plan.op), &plan)),
        warnings,
        plan,
    }))
}

impl From<crate::coordinator::Stopped> for Problem {
    fn from(_: crate::coordinator::Stopped) -> Self {
        Self::new(Failure::new(FailureCode::SchedulingShutdown, "the hub is stopping"))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn wishes_are_read_leniently_and_keys_strictly() {
        let of = |pairs: &[(&'static str, &str)]| {
            Wishes::of(&pairs.iter().map(|(n, v)| (HeaderName::from_static(n), v.parse().unwrap())).collect())
        };
        assert_eq!(of(&[]).unwrap(), Wishes::default());
        assert_eq!(of(&[("prefer", "respond-async")]).unwrap().later, Some(Duration::ZERO));
        assert_eq!(of(&[("prefer", "x, Respond-Async; wait=5")]).unwrap().later, Some(Duration::from_secs(5)));
        assert_eq!(of(&[("prefer", "wait=99999, respond-async")]).unwrap().later, Some(WAIT_MAX));
        assert_eq!(of(&[("prefer", "wait=5")]).unwrap().later, None);
        assert_eq!(of(&[("idempotency-key", "k")]).unwrap().key.as_deref(), Some("k"));
        let long = "k".repeat(256);
        for bad in ["", "\u{e9}", &long] {
            let mut headers = HeaderMap::new();
            headers.insert(IDEMPOTENCY_HEADER, HeaderValue::from_bytes(bad.as_bytes()).unwrap());
            assert_eq!(Wishes::of(&headers).unwrap_err().code(), FailureCode::RequestSchema);
        }
    }
}
