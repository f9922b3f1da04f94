//! Jobs that end early: whoever computes, in whatever order and however often the hub dies, they end at one unit.

use forge_contract::fragment::{Fragment, Part};
use forge_contract::report::Outcome;
use forge_contract::task::Task;
use forge_contract::{FailureCode, JobId};
use forge_lifecycle::action::{Completed, JobOutcome, StageFragment};
use forge_lifecycle::converge::{Convergence, Reason};
use forge_lifecycle::plan::Plan;
use forge_lifecycle::pool::Settings;
use forge_lifecycle::replay;
use serde_json::{Value, json};

use crate::dice::Dice;
use crate::kernel::{self, planned, planned_to_stop};
use crate::world::{Manner, World, honest};

const ITEMS: u64 = 2_000;

fn settings() -> Settings {
    Settings { attempts_max: 1000, losses_max: 1000, hub_secret: [9; 32], ..Settings::default() }
}

/// Where a rule ends the first stage, by its definition: prefixes folded by the definition of the tree, a schedule
/// written down anew.
fn expected(plan: &Plan, stop: &Value) -> (u64, &'static str, Vec<StageFragment>) {
    let units = plan.stages[0].units;
    let mut before = None;
    for unit in (0..).flat_map(|k| [16u64, 20, 24, 28].map(|n| n << k)).map(|n| n.min(units)) {
        let fragments = kernel::reference_of(plan, unit);
        let Part::Distribution(loss) = &Fragment::decode(&fragments[0].bytes).unwrap().parts[0].part.clone() else {
            unreachable!()
        };
        let n = loss.moments.n as f64;
        let variance = loss.moments.m2 / (n - 1.0);
        let z = if stop["confidence"] == json!(0.99) { 2.575_829_303_548_901 } else { 1.959_963_984_540_054_2 };
        let half = z * (variance / n).sqrt() / loss.moments.mean;
        let change = before.map(|before: f64| (variance - before).abs() / before);
        if stop["half_width"].as_f64().is_some_and(|target| half <= target) {
            return (unit, "half_width", fragments);
        }
        if let (Some(target), Some(change)) = (stop["variance_change"].as_f64(), change)
            && change <= target
        {
            return (unit, "variance", fragments);
        }
        if unit == units {
            let budget = stop["budget"].as_u64().is_some_and(|budget| budget < ITEMS);
            return (unit, if budget { "budget" } else { "exhausted" }, fragments);
        }
        before = Some(variance);
    }
    unreachable!()
}

fn rules() -> Vec<Value> {
    vec![
        json!({"half_width": 0.9}),
        json!({"half_width": 0.7}),
        json!({"half_width": 0.4}),
        json!({"half_width": 0.4, "confidence": 0.99}),
        json!({"half_width": 0.25}),
        json!({"half_width": 0.0001}),
        json!({"variance_change": 0.05}),
        json!({"variance_change": 0.01, "half_width": 0.3}),
        json!({"half_width": 0.0001, "budget": 700}),
        json!({"budget": 100}),
        json!({"budget": 1_000_000}),
    ]
}

fn completed(world: &World, job: JobId) -> &Completed {
    match &world.finished[&job] {
        JobOutcome::Completed(completed) => completed,
        other => panic!("expected a result, found {other:?}"),
    }
}

/// The end, the bits, and that nothing beyond the end counts.
fn assert_ended(world: &World, job: JobId, stop: &Value) -> Convergence {
    let plan = &world.jobs[&job];
    let (unit, reason, fragments) = expected(plan, stop);
    let completed = completed(world, job);
    let end = *completed.convergence.clone().expect("a job with a rule says where it ended");
    assert_eq!((end.stopped_at.unit, end.reason.as_str()), (unit, reason), "{stop}");
    assert_eq!(completed.stage_fragments, fragments, "{stop}: other bits");
    let stage = &plan.stages[0];
    assert_eq!(end.stopped_at.items, stage.items_of(0, unit));
    assert_eq!(end.measured.n, end.stopped_at.items);
    let later: u64 = plan.stages[1..].iter().map(|stage| stage.units).sum();
    let work = completed.summary.work;
    assert_eq!((work.items, work.units), (end.stopped_at.items + later, unit + later));
    let fuel: u64 = (0..unit).chain(0..later).map(kernel::fuel).sum();
    assert_eq!(work.fuel, fuel, "the prefix is paid for, nothing else");
    let shards = unit.div_ceil(stage.shard_units) + later;
    assert_eq!((completed.summary.shards, completed.summary.verification.shards), (shards, shards));
    end
}

