//! What an author of kernels does, with the program itself: from an empty folder to a job and its evidence.

use std::path::Path;
use std::process::Output;
use std::time::Duration;

use forge_tests::binary::{forgepool, root};
use forge_tests::examples::NAMES;
use forge_tests::pool::Pool;
use serde_json::Value;

/// Longest a command may take before it is called hung, s: the first build of a Rust kernel compiles its dependencies.
const COMMAND_S: u64 = 900;

async fn forge(pool: Option<&Pool>, folder: &Path, args: &[&str]) -> Output {
    let mut command = tokio::process::Command::new(forgepool());
    command.args(args).current_dir(folder).env_remove("FORGEPOOL_URL").env_remove("FORGEPOOL_API_KEY");
    if let Some(pool) = pool {
        command.env("FORGEPOOL_URL", &pool.api.url).env("FORGEPOOL_API_KEY", &pool.api.key);
    }
    let limit = Duration::from_secs(COMMAND_S);
    tokio::time::timeout(limit, command.output()).await.expect("the command ends").expect("it starts")
}

#[track_caller]
fn good(output: &Output) -> String {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}\n{out}\n{err}", output.status);
    out.into_owned()
}

#[track_caller]
fn bad(output: &Output, code: i32) -> String {
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{text}");
    text
}

fn json(output: &Output) -> Value {
    let text = good(output);
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// Whether a tool says its version: where it does not, its language is passed over, and the test says so.
#[allow(clippy::print_stderr, reason = "what is passed over is said")]
fn has(tool: &str, args: &[&str]) -> bool {
    let found = std::process::Command::new(tool).args(args).output().is_ok_and(|output| output.status.success());
    if !found {
        eprintln!("passed over: `{tool} {}` does not run here", args.join(" "));
    }
    found
}

#[allow(clippy::print_stderr, reason = "what is passed over is said")]
fn has_rust() -> bool {
    let sysroot = std::process::Command::new("rustc").args(["--print", "sysroot"]).output();
    let sysroot = sysroot.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default();
    let found = Path::new(&sysroot).join("lib/rustlib/wasm32-unknown-unknown/lib").is_dir();
    if !found {
        eprintln!("passed over: rustc has no wasm32-unknown-unknown here (`rustup target add wasm32-unknown-unknown`)");
    }
    found
}

/// From `new` to a job's evidence, with nothing but the program.
async fn new_to_evidence(lang: &str, part: &str, truth: f64, within: f64) {
    let pool = Pool::start(2).await;
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let made = good(&forge(None, here, &["kernel", "new", "first", "--lang", lang]).await);
    assert!(made.contains("forgepool kernel push first --wait"), "{made}");
    bad(&forge(None, here, &["kernel", "new", "first", "--lang", lang]).await, 1);

    // A new kernel's first check runs something and warns that nothing is recorded.
    let first = json(&forge(None, here, &["kernel", "check", "first", "--json"]).await);
    assert_eq!(first["kernel"], "default/first@1", "{first:#}");
    assert_eq!(first["units"][0]["good"], true);
    assert_eq!(first["backends"].as_array().unwrap().len(), 3);
    assert!(first["warnings"][0].as_str().unwrap().contains("no known answers"), "{first:#}");
    assert_eq!(first["warnings"].as_array().unwrap().len(), 1, "the template's own figures are right: {first:#}");
    let recorded = json(&forge(None, here, &["kernel", "check", "first", "--record", "--json"]).await);
    assert_ne!(recorded["digest"], first["digest"], "known answers are part of the component");
    let again = json(&forge(None, here, &["kernel", "check", "first", "--json"]).await);
    assert_eq!((&again["digest"], &again["units"][0]["known"]), (&recorded["digest"], &Value::Bool(true)));
    assert_eq!(again["warnings"].as_array().unwrap().len(), 0, "{again:#}");

    let pushed = good(&forge(Some(&pool), here, &["kernel", "push", "first", "--wait"]).await);
    assert!(pushed.contains("state   admitted") && pushed.contains("forgepool run first/contract.json"), "{pushed}");
    let state = json(&forge(Some(&pool), here, &["run", "first/contract.json", "--json", "--quiet"]).await);
    let output = &state["hub"]["output"][part];
    let found = output.as_f64().or_else(|| output["mean"].as_f64()).unwrap_or_else(|| panic!("{state:#}"));
    assert!((found - truth).abs() <= within, "{part}: {found}, not {truth}");
    assert_eq!(state["hub"]["replay"]["component"], again["digest"]);
    evidence(&pool, here, state["job_id"].as_str().unwrap()).await;
    pool.stop().await;
}

/// The job's evidence, fetched, sound without a hub, and computed again here with the same bits.
async fn evidence(pool: &Pool, here: &Path, job: &str) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("job.evidence").to_string_lossy().into_owned();
    good(&forge(Some(pool), here, &["evidence", job, "-o", &file]).await);
    good(&forge(None, here, &["verify", &file]).await);
    good(&forge(None, here, &["replay", &file, "--units", "0..1"]).await);
}

