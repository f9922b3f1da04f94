//! Jobs that must fail, and how.

use forge_contract::FailureCode;
use forge_contract::report::Outcome;
use forge_contract::task::Task;
use forge_lifecycle::action::{JobOutcome, StageFragment};
use forge_lifecycle::event::Event;
use forge_lifecycle::pool::Settings;
use serde_json::json;

use crate::kernel::{self, planned, reference};
use crate::world::{Manner, World};

fn traps_in_unit_40(task: &Task, inputs: &[StageFragment]) -> Outcome {
    let bad = task.first_unit <= 40 && 40 < task.first_unit + task.unit_count;
    if bad {
        Outcome::Failed(kernel::failure(FailureCode::AgentTrap, Some(40)))
    } else {
        crate::world::honest(task, inputs)
    }
}

#[test]
fn a_kernel_that_traps_everywhere_fails_the_job_and_punishes_nobody() {
    for seed in 0..300 {
        let mut world = World::new(seed, Settings::default());
        world.compute = traps_in_unit_40;
        let agents = world.dice.from(1, 6);
        for _ in 0..agents {
            let ms = world.dice.from(1, 300);
            world.machine(Manner::Honest, 2, ms, 1_000);
        }
        let verify = if agents > 1 { world.dice.pick(&["none", "spotcheck", "quorum"]) } else { "none" };
        let job = world.submit(1, planned("one.v1", 300, json!({"verify": verify, "shards": 25})));
        world.run();
        let failure = world.failure_of(job);
        assert_eq!(failure.code, FailureCode::AgentTrap, "{failure}");
        assert_eq!(failure.unit, Some(40));
        assert!(world.quarantined.is_empty());
    }
}

#[test]
fn waits_end_with_a_code() {
    let run = |policy: serde_json::Value, machines: &[(Manner, u64)]| {
        let mut world = World::new(7, Settings::default());
        for (manner, joins) in machines {
            world.machine(*manner, 2, 50, *joins);
        }
        let job = world.submit(1, planned("one.v1", 300, policy));
        world.run();
        (world.failure_of(job).clone(), world.now)
    };
    let (none, when) = run(json!({"verify": "none"}), &[]);
    assert_eq!((none.code, when), (FailureCode::SchedulingNoAgents, 31_000));
    let (gpu, _) = run(json!({"verify": "none", "target": "gpu"}), &[(Manner::Honest, 1_000)]);
    assert_eq!(gpu.code, FailureCode::SchedulingNoAgents);
    let (strict, when) = run(json!({"min_agents": 3, "strict_agents": true}), &[(Manner::Honest, 1_000)]);
    assert_eq!((strict.code, when), (FailureCode::SchedulingTooFewAgents, 31_000));
    let (timeout, when) = run(json!({"verify": "none", "timeout_ms": 5_000}), &[(Manner::Hangs, 1_000)]);
    assert_eq!((timeout.code, when), (FailureCode::SchedulingTimeout, 6_000));
    let (quorum, _) = run(json!({"verify": "quorum"}), &[(Manner::Honest, 1_000)]);
    assert_eq!(quorum.code, FailureCode::VerificationTooFewAgents);
    let (unsettled, _) = run(json!({"verify": "quorum"}), &[(Manner::Honest, 1_000), (Manner::Lies, 1_000)]);
    assert_eq!(unsettled.code, FailureCode::VerificationUnsettled);
    let (exhausted, _) = run(json!({"verify": "none"}), &[(Manner::Breaks, 1_000), (Manner::Breaks, 1_000)]);
    assert_eq!(exhausted.code, FailureCode::AgentAttemptsExhausted);
    assert!(exhausted.detail.contains("agent.worker_lost"), "{exhausted}");
}

