//! Split rules with their numbers filled in from the arguments.

use forge_contract::limits::{OUTPUT_BYTES_MAX, RESULT_BYTES_MAX, UNITS_MAX};
use forge_contract::manifest::{PartKind, Split, Stage};
use forge_contract::task::Cut;
use forge_contract::{Failure, FailureCode};
use serde_json::Value;

use super::arguments::pointer;

fn refused(argument: &str, rule: &str) -> Failure {
    Failure::new(FailureCode::RequestArguments, format!("args.{argument}: {rule}")).at(pointer(argument))
}

/// A whole number of at least 1 from an argument.
fn number(args: &Value, argument: &str) -> Result<u64, Failure> {
    let value = args.get(argument);
    let whole = value.and_then(|v| v.as_u64().or_else(|| whole(v.as_f64()?)));
    whole.filter(|n| *n >= 1).ok_or_else(|| {
        let found = value.map_or_else(|| "nothing".into(), ToString::to_string);
        refused(argument, &format!("the work is cut by it; expected a whole number of at least 1, found {found}"))
    })
}

/// A double that is a whole number JSON carries exactly.
fn whole(number: f64) -> Option<u64> {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "whole and within 0 to 2^53")]
    ((0.0..9_007_199_254_740_992.0).contains(&number) && number.fract() == 0.0).then_some(number as u64)
}

fn array<'a>(args: &'a Value, argument: &str) -> Result<&'a Vec<Value>, Failure> {
    args.get(argument)
        .and_then(Value::as_array)
        .ok_or_else(|| refused(argument, "the work is cut by it; expected an array"))
}

/// The cut of a stage.
pub fn cut(split: &Split, args: &Value) -> Result<Cut, Failure> {
    Ok(match split {
        Split::Range { total, unit } => Cut::Items { total: number(args, total)?, unit: *unit },
        Split::Tiles { rows, columns, tile_rows, tile_columns } => Cut::Tiles {
            rows: number(args, rows)?,
            columns: number(args, columns)?,
            tile_rows: *tile_rows,
            tile_columns: *tile_columns,
        },
        Split::List { items } => {
            let count = array(args, items)?.len() as u64;
            if count == 0 {
                return Err(refused(items, "expected at least one element, found none"));
            }
            Cut::Elements { count }
        }
        Split::Segments { boundaries } => Cut::Segments { boundaries: rising(args, boundaries)? },
        Split::Once => Cut::Once,
    })
}

fn rising(args: &Value, argument: &str) -> Result<Vec<i64>, Failure> {
    let values: Option<Vec<i64>> = array(args, argument)?.iter().map(Value::as_i64).collect();
    let values = values.ok_or_else(|| refused(argument, "expected whole numbers"))?;
    if values.len() < 2 || !values.is_sorted_by(|a, b| a < b) {
        return Err(refused(argument, "expected at least two boundaries, each above the one before"));
    }
    Ok(values)
}

/// Units and items of a cut.
pub fn sizes(split: &Split, cut: &Cut) -> Result<(u64, u64), Failure> {
    let units = cut.units();
    if units > UNITS_MAX {
        return Err(too_many(split, units, UNITS_MAX));
    }
    Ok((units, items(cut, units)))
}

/// Items of a cut of so many units.
pub fn items(cut: &Cut, units: u64) -> u64 {
    match cut {
        Cut::Items { total, .. } => *total,
        Cut::Tiles { rows, columns, .. } => rows.saturating_mul(*columns),
        Cut::Elements { .. } | Cut::Segments { .. } | Cut::Once => units,
    }
}

/// How many units' fragments one report can carry: tiles do not fold into less, everything else is left to its kernel.
///
/// # Errors
/// `request.arguments` where the tiles make a matrix larger than [`RESULT_BYTES_MAX`] together.
pub fn units_reported_max(stage: &Stage, items: u64) -> Result<u64, Failure> {
    let tiles = stage.parts.iter().filter(|part| part.kind == PartKind::Tile).count() as u64;
    let Split::Tiles { rows, columns, tile_rows, tile_columns } = &stage.split else { return Ok(u64::MAX) };
    if tiles == 0 {
        return Ok(u64::MAX);
    }
    // What a unit may give bounds the size of its numbers, which the manifest does not say.
    let cells = u64::from(*tile_rows).saturating_mul(u64::from(*tile_columns)).max(1);
    let number = (stage.limits.output_bytes / cells).clamp(1, 8 * tiles);
    let bytes = items.saturating_mul(number);
    if bytes > RESULT_BYTES_MAX {
        let rule = format!(
            "with args.{columns} it gives a matrix of up to {bytes} bytes, at most {RESULT_BYTES_MAX} are taken from one job; \
             cut the matrix into several jobs"
        );
        return Err(refused(rows, &rule));
    }
    Ok((OUTPUT_BYTES_MAX / stage.limits.output_bytes.max(1)).max(1))
}

/// The refusal of a stage with too many units.
pub fn too_many(split: &Split, units: u64, max: u64) -> Failure {
    let argument = match split {
        Split::Range { total, .. } => total,
        Split::Tiles { rows, .. } => rows,
        Split::List { items } => items,
        Split::Segments { boundaries } => boundaries,
        Split::Once => return Failure::new(FailureCode::RequestArguments, "too many units").at("/args"),
    };
    let largest = match split {
        Split::Range { unit, .. } => format!("; the largest value is {}", max.saturating_mul(*unit)),
        _ => String::new(),
    };
    refused(argument, &format!("gives {units} units of work, at most {max} fit one job{largest}"))
}
