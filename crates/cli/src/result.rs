//! A job's result for people: tables, a histogram, and what it takes to repeat it.

use serde_json::{Map, Value};

use crate::client::status;
use crate::histogram::{self, Bin};
use crate::jobs::operation;
use crate::number;
use crate::table::{Align, Table};

/// Characters of the longest bar.
const BAR_WIDTH: u16 = 40;
/// Bars of a histogram, at most.
const BARS_MAX: usize = 14;

/// Statistics in the order they are read, with their meaning.
const STATISTICS: &[(&str, &str)] = &[
    ("mean", "mean"),
    ("std_error", "standard error of the mean"),
    ("std_dev", "standard deviation"),
    ("variance", "variance"),
    ("skewness", "skewness"),
    ("kurtosis", "kurtosis"),
    ("min", "minimum"),
    ("p50", "median"),
    ("p75", "75 % quantile"),
    ("p90", "90 % quantile"),
    ("p95", "95 % quantile"),
    ("p99", "99 % quantile"),
    ("p99.5", "99.5 % quantile"),
    ("p99.9", "99.9 % quantile"),
    ("max", "maximum"),
    ("tvar95", "mean of the worst 5 % (TVaR 95)"),
    ("tvar99", "mean of the worst 1 % (TVaR 99)"),
];

/// The job's state, result and evidence as text.
#[must_use]
pub fn render(state: &Value) -> String {
    let mut text = headline(state);
    if let Some(failure) = failure(state) {
        text.push_str(&failure);
    }
    if let Some(output) = output(state).and_then(Value::as_object) {
        for (name, value) in output {
            text.push_str(&surface(job(state), name, value));
        }
    }
    if let Some(end) = convergence(state) {
        text.push_str(&end);
    }
    for warning in strings(state.get("warnings")) {
        text.push_str(&format!("warning: {warning}\n"));
    }
    text.push_str(&evidence(state));
    text
}

/// The reduced output.
#[must_use]
pub fn output(state: &Value) -> Option<&Value> {
    state.pointer("/hub/output").filter(|output| !output.is_null())
}

/// The digest of the reduced result's canonical bytes.
#[must_use]
pub fn digest(state: &Value) -> Option<String> {
    state.pointer("/hub/replay/result_digest")?.as_str().map(str::to_owned)
}

/// A number of `hub.metrics`.
#[must_use]
pub fn metric(state: &Value, name: &str) -> Option<u64> {
    state.get("hub")?.get("metrics")?.get(name)?.as_u64()
}

fn job(state: &Value) -> &str {
    state.get("job_id").and_then(Value::as_str).unwrap_or("")
}

fn headline(state: &Value) -> String {
    let mut parts = vec![format!("job {}  {}", job(state), status(state))];
    let op = operation(state);
    if !op.is_empty() {
        parts.push(op);
    }
    if let Some(items) = work(state) {
        parts.push(format!("{} iterations", number::count(items)));
    }
    for (name, unit) in [("agents_used", "agents"), ("shards", "shards"), ("wall_ms", "ms")] {
        if let Some(value) = metric(state, name) {
            parts.push(format!("{} {unit}", number::count(value)));
        }
    }
    parts.join(" · ") + "\n"
}

fn work(state: &Value) -> Option<u64> {
    state.pointer("/hub/metrics/iterations")?.as_u64()
}

fn failure(state: &Value) -> Option<String> {
    let failure = state.get("error")?.as_object()?;
    let text = |name: &str| failure.get(name).and_then(Value::as_str).unwrap_or("").to_owned();
    Some(format!("{}: {}\n", text("code"), text("detail")))
}

/// A matrix that lies in a file: its shape, and the command that fetches it.
fn matrix(job: &str, name: &str, value: &Value) -> Option<String> {
    let field = |name: &str| value.get(name)?.as_u64();
    let (rows, columns, bytes) = (field("rows")?, field("columns")?, field("bytes")?);
    let (artifact, dtype) = (value.get("artifact")?.as_str()?, value.get("dtype")?.as_str()?);
    let (rows, columns) = (number::count(rows), number::count(columns));
    let size = number::bytes(bytes);
    Some(format!(
        "\n{name}: {rows} x {columns} {dtype}, a .npy file of {size}\n  forgepool artifact {job} {artifact} -o {name}.npy\n"
    ))
}

/// One named output: a distribution as table and histogram, a matrix as its file, anything else as it is.
fn surface(job: &str, name: &str, value: &Value) -> String {
    if let Some(matrix) = matrix(job, name, value) {
        return matrix;
    }
    let Some(distribution) = value.as_object().filter(|value| value.contains_key("mean")) else {
        return format!("\n{name}: {}\n", shortened(value));
    };
    let mut table = Table::new(&[(name, Align::Left), ("", Align::Right), ("", Align::Left)]);
    for (field, meaning) in STATISTICS {
        if let Some(number) = statistic(distribution, field) {
            table.row([(*meaning).to_owned(), number::value(number), remark(distribution, field)]);
        }
    }
    if let Some(share) = distribution.get("share_zero").and_then(Value::as_f64) {
        table.row(["share of exactly zero".to_owned(), number::percent(share), String::new()]);
    }
    format!("\n{}{}", table.render(), plot(distribution))
}

fn statistic(distribution: &Map<String, Value>, field: &str) -> Option<f64> {
    distribution.get(field)?.as_f64()
}

fn remark(distribution: &Map<String, Value>, field: &str) -> String {
    if field == "mean"
        && let Some((low, high)) = interval(distribution)
    {
        return format!("95 %: {} to {}", number::value(low), number::value(high));
    }
    if field == "p50"
        && let Some(error) = statistic(distribution, "quantile_relative_error")
    {
        return format!("quantiles are within {}", number::percent(error));
    }
    String::new()
}

