//! `forgepool up` as a user meets it: starts everything, says where, and leaves nothing behind.

use std::ffi::OsString;
use std::path::Path;

use forge_tests::api::Api;
use forge_tests::contract::quickstart_text;
use forge_tests::process::{Process, descendants, gone, is_alive};
use forge_tests::until;
use rustix::process::Signal;

use crate::answers::digest;

struct Up {
    process: Process,
    greeting: String,
    dir: tempfile::TempDir,
}

fn start(data: &Path, more: &[&str]) -> Process {
    let mut args: Vec<OsString> = ["up", "--agents", "2", "--data"].map(OsString::from).into();
    args.push(data.into());
    args.extend(more.iter().map(OsString::from));
    Process::start("up", &args, &[], &data.join("test-logs"))
}

const ANY: &[&str] = &["--http", "127.0.0.1:0", "--quic", "127.0.0.1:0"];

impl Up {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut process = start(dir.path(), ANY);
        let mut greeting = String::new();
        while !greeting.contains("Ctrl-C") {
            let Some(line) = process.line().await else { panic!("up ended:\n{greeting}\n{}", process.log()) };
            greeting.push_str(&line);
            greeting.push('\n');
        }
        Self { process, greeting, dir }
    }

    fn variable(&self, name: &str) -> String {
        let text = std::fs::read_to_string(self.dir.path().join("dev.env")).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name}=")).map(str::to_owned));
        line.unwrap_or_else(|| panic!("{name} is not in dev.env: {text}"))
    }

    fn api(&self) -> Api {
        Api::new(self.variable("FORGEPOOL_URL"), self.variable("FORGEPOOL_API_KEY"))
    }

    /// Its processes: hub, agents, and what they started.
    fn family(&self) -> Vec<u32> {
        let family = descendants(self.process.id());
        assert!(family.len() >= 3, "a hub and two agents at least: {family:?}");
        family
    }
}

#[tokio::test]
async fn up_says_where_it_is_and_the_curl_it_prints_works() {
    let mut up = Up::new().await;
    let (url, key) = (up.variable("FORGEPOOL_URL"), up.variable("FORGEPOOL_API_KEY"));
    assert!(!url.ends_with(":0"), "the real port: {url}");
    assert!(up.greeting.contains(&url) && up.greeting.contains(&key), "{}", up.greeting);
    let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(up.dir.path().join("dev.env")).unwrap());
    assert_eq!(mode & 0o777, 0o600);
    let answer = up.api().execute_text(quickstart_text()).await;
    digest(&answer.body);
    if let Some(curl) = curl() {
        let command: String =
            up.greeting.split("Try it:").nth(1).unwrap().split("\n\nor:").next().unwrap().trim().to_owned();
        assert!(command.starts_with("curl "), "{command}");
        let output = std::process::Command::new("sh")
            .args(["-c", &command.replacen("curl", &format!("{curl} -sS"), 1)])
            .output();
        let output = output.unwrap();
        let body: serde_json::Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
        assert_eq!(digest(&body), digest(&answer.body));
    }
    let family = up.family();
    up.process.signal(Signal::INT);
    assert!(up.process.wait().await.success(), "{}", up.process.log());
    gone(&family).await;
}

fn curl() -> Option<&'static str> {
    std::process::Command::new("curl").arg("--version").output().is_ok().then_some("curl")
}

#[tokio::test]
async fn ctrl_c_in_the_middle_of_a_job_stops_everything_and_the_job_goes_on_with_the_next_start() {
    let mut up = Up::new().await;
    let contract = forge_tests::contract::changed(
        forge_tests::contract::insurance(30_000_000),
        &[("/policy/shards", serde_json::json!(64)), ("/policy/max_agents", serde_json::json!(0))],
    );
    let job = up.api().submit(&contract).await;
    let mut events = up.api().events(&job).await;
    events.find("a finished shard", |event| event.data["shards_done"].as_u64().unwrap_or(0) >= 1).await;
    let (family, key) = (up.family(), up.variable("FORGEPOOL_API_KEY"));
    up.process.signal(Signal::INT);
    assert!(up.process.wait().await.success(), "{}", up.process.log());
    gone(&family).await;
    let mut second = start(up.dir.path(), ANY);
    while !second.line().await.expect("up comes up again").contains("Ctrl-C") {}
    assert_eq!(up.variable("FORGEPOOL_API_KEY"), key, "the key stays");
    digest(&up.api().finished(&job).await);
    second.signal(Signal::TERM);
    assert!(second.wait().await.success(), "{}", second.log());
}

#[tokio::test]
async fn up_killed_leaves_no_orphan() {
    let mut up = Up::new().await;
    let contract = forge_tests::contract::insurance(400_000_000);
    let job = up.api().submit(&contract).await;
    let mut events = up.api().events(&job).await;
    events.find("work under way", |event| event.data["agents_active"].as_u64().unwrap_or(0) >= 1).await;
    let family = up.family();
    up.process.kill().await;
    gone(&family).await;
}

#[tokio::test]
async fn an_agent_that_dies_is_started_again_and_a_hub_that_dies_ends_up() {
    let mut up = Up::new().await;
    let mut commands: Vec<(u32, String)> = Vec::new();
    for id in up.family() {
        commands.push((id, std::fs::read_to_string(format!("/proc/{id}/cmdline")).unwrap_or_default()));
    }
    let find = |what: &str| commands.iter().find(|(_, line)| line.contains(what)).expect("it runs").0;
    let (hub, agent) = (find("\0hub\0"), find("\0agent\0"));
    let kill = |id: u32| {
        let pid = rustix::process::Pid::from_raw(i32::try_from(id).unwrap()).unwrap();
        rustix::process::kill_process(pid, Signal::KILL).unwrap();
    };
    kill(agent);
    until("new agent", || async {
        let agents = descendants(up.process.id()).into_iter().filter(|id| {
            *id != agent
                && is_alive(*id)
                && std::fs::read_to_string(format!("/proc/{id}/cmdline")).is_ok_and(|line| line.contains("\0agent\0"))
        });
        (agents.count() == 2).then_some(())
    })
    .await;
    digest(&up.api().execute_text(quickstart_text()).await.body);
    let family = up.family();
    kill(hub);
    let status = up.process.wait().await;
    assert_eq!(status.code(), Some(1));
    assert!(up.process.log().contains("the hub's process ended"), "{}", up.process.log());
    gone(&family).await;
}

#[tokio::test]
async fn a_second_up_and_a_busy_port_are_refused_with_a_reason() {
    let up = Up::new().await;
    let mut second = start(up.dir.path(), ANY);
    assert_eq!(second.wait().await.code(), Some(1));
    let said = second.log();
    assert!(said.contains("another `forgepool up`") && said.contains(&up.process.id().to_string()), "{said}");

    let other = tempfile::tempdir().unwrap();
    let busy = up.variable("FORGEPOOL_URL").replace("http://", "");
    let mut third = start(other.path(), &["--http", &busy, "--quic", "127.0.0.1:0"]);
    assert_eq!(third.wait().await.code(), Some(1));
    let said = third.log();
    assert!(said.contains(&format!("{busy} is already in use")) && said.contains("--http"), "{said}");
    digest(&up.api().execute_text(quickstart_text()).await.body);
    let family = up.family();
    let mut process = up.process;
    process.signal(Signal::INT);
    process.wait().await;
    gone(&family).await;
}
