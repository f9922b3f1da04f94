//! Every route of the served document and what one tenant gets of another's: one line each.
//!
//! A new route needs a line here, else the matrix fails. Something that a route is about is made in [`Things::make`].

use forge_contract::Digest;
use forge_tests::api::Api;
use forge_tests::component::kernel;
use forge_tests::contract::insurance;
use forge_tests::npy::Matrix;
use forge_tests::pool::Pool;
use reqwest::Method;
use serde_json::{Value, json};

/// What belongs to the tenant whom the other must not see.
pub struct Things {
    pub organisation: String,
    pub project: String,
    pub job: String,
    pub blob: Digest,
    pub upload: Digest,
    /// Under `kv/mine/` and its own name, and as an array of that name.
    pub name: String,
    pub component: Digest,
    pub key: String,
    pub spare_key: String,
    pub member: String,
    pub agent: String,
}

impl Things {
    /// Makes one of each, with a key that may everything.
    pub async fn make(pool: &mut Pool, api: &Api, organisation: &str) -> Self {
        let contract = insurance(1000);
        let done = api.execute(&contract).await;
        assert_eq!(done.status, 200, "{}", done.text);
        let blob = api.put_blob(b"theirs".to_vec()).await.parse().unwrap();
        let upload = Digest::of(b"half of it");
        let path = format!("/api/v0/blobs/{upload}?bytes=10");
        let half = api.send(api.request(Method::PUT, &path).body(&b"half "[..])).await;
        assert_eq!(half.status, 202, "{}", half.text);
        let name = "theirs-alone".to_owned();
        let kept = api.send(api.request(Method::PUT, &format!("/api/v0/kv/mine/{name}")).body("value of theirs")).await;
        assert_eq!(kept.status, 201, "{}", kept.text);
        let array =
            api.request(Method::POST, &format!("/api/v0/vmem/{name}")).header("content-type", "application/x-npy");
        let kept = api.send(array.body(Matrix::<f64>::random(1, 2, 3).file())).await;
        assert_eq!(kept.status, 201, "{}", kept.text);
        let component = kernel(&format!("{organisation}/counter"), 1, "");
        let uploaded = api.upload(&component).await;
        assert_eq!(uploaded.status, 202, "{}", uploaded.text);
        api.decided(&format!("{organisation}/counter/1")).await;
        let token = api.token(&json!({})).await;
        let agent = pool.join_with(&token).await;
        assert!(pool.agents[agent].is_some());
        let agents = api.get("/api/v0/agents").await;
        let members = format!("/api/v0/organisations/{organisation}/members");
        let member =
            async |name: &str| api.made(&members, &json!({ "name": name, "role": "owner" })).await.at("/id").clone();
        let text = |value: Value| value.as_str().unwrap().to_owned();
        // An organisation keeps an owner: this one stays when the other leaves.
        member("bob").await;
        Self {
            organisation: organisation.into(),
            project: organisation.into(),
            job: done.job(),
            blob,
            upload,
            name,
            component: Digest::of(&component),
            key: api.new_key(&json!({ "scopes": ["read"] })).await.1,
            spare_key: api.new_key(&json!({ "scopes": ["read"] })).await.1,
            member: text(member("ada").await),
            agent: text(agents.at("/items/0/agent_id").clone()),
        }
    }

    /// Texts that must be in no answer to the other tenant.
    pub fn secrets(&self) -> Vec<String> {
        let digests = [self.blob, self.upload, self.component].map(|digest| digest.to_string());
        let ids = [&self.job, &self.key, &self.member, &self.agent].map(Clone::clone);
        let names = [format!("\"{}\"", self.organisation), format!("{}/counter", self.organisation), self.name.clone()];
        digests.into_iter().chain(ids).chain(names).collect()
    }
}

