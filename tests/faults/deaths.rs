//! Agents that are killed and agents that freeze, at any time.

use forge_tests::api::is_final;
use forge_tests::dice::Dice;
use forge_tests::pool::Pool;
use forge_tests::saboteur::Saboteurs;
use forge_tests::until;

use crate::jobs::{
    SABOTEUR, Worth, attempts, contract, ended, idle_contract, nothing_counts_twice, reached, times, undisturbed, worth,
};
use crate::network::connected;

const AGENTS: usize = 3;

#[tokio::test(flavor = "multi_thread")]
async fn agents_killed_at_any_moment_and_started_again() {
    let (kills, gap) = (8 * times(), 8);
    let shards = kills * gap + 16;
    let contract = contract(shards);
    let expected = undisturbed(&contract).await;
    let mut dice = Dice::new(0xdead);
    let mut pool = Pool::start(AGENTS).await;
    let job = pool.api.submit(&contract).await;
    let mut done = 0;
    for _ in 0..kills {
        done += dice.below(2 * gap);
        reached(&pool, &job, done).await;
        let victim = usize::try_from(dice.below(AGENTS as u64)).unwrap();
        pool.kill_agent(victim).await;
        pool.restart_agent(victim);
    }
    assert_eq!(worth(&ended(&pool, &job).await), expected);
    let attempts = attempts(&pool, &job).await;
    nothing_counts_twice(&attempts, shards, false);
    let lost = attempts.iter().filter(|attempt| attempt["code"] == "agent.lost").count();
    println!("{kills} kills, {lost} shards lost with their agent, {} attempts of {shards} shards", attempts.len());
    assert!(lost >= 1, "no kill met a shard under way");
    // The keys stayed: whoever came back is who it was.
    connected(&pool, AGENTS as u64).await;
    let listed = pool.api.get("/api/v0/agents").await;
    assert_eq!(listed.body["items"].as_array().unwrap().len(), AGENTS, "{}", listed.text);
    pool.stop().await;
}

/// A frozen agent knows nothing of the time that passed: it goes on and answers a lease that is long over.
#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_agents_late_report_is_discarded() {
    // Plenty for the other agent: the lease runs out long before, and before the silence counts as the session's end.
    let contract = idle_contract(1500);
    let expected = undisturbed(&contract).await;
    for round in 0..2 * times() {
        let pool = Pool::start_with(2, &["--lease-ms", "700"]).await;
        let lost = frozen_until_a_lease_is_lost(&pool, &contract, 2 + round % 5, &expected).await;
        println!("round {round}: {lost}");
        pool.stop().await;
    }
}

/// Freezes an agent in the middle of a job, again in another job where the freeze met no lease of its own: on a quick
/// machine the job may be over before it. Says how the leases ended.
async fn frozen_until_a_lease_is_lost(
    pool: &Pool,
    contract: &serde_json::Value,
    from: u64,
    expected: &Worth,
) -> String {
    const TRIES: usize = 50;
    for _ in 0..TRIES {
        let job = pool.api.submit(contract).await;
        reached(pool, &job, from).await;
        pool.freeze_agent(0);
        // Its workers freeze with it: they finish nothing either.
        let workers = forge_tests::process::descendants(pool.agent(0).id());
        signal(&workers, rustix::process::Signal::STOP);
        let state = ended(pool, &job).await;
        assert_eq!(&worth(&state), expected);
        signal(&workers, rustix::process::Signal::CONT);
        pool.thaw_agent(0);
        // It serves again; by then it has said whatever it had to say.
        let again = pool.api.execute(contract).await;
        assert_eq!(&worth(&again.body), expected);
        let stored = pool.api.get(&format!("/api/v0/jobs/{job}")).await;
        assert_eq!(stored.body["hub"], state["hub"], "a late report changed a job that was over");
        let attempts = attempts(pool, &job).await;
        nothing_counts_twice(&attempts, expected.shards(), false);
        // Its lease ran out, or a copy elsewhere was quicker and it was taken back.
        let ends =
            |end: &str| attempts.iter().filter(|attempt| attempt["code"] == end || attempt["status"] == end).count();
        let (overdue, revoked) = (ends("agent.deadline"), ends("REVOKED"));
        if overdue + revoked > 0 {
            return format!("{overdue} leases ran out, {revoked} taken back, {} reports came late", ends("LATE"));
        }
    }
    panic!("none of {TRIES} freezes met a shard under way");
}