#[test]
fn a_rule_ends_at_one_unit_however_the_job_is_cut() {
    let (mut ends, mut shapes) = (std::collections::BTreeSet::new(), std::collections::BTreeSet::new());
    for stop in rules() {
        for shards in [1u32, 10, 60, 330, 667] {
            for agents in [1usize, 3, 9] {
                let mut world = World::new(u64::from(shards) + agents as u64, Settings::default());
                for _ in 0..agents {
                    let (cores, shard_ms) = (world.dice.from(1, 3) as u32, world.dice.from(1, 500));
                    world.machine(Manner::Honest, cores, shard_ms, 1_000);
                }
                let plan = planned_to_stop("two.v1", ITEMS, &stop, json!({"verify": "none", "shards": shards}));
                shapes.insert(plan.stages[0].shard_units);
                let job = world.submit(1, plan);
                world.run();
                let end = assert_ended(&world, job, &stop);
                ends.insert((end.stopped_at.unit, end.reason.as_str()));
            }
        }
    }
    assert_eq!(shapes.into_iter().collect::<Vec<_>>(), [1, 2, 4], "no shard is longer than a step");
    assert!(ends.len() >= 8, "{ends:?}: the rules are too much alike");
    assert!(["half_width", "variance", "budget", "exhausted"].iter().all(|r| ends.iter().any(|(_, e)| e == r)));
}

#[test]
fn agents_that_come_go_hang_and_lie_and_hubs_that_die_change_nothing() {
    let rules = rules();
    let (mut crashes, mut beyond) = (0, 0);
    for seed in 0..500 {
        let mut world = World::new(90_000 + seed, settings());
        world.loss = world.dice.pick(&[0, 0, 5, 30]);
        for _ in 0..3 {
            let (cores, shard_ms) = (world.dice.from(1, 4) as u32, world.dice.from(5, 300));
            world.machine(Manner::Honest, cores, shard_ms, 1_000);
        }
        for _ in 0..world.dice.from(0, 8) {
            let manner = world.dice.pick(&[Manner::Honest, Manner::Honest, Manner::Hangs, Manner::Repeats]);
            let (cores, shard_ms, joins) =
                (world.dice.from(1, 8) as u32, world.dice.from(1, 2_000), world.dice.from(1_000, 3_000));
            let machine = world.machine(manner, cores, shard_ms, joins);
            if world.dice.chance(60) {
                let leaves = joins + world.dice.from(1, 3_000);
                world.leaves_at(machine, leaves);
            }
        }
        let verify = world.dice.pick(&["none", "spotcheck", "quorum"]);
        if verify == "quorum" && world.dice.chance(50) {
            let ms = world.dice.from(1, 200);
            world.machine(Manner::Lies, 2, ms, 1_000);
        }
        for _ in 0..world.dice.pick(&[0, 0, 1, 3]) {
            let at = world.dice.from(1_001, 5_000);
            world.crashes_at(at);
        }
        let stop = rules[world.dice.from(0, rules.len() as u64 - 1) as usize].clone();
        let policy = json!({"verify": verify, "shards": world.dice.from(1, 700)});
        let job = world.submit(1, planned_to_stop("two.v1", ITEMS, &stop, policy));
        if world.dice.chance(30) {
            for _ in 0..world.dice.from(1, 4) {
                for _ in 0..world.dice.from(1, 40) {
                    if world.finished.is_empty() {
                        world.step();
                    }
                }
                world.dies_next = true;
            }
        }
        world.run();
        let end = assert_ended(&world, job, &stop);
        let stage = &world.jobs[&job].stages[0];
        let last = u32::try_from(end.stopped_at.unit.div_ceil(stage.shard_units)).unwrap();
        beyond += world.accepted.range((job, 0, last)..(job, 1, 0)).count();
        crashes += world.crashes;
        let liars = (0..world.machines.len()).filter(|m| world.machines[*m].manner == Manner::Lies);
        let liars: Vec<_> = liars.map(crate::world::agent_id).collect();
        assert!(world.quarantined.iter().all(|agent| liars.contains(agent)), "seed {seed}: an honest agent was blamed");
    }
    // Guards the test itself: hubs die, and work beyond the end is done and thrown away.
    assert!(crashes > 200, "{crashes} crashes");
    assert!(beyond > 100, "{beyond} shards beyond an end");
}

