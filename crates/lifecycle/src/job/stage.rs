//! One stage under way: which shards are out, which wait, which are settled. No event costs more than a few queue
//! operations, however many shards the stage has.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use forge_contract::fragment::tree::Fold;
use forge_contract::fragment::{Fragment, Shape};
use forge_contract::report::{Completed, UnitRecord, Usage};
use forge_contract::task::{InputRef, Task};
use forge_contract::{AgentId, Digest, Failure, FailureCode, LeaseId};

use super::pace::Pace;
use super::waves::Waves;
use crate::Millis;
use crate::action::{Asked, Placement, Reason};
use crate::dispatch::{Agents, Need, Trust};
use crate::member::{OwnerId, SessionId};
use crate::plan::StagePlan;
use crate::verify::{Coins, From, Looked, Vote};

/// Entries of a queue looked at for one agent: those skipped wait for another agent, or for this one's next turn.
const LOOK_MAX: usize = 32;

/// One lease of one shard.
#[derive(Clone, Debug)]
pub(crate) struct Grant {
    pub shard: u32,
    pub agent: AgentId,
    pub session: SessionId,
    pub reason: Reason,
    pub asked: Asked,
    pub placement: Placement,
    pub trust: Trust,
    pub started_at: Millis,
    pub units_done: u64,
}

/// A cheap look that is wanted of a shard.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wish {
    pub asked: Asked,
    /// The lease of the answer it is about.
    pub about: LeaseId,
}

/// What a cheap look found.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Finding {
    pub agent: AgentId,
    pub trust: Trust,
    pub about: LeaseId,
    /// What the unit gave, where one ran again.
    pub unit: Option<(u64, UnitRecord)>,
    /// What was looked at: digest of the answer.
    pub result: Digest,
    pub looked: Looked,
}

/// A structurally sound answer that is not settled yet.
#[derive(Debug)]
pub(crate) struct Answer {
    pub agent: AgentId,
    pub trust: Trust,
    pub coins: Coins,
    pub lease: LeaseId,
    pub engine: Digest,
    pub usage: Usage,
    pub result: Digest,
    pub completed: Completed,
    pub fragment: Fragment,
    /// Whether it would not fold with what was accepted, its sizes or types being others, or what was accepted did not
    /// fold once: it needs a second word.
    pub odd: bool,
}

/// Who holds a lease of a shard.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Holder {
    pub lease: LeaseId,
    pub agent: AgentId,
    pub trust: Trust,
    /// The answer it looks at; `None` for a copy.
    pub about: Option<LeaseId>,
}

/// A shard given out at least once and not settled.
#[derive(Debug)]
pub(crate) struct Shard {
    pub task: Arc<Task>,
    pub key: Digest,
    /// Owners asked for an answer.
    pub want: u32,
    /// How many that were at first.
    want_first: u32,
    /// Who may give the next one.
    pub from: From,
    pub live: Vec<Holder>,
    pub answers: Vec<Answer>,
    /// Agents it failed on: another one is preferred.
    pub avoid: BTreeSet<AgentId>,
    pub attempts: u32,
    pub losses: u32,
    pub failed: u32,
    /// Failures that answer for the kernel, by agent and owner.
    pub kernel: Vec<(AgentId, OwnerId, FailureCode)>,
    /// Whether owners agree that the kernel fails: a verifier is to say so, where one is there.
    pub condemned: bool,
    /// Whether a second copy was asked for because the first is slow.
    pub hedged: bool,
    /// Whether a further agent was wanted and none was there.
    pub unchecked: bool,
    /// Cheap looks that wait for an agent.
    pub wishes: VecDeque<Wish>,
    /// What cheap looks found.
    pub findings: Vec<Finding>,
    /// Cheap looks that failed.
    pub looks_failed: u32,
    /// Whether the kernel's own check may be asked.
    pub checkable: bool,
    published: Vec<Digest>,
    /// Whether nobody could be had to run some units again.
    pub units_waived: bool,
    answered: bool,
    retrying: bool,
    /// Which queue of copies it waits in, and until when.
    due: Option<(From, Millis)>,
}

