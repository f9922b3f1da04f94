//! The order of messages: what may arrive on each kind of stream, and when. Pure state, no IO.
//!
//! | stream | opened by | messages |
//! |---|---|---|
//! | control | agent, once, first | `Hello`, then `Heartbeat` and `Drain`; back: `Welcome` or `Refused`, then `Standing` and `Drain` |
//! | shard | hub | `Lease`; back: `Progress` any number of times, `Report` once |
//! | fetch | agent | `Fetch`; back: `Have` or `Missing` |

use forge_contract::LeaseId;
use forge_contract::capability::CapabilityError;

use crate::REVISION;
use crate::message::{Hello, Kind, Progress, RefusalCode, Refused, TEXT_BYTES_MAX, Welcome};

/// Why a legal frame breaks the conversation.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SessionError {
    /// A message before or after its time.
    #[error("a {found:?} message is not legal in the {stage:?} stage")]
    OutOfOrder {
        /// What arrived.
        found: Kind,
        /// Where the conversation was.
        stage: Stage,
    },
    /// Progress that falls or passes the shard's units.
    #[error("progress of {units_done} units after {before} of {units}")]
    Progress {
        /// The number that arrived.
        units_done: u64,
        /// The number before it.
        before: u64,
        /// Units of the shard.
        units: u64,
    },
    /// A report that names another lease than its stream's.
    #[error("a report for lease {found} on the stream of lease {lease}")]
    OtherLease {
        /// The lease it names.
        found: LeaseId,
        /// The stream's lease.
        lease: LeaseId,
    },
}

/// Where a control stream is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Nothing has been agreed.
    Greeting,
    /// The hub decides on a hello.
    Deciding,
    /// The session is open.
    Open,
    /// No new leases.
    Draining,
    /// The hub refused.
    Closed,
}

/// The hub's end of a control stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HubControl {
    stage: Stage,
}

impl Default for HubControl {
    fn default() -> Self {
        Self { stage: Stage::Greeting }
    }
}

impl HubControl {
    /// Where it is.
    #[must_use]
    pub fn stage(&self) -> Stage {
        self.stage
    }

    /// What may arrive now.
    #[must_use]
    pub fn legal(&self) -> &'static [Kind] {
        match self.stage {
            Stage::Greeting => &[Kind::Hello],
            Stage::Open => &[Kind::Heartbeat, Kind::Drain],
            Stage::Draining => &[Kind::Heartbeat],
            Stage::Deciding | Stage::Closed => &[],
        }
    }

    /// A hello arrived: checks what needs no record.
    ///
    /// # Errors
    /// The refusal to send; the conversation is then over.
    pub fn hello(&mut self, hello: &Hello) -> Result<(), Refused> {
        let verdict = match self.stage {
            Stage::Greeting => check(hello),
            _ => Err(refused(RefusalCode::Malformed, "a hello comes once".into())),
        };
        self.stage = if verdict.is_ok() { Stage::Deciding } else { Stage::Closed };
        verdict
    }

    /// The hub took the agent in.
    pub fn welcome(&mut self) {
        if self.stage == Stage::Deciding {
            self.stage = Stage::Open;
        }
    }

    /// The agent takes no more.
    ///
    /// # Errors
    /// `OutOfOrder` before a welcome and at the second time.
    pub fn drain(&mut self) -> Result<(), SessionError> {
        match self.stage {
            Stage::Open => {
                self.stage = Stage::Draining;
                Ok(())
            }
            stage => Err(SessionError::OutOfOrder { found: Kind::Drain, stage }),
        }
    }
}

fn check(hello: &Hello) -> Result<(), Refused> {
    if hello.revision != REVISION {
        let detail = format!("this hub speaks revision {REVISION}, the agent {}", hello.revision);
        return Err(refused(RefusalCode::Revision, detail));
    }
    if hello.software.len() > TEXT_BYTES_MAX || hello.software.chars().any(char::is_control) {
        return Err(refused(RefusalCode::Malformed, "software: at most 1024 bytes, no control characters".into()));
    }
    hello.capability.check().map_err(|error: CapabilityError| refused(RefusalCode::Malformed, error.to_string()))
}

/// A refusal.
#[must_use]
pub fn refused(code: RefusalCode, detail: String) -> Refused {
    Refused { code, detail }
}

/// The agent's end of a control stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AgentControl {
    stage: Stage,
}

impl Default for AgentControl {
    fn default() -> Self {
        Self { stage: Stage::Greeting }
    }
}

impl AgentControl {
    /// What may arrive now.
    #[must_use]
    pub fn legal(&self) -> &'static [Kind] {
        match self.stage {
            Stage::Greeting | Stage::Deciding => &[Kind::Welcome, Kind::Refused],
            Stage::Open => &[Kind::Standing, Kind::Drain],
            Stage::Draining => &[Kind::Standing],
            Stage::Closed => &[],
        }
    }

    /// The hub took us in.
    ///
    /// # Errors
    /// The refusal this agent gives itself: a hub of another revision.
    pub fn welcome(&mut self, welcome: &Welcome) -> Result<(), Refused> {
        if welcome.revision != REVISION {
            self.stage = Stage::Closed;
            let detail = format!("this agent speaks revision {REVISION}, the hub {}", welcome.revision);
            return Err(refused(RefusalCode::Revision, detail));
        }
        self.stage = Stage::Open;
        Ok(())
    }

    /// The hub gives no more.
    ///
    /// # Errors
    /// `OutOfOrder` before a welcome and at the second time.
    pub fn drain(&mut self) -> Result<(), SessionError> {
        match self.stage {
            Stage::Open => {
                self.stage = Stage::Draining;
                Ok(())
            }
            stage => Err(SessionError::OutOfOrder { found: Kind::Drain, stage }),
        }
    }
}

