//! What a check found, for people and as JSON.

use forge_contract::Digest;
use forge_contract::manifest::Manifest;
use forge_sandbox::engine::Backend;
use serde_json::{Value, json};

use super::trial::{Answer, Trial, explained};
use crate::kernel::holding::{Holding, shown};
use crate::number;

/// A check's result.
#[derive(Debug, Clone)]
pub struct Findings {
    /// What keeps the kernel from being admitted.
    pub errors: Vec<String>,
    /// What is worth a look.
    pub warnings: Vec<String>,
    /// Known answers written, where that was asked for.
    pub recorded: Option<usize>,
    label: String,
    file: String,
    digest: Digest,
    bytes: u64,
    ran: Vec<Ran>,
}

/// A unit that ran.
#[derive(Debug, Clone)]
struct Ran {
    profile: String,
    stage: String,
    unit: u64,
    seed: String,
    args: Value,
    full: bool,
    known: bool,
    answer: Option<(Digest, u64)>,
    good: bool,
    /// Fuel of checking it.
    check_fuel: Option<u64>,
}

impl Ran {
    fn is_of(&self, trial: &Trial) -> bool {
        (&self.profile, &self.stage, self.unit, &self.seed, &self.args)
            == (&trial.profile, &trial.stage, trial.unit, &trial.seed, &trial.args)
    }
}

impl Findings {
    /// Nothing found yet.
    pub fn of(holding: &Holding) -> Self {
        Self {
            errors: Vec::new(),
            warnings: Vec::new(),
            recorded: None,
            label: String::new(),
            file: shown(&holding.file),
            digest: holding.digest,
            bytes: holding.component.len() as u64,
            ran: Vec::new(),
        }
    }

    /// The component was admitted under this manifest.
    pub fn admitted(&mut self, manifest: &Manifest) {
        self.label = manifest.label();
        if !manifest.name.contains('/') {
            self.warnings.push(format!(
                "'{}' has no namespace, which only kernels that come with the hub may have: call it `default/{}`, or by your project's name",
                manifest.name, manifest.name
            ));
        }
    }

    /// The project was built again with its new known answers.
    pub fn rebuilt(&mut self, holding: &Holding) {
        (self.digest, self.bytes) = (holding.digest, holding.component.len() as u64);
        self.file = shown(&holding.file);
    }

    /// Takes what every backend gave for a trial: all must agree, with each other and with what is known.
    pub fn ran(&mut self, trial: &Trial, answers: &[(Backend, Answer)]) {
        let errors_before = self.errors.len();
        let bits = |answer: &Answer| answer.as_ref().map(|found| *found).map_err(|failure| failure.code);
        let first = answers.first().map(|(_, answer)| answer);
        if let Some(first) = first {
            let differing = answers.iter().find(|(_, answer)| bits(answer) != bits(first));
            match (differing, first) {
                (Some((backend, other)), _) => self.errors.push(format!(
                    "{trial}: {} gave {}, {} gave {}; this must never happen: please report it with the component",
                    name(Backend::CraneliftSpeed),
                    said(first),
                    name(*backend),
                    said(other)
                )),
                (None, Err(failure)) => self.errors.push(format!("{trial}: {}", explained(failure))),
                (None, Ok(found)) => self.compare(trial, *found),
            }
        }
        self.ran.push(Ran {
            profile: trial.profile.clone(),
            stage: trial.stage.clone(),
            unit: trial.unit,
            seed: trial.seed.clone(),
            args: trial.args.clone(),
            full: trial.is_full(),
            known: trial.known.is_some(),
            answer: first.and_then(|answer| answer.as_ref().ok().copied()),
            good: self.errors.len() == errors_before,
            check_fuel: None,
        });
    }

    fn compare(&mut self, trial: &Trial, found: (Digest, u64)) {
        let Some(known) = trial.known.filter(|known| *known != found) else { return };
        let what = if known.0 == found.0 {
            format!("burned {} fuel where {} is known", number::count(found.1), number::count(known.1))
        } else {
            format!("gave {} where {} is known", found.0, known.0)
        };
        self.errors.push(format!(
            "{trial}: {what}; the code changed, or the toolchain did. A published version never changes: raise `version`, then record again with --record"
        ));
    }

