//! A project's own kernels: uploaded, tried by verifiers, run, deprecated, yanked, and nobody else's.

use forge_contract::Digest;
use forge_contract::manifest::GoldenInput;
use forge_tests::api::{Answer, Api};
use forge_tests::component::{contract, guessed, honest, kernel, manifest, recorded, recorded_of, with_manifest};
use forge_tests::pool::Pool;
use reqwest::Method;
use serde_json::{Value, json};

use crate::answers::digest;

async fn change(api: &Api, kernel: &str, change: Value) -> Answer {
    let request = api.request(Method::PATCH, &format!("/api/v0/kernels/{kernel}"));
    api.send(request.header("content-type", "application/json").body(change.to_string())).await
}

fn labels(list: &Answer) -> Vec<String> {
    let items = list.at("/items").as_array().expect("a list").iter();
    items.map(|item| format!("{}@{}", item["name"].as_str().unwrap(), item["version"])).collect()
}

#[tokio::test]
async fn an_upload_is_tried_admitted_and_runs() {
    let pool = Pool::start_with(2, &["--announce-project", "second"]).await;
    let component = kernel("default/counter", 1, "");
    let uploaded = pool.api.upload(&component).await;
    assert_eq!(uploaded.status, 202, "{}", uploaded.text);
    assert_eq!(uploaded.at("/state"), "pending", "{}", uploaded.text);
    assert_eq!(uploaded.headers["location"], "/api/v0/kernels/default/counter/1");
    assert_eq!(uploaded.at("/digest"), &json!(Digest::of(&component)));
    let decided = pool.api.decided("default/counter/1").await;
    assert_eq!(decided["state"], "admitted", "{decided:#}");
    let checks = decided["checks"].as_array().unwrap();
    assert_eq!(checks.iter().map(|check| check["unit"].clone()).collect::<Vec<_>>(), [json!(0), json!(2)]);
    for check in checks {
        assert!(check["engine"].is_string() && check["verifier"].is_string(), "{check:#}");
    }
    // It runs like any other kernel.
    let done = pool.api.execute(&contract("default/counter", 1, 1234)).await;
    assert_eq!(done.status, 200, "{}", done.text);
    assert_eq!(done.at("/hub/metrics/iterations"), 1234);
    assert_eq!(done.at("/hub/replay/component"), &json!(Digest::of(&component)));
    // The same bytes again change nothing.
    let again = pool.api.upload(&component).await;
    assert_eq!((again.status.as_u16(), again.at("/state")), (200, &json!("admitted")), "{}", again.text);
    assert_eq!(again.at("/uploaded_at_ms"), &decided["uploaded_at_ms"]);
    // The bytes come back, to their own project alone.
    let path = format!("/api/v0/components/{}", Digest::of(&component));
    let fetched = pool.api.send(pool.api.request(Method::GET, &path)).await;
    assert_eq!((fetched.status.as_u16(), fetched.headers["content-type"].to_str().unwrap()), (200, "application/wasm"));
    assert_eq!(fetched.headers["content-length"], component.len().to_string());
    let mut stranger = pool.api.clone();
    stranger.key = pool.ready["project_keys"]["second"].as_str().unwrap().to_owned();
    for path in [path.as_str(), "/api/v0/kernels/default/counter/1"] {
        let answer = stranger.get(path).await;
        assert_eq!((answer.status.as_u16(), answer.at("/code")), (404, &json!("request.not_found")), "{path}");
    }
    assert_eq!(labels(&pool.api.get("/api/v0/kernels").await)[0], "default/counter@1");
    assert!(labels(&stranger.get("/api/v0/kernels").await).iter().all(|label| !label.contains('/')));
    let foreign = stranger.execute(&contract("default/counter", 1, 10)).await;
    assert_eq!((foreign.status.as_u16(), foreign.at("/code")), (422, &json!("request.unknown_op")), "{}", foreign.text);
    let taken = change(&stranger, "default/counter/1", json!({"state": "yanked"})).await;
    assert_eq!(taken.status, 404, "{}", taken.text);
    // Nor can a stranger take a name of the project.
    let other = stranger.upload(&kernel("default/other", 1, "(func)")).await;
    assert_eq!(
        (other.status.as_u16(), other.at("/code")),
        (422, &json!("request.component_manifest")),
        "{}",
        other.text
    );
    assert!(other.at("/detail").as_str().unwrap().contains("name = \"second/other\""), "{}", other.text);
    pool.stop().await;
}