impl Shard {
    fn new(task: Arc<Task>, want: u32, checkable: bool) -> Self {
        let key = task.key_digest();
        Self {
            task,
            key,
            want,
            want_first: want,
            from: From::Anyone,
            live: Vec::new(),
            answers: Vec::new(),
            avoid: BTreeSet::new(),
            attempts: 0,
            losses: 0,
            failed: 0,
            kernel: Vec::new(),
            condemned: false,
            hedged: false,
            unchecked: false,
            wishes: VecDeque::new(),
            findings: Vec::new(),
            looks_failed: 0,
            checkable,
            published: Vec::new(),
            units_waived: false,
            answered: false,
            retrying: false,
            due: None,
        }
    }

    /// Whether an agent has it or has answered it.
    pub fn has(&self, agent: &AgentId) -> bool {
        self.live.iter().any(|holder| holder.agent == *agent) || self.answers.iter().any(|a| a.agent == *agent)
    }

    /// Those who have a copy or have answered it.
    pub fn trusts(&self) -> impl Iterator<Item = Trust> + '_ {
        let live = self.live.iter().filter(|holder| holder.about.is_none());
        live.map(|holder| holder.trust).chain(self.answers.iter().map(|answer| answer.trust))
    }

    /// Whether an agent of this owner has it, has answered it or has looked at it. Who found fault with an answer is a
    /// party to the dispute; a verifier is above it.
    pub fn has_owner(&self, owner: OwnerId) -> bool {
        let found = self.findings.iter().filter(|finding| !finding.trust.verifier).map(|finding| finding.trust);
        let live = self.live.iter().map(|holder| holder.trust);
        live.chain(self.answers.iter().map(|answer| answer.trust)).chain(found).any(|trust| trust.owner == owner)
    }

    /// The answer given under this lease.
    pub fn answer_of(&self, lease: LeaseId) -> Option<&Answer> {
        self.answers.iter().find(|answer| answer.lease == lease)
    }

    /// Notes that an answer's fragment is served to whoever checks it.
    pub fn publish(&mut self, digest: Digest) {
        self.published.push(digest);
    }

    /// Fragments served to whoever checks them.
    pub fn published(&self) -> impl Iterator<Item = Digest> + '_ {
        self.published.iter().copied()
    }

    /// Whether cheap looks are wanted or under way: those at an answer that was dropped say nothing of this one.
    pub fn is_looked_at(&self) -> bool {
        let stands = |about: LeaseId| self.answer_of(about).is_some();
        !self.wishes.is_empty() || self.live.iter().any(|holder| holder.about.is_some_and(stands))
    }

    /// Whether looks at the only answer found it right, all that were wanted.
    pub fn looked(&self) -> bool {
        let about = |lease: LeaseId| self.answers.first().is_some_and(|answer| answer.lease == lease);
        let right = self.findings.iter().any(|finding| finding.looked.right && about(finding.about));
        right && !self.is_looked_at()
    }

    /// Whether something speaks against an answer that stands: a look, a shape that no other shard has, a job that did not fold.
    pub fn doubted(&self) -> bool {
        self.answers.iter().any(|answer| answer.odd)
            || self.findings.iter().any(|finding| !finding.looked.right && self.answer_of(finding.about).is_some())
    }

    /// The answers as votes: an owner has one, unless its agents contradict each other.
    pub fn votes(&self) -> Vec<Vote> {
        let mut votes: Vec<Vote> = Vec::with_capacity(self.answers.len());
        for Answer { result, trust, coins, .. } in &self.answers {
            let Trust { owner, verifier, clean } = *trust;
            if votes.iter().all(|vote| vote.owner != owner || vote.result != *result) {
                votes.push(Vote { result: *result, owner, verifier, clean, coins: *coins });
            }
        }
        votes
    }

    /// Owners that have it or have answered it.
    fn copies(&self) -> usize {
        // A handful at most: cheaper counted than collected.
        let first_of_owner = |at: usize, owner| self.trusts().take(at).all(|earlier| earlier.owner != owner);
        self.trusts().enumerate().filter(|(at, trust)| first_of_owner(*at, trust.owner)).count()
    }

    /// Copies asked for: those the mode wants, and one more where one of them is slow.
    fn lacks_copy(&self) -> bool {
        if !self.wishes.is_empty() {
            return true;
        }
        let want = usize::try_from(self.want).unwrap_or(usize::MAX);
        let hedge = self.hedged && self.answers.len() < want && self.live.len() + self.answers.len() <= want;
        self.copies() < want || hedge
    }

    /// Whether a further copy is wanted for no other reason than that one is slow.
    pub fn wants_hedge_only(&self) -> bool {
        self.wishes.is_empty() && self.copies() >= usize::try_from(self.want).unwrap_or(usize::MAX)
    }

    /// Whether this agent may have the next copy.
    fn takes(&self, agent: &AgentId, trust: Trust, proven: u64) -> bool {
        if self.wants_hedge_only() {
            return !self.has(agent);
        }
        trust.is_of(self.from, proven) && !self.has_owner(trust.owner)
    }

    /// Whether copies are there that differ.
    pub fn disputed(&self) -> bool {
        self.answers.iter().zip(self.answers.iter().skip(1)).any(|(a, b)| a.result != b.result)
    }
}

