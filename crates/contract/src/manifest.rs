//! A kernel's manifest: everything the hub needs to plan it without running a line of it.
//!
//! It is canonical JSON in the component's custom section [`SECTION`], written by the author as `kernel.toml`.

mod golden;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::limits::UnitLimits;

pub use golden::{GOLDEN_INPUT_BYTES_MAX, Golden, GoldenInput};

/// Name of the custom section that holds the manifest.
pub const SECTION: &str = "forgepool:manifest";
/// The kernel interface this platform speaks.
pub const INTERFACE: &str = "forgepool:kernel@1.0.0";

/// What a component says of itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Operation name, `[a-z][a-z0-9-]{0,62}`, for a project's own kernels `namespace/name`.
    pub name: String,
    /// Version, from 1. `name@version` means one digest for ever.
    pub version: u32,
    /// The WIT world's package, [`INTERFACE`].
    pub interface: String,
    /// One sentence for people.
    pub summary: String,
    /// Whether the component exports `forgepool:kernel/checks`: a check of a unit that costs far less than the unit.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub checks: bool,
    /// Profiles by name (`insurance.v1`).
    pub profiles: BTreeMap<String, Profile>,
}

/// One way to use a kernel: its arguments, stages and output.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// One sentence for people.
    pub summary: String,
    /// JSON Schema 2020-12 of `args`: types, defaults, ranges; units in `x-unit`.
    pub args: serde_json::Value,
    /// Stages in order; each reads the reduced output of earlier ones.
    pub stages: Vec<Stage>,
    /// Known answers.
    #[serde(default)]
    pub goldens: Vec<Golden>,
}

/// One stage of a profile.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stage {
    /// Name, unique in the profile.
    pub name: String,
    /// How the work is cut into units.
    pub split: Split,
    /// What units read.
    #[serde(default)]
    pub inputs: Vec<InputSpec>,
    /// What every unit gives, in this order.
    pub parts: Vec<PartSpec>,
    /// What a unit may use.
    pub limits: UnitLimits,
    /// What a full unit usually burns; planning and quotes use it, verdicts never.
    pub fuel_expected: u64,
    /// Where a rule stands that may end the stage early.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop: Option<StopSpec>,
}

/// A stage that may end early: where its rule stands and what the rule looks at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StopSpec {
    /// The argument that may hold a [`crate::stop::StopRule`].
    pub argument: String,
    /// The part, of kind `moments` or `distribution`.
    pub part: String,
}

/// How a stage is cut into units. Numbers come from arguments by name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Split {
    /// A count cut into equal runs.
    Range {
        /// The argument that holds the count.
        total: String,
        /// Items per unit.
        unit: u64,
    },
    /// A matrix cut into tiles.
    Tiles {
        /// The argument that holds the number of rows.
        rows: String,
        /// The argument that holds the number of columns.
        columns: String,
        /// Rows of a tile.
        tile_rows: u32,
        /// Columns of a tile.
        tile_columns: u32,
    },
    /// One unit per element of an array.
    List {
        /// The argument that holds the array.
        items: String,
    },
    /// One unit between each two boundaries.
    Segments {
        /// The argument that holds the rising boundaries.
        boundaries: String,
    },
    /// One unit.
    Once,
}

/// Where an input of a stage comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InputSpec {
    /// The name the kernel opens it by.
    pub name: String,
    /// Its source.
    pub from: InputSource,
}

/// The source of an input.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum InputSource {
    /// The argument that holds a digest.
    Argument(String),
    /// The reduced fragment of an earlier stage, by name.
    Stage(String),
}

/// A part that every fragment of a stage has.
///
/// In JSON a missing unit is left out; in a binary format every field is written.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PartSpec {
    /// Name, unique in the stage; it names the surface in the output.
    pub name: String,
    /// Kind.
    pub kind: PartKind,
    /// Whether its count (of `count`, `moments`, `distribution`, `histogram`) equals the items of the units behind it.
    #[serde(default)]
    pub counts_items: bool,
    /// Whether the client sees it in `hub.output`; a part that only feeds a later stage is not shown.
    #[serde(default = "yes")]
    pub shown: bool,
    /// Unit of the numbers, for people.
    #[serde(default)]
    pub unit: Option<String>,
}