#[test]
fn min_agents_unmet_is_a_warning() {
    let mut world = World::new(7, Settings::default());
    world.machine(Manner::Honest, 2, 50, 1_000);
    let job = world.submit(1, planned("one.v1", 300, json!({"verify": "none", "min_agents": 4})));
    world.run();
    world.assert_completed(job, &reference(&planned("one.v1", 300, json!({}))));
    let warnings = &world.finished[&job].summary().warnings;
    assert_eq!(warnings, &["policy.min_agents asks for 4 agents; at most 1 were connected"]);
}

#[test]
fn a_cancelled_job_is_over_at_once_and_its_neighbour_goes_on() {
    let mut world = World::new(7, Settings::default());
    world.machine(Manner::Honest, 2, 50, 1_000);
    let cancelled = world.submit(1, planned("one.v1", 300, json!({"verify": "none", "shards": 50})));
    let other = world.submit(2, planned("one.v1", 300, json!({"verify": "none", "shards": 50})));
    world.event_at(1_200, Event::CancelRequested { job: cancelled });
    world.run();
    assert!(matches!(world.finished[&cancelled], JobOutcome::Cancelled { .. }));
    world.assert_completed(other, &reference(&planned("one.v1", 300, json!({}))));
}

#[test]
fn one_machine_that_fails_everything_does_not_starve_the_job() {
    // A fast failer would draw every shard to itself; it must rest instead.
    for seed in 0..100 {
        let mut world = World::new(seed, Settings::default());
        world.machine(Manner::Breaks, 8, 1, 1_000);
        world.machine(Manner::Honest, 1, 400, 1_000);
        let job = world.submit(1, planned("one.v1", 300, json!({"verify": "none", "shards": 100})));
        world.run();
        world.assert_completed(job, &reference(&planned("one.v1", 300, json!({}))));
    }
}

#[test]
fn a_hung_agent_costs_a_hedge_not_a_lease() {
    let mut world = World::new(3, Settings::default());
    world.machine(Manner::Hangs, 1, 50, 1_000);
    world.machine(Manner::Honest, 2, 50, 1_000);
    let job = world.submit(1, planned("one.v1", 300, json!({"verify": "none", "shards": 25})));
    world.run();
    world.assert_completed(job, &reference(&planned("one.v1", 300, json!({}))));
    assert!(world.now < 20_000, "ended at {}: the lease of a minute was waited for", world.now);
}

#[test]
fn an_unknown_kernel_costs_a_few_shards_before_it_fails() {
    let mut world = World::new(11, Settings::default());
    world.compute = |task, inputs| match task.first_unit {
        // Every shard traps, whoever runs it.
        _ if task.stage == "simulate" => {
            Outcome::Failed(kernel::failure(FailureCode::AgentTrap, Some(task.first_unit)))
        }
        _ => crate::world::honest(task, inputs),
    };
    for _ in 0..40 {
        world.machine(Manner::Honest, 4, 100, 1_000);
    }
    let job = world.submit(1, planned("one.v1", 3_000, json!({"verify": "none", "shards": 1_000})));
    world.run();
    assert_eq!(world.failure_of(job).code, FailureCode::AgentTrap);
    assert!(world.dispatched <= 12, "{} shards were given out for nothing", world.dispatched);
}

#[test]
fn strangers_that_agree_cannot_break_a_job_a_verifier_can_run() {
    let expected = reference(&planned("one.v1", 300, json!({})));
    for seed in 0..100 {
        let mut world = World::new(seed, Settings { attempts_max: 50, ..Settings::default() });
        let machine = world.machine(Manner::Honest, 2, 100, 1_000);
        world.machines[machine].verifier = true;
        world.machine(Manner::Honest, 2, 100, 1_000);
        let bad = [world.machine(Manner::ClaimsTraps, 2, 10, 1_000), world.machine(Manner::ClaimsTraps, 2, 10, 1_000)];
        let job = world.submit(1, planned("one.v1", 300, json!({"verify": "none", "shards": 25})));
        world.run();
        world.assert_completed(job, &expected);
        let bad: Vec<_> = bad.into_iter().map(crate::world::agent_id).collect();
        assert!(world.quarantined.iter().all(|agent| bad.contains(agent)), "seed {seed}");
    }
}
