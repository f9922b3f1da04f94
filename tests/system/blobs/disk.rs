//! A full disk, truly full: a file system of its own that a file fills, and a limit on the hub's files.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use forge_contract::Digest;
use forge_tests::api::{Answer, Api};
use forge_tests::contract::{changed, insurance};
use forge_tests::pool::Pool;
use forge_tests::process::Process;
use forge_tests::raw::Raw;
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use serde_json::json;

use super::{blob, bytes, listed, put, refused, store};
use crate::answers::digest;

#[tokio::test]
async fn a_file_over_the_process_limit_is_a_full_disk_to_its_sender_only() {
    let pool = Pool::start(1).await;
    let api = &pool.api;
    let contract = changed(insurance(2_000_000), &[("/policy/shards", json!(16))]);
    let undisturbed = digest(&api.execute(&contract).await.body);
    store(api, &bytes(1_000, 1)).await;
    let before = listed(api).await;
    let hub = Pid::from_raw(i32::try_from(pool.hub.id()).unwrap());
    // The write that crosses it fails with EFBIG.
    let limit = Rlimit { current: Some(12 << 20), maximum: None };
    let old = prlimit(hub, Resource::Fsize, limit).expect("the limit of one's own process can be set");
    let running = api.submit(&contract).await;
    let content = bytes(20_000_000, 2);
    let answer = put(api, &Digest::of(&content), content.len(), 0, content.clone()).await;
    refused("35 disk full", &answer, 507, "aggregation.disk_full", &["20000000 bytes", "nothing of it is kept"]);
    assert_eq!(api.get(&format!("/api/v0/uploads/{}", Digest::of(&content))).await.status, 404);
    assert_eq!(listed(api).await, before);
    assert_eq!(digest(&api.finished(&running).await), undisturbed);
    prlimit(hub, Resource::Fsize, old).unwrap();
    store(api, &content).await;
    pool.stop().await;
}

/// A small file system, gone when dropped.
struct Small(PathBuf);

impl Small {
    /// Mounts one of `mib` MiB, where this system lets us.
    fn mount(at: &Path, mib: u32) -> Option<Self> {
        std::fs::create_dir_all(at).unwrap();
        let size = format!("size={mib}m");
        let done = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(at).output().ok()?;
        done.status.success().then(|| Self(at.to_owned()))
    }

    fn free(&self) -> u64 {
        let about = rustix::fs::statvfs(&self.0).unwrap();
        about.f_bavail * about.f_frsize
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        // Lazily: whatever still holds a file there lets go later.
        Command::new("umount").arg("-l").arg(&self.0).status().ok();
    }
}

#[tokio::test]
async fn a_disk_that_fills_up_while_bytes_arrive_refuses_them_and_recovers() {
    let dir = tempfile::tempdir().unwrap();
    let Some(disk) = Small::mount(&dir.path().join("hub"), 128) else {
        eprintln!("no right to mount a file system here: only the process limit is tested");
        return;
    };
    let mut args: Vec<OsString> =
        ["hub", "--parent-pipe", "--http", "127.0.0.1:0", "--quic", "127.0.0.1:0"].map(OsString::from).into();
    args.extend(["--data".into(), disk.0.clone().into()]);
    let mut hub = Process::start("hub", &args, &[], &dir.path().join("logs"));
    let ready = hub.ready().await;
    let text = |name: &str| ready[name].as_str().unwrap().to_owned();
    let api = Api::new(format!("http://{}", text("http")), text("api_key"));
    store(&api, b"before").await;

    // Too much from the start: refused before a byte is written, and room is left for the hub itself.
    let huge = put(&api, &Digest::of(b"huge"), 100 << 20, 0, "x").await;
    refused("35 no room", &huge, 507, "aggregation.disk_full", &["104857600"]);

    let content = bytes(30_000_000, 3);
    let digest = Digest::of(&content);
    let mut raw = Raw::open(&api).await;
    let host = api.url.trim_start_matches("http://");
    let head = format!(
        "PUT {}?bytes={size} HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {}\r\ncontent-length: {size}\r\n\r\n",
        blob(&digest),
        api.key,
        size = content.len()
    );
    raw.send(head.as_bytes()).await;
    raw.send(&content[..10_000_000]).await;
    // Whole pieces are written as they come; what is still gathered does not show yet.
    forge_tests::until("first bytes on the disk", || async {
        let answer = api.get(&format!("/api/v0/uploads/{digest}")).await;
        (answer.at("/offset").as_u64() > Some(8_000_000)).then_some(())
    })
    .await;
    let filler = disk.0.join("filler");
    let room = usize::try_from(disk.free()).unwrap();
    std::fs::write(&filler, vec![0; room - (3 << 20)]).unwrap();
    raw.send(&content[10_000_000..]).await;
    let answer: Answer = raw.answer().await.expect("an answer");
    refused("35 disk full", &answer, 507, "aggregation.disk_full", &["30000000 bytes", "nothing of it is kept"]);
    assert_eq!(api.get(&format!("/api/v0/uploads/{digest}")).await.status, 404);
    assert_eq!(listed(&api).await.len(), 1);

    std::fs::remove_file(&filler).unwrap();
    let again = put(&api, &digest, content.len(), 0, content.clone()).await;
    assert_eq!(again.status, 201, "{}", again.text);
    let back = api.request(reqwest::Method::GET, &blob(&digest)).send().await.unwrap();
    assert!(back.bytes().await.unwrap() == content);
    hub.close_stdin();
    hub.wait().await;
}
