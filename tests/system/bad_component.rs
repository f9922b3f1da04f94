//! Bad uploads 16-26 of the security design, against the real server and real agents.
//!
//! Each is answered with a status, a stable code, the rule, the offender and the fix; the registry is as it was, and a
//! job that runs meanwhile gives the bits it gives alone.

use forge_contract::Digest;
use forge_tests::api::{Answer, upload_path};
use forge_tests::component::{
    HONEST, component, contract, guessed, honest, kernel, leb, manifest, recorded, with_manifest,
};
use forge_tests::contract::{changed, insurance};
use forge_tests::pool::Pool;
use forge_tests::process::is_alive;
use forge_tests::raw::Raw;
use forge_tests::until;
use reqwest::Method;
use serde_json::{Value, json};

use crate::answers::digest;

const NAME: &str = "default/bad";

/// A component that must be refused, with its status, code, and words of the detail: rule, offender and fix.
struct Bad {
    what: &'static str,
    bytes: Vec<u8>,
    code: &'static str,
    says: &'static [&'static str],
}

fn bad(what: &'static str, bytes: Vec<u8>, code: &'static str, says: &'static [&'static str]) -> Bad {
    Bad { what, bytes, code: Box::leak(format!("request.component_{code}").into_boxed_str()), says }
}

/// The manifest of a kernel that would be tried.
fn tried() -> Value {
    let mut tried = manifest(NAME, 1);
    tried["profiles"]["count.v1"]["goldens"] = json!([guessed(25, 0)]);
    tried
}

/// A kernel whose module has this in it besides.
fn within(more: &str) -> Vec<u8> {
    with_manifest(honest(more), &tried())
}

/// A component of this text, with a manifest.
fn text(body: &str) -> Vec<u8> {
    with_manifest(wat::parse_str(format!("(component {body})")).unwrap(), &tried())
}

/// A component in a component, and so on: section 4 holds the inner one.
fn nested(levels: usize) -> Vec<u8> {
    let mut bytes = b"\0asm\x0d\0\x01\0".to_vec();
    if levels > 0 {
        let inner = nested(levels - 1);
        bytes.push(4);
        bytes.extend(leb(inner.len()));
        bytes.extend(inner);
    }
    bytes
}

fn native_program() -> Vec<u8> {
    let mut bytes = std::fs::read(std::env::current_exe().unwrap()).unwrap();
    bytes.truncate(200_000);
    bytes
}

/// A function of about this many bytes of code.
fn long_function(bytes: usize) -> String {
    // Six bytes each: local.get, f64.sqrt, local.get, f64.add, local.set.
    format!("(func (param f64) {})", "(local.set 0 (f64.add (f64.sqrt (local.get 0)) (local.get 0)))".repeat(bytes / 8))
}

fn switch(targets: usize) -> String {
    format!("(func (param i32) (block (br_table {}(local.get 0))))", "0 ".repeat(targets))
}

/// Loops in loops around a change of every local: each loop's head must merge all of them.
fn loops(depth: usize) -> String {
    let change = |local| format!("local.get {local} i64.const 1 i64.add local.set {local} ");
    let changes: String = (1..=999).map(change).collect();
    let (open, close) = ("loop ".repeat(depth), "local.get 0 br_if 0 end ".repeat(depth));
    format!("(func (param i32) (local {}) {open}{changes}{close})", "i64 ".repeat(999))
}

