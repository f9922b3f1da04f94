//! Keeps agents running: each has a task that starts its process again when it ends by itself.

use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::child::{Child, Start};
use super::{HubReady, Layout, arguments, log_path, push};
use crate::parent::DRAIN_MS_MAX;

/// An agent that ends this often without ever having run for [`SETTLED`] is given up.
const FAILURES_MAX: u32 = 6;
/// An agent that ran this long starts with a clean record.
const SETTLED: Duration = Duration::from_secs(30);
/// First pause before an agent is started again, doubled with each failure, ms.
const PAUSE_MS: u64 = 100;

/// What happened to an agent.
#[derive(Debug, Clone)]
pub enum News {
    /// It joined the pool.
    Joined {
        /// Its number, from 1.
        number: u32,
    },
    /// Its process ended by itself and is being started again.
    Restarting {
        /// Its number, from 1.
        number: u32,
        /// How it ended.
        status: String,
    },
    /// It ends each time it is started.
    GaveUp {
        /// Its number, from 1.
        number: u32,
        /// The last thing that went wrong.
        error: String,
    },
}

/// The task that keeps one agent running.
#[derive(Debug)]
pub struct Keeper {
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Keeper {
    /// Starts agent `number`. The token is needed the first time only: later the hub knows the agent's key.
    #[must_use]
    pub fn start(
        layout: &Layout,
        hub: &HubReady,
        number: u32,
        token: Option<String>,
        news: mpsc::UnboundedSender<News>,
    ) -> Self {
        let (stop, stopped) = watch::channel(false);
        let agent = Agent { number, start: agent_start(layout, hub, number, token), news };
        Self { stop, task: tokio::spawn(agent.keep(stopped)) }
    }

    /// Asks the agent to drain and returns when its process is gone.
    pub async fn stop(self) {
        self.stop.send_replace(true);
        self.task.await.ok();
    }
}

struct Agent {
    number: u32,
    start: Start,
    news: mpsc::UnboundedSender<News>,
}

impl Agent {
    async fn keep(self, mut stopped: watch::Receiver<bool>) {
        let mut failures = 0;
        loop {
            let began = Instant::now();
            let ended = self.run(&mut stopped).await;
            let Err(reason) = ended else { return };
            failures = if began.elapsed() >= SETTLED { 1 } else { failures + 1 };
            if failures >= FAILURES_MAX {
                self.tell(News::GaveUp { number: self.number, error: reason });
                return;
            }
            self.tell(News::Restarting { number: self.number, status: reason });
            let pause = Duration::from_millis(PAUSE_MS << failures);
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                _ = stopped.wait_for(|stop| *stop) => return,
            }
        }
    }

    /// Runs the process once: `Ok` when it was asked to end, else why it ended.
    async fn run(&self, stopped: &mut watch::Receiver<bool>) -> Result<(), String> {
        let mut child = Child::spawn(&self.start).map_err(|error| error.to_string())?;
        let ended = tokio::select! {
            reason = self.watch(&mut child) => Some(reason),
            _ = stopped.wait_for(|stop| *stop) => None,
        };
        match ended {
            Some(reason) => Err(reason),
            None => {
                child.stop(Duration::from_millis(DRAIN_MS_MAX)).await;
                Ok(())
            }
        }
    }

    /// Tells when the agent has joined; returns why its process ended.
    async fn watch(&self, child: &mut Child) -> String {
        if let Err(error) = child.ready().await {
            return error.to_string();
        }
        self.tell(News::Joined { number: self.number });
        child.wait().await.map_or_else(|error| error.to_string(), |status| status.to_string())
    }

    fn tell(&self, news: News) {
        // Nobody listens any more while the pool ends.
        self.news.send(news).ok();
    }
}

fn agent_start(layout: &Layout, hub: &HubReady, number: u32, token: Option<String>) -> Start {
    let name = format!("agent-{number}");
    let mut args = arguments(&["agent", "--parent-pipe"]);
    push(&mut args, "--data", layout.data.join("agents").join(number.to_string()));
    push(&mut args, "--hub", hub.quic.to_string());
    push(&mut args, "--hub-key", hub.hub_key.clone());
    push(&mut args, "--cores", layout.cores_each.to_string());
    Start {
        log: (!layout.verbose).then(|| log_path(&layout.data, &name)),
        name: format!("agent {number}"),
        args,
        env: token.map(|token| ("FORGEPOOL_ENROL_TOKEN", token)).into_iter().collect(),
    }
}
