//! Where a project's jobs may run.

use forge_contract::envelope::Requires;
use forge_contract::{Failure, FailureCode};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What every agent must be that works for a project: its checks, its second copies and its verifiers' answers too.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Binding {
    /// Labels they all have. Agents state their labels themselves.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<String>,
    /// Their region: the label `region=REGION`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// Whether they are reserved for this project, which is the operator's word and not their own.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub exclusive: bool,
}

impl Binding {
    /// Whether every agent will do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.region.is_none() && !self.exclusive
    }

    /// What it asks of agents.
    #[must_use]
    pub fn requires(&self) -> Requires {
        let region = self.region.iter().map(|region| format!("region={region}"));
        let labels = self.labels.iter().cloned().chain(region).collect();
        // Sorted, each once.
        Requires::default().with(&Requires { labels, arch: None, reserved: self.exclusive })
    }

    /// Whether a contract that asks this of agents could ever run.
    ///
    /// # Errors
    /// `request.conflict` at the region, where both name one and they differ: no agent has two.
    pub fn check(&self, asked: &Requires) -> Result<(), Failure> {
        let own = self.region.as_ref().map(|region| format!("region={region}"));
        if let Some(own) = own
            && let Some(other) = asked.labels.iter().find(|label| label.starts_with("region=") && **label != own)
        {
            let detail =
                format!("policy.region: {other} is asked for, and this project's jobs stay in {own}; leave it out");
            return Err(Failure::new(FailureCode::RequestConflict, detail).at("/policy/region"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn requires(labels: &[&str]) -> Requires {
        Requires { labels: labels.iter().map(|label| (*label).to_owned()).collect(), ..Requires::default() }
    }

    #[test]
    fn a_binding_adds_and_takes_nothing_away() {
        let binding = Binding { labels: vec!["tier=a".into()], region: Some("eu".into()), exclusive: true };
        let asked = requires(&["gpu=big", "tier=a"]).with(&binding.requires());
        assert_eq!(asked.labels, ["gpu=big", "region=eu", "tier=a"]);
        assert!(asked.reserved);
        assert_eq!(asked.with(&binding.requires()), asked, "twice is once");
        assert_eq!(requires(&["x"]).with(&Binding::default().requires()), requires(&["x"]));
    }

    #[test]
    fn another_region_is_refused_before_anything_runs() {
        let binding = Binding { region: Some("eu".into()), ..Binding::default() };
        let failure = binding.check(&requires(&["region=us"])).unwrap_err();
        assert_eq!((failure.code, failure.pointer.as_deref()), (FailureCode::RequestConflict, Some("/policy/region")));
        assert!(binding.check(&requires(&["region=eu", "tier=a"])).is_ok());
    }
}
