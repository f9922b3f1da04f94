//! Many idle agents at one hub: what their sessions cost it in memory.

use std::sync::Arc;
use std::time::{Duration, Instant};

use forge_contract::Capability;
use forge_protocol::{AgentLink, EnrolToken, Identity, Introduction, LinkError, LinkSettings};
use forge_sandbox::engine_profile;
use forge_tests::pool::Pool;
use forge_tests::process::memory_kib;

use crate::figures::Report;

/// Sessions of the figure.
const SESSIONS: usize = 2000;
/// Heartbeats that each sends before the memory is read; one a second.
const HEARTBEATS: u32 = 10;
/// Dialled at once: one address may open 512 connections in 8 s, so more would only be refused more.
const AT_ONCE: usize = 32;

/// Connects the agents and reads the hub's memory. Their ends of the sessions are in this process.
pub fn measure(report: &mut Report) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let pool = Pool::start(0).await;
        let before = resident_kib(&pool);
        let began = Instant::now();
        let mut links: Vec<AgentLink> = Vec::new();
        while links.len() < SESSIONS {
            let dialling = (links.len()..SESSIONS.min(links.len() + AT_ONCE)).map(|number| dial(&pool, number));
            let mut joined = tokio::task::JoinSet::new();
            for dialled in dialling {
                joined.spawn(dialled);
            }
            links.extend(joined.join_all().await);
        }
        let joined_s = began.elapsed().as_secs_f64();
        tokio::time::sleep(Duration::from_secs(HEARTBEATS.into())).await;
        let connected = pool.api.get("/api/v0/agents").await.at("/connected").as_u64();
        assert_eq!(connected, Some(SESSIONS as u64), "sessions were lost");
        let mib = resident_kib(&pool) as f64 / 1024.0;
        let note = format!(
            "{SESSIONS} idle sessions after {HEARTBEATS} heartbeats each, {:.0} MiB before; joined in {joined_s:.1} s",
            before as f64 / 1024.0
        );
        report.add("hub memory with idle agents", mib, "MiB", "< 1024", note);
        drop(links);
        pool.stop().await;
    });
}

fn resident_kib(pool: &Pool) -> u64 {
    memory_kib(pool.hub.id(), "VmRSS")
}

/// An agent that does nothing but live. Tries again where its address has connected too often.
fn dial(pool: &Pool, number: usize) -> impl Future<Output = AgentLink> + Send + 'static {
    let (api, hub) = (pool.api.clone(), [pool.quic()]);
    async move {
        let token: EnrolToken = api.token(&serde_json::json!({})).await.parse().expect("a token");
        let mut seed = [7; 32];
        seed[..8].copy_from_slice(&(number as u64).to_le_bytes());
        let identity = Arc::new(Identity::from_seed(&seed));
        let capability = Capability {
            cores: 1,
            leases: 2,
            memory_bytes: 1 << 30,
            arch: std::env::consts::ARCH.to_owned(),
            os: std::env::consts::OS.to_owned(),
            cpu: true,
            gpu: false,
            labels: vec![],
            projects: vec![],
            engine: engine_profile(),
            cage: "full".into(),
        };
        let introduction = Introduction { software: "idle 1".into(), capability, enrol_secret: Some(token.secret) };
        loop {
            let settings = LinkSettings::default();
            match AgentLink::connect(&hub, token.hub_key, &identity, &introduction, &settings).await {
                Ok(link) => return link,
                Err(LinkError::Refused(refusal)) => panic!("{}", refusal.detail),
                Err(_) => tokio::time::sleep(Duration::from_millis(250)).await,
            }
        }
    }
}