/// Several agents freeze at once in the middle of a job, lose their leases, and go on.
#[tokio::test(flavor = "multi_thread")]
async fn frozen_agents_lose_their_leases_and_work_on_when_they_come_back() {
    let shards = 240 * times();
    // Leases run out while the silence does not yet count as the sessions' end.
    let contract = idle_contract(shards);
    let pool = Pool::start_with(0, &["--lease-ms", "1000"]).await;
    // A shard takes 50 ms whatever the machine: two agents alone need far longer for the rest than a lease lasts.
    let at_work = |seed| ["--least-ms", "50", "--seed", seed];
    let steady = Saboteurs::start(SABOTEUR, &pool, &["honest,count=2"], &at_work("1")).await;
    let frozen = Saboteurs::start(SABOTEUR, &pool, &["honest,count=4"], &at_work("2")).await;
    // Undisturbed, and everybody's pace is known: leases are as short as they get.
    let expected = worth(&pool.api.execute(&contract).await.body);
    let is_theirs =
        |attempt: &serde_json::Value| frozen.agents.iter().any(|agent| attempt["agent_id"] == agent.as_str());
    // The list of agents is short; that of attempts would keep the hub busy.
    let failed = || async {
        let listed = pool.api.get("/api/v0/agents").await;
        let items = listed.body["items"].as_array().unwrap();
        items.iter().filter(|agent| is_theirs(agent)).filter_map(|agent| agent["failed"].as_u64()).sum::<u64>()
    };
    let job = pool.api.submit(&contract).await;
    reached(&pool, &job, 8).await;
    // What failed before the freeze does not count.
    let before = failed().await;
    frozen.process.signal(rustix::process::Signal::STOP);
    until("end of a frozen agent's lease", || async {
        let state = pool.api.get(&format!("/api/v0/jobs/{job}")).await;
        (failed().await > before || is_final(&state.body)).then_some(())
    })
    .await;
    frozen.process.signal(rustix::process::Signal::CONT);
    assert_eq!(worth(&ended(&pool, &job).await), expected);
    let attempts = attempts(&pool, &job).await;
    nothing_counts_twice(&attempts, shards, false);
    // Run out, or taken back because a copy elsewhere was quicker.
    let is_lost = |attempt: &&serde_json::Value| attempt["code"] == "agent.deadline" || attempt["status"] == "REVOKED";
    let lost = attempts.iter().filter(|attempt| is_theirs(attempt)).filter(is_lost).count();
    assert!(lost > 0, "the freeze met no shard under way");
    // Thawed, they are as good as before.
    let again = pool.api.execute(&contract).await;
    assert_eq!(worth(&again.body), expected);
    let attempts = self::attempts(&pool, &again.job()).await;
    let reported = attempts.iter().filter(|attempt| is_theirs(attempt) && attempt["status"] == "REPORTED").count();
    println!("{lost} shards lost in the freeze, {reported} done after it");
    assert!(reported > 0, "they never worked again");
    pool.stop().await;
    steady.stop().await;
    frozen.stop().await;
}

fn signal(processes: &[u32], signal: rustix::process::Signal) {
    for process in processes {
        let pid = i32::try_from(*process).ok().and_then(rustix::process::Pid::from_raw).unwrap();
        // One that ended meanwhile needs no signal.
        let _ = rustix::process::kill_process(pid, signal);
    }
}