/// The hub's end of a shard stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShardAnswer {
    lease: LeaseId,
    units: u64,
    units_done: u64,
}

impl ShardAnswer {
    /// The stream of a lease on a shard of `units` units.
    #[must_use]
    pub fn new(lease: LeaseId, units: u64) -> Self {
        Self { lease, units, units_done: 0 }
    }

    /// What may arrive until the report.
    #[must_use]
    pub fn legal(&self) -> &'static [Kind] {
        &[Kind::Progress, Kind::Report]
    }

    /// Progress arrived; whether it is news.
    ///
    /// # Errors
    /// `Progress`.
    pub fn progress(&mut self, progress: Progress) -> Result<bool, SessionError> {
        let (units_done, before) = (progress.units_done, self.units_done);
        if units_done < before || units_done > self.units {
            return Err(SessionError::Progress { units_done, before, units: self.units });
        }
        self.units_done = units_done;
        Ok(units_done > before)
    }

    /// A report arrived.
    ///
    /// # Errors
    /// `OtherLease`.
    pub fn report(&self, found: LeaseId) -> Result<(), SessionError> {
        if found == self.lease { Ok(()) } else { Err(SessionError::OtherLease { found, lease: self.lease }) }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use forge_contract::{AgentId, Capability, Digest};

    fn hello() -> Hello {
        let capability = Capability {
            cores: 1,
            leases: 2,
            memory_bytes: 1,
            arch: "x86_64".into(),
            os: "linux".into(),
            cpu: true,
            gpu: false,
            labels: vec![],
            projects: vec![],
            engine: Digest::of(b"e"),
            cage: "full".into(),
        };
        Hello { revision: REVISION, software: "forge-agent 0.1.0".into(), capability, enrol_secret: None }
    }

    #[test]
    fn a_session_opens_only_by_hello_and_welcome() {
        let mut hub = HubControl::default();
        assert_eq!(hub.legal(), [Kind::Hello]);
        assert!(hub.drain().is_err());
        hub.welcome();
        assert_eq!(hub.stage(), Stage::Greeting);
        hub.hello(&hello()).unwrap();
        assert!(hub.legal().is_empty());
        hub.welcome();
        assert_eq!(hub.legal(), [Kind::Heartbeat, Kind::Drain]);
        hub.drain().unwrap();
        assert_eq!(hub.drain(), Err(SessionError::OutOfOrder { found: Kind::Drain, stage: Stage::Draining }));
        assert_eq!(hub.legal(), [Kind::Heartbeat]);
    }

    #[test]
    fn a_second_or_foreign_hello_is_refused() {
        type Spoil = fn(&mut Hello);
        let spoils: [(Spoil, RefusalCode); 3] = [
            (|h| h.revision = REVISION + 1, RefusalCode::Revision),
            (|h| h.capability.cores = 0, RefusalCode::Malformed),
            (|h| h.software = "a\u{1b}[2J".into(), RefusalCode::Malformed),
        ];
        for (spoil, code) in spoils {
            let (mut hub, mut bad) = (HubControl::default(), hello());
            spoil(&mut bad);
            assert_eq!(hub.hello(&bad).unwrap_err().code, code);
            assert!(hub.legal().is_empty());
        }
        let mut hub = HubControl::default();
        hub.hello(&hello()).unwrap();
        assert_eq!(hub.hello(&hello()).unwrap_err().code, RefusalCode::Malformed);
    }

    #[test]
    fn an_agent_refuses_a_hub_of_another_revision() {
        let agent = AgentId::of_public_key(&[0; 32]);
        let welcome = Welcome { revision: 9, agent, session: 1, heartbeat_ms: 1, leases_max: 1 };
        let mut control = AgentControl::default();
        assert!(control.welcome(&welcome).is_err());
        assert!(control.legal().is_empty());
        let mut control = AgentControl::default();
        assert!(control.drain().is_err());
        control.welcome(&Welcome { revision: REVISION, ..welcome }).unwrap();
        assert_eq!(control.legal(), [Kind::Standing, Kind::Drain]);
        control.drain().unwrap();
        assert_eq!(control.legal(), [Kind::Standing]);
        assert!(control.drain().is_err());
    }

    #[test]
    fn progress_rises_within_the_shard_and_reports_stay_on_their_stream() {
        let mut answer = ShardAnswer::new(LeaseId(3), 10);
        assert_eq!(answer.progress(Progress { units_done: 4 }), Ok(true));
        assert_eq!(answer.progress(Progress { units_done: 4 }), Ok(false));
        assert!(answer.progress(Progress { units_done: 3 }).is_err());
        assert!(answer.progress(Progress { units_done: 11 }).is_err());
        assert_eq!(answer.report(LeaseId(3)), Ok(()));
        assert!(answer.report(LeaseId(4)).is_err());
    }
}
