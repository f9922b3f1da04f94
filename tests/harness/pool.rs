//! A hub and agents, one process each, started and ended one by one.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use rustix::process::Signal;
use serde_json::Value;

use crate::api::Api;
use crate::process::{Process, gone};

/// How many enrolment tokens a hub makes when it starts.
const TOKENS: usize = 32;

/// A hub, its agents, and the directory all of it lives in.
#[derive(Debug)]
pub struct Pool {
    /// The hub.
    pub hub: Process,
    /// Agents by number, from 0; `None` where one was ended.
    pub agents: Vec<Option<Process>>,
    /// What the hub announced.
    pub ready: Value,
    /// The hub's interface.
    pub api: Api,
    tokens: Vec<String>,
    extra: Vec<OsString>,
    env: Vec<(&'static str, String)>,
    /// How each agent was started: its hub and further arguments.
    starts: Vec<(String, Vec<OsString>)>,
    dir: tempfile::TempDir,
}

impl Pool {
    /// Starts a hub and `agents` agents of one core each; returns when all have joined.
    pub async fn start(agents: usize) -> Self {
        Self::start_with(agents, &[]).await
    }

    /// The same with more arguments for the hub.
    ///
    /// # Panics
    /// Something does not come up.
    pub async fn start_with(agents: usize, hub_args: &[&str]) -> Self {
        Self::start_as(agents, hub_args, Vec::new()).await
    }

    /// The same with this filter of the logs of hub and agents (FORGEPOOL_LOG).
    pub async fn start_logging(agents: usize, hub_args: &[&str], filter: &str) -> Self {
        Self::start_as(agents, hub_args, vec![("FORGEPOOL_LOG", filter.to_owned())]).await
    }

