//! `forgepool org`, `project` and `key` against a running pool.

use forge_tests::pool::Pool;
use serde_json::{Value, json};

use crate::command::{forge, text};

async fn done(pool: &Pool, args: &[&str]) -> String {
    let output = forge(pool, args).await;
    assert!(output.status.success(), "{args:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

async fn told(pool: &Pool, args: &[&str]) -> Value {
    let shown = done(pool, args).await;
    serde_json::from_str(&shown).unwrap_or_else(|error| panic!("{args:?} printed {shown}: {error}"))
}

#[tokio::test]
async fn a_company_is_set_up_from_the_command_line() {
    let mut pool = Pool::start(0).await;
    let first = done(&pool, &["org", "create", "acme", "--name", "Acme Ltd", "--concurrent-jobs", "50"]).await;
    let key = first.trim();
    assert!(key.starts_with("fpk_") && !key.contains(char::is_whitespace), "only the key: {first}");
    assert!(done(&pool, &["org", "list"]).await.contains("Acme Ltd"));
    assert!(done(&pool, &["org", "show", "acme"]).await.contains("concurrent_jobs"));
    // From here on as the organisation's own admin.
    let operator = pool.api.key.clone();
    pool.api.key = key.to_owned();
    let who = done(&pool, &["key", "show"]).await;
    assert!(who.contains("acme") && who.contains("compute admin") && !who.contains("operator"), "{who}");
    let made = ["project", "create", "nightly", "--iterations-per-job", "1_000_000", "--region", "eu"];
    let shown = done(&pool, &made).await;
    assert!(shown.contains("1,000,000") && shown.contains("region=eu"), "{shown}");
    let limits = told(
        &pool,
        &["project", "limits", "nightly", "--iterations-per-job", "none", "--verify-min", "quorum", "--json"],
    )
    .await;
    assert_eq!(limits["limits"], json!({ "verify_min": "quorum" }));
    assert_eq!(limits["limits_in_force"], json!({ "verify_min": "quorum", "concurrent_jobs": 50 }));
    assert!(done(&pool, &["project", "pool", "nightly"]).await.contains("any agent"));
    let above = forge(&pool, &["project", "limits", "nightly", "--concurrent-jobs", "51"]).await;
    assert_eq!(above.status.code(), Some(3));
    assert!(text(&above.stderr).contains("/limits/concurrent_jobs"), "{}", text(&above.stderr));
    let made = told(
        &pool,
        &[
            "key",
            "create",
            "--scopes",
            "compute,read",
            "--project",
            "nightly",
            "--name",
            "cron",
            "--expires",
            "90d",
            "--json",
        ],
    )
    .await;
    let id = made["id"].as_str().unwrap();
    assert_eq!((&made["project"], &made["scopes"]), (&json!("nightly"), &json!(["compute", "read"])));
    let listed = done(&pool, &["key", "list"]).await;
    assert!(
        listed.contains(id) && listed.contains("cron") && !listed.contains(made["key"].as_str().unwrap()),
        "{listed}"
    );
    let new = done(&pool, &["key", "rotate", id, "--grace", "1h"]).await;
    assert!(new.trim().starts_with("fpk_") && new.trim() != made["key"], "{new}");
    assert!(done(&pool, &["key", "revoke", id]).await.contains("revoked"));
    let again = forge(&pool, &["key", "revoke", id]).await;
    assert!(text(&again.stderr).contains("request.state"), "{}", text(&again.stderr));
    let ada = told(&pool, &["org", "add-member", "ada@acme.example", "--role", "owner", "--json"]).await;
    let ada = ada["id"].as_str().unwrap();
    assert!(done(&pool, &["org", "members"]).await.contains("ada@acme.example"));
    let last = forge(&pool, &["org", "remove-member", ada]).await;
    assert!(text(&last.stderr).contains("last owner"), "{}", text(&last.stderr));
    let own = forge(&pool, &["org", "limits", "acme", "--concurrent-jobs", "none"]).await;
    assert_eq!(own.status.code(), Some(3), "{}", text(&own.stdout));
    pool.api.key = operator;
    let lifted = told(&pool, &["org", "limits", "acme", "--concurrent-jobs", "none", "--json"]).await;
    assert_eq!(lifted["ceilings"], json!({}));
    let token = done(&pool, &["agents", "token", "--reserve", "nightly"]).await;
    let agent = pool.join_with(token.trim()).await;
    assert!(pool.agents[agent].is_some());
    assert!(done(&pool, &["agents"]).await.contains("nightly"));
    pool.stop().await;
}
