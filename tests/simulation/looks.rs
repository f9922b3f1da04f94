//! Cheap looks: some units of a committed answer run again elsewhere. Whoever skips work is found at a small part of the
//! price of a second run, whoever slanders others is found too, and the result is the reference whatever they do.

use forge_lifecycle::action::{JobOutcome, Reason};
use forge_lifecycle::pool::Settings;
use forge_lifecycle::settle::Backed;
use forge_lifecycle::verify::{AuditPolicy, Standing};
use serde_json::json;

use crate::kernel::{planned, reference};
use crate::world::{Manner, World, agent_id};

/// No audits but the smallest rate, so that what is found was found by looks; every shard is looked at.
fn looks_alone(units_again: u32) -> Settings {
    let audits = AuditPolicy {
        probation: 0,
        rate_min_ppm: 1,
        error_ppm: 1_000_000,
        units_ppm: 1_000_000,
        units_again,
        ..AuditPolicy::default()
    };
    Settings { hub_secret: [9; 32], attempts_max: 50, audits, ..Settings::default() }
}

/// Four honest agents, the last of them the operator's, and one of this manner; each with a long clean record.
fn world(seed: u64, settings: Settings, manner: Manner) -> (World, usize) {
    let mut world = World::new(seed, settings);
    for number in 0..4 {
        let machine = world.machine(Manner::Honest, 2, 50, 1_000);
        world.machines[machine].verifier = number == 3;
        world.machines[machine].clean = 1_000_000;
    }
    let bad = world.machine(manner, 2, 50, 1_000);
    world.machines[bad].clean = 1_000_000;
    (world, bad)
}

/// 64 units per shard, 30 shards.
fn plan() -> forge_lifecycle::plan::Plan {
    planned("one.v1", 3 * 64 * 30, json!({"verify": "spotcheck", "shards": 30}))
}

#[test]
fn who_computes_nothing_is_found_at_its_first_look() {
    let expected = reference(&plan());
    for seed in 0..12 {
        let (mut world, bad) = world(seed, looks_alone(2), Manner::Skips(100));
        let job = world.submit(1, plan());
        world.run();
        world.assert_completed(job, &expected);
        assert_eq!(world.quarantined.iter().collect::<Vec<_>>(), [&agent_id(bad)], "seed {seed}");
    }
}

#[test]
fn looks_cost_their_units_and_no_more() {
    let (mut world, _) = world(1, looks_alone(2), Manner::Honest);
    let job = world.submit(1, plan());
    world.run();
    let JobOutcome::Completed(completed) = &world.finished[&job] else { panic!("it completed") };
    let report = &completed.summary.verification;
    assert_eq!((report.sampled, report.shards, report.refuted), (30, 30, 0));
    // Copies of slow shards apart, a look is one unit of 64.
    assert_eq!(world.units_by_reason(Reason::First), 30 * 64);
    assert_eq!(world.units_by_reason(Reason::Unit), 60);
    // They are paid by what the answer's own units burned, and nothing else is.
    for accepted in world.accepted.values() {
        let backed = Backed::of(accepted.agent, &accepted.verdict, accepted.fuel());
        let units = accepted.verdict.looks.iter().filter_map(|look| look.unit);
        let first = u64::from(accepted.shard) * 64;
        let burned = units.map(|unit| accepted.units[usize::try_from(unit - first).unwrap()].fuel);
        assert_eq!(backed.looks_paid().map(|(_, fuel)| fuel).sum::<u64>(), burned.sum::<u64>());
        assert!(backed.check_fuel() > 0);
    }
}

#[test]
fn who_slanders_others_is_refuted_itself() {
    let expected = reference(&plan());
    let mut found = 0;
    for seed in 0..20 {
        let (mut world, bad) = world(seed, looks_alone(2), Manner::Slanders);
        let job = world.submit(1, plan());
        world.run();
        world.assert_completed(job, &expected);
        assert!(
            world.quarantined.iter().all(|agent| *agent == agent_id(bad)),
            "seed {seed}: an honest agent was refuted"
        );
        found += world.quarantined.len();
    }
    assert_eq!(found, 20, "each of them looked at something");
}

