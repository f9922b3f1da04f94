//! Honest agents that come, go and hang, lossy links, hubs that die: the bits are always the same.

use forge_contract::envelope::VerifyMode;
use forge_lifecycle::action::StageFragment;
use forge_lifecycle::pool::Settings;
use serde_json::json;

use crate::dice::Dice;
use crate::kernel::{planned, reference};
use crate::world::{Manner, World, agent_id};

const PROFILES: [(&str, u64); 4] = [("one.v1", 1), ("one.v1", 100), ("two.v1", 77), ("one.v1", 400)];

fn references() -> Vec<Vec<StageFragment>> {
    PROFILES.iter().map(|(profile, items)| reference(&planned(profile, *items, json!({})))).collect()
}

fn settings() -> Settings {
    // Losses are common in these worlds; what is tested is that they never show.
    Settings { attempts_max: 1000, losses_max: 1000, hub_secret: [9; 32], ..Settings::default() }
}

/// A world with three steady honest agents, one of them the operator's, and a random crowd.
fn crowd(seed: u64) -> World {
    let mut world = World::new(seed, settings());
    world.loss = world.dice.pick(&[0, 0, 5, 30]);
    for steady in 0..3 {
        let (cores, shard_ms) = (world.dice.from(1, 4) as u32, world.dice.from(5, 300));
        let machine = world.machine(Manner::Honest, cores, shard_ms, 1_000);
        world.machines[machine].verifier = steady == 0;
    }
    for _ in 0..world.dice.from(0, 14) {
        let manner = world.dice.pick(&[Manner::Honest, Manner::Honest, Manner::Hangs, Manner::Repeats, Manner::Steals]);
        let (cores, shard_ms, joins) =
            (world.dice.from(1, 8) as u32, world.dice.from(1, 2_000), world.dice.from(1_000, 6_000));
        let machine = world.machine(manner, cores, shard_ms, joins);
        if world.dice.chance(60) {
            let leaves = joins + world.dice.from(1, 5_000);
            world.leaves_at(machine, leaves);
            if world.dice.chance(50) {
                world.joins_at(machine, leaves + 500);
            }
        }
    }
    for _ in 0..world.dice.pick(&[0, 0, 0, 1, 3]) {
        let at = world.dice.from(1_001, 8_000);
        world.crashes_at(at);
    }
    world
}

fn policy(dice: &mut Dice) -> serde_json::Value {
    let verify = dice.pick(VerifyMode::ALL);
    // A pool of three steady agents cannot give three copies to a job that may use fewer at a time.
    let max = if verify == VerifyMode::None { dice.pick(&[0, 0, 1, 3]) } else { dice.pick(&[0, 0, 4]) };
    json!({"verify": verify, "shards": dice.from(1, 140), "max_agents": max})
}

#[test]
fn two_thousand_worlds_give_one_answer() {
    let references = references();
    let (mut crashes, mut dispatched) = (0, 0);
    for seed in 0..2_000 {
        let mut world = crowd(seed);
        let mut expected = Vec::new();
        for number in 0..world.dice.from(1, 3) {
            let which = world.dice.from(0, PROFILES.len() as u64 - 1) as usize;
            let (profile, items) = PROFILES[which];
            let policy = policy(&mut world.dice);
            let job = world.submit(u128::from(number) + 1, planned(profile, items, policy));
            expected.push((job, which));
        }
        world.run();
        for (job, which) in expected {
            world.assert_completed(job, &references[which]);
        }
        let thieves: Vec<_> =
            (0..world.machines.len()).filter(|m| world.machines[*m].manner == Manner::Steals).map(agent_id).collect();
        assert!(
            world.quarantined.iter().all(|agent| thieves.contains(agent)),
            "seed {seed}: an honest agent was refuted"
        );
        crashes += world.crashes;
        dispatched += world.dispatched;
    }
    // Guards the test itself: worlds must be eventful.
    assert!(crashes > 800, "{crashes} crashes");
    assert!(dispatched > 60_000, "{dispatched} leases");
}

#[test]
fn a_hub_that_dies_between_two_actions_goes_on() {
    let references = references();
    for seed in 0..400 {
        let mut world = crowd(50_000 + seed);
        let which = world.dice.from(1, 3) as usize;
        let (profile, items) = PROFILES[which];
        let policy = policy(&mut world.dice);
        let job = world.submit(1, planned(profile, items, policy));
        for _ in 0..world.dice.from(1, 5) {
            for _ in 0..world.dice.from(1, 30) {
                if world.finished.is_empty() {
                    world.step();
                }
            }
            world.dies_next = true;
        }
        world.run();
        world.assert_completed(job, &references[which]);
    }
}
