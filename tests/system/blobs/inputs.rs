//! Content as the input of a job, by the interface and by the command line.

use std::ffi::OsString;
use std::path::Path;
use std::process::Output;

use forge_contract::Digest;
use forge_tests::api::Api;
use forge_tests::binary::forgepool;
use forge_tests::component::{component, with_manifest};
use forge_tests::pool::Pool;
use serde_json::{Value, json};
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpStream};

use super::{blob, bytes, listed, memory_kib, put, refused, store, upload_at};
use crate::provider::say;

/// A kernel of one unit that counts up the bytes of its input, 1,000 of them from `offset` on; with `required` false the
/// input is optional.
fn write_kernel(folder: &Path, version: u32, offset: usize, required: bool) {
    let read = include_str!("../../hostile/kernels/read.wat");
    let read = read.replace("(i64.const 1)", &format!("(i64.const {offset})")).replace("1000000", "1000");
    let piece = |from: &str, to: &str| read.split_once(from).unwrap().1.split_once(to).unwrap().0.to_owned();
    let core = read.split_once(";;; core\n").unwrap().1.to_owned();
    let (imports, arguments) = (piece(";;; imports\n", ";;; arguments\n"), piece(";;; arguments\n", ";;; core\n"));
    let required = if required { json!(["data"]) } else { json!([]) };
    let manifest = json!({
        "name": "tally", "version": version, "interface": "forgepool:kernel@1.0.0", "summary": "Adds up bytes.",
        "profiles": {"bytes.v1": {
            "summary": "Adds up bytes.",
            "args": {"type": "object", "required": required, "additionalProperties": false, "properties": {
                "data": {"type": "string", "pattern": "^[0-9a-f]{64}$"},
            }},
            "stages": [{
                "name": "add", "split": "once", "inputs": [{"name": "data", "from": {"argument": "data"}}],
                "parts": [{"name": "work", "kind": "count"}],
                "limits": {"fuel": 50_000_000, "memory_bytes": 1 << 20, "output_bytes": 4096}, "fuel_expected": 10_000,
            }],
        }},
    });
    let component = with_manifest(component(&imports, &arguments, &core), &manifest);
    std::fs::write(folder.join(format!("tally@{version}.wasm")), component).unwrap();
}

fn contract(version: u32, args: Value) -> Value {
    json!({
        "ctx": {"billing": {"mode": "test"}},
        "op": {"name": "tally", "version": version, "profile": "bytes.v1"},
        "seed": {"mode": "explicit", "value": "S"},
        "policy": {"target": "cpu", "min_agents": 1, "max_agents": 8, "verify": "none"},
        "args": args,
    })
}

fn sum(bytes: &[u8]) -> u64 {
    bytes.iter().map(|byte| u64::from(*byte)).sum()
}

fn counted(state: &Value) -> u64 {
    assert_eq!(state["status"], "COMPLETED", "{state:#}");
    let text = state["hub"]["output"].to_string();
    let work = state.pointer("/hub/output/work/value").or_else(|| state.pointer("/hub/output/work"));
    work.and_then(Value::as_u64).unwrap_or_else(|| panic!("no count in {text}"))
}

async fn started(kernels: &Path, agents: usize, more: &[&str]) -> Pool {
    let mut args = vec!["--kernels", kernels.to_str().unwrap()];
    args.extend(more);
    Pool::start_with(agents, &args).await
}

#[tokio::test]
async fn a_job_reads_its_projects_content_only() {
    let kernels = tempfile::tempdir().unwrap();
    write_kernel(kernels.path(), 1, 5, true);
    write_kernel(kernels.path(), 2, 5, false);
    let pool = started(kernels.path(), 1, &["--announce-project", "second"]).await;
    let mut stranger = pool.api.clone();
    stranger.key = pool.ready["project_keys"]["second"].as_str().unwrap().to_owned();
    let content = bytes(40_000, 1);
    let digest = store(&stranger, &content).await;
    let asked = contract(1, json!({"data": digest.to_string()}));
    // Another project's content is as unknown as none at all, and so is an object of the hub's own.
    for foreign in [digest, Digest::of(b"nowhere"), own_object(&pool.api).await] {
        let asked = contract(1, json!({"data": foreign.to_string()}));
        let answer = pool.api.execute(&asked).await;
        let words = ["args.data", &foreign.to_string(), "forgepool blob put"];
        refused("unknown content", &answer, 404, "request.not_found", &words);
        assert_eq!(answer.at("/pointer"), "/args/data");
    }
    let done = stranger.execute(&asked).await;
    assert_eq!(counted(&done.body), sum(&content[5..1_005]));
    // The input is optional: it is not there, which the kernel says, and no agent is blamed.
    let absent = stranger.execute(&contract(2, json!({}))).await;
    assert_eq!(absent.at("/error/code"), "agent.trap", "{}", absent.text);
    let present = stranger.execute(&contract(2, json!({"data": digest.to_string()}))).await;
    assert_eq!(counted(&present.body), sum(&content[5..1_005]));
    pool.stop().await;
}

