//! The hub's HTTP interface, as a client sees it.

use std::time::Duration;

use futures_util::StreamExt as _;
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde_json::Value;

use crate::sse::{Event, Parser};
use crate::target::Target;
use crate::trust;

/// How often a broken event stream is opened again before the job's state alone is asked for.
const STREAM_ATTEMPTS_MAX: u32 = 5;
/// Pause before an event stream is opened again, ms.
const STREAM_PAUSE_MS: u64 = 200;
/// Bytes of an upload handed to the connection at once.
const UPLOAD_PIECE_BYTES: usize = 64 << 10;

/// What a request to the hub came to, if not to an answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No connection, or it broke.
    #[error("cannot reach the hub at {url}: {}", root_cause(cause))]
    Unreachable {
        /// Where the hub was looked for.
        url: String,
        /// What the connection said.
        cause: reqwest::Error,
    },
    /// The certificates to trust cannot be used.
    #[error(transparent)]
    Trust(#[from] trust::TrustError),
    /// The hub said no, and why.
    #[error("{0}")]
    Refused(Box<Problem>),
    /// The answer is not what this version of the program understands.
    #[error("the hub at {url} answered {status} with something that is not its interface: {body}")]
    Unexpected {
        /// Where the hub was looked for.
        url: String,
        /// HTTP status.
        status: u16,
        /// The start of the body.
        body: String,
    },
}

fn root_cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}

/// The hub's refusal (RFC 9457).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// HTTP status.
    pub status: u16,
    /// Stable failure code.
    pub code: String,
    /// One sentence: what was wrong, the rule, the fix.
    pub detail: String,
    /// JSON pointer into the contract, where one place is to blame.
    pub pointer: Option<String>,
    /// The job, where one was recorded.
    pub job_id: Option<String>,
    /// The trace.
    pub trace_id: Option<String>,
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", self.detail, self.code)?;
        if let Some(pointer) = &self.pointer {
            write!(f, "\n  at    {pointer}")?;
        }
        if let Some(job) = &self.job_id {
            write!(f, "\n  job   {job}")?;
        }
        if let Some(trace) = &self.trace_id {
            write!(f, "\n  trace {trace}")?;
        }
        Ok(())
    }
}

impl Problem {
    fn read(status: u16, body: &Value) -> Option<Self> {
        let text = |name: &str| body.get(name).and_then(Value::as_str).map(str::to_owned);
        Some(Self {
            status,
            code: text("code")?,
            detail: text("detail").or_else(|| text("title")).unwrap_or_default(),
            pointer: text("pointer"),
            job_id: text("job_id"),
            trace_id: text("trace_id"),
        })
    }
}

/// A connection to one hub with one key.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    target: Target,
}

impl Client {
    /// A client of `target`. Opens nothing yet.
    ///
    /// # Errors
    /// [`ClientError::Unreachable`] when the HTTP machinery itself cannot start, [`ClientError::Trust`].
    pub fn new(target: Target) -> Result<Self, ClientError> {
        let http = reqwest::Client::builder()
            .connect_timeout(Duration::from_secs(5))
            .user_agent(concat!("forgepool/", env!("CARGO_PKG_VERSION")));
        let http = match trust::config(&target)? {
            Some(config) => http.tls_backend_preconfigured(config),
            None => http,
        };
        let http = http.build().map_err(|cause| ClientError::Unreachable { url: target.url.clone(), cause })?;
        Ok(Self { http, target })
    }

    /// Submits a contract and returns at once with the job's identifier.
    ///
    /// # Errors
    /// [`ClientError::Refused`] with the hub's reason, or a broken connection.
    pub async fn submit(&self, contract: &str) -> Result<String, ClientError> {
        let request = self
            .request(Method::POST, "/api/v0/ops/execute")
            .header("content-type", "application/json")
            .header("prefer", "respond-async")
            .body(contract.to_owned());
        let (status, answer) = self.answer(request).await?;
        match answer.get("job_id").and_then(Value::as_str) {
            Some(job) => Ok(job.to_owned()),
            None => Err(self.unexpected(status, &answer.to_string())),
        }
    }

    /// The plan and quote of a contract; nothing runs.
    ///
    /// # Errors
    /// As [`Self::submit`].
    pub async fn plan(&self, contract: &str) -> Result<Value, ClientError> {
        let request = self
            .request(Method::POST, "/api/v0/ops/plan")
            .header("content-type", "application/json")
            .body(contract.to_owned());
        Ok(self.answer(request).await?.1)
    }

