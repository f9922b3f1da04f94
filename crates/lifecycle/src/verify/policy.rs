//! Which answers are looked at a second time, by whom, and what answers that differ mean.
//!
//! **Source**: the audit rate `1 / (1 + n eps / f)` after n clean shards bounds the expected number of wrong results an
//! identity gains before it is caught by `n eps / f`, so their share stays below `eps` even where identities cost
//! nothing (docs/verification.md has the argument and the simulated grid).

use std::collections::BTreeSet;

use forge_contract::canon::Writer;
use forge_contract::envelope::VerifyMode;
use forge_contract::{Digest, JobId, LeaseId};
use serde::{Deserialize, Serialize};

use crate::member::OwnerId;

/// One million: shares are counted in parts of it.
const MILLION: u64 = 1_000_000;

/// How often answers are audited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditPolicy {
    /// Largest share of accepted shards that may be wrong, per million.
    pub error_ppm: u32,
    /// Share of identities assumed to be bad, per million.
    pub bad_ppm: u32,
    /// Share of checkers assumed to be bad, per million.
    pub bad_checkers_ppm: u32,
    /// Smallest audit rate, per million: it is never zero.
    pub rate_min_ppm: u32,
    /// Shards of an identity that are all audited, since its enrolment or last fault.
    pub probation: u64,
    /// Clean shards after which an identity counts as proven.
    pub proven: u64,
    /// Share of shards sampled under `none`, at the platform's cost, per million.
    pub sample_ppm: u32,
    /// Share of answers that no audit was drawn for of which some units run again elsewhere, per million.
    pub units_ppm: u32,
    /// Units that run again of such an answer.
    pub units_again: u32,
    /// Units of a shard at least for that: it must stay a small part of a second run.
    pub units_min: u64,
    /// Share of audits that run a whole copy although the kernel has a check of its own, per million: a check has a
    /// tolerance, a copy has none.
    pub copies_ppm: u32,
}

impl Default for AuditPolicy {
    fn default() -> Self {
        Self {
            error_ppm: 1_000,
            bad_ppm: 200_000,
            bad_checkers_ppm: 0,
            rate_min_ppm: 50_000,
            probation: 50,
            proven: 1_000,
            sample_ppm: 10_000,
            units_ppm: 250_000,
            units_again: 2,
            units_min: 32,
            copies_ppm: 125_000,
        }
    }
}

impl AuditPolicy {
    /// The audit rate of an identity with this many clean shards, per million; never zero, never above a million.
    #[must_use]
    pub fn rate_ppm(&self, clean: u64) -> u32 {
        self.wanted_ppm(clean).min(1_000_000)
    }

    /// The rate at which strangers would have to look, per million: above a million where their checks cannot do.
    fn wanted_ppm(&self, clean: u64) -> u32 {
        let (error, bad) = (u64::from(self.error_ppm), u64::from(self.bad_ppm).max(1));
        let falling = if clean < self.probation {
            MILLION
        } else {
            MILLION.saturating_mul(bad) / bad.saturating_add(clean.saturating_mul(error))
        };
        let rate = falling.max(u64::from(self.rate_min_ppm)).max(1).saturating_mul(MILLION) / self.honest_checkers();
        u32::try_from(rate).unwrap_or(u32::MAX)
    }

    /// Checkers assumed to be honest, per million, at least one.
    fn honest_checkers(&self) -> u64 {
        MILLION.saturating_sub(u64::from(self.bad_checkers_ppm)).max(1)
    }

    /// Whether a check by a stranger is not enough even if every answer gets one: so young is the identity, and so many
    /// checkers are assumed to be its accomplices.
    #[must_use]
    pub fn needs_verifier(&self, clean: u64) -> bool {
        u64::from(self.wanted_ppm(clean)) > MILLION
    }

    /// The share of answers looked at again under a mode, per million.
    #[must_use]
    pub fn share_ppm(&self, mode: VerifyMode, clean: u64) -> u32 {
        match mode {
            VerifyMode::None => self.sample_ppm,
            VerifyMode::Spotcheck | VerifyMode::Quorum => self.rate_ppm(clean),
            VerifyMode::Full => 1_000_000,
        }
    }
}

/// What was drawn for one answer, each below a million.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Coins {
    /// Below the audit rate it is audited.
    pub audit: u32,
    /// Decides how.
    pub kind: u32,
    /// Decides which units, or is what the kernel's own check draws from.
    pub place: [u8; 32],
}