/// The digest of a component, which the hub stores but no project has sent.
async fn own_object(api: &Api) -> Digest {
    let kernels = api.get("/api/v0/kernels").await;
    kernels.at("/items/0/digest").as_str().unwrap().parse().unwrap()
}

/// What serving a large input may add to the hub's memory, KiB.
const GROWTH_KIB_MAX: u64 = 40 << 10;

#[tokio::test]
async fn of_a_large_input_the_agent_fetches_what_is_read_and_the_hub_holds_little() {
    const BYTES: usize = 150_000_000;
    let kernels = tempfile::tempdir().unwrap();
    write_kernel(kernels.path(), 1, BYTES - 1_000, true);
    let pool = started(kernels.path(), 1, &[]).await;
    let content = bytes(BYTES, 2);
    let hub = pool.hub.id();
    std::fs::write(format!("/proc/{hub}/clear_refs"), "5").ok();
    let before = memory_kib(hub, "VmRSS:");
    let digest = store(&pool.api, &content).await;
    let done = pool.api.execute(&contract(1, json!({"data": digest.to_string()}))).await;
    assert_eq!(counted(&done.body), sum(&content[BYTES - 1_000..]));
    let grown = memory_kib(hub, "VmHWM:").saturating_sub(before);
    assert!(grown < GROWTH_KIB_MAX, "the hub grew by {grown} KiB");
    let fetched = say("status", &pool.agent_dir(0)).await["fetched_bytes"].as_u64().unwrap();
    assert!((1_000..100_000).contains(&fetched), "the agent fetched {fetched} bytes");
    pool.stop().await;
}

