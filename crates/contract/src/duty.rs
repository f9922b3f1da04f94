//! What a task asks for: units computed, or what another agent computed looked at by the kernel's cheap check.

use serde::{Deserialize, Serialize};

use crate::canon::Writer;
use crate::digest::Digest;

const UNIT_CHALLENGE: &str = "forgepool v1 unit challenge";

/// What an agent does with the units of a task.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Duty {
    /// Computes them.
    #[default]
    Compute,
    /// Checks what was found for them; only of a kernel that exports `checks`.
    Check(Examination),
}

/// What is checked, and with which randomness.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Examination {
    /// The shard's folded fragment.
    pub found: FoundRef,
    /// Drawn after the fragment was committed.
    pub challenge: Challenge,
}

/// A shard's folded fragment as reported and committed, by content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoundRef {
    /// Digest of its canonical bytes.
    pub digest: Digest,
    /// Their number.
    pub bytes: u64,
}

/// The randomness of a check: 32 bytes that whoever computed the fragment could not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Challenge(pub [u8; 32]);

impl Challenge {
    /// What the kernel sees for one unit: a key derived from the shard's challenge and the unit's index in its stage,
    /// so that two units never share their randomness.
    #[must_use]
    pub fn of_unit(&self, unit: u64) -> [u8; 32] {
        let mut w = Writer::with_capacity(48);
        w.digest(&Digest::from_bytes(self.0));
        w.u64(unit);
        *Digest::tagged(UNIT_CHALLENGE, &w.into_bytes()).as_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_have_challenges_of_their_own() {
        let challenge = Challenge([7; 32]);
        assert_ne!(challenge.of_unit(0), challenge.of_unit(1));
        assert_ne!(challenge.of_unit(0), Challenge([8; 32]).of_unit(0));
        assert_ne!(challenge.of_unit(0), challenge.0);
    }
}