/// A stage under way.
#[derive(Debug)]
pub(crate) struct StageRun {
    pub index: u32,
    pub inputs: Vec<InputRef>,
    pub fold: Fold,
    /// The shape of what was accepted.
    pub shape: Option<Shape>,
    pub open: BTreeMap<u32, Shard>,
    pub grants: BTreeMap<LeaseId, Grant>,
    pub settled: u32,
    /// Units folded.
    pub folded: u64,
    /// What waits for a checkpoint, where the stage may end early.
    pub waves: Option<Waves>,
    /// Units that running leases say they finished.
    pub units_running: u64,
    total: u32,
    fresh: u32,
    bits: Vec<u64>,
    retries: VecDeque<u32>,
    /// Shards that wait for a further copy, by who may give it: an agent looks only where it may.
    copies: [BTreeSet<(Millis, u32)>; 3],
    by_age: BTreeSet<(Millis, LeaseId)>,
    unanswered: usize,
    seen: Seen,
}

/// What answers so far took.
#[derive(Clone, Debug, Default)]
struct Seen {
    took: Pace,
    units: u64,
    fuel: u64,
}

impl StageRun {
    pub fn new(index: u32, plan: &StagePlan, inputs: Vec<InputRef>) -> Self {
        let words = usize::try_from(plan.shards.div_ceil(64)).unwrap_or(0);
        Self {
            index,
            inputs,
            fold: Fold::new(plan.units),
            shape: None,
            open: BTreeMap::new(),
            grants: BTreeMap::new(),
            settled: 0,
            folded: 0,
            waves: plan.stop.as_ref().map(|stop| Waves::new(stop, plan)),
            units_running: 0,
            total: plan.shards,
            fresh: 0,
            bits: vec![0; words],
            retries: VecDeque::new(),
            copies: Default::default(),
            by_age: BTreeSet::new(),
            unanswered: 0,
            seen: Seen::default(),
        }
    }

    fn bit(shard: u32) -> (usize, u64) {
        (usize::try_from(shard / 64).unwrap_or(usize::MAX), 1 << (shard % 64))
    }

    pub fn is_settled(&self, shard: u32) -> bool {
        let (word, bit) = Self::bit(shard);
        self.bits.get(word).is_none_or(|word| word & bit != 0)
    }

    /// Marks a shard as settled and forgets it.
    pub fn settle(&mut self, shard: u32) -> Option<Shard> {
        let (word, bit) = Self::bit(shard);
        if let Some(word) = self.bits.get_mut(word).filter(|word| **word & bit == 0) {
            *word |= bit;
            self.settled += 1;
        }
        let gone = self.open.remove(&shard)?;
        if let Some((from, due)) = gone.due {
            self.waiting(from).remove(&(due, shard));
        }
        self.unanswered -= usize::from(!gone.answered);
        Some(gone)
    }

