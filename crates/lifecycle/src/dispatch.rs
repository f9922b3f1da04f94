//! Agents: what they hold, how they did so far, and who is next.
//!
//! Nothing here reaches a result: a placement decides when and where, never what.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use forge_contract::envelope::{Requires, Target};
use forge_contract::{AgentId, Capability, Digest};

use crate::Millis;
use crate::action::Placement;
use crate::member::{AgentView, Membership, OwnerId, ProjectTag, SessionId};
use crate::verify::From;

/// Structural faults of one agent until it is quarantined.
const STRIKES_MAX: u32 = 3;
/// Rest after a failed attempt, milliseconds; doubles with each further one in a row.
const REST_MS: u64 = 250;
/// Longest rest, milliseconds.
const REST_MS_MAX: u64 = 30_000;
/// Slowest rate believed, microseconds per million fuel: nobody gets a week by claiming to be slow.
const US_PER_MEGAFUEL_MAX: u64 = 1_000_000;

/// Rate beyond which an agent holds no work ahead, in multiples of what is usual.
const AHEAD_LAG_MAX: u64 = 2;
/// Rate beyond which an agent gets no first shard that others would finish before it does, in multiples of what is usual.
const TAIL_LAG_MIN: u64 = 3;
/// Answers that what is usual remembers.
const USUAL_OF: u64 = 32;

/// Fuel of a shard as planning cuts them, millions: what a round trip is weighed against.
const SHARD_MEGAFUEL: u64 = 100;

/// What a job asks of an agent.
#[derive(Clone, Debug)]
pub(crate) struct Need {
    pub target: Target,
    pub memory_bytes: u64,
    pub engine: Option<Digest>,
    pub requires: Option<Arc<Requires>>,
    /// Whose work it is.
    pub project: Option<ProjectTag>,
}

/// A connected agent.
#[derive(Debug)]
pub(crate) struct Agent {
    pub id: AgentId,
    pub capability: Capability,
    pub verifier: bool,
    /// The project whose work alone the operator gives it.
    reserved: Option<ProjectTag>,
    /// The only projects whose work its owner lets it do; any where there is none.
    only: BTreeSet<ProjectTag>,
    /// What the checks know of it, kept here so that a look at every session costs no search.
    trust: Trust,
    held: u32,
    draining: bool,
    rest_until: Millis,
    key: Option<Placement>,
}

/// What is known of an agent over its sessions.
#[derive(Debug, Default)]
struct History {
    reported: u64,
    failed: u64,
    /// The last sixteen attempts, 1 for a failure, newest in the lowest bit.
    recent: u16,
    failures_in_row: u32,
    strikes: u32,
    us_per_megafuel: u64,
    rtt_us: u64,
    membership: Membership,
}

/// What the checks know of an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Trust {
    pub owner: OwnerId,
    pub verifier: bool,
    pub clean: u64,
}

impl Trust {
    fn of(known: Membership) -> Self {
        // The operator's own agents need no probation; they are audited at the smallest rate like everybody proven.
        let clean = if known.verifier { u64::MAX } else { known.clean };
        Self { owner: known.owner, verifier: known.verifier, clean }
    }

    /// Whether this agent may give an answer asked for from these.
    pub fn is_of(&self, from: From, proven: u64) -> bool {
        match from {
            From::Anyone => true,
            From::Proven => self.verifier || self.clean >= proven,
            From::Verifier => self.verifier,
        }
    }
}

/// What an attempt showed of its agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    /// It answered, at this rate (microseconds per million fuel; 0 is unknown).
    Answered { us_per_megafuel: u64 },
    /// It failed for a reason of the machine or the network.
    Failed,
    /// Its answer breaks a structural rule or the protocol.
    Strike,
    /// A shard of it was accepted.
    Clean,
    /// Its answer was refuted.
    Refuted,
}

/// Every agent.
#[derive(Debug, Default)]
pub(crate) struct Agents {
    sessions: BTreeMap<SessionId, Agent>,
    by_agent: BTreeMap<AgentId, SessionId>,
    history: BTreeMap<AgentId, History>,
    quarantined: BTreeSet<AgentId>,
    /// Readmitted after a quarantine: one shard at a time while on probation.
    readmitted: BTreeSet<AgentId>,
    /// Clean shards at which a probation is over.
    probation: u64,
    free: BTreeSet<(Placement, SessionId)>,
    rests: BTreeSet<(Millis, SessionId)>,
    cores: u64,
    leases: u64,
    /// Connected verifiers that take work.
    verifiers: u64,
    /// Microseconds per million fuel that are usual: a mean over the last answers of all; 0 before the first.
    usual: u64,
}

