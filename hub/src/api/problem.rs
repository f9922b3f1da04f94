//! Errors as clients see them: RFC 9457 `application/problem+json`, one shape on every path.

use std::time::Duration;

use axum::response::{IntoResponse, Response};
use forge_contract::{Failure, FailureCode, JobId};
use http::{HeaderName, HeaderValue, StatusCode, header};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::code::{fix_of, kind_of, status_of, title_of};
use crate::store::tenancy::{Amount, LimitName};

/// The media type of a problem.
pub const MEDIA_TYPE: &str = "application/problem+json";

/// A request that was refused. The trace id is added on the way out.
#[derive(Clone, Debug)]
pub struct Problem(Box<Inner>);

#[derive(Clone, Debug)]
struct Inner {
    status: StatusCode,
    failure: Failure,
    job: Option<JobId>,
    trace: Option<String>,
    allow: Option<HeaderValue>,
    limit: Option<LimitBlock>,
    more: Vec<(HeaderName, HeaderValue)>,
}

/// The body of a problem.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ProblemBody {
    /// A URI that names the kind of problem: `urn:forgepool:problem:` and the code.
    #[serde(rename = "type")]
    pub kind: String,
    /// The kind in words, the same for every occurrence.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What was wrong here: the field, the rule, what was found.
    pub detail: String,
    /// The stable code programs match on.
    pub code: String,
    /// JSON pointer (RFC 6901) into the request, where one place is to blame.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pointer: Option<String>,
    /// The job the refusal is recorded under, or the one it concerns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job_id: Option<String>,
    /// The limit that was reached; only `request.quota` has it, where a limit of the project is meant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<LimitBlock>,
    /// What the hub's logs and records know this request by.
    pub trace_id: String,
    /// What to do about it.
    pub fix: String,
}

/// A limit that was reached.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct LimitBlock {
    /// Its name in the project's `limits`.
    pub name: LimitName,
    /// What it is.
    pub value: Amount,
    /// What was asked for, with what is in use already where that counts too.
    pub asked: Amount,
    /// When it allows the same again, ms since 1970; absent where time alone does not help.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resets_at_ms: Option<u64>,
}

impl Problem {
    /// The problem of a failure; its status follows from its code.
    #[must_use]
    pub fn new(failure: Failure) -> Self {
        Self(Box::new(Inner {
            status: status_of(failure.code),
            failure,
            job: None,
            trace: None,
            allow: None,
            limit: None,
            more: Vec::new(),
        }))
    }

    /// A problem with a code and a sentence.
    #[must_use]
    pub fn of(code: FailureCode, detail: impl Into<String>) -> Self {
        Self::new(Failure::new(code, detail))
    }

    /// No such thing, or not this project's: the caller cannot tell which.
    #[must_use]
    pub fn not_found(what: &str) -> Self {
        Self::of(FailureCode::RequestNotFound, format!("there is no such {what} in this project"))
    }

    /// The same, at a place in the request.
    #[must_use]
    pub fn at(mut self, pointer: &str) -> Self {
        self.0.failure.pointer = Some(pointer.into());
        self
    }

    /// The same, about a job.
    #[must_use]
    pub fn about(mut self, job: JobId) -> Self {
        self.0.job = Some(job);
        self
    }

    /// The same, under the trace id the client gave in its contract.
    #[must_use]
    pub fn traced(mut self, trace: &str) -> Self {
        self.0.trace = Some(trace.into());
        self
    }

    /// The same with an `Allow` header.
    #[must_use]
    pub fn allowing(mut self, methods: Option<HeaderValue>) -> Self {
        self.0.allow = methods;
        self
    }

    /// The same with a header of its own.
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.0.more.push((name, value));
        self
    }

    /// The same, naming the limit that was reached: its name, what it is, what was asked.
    #[must_use]
    pub fn limited(mut self, (name, value, asked): (LimitName, Amount, Amount), resets_at_ms: Option<u64>) -> Self {
        self.0.limit = Some(LimitBlock { name, value, asked, resets_at_ms });
        self
    }

    /// Whether it names a limit of the project that was reached.
    #[must_use]
    pub fn is_limited(&self) -> bool {
        self.0.limit.is_some()
    }

    /// The same for something that time mends: 429, and when to try again.
    #[must_use]
    pub fn retry_after(mut self, wait: Duration) -> Self {
        self.0.status = StatusCode::TOO_MANY_REQUESTS;
        let seconds = wait.as_nanos().div_ceil(1_000_000_000).max(1);
        self.with_header(header::RETRY_AFTER, HeaderValue::from(u64::try_from(seconds).unwrap_or(u64::MAX)))
    }

    /// Its code.
    #[must_use]
    pub fn code(&self) -> FailureCode {
        self.0.failure.code
    }

    /// Its failure.
    #[must_use]
    pub fn failure(&self) -> &Failure {
        &self.0.failure
    }

    /// The trace id it was given, if any.
    #[must_use]
    pub fn trace(&self) -> Option<&str> {
        self.0.trace.as_deref()
    }

    /// The body, under a trace id.
    #[must_use]
    pub fn body(&self, trace_id: &str) -> ProblemBody {
        ProblemBody {
            kind: kind_of(self.0.failure.code),
            title: title_of(self.0.failure.code),
            status: self.0.status.as_u16(),
            detail: self.0.failure.detail.clone(),
            code: self.0.failure.code.as_str().into(),
            pointer: self.0.failure.pointer.clone(),
            job_id: self.0.job.map(|job| job.to_string()),
            limit: self.0.limit,
            trace_id: self.0.trace.clone().unwrap_or_else(|| trace_id.into()),
            fix: fix_of(self.0.failure.code).into(),
        }
    }

    /// The response, under a trace id.
    #[must_use]
    pub fn render(&self, trace_id: &str) -> Response {
        let body = serde_json::to_vec(&self.body(trace_id)).unwrap_or_default();
        let mut response = (self.0.status, [(header::CONTENT_TYPE, MEDIA_TYPE)], body).into_response();
        let headers = response.headers_mut();
        if self.0.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"forgepool\""));
        }
        if let Some(allow) = &self.0.allow {
            headers.insert(header::ALLOW, allow.clone());
        }
        headers.extend(self.0.more.iter().cloned());
        let passes = matches!(self.0.status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE);
        if passes && !headers.contains_key(header::RETRY_AFTER) {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

impl From<Failure> for Problem {
    fn from(failure: Failure) -> Self {
        Self::new(failure)
    }
}

impl From<crate::store::StoreError> for Problem {
    fn from(error: crate::store::StoreError) -> Self {
        tracing::error!(%error, "the store failed");
        Self::of(FailureCode::AggregationStorage, "the hub could not read or write its records")
    }
}

impl IntoResponse for Problem {
    /// Carries the problem outward; the trace layer renders it with the request's trace id.
    fn into_response(self) -> Response {
        let mut response = self.0.status.into_response();
        response.extensions_mut().insert(self);
        response
    }
}
