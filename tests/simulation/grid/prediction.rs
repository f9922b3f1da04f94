//! What checks should cost, by the formulas of the design alone: nothing here asks the code under test.

use forge_contract::envelope::VerifyMode;
use forge_lifecycle::verify::AuditPolicy;

/// The audit rate after so many clean shards; `None` is a verifier, whose record has no end.
pub fn rate(policy: &AuditPolicy, clean: Option<u64>) -> f64 {
    let ppm = |share: u32| f64::from(share) / 1e6;
    let per_shard = ppm(policy.error_ppm) / ppm(policy.bad_ppm);
    let falling = match clean {
        None => 0.0,
        Some(clean) if clean < policy.probation => 1.0,
        Some(clean) => 1.0 / (1.0 + clean as f64 * per_shard),
    };
    (falling.max(ppm(policy.rate_min_ppm)) / (1.0 - ppm(policy.bad_checkers_ppm))).min(1.0)
}

/// Attempts that a shard should take in a pool of these records, nobody lying. Every agent is asked equally often.
pub fn attempts(policy: &AuditPolicy, mode: VerifyMode, records: &[Option<u64>]) -> f64 {
    let mean = |of: &dyn Fn(usize) -> f64| (0..records.len()).map(of).sum::<f64>() / records.len() as f64;
    match mode {
        VerifyMode::None => 1.0 + f64::from(policy.sample_ppm) / 1e6,
        VerifyMode::Spotcheck => 1.0 + mean(&|i| rate(policy, records[i])),
        VerifyMode::Full => 3.0,
        VerifyMode::Quorum => {
            let proven = |record: Option<u64>| record.is_none_or(|clean| clean >= policy.proven);
            let any_proven = records.iter().any(|record| proven(*record));
            let audit = |first: usize| {
                let may = |i: &usize| *i != first && (proven(records[first]) || !any_proven || proven(records[*i]));
                let seconds: Vec<usize> = (0..records.len()).filter(may).collect();
                let of = |second: &usize| match (records[first], records[*second]) {
                    (Some(a), Some(b)) => rate(policy, Some(a.min(b))),
                    _ => 0.0,
                };
                seconds.iter().map(of).sum::<f64>() / seconds.len().max(1) as f64
            };
            2.0 + mean(&audit)
        }
    }
}