    pub fn is_done(&self) -> bool {
        match &self.waves {
            Some(waves) => waves.stopped().is_some(),
            None => self.settled == self.total,
        }
    }

    /// Whether a shard lies beyond the checkpoint that is looked at next.
    pub fn is_beyond(&self, shard: u32) -> bool {
        self.waves.as_ref().is_some_and(|waves| shard >= waves.until())
    }

    /// Gives up a shard beyond the checkpoint; returns its leases.
    pub fn doom(&mut self, shard: u32, failure: Failure) -> Vec<Holder> {
        let gone = self.settle(shard);
        self.retries.retain(|retry| *retry != shard);
        if let Some(waves) = &mut self.waves {
            waves.doom(shard, failure);
        }
        gone.map(|open| open.live).unwrap_or_default()
    }

    /// Shards that may be given out for the first time: all, or those up to the checkpoint after the next one, and not
    /// so many that what waits beyond the next one grows large.
    fn limit(&self, window: usize) -> u32 {
        let Some(waves) = &self.waves else { return self.total };
        let window = u32::try_from(window).unwrap_or(u32::MAX);
        waves.ahead().min(waves.until().saturating_add(window)).min(self.total)
    }

    /// Whether every shard has an answer and only copies are outstanding.
    pub fn only_copies_left(&self) -> bool {
        self.fresh >= self.total && self.retries.is_empty() && self.unanswered == 0 && !self.open.is_empty()
    }

    /// Whether a shard waits for an agent.
    pub fn is_hungry(&self, window: usize) -> bool {
        !self.retries.is_empty()
            || self.copies.iter().any(|queue| !queue.is_empty())
            || (self.fresh < self.limit(window) && self.open.len() < window)
    }

    /// Shards never given out that may be now.
    pub fn fresh_left(&self) -> u64 {
        u64::from(self.limit(usize::MAX).saturating_sub(self.fresh))
    }

    /// The next shard for an agent, and why.
    pub fn next(
        &mut self,
        (agent, trust): (&AgentId, Trust),
        (window, proven): (usize, u64),
        (agents, need): (&Agents, &Need),
        may_be_first: bool,
    ) -> Option<(u32, Reason)> {
        if let Some(shard) = self.next_retry((agent, trust), proven, agents, need) {
            return Some((shard, Reason::Retry));
        }
        if let Some(found) = self.next_copy((agent, trust), proven, agents, need) {
            return Some(found);
        }
        if !may_be_first {
            return None;
        }
        while self.fresh < self.total && (self.is_settled(self.fresh) || self.open.contains_key(&self.fresh)) {
            self.fresh += 1;
        }
        let first = (self.fresh < self.limit(window) && self.open.len() < window).then_some(self.fresh)?;
        self.fresh += 1;
        Some((first, Reason::First))
    }

    fn next_retry(
        &mut self,
        (agent, trust): (&AgentId, Trust),
        proven: u64,
        agents: &Agents,
        need: &Need,
    ) -> Option<u32> {
        let may = |shard: &Shard| {
            let judge = !shard.condemned || trust.verifier || !agents.any_verifier(need, |_| false);
            judge && acceptable(shard, agent, proven, agents, need)
        };
        let fits = |shard: &u32| self.open.get(shard).is_none_or(may);
        let at = self.retries.iter().take(LOOK_MAX).position(fits)?;
        let shard = self.retries.remove(at)?;
        if let Some(open) = self.open.get_mut(&shard) {
            open.retrying = false;
        }
        Some(shard)
    }

