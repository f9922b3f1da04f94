//! Money, from the outside: quotes, holds, bills, budgets, the ledger and its exports.

use std::collections::{BTreeMap, BTreeSet};

use forge_lifecycle::books::chain::{Head, Line, Walk};
use forge_lifecycle::bundle::key::{Key, Signature};
use forge_tests::api::{Answer, Api};
use forge_tests::contract::{changed, insurance};
use forge_tests::pool::Pool;
use forge_tests::until;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

/// A job that is charged.
fn billable(iterations: u64) -> Value {
    changed(insurance(iterations), &[("/ctx/billing", json!({"mode": "billable"}))])
}

async fn send(api: &Api, method: Method, path: &str, body: &Value) -> Answer {
    let request = api.request(method, path).header("content-type", "application/json");
    api.send(request.body(body.to_string())).await
}

/// Every row of a list that is read page by page.
async fn all(api: &Api, first: &str) -> Vec<Value> {
    let (mut rows, mut next) = (Vec::new(), Some(first.to_owned()));
    while let Some(path) = next {
        let page = api.get(&path).await;
        assert_eq!(page.status, StatusCode::OK, "{}", page.text);
        rows.extend(page.body["items"].as_array().unwrap().iter().cloned());
        next = page.body["next"].as_str().map(str::to_owned);
    }
    rows
}

fn micro(posting: &Value) -> i128 {
    posting["micro"].as_str().unwrap().parse().unwrap()
}

/// Adds the whole ledger up: every transaction sums to 0, every job that is over was held and charged once and holds
/// nothing, the balances are those of the postings. Gives the jobs in it.
pub async fn audited(api: &Api) -> BTreeSet<String> {
    let mut balances: BTreeMap<String, i128> = BTreeMap::new();
    let mut kinds: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for item in all(api, "/api/v0/ledger?limit=1000&all=true").await {
        let transaction = &item["transaction"];
        let postings = transaction["postings"].as_array().unwrap();
        assert_eq!(postings.iter().map(micro).sum::<i128>(), 0, "{item:#}");
        for posting in postings {
            *balances.entry(posting["account"].as_str().unwrap().to_owned()).or_default() += micro(posting);
        }
        if let Some(job) = transaction["job"].as_str() {
            kinds.entry(job.to_owned()).or_default().push(transaction["kind"].as_str().unwrap().to_owned());
        }
    }
    balances.retain(|_, micro| *micro != 0);
    assert_eq!(balances.values().sum::<i128>(), 0);
    let holds: Vec<&String> = balances.keys().filter(|account| account.starts_with("hold:")).collect();
    assert!(holds.is_empty(), "{holds:?} stay");
    let shown = all(api, "/api/v0/ledger/balances?limit=1000").await;
    let shown: BTreeMap<String, i128> = shown
        .iter()
        .map(|row| (row["account"].as_str().unwrap().to_owned(), i128::from(row["micro"].as_i64().unwrap())))
        .collect();
    assert_eq!(shown, balances);
    for (job, kinds) in &kinds {
        let ends = kinds.iter().filter(|kind| ["settle", "refund"].contains(&kind.as_str())).count();
        let holds = kinds.iter().filter(|kind| *kind == "hold").count();
        assert!(ends == 1 && holds <= 1, "job {job} went through the books as {kinds:?}");
    }
    kinds.into_keys().collect()
}

fn verify(key: &Key, message: &[u8], signature: &Signature) -> bool {
    forge_protocol::identity::verify(&key.0, message, &signature.0)
}

