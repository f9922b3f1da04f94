//! Matrix products through hub and agents: inputs by content, tiles to one `.npy` file, against arithmetic of this
//! test's own.

mod numpy;
mod refusals;
mod truth;

use forge_contract::Digest;
use forge_tests::contract::{changed, insurance};
use forge_tests::npy::{Matrix, Real};
use forge_tests::pool::Pool;
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::answers::{digest, output};
use crate::command::{forge, text};
use crate::provider::say;
use crate::replay::{bundle_of, expect, forged, offline, write};

/// C = alpha A B + beta C.
struct Product<T> {
    a: Matrix<T>,
    b: Matrix<T>,
    c: Option<Matrix<T>>,
    alpha: f64,
    beta: f64,
}

impl<T: Real> Product<T> {
    /// A B of random matrices.
    fn new((m, n, k): (usize, usize, usize)) -> Self {
        let (a, b) = (Matrix::random(11, m, k), Matrix::random(12, k, n));
        Self { a, b, c: None, alpha: 1.0, beta: 0.0 }
    }

    fn scaled(self, alpha: f64, beta: f64) -> Self {
        let c = Some(Matrix::random(13, self.a.rows, self.b.columns));
        Self { alpha, beta, c, ..self }
    }

    /// The contract, its inputs uploaded.
    async fn contract(&self, pool: &Pool) -> Value {
        let mut args = json!({
            "m": self.a.rows, "n": self.b.columns, "k": self.a.columns, "alpha": self.alpha, "beta": self.beta,
            "a": pool.api.put_blob(self.a.file()).await, "b": pool.api.put_blob(self.b.file()).await,
        });
        if let Some(c) = &self.c {
            args["c"] = json!(pool.api.put_blob(c.file()).await);
        }
        contract(if T::DESCR == "<f8" { "dgemm" } else { "sgemm" }, &args)
    }
}

fn contract(profile: &str, args: &Value) -> Value {
    let op = json!({"name": "gemm", "version": 1, "profile": profile});
    changed(insurance(1), &[("/op", op), ("/args", args.clone())])
}

/// The result's file, which must be what `hub.output` says, and the matrix in it.
async fn file<T: Real>(pool: &Pool, state: &Value) -> (Vec<u8>, Matrix<T>) {
    let c = &output(state)["c"];
    assert_eq!((&c["kind"], &c["artifact"]), (&json!("tile"), &json!("c_npy")), "{c}");
    let job = state["job_id"].as_str().unwrap();
    let bytes = pool.api.content(&format!("/api/v0/jobs/{job}/artifacts/c_npy")).await;
    assert_eq!(c["digest"], json!(Digest::of(&bytes).to_string()));
    assert_eq!(c["bytes"], json!(bytes.len()));
    let matrix = Matrix::parse(&bytes);
    assert_eq!((&c["rows"], &c["columns"]), (&json!(matrix.rows), &json!(matrix.columns)));
    (bytes, matrix)
}

async fn multiply<T: Real>(pool: &Pool, product: &Product<T>) -> Matrix<T> {
    let answer = pool.api.execute(&product.contract(pool).await).await;
    digest(&answer.body);
    let (_, found) = file(pool, &answer.body).await;
    truth::check(product, &found);
    found
}

#[tokio::test]
async fn products_of_every_shape_are_right() {
    let pool = Pool::start(2).await;
    for shape in [(1, 1, 1), (513, 1, 512), (1, 700, 3), (700, 1300, 517), (1024, 1024, 1024)] {
        multiply(&pool, &Product::<f64>::new(shape)).await;
    }
    for shape in [(1, 1, 1), (515, 600, 257), (1024, 1024, 512)] {
        multiply(&pool, &Product::<f32>::new(shape)).await;
    }
    for (alpha, beta) in [(-0.75, 1.5), (2.0, 0.0), (0.0, 0.5)] {
        multiply(&pool, &Product::<f64>::new((600, 520, 40)).scaled(alpha, beta)).await;
        multiply(&pool, &Product::<f32>::new((600, 520, 40)).scaled(alpha, beta)).await;
    }
    pool.stop().await;
}

#[tokio::test]
async fn any_number_of_shards_and_agents_gives_the_same_bits() {
    let product = Product::<f64>::new((1300, 1030, 300)).scaled(0.3, -1.1);
    let mut results = Vec::new();
    for agents in [1, 3] {
        let pool = Pool::start(agents).await;
        let base = product.contract(&pool).await;
        for shards in [1, 2, 5, 9] {
            let contract = changed(base.clone(), &[("/policy/shards", json!(shards))]);
            let answer = pool.api.execute(&contract).await;
            results.push((digest(&answer.body), file::<f64>(&pool, &answer.body).await.0));
        }
        let quorum = changed(base.clone(), &[("/policy/verify", json!("quorum"))]);
        if agents > 1 {
            let answer = pool.api.execute(&quorum).await;
            results.push((digest(&answer.body), file::<f64>(&pool, &answer.body).await.0));
        }
        pool.stop().await;
    }
    assert!(results.iter().all(|result| *result == results[0]));
}

