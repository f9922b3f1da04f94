//! Properties of the books, over random lives of many jobs.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::collections::{BTreeMap, BTreeSet};

use forge_contract::Digest;
use proptest::prelude::*;

use super::*;
use crate::ledger::{MICRO_MAX, Rates, Tariff};
use crate::settle::Backed;

/// Balances, as the store keeps them.
#[derive(Debug, Default)]
struct Ledger {
    balances: BTreeMap<Account, i128>,
    stamps: u64,
}

impl Ledger {
    fn stamp(&mut self) -> Stamp {
        self.stamps += 1;
        Stamp { at_ms: self.stamps, salt: u128::from(self.stamps) }
    }

    fn balance(&self, account: &Account) -> i128 {
        self.balances.get(account).copied().unwrap_or(0)
    }

    fn post(&mut self, transaction: Transaction) {
        transaction.check().expect("built so");
        let read: Transaction = serde_json::from_str(&transaction.canonical()).expect("readable");
        assert_eq!(read, transaction);
        for Posting { account, micro } in transaction.postings {
            let balance = self.balances.entry(account.clone()).or_default();
            *balance += i128::from(micro);
            assert!(*balance >= 0 || !account.is_floored(), "{account} fell to {balance} by a {:?}", transaction.kind);
        }
        assert_eq!(self.balances.values().sum::<i128>(), 0, "after a {:?}", transaction.kind);
    }
}

/// What happens to a job.
#[derive(Clone, Debug)]
enum End {
    /// It gives a result, or is cancelled: what was accepted is charged.
    Worked,
    /// It fails by the platform's doing.
    Failed,
    /// It is still running when everything is looked at.
    Runs,
}

#[derive(Clone, Debug)]
struct Life {
    held: u64,
    /// Set aside later.
    raised: Vec<u64>,
    end: End,
    /// (agent, those that agreed, fuel) of each accepted shard.
    shards: Vec<(u8, Vec<u8>, u64)>,
    /// Fuel of the run that corrected it.
    corrected: Option<u64>,
    /// What becomes of each agent's pay.
    fates: Vec<u8>,
}

fn agent(number: u8) -> AgentId {
    AgentId(Digest::of(&[number]))
}

fn fuel() -> impl Strategy<Value = u64> {
    prop_oneof![0..10u64, 0..10_000_000_000u64, Just(u64::MAX)]
}

fn life() -> impl Strategy<Value = Life> {
    let shard = (0..5u8, prop::collection::btree_set(5..9u8, 0..3), fuel());
    let shard = shard.prop_map(|(agent, agreed, fuel)| (agent, agreed.into_iter().collect(), fuel));
    let end = prop_oneof![4 => Just(End::Worked), 1 => Just(End::Failed), 1 => Just(End::Runs)];
    let held = prop_oneof![Just(0), 0..5_000_000u64, Just(MICRO_MAX)];
    let raised = prop::collection::vec(0..3_000_000u64, 0..3);
    let shards = prop::collection::vec(shard, 0..6);
    (held, raised, end, shards, prop::option::of(fuel()), prop::collection::vec(0..4u8, 2))
        .prop_map(|(held, raised, end, shards, corrected, fates)| Life { held, raised, end, shards, corrected, fates })
}

fn tariff() -> impl Strategy<Value = Tariff> {
    let rates = (0..3_000_000u64, 0..4_000_000_000u64).prop_map(|(price_micro, per_fuel)| Rates {
        price_micro,
        per_fuel,
        ..Rates::default()
    });
    (rates, 0..=1_000_000u32, 0..=1_000_000u32).prop_map(|(rates, provider_ppm, verification_ppm)| Tariff {
        rates,
        provider_ppm,
        verification_ppm,
        ..Tariff::default()
    })
}