impl Serialize for PartSpec {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct as _;
        let keeps_empty = !serializer.is_human_readable();
        let mut fields = serializer.serialize_struct("PartSpec", 5)?;
        fields.serialize_field("name", &self.name)?;
        fields.serialize_field("kind", &self.kind)?;
        fields.serialize_field("counts_items", &self.counts_items)?;
        fields.serialize_field("shown", &self.shown)?;
        if keeps_empty || self.unit.is_some() {
            fields.serialize_field("unit", &self.unit)?;
        }
        fields.end()
    }
}

fn yes() -> bool {
    true
}

/// The closed set of part kinds. What folding means for each is in `fragment`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PartKind {
    /// Unsigned count.
    Count,
    /// Sum in tree order.
    Sum,
    /// Central moments to the fourth.
    Moments,
    /// Smallest and largest.
    Extrema,
    /// Counts per bucket.
    Histogram,
    /// Moments, extrema and histogram of one quantity.
    Distribution,
    /// Elementwise sum of matrices in tree order.
    MatrixSum,
    /// A piece of a matrix.
    Tile,
    /// Rows of a table.
    Rows,
    /// A piece of a film.
    Segment,
    /// Anything.
    Bytes,
}

/// Why a manifest is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// Not the JSON of a manifest.
    #[error("the manifest is not readable: {reason}")]
    Unreadable {
        /// What the parser says.
        reason: String,
    },
    /// A field breaks a rule.
    #[error("{pointer}: {rule}")]
    Rule {
        /// JSON pointer of the field.
        pointer: String,
        /// The rule.
        rule: &'static str,
    },
}

impl Manifest {
    /// Reads a manifest from its section's bytes and checks every rule that needs no component.
    ///
    /// # Errors
    /// `Unreadable`, or `Rule` with the first field that breaks one.
    pub fn parse(bytes: &[u8]) -> Result<Self, ManifestError> {
        let manifest: Self =
            serde_json::from_slice(bytes).map_err(|e| ManifestError::Unreadable { reason: cut(e.to_string()) })?;
        manifest.check()?;
        Ok(manifest)
    }

    fn check(&self) -> Result<(), ManifestError> {
        let rule = |pointer: String, holds: bool, rule: &'static str| {
            if holds { Ok(()) } else { Err(ManifestError::Rule { pointer, rule }) }
        };
        rule(
            "/name".into(),
            name_is_valid(&self.name),
            "a name is [a-z][a-z0-9-]{0,62}, optionally after 'namespace/'",
        )?;
        rule("/version".into(), self.version >= 1, "versions start at 1")?;
        rule("/interface".into(), self.interface == INTERFACE, "the only interface is forgepool:kernel@1.0.0")?;
        rule("/profiles".into(), !self.profiles.is_empty(), "a kernel has at least one profile")?;
        for (name, profile) in &self.profiles {
            let at = cut(format!("/profiles/{name}"));
            rule(at.clone(), profile_name_is_valid(name), "a profile name is [a-z][a-z0-9.-]{0,62}")?;
            rule(format!("{at}/args"), profile.args.is_object(), "args is a JSON Schema object")?;
            rule(format!("{at}/stages"), (1..=16).contains(&profile.stages.len()), "a profile has 1 to 16 stages")?;
            for (index, stage) in profile.stages.iter().enumerate() {
                check_stage(&format!("{at}/stages/{index}"), stage, profile.stages.get(..index).unwrap_or_default())?;
                check_stop(&format!("{at}/stages/{index}/stop"), index, &profile.stages)?;
            }
            for (index, golden) in profile.goldens.iter().enumerate() {
                let fault = golden.fault();
                rule(format!("{at}/goldens/{index}/inputs"), fault.is_none(), fault.unwrap_or_default())?;
            }
        }
        Ok(())
    }

    /// `name@version`.
    #[must_use]
    pub fn label(&self) -> String {
        format!("{}@{}", self.name, self.version)
    }
}

/// Cuts what may quote the manifest at length, between characters.
fn cut(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(crate::limits::DETAIL_BYTES_MAX));
    text
}