    fn next_copy(
        &mut self,
        (agent, trust): (&AgentId, Trust),
        proven: u64,
        agents: &Agents,
        need: &Need,
    ) -> Option<(u32, Reason)> {
        let fits = |(_, shard): &&(Millis, u32)| {
            self.open
                .get(shard)
                .is_some_and(|s| s.takes(agent, trust, proven) && acceptable(s, agent, proven, agents, need))
        };
        let of = [From::Anyone, From::Proven, From::Verifier].map(|from| trust.is_of(from, proven));
        let queues = self.copies.iter().zip(of).filter(|(_, may)| *may);
        let found = queues.flat_map(|(queue, _)| queue.iter().take(LOOK_MAX)).find(fits).copied();
        let (_, shard) = found?;
        let open = self.open.get_mut(&shard)?;
        let (due, hedge_only) = (open.due.take(), open.wants_hedge_only());
        if let Some((from, due)) = due {
            self.waiting(from).remove(&(due, shard));
        }
        let open = self.open.get_mut(&shard)?;
        let reason = match open.wishes.front().map(|wish| wish.asked) {
            Some(Asked::Unit(_)) => Reason::Unit,
            Some(Asked::Check(_)) => Reason::Proof,
            Some(Asked::Shard) | None if hedge_only => Reason::Hedge,
            Some(Asked::Shard) | None => Reason::Check,
        };
        Some((shard, reason))
    }

    /// Notes a lease and says what its agent is to do. The first one of a shard opens it.
    pub fn grant(
        &mut self,
        lease: LeaseId,
        mut grant: Grant,
        (want, checkable): (u32, bool),
        task: impl FnOnce(&[InputRef]) -> Option<Task>,
    ) -> Option<Arc<Task>> {
        let shard = grant.shard;
        if !self.open.contains_key(&shard) {
            let task = Arc::new(task(&self.inputs)?);
            self.open.insert(shard, Shard::new(task, want, checkable));
            self.unanswered += 1;
        }
        let open = self.open.get_mut(&shard)?;
        let wish = match grant.reason {
            Reason::Unit | Reason::Proof => open.wishes.pop_front(),
            Reason::First | Reason::Retry | Reason::Hedge | Reason::Check => None,
        };
        let task = match wish.map(|wish| wish.asked) {
            Some(asked @ (Asked::Unit(_) | Asked::Check(_))) => Arc::new(asked.task(&open.task)),
            Some(Asked::Shard) | None => Arc::clone(&open.task),
        };
        grant.asked = wish.map_or(Asked::Shard, |wish| wish.asked);
        let about = wish.map(|wish| wish.about);
        open.live.push(Holder { lease, agent: grant.agent, trust: grant.trust, about });
        if about.is_none() {
            self.by_age.insert((grant.started_at, lease));
        }
        self.grants.insert(lease, grant);
        Some(task)
    }

    /// Goes on with a shard of before whose answers are not settled; its leases are over.
    pub fn resume(&mut self, shard: u32, mut open: Shard) {
        open.live.clear();
        open.wishes.clear();
        (open.due, open.retrying, open.hedged) = (None, false, false);
        self.open.insert(shard, open);
    }

    /// Asks for cheap looks at an answer.
    pub fn wish(&mut self, shard: u32, wishes: impl IntoIterator<Item = Wish>) {
        if let Some(open) = self.open.get_mut(&shard) {
            open.wishes.extend(wishes);
            open.from = From::Anyone;
        }
    }

    /// Ends a lease, however it ended.
    ///
    /// Gives the answer it was to look at, too.
    pub fn end(&mut self, lease: LeaseId) -> Option<(Grant, Option<LeaseId>)> {
        let grant = self.grants.remove(&lease)?;
        self.by_age.remove(&(grant.started_at, lease));
        self.units_running = self.units_running.saturating_sub(grant.units_done);
        let mut about = None;
        if let Some(open) = self.open.get_mut(&grant.shard) {
            about = open.live.iter().find(|holder| holder.lease == lease).and_then(|holder| holder.about);
            open.live.retain(|holder| holder.lease != lease);
        }
        Some((grant, about))
    }

    /// Notes an answer and what it took.
    pub fn answer(&mut self, shard: u32, answer: Answer, took_ms: u64) {
        self.seen.took.add(took_ms);
        self.seen.units += answer.completed.units.len() as u64;
        self.seen.fuel = self.seen.fuel.saturating_add(answer.completed.fuel());
        if let Some(open) = self.open.get_mut(&shard) {
            self.unanswered -= usize::from(!open.answered);
            open.answered = true;
            open.answers.push(answer);
        }
    }