/// Takes a job through the books; gives what its client was charged in the end.
fn live(ledger: &mut Ledger, tariff: &Tariff, number: u64, life: &Life) -> i128 {
    let (job, project) = (JobId::new(number, 1), format!("p{}", number % 3));
    let account = Account::Project(project.clone());
    let before = ledger.balance(&account);
    let stamp = ledger.stamp();
    ledger.post(Transaction::hold(stamp, &project, job, life.held).unwrap());
    for raised in &life.raised {
        let stamp = ledger.stamp();
        ledger.post(Transaction::raise(stamp, &project, job, *raised).unwrap());
    }
    if matches!(life.end, End::Runs) {
        return 0;
    }
    let held = life.held + life.raised.iter().sum::<u64>();
    let agreed: Vec<Vec<AgentId>> =
        life.shards.iter().map(|(_, agreed, _)| agreed.iter().copied().map(agent).collect()).collect();
    let shards: Vec<Backed<'_>> = life
        .shards
        .iter()
        .zip(&agreed)
        .map(|((number, _, fuel), agreed)| Backed {
            agent: agent(*number),
            agreed,
            fuel: *fuel,
            looks: &[],
            refuted: &[],
        })
        .collect();
    let worked = matches!(life.end, End::Worked);
    let (work, checks) = if worked { price::burned(shards.iter().copied()) } else { (0, 0) };
    let charge = Charge::of(tariff, Some(held), work, checks);
    let pay = if worked { price::pay(tariff, shards.iter().copied()) } else { Vec::new() };
    assert!(charge.charged_micro <= held);
    let bearer = Bearer::Client { project: &project, held_micro: Some(held) };
    let stamp = ledger.stamp();
    ledger.post(Transaction::settle(stamp, job, bearer, &charge, &pay).unwrap());
    assert_eq!(ledger.balance(&Account::Hold(job)), 0, "an ended job holds nothing");
    let mut charged = charge.charged_micro;
    if let (true, Some(fuel)) = (worked, life.corrected) {
        let (run, again) = (JobId::new(number, 2), [Pay { agent: agent(0), work_micro: 7, checks_micro: 0 }]);
        let stamp = ledger.stamp();
        ledger.post(
            Transaction::settle(stamp, run, Bearer::Platform { project: &project }, &Charge::default(), &again)
                .unwrap(),
        );
        let fair = Charge::of(tariff, Some(charged), fuel, 0).charged_micro;
        let stamp = ledger.stamp();
        ledger.post(Transaction::correction(stamp, &project, job, run, charged - fair).unwrap());
        charged = fair;
        let stamp = ledger.stamp();
        ledger.post(Transaction::payable(stamp, agent(0), 7).unwrap());
    }
    for earned in &pay {
        let micro = earned.micro();
        let fate = life.fates.get(usize::from(micro.is_multiple_of(4))).copied().unwrap_or(0);
        let stamp = ledger.stamp();
        match fate {
            0 => {}
            1 => ledger.post(Transaction::forfeit(stamp, earned.agent, micro, "verification.mismatch").unwrap()),
            _ => {
                ledger.post(Transaction::payable(stamp, earned.agent, micro).unwrap());
                if fate == 3 {
                    let stamp = ledger.stamp();
                    ledger.post(Transaction::payout(stamp, earned.agent, micro, "payment").unwrap());
                }
            }
        }
    }
    assert_eq!(before - ledger.balance(&account), i128::from(charged), "charged once, what was said");
    i128::from(charged)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn whatever_happens_the_books_balance(tariff in tariff(), lives in prop::collection::vec(life(), 0..24), grant in 0..MICRO_MAX) {
        let mut ledger = Ledger::default();
        let stamp = ledger.stamp();
        ledger.post(Transaction::opening_project(stamp, "p0", 11).unwrap());
        let stamp = ledger.stamp();
        ledger.post(Transaction::opening_agent(stamp, agent(0), 3, 0, 5).unwrap());
        let stamp = ledger.stamp();
        ledger.post(Transaction::grant(stamp, "p1", grant, "transfer 1").unwrap());
        for (number, life) in (0..).zip(&lives) {
            live(&mut ledger, &tariff, number, life);
        }
        let running: i128 = lives.iter().filter(|life| matches!(life.end, End::Runs)).map(|life| i128::from(life.held + life.raised.iter().sum::<u64>())).sum();
        let held: i128 = ledger.balances.iter().filter(|(account, _)| matches!(account, Account::Hold(_))).map(|(_, micro)| micro).sum();
        prop_assert_eq!(held, running, "holds are those of running jobs");
        prop_assert!(ledger.balance(&Account::Revenue) >= 0 || lives.iter().any(|life| life.shards.iter().any(|shard| shard.2 == u64::MAX)));
    }
}

#[test]
fn what_does_not_balance_is_no_transaction() {
    let stamp = Stamp { at_ms: 1, salt: 2 };
    let good = Transaction::grant(stamp, "a", 5, "r").unwrap();
    let accounts: BTreeSet<String> = good.postings.iter().map(|posting| posting.account.to_string()).collect();
    assert_eq!(accounts, ["issued".to_owned(), "project:a".to_owned()].into());
    let mut off = good.clone();
    off.postings[0].micro += 1;
    assert_eq!(off.check(), Err(BooksError::Unbalanced { sum: 1 }));
    let mut swapped = good.clone();
    swapped.postings.swap(0, 1);
    assert_eq!(swapped.check(), Err(BooksError::Form));
    let mut idle = good.clone();
    idle.postings.push(Posting { account: Account::Opening, micro: 0 });
    assert_eq!(idle.check(), Err(BooksError::Form));
    let huge = Transaction::grant(stamp, "a", u64::MAX, "r");
    assert!(matches!(huge, Err(BooksError::TooLarge { .. })));
    assert_eq!(Transaction::grant(stamp, "a", 0, "r").unwrap().postings, []);
    assert_ne!(good.digest(), Transaction::grant(Stamp { salt: 3, ..stamp }, "a", 5, "r").unwrap().digest());
    assert!(serde_json::from_str::<Transaction>(&good.canonical().replace("\"5\"", "\"05\"")).is_err());
}