    async fn start_as(agents: usize, hub_args: &[&str], env: Vec<(&'static str, String)>) -> Self {
        let dir = tempfile::Builder::new().prefix("forgepool-test-").tempdir().expect("a temporary directory");
        let extra: Vec<OsString> = hub_args.iter().map(OsString::from).collect();
        let (hub, ready) = start_hub(dir.path(), "127.0.0.1:0", "127.0.0.1:0", &extra, env.clone()).await;
        let text = |name: &str| ready.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let api = Api::new(format!("http://{}", text("http")), text("api_key"));
        let tokens = tokens(&ready);
        let mut pool = Self { hub, agents: Vec::new(), ready, api, tokens, extra, env, starts: Vec::new(), dir };
        let mut starting = Vec::new();
        let hub = pool.quic();
        for _ in 0..agents {
            starting.push(pool.spawn_agent(&hub, &[]));
        }
        for mut agent in starting {
            agent.ready().await;
            pool.agents.push(Some(agent));
        }
        pool
    }

    /// The directory of it all.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Where agents dial, `address:port`.
    #[must_use]
    pub fn quic(&self) -> String {
        self.ready.get("quic").and_then(Value::as_str).unwrap_or_default().to_owned()
    }

    /// Takes an enrolment token, for an agent that is started by other means.
    ///
    /// # Panics
    /// None is left.
    pub fn token(&mut self) -> String {
        self.tokens.pop().expect("a token is left")
    }

    /// Starts one more agent and waits until it joined; returns its number.
    pub async fn join(&mut self) -> usize {
        let hub = self.quic();
        self.join_at(&hub, &[]).await
    }

    /// The same, dialling `hub` and with more arguments.
    pub async fn join_at(&mut self, hub: &str, more: &[&str]) -> usize {
        let number = self.join_later_at(hub, more);
        if let Some(agent) = self.agents.get_mut(number).and_then(Option::as_mut) {
            agent.ready().await;
        }
        number
    }

    /// Starts one more agent with this enrolment token and waits until it joined; returns its number.
    pub async fn join_with(&mut self, token: &str) -> usize {
        self.tokens.push(token.to_owned());
        self.join().await
    }

    /// Starts this many agents that are nobody's and trusted by nobody, and waits until all joined. The others are the
    /// operator's own.
    pub async fn join_strangers(&mut self, count: usize) {
        let first = self.agents.len();
        for _ in 0..count {
            let token = self.api.token(&serde_json::json!({})).await;
            self.tokens.push(token);
            self.join_later();
        }
        for agent in self.agents.iter_mut().skip(first).flatten() {
            agent.ready().await;
        }
    }

    /// Starts an agent without waiting for it to join; returns its number.
    pub fn join_later(&mut self) -> usize {
        let hub = self.quic();
        self.join_later_at(&hub, &[])
    }

    /// The same, dialling `hub` and with more arguments.
    pub fn join_later_at(&mut self, hub: &str, more: &[&str]) -> usize {
        let agent = self.spawn_agent(hub, more);
        self.agents.push(Some(agent));
        self.agents.len() - 1
    }

    /// Starts an agent that was ended again, in its directory and as before, without waiting for it to join.
    ///
    /// # Panics
    /// It was never started.
    pub fn restart_agent(&mut self, number: usize) {
        let agent = self.start_agent(number, None);
        *self.agents.get_mut(number).expect("it was started before") = Some(agent);
    }

    /// Kills an agent as `kill -9` does, and waits until its workers are gone too.
    ///
    /// # Panics
    /// It was ended before, or a worker outlives it.
    pub async fn kill_agent(&mut self, number: usize) {
        let mut agent = self.agents.get_mut(number).and_then(Option::take).expect("the agent runs");
        let workers = crate::process::descendants(agent.id());
        agent.kill().await;
        gone(&workers).await;
    }

    /// Stops an agent where it stands, without its knowing.
    pub fn freeze_agent(&self, number: usize) {
        self.agent(number).signal(Signal::STOP);
    }

    /// Lets a frozen agent go on.
    pub fn thaw_agent(&self, number: usize) {
        self.agent(number).signal(Signal::CONT);
    }

    /// An agent that runs.
    ///
    /// # Panics
    /// It was ended before.
    #[must_use]
    pub fn agent(&self, number: usize) -> &Process {
        self.agents.get(number).and_then(Option::as_ref).expect("the agent runs")
    }

    /// Kills the hub as `kill -9` does.
    pub async fn kill_hub(&mut self) {
        self.hub.kill().await;
    }

    /// Starts the hub again on the same directory and ports. Agents come back by themselves.
    pub async fn restart_hub(&mut self) {
        let text = |name: &str| self.ready.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let mut env = self.env.clone();
        env.push(("FORGEPOOL_API_KEY", self.api.key.clone()));
        let (hub, ready) = start_hub(self.dir.path(), &text("http"), &text("quic"), &self.extra, env).await;
        self.tokens = tokens(&ready);
        self.hub = hub;
        self.api.key = ready.get("api_key").and_then(Value::as_str).unwrap_or_default().to_owned();
        self.ready = ready;
    }

    /// Ends everything and waits until nothing is left.
    pub async fn stop(mut self) {
        let mut ids = vec![self.hub.id()];
        for agent in self.agents.iter_mut().flatten() {
            ids.extend(crate::process::descendants(agent.id()));
            ids.push(agent.id());
            agent.close_stdin();
        }
        self.hub.close_stdin();
        for agent in self.agents.iter_mut().flatten() {
            agent.wait().await;
        }
        self.hub.wait().await;
        gone(&ids).await;
    }

    fn spawn_agent(&mut self, hub: &str, more: &[&str]) -> Process {
        let number = self.starts.len();
        self.starts.push((hub.to_owned(), more.iter().map(OsString::from).collect()));
        let token = self.token();
        self.start_agent(number, Some(token))
    }

    fn start_agent(&self, number: usize, token: Option<String>) -> Process {
        let (hub, more) = self.starts.get(number).cloned().expect("it was started before");
        let key = self.ready.get("hub_key").and_then(Value::as_str).unwrap_or_default().to_owned();
        let mut args: Vec<OsString> = ["agent", "--parent-pipe", "--cores", "1", "--data"].map(OsString::from).into();
        args.push(self.agent_dir(number).into());
        for (name, value) in [("--hub", hub), ("--hub-key", key)] {
            args.extend([OsString::from(name), OsString::from(value)]);
        }
        args.extend(more);
        let mut env = self.env.clone();
        env.extend(token.map(|token| ("FORGEPOOL_ENROL_TOKEN", token)));
        Process::start(&format!("agent-{number}"), &args, &env, &self.logs())
    }

    /// An agent's data directory.
    #[must_use]
    pub fn agent_dir(&self, number: usize) -> PathBuf {
        self.dir.path().join("agents").join(number.to_string())
    }

    fn logs(&self) -> PathBuf {
        self.dir.path().join("logs")
    }
}

fn tokens(ready: &Value) -> Vec<String> {
    let tokens = ready.get("enrol_tokens").and_then(Value::as_array).cloned().unwrap_or_default();
    tokens.iter().filter_map(|token| token.as_str().map(str::to_owned)).collect()
}

async fn start_hub(
    dir: &Path,
    http: &str,
    quic: &str,
    extra: &[OsString],
    env: Vec<(&'static str, String)>,
) -> (Process, Value) {
    let mut args: Vec<OsString> = ["hub", "--parent-pipe", "--http", http, "--quic", quic].map(OsString::from).into();
    args.extend(["--announce-tokens".into(), TOKENS.to_string().into()]);
    args.extend(["--data".into(), dir.join("hub").into()]);
    args.extend(extra.iter().cloned());
    let mut hub = Process::start("hub", &args, &env, &dir.join("logs"));
    let ready = hub.ready().await;
    (hub, ready)
}