    /// Drops an agent's answer to a shard, and what it found of others'.
    pub fn disown(&mut self, shard: u32, agent: AgentId) {
        let Some(open) = self.open.get_mut(&shard) else { return };
        let answers = open.answers.len();
        open.answers.retain(|answer| answer.agent != agent);
        // A look is about one answer; what it found of another one says nothing.
        let left: Vec<LeaseId> = open.answers.iter().map(|answer| answer.lease).collect();
        open.wishes.retain(|wish| left.contains(&wish.about));
        open.findings.retain(|finding| left.contains(&finding.about) && finding.agent != agent);
        open.avoid.insert(agent);
        open.failed += u32::from(open.answers.len() < answers);
        if open.answered && open.answers.is_empty() {
            open.answered = false;
            self.unanswered += 1;
        }
    }

    /// Puts a shard into the queue it belongs to; a copy that finds no agent is looked at again at `due`.
    pub fn file(&mut self, shard: u32, due: Millis) {
        let Some(open) = self.open.get_mut(&shard) else { return };
        let none = open.trusts().next().is_none();
        let old = open.due.take();
        let lacks_copy = open.lacks_copy();
        let from = if open.wants_hedge_only() { From::Anyone } else { open.from };
        if lacks_copy && !none {
            open.due = Some((from, due));
        }
        if none {
            // Nobody has it: whoever takes it is the first again.
            (open.from, open.want) = (From::Anyone, open.want_first);
            if !open.retrying {
                open.retrying = true;
                self.retries.push_back(shard);
            }
        }
        if let Some((from, old)) = old {
            self.waiting(from).remove(&(old, shard));
        }
        if lacks_copy && !none {
            self.waiting(from).insert((due, shard));
        }
    }

    fn waiting(&mut self, from: From) -> &mut BTreeSet<(Millis, u32)> {
        let [anyone, of_proven, of_verifiers] = &mut self.copies;
        match from {
            From::Anyone => anyone,
            From::Proven => of_proven,
            From::Verifier => of_verifiers,
        }
    }

    /// The copy that waits longest, and when it is to be looked at again.
    pub fn overdue(&self) -> Option<(Millis, u32)> {
        self.copies.iter().filter_map(|queue| queue.first()).min().copied()
    }

    /// When the oldest lease without a hedge was given out.
    pub fn oldest(&self) -> Option<(Millis, LeaseId)> {
        self.by_age.first().copied()
    }

    /// Asks for one more copy of the shard of this lease, once. True where it now waits.
    pub fn hedge(&mut self, started_at: Millis, lease: LeaseId, due: Millis) -> bool {
        self.by_age.remove(&(started_at, lease));
        let Some(shard) = self.grants.get(&lease).map(|grant| grant.shard) else { return false };
        let Some(open) = self.open.get_mut(&shard) else { return false };
        if open.hedged {
            return false;
        }
        open.hedged = true;
        self.file(shard, due);
        true
    }

    /// Milliseconds from grant to answer that few answers exceed; `None` before the first.
    pub fn slow_ms(&self) -> Option<u64> {
        self.seen.took.slow_ms()
    }

    /// Mean fuel of a unit so far.
    pub fn unit_fuel(&self) -> u64 {
        self.seen.fuel.checked_div(self.seen.units).unwrap_or(0)
    }
}

/// Whether a shard may go to an agent it failed on before: only where no other agent could take it.
fn acceptable(shard: &Shard, agent: &AgentId, proven: u64, agents: &Agents, need: &Need) -> bool {
    if !shard.avoid.contains(agent) {
        return true;
    }
    let other = match shard.wants_hedge_only() {
        true => agents.any_other(need, |other| shard.avoid.contains(other) || shard.has(other)),
        false => agents.any_trusted(need, shard.from, proven, |other, owner| {
            shard.avoid.contains(other) || shard.has_owner(owner)
        }),
    };
    !other
}
