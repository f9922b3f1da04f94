//! The books: holds, settlements, refunds, payments from outside, and the chain over all of it.

use forge_contract::{AgentId, Digest, JobId};
use forge_lifecycle::books::budget::{Budget, Period};
use forge_lifecycle::books::chain::{Line, Walk, link};
use forge_lifecycle::books::price::Charge;
use forge_lifecycle::books::{Bearer, Kind, Pay, Stamp, Transaction};
use forge_lifecycle::ledger::Tariff;
use forge_lifecycle::settle::{SettlePolicy, Share};

use super::{FAR, accept, end, job, new_job};
use crate::store::books::{BooksWrite, BooksWritten, Corrected, NewCharge, Settlement, TransactionQuery, UsageQuery};
use crate::store::*;

const DAY_MS: u64 = 86_400_000;
/// Noon of a day in the middle of a month.
const NOON: u64 = 20_000 * DAY_MS + DAY_MS / 2;

pub(super) async fn run(store: &dyn Store) {
    jobs_are_held_charged_once_and_refunded(store).await;
    a_budget_is_a_wall(store).await;
    payments_are_posted_once(store).await;
    what_is_corrected_is_given_back(store).await;
    the_chain_holds(store).await;
}

/// A job of project `b` that holds this much.
fn held(number: u128, hold_micro: u64, budget: Option<Budget>) -> NewJob {
    let kernel = "mc@1".into();
    let charge = NewCharge { kernel, mode: "billable", tariff: Tariff::default(), hold_micro, budget };
    NewJob { accepted_ms: NOON, charge: Some(charge), ..new_job(number, "b", None, "x") }
}

/// An end that charges this much and pays an agent that.
fn ended(number: u128, held_micro: u64, fuel: u64, pay: &[Pay]) -> FinishedJob {
    let charge = Charge::of(&Tariff::default(), Some(held_micro), fuel, 0);
    let (stamp, bearer) =
        (Stamp { at_ms: NOON, salt: number }, Bearer::Client { project: "b", held_micro: Some(held_micro) });
    let transaction = Transaction::settle(stamp, job(number), bearer, &charge, pay).unwrap();
    let stake = |pay: &Pay| NewStake { agent: pay.agent, share: Share::default(), credits_micro: pay.micro() };
    FinishedJob {
        finished_ms: NOON,
        settlement: Some(Settlement { charge, eur_micro: 12, transaction, correction: None }),
        stakes: pay.iter().map(stake).collect(),
        ..end(number, "document")
    }
}

async fn finish(store: &dyn Store, end: FinishedJob) {
    store.submit(Write::Finish(Box::new(end))).await.unwrap();
}

async fn books(store: &dyn Store, write: BooksWrite) -> BooksWritten {
    let Written::Books(given) = store.submit(Write::Books(Box::new(write))).await.unwrap() else { panic!() };
    *given
}

async fn balance(store: &dyn Store, account: &str) -> i64 {
    let all = store.balances(None, 1000).await.unwrap();
    assert_eq!(all.iter().map(|row| i128::from(row.micro)).sum::<i128>(), 0, "the books do not balance");
    all.iter().find(|row| row.account.to_string() == account).map_or(0, |row| row.micro)
}

async fn kinds(store: &dyn Store, job: JobId) -> Vec<Kind> {
    let query = TransactionQuery { job: Some(job), limit: 9, ..TransactionQuery::default() };
    let found = store.transactions(query).await.unwrap();
    found.iter().map(|row| row.transaction().unwrap().kind).collect()
}

async fn enrolled(store: &dyn Store, key: u8) -> AgentId {
    let (hash, project) = (Digest::of(&[key, key, key]), "b".into());
    store
        .submit(Write::EnrolToken { hash, project, expires_ms: FAR, verifier: false, provider: None, reserved: None })
        .await
        .unwrap();
    store.submit(Write::Redeem { hash, public_key: [key; 32] }).await.unwrap();
    AgentId::of_public_key(&[key; 32])
}

