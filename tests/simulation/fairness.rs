//! Jobs take turns, and so do projects.

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

#[test]
fn a_project_with_many_jobs_gets_no_more_than_one_with_a_single_job() {
    let mut world = World::new(2, Settings::default());
    world.machine(Manner::Honest, 4, 100, 1_000);
    // The kernel is known before the race begins.
    world.submit(99, planned("one.v1", 12, json!({"verify": "none", "shards": 4})));
    world.run();
    let plan = |shards: u64| planned("one.v1", 3 * shards, json!({"verify": "none", "shards": shards}));
    let many: Vec<_> = (0..9).map(|number| world.submit_for("many", number, plan(300))).collect();
    let single = world.submit_for("single", 50, plan(300));
    let before = world.turns.len();
    while !world.finished.contains_key(&single) {
        world.step();
    }
    let given = &world.turns[before..];
    let mine = given.iter().filter(|job| **job == single).count();
    let theirs = given.iter().filter(|job| many.contains(job)).count();
    // What the nine held already when the single one came counts for them.
    assert!(mine >= 300 && theirs <= mine + 24, "{mine} to {theirs}");
    // Among themselves the nine took turns too.
    let each: Vec<usize> = many.iter().map(|job| given.iter().filter(|other| *other == job).count()).collect();
    assert!(each.iter().max().unwrap() - each.iter().min().unwrap() <= 4, "{each:?}");
}

#[test]
fn a_job_stays_with_the_agents_it_asks_for() {
    let mut world = World::new(3, Settings::default());
    let eu = world.machine(Manner::Honest, 2, 500, 1_000);
    let us = world.machine(Manner::Honest, 8, 1, 1_000);
    world.machines[eu].labels = vec!["region=eu".into()];
    world.machines[us].labels = vec!["region=us".into()];
    let job = world.submit(1, planned("one.v1", 300, json!({"verify": "none", "shards": 50, "region": "eu"})));
    world.run();
    assert_eq!(world.escaped(eu), world.finished[&job].summary().shards);
    assert_eq!(world.escaped(us), 0, "far quicker, and elsewhere");
    let nowhere = world.submit(2, planned("one.v1", 30, json!({"verify": "none", "labels": ["tier=a"]})));
    world.run();
    let failure = world.failure_of(nowhere);
    assert_eq!(failure.code, forge_contract::FailureCode::SchedulingNoAgents);
    assert!(failure.detail.contains("tier=a"), "{failure}");
}
