//! Every decoder of foreign bytes, with what must hold for any input: it ends, it does not panic, it reserves memory in
//! proportion to the input, what it accepts survives a round trip, and what it refuses has a reason.
//!
//! Two drivers share the targets: the seeded mutator of the test `fuzz` ([`mutate`]), and libFuzzer with coverage
//! (`libfuzzer/`, run by `cargo xtask fuzz`).

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a property that does not hold ends the run"
)]

pub mod memory;
pub mod mutate;
mod seeds;
mod targets;

/// A decoder with its properties.
#[derive(Clone, Copy)]
pub struct Target {
    /// Name.
    pub name: &'static str,
    /// What must hold for any bytes; panics where it does not.
    pub run: fn(&[u8]),
    /// Inputs to start from.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Most bytes of memory held at once, per byte of input.
    pub per_byte: usize,
    /// Most bytes of memory held at once, whatever the input.
    pub constant: usize,
    /// Inputs of the test run.
    pub inputs: u64,
    /// Longest input that is tried.
    pub longest: usize,
}

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

/// Every target.
pub const TARGETS: [Target; 8] = [
    Target {
        name: "component",
        run: targets::component,
        seeds: seeds::components,
        per_byte: 128,
        constant: 16 * MIB,
        inputs: 5_000,
        longest: 128 * KIB,
    },
    Target {
        name: "manifest",
        run: targets::manifest,
        seeds: seeds::manifests,
        per_byte: 64,
        constant: 64 * KIB,
        inputs: 20_000,
        longest: 32 * KIB,
    },
    Target {
        name: "fragment",
        run: targets::fragment,
        seeds: seeds::fragments,
        per_byte: 128,
        constant: 16 * KIB,
        inputs: 50_000,
        longest: 16 * KIB,
    },
    Target {
        name: "envelope",
        run: targets::envelope,
        seeds: seeds::envelopes,
        per_byte: 64,
        constant: 64 * KIB,
        inputs: 30_000,
        longest: 8 * KIB,
    },
    Target {
        name: "wire",
        run: targets::wire,
        seeds: seeds::frames,
        per_byte: 64,
        // serde reserves up to 1 MiB for a list on the word of its length alone.
        constant: 2 * MIB,
        inputs: 50_000,
        longest: 8 * KIB,
    },
    Target {
        name: "text",
        run: targets::text,
        seeds: seeds::texts,
        per_byte: 16,
        constant: 16 * KIB,
        inputs: 50_000,
        longest: 256,
    },
    Target {
        name: "plan",
        run: targets::plan,
        seeds: seeds::plans,
        per_byte: 64,
        constant: 64 * KIB,
        inputs: 20_000,
        longest: 16 * KIB,
    },
    Target {
        name: "bundle",
        run: targets::bundle,
        seeds: seeds::bundles,
        per_byte: 128,
        // The audit plans the contract anew, schema and all.
        constant: 4 * MIB,
        inputs: 3_000,
        longest: 32 * KIB,
    },
];

/// The target of this name.
#[must_use]
pub fn target(name: &str) -> Option<Target> {
    TARGETS.into_iter().find(|target| target.name == name)
}

impl Target {
    /// Runs one input and holds its memory against the target's bound; gives the most that was held at once, bytes.
    ///
    /// # Panics
    /// A property does not hold.
    pub fn check(&self, input: &[u8]) -> usize {
        let peak = memory::peak_of(|| (self.run)(input));
        let bound = self.constant + self.per_byte * input.len();
        assert!(peak <= bound, "{}: {peak} bytes held for an input of {}; at most {bound}", self.name, input.len());
        peak
    }
}