    /// `GET` of a path below the hub's URL, as JSON.
    ///
    /// # Errors
    /// As [`Self::submit`].
    pub async fn read(&self, path: &str) -> Result<Value, ClientError> {
        Ok(self.answer(self.request(Method::GET, path)).await?.1)
    }

    /// Whether there is something at a path; asks without fetching it.
    ///
    /// # Errors
    /// As [`Self::submit`], but for 404.
    pub async fn exists(&self, path: &str) -> Result<bool, ClientError> {
        let response = self.send(self.request(Method::HEAD, path)).await?;
        match response.status() {
            StatusCode::NOT_FOUND => Ok(false),
            status if status.is_success() => Ok(true),
            // A HEAD has no body that says why.
            _ => self.read(path).await.map(|_| true),
        }
    }

    /// `GET` of a path below the hub's URL, its body as it comes.
    ///
    /// # Errors
    /// As [`Self::submit`]; each piece as a broken connection.
    pub async fn open(
        &self,
        path: &str,
    ) -> Result<impl futures_util::Stream<Item = Result<bytes::Bytes, ClientError>> + Unpin, ClientError> {
        let response = self.refuse_errors(self.send(self.request(Method::GET, path)).await?).await?;
        let client = self.clone();
        Ok(Box::pin(response.bytes_stream().map(move |piece| piece.map_err(|source| client.unreachable(source)))))
    }

    /// Asks for a job to be repeated and returns at once with the new job's identifier.
    ///
    /// # Errors
    /// As [`Self::submit`].
    pub async fn replay(&self, job: &str) -> Result<String, ClientError> {
        let request =
            self.request(Method::POST, &format!("/api/v0/jobs/{job}/replay")).header("prefer", "respond-async");
        let (status, answer) = self.answer(request).await?;
        match answer.get("job_id").and_then(Value::as_str) {
            Some(job) => Ok(job.to_owned()),
            None => Err(self.unexpected(status, &answer.to_string())),
        }
    }

    /// `POST` of bytes, streamed; an answer that comes before all is sent counts.
    ///
    /// # Errors
    /// As [`Self::submit`].
    pub async fn upload(&self, path: &str, media_type: &str, bytes: bytes::Bytes) -> Result<Value, ClientError> {
        let length = bytes.len();
        let pieces = (0..length)
            .step_by(UPLOAD_PIECE_BYTES)
            .map(move |at| Ok::<_, std::convert::Infallible>(bytes.slice(at..length.min(at + UPLOAD_PIECE_BYTES))));
        let body = reqwest::Body::wrap_stream(futures_util::stream::iter(pieces));
        let request = self.request(Method::POST, path).header("content-type", media_type).body(body);
        Ok(self.answer(request).await?.1)
    }

    /// `PATCH` of a path below the hub's URL with JSON.
    ///
    /// # Errors
    /// As [`Self::submit`].
    pub async fn change(&self, path: &str, value: &Value) -> Result<Value, ClientError> {
        let request = self.request(Method::PATCH, path).header("content-type", "application/json");
        Ok(self.answer(request.body(value.to_string())).await?.1)
    }

    /// `GET` of content, handed over as it comes; what `take` answers to a piece it could not take, is the inner result.
    ///
    /// # Errors
    /// As [`Self::submit`].
    pub async fn fetch(
        &self,
        path: &str,
        mut take: impl FnMut(&[u8]) -> std::io::Result<()>,
    ) -> Result<std::io::Result<()>, ClientError> {
        let response = self.refuse_errors(self.send(self.request(Method::GET, path)).await?).await?;
        let mut body = response.bytes_stream();
        while let Some(piece) = body.next().await {
            let piece = piece.map_err(|cause| self.unreachable(cause))?;
            if let Err(error) = take(&piece) {
                return Ok(Err(error));
            }
        }
        Ok(Ok(()))
    }

    /// A job's whole state.
    ///
    /// # Errors
    /// As [`Self::submit`]; `request.not_found` for a job that is not this project's.
    pub async fn job(&self, job: &str) -> Result<Value, ClientError> {
        self.read(&format!("/api/v0/jobs/{job}")).await
    }

    /// Asks for a job to be cancelled; returns its state.
    ///
    /// # Errors
    /// As [`Self::job`].
    pub async fn cancel(&self, job: &str) -> Result<Value, ClientError> {
        let request = self.request(Method::POST, &format!("/api/v0/jobs/{job}/cancel"));
        Ok(self.answer(request).await?.1)
    }