#[tokio::test]
async fn a_new_kernel_in_text_goes_from_nothing_to_a_job() {
    // Multiples of 3 or 5 up to a million: 333,333 + 200,000 - 66,666.
    new_to_evidence("wat", "multiples", 466_667.0, 0.0).await;
}

#[tokio::test]
async fn a_new_kernel_in_c_goes_from_nothing_to_a_job() {
    if has("clang", &["--version"]) && has("wasm-ld", &["--version"]) {
        // A disc of radius 2, 10^6 samples: standard error 16 sqrt(2/3 - (pi/4)^2) / 1000.
        new_to_evidence("c", "area", 4.0 * std::f64::consts::PI, 5.0 * 0.003_571).await;
    }
}

/// The walk through `docs/kernel-authors.md`, word for word, in Rust.
#[tokio::test]
async fn the_guide_can_be_followed_to_the_letter() {
    if !has_rust() {
        return;
    }
    let pool = Pool::start(2).await;
    let folder = tempfile::tempdir().unwrap();
    let (mut here, mut job) = (folder.path().to_owned(), String::new());
    let guide = std::fs::read_to_string(root().join("docs/kernel-authors.md")).unwrap();
    let commands = commands(&guide);
    assert!(commands.len() >= 8, "the guide's commands: {commands:?}");
    for line in commands {
        if let Some(folder) = line.strip_prefix("cd ") {
            here = here.join(folder);
            continue;
        }
        let line = line.replace("JOB", &job);
        let words = words(&line);
        let Some((program, args)) = words.split_first() else { continue };
        assert_eq!(program, "forgepool", "the guide runs nothing else: {line}");
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let shown = good(&forge(Some(&pool), &here, &args).await);
        if args.first() == Some(&"run") {
            let found = shown.split_whitespace().find(|word| word.len() == 26 && word.starts_with("01"));
            found.unwrap_or_else(|| panic!("no job in {shown}")).clone_into(&mut job);
            assert!(shown.contains("COMPLETED"), "{shown}");
        }
    }
    pool.stop().await;
}

/// Commands of the guide's blocks marked `sh`, in order, without those that start the pool itself.
fn commands(guide: &str) -> Vec<String> {
    let blocks = guide.split("```sh\n").skip(1).filter_map(|rest| rest.split("```").next());
    let lines = blocks.flat_map(str::lines).map(|line| line.split(" # ").next().unwrap_or("").trim());
    lines.filter(|line| !line.is_empty() && !line.starts_with("forgepool up")).map(str::to_owned).collect()
}

/// A command line's words; double quotes hold one together.
fn words(line: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    for (index, piece) in line.split('"').enumerate() {
        if index % 2 == 1 {
            words.push(piece.to_owned());
        } else {
            words.extend(piece.split_whitespace().map(str::to_owned));
        }
    }
    words
}

