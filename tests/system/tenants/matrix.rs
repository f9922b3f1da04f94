//! Two tenants, every route.

use std::collections::{BTreeMap, BTreeSet};

use forge_tests::api::{Answer, Api};
use forge_tests::pool::Pool;
use serde_json::{Value, json};

use super::routes::{Body, Route, Sees, Things, routes};

const METHODS: [&str; 6] = ["GET", "PUT", "POST", "DELETE", "HEAD", "PATCH"];

/// What the document says: `METHOD path`, and whether a key is needed.
fn described(document: &Value) -> BTreeMap<String, bool> {
    let mut found = BTreeMap::new();
    for (path, item) in document["paths"].as_object().expect("paths") {
        for (method, operation) in item.as_object().unwrap() {
            let method = method.to_uppercase();
            if METHODS.contains(&method.as_str()) {
                found.insert(format!("{method} {path}"), operation["security"].is_array());
            }
        }
    }
    found
}

async fn send(api: &Api, route: &Route, key: Option<&str>) -> Answer {
    let method = route.method.parse().unwrap();
    let keyed = key.map(|key| api.with_key(key));
    let request = match &keyed {
        Some(api) => api.request(method, &route.path),
        None => forge_tests::api::http().request(method, format!("{}{}", api.url, route.path)),
    };
    let request = match &route.body {
        Body::None => request,
        Body::Json(body) => request.header("content-type", "application/json").body(body.to_string()),
        Body::Bytes(kind, bytes) => request.header("content-type", *kind).body(bytes.clone()),
    };
    api.send(request).await
}

/// Scopes that are everything but enough.
fn too_little(scope: &str) -> Option<Value> {
    Some(match scope {
        "read" => json!(["provider"]),
        "compute" => json!(["read", "provider", "admin"]),
        "admin" => json!(["compute", "read", "provider"]),
        "provider" => json!(["compute", "read", "admin"]),
        "operator" => json!(["compute", "read", "provider", "admin"]),
        "any" | "none" => return None,
        other => panic!("{other} is no scope"),
    })
}

fn refused(route: &Route, who: &str, answer: &Answer, status: u16, code: &str) {
    let place = format!("{} {} by {who}: {} {}", route.method, route.path, answer.status, answer.text);
    assert_eq!(answer.status.as_u16(), status, "{place}");
    // An answer to HEAD has no body.
    if route.method != "HEAD" {
        assert_eq!(answer.at("/code"), code, "{place}");
        assert!(answer.at("/trace_id").is_string(), "{place}");
    }
}

#[tokio::test]
async fn no_route_shows_one_tenant_what_is_anothers() {
    let mut pool = Pool::start(2).await;
    let operator = pool.api.clone();
    let everything = json!({ "scopes": ["compute", "read", "admin", "provider"] });
    let first = operator.organisation("northwind").await;
    let first = first.with_key(&first.new_key(&everything).await.0);
    let second = operator.organisation("southwind").await;
    let second = second.with_key(&second.new_key(&everything).await.0);
    let things = Things::make(&mut pool, &first, "northwind").await;
    let (revoked, id) = second.new_key(&everything).await;
    let gone = second.send(second.request(reqwest::Method::DELETE, &format!("/api/v0/keys/{id}"))).await;
    assert_eq!(gone.status, 200, "{}", gone.text);
    let mut weak = BTreeMap::new();
    for scope in ["read", "compute", "admin", "provider", "operator"] {
        let wish = json!({ "scopes": too_little(scope).unwrap() });
        weak.insert(scope, first.new_key(&wish).await.0);
    }

    let document = operator.get("/api/v0/openapi.json").await.body;
    let all = routes(&things);
    let described = described(&document);
    let listed: BTreeSet<String> = all.iter().map(|route| format!("{} {}", route.method, route.template)).collect();
    assert_eq!(listed.len(), all.len(), "a route has two lines");
    let missing: Vec<&String> = described.keys().filter(|route| !listed.contains(*route)).collect();
    assert!(missing.is_empty(), "add a line to tests/system/tenants/routes.rs for {missing:?}");
    let unknown: Vec<&String> = listed.iter().filter(|route| !described.contains_key(*route)).collect();
    assert!(unknown.is_empty(), "there is no such route: {unknown:?}");

    let secrets = things.secrets();
    for route in &all {
        let name = format!("{} {}", route.method, route.template);
        let keyed = described[&name];
        assert_eq!(keyed, route.scope != "none", "{name}: the document says another thing about keys");
        let bare = send(&operator, route, None).await;
        if let Sees::Open(status) = route.sees {
            assert_eq!(bare.status.as_u16(), status, "{name}: {}", bare.text);
            continue;
        }
        refused(route, "nobody", &bare, 401, "request.unauthenticated");
        let late = send(&operator, route, Some(&revoked)).await;
        refused(route, "a revoked key", &late, 401, "request.unauthenticated");
        let stranger = send(&operator, route, Some("fpk_no-such-key-0123456789")).await;
        refused(route, "an unknown key", &stranger, 401, "request.unauthenticated");
        if let Some(key) = weak.get(route.scope) {
            let weak = send(&operator, route, Some(key)).await;
            refused(route, "a key of too little scope", &weak, 403, "request.forbidden");
        }
        let other = send(&operator, route, Some(&second.key)).await;
        match route.sees {
            Sees::Nothing => refused(route, "another tenant", &other, 404, "request.not_found"),
            Sees::Operator => refused(route, "another tenant", &other, 403, "request.forbidden"),
            Sees::NoneOfIt => {
                assert!(![401, 403].contains(&other.status.as_u16()), "{name}: {} {}", other.status, other.text);
                for secret in &secrets {
                    assert!(!other.text.contains(secret.as_str()), "{name} tells {secret}: {}", other.text);
                }
            }
            Sees::Open(_) => unreachable!(),
        }
    }
    // The same requests do something for whose things they are about: the refusals above were about the tenant.
    for route in all.iter().filter(|route| route.own && route.scope != "none") {
        let own = send(&operator, route, Some(&first.key)).await;
        assert!(own.status.is_success(), "{} {}: {} {}", route.method, route.path, own.status, own.text);
    }
    pool.stop().await;
}
