//! The hub's HTTP interface as tests use it: answers with their status, and event streams.

use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::Value;

use crate::within;

/// An answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// HTTP status.
    pub status: StatusCode,
    /// Header fields.
    pub headers: reqwest::header::HeaderMap,
    /// Body; `Null` where it is not JSON.
    pub body: Value,
    /// Body as text.
    pub text: String,
}

impl Answer {
    /// The value at a JSON pointer; `Null` where nothing is.
    #[must_use]
    pub fn at(&self, pointer: &str) -> &Value {
        self.body.pointer(pointer).unwrap_or(&Value::Null)
    }

    /// The job's identifier.
    ///
    /// # Panics
    /// The answer names none.
    #[must_use]
    pub fn job(&self) -> String {
        self.at("/job_id").as_str().unwrap_or_else(|| panic!("no job in {} {}", self.status, self.text)).to_owned()
    }
}

/// A client for plain HTTP that asks nothing of this machine's certificates.
///
/// # Panics
/// It cannot be made.
#[must_use]
pub fn http() -> reqwest::Client {
    trusting(rustls::RootCertStore::empty())
}

/// A client that trusts these certificates and no others.
///
/// # Panics
/// It cannot be made.
#[must_use]
pub fn trusting(roots: rustls::RootCertStore) -> reqwest::Client {
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let mut config = builder.expect("the provider knows TLS").with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    reqwest::Client::builder().tls_backend_preconfigured(config).build().expect("a client can be made")
}

/// A hub and a key.
#[derive(Debug, Clone)]
pub struct Api {
    /// `http://127.0.0.1:PORT`.
    pub url: String,
    /// The key sent with each request.
    pub key: String,
    http: reqwest::Client,
}

impl Api {
    /// Opens nothing yet.
    #[must_use]
    pub fn new(url: String, key: String) -> Self {
        Self { url, key, http: http() }
    }

    /// A request that carries the key.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}{path}", self.url)).bearer_auth(&self.key)
    }

    /// Sends a request.
    ///
    /// # Panics
    /// The connection broke or nothing came.
    pub async fn send(&self, request: RequestBuilder) -> Answer {
        self.try_send(request).await.unwrap_or_else(|error| panic!("the hub did not answer: {error:?}"))
    }

    /// Sends a request that may meet a hub that has just been killed.
    ///
    /// # Errors
    /// The connection broke.
    pub async fn try_send(&self, request: RequestBuilder) -> reqwest::Result<Answer> {
        within("answer of the hub", async {
            let response = request.send().await?;
            let (status, headers) = (response.status(), response.headers().clone());
            let text = response.text().await?;
            let body = serde_json::from_str(&text).unwrap_or(Value::Null);
            Ok(Answer { status, headers, body, text })
        })
        .await
    }

    /// `POST /api/v0/ops/execute` with these bytes, waiting for the result.
    pub async fn execute_text(&self, body: impl Into<reqwest::Body>) -> Answer {
        let request = self.request(Method::POST, "/api/v0/ops/execute").header("content-type", "application/json");
        self.send(request.body(body)).await
    }

    /// `POST /api/v0/ops/execute`, waiting for the result.
    pub async fn execute(&self, contract: &Value) -> Answer {
        self.execute_text(contract.to_string()).await
    }

    /// `POST /api/v0/ops/execute`, returning the job's identifier at once.
    ///
    /// # Panics
    /// The hub does not accept the contract.
    pub async fn submit(&self, contract: &Value) -> String {
        let request = self.request(Method::POST, "/api/v0/ops/execute").header("content-type", "application/json");
        let answer = self.send(request.header("prefer", "respond-async").body(contract.to_string())).await;
        assert_eq!(answer.status, StatusCode::ACCEPTED, "{}", answer.text);
        answer.job()
    }

    /// `GET`.
    pub async fn get(&self, path: &str) -> Answer {
        self.send(self.request(Method::GET, path)).await
    }

    /// The same hub by another key.
    #[must_use]
    pub fn with_key(&self, key: &str) -> Self {
        Self { key: key.to_owned(), ..self.clone() }
    }

    /// A request with JSON.
    pub async fn json(&self, method: Method, path: &str, body: &Value) -> Answer {
        self.send(self.request(method, path).header("content-type", "application/json").body(body.to_string())).await
    }

    /// `POST` of JSON that makes something.
    ///
    /// # Panics
    /// The hub does not make it.
    pub async fn made(&self, path: &str, body: &Value) -> Answer {
        let answer = self.json(Method::POST, path, body).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{path}: {}", answer.text);
        answer
    }

    /// `PATCH` of JSON.
    ///
    /// # Panics
    /// The hub does not take it.
    pub async fn patched(&self, path: &str, body: &Value) -> Answer {
        let answer = self.json(Method::PATCH, path, body).await;
        assert_eq!(answer.status, StatusCode::OK, "{path}: {}", answer.text);
        answer
    }

    /// Makes an organisation, for the operator; the hub by its first key, with `compute` and `admin`.
    ///
    /// # Panics
    /// The hub makes none.
    pub async fn organisation(&self, id: &str) -> Self {
        let made = self.made("/api/v0/organisations", &serde_json::json!({ "id": id })).await;
        self.with_key(made.at("/key/key").as_str().expect("the key is shown"))
    }

    /// Makes a key as wished; gives its text and its id.
    ///
    /// # Panics
    /// The hub makes none.
    pub async fn new_key(&self, wish: &Value) -> (String, String) {
        let made = self.made("/api/v0/keys", wish).await;
        let text = |name: &str| made.at(name).as_str().expect("a key has a text and an id").to_owned();
        (text("/key"), text("/id"))
    }

    /// `POST /api/v0/kernels` with a whole component.
    pub async fn upload(&self, component: &[u8]) -> Answer {
        let path = upload_path(&forge_contract::Digest::of(component), component.len(), 0);
        self.send(self.request(Method::POST, &path).header("content-type", "application/wasm").body(component.to_vec()))
            .await
    }

    /// Waits until a kernel of a project, `NAMESPACE/NAME/VERSION`, is no longer pending.
    ///
    /// # Panics
    /// It stays pending.
    pub async fn decided(&self, kernel: &str) -> Value {
        let path = format!("/api/v0/kernels/{kernel}");
        crate::until(&format!("decision on {kernel}"), || async {
            let answer = self.get(&path).await;
            (answer.at("/state") != "pending").then_some(answer.body)
        })
        .await
    }

    /// `PUT` of a blob; gives its digest.
    ///
    /// # Panics
    /// The hub does not take it.
    pub async fn put_blob(&self, bytes: Vec<u8>) -> String {
        let digest = forge_contract::Digest::of(&bytes).to_string();
        let path = format!("/api/v0/blobs/{digest}?bytes={}", bytes.len());
        let answer = self.send(self.request(Method::PUT, &path).body(bytes)).await;
        assert!(answer.status.is_success(), "{} {}", answer.status, answer.text);
        digest
    }

    /// The bytes that `GET` gives.
    ///
    /// # Panics
    /// The hub refuses or the connection breaks.
    pub async fn content(&self, path: &str) -> Vec<u8> {
        let response = within("content", self.request(Method::GET, path).send()).await.expect("the hub answers");
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        within("content", response.bytes()).await.expect("the content comes whole").to_vec()
    }

    /// An enrolment token as wished: `verifier`, `provider`.
    ///
    /// # Panics
    /// The hub makes none.
    pub async fn token(&self, wish: &Value) -> String {
        let request = self.request(Method::POST, "/api/v0/agents/tokens").header("content-type", "application/json");
        let made = self.send(request.body(wish.to_string())).await;
        made.at("/token").as_str().unwrap_or_else(|| panic!("no token in {}", made.text)).to_owned()
    }

    /// `POST /api/v0/jobs/{job}/cancel`.
    pub async fn cancel(&self, job: &str) -> Answer {
        self.send(self.request(Method::POST, &format!("/api/v0/jobs/{job}/cancel"))).await
    }

    /// Opens a job's events.
    ///
    /// # Panics
    /// The hub refuses.
    pub async fn events(&self, job: &str) -> Events {
        let response = self.request(Method::GET, &format!("/api/v0/jobs/{job}/events")).send();
        let response = within("event stream", response).await.expect("the hub answers");
        assert_eq!(response.status(), StatusCode::OK);
        Events { response, pending: String::new() }
    }

    /// Follows a job to its end and returns its last state.
    ///
    /// # Panics
    /// The job does not end.
    pub async fn finished(&self, job: &str) -> Value {
        let mut events = self.events(job).await;
        while events.next().await.is_some() {}
        let answer = self.get(&format!("/api/v0/jobs/{job}")).await;
        assert!(is_final(&answer.body), "the stream ended before the job did: {}", answer.text);
        answer.body
    }
}