/// What the other tenant gets, with every scope there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sees {
    /// 404.
    Nothing,
    /// An answer that has nothing of the first tenant's in it.
    NoneOfIt,
    /// 403: it is for the operator.
    Operator,
    /// Anybody gets in without a key; this status.
    Open(u16),
}

/// A route.
pub struct Route {
    pub method: &'static str,
    /// As the document has it.
    pub template: &'static str,
    /// With the first tenant's things in it.
    pub path: String,
    /// Least scope: `compute`, `read`, `admin`, `provider`, `operator`; `any` key; `none`.
    pub scope: &'static str,
    pub sees: Sees,
    pub body: Body,
    /// Whether the first tenant's own request succeeds: shows that the path names something.
    pub own: bool,
}

/// What is sent.
pub enum Body {
    None,
    Json(Value),
    Bytes(&'static str, Vec<u8>),
}

fn route(method: &'static str, template: &'static str, scope: &'static str, sees: Sees) -> Route {
    Route { method, template, path: template.into(), scope, sees, body: Body::None, own: true }
}

/// A route about one thing, which is not there for others.
fn hidden(method: &'static str, template: &'static str, scope: &'static str) -> Route {
    route(method, template, scope, Sees::Nothing)
}

/// A route about whatever the caller has.
fn listing(method: &'static str, template: &'static str, scope: &'static str) -> Route {
    route(method, template, scope, Sees::NoneOfIt)
}

fn operator(method: &'static str, template: &'static str) -> Route {
    route(method, template, "operator", Sees::Operator).unowned()
}

fn open(method: &'static str, template: &'static str, status: u16) -> Route {
    route(method, template, "none", Sees::Open(status))
}

impl Route {
    fn at(self, path: impl Into<String>) -> Self {
        Self { path: path.into(), ..self }
    }

    /// Fills in the parameters of the path, in order.
    fn of(self, things: &[&str]) -> Self {
        let mut path = String::new();
        let mut things = things.iter();
        let mut rest = self.template;
        while let Some((before, after)) = rest.split_once('{') {
            path.push_str(before);
            path.push_str(things.next().expect("a thing for each parameter"));
            rest = after.split_once('}').unwrap().1;
        }
        path.push_str(rest);
        Self { path, ..self }
    }

    fn json(self, body: Value) -> Self {
        Self { body: Body::Json(body), ..self }
    }

    fn bytes(self, kind: &'static str, bytes: &[u8]) -> Self {
        Self { body: Body::Bytes(kind, bytes.to_vec()), ..self }
    }

