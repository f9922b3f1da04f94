//! Seeds: one root per job, one key per stage, one stream per unit.
//!
//! Determinism: a function of the contract's identity alone (component, profile, args, seed); never of
//! `ctx`, `policy`, agents or time. A unit's generator is ChaCha8 with the stage key and the unit index as stream id.

use serde::{Deserialize, Serialize};

use crate::canon::Writer;
use crate::digest::Digest;

const ROOT: &str = "forgepool v1 derived root seed";
const STAGE: &str = "forgepool v1 stage key";

/// The root of all randomness of a job, as text: what the client gave, or 64 hexadecimal digits when derived.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RootSeed(String);

/// A stage's key, 32 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageKey(pub [u8; 32]);

impl RootSeed {
    /// The root a client pinned: the given text itself.
    #[must_use]
    pub fn explicit(value: &str) -> Self {
        Self(value.to_owned())
    }

    /// The root derived from what is computed: the component, the profile, the canonical args and an optional value.
    #[must_use]
    pub fn derived(component: &Digest, profile: &str, args: &str, value: Option<&str>) -> Self {
        let mut w = Writer::new();
        w.digest(component);
        w.str(profile);
        w.str(args);
        w.u8(u8::from(value.is_some()));
        w.str(value.unwrap_or_default());
        Self(Digest::tagged(ROOT, &w.into_bytes()).to_string())
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The key of the stage with this name.
    #[must_use]
    pub fn stage_key(&self, stage: &str) -> StageKey {
        let mut w = Writer::new();
        w.str(&self.0);
        w.str(stage);
        StageKey(*Digest::tagged(STAGE, &w.into_bytes()).as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stage_keys_are_pinned() {
        let root = RootSeed::explicit("ROOT_SEED_QUICKSTART");
        let key = root.stage_key("simulate");
        assert_ne!(key, root.stage_key("reduce"));
        assert_ne!(key, RootSeed::explicit("ROOT_SEED_QUICKSTARt").stage_key("simulate"));
        // Length prefixes keep the seed and the stage name apart.
        assert_ne!(RootSeed::explicit("ab").stage_key("c"), RootSeed::explicit("a").stage_key("bc"));
    }

    #[test]
    fn derived_depends_on_every_field() {
        let d = Digest::of(b"component");
        let base = RootSeed::derived(&d, "p", "{}", None);
        assert_ne!(base, RootSeed::derived(&Digest::of(b"other"), "p", "{}", None));
        assert_ne!(base, RootSeed::derived(&d, "q", "{}", None));
        assert_ne!(base, RootSeed::derived(&d, "p", "{ }", None));
        assert_ne!(base, RootSeed::derived(&d, "p", "{}", Some("")));
    }
}