/// Each example's committed component, uploaded as a user would, and the job of its own contract.
#[tokio::test]
async fn every_example_is_pushed_and_run() {
    let pool = Pool::start(2).await;
    for name in NAMES {
        let file = format!("examples/kernels/dist/{name}@1.wasm");
        let pushed = good(&forge(Some(&pool), root(), &["kernel", "push", &file, "--wait"]).await);
        assert!(pushed.contains("state   admitted"), "{pushed}");
        // The same bytes again change nothing.
        let again = json(&forge(Some(&pool), root(), &["kernel", "push", &file, "--wait", "--json"]).await);
        assert_eq!(again["state"], "admitted", "{again:#}");
        let contract = format!("examples/kernels/{name}/contract.json");
        let state = json(&forge(Some(&pool), root(), &["run", &contract, "--json", "--quiet"]).await);
        assert_eq!((&state["status"], &state["hub"]["replay"]["component"]), (&"COMPLETED".into(), &again["digest"]));
        let output = &state["hub"]["output"];
        match name {
            "primes" => assert_eq!(output["primes"], 664_579, "primes up to ten million"),
            "pricer" => {
                let (mean, error) = (output["price"]["mean"].as_f64(), output["price"]["std_error"].as_f64());
                assert!((mean.unwrap() - 11.123_762).abs() < 4.5 * error.unwrap(), "{output:#}");
            }
            _ => assert_eq!(output["spans"]["n"], 2_000, "{output:#}"),
        }
        evidence(&pool, root(), state["job_id"].as_str().unwrap()).await;
    }
    let listed = good(&forge(Some(&pool), root(), &["kernel", "list"]).await);
    for name in ["mc@1", "default/percolation@1", "default/pricer@1", "default/primes@1"] {
        assert!(listed.contains(name), "{listed}");
    }
    pool.stop().await;
}

#[tokio::test]
async fn a_version_is_for_ever_and_yanked_in_public() {
    let pool = Pool::start(1).await;
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    good(&forge(None, here, &["kernel", "new", "first", "--lang", "wat"]).await);
    let early = bad(&forge(Some(&pool), here, &["kernel", "push", "first", "--wait"]).await, 1);
    assert!(early.contains("known answer"), "{early}");
    good(&forge(None, here, &["kernel", "check", "first", "--record"]).await);
    good(&forge(Some(&pool), here, &["kernel", "push", "first", "--wait"]).await);
    // Other bytes under the same name and version.
    let text = std::fs::read_to_string(here.join("first/kernel.wat")).unwrap();
    std::fs::write(here.join("first/kernel.wat"), text.replace("(i64.const 5)", "(i64.const 7)")).unwrap();
    let refused = bad(&forge(Some(&pool), here, &["kernel", "push", "first", "--wait"]).await, 3);
    assert!(refused.contains("first@1"), "{refused}");

    let label = "default/first@1";
    let deprecated =
        good(&forge(Some(&pool), here, &["kernel", "deprecate", label, "--reason", "use version 2"]).await);
    assert!(deprecated.contains("deprecated") && deprecated.contains("use version 2"), "{deprecated}");
    good(&forge(Some(&pool), here, &["run", "first/contract.json", "--quiet"]).await);
    let yanked = good(&forge(Some(&pool), here, &["kernel", "yank", label, "--reason", "wrong for negatives"]).await);
    assert!(yanked.contains("yanked"), "{yanked}");
    bad(&forge(Some(&pool), here, &["run", "first/contract.json", "--quiet"]).await, 3);
    let shown = good(&forge(Some(&pool), here, &["kernel", "show", label]).await);
    assert!(shown.contains("wrong for negatives"), "{shown}");
    pool.stop().await;
}