#[test]
fn slander_without_a_verifier_is_settled_by_a_second_owner() {
    let expected = reference(&plan());
    for seed in 0..20 {
        let (mut world, bad) = world(seed, looks_alone(1), Manner::Slanders);
        world.machines.iter_mut().for_each(|machine| machine.verifier = false);
        let job = world.submit(1, plan());
        world.run();
        world.assert_completed(job, &expected);
        assert_eq!(world.quarantined.iter().collect::<Vec<_>>(), [&agent_id(bad)], "seed {seed}");
    }
}

#[test]
fn alone_nobody_waits_for_looks() {
    let mut world = World::new(1, looks_alone(2));
    let machine = world.machine(Manner::Honest, 2, 20, 1_000);
    world.machines[machine].clean = 1_000_000;
    let job = world.submit(1, plan());
    world.run();
    world.assert_completed(job, &reference(&plan()));
    let summary = world.finished[&job].summary();
    assert_eq!((summary.verification.sampled, summary.verification.unchecked), (0, 0), "{:?}", summary.verification);
}

#[test]
fn looks_that_fail_are_left_out_in_time() {
    let mut lone = World::new(3, looks_alone(1));
    let good = lone.machine(Manner::Honest, 2, 20, 1_000);
    lone.machines[good].clean = 1_000_000;
    lone.machine(Manner::Breaks, 2, 20, 1_000);
    let job = lone.submit(1, plan());
    lone.run();
    lone.assert_completed(job, &reference(&plan()));
    assert!(lone.quarantined.is_empty() && lone.now < 400_000, "{} ms", lone.now);
}

/// Every audit is the kernel's own check; no other looks.
fn checks_alone() -> Settings {
    let audits = AuditPolicy { probation: u64::MAX, copies_ppm: 0, units_ppm: 0, ..AuditPolicy::default() };
    Settings { hub_secret: [5; 32], attempts_max: 50, audits, ..Settings::default() }
}

fn tiles() -> forge_lifecycle::plan::Plan {
    let plan = planned("tiles.v1", 20, json!({"verify": "spotcheck", "shards": 25}));
    assert!(plan.stages[0].checks && plan.stages[0].units == 100 && plan.stages[0].shards == 25);
    plan
}

#[test]
fn a_kernels_own_check_stands_for_a_copy() {
    let (mut world, _) = world(1, checks_alone(), Manner::Honest);
    world.machines[3].verifier = false;
    let job = world.submit(1, tiles());
    world.run();
    world.assert_completed(job, &reference(&tiles()));
    let report = &world.finished[&job].summary().verification;
    assert_eq!((report.proved, report.shards, report.matched), (25, 25, 0), "{report:?}");
    assert!(world.accepted.values().all(|accepted| accepted.verdict.standing == Standing::Checked));
    assert_eq!(world.units_by_reason(Reason::Check), 0);
}

#[test]
fn what_a_check_finds_wrong_is_settled_by_a_copy_whoever_was_wrong() {
    let expected = reference(&tiles());
    let mut found = [0, 0];
    for seed in 0..100 {
        for (number, manner) in [Manner::Lies, Manner::Slanders].into_iter().enumerate() {
            let (mut world, bad) = world(seed, checks_alone(), manner);
            world.machines[3].verifier = seed % 2 == 0;
            let job = world.submit(1, tiles());
            world.run();
            world.assert_completed(job, &expected);
            assert!(
                world.quarantined.iter().all(|agent| *agent == agent_id(bad)),
                "seed {seed}: an honest agent was refuted"
            );
            found[number] += world.quarantined.len();
        }
    }
    assert!(found[0] == 100 && found[1] > 90, "{found:?}");
}

#[test]
fn a_check_that_fails_is_replaced_by_a_copy() {
    let (mut world, _) = world(2, checks_alone(), Manner::Honest);
    world.machines[3].verifier = false;
    world.checks_trap = true;
    let job = world.submit(1, tiles());
    world.run();
    world.assert_completed(job, &reference(&tiles()));
    let report = &world.finished[&job].summary().verification;
    assert_eq!((report.proved, report.matched, world.quarantined.len()), (0, 25, 0), "{report:?}");
}
