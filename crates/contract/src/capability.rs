//! What a machine offers: the facts an agent states about itself when it joins.
//!
//! The hub uses them to place work. None of them reaches a result.

use serde::{Deserialize, Serialize};

use crate::digest::Digest;

/// Most labels of an agent.
pub const LABELS_MAX: usize = 64;
/// Longest label, architecture, operating system or cage name, bytes.
pub const WORD_BYTES_MAX: usize = 128;
/// What [`word_is_valid`] allows, as a regular expression.
pub const LABEL_PATTERN: &str = "^[ -~]{1,128}$";
/// Most shards an agent may hold at once, running and waiting.
pub const LEASES_MAX: u32 = 4096;

/// What an agent says of its machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capability {
    /// Shards it runs at the same time, at least 1.
    pub cores: u32,
    /// Leases it takes at once, running and waiting: `cores` and a few more, so that the next shard is there when
    /// one ends. Between `cores` and [`LEASES_MAX`].
    pub leases: u32,
    /// Memory kernels may use, all shards together, bytes.
    pub memory_bytes: u64,
    /// Processor architecture (`x86_64`, `aarch64`).
    pub arch: String,
    /// Operating system (`linux`, `macos`).
    pub os: String,
    /// Whether it runs kernels on the processor.
    pub cpu: bool,
    /// Whether it runs kernels on a graphics processor.
    pub gpu: bool,
    /// The provider's labels (`region=eu`), sorted, each once.
    pub labels: Vec<String>,
    /// The only projects it works for, by id, sorted, each once; for every project where it names none.
    pub projects: Vec<String>,
    /// Engine profile: only equal profiles promise equal bits and equal fuel.
    pub engine: Digest,
    /// What holds a kernel in, for people and for the operator's rules (`full`, or what is missing).
    pub cage: String,
}

/// Why a capability is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("capability/{field}: {rule}")]
pub struct CapabilityError {
    /// The field that breaks the rule.
    pub field: &'static str,
    /// The rule.
    pub rule: &'static str,
}

impl Capability {
    /// Checks what a stranger's statement must satisfy before the scheduler sees it.
    ///
    /// # Errors
    /// The first field that breaks a rule.
    pub fn check(&self) -> Result<(), CapabilityError> {
        let rule = |field, holds, rule| if holds { Ok(()) } else { Err(CapabilityError { field, rule }) };
        rule("cores", (1..=LEASES_MAX).contains(&self.cores), "1 to 4096")?;
        rule("leases", (self.cores..=LEASES_MAX).contains(&self.leases), "cores to 4096")?;
        rule("cpu", self.cpu || self.gpu, "an agent offers a processor or a graphics processor")?;
        rule("arch", word_is_valid(&self.arch), "1 to 128 printable ASCII bytes")?;
        rule("os", word_is_valid(&self.os), "1 to 128 printable ASCII bytes")?;
        rule("cage", word_is_valid(&self.cage), "1 to 128 printable ASCII bytes")?;
        rule("labels", self.labels.len() <= LABELS_MAX, "at most 64")?;
        rule("labels", self.labels.iter().all(|label| word_is_valid(label)), "each 1 to 128 printable ASCII bytes")?;
        rule("labels", self.labels.is_sorted_by(|a, b| a < b), "sorted, each once")?;
        rule("projects", self.projects.len() <= LABELS_MAX, "at most 64")?;
        rule("projects", self.projects.iter().all(|id| word_is_valid(id)), "each 1 to 128 printable ASCII bytes")?;
        rule("projects", self.projects.is_sorted_by(|a, b| a < b), "sorted, each once")
    }
}

/// Whether text can be an agent's label, architecture, operating system or cage: printable ASCII, not too long.
#[must_use]
pub fn word_is_valid(word: &str) -> bool {
    (1..=WORD_BYTES_MAX).contains(&word.len()) && word.bytes().all(|byte| (b' '..=b'~').contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Capability {
        Capability {
            cores: 4,
            leases: 8,
            memory_bytes: 1 << 30,
            arch: "x86_64".into(),
            os: "linux".into(),
            cpu: true,
            gpu: false,
            labels: vec!["region=eu".into(), "tier=a".into()],
            projects: vec!["one".into()],
            engine: Digest::of(b"engine"),
            cage: "full".into(),
        }
    }

    #[test]
    fn the_pattern_says_the_same() {
        let schema = serde_json::json!({ "pattern": LABEL_PATTERN });
        for word in ["", "a", "region=eu", "~ !", "a\n", "\u{e9}", &"w".repeat(128), &"w".repeat(129)] {
            assert_eq!(jsonschema::is_valid(&schema, &word.into()), word_is_valid(word), "{word:?}");
        }
    }

    #[test]
    fn each_rule_names_its_field() {
        assert_eq!(sample().check(), Ok(()));
        type Spoil = fn(&mut Capability);
        let cases: [(&str, Spoil); 7] = [
            ("cores", |c| c.cores = 0),
            ("leases", |c| c.leases = 3),
            ("cpu", |c| c.cpu = false),
            ("arch", |c| c.arch = "a\nb".into()),
            ("labels", |c| c.labels = vec!["b".into(), "a".into()]),
            ("projects", |c| c.projects = vec!["one".into(), "one".into()]),
            ("cage", |c| c.cage = "x".repeat(129)),
        ];
        for (field, spoil) in cases {
            let mut capability = sample();
            spoil(&mut capability);
            assert_eq!(capability.check().err().map(|e| e.field), Some(field));
        }
    }
}
