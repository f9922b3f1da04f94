//! The kernel's own check, tried: what its units give must pass, and the same with one number changed must not.

use forge_contract::duty::Challenge;
use forge_contract::fragment::{Fragment, Number, Part};
use forge_contract::report::{Finding, UnitVerdict};
use forge_contract::{Digest, Failure};
use forge_sandbox::engine::Backend;

use super::findings::Findings;
use super::trial::{Engines, Trial, explained};

/// Challenges that each unit is checked under.
const CHALLENGES: u8 = 4;

/// Checks what every trial gives.
pub fn verdicts(trials: &[Trial], engines: &Engines, findings: &mut Findings) {
    for trial in trials {
        let Ok(run) = engines.run_whole(trial) else { continue };
        let mut fuel = 0;
        for salt in 0..CHALLENGES {
            let challenge = Challenge(*Digest::of(&[salt]).as_bytes());
            match agreed(trial, &engines.check(trial, &run.fragment, challenge)) {
                Ok(UnitVerdict { finding: Finding::Sound { .. }, fuel: burned }) => fuel = burned.max(fuel),
                Ok(UnitVerdict { finding: Finding::Wrong { reason }, .. }) => {
                    findings.errors.push(format!("{trial}: the check calls the kernel's own answer wrong: {reason}"));
                    break;
                }
                Err(why) => {
                    findings.errors.push(why);
                    break;
                }
            }
            let mut forged = run.fragment.clone();
            if !forge(&mut forged) {
                continue;
            }
            match agreed(trial, &engines.check(trial, &forged, challenge)) {
                Ok(UnitVerdict { finding: Finding::Wrong { .. }, .. }) => {}
                Ok(UnitVerdict { finding: Finding::Sound { error }, .. }) => {
                    findings.errors.push(format!(
                        "{trial}: the check accepts the answer with its largest number changed in the first place, and states an error of {error}"
                    ));
                    break;
                }
                Err(why) => {
                    findings.errors.push(why);
                    break;
                }
            }
        }
        findings.checked(trial, fuel);
    }
}

/// The verdict that every backend gives; why not, where one fails or they differ.
fn agreed(trial: &Trial, given: &[(Backend, Result<UnitVerdict, Failure>)]) -> Result<UnitVerdict, String> {
    let mut verdicts = given.iter().map(|(_, verdict)| verdict);
    match verdicts.next() {
        Some(Ok(first)) if verdicts.all(|other| other.as_ref().is_ok_and(|other| other == first)) => Ok(first.clone()),
        Some(Err(failure)) => Err(format!("{trial}: the check: {}", explained(failure))),
        _ => Err(format!(
            "{trial}: the check says or burns other things on another backend; this must never happen: please report it with the component"
        )),
    }
}

/// Changes the largest number of the first part that has one; whether there was anything to change.
fn forge(found: &mut Fragment) -> bool {
    found.parts.iter_mut().any(|named| match &mut named.part {
        Part::Count(count) => {
            *count ^= 1;
            true
        }
        Part::Sum(sum) => turned(sum),
        Part::Moments(moments) => turned(&mut moments.mean),
        Part::Extrema(extrema) => turned(&mut extrema.max),
        Part::Histogram(histogram) => counted(&mut histogram.buckets),
        Part::Distribution(distribution) => counted(&mut distribution.histogram.buckets),
        Part::MatrixSum(matrix) => {
            matrix.values.iter_mut().max_by(|a, b| a.abs().total_cmp(&b.abs())).is_some_and(turned)
        }
        Part::Tiles(tiles) => tiles.first_mut().is_some_and(|tile| raw(tile.number, &mut tile.values)),
        Part::Rows(rows) => raw(rows.number, &mut rows.values),
        Part::Segments(segments) => segments.first_mut().is_some_and(|segment| byte(&mut segment.media)),
        Part::Bytes(bytes) => byte(bytes),
    })
}

/// The first bit of the mantissa turned.
fn turned(value: &mut f64) -> bool {
    *value = f64::from_bits(value.to_bits() ^ 1 << 51);
    true
}

fn counted(buckets: &mut [(u32, u64)]) -> bool {
    buckets.iter_mut().max_by_key(|(_, count)| *count).map(|(_, count)| *count ^= 1).is_some()
}

fn byte(bytes: &mut [u8]) -> bool {
    let middle = bytes.len() / 2;
    bytes.get_mut(middle).map(|byte| *byte ^= 1).is_some()
}

/// Raw numbers, little-endian: the first bit of the mantissa of the largest finite one, the lowest bit of the first
/// integer.
fn raw(number: Number, values: &mut [u8]) -> bool {
    let largest = |finite: &mut dyn Iterator<Item = f64>| {
        let by_size = |a: &(usize, f64), b: &(usize, f64)| a.1.total_cmp(&b.1);
        finite.map(f64::abs).enumerate().filter(|(_, value)| value.is_finite()).max_by(by_size).map(|(at, _)| at)
    };
    match number {
        Number::Float64 => {
            let values = values.as_chunks_mut::<8>().0;
            let at = largest(&mut values.iter().map(|bytes| f64::from_le_bytes(*bytes)));
            let value = at.and_then(|at| values.get_mut(at));
            value.map(|bytes| *bytes = (u64::from_le_bytes(*bytes) ^ 1 << 51).to_le_bytes()).is_some()
        }
        Number::Float32 => {
            let values = values.as_chunks_mut::<4>().0;
            let at = largest(&mut values.iter().map(|bytes| f32::from_le_bytes(*bytes).into()));
            let value = at.and_then(|at| values.get_mut(at));
            value.map(|bytes| *bytes = (u32::from_le_bytes(*bytes) ^ 1 << 22).to_le_bytes()).is_some()
        }
        Number::Int32 | Number::Int64 => values.first_mut().map(|byte| *byte ^= 1).is_some(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;

    #[test]
    fn the_largest_number_is_changed_and_no_other() {
        let numbers = [1.0, f64::INFINITY, -5.0, 2.0];
        let mut values: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
        assert!(raw(Number::Float64, &mut values));
        let changed: Vec<f64> = values.as_chunks::<8>().0.iter().map(|bytes| f64::from_le_bytes(*bytes)).collect();
        assert_eq!(changed, [1.0, f64::INFINITY, -7.0, 2.0]);
        assert!(!raw(Number::Float32, &mut []));
    }
}