/// The coins of one answer.
///
/// Order: drawn only once the answer is committed. Determinism: keyed by a secret of the hub, the same after a restart;
/// nobody without the secret can tell, and an answer given anew under another lease has other coins.
#[must_use]
pub fn coins(secret: &[u8; 32], job: JobId, (stage, shard): (u32, u32), lease: LeaseId) -> Coins {
    let mut w = Writer::new();
    w.str(&job.to_string());
    w.u64(u64::from(stage));
    w.u64(u64::from(shard));
    w.u64(lease.0);
    let mut drawn = [[0u8; 8]; 6];
    let mut reader = blake3::Hasher::new_keyed(secret).update(&w.into_bytes()).finalize_xof();
    drawn.iter_mut().for_each(|word| reader.fill(word));
    let [audit, kind, place @ ..] = drawn.map(u64::from_le_bytes);
    // A share of 2^64 is as good as a share of a million: the bias is below 2^-43.
    let of_million = |word: u64| u32::try_from(word % MILLION).unwrap_or(u32::MAX);
    let mut bytes = [0u8; 32];
    for (to, word) in bytes.as_chunks_mut::<8>().0.iter_mut().zip(place) {
        *to = word.to_le_bytes();
    }
    Coins { audit: of_million(audit), kind: of_million(kind), place: bytes }
}

/// Which units of a shard run again: distinct, rising, at most as many as it has.
///
/// Source: Floyd's sampling without replacement (Bentley and Floyd 1987). Determinism: a function of its arguments.
#[must_use]
pub fn drawn_units(place: &[u8; 32], first: u64, count: u64, wanted: u32) -> Vec<u64> {
    let wanted = u64::from(wanted).min(count);
    let mut reader = blake3::Hasher::new_keyed(place).update(b"units").finalize_xof();
    let mut chosen = BTreeSet::new();
    for top in count - wanted..count {
        let mut word = [0u8; 8];
        reader.fill(&mut word);
        let drawn = u64::from_le_bytes(word) % (top + 1);
        if !chosen.insert(drawn) {
            chosen.insert(top);
        }
    }
    chosen.into_iter().map(|unit| first.saturating_add(unit)).collect()
}

/// One sound answer to a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vote {
    /// Digest of the answer: its units' digests and fuel, and the folded fragment.
    pub result: Digest,
    /// Who owns the agent.
    pub owner: OwnerId,
    /// Whether the operator runs it.
    pub verifier: bool,
    /// Its clean shards when it answered.
    pub clean: u64,
    /// What was drawn for it.
    pub coins: Coins,
}

/// Who may give the next answer. Always of an owner that has not answered, and never quarantined.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum From {
    /// Anybody.
    #[default]
    Anyone,
    /// A proven identity, or a verifier.
    Proven,
    /// A verifier.
    Verifier,
}

/// Who could be asked for a further answer now: connected, suitable, of an owner that has not answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Askable {
    /// Anybody.
    pub anyone: bool,
    /// A verifier, or one has answered already.
    pub verifier: bool,
    /// A proven identity or a verifier.
    pub proven: bool,
}

/// What stands about a shard beside the answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Circumstances {
    /// Who could be asked.
    pub askable: Askable,
    /// Units of the shard.
    pub units: u64,
    /// Whether the kernel has a check of its own for it that has not failed.
    pub checkable: bool,
    /// Whether a cheap look found the answer right.
    pub looked: bool,
    /// Whether a cheap look found it wrong: one of the two agents is.
    pub doubted: bool,
}

/// A cheap look at a committed answer by an agent of another owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// Some of its units run again.
    Units,
    /// The kernel's own check.
    Check,
}

/// What the answers at hand mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Accept this one.
    Accept(Digest),
    /// Ask for one more answer.
    More(From),
    /// Have the only answer looked at.
    Look(Look),
    /// As many copies as allowed, or answers that nobody can settle.
    Unsettled,
}

/// Decides about a shard.
///
/// Where no verifier can be asked, answers that differ are settled by more than half of at least two equal ones, and a
/// third owner, if there is one, audits in its place; where nobody proven can be asked, two owners are enough.
#[must_use]
pub fn decide(
    policy: &AuditPolicy,
    mode: VerifyMode,
    votes: &[Vote],
    about: Circumstances,
    copies_max: u32,
) -> Decision {
    let Some(first) = votes.first() else { return Decision::More(From::Anyone) };
    if votes.iter().any(|vote| vote.result != first.result) {
        return differing(mode, votes, about.askable, copies_max);
    }
    let wanted = match mode {
        _ if about.doubted => doubted(votes, about.askable).map(Decision::More),
        VerifyMode::None | VerifyMode::Spotcheck => single(policy, mode, votes, about),
        VerifyMode::Quorum => pair(policy, votes, about.askable).map(Decision::More),
        VerifyMode::Full => trio(votes).map(Decision::More),
    };
    wanted.unwrap_or(Decision::Accept(first.result))
}