async fn jobs_are_held_charged_once_and_refunded(store: &dyn Store) {
    let agent = enrolled(store, 140).await;
    assert_eq!(accept(store, held(200, 1_500_000, None)).await, Written::Done);
    assert_eq!(balance(store, &format!("hold:{}", job(200))).await, 1_500_000);
    assert_eq!(balance(store, "project:b").await, -1_500_000);
    let restored = store.unfinished().await.unwrap();
    let terms = restored.iter().find(|row| row.job == job(200)).unwrap().terms;
    assert_eq!((terms.held_micro, terms.tariff), (Some(1_500_000), Tariff::default()));
    let raise = BooksWrite::Raise { job: job(200), micro: 500_000 };
    assert!(matches!(books(store, raise.clone()).await, BooksWritten::Posted(_)));
    let pay = [Pay { agent, work_micro: 800_000, checks_micro: 0 }];
    finish(store, ended(200, 2_000_000, 3_000_000_000, &pay)).await;
    finish(store, ended(200, 2_000_000, 6_000_000_000, &pay)).await;
    assert_eq!(balance(store, &format!("hold:{}", job(200))).await, 0);
    assert_eq!(balance(store, "project:b").await, -1_000_000, "charged once");
    assert_eq!(balance(store, &format!("held:{agent}")).await, 800_000);
    assert_eq!(balance(store, "platform:revenue").await, 200_000);
    assert_eq!(kinds(store, job(200)).await, [Kind::Hold, Kind::Raise, Kind::Settle]);
    assert_eq!(books(store, raise).await, BooksWritten::Nobody, "a job that is over holds nothing");
    assert_eq!(store.charged(job(200)).await.unwrap(), Some(1_000_000));

    // A job that cost nothing gives everything back.
    assert_eq!(accept(store, held(201, 70, None)).await, Written::Done);
    finish(store, ended(201, 70, 0, &[])).await;
    assert_eq!(
        (balance(store, "project:b").await, kinds(store, job(201)).await),
        (-1_000_000, vec![Kind::Hold, Kind::Refund])
    );
    let asked = UsageQuery { project: Some("b"), from: NOON / DAY_MS, until: NOON / DAY_MS, offset: 0, limit: 9 };
    let used = store.usage(asked).await.unwrap();
    assert_eq!(used.len(), 1);
    assert_eq!((used[0].kernel.as_str(), used[0].mode.as_str(), used[0].jobs), ("mc@1", "billable", 2));
    assert_eq!((used[0].fuel, used[0].charged_micro, used[0].eur_micro), (3_000_000_000, 1_000_000, 24));
    assert_eq!(store.usage(UsageQuery { project: Some("a"), ..asked }).await.unwrap(), []);

    // What is posted wrongly takes the whole end with it, and the end can be written again.
    assert_eq!(accept(store, held(202, 5, None)).await, Written::Done);
    let mut lopsided = ended(202, 5, 0, &[]);
    lopsided.settlement.as_mut().unwrap().transaction.postings[0].micro -= 1;
    assert!(store.submit(Write::Finish(Box::new(lopsided))).await.is_err());
    assert_eq!(store.job("b", job(202)).await.unwrap().unwrap().phase, Phase::Running);
    finish(store, ended(202, 5, 0, &[])).await;
    assert_eq!(balance(store, "project:b").await, -1_000_000);
    // Nothing can be emptied twice.
    assert_eq!(accept(store, held(203, 5, None)).await, Written::Done);
    let twice = FinishedJob { job: job(203), ..ended(202, 5, 0, &[]) };
    assert!(store.submit(Write::Finish(Box::new(twice))).await.is_err());
    finish(store, ended(203, 5, 0, &[])).await;
}