fn interval(distribution: &Map<String, Value>) -> Option<(f64, f64)> {
    let interval = distribution.get("ci95")?;
    Some((interval.get(0)?.as_f64()?, interval.get(1)?.as_f64()?))
}

fn plot(distribution: &Map<String, Value>) -> String {
    let Some(plot) = distribution.get("histogram") else { return String::new() };
    let list = |name: &str| plot.get(name).and_then(Value::as_array).cloned().unwrap_or_default();
    let edges: Vec<f64> = list("edges").iter().filter_map(Value::as_f64).collect();
    let counts: Vec<u64> = list("counts").iter().filter_map(Value::as_u64).collect();
    let bins = histogram::merged(&edges, &counts, BARS_MAX);
    if bins.is_empty() {
        return String::new();
    }
    let total = bins.iter().map(|bin| bin.mass).sum();
    let label = |bin: &Bin| format!("{} to {}", edge(bin.from), edge(bin.to));
    format!("\n{}", histogram::bars(&bins, total, BAR_WIDTH, label))
}

/// An edge with as many digits as a plot needs.
fn edge(value: f64) -> String {
    if value.abs() >= 100.0 {
        number::value(value.round()).trim_end_matches(".00").to_owned()
    } else {
        format!("{value:.2}")
    }
}

fn shortened(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(400) {
        Some((end, _)) => format!("{}... ({} characters)", text.get(..end).unwrap_or(""), text.len()),
        None => text,
    }
}

fn evidence(state: &Value) -> String {
    let mut table = Table::new(&[("", Align::Left), ("", Align::Left)]);
    for (meaning, pointer) in [
        ("root seed", "/hub/replay/root_seed"),
        ("replay key", "/hub/replay/replay_key"),
        ("component", "/hub/replay/component"),
        ("result digest", "/hub/replay/result_digest"),
    ] {
        if let Some(value) = state.pointer(pointer).and_then(Value::as_str) {
            table.row([meaning.to_owned(), value.to_owned()]);
        }
    }
    if let Some(checks) = checks(state) {
        table.row(["verification".to_owned(), checks]);
    }
    if let (Some(credits), Some(eur)) = (state.pointer("/billing/credits"), state.pointer("/billing/eur")) {
        let mode = state
            .pointer("/billing/mode")
            .and_then(Value::as_str)
            .map_or_else(String::new, |mode| format!(" ({mode})"));
        table.row(["billing".to_owned(), format!("{credits} credits, {eur} EUR{mode}")]);
    }
    if table.is_empty() { String::new() } else { format!("\n{}", table.render()) }
}

/// How the job was checked, in one line.
fn checks(state: &Value) -> Option<String> {
    let block = state.pointer("/hub/verification")?;
    let count = |name: &str| block.get(name).and_then(Value::as_u64).unwrap_or(0);
    let mode = block.get("mode")?.as_str()?;
    let mut text =
        format!("{mode}: {} of {} shards compared", number::count(count("checked")), number::count(count("shards")));
    for (name, meaning) in [
        ("proved", "proved"),
        ("sampled", "sampled by unit"),
        ("refuted", "disputed"),
        ("reassigned", "reassigned"),
        ("unchecked", "could not be checked"),
    ] {
        if count(name) > 0 {
            text.push_str(&format!(", {} {meaning}", number::count(count(name))));
        }
    }
    if let Some(error) = block.pointer("/bound/job_error").and_then(Value::as_f64) {
        text.push_str(&format!("; wrong with a chance of at most {}", number::percent(error)));
    }
    Some(text)
}

/// Where and why a job with a stop rule ended.
fn convergence(state: &Value) -> Option<String> {
    let end = state.pointer("/hub/convergence").filter(|end| !end.is_null())?;
    let whole = |pointer: &str| end.pointer(pointer).and_then(Value::as_u64).map_or_else(String::new, number::count);
    let real = |pointer: &str| end.pointer(pointer).and_then(Value::as_f64);
    let share = |pointer: &str| real(pointer).map_or_else(|| "not defined".to_owned(), number::percent);
    let mut table = Table::new(&[("", Align::Left), ("", Align::Left)]);
    let reason = match end.get("reason").and_then(Value::as_str).unwrap_or_default() {
        "half_width" => "the interval is as narrow as asked for",
        "variance" => "the variance changed no more than asked for",
        "budget" => "the budget is used up, no target was reached",
        "exhausted" => "all work is done, no target was reached",
        other => other,
    };
    let (unit, items) = (whole("/stopped_at/unit"), whole("/stopped_at/items"));
    table.row(["ended at".to_owned(), format!("{items} iterations ({unit} units): {reason}")]);
    if let Some(target) = real("/rule/half_width") {
        let confidence = real("/rule/confidence").map_or_else(String::new, number::level);
        let (found, wanted) = (share("/measured/relative"), number::percent(target));
        table.row(["half width".to_owned(), format!("{found} of the mean at {confidence}, wanted {wanted}")]);
    }
    if let Some(target) = real("/rule/variance_change") {
        let (found, wanted) = (share("/measured/variance_change"), number::percent(target));
        table.row(["variance change".to_owned(), format!("{found} since the checkpoint before, wanted {wanted}")]);
    }
    if let Some(budget) = end.pointer("/rule/budget").and_then(Value::as_u64) {
        table.row(["budget".to_owned(), format!("{} iterations", number::count(budget))]);
    }
    table.row(["checkpoints".to_owned(), whole("/checkpoints")]);
    Some(format!("\n{}", table.render()))
}

fn strings(value: Option<&Value>) -> Vec<String> {
    let texts = value.and_then(Value::as_array).into_iter().flatten();
    texts.map(|text| text.as_str().map_or_else(|| text.to_string(), str::to_owned)).collect()
}