#[test]
fn a_prefix_has_the_bits_of_a_job_of_its_units() {
    for stop in rules() {
        let plan = planned_to_stop("one.v1", ITEMS, &stop, json!({"verify": "none"}));
        let (_, _, fragments) = expected(&plan, &stop);
        let run = replay::run(&plan, JobId::from_bits(1), |task, done| Ok(kernel::shard(task, done))).unwrap();
        assert_eq!(run.stage_fragments, fragments, "{stop}");
        let end = run.convergence.unwrap();
        assert_eq!(run.units[0].len() as u64, end.stopped_at.unit);
        let whole = planned("one.v1", end.stopped_at.items, json!({}));
        let whole = replay::run(&whole, JobId::from_bits(2), |task, done| Ok(kernel::shard(task, done))).unwrap();
        assert_eq!(whole.stage_fragments, run.stage_fragments, "{stop}");
        assert_eq!(whole.convergence, None);
        assert_eq!(whole.output, run.output);
    }
}

/// A stage reads what the one that ended early gave, in a replay as in a pool.
#[test]
fn a_replay_ends_where_the_pool_did() {
    for (number, stop) in (1u64..).zip(rules()) {
        let mut world = World::new(number, Settings::default());
        world.machine(Manner::Honest, 4, 50, 1_000);
        let job = world.submit(1, planned_to_stop("two.v1", ITEMS, &stop, json!({"verify": "none", "shards": 90})));
        world.run();
        let found = replay::run(&world.jobs[&job], job, |task, done| Ok(kernel::shard(task, done))).unwrap();
        let first = completed(&world, job);
        assert_eq!((&found.output, found.convergence.as_ref()), (&first.output, first.convergence.as_deref()));
        assert_eq!(found.result_digest, first.result_digest);
    }
}

fn traps_in(task: &Task, inputs: &[StageFragment], unit: u64) -> Outcome {
    let bad = task.stage == "simulate" && task.first_unit <= unit && unit < task.first_unit + task.unit_count;
    if bad { Outcome::Failed(kernel::failure(FailureCode::AgentTrap, Some(unit))) } else { honest(task, inputs) }
}

/// A trap beyond the end is no part of the job, whether it is met or not; one before it fails the job.
#[test]
fn a_trap_beyond_the_end_does_not_show() {
    // The rule ends at 16 units; 17 lies in what is given out ahead.
    let stop = json!({"half_width": 0.9});
    let mut met = 0;
    for seed in 0..100 {
        let mut world = World::new(seed, Settings::default());
        world.compute = |task, inputs| traps_in(task, inputs, 17);
        for _ in 0..world.dice.from(1, 6) {
            let ms = world.dice.from(1, 300);
            world.machine(Manner::Honest, 2, ms, 1_000);
        }
        let job = world.submit(1, planned_to_stop("two.v1", ITEMS, &stop, json!({"verify": "none", "shards": 667})));
        world.run();
        let end = assert_ended(&world, job, &stop);
        assert_eq!((end.stopped_at.unit, end.reason), (16, Reason::HalfWidth));
        assert!(world.quarantined.is_empty());
        met += u64::from(world.traps > 0);
        let mut world = World::new(seed, Settings::default());
        world.compute = |task, inputs| traps_in(task, inputs, 17);
        world.machine(Manner::Honest, 2, 50, 1_000);
        world.machine(Manner::Honest, 3, 90, 1_000);
        let further = json!({"half_width": 0.0001});
        let job = world.submit(1, planned_to_stop("two.v1", ITEMS, &further, json!({"verify": "none", "shards": 667})));
        world.run();
        let failure = world.failure_of(job);
        assert_eq!((failure.code, failure.unit), (FailureCode::AgentTrap, Some(17)));
    }
    assert!(met > 20, "{met} of 100 worlds met the trap");
}

/// Never further ahead than one checkpoint, and no shard twice.
#[test]
fn no_more_is_given_out_than_the_checkpoint_after_the_next() {
    let mut dice = Dice::new(5);
    for _ in 0..30 {
        let mut world = World::new(dice.from(0, 1 << 20), Settings { hedge: false, ..Settings::default() });
        for _ in 0..20 {
            world.machine(Manner::Honest, 8, dice.from(1, 100), 1_000);
        }
        let stop = json!({"half_width": 0.9});
        world.submit(1, planned_to_stop("one.v1", ITEMS, &stop, json!({"verify": "none", "shards": 667})));
        world.run();
        assert!(world.dispatched <= 20, "{} shards of one unit for an end at 16 units", world.dispatched);
    }
}