fn check_stage(at: &str, stage: &Stage, earlier: &[Stage]) -> Result<(), ManifestError> {
    use crate::limits::{FUEL_MAX, MEMORY_BYTES_MAX, OUTPUT_BYTES_MAX};
    let rule = |field: &str, holds: bool, rule: &'static str| {
        let pointer = format!("{at}/{field}");
        if holds { Ok(()) } else { Err(ManifestError::Rule { pointer, rule }) }
    };
    rule("name", profile_name_is_valid(&stage.name), "a stage name is [a-z][a-z0-9.-]{0,62}")?;
    rule("name", earlier.iter().all(|s| s.name != stage.name), "stage names are unique in a profile")?;
    let positive = match &stage.split {
        Split::Range { unit, .. } => *unit >= 1,
        Split::Tiles { tile_rows, tile_columns, .. } => *tile_rows >= 1 && *tile_columns >= 1,
        Split::List { .. } | Split::Segments { .. } | Split::Once => true,
    };
    rule("split", positive, "unit and tile sizes are at least 1")?;
    for input in &stage.inputs {
        let known = match &input.from {
            InputSource::Argument(_) => true,
            InputSource::Stage(name) => earlier.iter().any(|s| s.name == *name),
        };
        rule("inputs", known, "an input from a stage names an earlier one")?;
    }
    rule("parts", (1..=64).contains(&stage.parts.len()), "a stage has 1 to 64 parts")?;
    for (index, part) in stage.parts.iter().enumerate() {
        let unique = stage.parts.iter().take(index).all(|p| p.name != part.name);
        rule(
            "parts",
            unique && name_is_valid(&part.name.replace('_', "-")),
            "part names are unique, [a-z][a-z0-9_-]{0,62}",
        )?;
    }
    rule("limits/fuel", (1..=FUEL_MAX).contains(&stage.limits.fuel), "fuel is 1 to 2^50")?;
    rule("limits/memory_bytes", stage.limits.memory_bytes <= MEMORY_BYTES_MAX, "memory is at most 512 MiB")?;
    rule("limits/output_bytes", stage.limits.output_bytes <= OUTPUT_BYTES_MAX, "output is at most 64 MiB")?;
    rule("fuel_expected", (1..=stage.limits.fuel).contains(&stage.fuel_expected), "expected fuel is 1 to the limit")
}

/// A stage that may end early is a range whose later stages do not count on all of it.
fn check_stop(pointer: &str, index: usize, stages: &[Stage]) -> Result<(), ManifestError> {
    let Some((stage, stop)) = stages.get(index).and_then(|stage| Some((stage, stage.stop.as_ref()?))) else {
        return Ok(());
    };
    let rule = |field: &str, holds: bool, rule: &'static str| {
        let pointer = format!("{pointer}{field}");
        if holds { Ok(()) } else { Err(ManifestError::Rule { pointer, rule }) }
    };
    let Split::Range { total, .. } = &stage.split else {
        return rule("", false, "only a stage with the split 'range' can end early");
    };
    rule("/argument", stop.argument != *total, "the rule stands in an argument of its own, not in the split's")?;
    let looked_at = stage.parts.iter().find(|part| part.name == stop.part).map(|part| part.kind);
    rule(
        "/part",
        matches!(looked_at, Some(PartKind::Moments | PartKind::Distribution)),
        "the part is one of the stage's, of kind 'moments' or 'distribution'",
    )?;
    rule("", stages.iter().take(index).all(|s| s.stop.is_none()), "one stage of a profile can end early")?;
    let same = |later: &Stage| matches!(&later.split, Split::Range { total: t, .. } if t == total);
    let free = !stages.iter().skip(index + 1).any(same);
    rule("", free, "no later stage is cut by the same argument: its units would have no counterpart")
}

fn is_word(text: &str, also: &[char]) -> bool {
    let mut chars = text.chars();
    let first = chars.next().is_some_and(|c| c.is_ascii_lowercase());
    first && text.len() <= 63 && chars.all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || also.contains(&c))
}

fn name_is_valid(name: &str) -> bool {
    match name.split_once('/') {
        Some((namespace, name)) => is_word(namespace, &['-']) && is_word(name, &['-']),
        None => is_word(name, &['-']),
    }
}

