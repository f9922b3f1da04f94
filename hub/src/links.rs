//! Between the wire and the pool: link events become pool events, the pool's actions become messages.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use forge_contract::task::Task;
use forge_contract::trace::TraceContext;
use forge_contract::{AgentId, Digest, LeaseId};
use forge_lifecycle::bundle::key::{Key, Signature};
use forge_lifecycle::event::{Event, Membership, OwnerId, SessionId};
use forge_protocol::proof::{GROUP_BYTES, Tree};
use forge_protocol::{
    AgentKey, Content, ContentBody, ContentData, Gate, HubEndpoint, LinkEvent, LinkEvents, Unavailable,
};

use crate::coordinator::{Board, Coordinator, Fleet, News, Signed};
use crate::grants::Grants;
use crate::metrics::Metrics;
use crate::registry::Registry;
use crate::store::blobs::{BlobError, Blobs};
use crate::store::{Store, StoreError, Write, Written};
use crate::trees::{TreeError, Trees};

/// Who may join: the store's record of agents and tokens.
pub struct StoreGate {
    /// The record.
    pub store: Arc<dyn Store>,
}

#[async_trait]
impl Gate for StoreGate {
    async fn known(&self, key: &AgentKey) -> Result<bool, Unavailable> {
        let found = self.store.agent_key(AgentId::of_public_key(key)).await.map_err(|_| Unavailable)?;
        Ok(found.as_ref() == Some(key))
    }

    async fn redeem(&self, secret: &Digest, key: &AgentKey) -> Result<bool, Unavailable> {
        let written = self.store.submit(Write::Redeem { hash: *secret, public_key: *key }).await;
        match written.map_err(|_| Unavailable)? {
            Written::Redeemed(good) => Ok(good),
            _ => Err(Unavailable),
        }
    }
}

/// What agents may fetch: what a lease of their own session runs and reads, of components that were not refused, the folded
/// stages of jobs in hand, and the stored inputs of jobs in hand and of trials. Nothing else, whatever its digest: a
/// digest that leaks must open neither another project's evidence nor another agent's work.
pub struct StoreContent {
    /// Whose leases need what.
    pub grants: Arc<Grants>,
    /// Components.
    pub registry: Arc<Registry>,
    /// Folded stages.
    pub board: Arc<Board>,
    /// Large objects.
    pub blobs: Arc<Blobs>,
    /// Small objects.
    pub store: Arc<dyn Store>,
    /// What proves pieces of them.
    pub trees: Trees,
}

#[async_trait]
impl Content for StoreContent {
    async fn open(&self, session: u64, digest: &Digest) -> Option<ContentBody> {
        let digest = *digest;
        if !self.grants.allows(session, &digest) {
            tracing::warn!(session, %digest, "an agent asked for what none of its leases needs");
            return None;
        }
        self.find(digest).await.unwrap_or_else(|error| {
            tracing::error!(%digest, %error, "an object could not be read");
            None
        })
    }
}

