//! A job's progress: a bar on a terminal, plain lines elsewhere. Both go to stderr.

use std::io::{IsTerminal as _, Write as _};

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;

use crate::number;
use crate::sse::Event;

/// Plain lines are printed each time at least this share of the work is new: 1/8.
const PLAIN_STEPS: u64 = 8;

/// What one event says about how far a job is.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// Where the job is in its life.
    pub status: String,
    /// Units folded or reported.
    pub units_done: u64,
    /// Units in all.
    pub units_total: u64,
    /// Agents at work.
    pub agents: u64,
    /// The running estimate, where the job has one.
    pub estimate: Option<Estimate>,
}

/// The mean of what has been folded so far, with its 95 % interval.
#[derive(Debug, Clone, PartialEq)]
pub struct Estimate {
    /// The output's name.
    pub name: String,
    /// Observations.
    pub n: u64,
    /// Their mean.
    pub mean: f64,
    /// Half the width of the mean's 95 % confidence interval.
    pub half_width: f64,
    /// What the stop rule waits for.
    pub target: Option<Target>,
}

/// How wide the interval is, as a share of the mean, and how wide it may be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Target {
    /// Half its width so far; `None` where the mean is zero.
    pub relative: Option<f64>,
    /// Half its width where the job ends.
    pub half_width: f64,
    /// Its confidence.
    pub confidence: f64,
    /// Units done at the next look.
    pub checkpoint: u64,
}

impl Target {
    fn read(target: &Value) -> Option<Self> {
        Some(Self {
            relative: target.get("relative").and_then(Value::as_f64),
            half_width: target.get("half_width")?.as_f64()?,
            confidence: target.get("confidence")?.as_f64()?,
            checkpoint: target.get("checkpoint")?.as_u64()?,
        })
    }

    /// `(± 0.514 % of the mean at 95 %, ends at 0.300 %)`.
    fn message(&self) -> String {
        let so_far = self.relative.map_or_else(|| "no share of a mean of zero".to_owned(), number::percent);
        format!(" (± {so_far} at {}, ends at {})", number::level(self.confidence), number::percent(self.half_width))
    }
}

impl Step {
    /// Reads an event; `None` where it says nothing about progress.
    #[must_use]
    pub fn read(event: &Event) -> Option<Self> {
        let data: Value = serde_json::from_str(&event.data).ok()?;
        let number = |name: &str| data.get(name).and_then(Value::as_u64);
        let estimate = data.get("estimate").and_then(|estimate| {
            Some(Estimate {
                name: estimate.get("name")?.as_str()?.to_owned(),
                n: estimate.get("n")?.as_u64()?,
                mean: estimate.get("mean")?.as_f64()?,
                half_width: estimate.get("ci95_half_width")?.as_f64()?,
                target: estimate.get("target").and_then(Target::read),
            })
        });
        Some(Self {
            status: data.get("status").and_then(Value::as_str).unwrap_or("").to_lowercase(),
            units_done: number("units_done")?,
            units_total: number("units_total")?,
            agents: number("agents_active").unwrap_or(0),
            estimate,
        })
    }

    /// The checkpoint that is waited for, units.
    fn checkpoint(&self) -> Option<u64> {
        self.estimate.as_ref()?.target.map(|target| target.checkpoint)
    }

    /// What stands beside the bar.
    #[must_use]
    pub fn message(&self) -> String {
        let agents = match self.agents {
            0 => String::new(),
            1 => " · 1 agent".to_owned(),
            agents => format!(" · {agents} agents"),
        };
        match &self.estimate {
            Some(e) => format!(
                "{} iterations · {} mean {} ± {}{}{agents}",
                number::count(e.n),
                e.name,
                number::value(e.mean),
                number::value(e.half_width),
                e.target.as_ref().map_or_else(String::new, Target::message)
            ),
            None => format!("{}{agents}", if self.status.is_empty() { "running" } else { &self.status }),
        }
    }
}

/// Shows steps as they come.
#[derive(Debug)]
pub struct Progress {
    bar: Option<ProgressBar>,
    printed_units: Option<u64>,
    printed_checkpoint: Option<u64>,
    hidden: bool,
}

impl Progress {
    /// A bar where stderr is a terminal, else lines; nothing at all when `hidden`.
    #[must_use]
    pub fn new(hidden: bool) -> Self {
        let bar = (!hidden && std::io::stderr().is_terminal()).then(|| {
            let style = ProgressStyle::with_template("  {bar:20.cyan/black} {pos}/{len} units · {wide_msg}");
            let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
            ProgressBar::new(0).with_style(style.progress_chars("█▉▊▋▌▍▎▏ "))
        });
        Self { bar, printed_units: None, printed_checkpoint: None, hidden }
    }