/// One answer is enough unless its coins say otherwise.
///
/// An accomplice that checks a fresh identity agrees with it, and a fresh one costs nothing: where strangers' checks
/// cannot keep the bound, only a verifier's copy counts, if there is one.
fn single(policy: &AuditPolicy, mode: VerifyMode, votes: &[Vote], about: Circumstances) -> Option<Decision> {
    let Vote { clean, coins, .. } = votes.first()?;
    let audited = coins.audit < policy.share_ppm(mode, *clean);
    let verified = votes.iter().any(|vote| vote.verifier);
    let needed = mode == VerifyMode::Spotcheck && about.askable.verifier && !verified && policy.needs_verifier(*clean);
    if audited && needed {
        return Some(Decision::More(From::Verifier));
    }
    if votes.len() >= 2 || about.looked {
        return None;
    }
    if audited {
        let checked = about.checkable && coins.kind >= policy.copies_ppm;
        return Some(if checked { Decision::Look(Look::Check) } else { Decision::More(From::Anyone) });
    }
    let few = mode == VerifyMode::Spotcheck && about.units >= policy.units_min.max(1) && policy.units_again > 0;
    (few && coins.kind < policy.units_ppm).then_some(Decision::Look(Look::Units))
}

/// A look says that an answer is wrong: a verifier's copy settles it, or a second owner's where there is none.
fn doubted(votes: &[Vote], askable: Askable) -> Option<From> {
    let verified = votes.iter().any(|vote| vote.verifier);
    match votes {
        _ if verified => None,
        _ if askable.verifier => Some(From::Verifier),
        [_] => Some(From::Anyone),
        _ => None,
    }
}

/// Two owners, one of them proven or a verifier; audited by a verifier at the rate of the less proven one.
fn pair(policy: &AuditPolicy, votes: &[Vote], askable: Askable) -> Option<From> {
    let trusted = votes.iter().any(|vote| vote.verifier || vote.clean >= policy.proven);
    let proven = if askable.proven { From::Proven } else { From::Anyone };
    match votes {
        [_] => Some(if trusted { From::Anyone } else { proven }),
        _ if !trusted && askable.proven => Some(From::Proven),
        [first, _] => {
            let verified = votes.iter().any(|vote| vote.verifier);
            let clean = votes.iter().map(|vote| vote.clean).min().unwrap_or(0);
            let auditor = if askable.verifier { From::Verifier } else { From::Anyone };
            (!verified && askable.anyone && first.coins.audit < policy.rate_ppm(clean)).then_some(auditor)
        }
        _ => None,
    }
}

/// Two owners and a verifier.
fn trio(votes: &[Vote]) -> Option<From> {
    let verified = votes.iter().any(|vote| vote.verifier);
    match votes.len() {
        1 => Some(From::Anyone),
        2 if verified => Some(From::Anyone),
        _ if !verified => Some(From::Verifier),
        _ => None,
    }
}

fn differing(mode: VerifyMode, votes: &[Vote], askable: Askable, copies_max: u32) -> Decision {
    let of_verifiers: Vec<Digest> = votes.iter().filter(|vote| vote.verifier).map(|vote| vote.result).collect();
    let total = u32::try_from(votes.len()).unwrap_or(u32::MAX);
    if mode == VerifyMode::Full {
        return match of_verifiers.as_slice() {
            [truth, rest @ ..] if rest.iter().all(|other| other == truth) => {
                // What was refuted counts for nothing: two owners and a verifier must still be equal. However many lie,
                // the truth is known: a job that ended here would let them off, and end its successors as well.
                let equal = votes.iter().filter(|vote| vote.result == *truth).count();
                match equal {
                    3.. => Decision::Accept(*truth),
                    _ if total >= copies_max && askable.proven => Decision::More(From::Proven),
                    _ => Decision::More(From::Anyone),
                }
            }
            [] if askable.verifier => Decision::More(From::Verifier),
            _ => Decision::Unsettled,
        };
    }
    match of_verifiers.as_slice() {
        [] if askable.verifier => return Decision::More(From::Verifier),
        [] => {}
        [truth, rest @ ..] if rest.iter().all(|other| other == truth) => return Decision::Accept(*truth),
        _ => {
            return match majority(&of_verifiers) {
                Some(truth) => Decision::Accept(truth),
                None if total >= copies_max => Decision::Unsettled,
                None => Decision::More(From::Verifier),
            };
        }
    }
    let all: Vec<Digest> = votes.iter().map(|vote| vote.result).collect();
    match majority(&all) {
        Some(truth) => Decision::Accept(truth),
        None if total >= copies_max => Decision::Unsettled,
        None => Decision::More(From::Anyone),
    }
}

/// The answer that more than half of at least two give.
fn majority(results: &[Digest]) -> Option<Digest> {
    let count = |digest: &Digest| results.iter().filter(|other| *other == digest).count();
    let best = results.iter().max_by_key(|digest| (count(digest), **digest))?;
    let votes = count(best);
    (votes >= 2 && votes * 2 > results.len()).then_some(*best)
}