/// Walks along the chain as a project may see it; gives how many transactions it saw whole.
pub async fn chain(api: &Api, project: &str) -> u64 {
    let text = String::from_utf8(api.content("/api/v0/ledger/chain").await).unwrap();
    let (mut walk, mut head) = (Walk::default(), None);
    for line in text.lines() {
        let value: Value = serde_json::from_str(line).unwrap();
        if let Some(found) = value.get("head") {
            head = Some(serde_json::from_value::<Head>(found.clone()).unwrap());
            continue;
        }
        let line: Line = serde_json::from_value(value).unwrap();
        let own = line.transaction.as_ref().is_none_or(|found| found.project.as_deref() == Some(project));
        assert!(own, "another's transaction is shown: {line:?}");
        walk.step(&line).unwrap();
    }
    walk.end(&head.expect("the chain ends with its head"), &verify).unwrap();
    walk.seen
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_quoted_held_charged_and_refunded() {
    let pool = Pool::start(2).await;
    let contract = billable(1_000_000);
    let quote = send(&pool.api, Method::POST, "/api/v0/ops/plan", &contract).await.body["quote"].clone();
    let number = |value: &Value, name: &str| value[name].as_u64().unwrap_or_else(|| panic!("no {name} in {value:#}"));
    assert_eq!(number(&quote, "credits_micro"), number(&quote, "work_micro"), "the platform bears the checks");
    assert_eq!(number(&quote, "hold_micro"), (number(&quote, "credits_micro") * 5).div_ceil(4));
    let done = pool.api.execute(&contract).await;
    assert_eq!(done.body["status"], "COMPLETED", "{}", done.text);
    let (billing, lines) = (&done.body["billing"], &done.body["billing"]["lines"]);
    assert_eq!(number(lines, "held_micro"), number(&quote, "hold_micro"));
    assert_eq!(number(lines, "fuel"), done.at("/hub/metrics/fuel").as_u64().unwrap());
    assert_eq!(number(billing, "credits_micro"), (number(lines, "fuel") * 1_000_000).div_ceil(3_000_000_000));
    assert_eq!(number(lines, "held_micro"), number(billing, "credits_micro") + number(lines, "refunded_micro"));
    let job = done.job();
    let ledger = pool.api.get(&format!("/api/v0/ledger?job={job}")).await.body;
    let items = ledger["items"].as_array().unwrap();
    let kinds: Vec<&str> = items.iter().map(|item| item["transaction"]["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["hold", "settle"]);
    assert_eq!(items[1]["digest"], billing["transaction"], "the document names what was posted");
    let leaf = pool.api.get(&format!("/api/v0/jobs/{job}/artifacts/transaction_json")).await.body;
    assert_eq!(leaf, items[1]["transaction"], "and so does the evidence");

    // `test` states and moves nothing, and is in the usage all the same.
    let tested = pool.api.execute(&insurance(1_000_000)).await;
    let stated = changed(insurance(1_000_000), &[("/ctx/billing", json!({"mode": "test"}))]);
    let stated = pool.api.execute(&stated).await.body;
    assert_eq!(stated["billing"]["credits_micro"], billing["credits_micro"], "{}", tested.text);
    assert_eq!(stated["billing"]["charged"], false);
    let path = format!("/api/v0/ledger?job={}", stated["job_id"].as_str().unwrap());
    let items = pool.api.get(&path).await.body["items"].clone();
    assert_eq!((items.as_array().unwrap().len(), &items[0]["transaction"]["postings"]), (1, &json!([])));

    // What ran until a cancellation is charged, and never more than was held.
    let long = changed(billable(60_000_000), &[("/policy/shards", json!(200))]);
    let job = pool.api.submit(&long).await;
    let mut events = pool.api.events(&job).await;
    events.find("first finished shard", |event| event.data["shards_done"].as_u64().unwrap_or(0) >= 1).await;
    pool.api.cancel(&job).await;
    let state = pool.api.finished(&job).await;
    let (charged, held) =
        (number(&state["billing"], "credits_micro"), number(&state["billing"]["lines"], "held_micro"));
    assert!(0 < charged && charged < held, "{charged} of {held}");
    let usage = pool.api.get("/api/v0/usage").await.body;
    let of_mode = |mode: &str| usage["items"].as_array().unwrap().iter().find(|item| item["mode"] == mode).cloned();
    let (charged_all, tested) = (of_mode("billable").unwrap(), of_mode("test").unwrap());
    assert_eq!(tested["charged_micro"], 0);
    assert!(charged_all["charged_micro"].as_u64().unwrap() >= charged + number(billing, "credits_micro"));
    assert_eq!(usage["burn"]["hour_micro"], charged_all["charged_micro"]);
    assert_eq!(usage["burn"]["held_micro"], 0);
    audited(&pool.api).await;
    pool.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_budget_refuses_with_every_number_and_ends_what_outgrows_it() {
    let pool = Pool::start(2).await;
    let contract = billable(1_000_000);
    let cost = pool.api.execute(&contract).await.body["billing"]["credits_micro"].as_u64().unwrap();
    let hold = send(&pool.api, Method::POST, "/api/v0/ops/plan", &contract).await.body["quote"]["hold_micro"]
        .as_u64()
        .unwrap();
    let path = "/api/v0/projects/default/budget";
    let set = send(&pool.api, Method::PUT, path, &json!({"budget_micro": cost + hold - 1})).await;
    assert_eq!((set.status, &set.body["left_micro"]), (StatusCode::OK, &json!(hold - 1)), "{}", set.text);
    let refused = pool.api.execute(&contract).await;
    assert_eq!((refused.status, &refused.body["code"]), (StatusCode::TOO_MANY_REQUESTS, &json!("request.quota")));
    let detail = refused.body["detail"].as_str().unwrap();
    for part in
        [format!("budget of {}", cost + hold - 1), format!("{cost} spent"), format!("{hold} needed"), "anew at".into()]
    {
        assert!(detail.contains(&part), "{part} is not in {detail}");
    }
    let wait: u64 = refused.headers["retry-after"].to_str().unwrap().parse().unwrap();
    assert!(wait > 0 && wait <= 31 * 86_400, "{wait}");
    // A refusal is on record; `test` costs nothing and goes on.
    let stored = pool.api.get(&format!("/api/v0/jobs/{}", refused.job())).await;
    assert_eq!(stored.body["error"]["code"], "request.quota", "{}", stored.text);
    let test = changed(insurance(1_000_000), &[("/ctx/billing", json!({"mode": "test"}))]);
    assert_eq!(pool.api.execute(&test).await.body["status"], "COMPLETED");
    let set = send(&pool.api, Method::PUT, path, &json!({"budget_micro": cost + hold})).await;
    assert_eq!(set.body["left_micro"], json!(hold));
    assert_eq!(pool.api.execute(&contract).await.body["status"], "COMPLETED");

    // Forty times the claims burn far more than the quote: the hold is raised until the budget ends, and so does the job.
    let hungry = changed(billable(4_000_000), &[("/args/claim_freq", json!(40.0)), ("/policy/shards", json!(32))]);
    let quoted =
        send(&pool.api, Method::POST, "/api/v0/ops/plan", &hungry).await.body["quote"]["hold_micro"].as_u64().unwrap();
    let spent = pool.api.get(path).await.body["charged_micro"].as_u64().unwrap();
    let budget = spent + quoted + quoted / 2;
    send(&pool.api, Method::PUT, path, &json!({"budget_micro": budget, "budget_period": "total"})).await;
    let ended = pool.api.execute(&hungry).await;
    assert_eq!(
        (ended.status, ended.at("/error/code")),
        (StatusCode::UNPROCESSABLE_ENTITY, &json!("request.quota")),
        "{}",
        ended.text
    );
    let block = pool.api.get(path).await.body;
    assert!(block["charged_micro"].as_u64().unwrap() <= budget, "{block:#}");
    assert_eq!(block["held_micro"], 0);
    // Without a budget it is charged what it burned.
    send(&pool.api, Method::PUT, path, &json!({"budget_micro": null})).await;
    let whole = pool.api.execute(&hungry).await;
    let lines = whole.at("/billing/lines");
    assert_eq!(whole.body["status"], "COMPLETED", "{}", whole.text);
    assert!(lines["held_micro"].as_u64().unwrap() > quoted, "the hold was raised: {lines:#}");
    assert_eq!(lines["overrun_micro"], 0, "{lines:#}");
    audited(&pool.api).await;
    pool.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_requests_with_one_key_post_once() {
    let pool = Pool::start(2).await;
    let contract = billable(500_000).to_string();
    let requests: Vec<_> = (0..100)
        .map(|_| {
            let (api, body) = (pool.api.clone(), contract.clone());
            tokio::spawn(async move {
                let request =
                    api.request(Method::POST, "/api/v0/ops/execute").header("content-type", "application/json");
                api.send(request.header("idempotency-key", "one").body(body)).await
            })
        })
        .collect();
    let mut jobs = BTreeSet::new();
    for request in requests {
        let answer = request.await.unwrap();
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
        jobs.insert(answer.job());
    }
    assert_eq!(jobs.len(), 1);
    let items = all(&pool.api, "/api/v0/ledger").await;
    let kinds: Vec<&str> = items.iter().map(|item| item["transaction"]["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["hold", "settle"]);
    // Racing payments of one number, too.
    let grants: Vec<_> = (0..50)
        .map(|_| {
            let api = pool.api.clone();
            let wish = json!({"credits_micro": 5_000_000, "reference": "transfer 1"});
            tokio::spawn(
                async move { send(&api, Method::POST, "/api/v0/projects/default/credits", &wish).await.status },
            )
        })
        .collect();
    let mut created = 0;
    for grant in grants {
        created += u32::from(grant.await.unwrap() == StatusCode::CREATED);
    }
    assert_eq!(created, 1);
    assert_eq!(audited(&pool.api).await.len(), 1);
    assert_eq!(chain(&pool.api, "default").await, 3);
    pool.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_earned_is_paid_once_and_tables_come_in_every_form() {
    let pool = Pool::start_with(2, &["--settle-ms", "1", "--settle-every-ms", "50"]).await;
    let done = pool.api.execute(&billable(1_000_000)).await;
    assert_eq!(done.body["status"], "COMPLETED", "{}", done.text);
    let items = until("pay that settled", || async {
        let items = all(&pool.api, "/api/v0/payouts?limit=1").await;
        let settled = items.iter().all(|item| item["held_micro"] == 0) && items.iter().any(|i| i["payable_micro"] != 0);
        settled.then_some(items)
    })
    .await;
    assert_eq!(items.len(), 2, "page by page");
    let sum: u64 = items.iter().map(|item| item["payable_micro"].as_u64().unwrap()).sum();
    // The client pays for the work alone; who ran a shard again, drawn as that is, is paid as well. Each agent's pay
    // is rounded down, and the price of running again, if there is one, up once more.
    let micro = |path| done.at(path).as_u64().unwrap();
    let again = micro("/billing/lines/verification_micro");
    let (worth, rounded) = (micro("/billing/credits_micro") + again, if again == 0 { 2 } else { 3 });
    assert!(sum * 10 <= worth * 8 && sum + rounded >= worth * 8 / 10, "{sum} of {worth}");
    let item = items.iter().find(|item| item["payable_micro"] != 0).unwrap();
    let (agent, payable) = (item["agent_id"].as_str().unwrap(), item["payable_micro"].as_u64().unwrap());
    let pay = async |agent: &str, micro: u64, reference: &str| {
        let wish = json!({"agent_id": agent, "credits_micro": micro, "reference": reference});
        let answer = send(&pool.api, Method::POST, "/api/v0/payouts", &wish).await;
        (answer.status.as_u16(), answer.body["code"].as_str().unwrap_or("").to_owned())
    };
    for (micro, reference, expected) in [
        (payable, "transfer 7", (201, "")),
        (payable, "transfer 7", (200, "")),
        (payable - 1, "transfer 7", (409, "request.idempotency_mismatch")),
        (1, "transfer 8", (409, "request.state")),
        (0, "transfer 9", (400, "request.schema")),
        (1, "", (400, "request.schema")),
    ] {
        assert_eq!(pay(agent, micro, reference).await, (expected.0, expected.1.to_owned()), "{micro} {reference}");
    }
    let nobody = forge_contract::Digest::of(b"nobody").to_string();
    assert_eq!(pay(&nobody, 1, "transfer 10").await.0, 404);
    for (path, first) in [("/api/v0/usage", "day,"), ("/api/v0/ledger", "seq,"), ("/api/v0/payouts", "agent_id,")] {
        let table = pool.api.send(pool.api.request(Method::GET, path).header("accept", "text/csv")).await;
        assert_eq!((table.status, &table.headers["content-type"]), (StatusCode::OK, &"text/csv".parse().unwrap()));
        assert!(table.text.starts_with(first) && table.text.lines().count() > 1, "{}", table.text);
        let bytes = pool.api.content(&format!("{path}?format=parquet")).await;
        assert!(bytes.starts_with(b"PAR1") && bytes.ends_with(b"PAR1"), "{path}");
        let refused = pool.api.get(&format!("{path}?format=xlsx")).await;
        assert_eq!((refused.status, &refused.body["code"]), (StatusCode::BAD_REQUEST, &json!("request.schema")));
    }
    audited(&pool.api).await;
    chain(&pool.api, "default").await;
    pool.stop().await;
}