async fn a_budget_is_a_wall(store: &dyn Store) {
    let budget = Some(Budget { budget_micro: 1_000_100, period: Period::Month });
    assert_eq!(accept(store, held(210, 60, budget)).await, Written::Done);
    let keyed = NewJob { idempotency_key: Some("wall".into()), ..held(211, 41, budget) };
    let Written::Books(refused) = accept(store, keyed.clone()).await else { panic!() };
    let BooksWritten::OverBudget(over) = *refused else { panic!("{refused:?}") };
    assert_eq!((over.spending.charged_micro, over.spending.held_micro, over.asked_micro), (1_000_000, 60, 41));
    assert_eq!(over.resets_ms, Some(forge_lifecycle::books::budget::month(NOON).1));
    assert_eq!(store.job("b", job(211)).await.unwrap(), None, "nothing of it is written");
    // Not even its key: asked again with less, it is a job.
    let less = held(211, 40, budget);
    assert_eq!(accept(store, NewJob { idempotency_key: Some("wall".into()), ..less }).await, Written::Done);
    assert_eq!(accept(store, keyed).await, Written::Existing(job(211)), "an answer is no second job");
    // What is held comes back, and what was charged counts until the month is over.
    finish(store, ended(210, 60, 0, &[])).await;
    let next_month = NewJob { accepted_ms: NOON + 31 * DAY_MS, ..held(212, 1_000_060, budget) };
    assert!(matches!(accept(store, held(212, 61, budget)).await, Written::Books(_)));
    assert_eq!(accept(store, next_month).await, Written::Done);
    finish(store, ended(211, 40, 0, &[])).await;
    finish(store, ended(212, 1_000_060, 0, &[])).await;

    let set = BooksWrite::Budget { project: "b".into(), budget };
    assert_eq!(books(store, set).await, BooksWritten::Posted(0));
    let position = store.position("b", NOON - 1, NOON).await.unwrap().unwrap();
    assert_eq!(
        (position.budget, position.spending.charged_micro, position.charged_micro),
        (budget, 1_000_000, 1_000_000)
    );
    assert_eq!(store.position("b", NOON + 1, NOON).await.unwrap().unwrap().charged_micro, 0);
    // More for a job that runs counts against it too.
    let this_month = NewJob { accepted_ms: crate::clock::unix_ms(), ..held(213, 10, budget) };
    assert_eq!(accept(store, this_month).await, Written::Done);
    let raise = |micro| BooksWrite::Raise { job: job(213), micro };
    assert!(matches!(books(store, raise(2_000_000)).await, BooksWritten::OverBudget(_)));
    assert!(matches!(books(store, raise(7)).await, BooksWritten::Posted(_)));
    finish(store, ended(213, 17, 0, &[])).await;
    let unlimited = BooksWrite::Budget { project: "b".into(), budget: None };
    assert_eq!(books(store, unlimited).await, BooksWritten::Posted(0));
    let nobody = BooksWrite::Budget { project: "nobody".into(), budget };
    assert_eq!(books(store, nobody).await, BooksWritten::Nobody);
    assert_eq!(store.position("nobody", 0, NOON).await.unwrap(), None);
}

async fn payments_are_posted_once(store: &dyn Store) {
    let before = balance(store, "project:b").await;
    let grant = |project: &str, micro, reference: &str| BooksWrite::Grant {
        project: project.into(),
        micro,
        reference: reference.into(),
    };
    let BooksWritten::Posted(seq) = books(store, grant("b", 500, "t1")).await else { panic!() };
    assert_eq!(books(store, grant("b", 500, "t1")).await, BooksWritten::Existing(seq));
    assert_eq!(books(store, grant("b", 501, "t1")).await, BooksWritten::Mismatch(seq));
    assert_eq!(books(store, grant("nobody", 5, "t2")).await, BooksWritten::Nobody);
    assert_eq!((balance(store, "project:b").await, balance(store, "issued").await), (before + 500, -500));
    let prepaid = Some(Budget { budget_micro: 0, period: Period::Prepaid });
    let left = 500;
    assert!(matches!(accept(store, held(220, left + 1, prepaid)).await, Written::Books(_)), "a million is owed");
    let line = Some(Budget { budget_micro: 1_000_000, period: Period::Prepaid });
    assert_eq!(accept(store, held(220, left, line)).await, Written::Done);
    finish(store, ended(220, left, 0, &[])).await;

    let agent = AgentId::of_public_key(&[140; 32]);
    let payout = |micro, reference: &str| BooksWrite::Payout { agent, micro, reference: reference.into() };
    assert_eq!(books(store, payout(1, "p1")).await, BooksWritten::Short(0));
    store.submit(Write::Settle { policy: SettlePolicy { shards: 1, ms: 1 }, now_ms: FAR }).await.unwrap();
    assert_eq!(balance(store, &format!("payable:{agent}")).await, 800_000);
    let BooksWritten::Posted(seq) = books(store, payout(300_000, "p1")).await else { panic!() };
    assert_eq!(books(store, payout(300_000, "p1")).await, BooksWritten::Existing(seq));
    assert_eq!(books(store, payout(500_001, "p2")).await, BooksWritten::Short(500_000));
    let row = store.pay(Some("b"), None, 9).await.unwrap().remove(0);
    assert_eq!((row.agent, row.held_micro, row.payable_micro, row.paid_micro), (agent, 0, 500_000, 300_000));
    assert_eq!(store.pay(Some("b"), Some(agent), 9).await.unwrap(), []);
    assert_eq!(balance(store, "paid").await, 300_000);
    let nobody = BooksWrite::Payout { agent: AgentId(Digest::of(b"nobody")), micro: 1, reference: "p3".into() };
    assert_eq!(books(store, nobody).await, BooksWritten::Nobody);
}