    /// The answer of a trial that ran well.
    pub fn answer(&self, trial: &Trial) -> Option<(Digest, u64)> {
        self.ran.iter().find(|ran| ran.is_of(trial)).and_then(|ran| ran.answer)
    }

    /// Checking a trial's unit burned this much.
    pub fn checked(&mut self, trial: &Trial, fuel: u64) {
        let is_trial = |ran: &&mut Ran| ran.is_of(trial);
        self.ran.iter_mut().filter(is_trial).for_each(|ran| ran.check_fuel = Some(fuel));
    }

    /// Least and most fuel that full units of a stage burned.
    pub fn burned(&self, profile: &str, stage: &str) -> Option<(u64, u64)> {
        let of = |ran: &&Ran| ran.full && ran.profile == profile && ran.stage == stage;
        let fuel: Vec<u64> = self.ran.iter().filter(of).filter_map(|ran| ran.answer.map(|answer| answer.1)).collect();
        Some((*fuel.iter().min()?, *fuel.iter().max()?))
    }

    /// For people.
    pub fn render(&self) -> String {
        let label = if self.label.is_empty() { "no kernel yet" } else { &self.label };
        let mut text = format!(
            "kernel  {label}\nfile    {}\ndigest  {}\nsize    {}\n",
            self.file,
            self.digest,
            number::bytes(self.bytes)
        );
        if !self.ran.is_empty() {
            text.push_str("\nunits, under cranelift speed, cranelift none and pulley:\n");
        }
        for ran in &self.ran {
            let answer = ran.answer.map_or_else(String::new, |(digest, fuel)| {
                let digest: String = digest.to_string().chars().take(16).collect();
                format!("  digest {digest}  fuel {}", number::count(fuel))
            });
            let check = ran.check_fuel.map_or_else(String::new, |fuel| format!("  check {}", number::count(fuel)));
            let verdict = match (ran.good, ran.known) {
                (true, true) => "as known",
                (true, false) => "alike",
                (false, _) => "WRONG",
            };
            text.push_str(&format!("  {} {} unit {}  {verdict}{answer}{check}\n", ran.profile, ran.stage, ran.unit));
        }
        if let Some(recorded) = self.recorded {
            text.push_str(&format!("\nknown answers in goldens.json: {recorded}; built again with them\n"));
        }
        for (what, lines) in [("error", &self.errors), ("warning", &self.warnings)] {
            lines.iter().for_each(|line| text.push_str(&format!("\n{what}: {line}\n")));
        }
        text.push_str(if self.errors.is_empty() { "\ngood\n" } else { "\nnot fit to be pushed\n" });
        text
    }

    /// For programs.
    pub fn json(&self) -> Value {
        let unit = |ran: &Ran| {
            json!({
                "profile": ran.profile, "stage": ran.stage, "unit": ran.unit, "seed": ran.seed, "args": ran.args,
                "known": ran.known, "good": ran.good,
                "digest": ran.answer.map(|answer| answer.0.to_string()),
                "fuel": ran.answer.map(|answer| answer.1),
                "check_fuel": ran.check_fuel,
            })
        };
        json!({
            "good": self.errors.is_empty(),
            "kernel": self.label,
            "file": self.file,
            "digest": self.digest.to_string(),
            "bytes": self.bytes,
            "backends": Backend::ALL.map(name),
            "units": self.ran.iter().map(unit).collect::<Vec<_>>(),
            "recorded": self.recorded,
            "errors": self.errors,
            "warnings": self.warnings,
        })
    }
}

fn name(backend: Backend) -> &'static str {
    match backend {
        Backend::CraneliftSpeed => "cranelift speed",
        Backend::CraneliftNone => "cranelift none",
        Backend::Pulley => "pulley",
    }
}

fn said(answer: &Answer) -> String {
    match answer {
        Ok((digest, fuel)) => format!("{digest} for {fuel} fuel"),
        Err(failure) => format!("{} ({})", failure.detail, failure.code),
    }
}