    /// Takes the next event.
    pub fn event(&mut self, event: &Event) {
        if let Some(step) = Step::read(event) {
            self.step(&step);
        }
    }

    /// Shows a step.
    pub fn step(&mut self, step: &Step) {
        if let Some(bar) = &self.bar {
            bar.set_length(step.units_total);
            bar.set_position(step.units_done);
            bar.set_message(step.message());
            return;
        }
        if self.hidden || !self.is_news(step) {
            return;
        }
        self.printed_units = Some(step.units_done);
        self.printed_checkpoint = step.checkpoint();
        let line =
            format!("  {:>3} % · {}/{} units · {}\n", percent(step), step.units_done, step.units_total, step.message());
        // Progress is a courtesy: a closed stderr ends nothing.
        drop(std::io::stderr().write_all(line.as_bytes()));
    }

    fn is_news(&self, step: &Step) -> bool {
        let Some(printed) = self.printed_units else { return step.units_done > 0 };
        // A job that may end early passes no eighth of its cap, but checkpoints.
        if step.checkpoint() > self.printed_checkpoint {
            return true;
        }
        let new = step.units_done.saturating_sub(printed);
        new > 0 && (new.saturating_mul(PLAIN_STEPS) >= step.units_total || step.units_done == step.units_total)
    }

    /// Leaves the last state standing.
    pub fn finish(self) {
        if let Some(bar) = self.bar {
            bar.abandon();
        }
    }
}

fn percent(step: &Step) -> u64 {
    step.units_done.saturating_mul(100).checked_div(step.units_total).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn event(data: &str) -> Event {
        Event { id: None, name: "progress".into(), data: data.into() }
    }

    #[test]
    fn a_step_shows_the_mean_and_its_interval() {
        let data = r#"{"status":"RUNNING","units_done":4,"units_total":16,"agents_active":4,
            "estimate":{"name":"loss","n":262144,"mean":1853.5,"ci95_half_width":18.3}}"#;
        let step = Step::read(&event(data)).unwrap();
        assert_eq!(step.message(), "262,144 iterations · loss mean 1,853.50 ± 18.3000 · 4 agents");
        assert_eq!(percent(&step), 25);
    }

    #[test]
    fn a_stop_rule_shows_how_far_it_is() {
        let data = r#"{"status":"RUNNING","units_done":4,"units_total":16,"agents_active":1,
            "estimate":{"name":"loss","n":262144,"mean":1853.5,"ci95_half_width":18.3,
            "target":{"confidence":0.99,"half_width":0.003,"relative":0.01297,"checkpoint":20}}}"#;
        let step = Step::read(&event(data)).unwrap();
        assert_eq!(
            step.message(),
            "262,144 iterations · loss mean 1,853.50 ± 18.3000 (± 1.297 % at 99 %, ends at 0.300 %) · 1 agent"
        );
    }

    #[test]
    fn what_is_no_progress_is_passed_over() {
        assert_eq!(Step::read(&event("not json")), None);
        assert_eq!(Step::read(&event(r#"{"status":"COMPLETED"}"#)), None);
        let queued = Step::read(&event(r#"{"status":"QUEUED","units_done":0,"units_total":16}"#)).unwrap();
        assert_eq!(queued.message(), "queued");
    }

    #[test]
    fn plain_lines_come_at_checkpoints_too() {
        let mut progress = Progress { bar: None, printed_units: Some(1), printed_checkpoint: Some(16), hidden: false };
        let step = |units_done, checkpoint| {
            let target = Target { relative: None, half_width: 0.1, confidence: 0.95, checkpoint };
            let estimate = Estimate { name: String::new(), n: 9, mean: 1.0, half_width: 1.0, target: Some(target) };
            Step { status: String::new(), units_done, units_total: 9999, agents: 0, estimate: Some(estimate) }
        };
        assert!(!progress.is_news(&step(15, 16)));
        assert!(progress.is_news(&step(17, 20)));
        progress.step(&step(17, 20));
        assert!(!progress.is_news(&step(19, 20)));
    }

    #[test]
    fn plain_lines_come_at_eighths() {
        let mut progress = Progress { bar: None, printed_units: None, printed_checkpoint: None, hidden: false };
        let step = |units_done| Step { status: String::new(), units_done, units_total: 64, agents: 0, estimate: None };
        let mut shown = Vec::new();
        for units in 0..=64 {
            if progress.is_news(&step(units)) {
                progress.printed_units = Some(units);
                shown.push(units);
            }
        }
        assert_eq!(shown, [1, 9, 17, 25, 33, 41, 49, 57, 64]);
    }
}