/// A product of large matrices, digest and file of its result.
async fn large(agents: usize) -> (Pool, Product<f32>, Value, Vec<u8>) {
    let pool = Pool::start(agents).await;
    let product = Product::<f32>::new((16_384, 512, 1024));
    let policy = [("/policy/shards", json!(16)), ("/policy/verify", json!("none"))];
    let contract = changed(product.contract(&pool).await, &policy);
    let state = pool.api.execute(&contract).await.body;
    let (bytes, _) = file::<f32>(&pool, &state).await;
    (pool, product, state, bytes)
}

/// 64 MiB of A, of which a tile reads 2 MiB, and 2 MiB of B, which every tile reads: agents fetch what their tiles read
/// and not the rest. The digest is the one of the same product where every agent had all of it.
#[tokio::test]
async fn large_inputs_reach_agents_as_far_as_they_are_read() {
    const MIB: u64 = 1 << 20;
    const AGENTS: u64 = 4;
    let (pool, product, state, bytes) = large(4).await;
    assert_eq!(digest(&state), "24f15efd3e10c1c91ea049f1590903338d54270f66d6ec2cd8f8469913811463");
    truth::check(&product, &Matrix::parse(&bytes));
    let mut sum = 0;
    for agent in 0..4 {
        let status = say("status", &pool.agent_dir(agent)).await;
        let (fetched, shards) = (status["fetched_bytes"].as_u64().unwrap(), status["completed"].as_u64().unwrap());
        // B and the component, two tiles' rows of A for each shard with the rows expected behind them, and as much again
        // for copies that were taken back.
        let most = 3 * MIB + (shards + 2) * 5 * MIB;
        assert!(fetched >= shards * 4 * MIB && fetched <= most, "{shards} shards, {fetched} bytes, at most {most}");
        sum += fetched;
    }
    let inputs = 66 * MIB;
    assert!(sum < inputs * 2, "{sum} bytes for {AGENTS} agents, where all of it for each is {}", inputs * AGENTS);
    pool.stop().await;
}

/// Uploading the same twice is one object; what was never uploaded is named.
#[tokio::test]
async fn inputs_are_content_of_the_project() {
    let pool = Pool::start(1).await;
    let product = Product::<f64>::new((3, 4, 5));
    let contract = product.contract(&pool).await;
    assert_eq!(contract, product.contract(&pool).await);
    let nowhere = Digest::of(b"never uploaded").to_string();
    let refused = pool.api.execute(&changed(contract, &[("/args/b", json!(nowhere))])).await;
    assert_eq!(refused.status, StatusCode::NOT_FOUND, "{}", refused.text);
    assert_eq!((refused.at("/code"), refused.at("/pointer")), (&json!("request.not_found"), &json!("/args/b")));
    assert!(refused.text.contains(&nowhere), "{}", refused.text);
    pool.stop().await;
}

#[tokio::test]
async fn the_command_line_fetches_the_matrix() {
    let pool = Pool::start(1).await;
    let product = Product::<f64>::new((30, 20, 10));
    let answer = pool.api.execute(&product.contract(&pool).await).await;
    let (bytes, _) = file::<f64>(&pool, &answer.body).await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("c.npy");
    let (job, path_text) = (answer.job(), path.to_string_lossy().into_owned());
    let shown = text(&forge(&pool, &["job", &job]).await.stdout);
    assert!(
        shown.contains("c: 30 x 20 float64") && shown.contains(&format!("artifact {job} c_npy -o c.npy")),
        "{shown}"
    );
    let fetched = forge(&pool, &["artifact", &job, "c_npy", "-o", &path_text]).await;
    assert!(fetched.status.success(), "{}", text(&fetched.stderr));
    assert_eq!(std::fs::read(&path).unwrap(), bytes);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing else is left");
    let missing = forge(&pool, &["artifact", &job, "d_npy", "-o", &path_text]).await;
    assert!(!missing.status.success() && text(&missing.stderr).contains("c_npy"), "{}", text(&missing.stderr));
    pool.stop().await;
}

#[tokio::test]
async fn what_the_kernels_own_check_found_is_signed_in_the_evidence() {
    let mut pool = Pool::start(0).await;
    // What the operator's own agents say is not looked at.
    pool.join_strangers(3).await;
    let product = Product::<f64>::new((1500, 1500, 32));
    let contract = changed(product.contract(&pool).await, &[("/policy/verify", json!("spotcheck"))]);
    let job = pool.api.execute(&contract).await.job();
    let bytes = bundle_of(&pool, &job, false).await;
    pool.stop().await;
    let folder = tempfile::tempdir().unwrap();
    let file = write(folder.path(), "job", &bytes);
    let said = offline(&["verify", &file]).await;
    expect(&said, 0, &[" looks, each signed by its agent"]);
    assert!(!text(&said.stdout).contains(" 0 looks"), "nothing was looked at");
    // With another challenge it would be another check.
    let other = forged(&bytes, |leaves| {
        let mut executions: Vec<Value> = serde_json::from_slice(&leaves["executions_json"].1).unwrap();
        let check = executions.iter_mut().find(|e| e["reason"] == "proof" && e["status"] == "REPORTED").unwrap();
        check["challenge"] = json!(Digest::of(b"another").to_string());
        leaves.get_mut("executions_json").unwrap().1 = serde_json::to_vec(&executions).unwrap();
    });
    let other = write(folder.path(), "other", &other);
    expect(&offline(&["verify", &other]).await, 8, &["DOES NOT HOLD: agents", "signature is not that of agent"]);
}
