//! A result is a function of component, profile, args and seed, and of nothing else.

use forge_tests::contract::{changed, insurance};
use forge_tests::pool::Pool;
use serde_json::{Value, json};

use crate::answers::{digest, output};

const ITERATIONS: u64 = 1_500_000;

/// The digest and output of one contract on a pool of `agents`.
async fn run(agents: usize, contract: &Value) -> (String, Value) {
    let pool = Pool::start(agents).await;
    let answer = pool.api.execute(contract).await;
    let given = (digest(&answer.body), output(&answer.body).clone());
    pool.stop().await;
    given
}

#[tokio::test]
async fn any_number_of_agents_gives_the_same_bits() {
    let contract = changed(insurance(ITERATIONS), &[("/policy/max_agents", json!(0))]);
    let expected = run(1, &contract).await;
    for agents in [2, 3, 7, 16] {
        assert_eq!(run(agents, &contract).await, expected, "{agents} agents");
    }
}

#[tokio::test]
async fn any_cut_gives_the_same_bits() {
    let pool = Pool::start(3).await;
    let mut expected = None;
    let mut cuts = std::collections::BTreeSet::new();
    for shards in [1_u64, 2, 3, 5, 8, 13, 23, 100_000] {
        let contract = changed(insurance(ITERATIONS), &[("/policy/shards", json!(shards))]);
        let answer = pool.api.execute(&contract).await;
        let given = (digest(&answer.body), output(&answer.body).clone());
        cuts.insert(answer.body["hub"]["metrics"]["shards"].as_u64().unwrap());
        assert_eq!(&given, expected.get_or_insert_with(|| given.clone()), "{shards} shards");
    }
    assert!(cuts.len() >= 4, "the cuts were hardly different: {cuts:?}");
    pool.stop().await;
}

#[tokio::test]
async fn what_is_computed_decides_and_how_does_not() {
    let pool = Pool::start(2).await;
    let base = insurance(200_000);
    let expected = digest(&pool.api.execute(&base).await.body);
    let same = [
        ("/ctx/job_id", json!("another")),
        ("/ctx/trace_id", json!("another")),
        ("/policy/target", json!("any")),
        ("/policy/max_agents", json!(1)),
        ("/policy/timeout_ms", json!(60_000)),
        ("/args/claim_freq", json!(2)),
    ];
    for change in same {
        let contract = changed(base.clone(), std::slice::from_ref(&change));
        assert_eq!(digest(&pool.api.execute(&contract).await.body), expected, "{}", change.0);
    }
    let other = [
        ("/seed/value", json!("ROOT_SEED_OTHER")),
        ("/args/iterations", json!(200_001)),
        ("/args/claim_freq", json!(2.01)),
        ("/args/aggregate_limit", json!(20_000)),
    ];
    for change in other {
        let contract = changed(base.clone(), std::slice::from_ref(&change));
        assert_ne!(digest(&pool.api.execute(&contract).await.body), expected, "{}", change.0);
    }
    pool.stop().await;
}