fn formats() -> Vec<Bad> {
    let mut cut = kernel(NAME, 1, "");
    cut.truncate(cut.len() / 2);
    vec![
        bad(
            "16 core module",
            wat::parse_str("(module)").unwrap(),
            "format",
            &["core module", "forgepool kernel build"],
        ),
        bad(
            "17 native program renamed",
            native_program(),
            "format",
            &["no WebAssembly component", "\\x7fELF", "native program"],
        ),
        bad("17 text renamed", b"(component)".to_vec(), "format", &["its text form"]),
        bad("a component cut in half", cut, "invalid", &["byte "]),
        bad(
            "19 clock",
            text(r#"(import "wasi:clocks/wall-clock@0.2.0" (instance))"#),
            "import",
            &["import 'wasi:clocks/wall-clock@0.2.0'", "no clock", "remove its use"],
        ),
        bad(
            "19 random",
            text(r#"(import "wasi:random/random@0.2.6" (instance))"#),
            "import",
            &["import 'wasi:random/random@0.2.6'", "no entropy", "task.seed"],
        ),
        bad(
            "20 missing export",
            text(""),
            "export",
            &["forgepool:kernel/unit@1.0.0' is missing", "implement the world"],
        ),
        bad(
            "20 wrong type",
            text(WRONG_TYPE),
            "export",
            &["func(task: u32) -> u32", "expected func(task: record", "wit/kernel.wit"],
        ),
        bad("22 relaxed SIMD", within(RELAXED), "invalid", &["relaxed SIMD"]),
        bad("22 shared memory", text("(core module (memory 1 2 shared))"), "invalid", &["threads"]),
        bad("22 GC", within("(type (struct (field i32)))"), "invalid", &["without threads, GC"]),
        bad("no manifest", honest(""), "manifest", &["found 0, expected 1", "kernel.toml"]),
        bad("another namespace", kernel("second/bad", 1, ""), "manifest", &["'second/bad'", "name = \"default/bad\""]),
        bad("no namespace", kernel("bad", 1, ""), "manifest", &["named 'bad'", "name = \"default/bad\""]),
        bad(
            "no golden",
            with_manifest(honest(""), &manifest(NAME, 1)),
            "golden",
            &["/profiles/count.v1/goldens", "kernel check --record"],
        ),
        bad(
            "a golden beyond the last unit",
            with_manifest(honest(""), &beyond()),
            "golden",
            &["/goldens/0", "no unit 3"],
        ),
    ]
}

fn beyond() -> Value {
    let mut beyond = tried();
    beyond["profiles"]["count.v1"]["goldens"] = json!([guessed(25, 3)]);
    beyond
}

const WRONG_TYPE: &str = r#"(core module $m (func (export "execute") (param i32) (result i32) local.get 0))
    (core instance $i (instantiate $m))
    (func $f (param "task" u32) (result u32) (canon lift (core func $i "execute")))
    (instance $unit (export "execute" (func $f)))
    (export "forgepool:kernel/unit@1.0.0" (instance $unit))"#;
const RELAXED: &str =
    "(func (param v128 v128 v128) (result v128) (f32x4.relaxed_madd (local.get 0) (local.get 1) (local.get 2)))";

/// Every limit of admission, one step beyond it.
fn limits() -> Vec<Bad> {
    let module = |body: &str| text(&format!("(core module {body})"));
    vec![
        bad(
            "21 memory without maximum",
            module("(memory 1)"),
            "limit",
            &["core module 0", "no maximum", "536870912", "--max-memory"],
        ),
        bad(
            "21 memory beyond the largest",
            module("(memory 1 8193)"),
            "limit",
            &["536936448 bytes of declared memory"],
        ),
        bad("table without maximum", module("(table 1 funcref)"), "limit", &["elements of a table", "10000"]),
        bad("table beyond the largest", module("(table 1 10001 funcref)"), "limit", &["10001 elements of a table"]),
        bad(
            "23 one huge function",
            within(&long_function(200_000)),
            "limit",
            &["bytes in one function body", "131072", "split the function", "of core module 0"],
        ),
        bad(
            "23 huge br_table",
            within(&switch(4098)),
            "limit",
            &["4097 targets of one br_table", "4096", "split the switch"],
        ),
        bad("23 too many functions", within(&"(func)".repeat(20_001)), "limit", &["functions, at most 20000"]),
        bad(
            "locals of one function",
            within(&format!("(func (local {}))", "i64 ".repeat(1001))),
            "limit",
            &["1001 locals in one function", "1000"],
        ),
        bad(
            "locals of all functions",
            within(&format!("(func (local {}))", "i64 ".repeat(1000)).repeat(201)),
            "limit",
            &["locals in all functions", "200000"],
        ),
        bad(
            "23 loops around all locals",
            within(&loops(14_000)),
            "limit",
            &[
                "14000000 levels of nested blocks times locals in one function",
                "at most 100000",
                "nest less deeply",
                "of core module 0",
            ],
        ),
        bad(
            "parameters",
            module(&format!("(type (func (param {})))", "i32 ".repeat(101))),
            "limit",
            &["101 parameters", "100"],
        ),
        bad(
            "results",
            module(&format!("(type (func (result {})))", "i32 ".repeat(17))),
            "limit",
            &["17 results", "16"],
        ),
        bad("core modules", text(&"(core module)".repeat(17)), "limit", &["17 core modules, at most 16"]),
        bad("24 nesting", nested(200), "limit", &["9 levels of nested components, at most 8"]),
    ]
}

fn check(what: &str, answer: &Answer, status: u16, code: &str, says: &[&str]) {
    assert_eq!((answer.status.as_u16(), answer.at("/code")), (status, &json!(code)), "{what}: {}", answer.text);
    assert_eq!(answer.headers["content-type"], "application/problem+json", "{what}");
    let detail = answer.at("/detail").as_str().unwrap_or_default();
    for words in says {
        assert!(detail.contains(words), "{what}: {words:?} is not in {detail:?}");
    }
    assert!(answer.at("/trace_id").is_string() && answer.at("/fix").is_string(), "{what}: {}", answer.text);
}

#[tokio::test]
async fn bad_components_change_nothing_and_disturb_nobody() {
    let mut pool = Pool::start(2).await;
    let long = changed(insurance(30_000_000), &[("/policy/shards", json!(60))]);
    let alone = digest(&pool.api.execute(&long).await.body);
    let before = pool.api.get("/api/v0/kernels").await.text;
    let job = pool.api.submit(&long).await;
    for Bad { what, bytes, code, says } in formats().into_iter().chain(limits()) {
        check(what, &pool.api.upload(&bytes).await, 422, code, says);
    }
    // 18 the digest of other bytes.
    let (good, other) = (kernel(NAME, 1, ""), Digest::of(b"other"));
    let request = pool.api.request(Method::POST, &upload_path(&other, good.len(), 0)).body(good.clone());
    let refused = pool.api.send(request).await;
    let digests = [Digest::of(&good).to_string(), other.to_string()];
    check("18 digest", &refused, 422, "request.digest_mismatch", &[&digests[0], &digests[1]]);
    assert_eq!(pool.api.get(&format!("/api/v0/uploads/{other}")).await.status, 404, "nothing of it is kept");
    // Beyond the largest component, as declared.
    let request = pool.api.request(Method::POST, &upload_path(&other, (16 << 20) + 1, 0)).body(b"x".to_vec());
    check(
        "size",
        &pool.api.send(request).await,
        422,
        "request.component_limit",
        &["16777217 bytes", "at most 16777216"],
    );
    let request = pool.api.request(Method::POST, "/api/v0/kernels?digest=x&bytes=1").body(b"x".to_vec());
    check("no digest", &pool.api.send(request).await, 400, "request.schema", &["64 hexadecimal digits"]);

    assert_eq!(pool.api.get("/api/v0/kernels").await.text, before, "the registry is as it was");
    assert_eq!(pool.api.get("/api/v0/kernels?state=refused").await.at("/items"), &json!([]));
    assert_eq!(digest(&pool.api.finished(&job).await), alone, "the job beside it");
    // Nor is any of it there after a restart.
    pool.kill_hub().await;
    pool.restart_hub().await;
    assert_eq!(pool.api.get("/api/v0/kernels").await.text, before);
    pool.stop().await;
}

/// 23: what is within the limits compiles within those of compiling, or is refused for it; the agent lives.
#[tokio::test]
async fn compile_bombs_within_the_limits_end_and_the_agent_lives() {
    let pool = Pool::start(1).await;
    let agent = pool.agent(0).id();
    // A unit's fuel is that of what it executes: the goldens of the bare kernel are true of all of these.
    let goldens = recorded(&honest(""), manifest(NAME, 1), &[(25, 0)]);
    let bombs = [
        ("one long function", long_function(120_000)),
        ("loops around all locals", loops(99)),
        ("switches", switch(4_096).repeat(30)),
        ("tiny functions", "(func)".repeat(19_990)),
        ("locals", format!("(func (local {}))", "i64 ".repeat(1000)).repeat(199)),
    ];
    for (version, (what, body)) in (1u32..).zip(&bombs) {
        let mut manifest = goldens.clone();
        manifest["version"] = json!(version);
        let bomb = with_manifest(component("", "", &format!("{HONEST}{body}")), &manifest);
        let uploaded = pool.api.upload(&bomb).await;
        assert_eq!(uploaded.status, 202, "{what}: {}", uploaded.text);
        let decided = pool.api.decided(&format!("{NAME}/{version}")).await;
        let compiled = decided["state"] == "admitted";
        assert!(compiled || decided["code"] == "agent.compile", "{what}: {decided:#}");
        assert!(is_alive(agent), "{what}");
        if compiled {
            assert_eq!(pool.api.execute(&contract(NAME, version, 30)).await.status, 200, "{what}");
        }
    }
    pool.stop().await;
}

#[tokio::test]
async fn an_upload_cut_at_99_percent_goes_on_where_it_broke() {
    let pool = Pool::start(1).await;
    // Large enough that the last percent is worth keeping.
    let data = format!("(data (i32.const 8192) \"{}\")", "x".repeat(40_000));
    let component = kernel(NAME, 1, &data);
    let (digest, kept) = (Digest::of(&component), component.len() * 99 / 100);
    let before = pool.api.get("/api/v0/kernels").await.text;
    let mut raw = Raw::open(&pool.api).await;
    let head = format!(
        "POST {} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\ncontent-type: application/wasm\r\ncontent-length: {}\r\n\r\n",
        upload_path(&digest, component.len(), 0),
        pool.api.key,
        component.len()
    );
    raw.send(head.as_bytes()).await;
    raw.send(&component[..kept]).await;
    drop(raw);
    let uploads = format!("/api/v0/uploads/{digest}");
    let offset = until("kept part", || async {
        let answer = pool.api.get(&uploads).await;
        answer.at("/offset").as_u64().filter(|offset| *offset == kept as u64)
    })
    .await;
    assert_eq!(pool.api.get("/api/v0/kernels").await.text, before);
    let go_on = |offset: usize| {
        let path = upload_path(&digest, component.len(), offset);
        pool.api.send(pool.api.request(Method::POST, &path).body(component[offset..].to_vec()))
    };
    check("wrong offset", &go_on(kept - 1).await, 409, "request.offset", &[&offset.to_string()]);
    let whole = go_on(kept).await;
    assert_eq!((whole.status.as_u16(), whole.at("/state")), (202, &json!("pending")), "{}", whole.text);
    assert_eq!(pool.api.decided(&format!("{NAME}/1")).await["state"], "admitted");
    pool.stop().await;
}

#[tokio::test]
async fn a_version_is_one_digest_for_ever() {
    let pool = Pool::start(1).await;
    let (first, second) = (kernel(NAME, 1, ""), kernel(NAME, 1, "(func)"));
    assert_eq!(pool.api.upload(&first).await.status, 202);
    let digests = [Digest::of(&first).to_string(), Digest::of(&second).to_string()];
    let says = [digests[0].as_str(), &digests[1], "default/bad@1", "raise `version`"];
    check("26 while pending", &pool.api.upload(&second).await, 409, "request.kernel_taken", &says);
    pool.api.decided(&format!("{NAME}/1")).await;
    let before = pool.api.get("/api/v0/kernels").await.text;
    check("26 other bytes", &pool.api.upload(&second).await, 409, "request.kernel_taken", &says);
    assert_eq!(pool.api.get("/api/v0/kernels").await.text, before);
    assert_eq!(pool.api.get(&format!("/api/v0/components/{}", digests[1])).await.status, 404);
    pool.stop().await;
}