impl Agents {
    pub fn new(quarantined: BTreeSet<AgentId>) -> Self {
        Self { quarantined, ..Self::default() }
    }

    /// The same, with agents that were quarantined once and are on probation until they have this many clean shards.
    pub fn with_readmitted(self, readmitted: BTreeSet<AgentId>, probation: u64) -> Self {
        Self { readmitted, probation, ..self }
    }

    /// The session an agent is connected by.
    pub fn session_of(&self, agent: AgentId) -> Option<SessionId> {
        self.by_agent.get(&agent).copied()
    }

    pub fn agent(&self, session: SessionId) -> Option<&Agent> {
        self.sessions.get(&session)
    }

    /// Distinct agents that ever joined.
    pub fn ever(&self) -> usize {
        self.history.len()
    }

    /// Cores of all agents that take work.
    pub fn cores(&self) -> u64 {
        self.cores
    }

    /// Leases all agents that take work can hold.
    pub fn leases(&self) -> u64 {
        self.leases
    }

    /// Agents that could take another lease, best first.
    pub fn free(&self) -> impl Iterator<Item = (Placement, SessionId)> + '_ {
        self.free.iter().copied()
    }

    pub fn none_free(&self) -> bool {
        self.free.is_empty()
    }

    /// The place of an agent in the order of [`Agents::free`], where it is in it.
    pub fn placement(&self, agent: AgentId) -> Option<(Placement, SessionId)> {
        let session = self.session_of(agent)?;
        Some((self.sessions.get(&session)?.key?, session))
    }

    /// `membership` counts at an agent's first join; from then on its record is kept here.
    pub fn join(&mut self, agent: AgentId, session: SessionId, capability: Capability, membership: Membership) {
        let known = self.history.entry(agent).or_insert_with(|| History { membership, ..History::default() });
        (known.membership.owner, known.membership.verifier) = (membership.owner, membership.verifier);
        known.membership.reserved = membership.reserved;
        self.by_agent.insert(agent, session);
        let only = capability.projects.iter().map(|project| ProjectTag::of(project)).collect();
        let joined = Agent {
            id: agent,
            only,
            capability,
            verifier: membership.verifier,
            reserved: membership.reserved,
            trust: Trust::of(known.membership),
            held: 0,
            draining: false,
            rest_until: 0,
            key: None,
        };
        self.sessions.insert(session, joined);
        self.count();
        self.refile(session);
    }

    pub fn leave(&mut self, session: SessionId) -> Option<AgentId> {
        let gone = self.sessions.remove(&session)?;
        if let Some(key) = gone.key {
            self.free.remove(&(key, session));
        }
        self.rests.remove(&(gone.rest_until, session));
        if self.by_agent.get(&gone.id) == Some(&session) {
            self.by_agent.remove(&gone.id);
        }
        self.count();
        Some(gone.id)
    }

    pub fn drain(&mut self, session: SessionId) {
        if let Some(agent) = self.sessions.get_mut(&session) {
            agent.draining = true;
        }
        self.count();
        self.refile(session);
    }

    pub fn is_quarantined(&self, agent: AgentId) -> bool {
        self.quarantined.contains(&agent)
    }

    /// Takes an agent out for good. False where it was out already.
    pub fn quarantine(&mut self, agent: AgentId) -> bool {
        let new = self.quarantined.insert(agent);
        if let (true, Some(session)) = (new, self.session_of(agent)) {
            self.count();
            self.refile(session);
        }
        new
    }

    /// Lifts a quarantine. The agent keeps its measured rate and nothing else: no record, no strikes.
    pub fn readmit(&mut self, agent: AgentId) {
        if !self.quarantined.remove(&agent) {
            return;
        }
        self.readmitted.insert(agent);
        let history = self.history.entry(agent).or_default();
        (history.strikes, history.recent, history.failures_in_row, history.membership.clean) = (0, 0, 0, 0);
        if let Some(session) = self.session_of(agent) {
            self.count();
            self.refile(session);
        }
    }

    /// Reserves an agent for a project, or for none any more.
    pub fn reserve(&mut self, agent: AgentId, project: Option<ProjectTag>) {
        self.history.entry(agent).or_default().membership.reserved = project;
        if let Some(here) = self.by_agent.get(&agent).and_then(|session| self.sessions.get_mut(session)) {
            here.reserved = project;
        }
    }

    /// Whether an agent that was readmitted has its probation still before it.
    fn on_probation(&self, agent: AgentId) -> bool {
        let clean = self.history.get(&agent).map_or(0, |history| history.membership.clean);
        self.readmitted.contains(&agent) && clean < self.probation
    }

    pub fn hold(&mut self, session: SessionId) {
        if let Some(agent) = self.sessions.get_mut(&session) {
            agent.held += 1;
        }
        self.refile(session);
    }

    pub fn release(&mut self, session: SessionId) {
        if let Some(agent) = self.sessions.get_mut(&session) {
            agent.held = agent.held.saturating_sub(1);
        }
        self.refile(session);
    }

    /// Notes what an attempt showed. True where the agent is to be quarantined for it.
    pub fn mark(&mut self, now: Millis, agent: AgentId, mark: Mark) -> bool {
        let history = self.history.entry(agent).or_default();
        match mark {
            Mark::Answered { us_per_megafuel } => {
                history.reported += 1;
                history.recent <<= 1;
                history.failures_in_row = 0;
                let found = us_per_megafuel.min(US_PER_MEGAFUEL_MAX);
                history.us_per_megafuel = match (history.us_per_megafuel, found) {
                    (0, found) => found,
                    (known, 0) => known,
                    (known, found) => (3 * known + found) / 4,
                };
                self.usual = match (self.usual, found) {
                    (0, found) => found,
                    (known, 0) => known,
                    (known, found) => ((USUAL_OF - 1) * known + found).div_ceil(USUAL_OF),
                };
            }
            Mark::Failed | Mark::Strike => {
                history.failed += 1;
                history.recent = history.recent << 1 | 1;
                history.failures_in_row += 1;
                history.strikes += u32::from(mark == Mark::Strike);
            }
            Mark::Clean => history.membership.clean = history.membership.clean.saturating_add(1),
            Mark::Refuted => {
                history.failed += 1;
                history.membership.clean = 0;
            }
        }
        if mark == Mark::Strike {
            history.membership.clean = 0;
        }
        let trust = Trust::of(history.membership);
        if let Some(agent) = self.by_agent.get(&agent).and_then(|session| self.sessions.get_mut(session)) {
            agent.trust = trust;
        }
        if mark == Mark::Clean {
            return false;
        }
        let out = mark == Mark::Refuted || history.strikes >= STRIKES_MAX;
        let rest_ms = match mark {
            Mark::Failed | Mark::Strike => (REST_MS << (history.failures_in_row - 1).min(7)).min(REST_MS_MAX),
            Mark::Answered { .. } | Mark::Clean | Mark::Refuted => 0,
        };
        if let Some(session) = self.session_of(agent) {
            self.rest(session, now, rest_ms);
            self.refile(session);
        }
        out && !self.is_quarantined(agent)
    }

    fn rest(&mut self, session: SessionId, now: Millis, rest_ms: u64) {
        let Some(agent) = self.sessions.get_mut(&session).filter(|_| rest_ms > 0) else { return };
        self.rests.remove(&(agent.rest_until, session));
        agent.rest_until = now + rest_ms;
        self.rests.insert((agent.rest_until, session));
    }

    /// When the next rest ends.
    pub fn deadline(&self) -> Option<Millis> {
        self.rests.first().map(|(end, _)| *end)
    }

    /// Ends the rests that are over.
    pub fn tick(&mut self, now: Millis) {
        while let Some((end, session)) = self.rests.first().copied().filter(|(end, _)| *end <= now) {
            self.rests.remove(&(end, session));
            if let Some(agent) = self.sessions.get_mut(&session) {
                agent.rest_until = 0;
            }
            self.refile(session);
        }
    }

    fn takes_work(&self, agent: &Agent) -> bool {
        !agent.draining && !self.quarantined.contains(&agent.id)
    }

    fn count(&mut self) {
        let at_work = self.sessions.values().filter(|agent| self.takes_work(agent));
        let (cores, leases) = at_work.fold((0, 0), |(cores, leases), agent| {
            (cores + u64::from(agent.capability.cores), leases + u64::from(agent.capability.leases))
        });
        (self.cores, self.leases) = (cores, leases);
        let verifiers = self.sessions.values().filter(|agent| agent.verifier && self.takes_work(agent)).count();
        self.verifiers = verifiers as u64;
    }

    /// Puts an agent where it belongs in the order of free ones.
    fn refile(&mut self, session: SessionId) {
        let Some(agent) = self.sessions.get(&session) else { return };
        let full = agent.held >= agent.capability.leases.max(1);
        let out = full || agent.rest_until > 0 || !self.takes_work(agent);
        let key = (!out).then(|| self.score(agent));
        let Some(agent) = self.sessions.get_mut(&session).filter(|agent| agent.key != key) else { return };
        if let Some(old) = core::mem::replace(&mut agent.key, key) {
            self.free.remove(&(old, session));
        }
        if let Some(new) = key {
            self.free.insert((new, session));
        }
    }

    fn score(&self, agent: &Agent) -> Placement {
        let history = self.history.get(&agent.id);
        let failed = history.map_or(0, |h| u64::from(h.recent.count_ones()) * 1000 / 16);
        let speed = history.map_or(0, |h| h.us_per_megafuel);
        let load = u64::from(agent.held) * 1000 / u64::from(agent.capability.cores.max(1));
        let rtt_us = history.map_or(0, |h| h.rtt_us);
        Placement {
            load_permille: load,
            failed_permille: failed,
            shard_us: speed.saturating_mul(SHARD_MEGAFUEL).saturating_add(rtt_us),
            us_per_megafuel: speed,
            rtt_us,
        }
    }

    /// Notes an agent's round trip; a mean over the last few.
    pub fn hear(&mut self, session: SessionId, rtt_us: u64) {
        let Some(agent) = self.sessions.get(&session).map(|agent| agent.id) else { return };
        let history = self.history.entry(agent).or_default();
        history.rtt_us = if history.rtt_us == 0 { rtt_us } else { (3 * history.rtt_us + rtt_us) / 4 };
        self.refile(session);
    }

    /// How many times longer than usual an agent takes; 0 where nothing is known.
    fn lag(&self, agent: AgentId) -> u64 {
        let rate = self.history.get(&agent).map_or(0, |history| history.us_per_megafuel);
        rate.checked_div(self.usual).unwrap_or(0)
    }

    /// Whether an agent would finish a first shard after all others have done what is left, and one of them could take it.
    pub fn drags(&self, agent: &Agent, left: u64, need: &Need) -> bool {
        let lag = self.lag(agent.id);
        let late = lag >= TAIL_LAG_MIN && left < lag.saturating_mul(self.cores);
        late && self.sessions.values().any(|other| {
            let quick = other.id != agent.id && self.lag(other.id) < TAIL_LAG_MIN;
            quick && other.rest_until == 0 && self.suits(other, need)
        })
    }

    /// Whether a connected agent could run what is asked, now or when it is free again.
    pub fn suits(&self, agent: &Agent, need: &Need) -> bool {
        let capability = &agent.capability;
        let target = match need.target {
            Target::Cpu => capability.cpu,
            Target::Gpu => capability.gpu,
            Target::Any => capability.cpu || capability.gpu,
        };
        let engine = need.engine.is_none_or(|engine| engine == capability.engine);
        let requires = need.requires.as_ref().is_none_or(|requires| requires.met_by(capability));
        let exclusive = need.requires.as_ref().is_some_and(|requires| requires.reserved);
        let wanted = agent.only.is_empty() || need.project.is_some_and(|project| agent.only.contains(&project));
        let requires = requires && wanted && is_open_to(agent.reserved, need.project, exclusive);
        target && engine && requires && capability.memory_bytes >= need.memory_bytes && self.takes_work(agent)
    }

    /// Whether an agent can take one more now: within its memory, and above its cores only where the work is plenty and
    /// it is not much slower than is usual.
    pub fn has_room(&self, agent: &Agent, need: &Need, plenty: bool) -> bool {
        if agent.held > 0 && self.on_probation(agent.id) {
            return false;
        }
        let by_memory = agent.capability.memory_bytes.checked_div(need.memory_bytes).unwrap_or(u64::MAX).max(1);
        let running = u64::from(agent.capability.cores).min(by_memory);
        let ahead = u64::from(agent.capability.leases.saturating_sub(agent.capability.cores));
        let ahead = if plenty && self.lag(agent.id) <= AHEAD_LAG_MAX { ahead } else { 0 };
        u64::from(agent.held) < running + ahead
    }

    /// Whether some connected agent suits that is none of these.
    pub fn any_other(&self, need: &Need, except: impl Fn(&AgentId) -> bool) -> bool {
        self.sessions.values().any(|agent| !except(&agent.id) && self.suits(agent, need))
    }

    /// Whether a connected agent suits that may give such an answer and is none of these.
    pub fn any_trusted(
        &self,
        need: &Need,
        from: From,
        proven: u64,
        except: impl Fn(&AgentId, OwnerId) -> bool,
    ) -> bool {
        if from == From::Verifier && self.verifiers == 0 {
            return false;
        }
        self.sessions.values().any(|agent| {
            agent.trust.is_of(from, proven) && !except(&agent.id, agent.trust.owner) && self.suits(agent, need)
        })
    }

    /// Whether this agent rests after failures.
    pub fn rests(&self, agent: AgentId) -> bool {
        let session = self.session_of(agent).and_then(|session| self.sessions.get(&session));
        session.is_some_and(|agent| agent.rest_until > 0)
    }

    /// What the checks know of an agent; nothing good where it never joined.
    pub fn trust(&self, agent: AgentId) -> Trust {
        Trust::of(self.history.get(&agent).map_or(Membership::default(), |history| history.membership))
    }

    /// Whether some connected verifier suits that is none of these.
    pub fn any_verifier(&self, need: &Need, except: impl Fn(&AgentId) -> bool) -> bool {
        self.verifiers > 0
            && self.sessions.values().any(|agent| agent.verifier && !except(&agent.id) && self.suits(agent, need))
    }

    /// How many connected agents suit.
    pub fn suitable(&self, need: &Need) -> u64 {
        self.sessions.values().filter(|agent| self.suits(agent, need)).count() as u64
    }

    /// The engine profile with the most cores among agents that suit otherwise; the smaller digest where equal.
    pub fn engine(&self, need: &Need) -> Option<Digest> {
        let mut cores: BTreeMap<Digest, u64> = BTreeMap::new();
        let open = Need { engine: None, ..need.clone() };
        for agent in self.sessions.values().filter(|agent| self.suits(agent, &open)) {
            *cores.entry(agent.capability.engine).or_default() += u64::from(agent.capability.cores);
        }
        cores.into_iter().max_by(|a, b| a.1.cmp(&b.1).then(b.0.cmp(&a.0))).map(|(engine, _)| engine)
    }

    /// Microseconds per million fuel of an agent, and how many leases it holds per core.
    pub fn pace(&self, agent: &Agent) -> (u64, u64) {
        let speed = self.history.get(&agent.id).map_or(0, |h| h.us_per_megafuel);
        (speed, u64::from(agent.held / agent.capability.cores.max(1)))
    }

    pub fn views(&self) -> Vec<AgentView> {
        let view = |(session, agent): (&SessionId, &Agent)| {
            let history = self.history.get(&agent.id);
            AgentView {
                agent: agent.id,
                session: *session,
                capability: agent.capability.clone(),
                verifier: agent.verifier,
                leases: u64::from(agent.held),
                draining: agent.draining,
                quarantined: self.quarantined.contains(&agent.id),
                clean: history.map_or(0, |h| h.membership.clean),
                reported: history.map_or(0, |h| h.reported),
                failed: history.map_or(0, |h| h.failed),
                fuel_per_ms: history.map_or(0, |h| 1_000_000_000u64.checked_div(h.us_per_megafuel).unwrap_or(0)),
                rtt_us: history.map_or(0, |h| h.rtt_us),
            }
        };
        self.sessions.iter().map(view).collect()
    }
}

/// Whether an agent that is reserved so may work for a project, which may want none but its own.
fn is_open_to(reserved: Option<ProjectTag>, project: Option<ProjectTag>, exclusive: bool) -> bool {
    match reserved {
        Some(_) => reserved == project,
        None => !exclusive,
    }
}

#[cfg(test)]
mod tests;