fn profile_name_is_valid(name: &str) -> bool {
    is_word(name, &['-', '.'])
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;

    fn sample() -> serde_json::Value {
        serde_json::json!({
            "name": "mc", "version": 1, "interface": INTERFACE, "summary": "s",
            "profiles": { "insurance.v1": { "summary": "s", "args": {"type": "object"}, "stages": [{
                "name": "simulate", "split": {"range": {"total": "iterations", "unit": 65536}},
                "parts": [{"name": "loss", "kind": "distribution", "counts_items": true}],
                "limits": {"fuel": 100, "memory_bytes": 1048576, "output_bytes": 1000}, "fuel_expected": 50
            }]}}
        })
    }

    #[test]
    fn reads_and_checks() {
        let manifest = Manifest::parse(sample().to_string().as_bytes()).unwrap();
        assert_eq!(manifest.label(), "mc@1");
    }

    #[test]
    fn each_rule_names_its_field() {
        let cases: [(&str, serde_json::Value, &str); 6] = [
            ("/name", "Mc".into(), "/name"),
            ("/version", 0.into(), "/version"),
            ("/interface", "other".into(), "/interface"),
            ("/profiles/insurance.v1/stages/0/limits/fuel", 0.into(), "/profiles/insurance.v1/stages/0/limits/fuel"),
            (
                "/profiles/insurance.v1/stages/0/fuel_expected",
                101.into(),
                "/profiles/insurance.v1/stages/0/fuel_expected",
            ),
            ("/profiles/insurance.v1/stages/0/parts", serde_json::json!([]), "/profiles/insurance.v1/stages/0/parts"),
        ];
        for (place, value, expected) in cases {
            let mut json = sample();
            *json.pointer_mut(place).unwrap() = value;
            match Manifest::parse(json.to_string().as_bytes()) {
                Err(ManifestError::Rule { pointer, .. }) => assert_eq!(pointer, expected),
                other => panic!("{place}: {other:?}"),
            }
        }
    }

    #[test]
    fn a_stage_that_may_end_early_is_checked() {
        use serde_json::json;
        let stage = |stop: serde_json::Value| {
            let mut json = sample();
            let stages = json["profiles"]["insurance.v1"]["stages"].as_array_mut().unwrap();
            stages[0]["stop"] = stop;
            let mut last = stages[0].clone();
            last.as_object_mut().unwrap().remove("stop");
            last["name"] = "last".into();
            last["split"] = "once".into();
            stages.push(last);
            json
        };
        let good = stage(json!({"argument": "stop", "part": "loss"}));
        let manifest = Manifest::parse(good.to_string().as_bytes()).unwrap();
        assert!(crate::canon::json(&manifest).unwrap().contains(r#""stop":{"argument":"stop","part":"loss"}"#));
        let at = |field: &str| format!("/profiles/insurance.v1/stages/0/stop{field}");
        let mut count = good.clone();
        count["profiles"]["insurance.v1"]["stages"][0]["parts"][0]["kind"] = "count".into();
        let mut twice = good.clone();
        twice["profiles"]["insurance.v1"]["stages"][1]["split"] = json!({"range": {"total": "n", "unit": 1}});
        twice["profiles"]["insurance.v1"]["stages"][1]["stop"] = json!({"argument": "stop", "part": "loss"});
        let mut again = good.clone();
        again["profiles"]["insurance.v1"]["stages"][1]["split"] = json!({"range": {"total": "iterations", "unit": 9}});
        let mut list = good;
        list["profiles"]["insurance.v1"]["stages"][0]["split"] = json!({"list": {"items": "names"}});
        for (json, expected) in [
            (stage(json!({"argument": "stop", "part": "lost"})), at("/part")),
            (stage(json!({"argument": "iterations", "part": "loss"})), at("/argument")),
            (count, at("/part")),
            (list, at("")),
            (again, at("")),
            (twice, "/profiles/insurance.v1/stages/1/stop".to_owned()),
        ] {
            match Manifest::parse(json.to_string().as_bytes()) {
                Err(ManifestError::Rule { pointer, .. }) => assert_eq!(pointer, expected),
                other => panic!("{expected}: {other:?}"),
            }
        }
    }

    #[test]
    fn a_refusal_quotes_little() {
        let mut json = sample();
        json.as_object_mut().unwrap().insert("x".repeat(100_000), true.into());
        let refused = Manifest::parse(json.to_string().as_bytes()).unwrap_err();
        assert!(refused.to_string().len() < 2_000, "{} bytes", refused.to_string().len());
    }

    #[test]
    fn unknown_fields_are_refused() {
        let mut json = sample();
        json.as_object_mut().unwrap().insert("clock".into(), true.into());
        assert!(matches!(Manifest::parse(json.to_string().as_bytes()), Err(ManifestError::Unreadable { .. })));
    }
}
