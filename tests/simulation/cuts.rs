//! One job cut in every way: agents, shard sizes, orders of arrival. The bits never change.

use forge_lifecycle::pool::Settings;
use serde_json::json;

use crate::kernel::{planned, reference};
use crate::world::{Manner, World};

#[test]
fn one_job_cut_six_hundred_ways() {
    // 667 items in units of 3: 223 units, an awkward tree.
    let expected = reference(&planned("two.v1", 667, json!({})));
    let (mut ways, mut shapes) = (0u64, std::collections::BTreeSet::new());
    for agents in [1usize, 2, 3, 7, 16] {
        for shards in [1u32, 2, 3, 5, 7, 14, 28, 56, 112, 223] {
            for order in 0..12u64 {
                let mut world = World::new(order * 1000 + ways, Settings::default());
                for _ in 0..agents {
                    let (cores, shard_ms) = (world.dice.from(1, 3) as u32, world.dice.from(1, 500));
                    world.machine(Manner::Honest, cores, shard_ms, 1_000);
                }
                let plan = planned("two.v1", 667, json!({"verify": "none", "shards": shards}));
                shapes.insert(plan.stages[0].shard_units);
                let job = world.submit(1, plan);
                world.run();
                world.assert_completed(job, &expected);
                ways += 1;
            }
        }
    }
    assert_eq!(ways, 600);
    assert_eq!(shapes.len(), 9, "shards of {shapes:?} units");
}
