//! Agents that lie, garble or break: copies find them, and nobody honest is blamed.

use forge_contract::FailureCode;
use forge_lifecycle::action::JobOutcome;
use forge_lifecycle::pool::Settings;
use serde_json::json;

use crate::kernel::{planned, reference};
use crate::world::{Manner, World, agent_id};

fn settings() -> Settings {
    Settings { hub_secret: [3; 32], attempts_max: 50, ..Settings::default() }
}

#[test]
fn quorum_gives_the_true_answer_among_liars() {
    let expected = reference(&planned("two.v1", 150, json!({})));
    let (mut refuted, mut unsettled) = (0, 0);
    for seed in 0..600 {
        let mut world = World::new(seed, settings());
        world.loss = world.dice.pick(&[0, 10]);
        for _ in 0..world.dice.from(4, 7) {
            let (cores, ms) = (world.dice.from(1, 3) as u32, world.dice.from(5, 200));
            world.machine(Manner::Honest, cores, ms, 1_000);
        }
        let mut bad = Vec::new();
        for _ in 0..world.dice.from(1, 3) {
            let manner = world.dice.pick(&[Manner::Lies, Manner::Lies, Manner::Garbles, Manner::Breaks, Manner::Hangs]);
            let ms = world.dice.from(1, 200);
            bad.push(agent_id(world.machine(manner, 2, ms, 1_000)));
        }
        let verify = world.dice.pick(&["quorum", "full"]);
        let job = world.submit(1, planned("two.v1", 150, json!({"verify": verify, "shards": 30})));
        world.run();
        assert!(world.quarantined.iter().all(|agent| bad.contains(agent)), "seed {seed}: an honest agent was refuted");
        // Three liars on one shard can spend its five copies before anyone finds them elsewhere; a wrong answer never wins.
        if let JobOutcome::Failed { failure, .. } = &world.finished[&job] {
            assert_eq!(failure.code, FailureCode::VerificationUnsettled, "{failure}");
            unsettled += 1;
            continue;
        }
        world.assert_completed(job, &expected);
        let JobOutcome::Completed(completed) = &world.finished[&job] else { unreachable!() };
        let report = &completed.summary.verification;
        let shards = world.jobs[&job].shards_total();
        assert_eq!(report.checked, shards, "every shard was compared");
        assert_eq!(report.matched + report.refuted, shards);
        refuted += report.agents_refuted.len();
    }
    assert!(refuted > 300, "{refuted} liars found: the worlds are too kind");
    assert!(unsettled <= 6, "{unsettled} of 600 worlds unsettled");
}

#[test]
fn a_spot_check_catches_who_always_lies() {
    let (mut caught, mut worlds) = (0, 0);
    for seed in 0..200 {
        let mut world = World::new(seed, Settings { hub_secret: [seed as u8; 32], ..settings() });
        for _ in 0..4 {
            world.machine(Manner::Honest, 2, 50, 1_000);
        }
        let liar = agent_id(world.machine(Manner::Lies, 2, 50, 1_000));
        let job = world.submit(1, planned("one.v1", 900, json!({"verify": "spotcheck", "shards": 300})));
        world.run();
        assert!(world.quarantined.iter().all(|agent| *agent == liar));
        caught += u64::from(world.quarantined.contains(&liar));
        let summary = world.finished[&job].summary();
        assert_eq!(summary.verification.unchecked, 0);
        assert!(
            (2..60).contains(&summary.verification.checked),
            "{} checks of 150 to 300 shards",
            summary.verification.checked
        );
        worlds += 1;
    }
    // About 40 of its shards are drawn from at 8%: it escapes 1 world in 28.
    assert!(caught * 100 > worlds * 85, "{caught} of {worlds}");
}

#[test]
fn alone_a_spot_check_is_recorded_as_not_possible() {
    let mut world = World::new(1, settings());
    world.machine(Manner::Honest, 2, 20, 1_000);
    let job = world.submit(1, planned("one.v1", 600, json!({"verify": "spotcheck", "shards": 200})));
    world.run();
    world.assert_completed(job, &reference(&planned("one.v1", 600, json!({}))));
    let summary = world.finished[&job].summary();
    assert!(summary.verification.unchecked > 2);
    assert_eq!(summary.verification.checked, 0);
    assert!(summary.warnings.iter().any(|w| w.contains("spot checks were not possible")), "{:?}", summary.warnings);
}