#[tokio::test]
async fn deprecated_runs_with_a_warning_and_yanked_runs_nothing_new() {
    let pool = Pool::start(1).await;
    let (name, path) = ("default/counter", "default/counter/1");
    let pending = change(&pool.api, path, json!({"state": "yanked"})).await;
    assert_eq!(pending.status, 404);
    pool.api.upload(&kernel(name, 1, "")).await;
    assert_eq!(pool.api.decided(path).await["state"], "admitted");
    let first = pool.api.execute(&contract(name, 1, 100)).await;
    assert_eq!(first.at("/warnings"), &json!([]), "{}", first.text);

    let changed = change(&pool.api, path, json!({"state": "deprecated", "reason": "use version 2"})).await;
    assert_eq!((changed.status.as_u16(), changed.at("/state")), (200, &json!("deprecated")), "{}", changed.text);
    let warned = pool.api.execute(&contract(name, 1, 100)).await;
    assert_eq!(warned.at("/warnings/0"), "default/counter@1 is deprecated: use version 2", "{}", warned.text);
    assert_eq!(digest(&warned.body), digest(&first.body));

    assert_eq!(change(&pool.api, path, json!({"state": "yanked", "reason": "wrong tails"})).await.status, 200);
    let refused = pool.api.execute(&contract(name, 1, 100)).await;
    assert_eq!(
        (refused.status.as_u16(), refused.at("/code")),
        (409, &json!("request.kernel_yanked")),
        "{}",
        refused.text
    );
    assert_eq!(refused.at("/pointer"), "/op/version");
    assert!(refused.at("/detail").as_str().unwrap().contains("was yanked: wrong tails"), "{}", refused.text);
    // Its label is not free for other bytes.
    let other = kernel(name, 1, "(func)");
    let taken = pool.api.upload(&other).await;
    assert_eq!((taken.status.as_u16(), taken.at("/code")), (409, &json!("request.kernel_taken")), "{}", taken.text);

    for (wish, code) in [
        (json!({"state": "refused"}), "request.schema"),
        (json!({"state": "gone"}), "request.schema"),
        (json!({"state": "yanked", "why": "x"}), "request.schema"),
        (json!({"state": "yanked", "reason": "x".repeat(501)}), "request.schema"),
    ] {
        let answer = change(&pool.api, path, wish.clone()).await;
        assert_eq!((answer.status.as_u16(), answer.at("/code")), (400, &json!(code)), "{wish}: {}", answer.text);
    }
    assert_eq!(change(&pool.api, path, json!({"state": "admitted"})).await.status, 200);
    assert_eq!(digest(&pool.api.execute(&contract(name, 1, 100)).await.body), digest(&first.body));
    let built_in = change(&pool.api, "mc/1", json!({"state": "yanked"})).await;
    assert_eq!((built_in.status.as_u16(), built_in.at("/code")), (405, &json!("request.method")), "{}", built_in.text);
    pool.stop().await;
}