/// Where a component is uploaded to.
#[must_use]
pub fn upload_path(digest: &forge_contract::Digest, bytes: usize, offset: usize) -> String {
    format!("/api/v0/kernels?digest={digest}&bytes={bytes}&offset={offset}")
}

/// Whether a job's state is its last.
#[must_use]
pub fn is_final(state: &Value) -> bool {
    matches!(state.get("status").and_then(Value::as_str), Some("COMPLETED" | "FAILED" | "CANCELLED"))
}

/// A job's event stream.
#[derive(Debug)]
pub struct Events {
    response: reqwest::Response,
    pending: String,
}

/// One event.
#[derive(Debug, Clone, Default)]
pub struct Event {
    /// Where a broken stream goes on from.
    pub id: Option<String>,
    /// Its name.
    pub name: String,
    /// Its data; `Null` where it is not JSON.
    pub data: Value,
}

impl Events {
    /// The next event; `None` at the stream's end, however it ended.
    ///
    /// # Panics
    /// Neither comes.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            while let Some(end) = self.pending.find("\n\n") {
                let block: String = self.pending.drain(..end + 2).collect();
                if let Some(event) = read(&block) {
                    return Some(event);
                }
            }
            let chunk = within("event", self.response.chunk()).await.ok().flatten()?;
            self.pending.push_str(&String::from_utf8_lossy(&chunk).replace('\r', ""));
        }
    }

    /// The first event from here on for which `wanted` holds.
    ///
    /// # Panics
    /// The stream ends before.
    pub async fn find(&mut self, what: &str, wanted: impl Fn(&Event) -> bool) -> Event {
        loop {
            let event = self.next().await.unwrap_or_else(|| panic!("the events ended without {what}"));
            if wanted(&event) {
                return event;
            }
        }
    }
}

fn read(block: &str) -> Option<Event> {
    let mut event = Event::default();
    let mut data = Vec::new();
    for line in block.lines() {
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.trim_start();
        match field {
            "id" => event.id = Some(value.to_owned()),
            "event" => value.clone_into(&mut event.name),
            "data" => data.push(value),
            _ => {}
        }
    }
    event.data = serde_json::from_str(&data.join("\n")).unwrap_or(Value::Null);
    (!data.is_empty()).then_some(event)
}
