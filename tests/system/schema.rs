//! The served OpenAPI document against the hub itself, by Schemathesis: every documented answer true, no failure that
//! nobody expected, whatever is sent; what the document allows is not refused for its shape, and what it does not allow is
//! refused.
//!
//! The tool is Python's; its pinned versions are installed into a folder below the build's the first time.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use forge_tests::binary::root;
use forge_tests::pool::Pool;
use tokio::process::Command;

/// Where the tool is kept between runs: beside the programs that were built.
fn tools() -> PathBuf {
    let built = std::env::current_exe().expect("this test is a file");
    built.ancestors().nth(3).expect("it lies in target/debug/deps").join("tools/schemathesis")
}

async fn run(what: &str, command: &mut Command) -> (bool, String) {
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output();
    let output = output.await.unwrap_or_else(|error| panic!("{what} cannot be started: {error}"));
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    (output.status.success(), said)
}

/// The tool, installed where it is not there in these versions yet.
async fn schemathesis() -> PathBuf {
    let wanted = std::fs::read_to_string(root().join("tests/schemathesis/requirements.txt")).unwrap();
    let (folder, note) = (tools(), tools().join("installed.txt"));
    if std::fs::read_to_string(&note).is_ok_and(|installed| installed == wanted) {
        return folder.join("bin/schemathesis");
    }
    if folder.exists() {
        std::fs::remove_dir_all(&folder).unwrap();
    }
    let (made, said) = run("python3", Command::new("python3").args(["-m", "venv"]).arg(&folder)).await;
    assert!(made, "python3 with its venv module is needed for this test: {said}");
    let requirements = root().join("tests/schemathesis/requirements.txt");
    let mut install = Command::new(folder.join("bin/pip"));
    install.args(["install", "--quiet", "--disable-pip-version-check", "--requirement"]).arg(requirements);
    let (installed, said) = run("pip", &mut install).await;
    assert!(installed, "Schemathesis could not be installed: {said}");
    std::fs::write(note, wanted).unwrap();
    folder.join("bin/schemathesis")
}

/// The last lines, which hold the summary, after those that name a failure.
fn findings(said: &str) -> String {
    let from = said.find("= FAILURES =").or_else(|| said.find("= ERRORS =")).unwrap_or(0);
    let shown = said.get(from..).unwrap_or(said);
    shown.lines().take(400).collect::<Vec<_>>().join("\n")
}

#[tokio::test]
async fn every_documented_answer_is_true_whatever_is_sent() {
    let tool = schemathesis().await;
    let pool = Pool::start(1).await;
    let folder = tempfile::tempdir().unwrap();
    let settings: &Path = &root().join("tests/schemathesis");
    let mut command = Command::new(tool);
    command.arg("--config-file").arg(settings.join("schemathesis.toml")).arg("run");
    command.arg(format!("{}/api/v0/openapi.json", pool.api.url));
    command.args(["--header", &format!("Authorization: Bearer {}", pool.api.key)]);
    command.args(["--checks", "all", "--seed", "20261130", "--max-examples", "25", "--generation-deterministic"]);
    command.args(["--request-timeout", "20", "--continue-on-failure", "--no-color"]);
    command.env("SCHEMATHESIS_HOOKS", settings.join("hooks.py")).current_dir(folder.path());
    let (good, said) = run("schemathesis", &mut command).await;
    assert!(good, "{}", findings(&said));
    // What the hub makes of all this is still a hub.
    assert_eq!(pool.api.get("/readyz").await.status, 200);
    pool.stop().await;
}
