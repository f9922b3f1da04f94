//! A hundred thousand shards stay cheap: the work per event does not grow with them.

use forge_lifecycle::pool::Settings;
use serde_json::json;

use crate::kernel::planned;
use crate::world::{Manner, World};

#[test]
fn a_job_of_many_shards_ends() {
    let mut world = World::new(1, Settings::default());
    for _ in 0..16 {
        let machine = world.machine(Manner::Honest, 16, 100, 1_000);
        world.machines[machine].clean = 1_000_000;
    }
    let plan = planned("one.v1", 60_000, json!({"verify": "spotcheck", "shards": 20_000}));
    assert_eq!(plan.stages[0].shards, 20_000);
    let job = world.submit(1, plan);
    world.run();
    let summary = world.finished[&job].summary();
    assert_eq!(summary.shards, 20_000);
    // Agents with a long clean record are audited at 5%; five standard deviations are 154.
    assert!((846..1_154).contains(&summary.verification.matched), "{}", summary.verification.matched);
}
