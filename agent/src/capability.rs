//! What this machine offers.

use forge_contract::Capability;
use forge_contract::capability::WORD_BYTES_MAX;
use forge_sandbox::{CageReport, engine_profile};

use crate::config::Config;

/// The machine's capability; `cage` is what a worker says is in force.
pub(crate) fn detect(config: &Config, cage: &CageReport) -> Capability {
    Capability {
        cores: config.cores,
        leases: config.leases,
        memory_bytes: offered(memory("MemTotal:"), config.limits.memory_bytes),
        arch: std::env::consts::ARCH.to_owned(),
        os: std::env::consts::OS.to_owned(),
        cpu: true,
        gpu: false,
        labels: config.labels.clone(),
        projects: config.projects.clone(),
        engine: engine_profile(),
        cage: cage_word(cage),
    }
}

/// The machine's memory, or what its owner gives of it. A machine that does not say how much it has gives what it may.
fn offered(total: u64, budget: Option<u64>) -> u64 {
    match (total, budget) {
        (0, budget) => budget.unwrap_or(0),
        (total, budget) => budget.map_or(total, |budget| budget.min(total)),
    }
}

/// Memory that is free now, bytes; 0 where the system does not say.
pub(crate) fn memory_free_bytes() -> u64 {
    memory("MemAvailable:")
}

fn memory(line: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    kibibytes(&text, line).map_or(0, |kib| kib.saturating_mul(1024))
}

fn kibibytes(meminfo: &str, name: &str) -> Option<u64> {
    meminfo.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()?.parse().ok()
}

/// `full`, or what is missing, as one word for the hub's list.
fn cage_word(report: &CageReport) -> String {
    let missing: Vec<&str> = report.missing().map(|(guard, _)| guard.name()).collect();
    if missing.is_empty() {
        return "full".to_owned();
    }
    let mut word = format!("without {}", missing.join(" "));
    word.truncate(WORD_BYTES_MAX);
    word
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_kernels_numbers() {
        let text = "MemTotal:       24567890 kB\nMemFree:  1 kB\nMemAvailable:    1000 kB\n";
        assert_eq!(kibibytes(text, "MemTotal:"), Some(24_567_890));
        assert_eq!(kibibytes(text, "MemAvailable:"), Some(1000));
        assert_eq!(kibibytes("", "MemTotal:"), None);
    }

    #[test]
    fn a_cage_that_holds_nothing_still_has_a_word_that_fits() {
        let word = cage_word(&CageReport::default());
        assert!(word.starts_with("without user") && word.len() <= WORD_BYTES_MAX);
    }
}
