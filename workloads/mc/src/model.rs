//! insurance.v1: the aggregate loss of policy years, block by block.

use forge_sdk_guest::distribution::Collector;
use forge_sdk_guest::lanes::F64x2;
use forge_sdk_guest::rng::Generator;
use forge_sdk_guest::{Distribution, serde};

use crate::chance::Chance;
use crate::lognormal::{Amounts, DRAWS_MAX, Lognormal};
use crate::poisson::{Poisson, Tally};

/// Years of one block. It is part of the algorithm: another size gives another stream.
pub(crate) const BLOCK: usize = 2048;

/// The arguments of insurance.v1. Money is in the contract's own currency; years are policy years.
///
/// The schema refuses unknown names before a unit runs. `stop` is passed over here: it concerns the platform alone.
#[derive(Clone, Debug, PartialEq, serde::Deserialize)]
#[serde(crate = "forge_sdk_guest::serde")]
pub struct Arguments {
    /// Policy years in all.
    pub iterations: u64,
    /// Mean number of claims a year.
    pub claim_freq: f64,
    /// Mean of a claim's logarithm.
    pub claim_severity_mu: f64,
    /// Standard deviation of a claim's logarithm.
    pub claim_severity_sig: f64,
    /// Probability of a catastrophe in a year.
    pub cat_prob: f64,
    /// Mean of a catastrophe's logarithm.
    pub cat_mu: f64,
    /// Standard deviation of a catastrophe's logarithm.
    pub cat_sig: f64,
    /// Cap of each claim and of the catastrophe.
    pub policy_limit: f64,
    /// Cap of the year.
    pub aggregate_limit: f64,
}

/// A policy, ready to be simulated.
pub(crate) struct Policy {
    claims: Option<Poisson>,
    claim: Lognormal,
    catastrophes: Option<Chance>,
    catastrophe: Lognormal,
    policy_limit: f64,
    aggregate_limit: f64,
}

impl Policy {
    pub(crate) fn new(arguments: &Arguments) -> Self {
        let a = arguments;
        Self {
            claims: (a.claim_freq > 0.0).then(|| Poisson::new(a.claim_freq)),
            claim: Lognormal::new(a.claim_severity_mu, a.claim_severity_sig, a.policy_limit),
            catastrophes: (a.cat_prob > 0.0).then(|| Chance::new(a.cat_prob)),
            catastrophe: Lognormal::new(a.cat_mu, a.cat_sig, a.policy_limit),
            policy_limit: a.policy_limit,
            aggregate_limit: a.aggregate_limit,
        }
    }

    /// The losses of `years` policy years.
    pub(crate) fn simulate(&self, random: &mut Generator, years: u64) -> Distribution {
        let mut collector = Collector::new();
        let mut work = Work::new();
        let mut left = years;
        while left > 0 {
            let block = usize::try_from(left).unwrap_or(BLOCK).min(BLOCK);
            let paid = self.block(random, block, &mut work);
            let paid = if self.aggregate_limit > 0.0 && self.policy_limit > 0.0 { paid } else { 0 };
            collector.add(&work.losses[..paid], block - paid);
            left -= block as u64;
        }
        drop(work);
        collector.finish()
    }

