//! Private pools: a project's work stays where it may run, whatever it is for and whatever goes wrong.

use std::collections::BTreeSet;

use forge_contract::envelope::Requires;
use forge_lifecycle::event::{Event, ProjectTag};
use forge_lifecycle::plan::Plan;
use forge_lifecycle::pool::Settings;
use serde_json::json;

use crate::kernel::planned;
use crate::world::{Manner, World, agent_id};

/// A plan under what a project adds to it.
fn bound(verify: &str, requires: Requires) -> Plan {
    let mut plan = planned("two.v1", 60, json!({ "verify": verify, "shards": 10 }));
    plan.terms.requires = requires;
    plan
}

fn at_home(world: &World, job: u128) -> BTreeSet<usize> {
    world.placed.iter().filter(|(of, _)| of.bits() == job).map(|(_, machine)| *machine).collect()
}

/// The owner's own choice holds like the operator's: no answer, copy, look or check for anybody else.
#[test]
fn agents_work_for_the_projects_they_name() {
    for seed in 0..20 {
        for mode in ["none", "spotcheck", "quorum", "full"] {
            let mut world = World::new(seed, Settings::default());
            // Quicker than the others, and one of them settles disputes: there is every reason to ask them.
            let choosy: BTreeSet<usize> = (0..3).map(|_| world.machine(Manner::Honest, 4, 5, 1_000)).collect();
            for machine in &choosy {
                world.machines[*machine].projects = vec!["another".into()];
            }
            world.machines[0].verifier = true;
            for manner in [Manner::Honest, Manner::Honest, Manner::Honest, Manner::Lies] {
                let machine = world.machine(manner, 1, 400, 1_000);
                world.machines[machine].projects = vec!["p".into()];
            }
            let job = world.submit(1, planned("two.v1", 60, json!({ "verify": mode, "shards": 10 })));
            world.run();
            let places = at_home(&world, 1);
            assert!(places.is_disjoint(&choosy), "seed {seed} {mode}: it ran on {places:?}");
            assert!(!places.is_empty(), "{:?}", world.finished[&job]);
        }
    }
}

#[test]
fn copies_checks_hedges_and_verifiers_stay_within_the_binding() {
    let own = ProjectTag::of("p");
    let exclusive = Requires { reserved: true, ..Requires::default() };
    let region = Requires { labels: vec!["region=eu".into()], ..Requires::default() };
    for seed in 0..60 {
        for (requires, mode) in [&exclusive, &region]
            .into_iter()
            .flat_map(|requires| ["none", "spotcheck", "quorum", "full"].map(|mode| (requires, mode)))
        {
            let mut world = World::new(seed, Settings::default());
            // At home: three that work, one of them the operator's, one that hangs, one that lies.
            let manners = [Manner::Honest, Manner::Honest, Manner::Honest, Manner::Hangs, Manner::Lies];
            let home: BTreeSet<usize> = manners.iter().map(|manner| world.machine(*manner, 1, 400, 1_000)).collect();
            for machine in &home {
                world.machines[*machine].labels = vec!["region=eu".into()];
                world.machines[*machine].reserved = Some(own);
            }
            world.machines[2].verifier = true;
            // Away: quicker ones, more of them, and a verifier that could settle everything.
            for number in 0..4 {
                let away = world.machine(Manner::Honest, 4, 5, 1_000);
                world.machines[away].labels = vec!["region=us".into()];
                world.machines[away].verifier = number == 0;
            }
            if seed % 3 == 0 {
                world.crashes_at(2_500);
            }
            let job = world.submit(1, bound(mode, requires.clone()));
            world.run();
            let places = at_home(&world, 1);
            assert!(places.is_subset(&home), "seed {seed} {mode} {requires}: it ran on {places:?}");
            assert!(!places.is_empty(), "{:?}", world.finished[&job]);
        }
    }
}

#[test]
fn who_is_reserved_takes_no_other_projects_work() {
    let own = ProjectTag::of("p");
    for seed in 0..40 {
        let mut world = World::new(seed, Settings::default());
        let reserved = world.machine(Manner::Honest, 8, 1, 1_000);
        let common = world.machine(Manner::Honest, 1, 300, 1_000);
        world.machines[reserved].reserved = Some(own);
        let plan = || planned("one.v1", 90, json!({ "verify": "none", "shards": 15 }));
        world.submit_for("p", 1, plan());
        world.submit_for("other", 2, plan());
        world.run();
        assert_eq!(at_home(&world, 2), BTreeSet::from([common]), "seed {seed}");
        assert!(at_home(&world, 1).contains(&reserved), "its own project still has it, and others beside it");
        // The word of the operator moves it at once, in either direction.
        world.tell(Event::AgentReserved { agent: agent_id(reserved), project: Some(ProjectTag::of("other")) });
        world.submit_for("p", 3, plan());
        world.run();
        assert_eq!(at_home(&world, 3), BTreeSet::from([common]), "seed {seed}");
        world.tell(Event::AgentReserved { agent: agent_id(reserved), project: None });
        world.submit_for("p", 4, plan());
        world.run();
        assert!(at_home(&world, 4).contains(&reserved), "seed {seed}");
    }
}

#[test]
fn a_job_that_burns_more_than_its_project_may_fails() {
    let mut world = World::new(1, Settings::default());
    world.machine(Manner::Honest, 2, 10, 1_000);
    let mut plan = planned("one.v1", 90, json!({ "verify": "none", "shards": 15 }));
    let job = world.submit(1, plan.clone());
    world.run();
    let burned = world.finished[&job].summary().work.fuel;
    plan.terms.fuel_max = Some(burned);
    let within = world.submit(2, plan.clone());
    world.run();
    assert_eq!(world.finished[&within].summary().work.fuel, burned, "exactly that much is allowed");
    plan.terms.fuel_max = Some(burned - 1);
    let beyond = world.submit(3, plan);
    world.run();
    let failure = world.failure_of(beyond);
    assert_eq!(failure.code, forge_contract::FailureCode::RequestQuota);
    assert!(failure.detail.contains("fuel_per_job"), "{failure}");
}
