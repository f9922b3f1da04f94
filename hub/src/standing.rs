//! Telling agents how they stand, so that their owners see it: after they join, and when it moved, not too often.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use forge_contract::AgentId;
use forge_lifecycle::verify::AuditPolicy;
use forge_protocol::message::Standing;
use tokio::sync::mpsc;

use crate::clock::rfc3339;
use crate::coordinator::{Coordinator, News};
use crate::links::Wire;
use crate::store::settlement::{AgentEventKind, AgentEventRow, AgentRecord};
use crate::store::{Store, StoreError, Write};

/// How long news gather before they are told.
const GATHER: Duration = Duration::from_secs(3);
/// Events looked at for those worth telling.
const EVENTS: u32 = 64;
/// News taken at once.
const NEWS_MAX: usize = 4096;

/// Tells agents how they stand.
pub struct Teller {
    /// Records.
    pub store: Arc<dyn Store>,
    /// Who is connected.
    pub coordinator: Coordinator,
    /// Where it is told.
    pub wire: Arc<Wire>,
    /// How often answers are audited.
    pub audits: AuditPolicy,
}

impl Teller {
    /// Tells until it is dropped.
    pub async fn attend(self, mut news: mpsc::UnboundedReceiver<News>) {
        let mut taken = Vec::new();
        while news.recv_many(&mut taken, NEWS_MAX).await > 0 {
            // Who joins is told at once; what moves gathers, since it moves with every job.
            let joined = |taken: &[News]| taken.iter().any(|news| matches!(news, News::Joined(_)));
            let until = tokio::time::Instant::now() + GATHER;
            while !joined(&taken) {
                match tokio::time::timeout_at(until, news.recv_many(&mut taken, NEWS_MAX)).await {
                    Ok(0) | Err(_) => break,
                    Ok(_) => {}
                }
            }
            let agents = taken.drain(..).map(|(News::Joined(agent) | News::Moved(agent))| agent).collect();
            if let Err(error) = self.tell(agents).await {
                tracing::error!(%error, "agents could not be told how they stand");
            }
        }
    }

    async fn tell(&self, agents: BTreeSet<AgentId>) -> Result<(), StoreError> {
        let Ok(views) = self.coordinator.agents().await else { return Ok(()) };
        let here: BTreeMap<AgentId, _> = views.into_iter().map(|view| (view.agent, view)).collect();
        let here = agents.iter().filter_map(|agent| here.get(agent)).collect::<Vec<_>>();
        if here.is_empty() {
            return Ok(());
        }
        // What moved was submitted before it was news.
        self.store.submit(Write::Barrier).await?;
        for view in here {
            if let Some(record) = self.store.agent_record(view.agent, EVENTS).await? {
                self.wire.0.tell(view.session.0, standing(&record, view.clean, &self.audits));
            }
        }
        Ok(())
    }
}

/// How an agent stands, in words its owner's program shows.
fn standing(record: &AgentRecord, clean: u64, audits: &AuditPolicy) -> Standing {
    let AgentRecord { agent, earnings, events, .. } = record;
    let clean = clean.max(agent.clean);
    let counted = if agent.verifier { u64::MAX } else { clean };
    // Pay settles with nearly every job: the sums say so, and it would push out what matters.
    let events = events.iter().filter(|row| row.event.kind != AgentEventKind::Payable);
    let standing = Standing {
        clean,
        accepted: agent.accepted,
        audit_ppm: audits.rate_ppm(counted),
        quarantined: agent.quarantined.map(|code| code.as_str().to_owned()),
        held_micro: earnings.held_micro,
        payable_micro: earnings.payable_micro,
        forfeited_micro: earnings.forfeited_micro,
        events: events.map(sentence).collect(),
    };
    standing.bounded()
}

fn sentence(row: &AgentEventRow) -> String {
    let event = &row.event;
    let mut text = format!("{} {}", rfc3339(row.at_ms), event.kind.as_str());
    if let Some(job) = event.job {
        text.push_str(&format!(" in job {job}"));
    }
    if let Some((stage, shard)) = event.place {
        text.push_str(&format!(", stage {stage}, shard {shard}"));
    }
    if let Some(detail) = &event.detail {
        text.push_str(&format!(": {detail}"));
    }
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::store::settlement::{AgentEvent, AgentEventKind, Earnings};
    use forge_contract::{Digest, FailureCode, JobId};

    #[test]
    fn a_record_becomes_a_message() {
        let agent = AgentId(Digest::of(b"a"));
        let row = crate::store::AgentRow {
            agent,
            enrolled_ms: 1,
            last_seen_ms: 2,
            state: "connected".into(),
            capability: None,
            project: "default".into(),
            organisation: "default".into(),
            reserved: None,
            quarantined: Some(FailureCode::VerificationMismatch),
            verifier: false,
            provider: None,
            clean: 3,
            accepted: 90,
            readmitted_ms: None,
            removed_ms: None,
        };
        let event = AgentEvent {
            agent,
            kind: AgentEventKind::Refuted,
            job: Some(JobId::from_bits(5)),
            place: Some((1, 7)),
            detail: Some("x".repeat(500)),
        };
        let paid = AgentEvent { kind: AgentEventKind::Payable, ..event.clone() };
        let events = vec![AgentEventRow { seq: 2, at_ms: 0, event: paid }, AgentEventRow { seq: 1, at_ms: 0, event }];
        let earnings = Earnings { held_micro: 1, payable_micro: 2, forfeited_micro: 3 };
        let record = AgentRecord { agent: row, earnings, strikes: 0, events };
        let told = standing(&record, 200, &AuditPolicy::default());
        assert_eq!((told.clean, told.accepted, told.audit_ppm), (200, 90, 500_000));
        assert_eq!(told.quarantined.as_deref(), Some("verification.mismatch"));
        assert_eq!((told.held_micro, told.payable_micro, told.forfeited_micro), (1, 2, 3));
        let expected = "1970-01-01T00:00:00.000Z refuted in job 00000000000000000000000005, stage 1, shard 7: xxx";
        assert!(told.events.len() == 1 && told.events[0].starts_with(expected), "{:?}", told.events);
        assert!(forge_protocol::frame::encode(&told).is_ok());
    }
}
