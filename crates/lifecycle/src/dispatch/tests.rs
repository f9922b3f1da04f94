#![allow(clippy::unwrap_used)]
use super::*;

const NEED: Need = Need { target: Target::Any, memory_bytes: 100, engine: None, requires: None, project: None };

fn capability(cores: u32, memory_bytes: u64) -> Capability {
    Capability {
        cores,
        leases: cores + 2,
        memory_bytes,
        arch: "x".into(),
        os: "x".into(),
        cpu: true,
        gpu: false,
        labels: vec![],
        projects: vec![],
        engine: Digest::of(b"e"),
        cage: "x".into(),
    }
}

fn id(number: u64) -> AgentId {
    AgentId(Digest::of(&number.to_le_bytes()))
}

fn pool(sizes: &[(u32, u64)]) -> Agents {
    let mut agents = Agents::default();
    for (number, (cores, memory)) in (0..).zip(sizes) {
        agents.join(id(number), SessionId(number), capability(*cores, *memory), Membership::default());
    }
    agents
}

fn order(agents: &Agents) -> Vec<u64> {
    agents.free().map(|(_, session)| session.0).collect()
}

#[test]
fn load_decides_then_failures_then_speed() {
    let mut agents = pool(&[(4, 1000), (4, 1000), (4, 1000)]);
    agents.hold(SessionId(0));
    assert_eq!(order(&agents), [1, 2, 0]);
    agents.release(SessionId(0));
    agents.mark(0, id(0), Mark::Answered { us_per_megafuel: 900 });
    agents.mark(0, id(1), Mark::Answered { us_per_megafuel: 300 });
    agents.mark(0, id(2), Mark::Answered { us_per_megafuel: 100 });
    assert_eq!(order(&agents), [2, 1, 0]);
    agents.mark(0, id(2), Mark::Failed);
    agents.tick(REST_MS);
    assert_eq!(order(&agents), [1, 0, 2], "a failure weighs more than speed");
}

#[test]
fn who_fails_rests_longer_each_time() {
    let mut agents = pool(&[(1, 1000)]);
    let mut now = 0;
    for expected in [250, 500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000] {
        agents.mark(now, id(0), Mark::Failed);
        assert_eq!((order(&agents), agents.deadline()), (vec![], Some(now + expected)));
        now += expected;
        agents.tick(now - 1);
        assert!(agents.none_free());
        agents.tick(now);
        assert_eq!(order(&agents), [0]);
    }
    agents.mark(now, id(0), Mark::Answered { us_per_megafuel: 1 });
    agents.mark(now, id(0), Mark::Failed);
    assert_eq!(agents.deadline(), Some(now + 250), "an answer ends the series");
}

#[test]
fn three_breaches_or_one_refutation_take_an_agent_out() {
    let mut agents = pool(&[(1, 1000), (1, 1000)]);
    assert!(!agents.mark(0, id(0), Mark::Strike) && !agents.mark(0, id(0), Mark::Strike));
    assert!(agents.mark(0, id(0), Mark::Strike));
    assert!(agents.mark(0, id(1), Mark::Refuted));
    assert!(agents.quarantine(id(1)) && !agents.quarantine(id(1)));
    agents.tick(1_000_000);
    assert_eq!((order(&agents), agents.cores()), (vec![0], 1));
    // Neither a new session nor a clean answer brings it back.
    agents.leave(SessionId(1));
    agents.join(id(1), SessionId(9), capability(1, 1000), Membership::default());
    agents.mark(1_000_001, id(1), Mark::Answered { us_per_megafuel: 1 });
    assert_eq!(order(&agents), [0]);
}

#[test]
fn who_is_readmitted_starts_as_a_stranger_with_one_shard_at_a_time() {
    let mut agents = pool(&[(4, 1000)]).with_readmitted(BTreeSet::new(), 2);
    let room = |agents: &Agents| agents.has_room(agents.agent(SessionId(0)).unwrap(), &NEED, true);
    for _ in 0..5 {
        agents.mark(0, id(0), Mark::Clean);
    }
    agents.mark(0, id(0), Mark::Strike);
    agents.mark(0, id(0), Mark::Strike);
    assert!(agents.mark(0, id(0), Mark::Refuted) && agents.quarantine(id(0)));
    agents.tick(1_000_000);
    assert!(agents.none_free());
    agents.readmit(id(0));
    assert_eq!((order(&agents), agents.trust(id(0)).clean, agents.is_quarantined(id(0))), (vec![0], 0, false));
    assert!(!agents.mark(0, id(0), Mark::Strike), "strikes begin anew");
    assert!(room(&agents));
    agents.hold(SessionId(0));
    assert!(!room(&agents));
    agents.mark(0, id(0), Mark::Clean);
    assert!(!room(&agents));
    agents.mark(0, id(0), Mark::Clean);
    assert!(room(&agents), "the probation is over");
    // Who was never out is not touched.
    agents.readmit(id(0));
    assert_eq!(agents.trust(id(0)).clean, 2);
}

