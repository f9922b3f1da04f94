//! Jobs take turns.

use forge_lifecycle::pool::Settings;
use serde_json::json;

use crate::kernel::planned;
use crate::world::{Manner, World};

#[test]
fn a_small_job_does_not_wait_for_a_large_one() {
    let mut world = World::new(1, Settings::default());
    world.machine(Manner::Honest, 4, 100, 1_000);
    let large = world.submit(1, planned("one.v1", 3_000, json!({"verify": "none", "shards": 1000})));
    for _ in 0..200 {
        world.step();
    }
    let small = world.submit(2, planned("one.v1", 60, json!({"verify": "none", "shards": 20})));
    let before = world.turns.len();
    while !world.finished.contains_key(&small) {
        world.step();
    }
    assert!(!world.finished.contains_key(&large));
    // From its start to its end the two jobs took turns.
    let given = &world.turns[before..];
    let (mine, others) =
        (given.iter().filter(|job| **job == small).count(), given.iter().filter(|job| **job == large).count());
    assert!(mine >= 16 && others <= mine + 12, "{mine} to {others}");
    world.run();
}
