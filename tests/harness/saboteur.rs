//! Agents that lie: identities of the `forge-saboteur` of these tests, in a process of their own.

use std::ffi::OsString;
use std::path::Path;

use serde_json::{Value, json};

use crate::pool::Pool;
use crate::process::Process;

/// A process of saboteurs. Killed when dropped.
#[derive(Debug)]
pub struct Saboteurs {
    /// The process.
    pub process: Process,
    /// Its identities, in the order of their manners.
    pub agents: Vec<String>,
}

impl Saboteurs {
    /// Starts identities of these manners at `hub` and waits until all have joined. `wishes` says what their tokens
    /// are, one after the other and from the start again; nothing: an agent of its own each.
    ///
    /// # Panics
    /// They do not join.
    pub async fn start_at(
        program: &str,
        pool: &Pool,
        hub: &str,
        (manners, wishes): (&[&str], &[Value]),
        more: &[&str],
    ) -> Self {
        let wishes = if wishes.is_empty() { &[json!({})] } else { wishes };
        let mut tokens = Vec::new();
        for wish in wishes.iter().cycle().take(manners.iter().map(|manner| identities(manner)).sum()) {
            tokens.push(pool.api.token(wish).await);
        }
        let mut args: Vec<OsString> = ["--hub", hub].map(OsString::from).into();
        args.extend(manners.iter().flat_map(|manner| ["--manner".into(), OsString::from(manner)]));
        args.extend(more.iter().map(OsString::from));
        let env = [("FORGEPOOL_ENROL_TOKENS", tokens.join(","))];
        let name = format!("saboteurs-{}", manners.join("-"));
        let mut process = Process::of(Path::new(program), &name, &args, &env, &pool.dir().join("logs"));
        let ready = process.ready().await;
        let agents = ready.get("agents").and_then(Value::as_array).cloned().unwrap_or_default();
        Self { process, agents: agents.iter().filter_map(|agent| agent.as_str().map(str::to_owned)).collect() }
    }

    /// The same at the pool's own hub, each an agent of its own.
    pub async fn start(program: &str, pool: &Pool, manners: &[&str], more: &[&str]) -> Self {
        Self::start_at(program, pool, &pool.quic(), (manners, &[]), more).await
    }

    /// Ends them.
    pub async fn stop(mut self) {
        self.process.close_stdin();
        self.process.wait().await;
    }
}

fn identities(manner: &str) -> usize {
    let count = manner.split(',').find_map(|word| word.strip_prefix("count="));
    count.and_then(|count| count.parse().ok()).unwrap_or(1)
}