#[test]
fn memory_and_cores_bound_what_runs_at_once() {
    let mut agents = pool(&[(4, 250)]);
    let room = |agents: &Agents, plenty| agents.has_room(agents.agent(SessionId(0)).unwrap(), &NEED, plenty);
    // Two fit into memory, two more may wait where work is plenty.
    for (held, now, ahead) in [(0, true, true), (1, true, true), (2, false, true), (3, false, true), (4, false, false)]
    {
        assert_eq!((room(&agents, false), room(&agents, true)), (now, ahead), "{held} held");
        agents.hold(SessionId(0));
    }
    let need = Need { memory_bytes: 251, ..NEED };
    assert!(!agents.suits(agents.agent(SessionId(0)).unwrap(), &need));
    let gpu = Need { target: Target::Gpu, ..NEED };
    assert_eq!((agents.suitable(&gpu), agents.suitable(&NEED)), (0, 1));
}

#[test]
fn labels_architecture_and_region_decide_who_suits() {
    let mut agents = pool(&[(1, 1000)]);
    let labels = vec!["region=eu".to_owned(), "tier=a".to_owned()];
    let labelled = Capability { labels, arch: "aarch64".into(), ..capability(1, 1000) };
    agents.join(id(1), SessionId(1), labelled, Membership::default());
    let suit = |labels: &[&str], arch: Option<&str>| {
        let labels = labels.iter().map(|label| (*label).to_owned()).collect();
        let requires = Requires { labels, arch: arch.map(str::to_owned), reserved: false };
        agents.suitable(&Need { requires: Some(Arc::new(requires)), ..NEED })
    };
    assert_eq!((suit(&[], None), suit(&["region=eu"], None), suit(&["region=us"], None)), (2, 1, 0));
    assert_eq!((suit(&[], Some("aarch64")), suit(&["tier=a"], Some("x"))), (1, 0));
}

#[test]
fn an_agent_works_for_the_projects_its_owner_names_and_for_nobody_else() {
    let mut agents = pool(&[(1, 1000)]);
    let choosy = Capability { projects: vec!["one".into(), "two".into()], ..capability(1, 1000) };
    agents.join(id(1), SessionId(1), choosy, Membership::default());
    let suit = |project: Option<&str>| agents.suitable(&Need { project: project.map(ProjectTag::of), ..NEED });
    assert_eq!([Some("one"), Some("two"), Some("three"), None].map(suit), [2, 2, 1, 1]);
}

#[test]
fn who_is_reserved_works_for_one_project_and_an_exclusive_one_takes_nobody_else() {
    let mut agents = pool(&[(1, 1000), (1, 1000)]);
    let (own, other) = (ProjectTag::of("own"), ProjectTag::of("other"));
    let suit = |agents: &Agents, project, reserved| {
        let requires = Some(Arc::new(Requires { reserved, ..Requires::default() }));
        agents.suitable(&Need { requires, project, ..NEED })
    };
    assert_eq!((suit(&agents, Some(own), false), suit(&agents, Some(own), true)), (2, 0));
    agents.reserve(id(0), Some(own));
    assert_eq!((suit(&agents, Some(own), false), suit(&agents, Some(own), true)), (2, 1));
    assert_eq!((suit(&agents, Some(other), false), suit(&agents, Some(other), true)), (1, 0));
    assert_eq!(
        (suit(&agents, None, false), suit(&agents, None, true)),
        (1, 0),
        "what is nobody's work is not this project's"
    );
    // A reservation made while the agent is away counts when it comes.
    let membership = Membership { reserved: Some(other), ..Membership::default() };
    agents.join(id(7), SessionId(7), capability(1, 1000), membership);
    assert_eq!((suit(&agents, Some(own), false), suit(&agents, Some(other), true)), (2, 1));
    agents.reserve(id(7), None);
    assert_eq!((suit(&agents, Some(own), false), suit(&agents, Some(other), true)), (3, 0));
}

#[test]
fn who_is_much_slower_gets_no_last_shard_and_nothing_ahead() {
    let mut agents = pool(&[(1, 1000), (1, 1000)]);
    for _ in 0..200 {
        agents.mark(0, id(0), Mark::Answered { us_per_megafuel: 100 });
    }
    agents.mark(0, id(1), Mark::Answered { us_per_megafuel: 2_000 });
    let slow = agents.agent(SessionId(1)).unwrap();
    let quick = agents.agent(SessionId(0)).unwrap();
    assert!(agents.drags(slow, 10, &NEED) && !agents.drags(quick, 10, &NEED));
    assert!(!agents.drags(slow, 1_000, &NEED), "there is enough left for it to be of use");
    agents.hold(SessionId(0));
    agents.hold(SessionId(1));
    let room = |session| agents.has_room(agents.agent(SessionId(session)).unwrap(), &NEED, true);
    assert_eq!((room(0), room(1)), (true, false));
    agents.leave(SessionId(0));
    assert!(!agents.drags(agents.agent(SessionId(1)).unwrap(), 1, &NEED), "nobody else is there");
}

#[test]
fn of_two_alike_the_nearer_one_is_first() {
    let mut agents = pool(&[(1, 1000), (1, 1000)]);
    agents.hear(SessionId(0), 80_000);
    agents.hear(SessionId(1), 2_000);
    assert_eq!(order(&agents), [1, 0]);
}

#[test]
fn the_engine_with_the_most_cores_is_chosen() {
    let mut agents = pool(&[(2, 1000), (2, 1000)]);
    let other = Capability { engine: Digest::of(b"other"), ..capability(3, 1000) };
    agents.join(id(7), SessionId(7), other, Membership::default());
    assert_eq!(agents.engine(&NEED), Some(Digest::of(b"e")));
    agents.drain(SessionId(1));
    assert_eq!(agents.engine(&NEED), Some(Digest::of(b"other")));
}
