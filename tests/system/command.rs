//! The command line against a running pool.

use std::ffi::OsString;
use std::process::Output;

use forge_tests::binary::{forgepool, root};
use forge_tests::contract::{changed, insurance, quickstart};
use forge_tests::npy::Matrix;
use forge_tests::pool::Pool;
use serde_json::{Value, json};

use crate::answers::digest;

pub async fn forge(pool: &Pool, args: &[&str]) -> Output {
    let mut command = tokio::process::Command::new(forgepool());
    command
        .args(args.iter().map(OsString::from))
        .env("FORGEPOOL_URL", &pool.api.url)
        .env("FORGEPOOL_API_KEY", &pool.api.key);
    forge_tests::within("end of the command", command.current_dir(root()).output()).await.expect("it starts")
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[tokio::test]
async fn run_jobs_job_and_plan_show_what_the_hub_says() {
    let pool = Pool::start(2).await;
    let run = forge(&pool, &["run", "examples/quickstart.json"]).await;
    assert!(run.status.success(), "{}", text(&run.stderr));
    let shown = text(&run.stdout);
    for piece in ["COMPLETED", "mean", "95 %", "TVaR", "█", "result digest", "ROOT_SEED_QUICKSTART"] {
        assert!(shown.contains(piece), "{piece:?} is not in\n{shown}");
    }
    assert!(text(&run.stderr).contains("units"), "progress on stderr: {}", text(&run.stderr));
    let json = forge(&pool, &["run", "examples/quickstart.json", "--json"]).await;
    let state: Value = serde_json::from_slice(&json.stdout).expect("only JSON on stdout");
    assert!(shown.contains(&digest(&state)), "the same contract, the same digest");

    let job = state["job_id"].as_str().unwrap();
    let listed = text(&forge(&pool, &["jobs"]).await.stdout);
    assert!(
        listed.contains(job) && listed.contains("mc@1 insurance.v1") && listed.contains("quickstart-001"),
        "{listed}"
    );
    let one = text(&forge(&pool, &["job", job]).await.stdout);
    assert!(one.contains(&digest(&state)), "{one}");
    let executions: Value =
        serde_json::from_slice(&forge(&pool, &["job", job, "--show", "executions"]).await.stdout).unwrap();
    assert!(!executions["items"].as_array().unwrap().is_empty());
    let plan = text(&forge(&pool, &["plan", "examples/quickstart.json"]).await.stdout);
    assert!(plan.contains("replay key") && plan.contains("shards"), "{plan}");
    pool.stop().await;
}

#[tokio::test]
async fn exit_codes_tell_what_happened() {
    let mut pool = Pool::start(1).await;
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, contract: &Value| {
        let path = dir.path().join(name);
        std::fs::write(&path, contract.to_string()).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let bad = write("bad.json", &changed(quickstart(), &[("/policy/verify", json!("FULL "))]));
    let refused = forge(&pool, &["run", &bad]).await;
    assert_eq!(refused.status.code(), Some(3));
    let said = text(&refused.stderr);
    assert!(
        said.contains("request.schema") && said.contains("/policy/verify") && said.contains("did you mean"),
        "{said}"
    );

    let long = write("long.json", &changed(insurance(900_000_000), &[("/policy/shards", json!(500))]));
    let submitted = forge(&pool, &["run", &long, "--async"]).await;
    let job = text(&submitted.stdout).trim().to_owned();
    assert_eq!(job.len(), 26, "{job}");
    let cancelled = forge(&pool, &["cancel", &job]).await;
    assert!(cancelled.status.success(), "{}", text(&cancelled.stderr));
    let followed = forge(&pool, &["job", &job, "--follow"]).await;
    assert_eq!(followed.status.code(), Some(4), "{}", text(&followed.stdout));
    assert!(text(&followed.stdout).contains("CANCELLED"));

    assert_eq!(forge(&pool, &["job", "01ARZ3NDEKTSV4RRFFQ69G5FAV"]).await.status.code(), Some(3));
    assert_eq!(forge(&pool, &["run", "no-such-file.json"]).await.status.code(), Some(1));
    assert_eq!(forge(&pool, &["no-such-command"]).await.status.code(), Some(2));
    let doctor = forge(&pool, &["doctor"]).await;
    assert!(text(&doctor.stdout).contains(&pool.api.url), "{}", text(&doctor.stdout));
    pool.kill_hub().await;
    let unreachable = forge(&pool, &["jobs"]).await;
    assert_eq!(unreachable.status.code(), Some(5));
    assert!(text(&unreachable.stderr).contains("forgepool up"), "{}", text(&unreachable.stderr));
}

#[tokio::test]
async fn every_example_runs() {
    let pool = Pool::start(2).await;
    let folder = tempfile::tempdir().unwrap();
    let input = |name: &str, rows, columns| {
        let file = folder.path().join(format!("{name}.npy"));
        std::fs::write(&file, Matrix::<f64>::random(1, rows, columns).file()).unwrap();
        format!("{name}={}", file.display())
    };
    let (a, b) = (input("a", 1024, 512), input("b", 512, 2048));
    for entry in std::fs::read_dir(root().join("examples")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "json") {
            let mut args = vec!["run", path.to_str().unwrap(), "--json"];
            if path.ends_with("matrix-product.json") {
                args.extend(["--input", &a, "--input", &b]);
            }
            let run = forge(&pool, &args).await;
            assert!(run.status.success(), "{}: {}", path.display(), text(&run.stderr));
            digest(&serde_json::from_slice(&run.stdout).unwrap());
        }
    }
    pool.stop().await;
}

#[tokio::test]
async fn the_quickstart_proves_that_it_repeats() {
    let mut command = tokio::process::Command::new(forgepool());
    command.arg("quickstart").env_remove("FORGEPOOL_URL").env_remove("FORGEPOOL_API_KEY");
    let output = forge_tests::within("end of the quickstart", command.output()).await.unwrap();
    let shown = text(&output.stdout);
    assert!(output.status.success(), "{shown}\n{}", text(&output.stderr));
    for piece in ["4 agents", "2 agents", "Equal, bit for bit", "curl -X POST", "TVaR", "█"] {
        assert!(shown.contains(piece), "{piece:?} is not in\n{shown}");
    }
}
