//! Lies in what an answer says: bits, fuel, failures.

use std::path::Path;

use anyhow::Result;
use forge_contract::duty::Duty;
use forge_contract::fragment::tree::Fold;
use forge_contract::fragment::{Distribution, Extrema, Fragment, Histogram, Moments, Named, Number, Part, Tile};
use forge_contract::manifest::PartKind;
use forge_contract::report::{Checked, Completed, Finding, Outcome, UnitRecord, UnitVerdict};
use forge_contract::task::{Slice, Task};
use forge_contract::{Digest, Failure, FailureCode};

use crate::manner::Manner;

/// Width of the buckets of a made-up histogram: 2^-10 of the value, as the kernels here have it.
const MANTISSA_BITS: u8 = 10;

/// What is said where the truth is this. `salt` keeps liars that know nothing of each other apart.
///
/// Manners that need no truth are not asked: see [`made_up`].
pub fn told(manner: Manner, task: &Task, truth: Outcome, salt: u64, shared: Option<&Path>) -> Result<Outcome> {
    let Outcome::Completed(completed) = truth else { return Ok(truth) };
    Ok(Outcome::Completed(match manner {
        Manner::WrongBits => bent(completed, salt),
        Manner::WrongFuel => costlier(completed, salt),
        Manner::Told => agreed(completed, task, shared)?,
        _ => completed,
    }))
}

/// What is said without computing anything; `None` where the manner computes, or cannot make this kind of answer up.
pub fn made_up(manner: Manner, task: &Task) -> Option<Outcome> {
    match manner {
        Manner::Lazy => match task.duty {
            Duty::Compute => zeros(task).map(Outcome::Completed),
            // Whatever the other found, it looks sound from here.
            Duty::Check(_) => Some(Outcome::Checked(sound(task))),
        },
        Manner::Trap => {
            let failure = Failure::new(FailureCode::AgentTrap, "unreachable code was reached");
            Some(Outcome::Failed(failure.in_unit(task.first_unit)))
        }
        _ => None,
    }
}

/// One number of the folded fragment is another.
fn bent(mut completed: Completed, salt: u64) -> Completed {
    let Ok(mut fragment) = Fragment::decode(&completed.fragment) else { return completed };
    // The last part that can be bent without breaking a rule of its kind.
    let bent = fragment.parts.iter_mut().rev().any(|named| bend(&mut named.part, salt));
    if !bent && let Some(Named { part: Part::Count(count), .. }) = fragment.parts.first_mut() {
        *count = count.wrapping_add(1 + salt);
    }
    completed.fragment = fragment.encode();
    if let [only] = completed.units.as_mut_slice() {
        // The fragment of a single unit is its own commitment: anything else would be seen at once.
        only.digest = Digest::of(&completed.fragment);
    }
    completed
}

fn bend(part: &mut Part, salt: u64) -> bool {
    let other = |number: &mut f64| *number = f64::from_bits(number.to_bits() ^ (1 + salt % 255));
    match part {
        Part::Sum(sum) => other(sum),
        Part::Moments(moments) | Part::Distribution(Distribution { moments, .. }) => other(&mut moments.mean),
        Part::MatrixSum(matrix) => match matrix.values.last_mut() {
            Some(value) => other(value),
            None => return false,
        },
        Part::Tiles(tiles) => return flip(tiles.last_mut().map(|tile| &mut tile.values), salt),
        Part::Rows(rows) => return flip(Some(&mut rows.values), salt),
        Part::Segments(segments) => return flip(segments.last_mut().map(|segment| &mut segment.media), salt),
        Part::Bytes(bytes) => return flip(Some(bytes), salt),
        Part::Count(_) | Part::Extrema(_) | Part::Histogram(_) => return false,
    }
    true
}

/// Another first byte: of a little-endian number the least that counts.
fn flip(bytes: Option<&mut Vec<u8>>, salt: u64) -> bool {
    let Some(byte) = bytes.and_then(|bytes| bytes.first_mut()) else { return false };
    *byte ^= u8::try_from(1 + salt % 127).unwrap_or(1);
    true
}

fn costlier(mut completed: Completed, salt: u64) -> Completed {
    if let Some(last) = completed.units.last_mut() {
        last.fuel = last.fuel.saturating_add(1 + salt);
    }
    completed
}

/// What accomplices say of a shard: whoever is there first makes the lie up and leaves it for the others.
fn agreed(truth: Completed, task: &Task, shared: Option<&Path>) -> Result<Completed> {
    let Some(folder) = shared else { return Ok(bent(truth, 0)) };
    let path = folder.join(task.key_digest().to_string());
    if let Ok(bytes) = std::fs::read(&path) {
        return Ok(serde_json::from_slice(&bytes)?);
    }
    let lie = bent(truth, 0);
    let mut draft = tempfile::NamedTempFile::new_in(folder)?;
    std::io::Write::write_all(&mut draft, &serde_json::to_vec(&lie)?)?;
    draft.persist(path)?;
    Ok(lie)
}

/// Every unit passed, nobody looked.
fn sound(task: &Task) -> Checked {
    let verdict = UnitVerdict { finding: Finding::Sound { error: 0.0 }, fuel: task.limits.fuel / 4 };
    Checked { units: (0..task.unit_count).map(|_| verdict.clone()).collect() }
}

/// Zeros for every unit, with the digests and the fold that they have.
fn zeros(task: &Task) -> Option<Completed> {
    let (mut fold, mut units) = (Fold::new(task.unit_count), Vec::new());
    for index in 0..task.unit_count {
        let slice = task.cut.slice(task.first_unit + index)?;
        let parts =
            task.parts.iter().map(|spec| Some(Named { name: spec.name.clone(), part: zero(spec.kind, slice)? }));
        let fragment = Fragment { parts: parts.collect::<Option<_>>()? };
        units.push(UnitRecord { digest: fragment.digest(), fuel: task.limits.fuel / 4 });
        fold.insert(index, 1, fragment).ok()?;
    }
    Some(Completed { fragment: fold.finish()?.encode(), units })
}

fn zero(kind: PartKind, slice: Slice) -> Option<Part> {
    let n = slice.items();
    let moments = Moments { n, mean: 0.0, m2: 0.0, m3: 0.0, m4: 0.0 };
    let extrema = Extrema { min: 0.0, max: 0.0 };
    let histogram = Histogram { mantissa_bits: MANTISSA_BITS, buckets: vec![(0, n)] };
    Some(match kind {
        PartKind::Count => Part::Count(n),
        PartKind::Sum => Part::Sum(0.0),
        PartKind::Moments => Part::Moments(moments),
        PartKind::Extrema => Part::Extrema(extrema),
        PartKind::Histogram => Part::Histogram(histogram),
        PartKind::Distribution => Part::Distribution(Distribution { moments, extrema, histogram }),
        PartKind::Tile => {
            let Slice::Rectangle(at) = slice else { return None };
            let values = vec![0; usize::try_from(n * Number::Float64.bytes()).ok()?];
            Part::Tiles(vec![Tile { at, number: Number::Float64, values }])
        }
        PartKind::Bytes => Part::Bytes(Vec::new()),
        PartKind::MatrixSum | PartKind::Rows | PartKind::Segment => return None,
    })
}
