#![allow(clippy::unwrap_used)]
use super::*;

fn registry() -> (tempfile::TempDir, Registry) {
    let folder = tempfile::tempdir().unwrap();
    let blobs = Arc::new(Blobs::open(folder.path()).unwrap());
    (folder, Registry { kernels: RwLock::default(), blobs })
}

fn entry(name: &str, version: u32, project: Option<&str>, state: KernelState) -> Entry {
    let manifest = serde_json::json!({
        "name": name, "version": version, "interface": "forgepool:kernel@1.0.0", "summary": "s", "profiles": {}
    });
    let digest = Digest::of(format!("{name}{version}").as_bytes());
    let kernel = Arc::new(Kernel { digest, bytes: 1, manifest: serde_json::from_value(manifest).unwrap() });
    let standing = Standing { state, reason: Some("because".into()), ..Standing::pending() };
    Entry { kernel, project: project.map(Arc::from), recorded_ms: 1, standing, component: None }
}

fn op(name: &str, version: u32) -> Operation {
    Operation { name: name.into(), version, profile: "p".into() }
}

#[test]
fn what_is_not_there_is_named_with_what_is() {
    let (_folder, registry) = registry();
    let failure = registry.find("a", &op("mc", 2)).unwrap_err();
    assert_eq!((failure.code, failure.pointer.as_deref()), (FailureCode::RequestUnknownOp, Some("/op/name")));
    assert!(failure.detail.ends_with("there are: none"), "{}", failure.detail);
}

#[test]
fn each_state_says_whether_it_runs_and_why_not() {
    use FailureCode as C;
    let (_folder, registry) = registry();
    for (state, code) in [
        (KernelState::Pending, Some(C::RequestKernelPending)),
        (KernelState::Admitted, None),
        (KernelState::Refused, Some(C::RequestKernelRefused)),
        (KernelState::Deprecated, None),
        (KernelState::Yanked, Some(C::RequestKernelYanked)),
    ] {
        registry.put(entry("a/k", 1, Some("a"), state));
        let found = registry.find("a", &op("a/k", 1));
        assert_eq!(found.as_ref().err().map(|failure| failure.code), code, "{state:?}");
        let notice = found.ok().and_then(|entry| entry.notice());
        assert_eq!(notice.is_some(), state == KernelState::Deprecated, "{state:?}");
        if let Some(notice) = notice {
            assert_eq!(notice, "a/k@1 is deprecated: because");
        }
    }
}

#[test]
fn a_project_sees_its_own_and_those_that_come_with_the_hub() {
    let (_folder, registry) = registry();
    registry.put(entry("mc", 1, None, KernelState::Admitted));
    registry.put(entry("a/k", 1, Some("a"), KernelState::Admitted));
    registry.put(entry("a/k", 2, Some("a"), KernelState::Refused));
    registry.put(entry("b/k", 1, Some("b"), KernelState::Pending));
    let labels = |project, state, after: Option<&Key>, limit| {
        let list = registry.list(project, state, after, limit);
        list.iter().map(|entry| entry.kernel.manifest.label()).collect::<Vec<_>>()
    };
    assert_eq!(labels("a", None, None, 9), ["a/k@1", "mc@1"]);
    assert_eq!(labels("b", None, None, 9), ["b/k@1", "mc@1"]);
    assert_eq!(labels("a", Some(KernelState::Refused), None, 9), ["a/k@2"]);
    assert_eq!(labels("a", None, None, 1), ["a/k@1"]);
    assert_eq!(labels("a", None, Some(&("a/k".into(), 1)), 9), ["mc@1"]);
    let foreign = registry.find("b", &op("a/k", 1)).unwrap_err();
    assert_eq!((foreign.code, foreign.pointer.as_deref()), (FailureCode::RequestUnknownOp, Some("/op/name")));
    assert!(foreign.detail.ends_with("there are: mc@1"), "{foreign}");
    assert!(registry.of_component("b", &Digest::of(b"a/k1")).is_none());
    assert!(registry.of_component("a", &Digest::of(b"a/k1")).is_some());
    assert_eq!(registry.pending().len(), 1);
}
