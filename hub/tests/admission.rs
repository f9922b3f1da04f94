//! The child that parses uploads: what it says, and that its limits end it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![cfg(target_os = "linux")]

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use forge_contract::{Digest, FailureCode};
use forge_hub::admission::{ExamineError, Examiner, ParseLimits};

fn hub() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_forge-hub"))
}

fn noop() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../workloads/dist/noop@1.wasm")
}

fn digest_of(path: &Path) -> Digest {
    Digest::of(&std::fs::read(path).unwrap())
}

/// A program of this shell text.
fn script(folder: &Path, text: &str) -> PathBuf {
    let path = folder.join("child");
    std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

async fn refused(program: PathBuf, limits: ParseLimits) -> String {
    let judged = Examiner::new(program, limits).examine(&noop(), &digest_of(&noop())).await.unwrap();
    let failure = judged.expect_err("refused");
    assert_eq!(failure.code, FailureCode::RequestComponentLimit, "{failure}");
    assert!(failure.detail.contains("build for size"), "{failure}");
    failure.detail
}

#[tokio::test]
async fn a_sound_component_comes_back_as_the_kernel_it_is() {
    let examiner = Examiner::new(hub(), ParseLimits::default());
    let digest = digest_of(&noop());
    let kernel = examiner.examine(&noop(), &digest).await.unwrap().unwrap();
    let here = forge_lifecycle::admit::inspect(&std::fs::read(noop()).unwrap()).unwrap();
    assert_eq!((kernel.digest, kernel.bytes, kernel.manifest), (here.digest, here.bytes, here.manifest));
    // A child that speaks of other bytes is not believed.
    let other = examiner.examine(&noop(), &Digest::of(b"other")).await;
    assert!(matches!(other, Err(ExamineError::Garbled { .. })), "{other:?}");
}

#[tokio::test]
async fn each_limit_ends_the_child_and_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let few = ParseLimits { memory_bytes: 1 << 20, ..ParseLimits::default() };
    assert!(refused(hub(), few).await.contains("1048576 bytes of memory"));
    let loops = script(folder.path(), "ulimit -t 1; while :; do :; done");
    assert!(refused(loops, ParseLimits::default()).await.contains("20 s of processor time"));
    let waits = script(folder.path(), "exec sleep 1000");
    let short = ParseLimits { wall: Duration::from_secs(1), ..ParseLimits::default() };
    assert!(refused(waits, short).await.contains("1 s of time"));
}

#[tokio::test]
async fn what_is_not_the_components_fault_is_no_refusal() {
    let folder = tempfile::tempdir().unwrap();
    for text in ["echo nonsense", "exit 1", "true"] {
        let examiner = Examiner::new(script(folder.path(), text), ParseLimits::default());
        let judged = examiner.examine(&noop(), &digest_of(&noop())).await;
        assert!(matches!(judged, Err(ExamineError::Garbled { .. })), "{text}: {judged:?}");
    }
    let nowhere = Examiner::new(folder.path().join("no such program"), ParseLimits::default());
    let judged = nowhere.examine(&noop(), &digest_of(&noop())).await;
    assert!(matches!(judged, Err(ExamineError::Start { .. })), "{judged:?}");
}
