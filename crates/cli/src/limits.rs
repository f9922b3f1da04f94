//! Limits and pools as flags, and how they are shown.

use anyhow::{Result, bail};
use serde_json::{Map, Value, json};

use crate::number;
use crate::table::{Align, Table};

/// What a project may use. Each takes a number, or `none` to lift the limit.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Limits (a number, or none)")]
pub struct LimitArgs {
    /// Requests per second, on average
    #[arg(long, value_name = "N")]
    requests_per_second: Option<String>,
    /// Requests at once; as many as per second unless told otherwise
    #[arg(long, value_name = "N")]
    requests_burst: Option<String>,
    /// Jobs without an end at one time
    #[arg(long, value_name = "N")]
    concurrent_jobs: Option<String>,
    /// Iterations of one job
    #[arg(long, value_name = "N")]
    iterations_per_job: Option<String>,
    /// Fuel of one job
    #[arg(long, value_name = "N")]
    fuel_per_job: Option<String>,
    /// Bytes stored: content, kernels, values and arrays
    #[arg(long, value_name = "BYTES")]
    storage_bytes: Option<String>,
    /// The least policy.verify: spotcheck, quorum or full
    #[arg(long, value_name = "MODE")]
    verify_min: Option<String>,
}

impl LimitArgs {
    /// The limits that were given, as the hub takes them.
    ///
    /// # Errors
    /// What is no number, or no mode.
    pub fn change(&self) -> Result<Map<String, Value>> {
        let numbers = [
            ("requests_per_second", &self.requests_per_second),
            ("requests_burst", &self.requests_burst),
            ("concurrent_jobs", &self.concurrent_jobs),
            ("iterations_per_job", &self.iterations_per_job),
            ("fuel_per_job", &self.fuel_per_job),
            ("storage_bytes", &self.storage_bytes),
        ];
        let mut change = Map::new();
        for (name, text) in numbers {
            let Some(text) = text else { continue };
            let value = if text == "none" { Value::Null } else { json!(whole(name, text)?) };
            change.insert(name.to_owned(), value);
        }
        if let Some(mode) = &self.verify_min {
            let value = if mode == "none" { Value::Null } else { json!(mode) };
            change.insert("verify_min".into(), value);
        }
        Ok(change)
    }
}

fn whole(name: &str, text: &str) -> Result<u64> {
    match text.replace(['_', ','], "").parse() {
        Ok(number) => Ok(number),
        Err(_) => bail!("--{}: expected a whole number or none, found '{text}'", name.replace('_', "-")),
    }
}

/// Where a project's jobs run.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Pool")]
pub struct PoolArgs {
    /// A label that every agent must have; can be given again
    #[arg(long = "label", value_name = "LABEL")]
    labels: Vec<String>,
    /// The region that jobs never leave
    #[arg(long, value_name = "REGION")]
    region: Option<String>,
    /// Only agents that are reserved for the project
    #[arg(long)]
    exclusive: bool,
}

impl PoolArgs {
    /// As the hub takes it; nothing where nothing was given.
    #[must_use]
    pub fn pool(&self) -> Value {
        let mut pool = json!({ "labels": self.labels, "exclusive": self.exclusive });
        if let (Some(region), Some(pool)) = (&self.region, pool.as_object_mut()) {
            pool.insert("region".into(), json!(region));
        }
        pool
    }
}

/// Limits as a table; nothing where nothing is limited.
#[must_use]
pub fn render(limits: Option<&Value>, used: impl Fn(&str) -> Option<u64>) -> String {
    let mut table = Table::new(&[("limit", Align::Left), ("value", Align::Right), ("in use", Align::Right)]);
    for (name, value) in limits.and_then(Value::as_object).into_iter().flatten() {
        let shown = value.as_u64().map_or_else(|| value.as_str().unwrap_or_default().to_owned(), number::count);
        table.row([name.clone(), shown, used(name).map(number::count).unwrap_or_default()]);
    }
    if table.is_empty() { "nothing is limited\n".to_owned() } else { table.render() }
}

/// Where a project's jobs run, in a line.
#[must_use]
pub fn pool(pool: Option<&Value>) -> String {
    let Some(pool) = pool else { return "any agent".to_owned() };
    let labels = pool.get("labels").and_then(Value::as_array).into_iter().flatten();
    let mut parts: Vec<String> = labels.filter_map(Value::as_str).map(str::to_owned).collect();
    parts.extend(pool.get("region").and_then(Value::as_str).map(|region| format!("region={region}")));
    if pool.get("exclusive").and_then(Value::as_bool) == Some(true) {
        parts.push("reserved agents only".into());
    }
    if parts.is_empty() { "any agent".to_owned() } else { parts.join(", ") }
}

/// A time such as `90s`, `15m`, `12h` or `30d`, seconds.
///
/// # Errors
/// Another text.
pub fn seconds(text: &str) -> Result<u64, String> {
    let wrong = || format!("expected a time such as 90s, 15m, 12h or 30d, found '{text}'");
    let (number, unit) = match text.char_indices().last() {
        Some((at, unit)) if unit.is_ascii_alphabetic() => (text.get(..at).unwrap_or_default(), unit),
        _ => (text, 's'),
    };
    let times = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        _ => return Err(wrong()),
    };
    let number: u64 = number.parse().map_err(|_| wrong())?;
    number.checked_mul(times).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn flags_become_what_the_hub_takes() {
        let args = LimitArgs {
            concurrent_jobs: Some("3".into()),
            iterations_per_job: Some("1_000_000".into()),
            fuel_per_job: Some("none".into()),
            verify_min: Some("quorum".into()),
            ..LimitArgs::default()
        };
        let expected = json!({
            "concurrent_jobs": 3, "iterations_per_job": 1_000_000, "fuel_per_job": null, "verify_min": "quorum"
        });
        assert_eq!(Value::Object(args.change().unwrap()), expected);
        let wrong = LimitArgs { storage_bytes: Some("1 GB".into()), ..LimitArgs::default() };
        assert!(wrong.change().unwrap_err().to_string().contains("--storage-bytes"));
    }

    #[test]
    fn times_are_read_with_their_unit() {
        for (text, expected) in [("90", 90), ("90s", 90), ("15m", 900), ("12h", 43_200), ("30d", 2_592_000)] {
            assert_eq!(seconds(text), Ok(expected), "{text}");
        }
        for wrong in ["", "d", "1w", "-1h", "1.5h", "99999999999999999999d"] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn pools_are_told_in_a_line() {
        assert_eq!(pool(None), "any agent");
        assert_eq!(pool(Some(&json!({}))), "any agent");
        let bound = json!({ "labels": ["tier=a"], "region": "eu", "exclusive": true });
        assert_eq!(pool(Some(&bound)), "tier=a, region=eu, reserved agents only");
    }
}