async fn forge(pool: &Pool, folder: &Path, args: &[&str]) -> Output {
    let mut command = tokio::process::Command::new(forgepool());
    command
        .args(args.iter().map(OsString::from))
        .env("FORGEPOOL_URL", &pool.api.url)
        .env("FORGEPOOL_API_KEY", &pool.api.key);
    forge_tests::within("end of the command", command.current_dir(folder).output()).await.expect("it starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[tokio::test]
async fn the_command_line_puts_gets_lists_and_runs() {
    let folder = tempfile::tempdir().unwrap();
    let kernels = tempfile::tempdir().unwrap();
    write_kernel(kernels.path(), 1, 0, true);
    let pool = started(kernels.path(), 1, &[]).await;
    let content = bytes(20_000_000, 3);
    let digest = Digest::of(&content);
    std::fs::write(folder.path().join("data.bin"), &content).unwrap();
    std::fs::write(folder.path().join("small.bin"), b"small").unwrap();

    // Half of it came before the connection broke: the command goes on from there.
    let half = put(&pool.api, &digest, content.len(), 0, content[..10_000_000].to_vec()).await;
    assert_eq!(half.status, 202, "{}", half.text);
    upload_at(&pool.api, &digest, 10_000_000).await;
    let sent = forge(&pool, folder.path(), &["blob", "put", "data.bin", "small.bin"]).await;
    assert!(sent.status.success(), "{}", text(&sent.stderr));
    let small = Digest::of(b"small");
    assert_eq!(text(&sent.stdout), format!("{digest}  data.bin\n{small}  small.bin\n"));
    assert!(pool.hub.log().contains("content stored"), "{}", pool.hub.log());
    let again = forge(&pool, folder.path(), &["blob", "put", "--json", "data.bin"]).await;
    let again: Value = serde_json::from_slice(&again.stdout).unwrap();
    assert_eq!(
        again["items"][0],
        json!({"file": "data.bin", "digest": digest.to_string(), "bytes": 20_000_000, "new": false})
    );
    assert_eq!(listed(&pool.api).await.len(), 2);
    let list = text(&forge(&pool, folder.path(), &["blob", "list"]).await.stdout);
    assert!(list.contains(&digest.to_string()) && list.contains("20,000,000"), "{list}");

    // A part of an earlier fetch is used, and a wrong one is found out.
    let part = folder.path().join(format!(".back.bin.{}.part", digest.short()));
    for start in [content[..7_000_000].to_vec(), vec![0; 7_000_000], [content.clone(), vec![1]].concat(), vec![]] {
        let good = content.starts_with(&start);
        std::fs::write(&part, &start).unwrap();
        let got = forge(&pool, folder.path(), &["blob", "get", &digest.to_string(), "-o", "back.bin"]).await;
        assert_eq!(got.status.success(), good, "{}", text(&got.stderr));
        assert!(good || text(&got.stderr).contains("thrown away"), "{}", text(&got.stderr));
        assert!(!part.exists());
        let back = std::fs::read(folder.path().join("back.bin")).unwrap();
        assert!(back == content, "what is under the name is whole");
    }
    let missing = forge(&pool, folder.path(), &["blob", "get", &Digest::of(b"?").to_string(), "-o", "no.bin"]).await;
    assert_eq!(missing.status.code(), Some(3));
    assert!(std::fs::read_dir(folder.path()).unwrap().count() == 3, "nothing is left beside");

    std::fs::write(folder.path().join("contract.json"), contract(1, json!({})).to_string()).unwrap();
    std::fs::write(folder.path().join("new.bin"), &content[1..2_000]).unwrap();
    for (file, said, expected) in [
        ("new.bin", "sent", sum(&content[1..1_001])),
        ("new.bin", "there already", sum(&content[1..1_001])),
        ("data.bin", "there already", sum(&content[..1_000])),
    ] {
        let input = format!("data={file}");
        let run = forge(&pool, folder.path(), &["run", "contract.json", "--input", &input, "--json"]).await;
        let told = text(&run.stderr);
        assert!(run.status.success() && told.contains("args.data = ") && told.contains(said), "{told}");
        assert_eq!(counted(&serde_json::from_slice(&run.stdout).unwrap()), expected);
    }
    let absent = forge(&pool, folder.path(), &["run", "contract.json", "--input", "data=none.bin"]).await;
    assert_eq!(absent.status.code(), Some(1));
    assert!(text(&absent.stderr).contains("cannot read none.bin"), "{}", text(&absent.stderr));
    assert_eq!(pool.api.get(&blob(&digest)).await.status, 200);
    pool.stop().await;
}

/// Passes connections on to `hub`; the first ends after so many bytes up or down.
async fn cutting(hub: &str, up: u64, down: u64) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let hub = hub.trim_start_matches("http://").to_owned();
    tokio::spawn(async move {
        let (mut up, mut down) = (up, down);
        while let Ok((client, _)) = listener.accept().await {
            let (from_client, mut to_client) = client.into_split();
            let (from_hub, mut to_hub) = TcpStream::connect(&hub).await.unwrap().into_split();
            let (mut going, mut coming) = (from_client.take(up), from_hub.take(down));
            (up, down) = (u64::MAX, u64::MAX);
            tokio::spawn(async move {
                // Whichever ends first ends both.
                tokio::select! {
                    _ = tokio::io::copy(&mut going, &mut to_hub) => {}
                    _ = tokio::io::copy(&mut coming, &mut to_client) => {}
                }
            });
        }
    });
    url
}

#[tokio::test]
async fn the_command_line_goes_on_where_the_line_broke() {
    let folder = tempfile::tempdir().unwrap();
    let pool = Pool::start(0).await;
    let content = bytes(20_000_000, 4);
    let digest = Digest::of(&content);
    std::fs::write(folder.path().join("data.bin"), &content).unwrap();

    let url = cutting(&pool.api.url, 9_000_000, u64::MAX).await;
    let sent = forge(&pool, folder.path(), &["blob", "put", "data.bin", "--url", &url]).await;
    assert!(sent.status.success(), "{}", text(&sent.stderr));
    assert_eq!(listed(&pool.api).await, [(digest.to_string(), 20_000_000)]);
    // The hub may notice the break only after the command has gone on over another connection.
    forge_tests::until("word of the broken body", || async {
        pool.hub.log().contains("the body broke off").then_some(())
    })
    .await;

    let url = cutting(&pool.api.url, u64::MAX, 9_000_000).await;
    let got = forge(&pool, folder.path(), &["blob", "get", &digest.to_string(), "-o", "back.bin", "--url", &url]).await;
    assert!(got.status.success(), "{}", text(&got.stderr));
    assert!(std::fs::read(folder.path().join("back.bin")).unwrap() == content);
    assert!(text(&got.stderr).contains("digest verified"), "{}", text(&got.stderr));
    pool.stop().await;
}
