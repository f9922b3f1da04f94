//! A unit's random words are those of ChaCha8 with the stage's key and the unit's index as stream, seen from outside.

use forge_contract::fragment::Part;
use forge_contract::seed::RootSeed;
use forge_sandbox::engine::Backend;
use forge_sandbox::{Inputs, local};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use serde_json::json;

use crate::dist;

/// Policy years of the unit looked at: one block of the kernel, whose first draws are its catastrophes.
const YEARS: u64 = 2048;

/// With a catastrophe of probability one half that costs exactly one, and nothing else, a year's loss is the leading
/// bit of its 8-bit draw: four years to a word, the low byte first.
#[test]
fn a_units_words_are_those_of_rand_chacha() {
    let kernel = dist::kernel("mc@1");
    let compiled = dist::compiled("mc@1", Backend::CraneliftSpeed);
    for (seed, unit) in [("ROOT_SEED_QUICKSTART", 0), ("ROOT_SEED_QUICKSTART", 1), ("other", 0), ("other", 15_000_000)]
    {
        let args = json!({
            "iterations": unit * 65_536 + YEARS,
            "claim_freq": 0, "cat_prob": 0.5, "cat_mu": 0, "cat_sig": 0,
        });
        let plan = dist::planned(&dist::contract("mc@1", "insurance.v1", &args, seed), &kernel);
        let run = local::run_unit(&compiled, &dist::task_of(&plan, 0, unit), unit, &Inputs::none()).unwrap();
        let Some(Part::Distribution(loss)) = run.fragment.part("loss") else { panic!("no loss") };

        let mut words = ChaCha8Rng::from_seed(RootSeed::explicit(seed).stage_key("simulate").0);
        words.set_stream(unit);
        let hit = |byte: u8| u64::from(byte < 128);
        let expected: u64 = (0..YEARS / 4).flat_map(|_| words.next_u32().to_le_bytes()).map(hit).sum();
        let hits: u64 = loss.histogram.buckets.iter().filter(|(key, _)| *key != 0).map(|(_, count)| count).sum();
        assert_eq!(hits, expected, "seed {seed}, unit {unit}");
    }
}