    /// The first tenant's own request would do something that the test does not want, or cannot.
    fn unowned(self) -> Self {
        Self { own: false, ..self }
    }
}

/// Every route there is.
pub fn routes(t: &Things) -> Vec<Route> {
    let blob = t.blob.to_string();
    let other = Digest::of(b"mine");
    let execute = insurance(1000);
    let members = [t.organisation.as_str()];
    let namespace = [t.project.as_str(), "counter", "1"];
    vec![
        listing("GET", "/api/v0/audit", "read"),
        listing("GET", "/api/v0/audit/export", "read"),
        listing("GET", "/api/v0/audit/head", "any"),
        listing("POST", "/api/v0/ops/execute", "compute").json(execute.clone()),
        listing("POST", "/api/v0/ops/plan", "compute").json(execute),
        listing("GET", "/api/v0/jobs", "read"),
        hidden("GET", "/api/v0/jobs/{id}", "read").of(&[&t.job]),
        hidden("POST", "/api/v0/jobs/{id}/cancel", "compute").of(&[&t.job]),
        hidden("GET", "/api/v0/jobs/{id}/executions", "read").of(&[&t.job]),
        hidden("GET", "/api/v0/jobs/{id}/verification", "read").of(&[&t.job]),
        hidden("GET", "/api/v0/jobs/{id}/artifacts", "read").of(&[&t.job]),
        hidden("GET", "/api/v0/jobs/{id}/artifacts/{name}", "read").of(&[&t.job, "result_json"]),
        hidden("GET", "/api/v0/jobs/{id}/events", "read").of(&[&t.job]),
        hidden("GET", "/api/v0/jobs/{id}/evidence", "read").of(&[&t.job]),
        hidden("GET", "/api/v0/jobs/{id}/standing", "read").of(&[&t.job]),
        hidden("POST", "/api/v0/jobs/{id}/replay", "compute").of(&[&t.job]).json(json!({})),
        listing("GET", "/api/v0/kernels", "read"),
        listing("POST", "/api/v0/kernels", "compute")
            .at(format!("/api/v0/kernels?digest={other}&bytes=9"))
            .bytes("application/wasm", b"mine")
            .unowned(),
        listing("GET", "/api/v0/kernels/{name}/{version}", "read").of(&["mc", "1"]),
        hidden("GET", "/api/v0/kernels/{namespace}/{name}/{version}", "read").of(&namespace),
        hidden("PATCH", "/api/v0/kernels/{namespace}/{name}/{version}", "compute")
            .of(&namespace)
            .json(json!({ "state": "deprecated" })),
        hidden("GET", "/api/v0/components/{digest}", "read").of(&[&t.component.to_string()]),
        listing("GET", "/api/v0/agents", "provider"),
        listing("POST", "/api/v0/agents/tokens", "provider").json(json!({})),
        hidden("GET", "/api/v0/agents/{id}", "provider").of(&[&t.agent]),
        hidden("PUT", "/api/v0/agents/{id}/reservation", "provider")
            .of(&[&t.agent])
            .json(json!({ "reserved_for": null })),
        operator("POST", "/api/v0/agents/{id}/readmit").of(&[&t.agent]),
        operator("POST", "/api/v0/agents/{id}/remove").of(&[&t.agent]),
        operator("POST", "/api/v0/settlement"),
        listing("GET", "/api/v0/blobs", "read"),
        hidden("GET", "/api/v0/blobs/{digest}", "read").of(&[&blob]),
        hidden("HEAD", "/api/v0/blobs/{digest}", "read").of(&[&blob]),
        listing("PUT", "/api/v0/blobs/{digest}", "compute")
            .at(format!("/api/v0/blobs/{other}?bytes=4"))
            .bytes("application/octet-stream", b"mine"),
        hidden("DELETE", "/api/v0/blobs/{digest}", "compute").of(&[&blob]).unowned(),
        hidden("POST", "/api/v0/blobs/{digest}/urls", "read")
            .of(&[&blob])
            .json(json!({ "method": "GET", "seconds": 60 })),
        hidden("GET", "/api/v0/uploads/{digest}", "read").of(&[&t.upload.to_string()]),
        open("GET", "/api/v0/signed/{digest}", 403).of(&[&blob]),
        open("HEAD", "/api/v0/signed/{digest}", 403).of(&[&blob]),
        open("PUT", "/api/v0/signed/{digest}", 403).of(&[&blob]).bytes("application/octet-stream", b"theirs"),
        listing("GET", "/api/v0/kv", "read"),
        listing("GET", "/api/v0/kv/{namespace}", "read").of(&["mine"]),
        hidden("GET", "/api/v0/kv/{namespace}/{key}", "read").of(&["mine", &t.name]),
        hidden("HEAD", "/api/v0/kv/{namespace}/{key}", "read").of(&["mine", &t.name]),
        listing("PUT", "/api/v0/kv/{namespace}/{key}", "compute").of(&["mine", "other"]).bytes("text/plain", b"mine"),
        hidden("DELETE", "/api/v0/kv/{namespace}/{key}", "compute").of(&["mine", &t.name]),
        listing("GET", "/api/v0/vmem", "read"),
        listing("POST", "/api/v0/vmem/{name}", "compute")
            .of(&["other"])
            .bytes("application/x-npy", &Matrix::<f64>::random(2, 2, 3).file()),
        hidden("GET", "/api/v0/vmem/{name}", "read").of(&[&t.name]),
        hidden("HEAD", "/api/v0/vmem/{name}", "read").of(&[&t.name]),
        hidden("GET", "/api/v0/vmem/{name}/{version}", "read").of(&[&t.name, "1"]),
        hidden("HEAD", "/api/v0/vmem/{name}/{version}", "read").of(&[&t.name, "1"]),
        hidden("GET", "/api/v0/vmem/{name}/versions", "read").of(&[&t.name]),
        hidden("DELETE", "/api/v0/vmem/{name}/{version}", "compute").of(&[&t.name, "1"]),
        operator("POST", "/api/v0/garbage"),
        listing("GET", "/api/v0/organisations", "read"),
        operator("POST", "/api/v0/organisations").json(json!({ "id": "eastwind" })),
        hidden("GET", "/api/v0/organisations/{organisation}", "read").of(&members),
        hidden("PATCH", "/api/v0/organisations/{organisation}", "admin")
            .of(&members)
            .json(json!({ "name": "Northwind" })),
        hidden("GET", "/api/v0/organisations/{organisation}/members", "admin").of(&members),
        hidden("POST", "/api/v0/organisations/{organisation}/members", "admin")
            .of(&members)
            .json(json!({ "name": "eve", "role": "viewer" })),
        hidden("GET", "/api/v0/organisations/{organisation}/members/{member}", "admin")
            .of(&[&t.organisation, &t.member]),
        hidden("PATCH", "/api/v0/organisations/{organisation}/members/{member}", "admin")
            .of(&[&t.organisation, &t.member])
            .json(json!({ "role": "admin" })),
        hidden("DELETE", "/api/v0/organisations/{organisation}/members/{member}", "admin")
            .of(&[&t.organisation, &t.member]),
        listing("GET", "/api/v0/projects", "read"),
        // An organisation that is not the caller's is not there.
        hidden("POST", "/api/v0/projects", "admin")
            .json(json!({ "id": "northwind-2", "organisation": t.organisation })),
        hidden("GET", "/api/v0/projects/{project}", "read").of(&[&t.project]),
        hidden("PATCH", "/api/v0/projects/{project}", "admin").of(&[&t.project]).json(json!({ "name": "Northwind" })),
        listing("GET", "/api/v0/usage", "read"),
        listing("GET", "/api/v0/ledger", "read"),
        listing("GET", "/api/v0/ledger/chain", "read"),
        operator("GET", "/api/v0/ledger/balances"),
        listing("GET", "/api/v0/payouts", "provider"),
        operator("POST", "/api/v0/payouts").json(json!({
            "agent_id": t.agent, "credits_micro": 1, "reference": "transfer 1"
        })),
        operator("POST", "/api/v0/projects/{project}/credits")
            .of(&[&t.project])
            .json(json!({ "credits_micro": 1, "reference": "invoice 1" })),
        hidden("GET", "/api/v0/projects/{project}/budget", "read").of(&[&t.project]),
        operator("PUT", "/api/v0/projects/{project}/budget").of(&[&t.project]).json(json!({ "budget_micro": null })),
        listing("GET", "/api/v0/keys", "admin"),
        hidden("POST", "/api/v0/keys", "admin").json(json!({ "scopes": ["read"], "project": t.project })),
        listing("GET", "/api/v0/keys/current", "any"),
        hidden("GET", "/api/v0/keys/{key}", "admin").of(&[&t.key]),
        hidden("POST", "/api/v0/keys/{key}/rotate", "admin").of(&[&t.key]).json(json!({})),
        hidden("DELETE", "/api/v0/keys/{key}", "admin").of(&[&t.spare_key]),
        open("GET", "/", 200),
        open("GET", "/api/v0/openapi.json", 200),
        open("GET", "/healthz", 200),
        open("GET", "/readyz", 200),
        open("GET", "/metrics", 200),
    ]
}