    /// Follows a job to its end, handing over every event, and returns its last state.
    ///
    /// A broken stream is opened again where it broke (`Last-Event-ID`); the job goes on regardless.
    ///
    /// # Errors
    /// As [`Self::job`].
    pub async fn follow(&self, job: &str, on_event: &mut dyn FnMut(&Event)) -> Result<Value, ClientError> {
        let mut last_id: Option<String> = None;
        let mut attempts = 0;
        loop {
            let streamed = self.stream(job, &mut last_id, on_event).await;
            match self.job(job).await {
                Ok(state) if is_final(&state) => return Ok(state),
                Ok(_) if attempts < STREAM_ATTEMPTS_MAX => attempts += 1,
                Ok(state) => return streamed.map(|()| state),
                Err(ClientError::Unreachable { .. }) if attempts < STREAM_ATTEMPTS_MAX => attempts += 1,
                Err(error) => return Err(error),
            }
            tokio::time::sleep(Duration::from_millis(STREAM_PAUSE_MS << attempts.min(4))).await;
        }
    }

    async fn stream(
        &self,
        job: &str,
        last_id: &mut Option<String>,
        on_event: &mut dyn FnMut(&Event),
    ) -> Result<(), ClientError> {
        let mut request =
            self.request(Method::GET, &format!("/api/v0/jobs/{job}/events")).header("accept", "text/event-stream");
        if let Some(id) = last_id.as_deref() {
            request = request.header("last-event-id", id);
        }
        let response = self.send(request).await?;
        let response = self.refuse_errors(response).await?;
        let mut body = response.bytes_stream();
        let mut parser = Parser::default();
        while let Some(chunk) = body.next().await {
            let chunk = chunk.map_err(|source| self.unreachable(source))?;
            for event in parser.push(&chunk) {
                if event.id.is_some() {
                    last_id.clone_from(&event.id);
                }
                on_event(&event);
            }
        }
        Ok(())
    }

    /// A request to the hub, with the key.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.target.url));
        match &self.target.key {
            Some(key) => request.bearer_auth(key),
            None => request,
        }
    }

    /// Sends a request; any answer is good.
    ///
    /// # Errors
    /// A broken connection.
    pub async fn send(&self, request: RequestBuilder) -> Result<Response, ClientError> {
        request.send().await.map_err(|source| self.unreachable(source))
    }

    /// Sends a request whose answer is JSON.
    ///
    /// # Errors
    /// As [`Self::submit`].
    pub async fn answer(&self, request: RequestBuilder) -> Result<(StatusCode, Value), ClientError> {
        let response = self.refuse_errors(self.send(request).await?).await?;
        let status = response.status();
        let body = response.bytes().await.map_err(|source| self.unreachable(source))?;
        match serde_json::from_slice(&body) {
            Ok(value) => Ok((status, value)),
            Err(_) => Err(self.unexpected(status, &String::from_utf8_lossy(&body))),
        }
    }

    /// Sends JSON; gives the answer, which is JSON too.
    ///
    /// # Errors
    /// As [`Self::submit`].
    pub async fn send_json(&self, method: Method, path: &str, body: &Value) -> Result<Value, ClientError> {
        let request = self.request(method, path).header("content-type", "application/json").body(body.to_string());
        Ok(self.answer(request).await?.1)
    }

    /// The hub's refusal as an error.
    ///
    /// # Errors
    /// As [`Self::submit`].
    pub async fn refuse_errors(&self, response: Response) -> Result<Response, ClientError> {
        let status = response.status();
        if !status.is_client_error() && !status.is_server_error() {
            return Ok(response);
        }
        let body = response.bytes().await.map_err(|source| self.unreachable(source))?;
        let problem = serde_json::from_slice(&body).ok().and_then(|body| Problem::read(status.as_u16(), &body));
        Err(match problem {
            Some(problem) => ClientError::Refused(Box::new(problem)),
            None => self.unexpected(status, &String::from_utf8_lossy(&body)),
        })
    }

    /// A broken connection as an error.
    pub fn unreachable(&self, cause: reqwest::Error) -> ClientError {
        ClientError::Unreachable { url: self.target.url.clone(), cause }
    }

    fn unexpected(&self, status: StatusCode, body: &str) -> ClientError {
        let body = body.chars().take(200).collect();
        ClientError::Unexpected { url: self.target.url.clone(), status: status.as_u16(), body }
    }
}

/// Whether a job's state is its last.
#[must_use]
pub fn is_final(state: &Value) -> bool {
    matches!(status(state), "COMPLETED" | "FAILED" | "CANCELLED")
}

/// A job's status: `QUEUED`, `RUNNING`, ..., `COMPLETED`, `FAILED`, `CANCELLED`.
#[must_use]
pub fn status(state: &Value) -> &str {
    state.get("status").and_then(Value::as_str).unwrap_or("UNKNOWN")
}