#[tokio::test]
async fn without_a_verifier_it_stays_pending_over_a_restart() {
    let mut pool = Pool::start(0).await;
    let token = pool.api.send(pool.api.request(Method::POST, "/api/v0/agents/tokens")).await;
    assert_eq!((token.status.as_u16(), token.at("/verifier")), (201, &json!(false)), "{}", token.text);
    pool.join_with(token.at("/token").as_str().unwrap()).await;
    let (name, path) = ("default/counter", "/api/v0/kernels/default/counter/1");
    let uploaded = pool.api.upload(&kernel(name, 1, "")).await;
    assert_eq!((uploaded.status.as_u16(), uploaded.at("/state")), (202, &json!("pending")), "{}", uploaded.text);
    assert!(uploaded.at("/reason").as_str().unwrap().contains("no verifier is connected"), "{}", uploaded.text);
    let refused = pool.api.execute(&contract(name, 1, 10)).await;
    assert_eq!(
        (refused.status.as_u16(), refused.at("/code")),
        (409, &json!("request.kernel_pending")),
        "{}",
        refused.text
    );
    // The ordinary agent is here and free: it runs jobs, and settles nothing.
    assert_eq!(
        pool.api
            .execute(&json!({
                "ctx": {}, "op": {"name": "noop", "version": 1, "profile": "count.v1"}, "seed": {"mode": "derived"},
                "policy": {"verify": "none"}, "args": {"units": 10}
            }))
            .await
            .status,
        200
    );
    pool.kill_hub().await;
    pool.restart_hub().await;
    assert_eq!(pool.api.get(path).await.at("/state"), "pending");
    let wish = pool.api.request(Method::POST, "/api/v0/agents/tokens").header("content-type", "application/json");
    let token = pool.api.send(wish.body(r#"{"verifier": true}"#)).await;
    assert_eq!(token.at("/verifier"), true, "{}", token.text);
    pool.join_with(token.at("/token").as_str().unwrap()).await;
    let agents = pool.api.get("/api/v0/agents").await;
    let verifiers = agents.at("/items").as_array().unwrap().iter().filter(|agent| agent["verifier"] == true);
    let verifiers: Vec<&Value> = verifiers.collect();
    let decided = pool.api.decided("default/counter/1").await;
    assert_eq!(decided["state"], "admitted", "{decided:#}");
    assert_eq!(decided["checks"][0]["verifier"], verifiers[0]["agent_id"]);
    assert_eq!(pool.api.execute(&contract(name, 1, 10)).await.status, 200);
    pool.kill_hub().await;
    pool.restart_hub().await;
    assert_eq!(pool.api.get(path).await.body, decided, "what was decided stays");
    pool.stop().await;
}

#[tokio::test]
async fn goldens_bring_what_their_units_read() {
    let pool = Pool::start(1).await;
    let text = include_str!("../hostile/kernels/read.wat");
    let (_, rest) = text.split_once(";;; imports\n").unwrap();
    let (imports, rest) = rest.split_once(";;; arguments\n").unwrap();
    let (arguments, core) = rest.split_once(";;; core\n").unwrap();
    let bare = forge_tests::component::component(imports, arguments, core);
    let mut manifest = manifest("default/reader", 1);
    let profile = &mut manifest["profiles"]["count.v1"];
    profile["args"]["properties"]["data"] = json!({"type": "string"});
    profile["stages"][0]["inputs"] = json!([{"name": "data", "from": {"argument": "data"}}]);
    profile["stages"][0]["parts"][0]["counts_items"] = json!(false);
    let content = b"what a unit reads";
    let mut golden = guessed(10, 0);
    golden.args["data"] = json!(Digest::of(content));
    golden.inputs = vec![GoldenInput::new("data", content)];
    let component = with_manifest(bare.clone(), &recorded_of(&bare, manifest, vec![golden]));
    assert_eq!(pool.api.upload(&component).await.status, 202);
    let decided = pool.api.decided("default/reader/1").await;
    assert_eq!(decided["state"], "admitted", "{decided:#}");
    pool.stop().await;
}

#[tokio::test]
async fn a_golden_that_is_not_true_refuses_and_leaves_the_label_free() {
    let pool = Pool::start(1).await;
    let bare = honest("");
    let mut wrong = recorded(&bare, manifest("default/counter", 1), &[(25, 0), (25, 1)]);
    let expected = Digest::of(b"something else");
    wrong["profiles"]["count.v1"]["goldens"][1]["digest"] = json!(expected);
    let wrong = with_manifest(bare.clone(), &wrong);
    assert_eq!(pool.api.upload(&wrong).await.status, 202);
    let decided = pool.api.decided("default/counter/1").await;
    assert_eq!(
        (&decided["state"], &decided["code"]),
        (&json!("refused"), &json!("request.component_golden")),
        "{decided:#}"
    );
    let reason = decided["reason"].as_str().unwrap();
    for words in ["profile 'count.v1', stage 'count', unit 1", "kernel check --record", &expected.to_string()] {
        assert!(reason.contains(words), "{words:?} is not in {reason:?}");
    }
    assert!(!labels(&pool.api.get("/api/v0/kernels").await).contains(&"default/counter@1".to_owned()));
    assert_eq!(labels(&pool.api.get("/api/v0/kernels?state=refused").await), ["default/counter@1"]);
    let run = pool.api.execute(&contract("default/counter", 1, 10)).await;
    assert_eq!((run.status.as_u16(), run.at("/code")), (409, &json!("request.kernel_refused")), "{}", run.text);
    // A kernel that fails is refused for that.
    let trap = forge_tests::component::component("", "", include_str!("../hostile/kernels/unreachable.wat"));
    let mut text = manifest("default/counter", 1);
    text["profiles"]["count.v1"]["goldens"] = json!([guessed(25, 0)]);
    assert_eq!(pool.api.upload(&with_manifest(trap, &text)).await.status, 202);
    let decided = pool.api.decided("default/counter/1").await;
    assert_eq!((&decided["state"], &decided["code"]), (&json!("refused"), &json!("agent.trap")), "{decided:#}");
    // The label was free, and is until something holds.
    let right = kernel("default/counter", 1, "");
    assert_eq!(pool.api.upload(&right).await.status, 202);
    assert_eq!(pool.api.decided("default/counter/1").await["state"], "admitted");
    pool.stop().await;
}