async fn what_is_corrected_is_given_back(store: &dyn Store) {
    assert_eq!(accept(store, held(230, 900, None)).await, Written::Done);
    finish(store, ended(230, 900, 3_000_000, &[])).await;
    let before = balance(store, "project:b").await;
    let corrected = |run: u128, fair_micro| {
        let (stamp, charge) = (Stamp { at_ms: NOON, salt: run }, Charge::default());
        let platform = Bearer::Platform { project: "b" };
        let transaction = Transaction::settle(stamp, job(run), platform, &charge, &[]).unwrap();
        let correction = Some(Corrected { job: job(230), run: job(run), fair_micro });
        let settlement = Some(Settlement { charge, eur_micro: 0, transaction, correction });
        FinishedJob { finished_ms: NOON, settlement, ..end(run, "document") }
    };
    for (run, fair, back) in [(231, 700, 200), (232, 800, 200), (233, 0, 900)] {
        assert_eq!(accept(store, new_job(run, "b", None, "x")).await, Written::Done);
        finish(store, corrected(run, fair)).await;
        assert_eq!(balance(store, "project:b").await, before + back, "never charged more, given back once");
    }
    assert_eq!(kinds(store, job(230)).await, [Kind::Hold, Kind::Settle, Kind::Correction, Kind::Correction]);
    assert_eq!(store.charged(job(230)).await.unwrap(), Some(0));
}

async fn the_chain_holds(store: &dyn Store) {
    let (last, head) = store.chain_head().await.unwrap();
    let (mut walk, mut after, mut own) = (Walk::default(), 0, 0);
    let mut end = forge_lifecycle::books::chain::ROOT;
    loop {
        let page = store.chain(Some("b"), after, last, 7).await.unwrap();
        let Some(newest) = page.last() else { break };
        after = newest.seq;
        for row in &page {
            let transaction: Option<Transaction> = row.body.as_deref().map(|body| serde_json::from_str(body).unwrap());
            own += u64::from(transaction.is_some());
            end = link(&end, row.seq, &row.digest);
            walk.step(&Line { seq: row.seq, digest: row.digest, transaction }).unwrap();
        }
    }
    assert_eq!((after, end, walk.seen), (last, head, own));
    let mine = TransactionQuery { project: Some("b"), limit: 1000, ..TransactionQuery::default() };
    let rows = store.transactions(mine).await.unwrap();
    assert_eq!(rows.len() as u64, own, "others' are digests alone");
    assert!(own < last);
    for row in &rows {
        assert_eq!(row.link, link(&row.previous, row.seq, &row.digest));
    }
    let all = store.chain(None, 0, last, 1000).await.unwrap();
    assert!(all.iter().all(|row| row.body.is_some()));
    let grants = TransactionQuery { kind: Some(Kind::Grant), limit: 9, ..TransactionQuery::default() };
    assert_eq!(store.transactions(grants).await.unwrap().len(), 1);
    let others = TransactionQuery { project: Some("a"), job: Some(job(200)), limit: 9, ..TransactionQuery::default() };
    assert_eq!(store.transactions(others).await.unwrap(), []);
}