    /// One block: claims, then catastrophes, then the cap. Gives the number of years with a loss, which stand in front.
    ///
    /// Years stand in order of falling numbers of claims, so the j-th claims of all years that have one are added as one
    /// run. A block's years are independent and equally distributed, and the number of claims says nothing of the
    /// catastrophe; their order carries no information.
    fn block(&self, random: &mut Generator, years: usize, work: &mut Work) -> usize {
        let Work { losses, amounts, hits, tally } = work;
        losses.fill(0.0);
        let mut paid = 0;
        if let Some(claims) = &self.claims {
            claims.draw(random, years, tally, |random, years| {
                paid = paid.max(years);
                for part in losses[..years].chunks_mut(DRAWS_MAX) {
                    self.claim.draw(random, part.len(), amounts);
                    add(part, &amounts.values);
                }
            });
        }
        if let Some(catastrophes) = &self.catastrophes {
            for part in catastrophes.draw(random, years, hits).chunks(DRAWS_MAX) {
                self.catastrophe.draw(random, part.len(), amounts);
                for (year, amount) in part.iter().zip(&amounts.values) {
                    // Hits rise, so a year without claims is at or behind the next free place.
                    let year = (*year as usize).min(paid);
                    paid += usize::from(year == paid);
                    losses[year & (BLOCK - 1)] += amount;
                }
            }
        }
        let cap = F64x2::splat(self.aggregate_limit);
        for [a, b, c, d] in losses.as_chunks_mut::<2>().0.as_chunks_mut::<4>().0 {
            F64x2::load(a).min(cap).store(a);
            F64x2::load(b).min(cap).store(b);
            F64x2::load(c).min(cap).store(c);
            F64x2::load(d).min(cap).store(d);
        }
        paid
    }
}

/// Adds the leading amounts to the losses.
fn add(losses: &mut [f64], amounts: &[f64; DRAWS_MAX]) {
    let (eights, rest) = losses.as_chunks_mut::<8>();
    let (amounts, more) = amounts.split_at(eights.len() * 8);
    for (losses, amounts) in eights.iter_mut().zip(amounts.as_chunks::<8>().0) {
        let ([a, b, c, d], [e, f, g, h]) = (losses.as_chunks_mut::<2>().0, amounts.as_chunks::<2>().0) else { return };
        F64x2::load(a).add(F64x2::load(e)).store(a);
        F64x2::load(b).add(F64x2::load(f)).store(b);
        F64x2::load(c).add(F64x2::load(g)).store(c);
        F64x2::load(d).add(F64x2::load(h)).store(d);
    }
    for (loss, amount) in rest.iter_mut().zip(more) {
        *loss += amount;
    }
}

/// Memory of one block, kept from block to block.
struct Work {
    losses: Box<[f64; BLOCK]>,
    amounts: Box<Amounts>,
    hits: Box<[u32; BLOCK]>,
    tally: Tally,
}

impl Work {
    fn new() -> Self {
        Self {
            losses: Box::new([0.0; BLOCK]),
            amounts: Amounts::new(),
            hits: Box::new([0; BLOCK]),
            tally: Tally::new(),
        }
    }
}

/// Largest claim frequency: a unit's time and fuel grow with it.
const FREQUENCY_MAX: f64 = 10_000.0;
/// Largest `mu`, either sign, and largest `sigma`: together they keep every amount a normal double.
const MU_MAX: f64 = 100.0;
const SIGMA_MAX: f64 = 20.0;
/// Largest limit: fourth powers of a year's loss stay finite.
const LIMIT_MAX: f64 = 1e18;

impl Arguments {
    /// Checks the ranges that the schema declares: the algorithm relies on them.
    ///
    /// # Errors
    /// `Failure::arguments` naming the first argument out of range.
    pub fn check(&self) -> Result<(), forge_sdk_guest::Failure> {
        let ranges = [
            ("claim_freq", self.claim_freq, 0.0, FREQUENCY_MAX),
            ("claim_severity_mu", self.claim_severity_mu, -MU_MAX, MU_MAX),
            ("claim_severity_sig", self.claim_severity_sig, 0.0, SIGMA_MAX),
            ("cat_prob", self.cat_prob, 0.0, 1.0),
            ("cat_mu", self.cat_mu, -MU_MAX, MU_MAX),
            ("cat_sig", self.cat_sig, 0.0, SIGMA_MAX),
            ("policy_limit", self.policy_limit, 0.0, LIMIT_MAX),
            ("aggregate_limit", self.aggregate_limit, 0.0, LIMIT_MAX),
        ];
        match ranges.iter().find(|(_, value, least, most)| !(least..=most).contains(&value)) {
            Some((name, ..)) => Err(forge_sdk_guest::Failure::Arguments(format!("{name} is out of range"))),
            None => Ok(()),
        }
    }
}