/// Why an object that should be there is not.
#[derive(Debug, thiserror::Error)]
enum Unreadable {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Blob(#[from] BlobError),
    #[error(transparent)]
    Tree(#[from] TreeError),
}

impl StoreContent {
    async fn find(&self, digest: Digest) -> Result<Option<ContentBody>, Unreadable> {
        if let Some(bytes) = self.registry.component(&digest).await? {
            return Ok(Some(self.held(digest, bytes).await?));
        }
        if let Some(bytes) = self.board.object(&digest) {
            return Ok(Some(self.held(digest, bytes).await?));
        }
        if !self.board.reads(&digest) {
            return Ok(None);
        }
        self.stored(digest).await
    }

    async fn held(&self, digest: Digest, bytes: Bytes) -> Result<ContentBody, TreeError> {
        let data = ContentData::Bytes(bytes.clone());
        if bytes.len() as u64 <= GROUP_BYTES {
            // Its digest is all of its tree.
            return Ok(ContentBody { data, tree: Arc::new(Tree::of(&bytes)) });
        }
        Ok(ContentBody { data, tree: self.trees.tree(digest, move || Ok(Tree::of(&bytes))).await? })
    }

    /// A file is read as it is sent, so that a large input is never in memory whole; the agent verifies it.
    async fn stored(&self, digest: Digest) -> Result<Option<ContentBody>, Unreadable> {
        let files = Arc::clone(&self.blobs);
        let opened = tokio::task::spawn_blocking(move || files.open_file(&digest)).await;
        let Some((file, bytes)) = opened.map_err(|_| StoreError::Closed)?? else {
            let Some(bytes) = self.store.object(&digest).await? else { return Ok(None) };
            return Ok(Some(self.held(digest, bytes.into()).await?));
        };
        let file = Arc::new(file);
        let read = Arc::clone(&file);
        let tree = self.trees.tree(digest, move || Tree::read(bytes, &*read)).await?;
        Ok(Some(ContentBody { data: ContentData::Stored(file), tree }))
    }
}

/// The agents on the wire.
pub struct Wire(pub HubEndpoint, pub Arc<Grants>);

impl Fleet for Wire {
    fn dispatch(&self, session: SessionId, lease: LeaseId, task: Arc<Task>, deadline_ms: u64, trace: TraceContext) {
        // Before the agent hears of it: it asks at once.
        self.1.lease(session.0, &task);
        self.0.dispatch(session.0, lease, task, deadline_ms, trace);
    }

    fn revoke(&self, session: SessionId, lease: LeaseId) {
        self.0.revoke(session.0, lease);
    }

    fn dismiss(&self, session: SessionId) {
        self.0.close(session.0, "the operator removed this agent");
    }
}

/// Carries events from the links to the coordinator until the endpoint is gone.
pub async fn carry(
    mut events: LinkEvents,
    coordinator: Coordinator,
    grants: Arc<Grants>,
    store: Arc<dyn Store>,
    metrics: Arc<Metrics>,
) {
    let mut sessions: HashMap<u64, (AgentId, AgentKey)> = HashMap::new();
    while let Some(event) = events.recv().await {
        if let LinkEvent::Left { session, .. } = &event {
            grants.end(*session);
        }
        note(&event, &mut sessions, &*store, &metrics);
        if let LinkEvent::Report { session, report, signature } = &event
            && let Some((_, key)) = sessions.get(session)
        {
            let signed = Signed { engine: report.engine, key: Key(*key), signature: Signature(signature.0) };
            coordinator.board().sign(report.lease, signed);
        }
        let joined = match &event {
            LinkEvent::Joined { agent, .. } => Some(*agent),
            _ => None,
        };
        let Some(event) = translate(event, &*store).await else { continue };
        if coordinator.event(event).await.is_err() {
            return;
        }
        if let Some(agent) = joined {
            coordinator.tell(News::Joined(agent));
        }
    }
}

fn note(event: &LinkEvent, sessions: &mut HashMap<u64, (AgentId, AgentKey)>, store: &dyn Store, metrics: &Metrics) {
    let state = |agent: AgentId, state, capability| drop(store.submit(Write::AgentState { agent, state, capability }));
    match event {
        LinkEvent::Joined { session, agent, key, capability, software, remote } => {
            tracing::info!(%agent, session, software, %remote, cores = capability.cores, cage = capability.cage, "agent joined");
            sessions.insert(*session, (*agent, *key));
            state(*agent, "connected", serde_json::to_string(capability).ok());
        }
        LinkEvent::Left { session, reason } => {
            if let Some((agent, _)) = sessions.remove(session) {
                tracing::info!(%agent, session, reason, "agent left");
                // Where a newer session took this one's place, the agent is still here.
                if !sessions.values().any(|(other, _)| *other == agent) {
                    state(agent, "gone", None);
                }
            }
        }
        LinkEvent::Draining { session } => {
            if let Some((agent, _)) = sessions.get(session) {
                tracing::info!(%agent, session, "agent drains");
                state(*agent, "draining", None);
            }
        }
        LinkEvent::Heartbeat { rtt, .. } => return metrics.agent_rtt.observe(rtt.as_secs_f64()),
        _ => return,
    }
    metrics.agents.set(i64::try_from(sessions.len()).unwrap_or(i64::MAX));
}

async fn translate(event: LinkEvent, store: &dyn Store) -> Option<Event> {
    Some(match event {
        LinkEvent::Joined { session, agent, capability, .. } => {
            let membership = store.membership(agent).await.unwrap_or_else(|error| {
                tracing::error!(%agent, %error, "an agent's record could not be read; it counts as a stranger");
                Membership { owner: OwnerId::alone(agent), ..Membership::default() }
            });
            Event::AgentJoined { agent, session: SessionId(session), capability, membership }
        }
        LinkEvent::Left { session, .. } => Event::AgentLeft { session: SessionId(session) },
        LinkEvent::Draining { session } => Event::AgentDraining { session: SessionId(session) },
        LinkEvent::Progress { lease, units_done, .. } => Event::ShardProgress { lease, units_done },
        LinkEvent::Report { session, report, .. } => Event::ReportArrived { session: SessionId(session), report },
        LinkEvent::LeaseBroken { lease, code, detail, .. } => Event::LeaseBroken { lease, code, detail },
        LinkEvent::Heartbeat { session, rtt, .. } => {
            let rtt_us = u64::try_from(rtt.as_micros()).unwrap_or(u64::MAX);
            Event::AgentHeard { session: SessionId(session), rtt_us }
        }
    })
}