#[tokio::test]
async fn check_says_what_is_wrong_in_the_authors_words() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let write = |text: &str| std::fs::write(here.join("first/kernel.wat"), text).unwrap();
    good(&forge(None, here, &["kernel", "new", "first", "--lang", "wat"]).await);
    let honest = std::fs::read_to_string(here.join("first/kernel.wat")).unwrap();
    good(&forge(None, here, &["kernel", "check", "first", "--record"]).await);
    let changed = |from: &str, to: &str| {
        assert!(honest.contains(from), "{from}");
        honest.replacen(from, to, 1)
    };

    // Another answer than the known one.
    write(&changed("(i64.const 3)", "(i64.const 4)"));
    let text = bad(&forge(None, here, &["kernel", "check", "first"]).await, 9);
    assert!(text.contains("is known") && text.contains("raise `version`"), "{text}");
    // A trap.
    write(&changed("(local.set $number", "unreachable (local.set $number"));
    let text = bad(&forge(None, here, &["kernel", "check", "first"]).await, 9);
    assert!(text.contains("agent.trap") && text.contains("a trap is a panic"), "{text}");
    // No end.
    write(&changed("(block $done", "(loop $for_ever (br $for_ever)) (block $done"));
    let text = bad(&forge(None, here, &["kernel", "check", "first"]).await, 9);
    assert!(text.contains("agent.fuel_exhausted") && text.contains("limits.fuel"), "{text}");
    // Another name than declared.
    write(&changed("\"multiples\"", "\"multiplos\""));
    let text = bad(&forge(None, here, &["kernel", "check", "first"]).await, 9);
    assert!(text.contains("multiplos") && text.contains("kernel.toml declares"), "{text}");
    // More memory than any kernel has.
    write(&changed("(memory (export \"memory\") 2 2)", "(memory (export \"memory\") 2)"));
    let text = bad(&forge(None, here, &["kernel", "check", "first"]).await, 9);
    assert!(text.contains("no maximum"), "{text}");
    // A symbol that no linker found.
    write(&changed("(module\n", "(module (import \"env\" \"expf\" (func (param f32) (result f32)))\n"));
    let text = bad(&forge(None, here, &["kernel", "check", "first"]).await, 1);
    assert!(text.contains("env::expf"), "{text}");
    // Clocks and entropy, each by name, in a component as another toolchain makes it.
    let component = r#"(component
        (import "wasi:clocks/wall-clock@0.2.6" (instance))
        (import "wasi:random/random@0.2.6" (instance)))"#;
    std::fs::write(here.join("clock.wasm"), wat::parse_str(component).unwrap()).unwrap();
    let text = bad(&forge(None, here, &["kernel", "check", "clock.wasm"]).await, 9);
    assert!(text.contains("imports wasi:clocks/wall-clock@0.2.6: kernels have no clock"), "{text}");
    assert!(text.contains("SystemTime::now") && text.contains("imports wasi:random/random@0.2.6"), "{text}");
    // Figures far from what is measured.
    write(&honest);
    let manifest = std::fs::read_to_string(here.join("first/kernel.toml")).unwrap();
    let manifest = manifest.replace("fuel_expected = 1_440_000", "fuel_expected = 10_000_000");
    std::fs::write(here.join("first/kernel.toml"), manifest.replace("131_072", "67_108_864")).unwrap();
    let found = json(&forge(None, here, &["kernel", "check", "first", "--json"]).await);
    let warnings = found["warnings"].to_string();
    assert!(warnings.contains("fuel_expected is 10,000,000"), "{warnings}");
    assert!(warnings.contains("limits.memory_bytes is 67108864"), "{warnings}");
}

/// The generator of the C kit draws, word for word, what every other kernel draws.
#[test]
fn the_c_kit_draws_the_words_of_rand_chacha() {
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::{RngCore, SeedableRng};

    let folder = tempfile::tempdir().unwrap();
    let program = r#"#define FORGEPOOL_IMPLEMENTATION
        #include "forgepool.h"
        #include <stdio.h>
        int main(void) {
            uint8_t key[32];
            for (int i = 0; i < 32; i++) key[i] = (uint8_t)(i * 37 ^ 9);
            forge_task task = { .index = 4294967303u, .seed = key, .args = forge_text("{\"a\":\"}\\\",\",\"b\":[1,{\"c\":2}],\"n\":-12.5e-3,\"w\":18446744073709551615}") };
            forge_generator random = forge_seeded(&task);
            for (int i = 0; i < 200; i++) printf("%u\n", forge_next_u32(&random));
            double n; uint64_t w; forge_string missing;
            int good = forge_number(&task, "n", &n) && forge_whole(&task, "w", &w) && !forge_argument(&task, "c", &missing);
            printf("%d %.17g %llu\n", good, n, (unsigned long long)w);
            return 0;
        }"#;
    std::fs::write(folder.path().join("words.c"), program).unwrap();
    let binary = folder.path().join("words");
    let kit = root().join("sdk-guest/c");
    let built = std::process::Command::new("cc")
        .arg("-I")
        .arg(kit)
        .arg(folder.path().join("words.c"))
        .arg("-o")
        .arg(&binary)
        .output();
    let built = built.expect("a C compiler: the project's own tests need one");
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    let said = String::from_utf8(std::process::Command::new(&binary).output().unwrap().stdout).unwrap();
    let mut lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines.pop(), Some("1 -0.012500000000000001 18446744073709551615"));
    let key: [u8; 32] = std::array::from_fn(|i| (u8::try_from(i).unwrap().wrapping_mul(37)) ^ 9);
    let mut theirs = ChaCha8Rng::from_seed(key);
    theirs.set_stream(4_294_967_303);
    let expected: Vec<String> = (0..200).map(|_| theirs.next_u32().to_string()).collect();
    assert_eq!(lines, expected);
}
