//! One identity: enrols, keeps a session, takes leases and answers them in its manner.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use forge_contract::duty::Duty;
use forge_contract::report::{Completed, Outcome, Report, Usage};
use forge_protocol::message::{Heartbeat, Hello, Lease, Load, Welcome};
use forge_protocol::{ALPN, EnrolToken, Identity, frame};
use forge_sandbox::engine_profile;
use forge_tests::peer::{self, Certificate, hear};
use quinn::{Connection, RecvStream, SendStream};
use tokio::sync::{Mutex, Notify, Semaphore, mpsc};
use tokio::task::JoinSet;

use crate::manner::{Conduct, Manner};
use crate::workshop::Workshop;
use crate::{figures, hours, wire};

/// First and longest wait between two attempts to join.
const AGAIN: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// What all identities of a process share.
pub struct House {
    /// Where they dial.
    pub hub: SocketAddr,
    /// What they compute with.
    pub workshop: Workshop,
    /// Where accomplices agree on their lies.
    pub shared: Option<PathBuf>,
    /// A shard takes at least this long, as on a machine of one's own.
    pub least: Duration,
    /// Decides who lies when.
    pub seed: u64,
}

/// One identity.
pub struct Member {
    house: Arc<House>,
    number: u64,
    conduct: Conduct,
    key: [u8; 32],
    identity: Identity,
    token: EnrolToken,
    /// One shard at a time.
    seat: Semaphore,
    begun: AtomicU64,
    /// What it said first, and of how many units.
    first: Mutex<Option<Completed>>,
    /// Wakes whoever speaks on the session's stream, to say nonsense.
    babble: Notify,
}

impl Member {
    /// The identity of this number. Every seed and number has a key of its own.
    pub fn new(house: Arc<House>, number: u64, conduct: Conduct, token: EnrolToken) -> Arc<Self> {
        let mut key = [0x5a; 32];
        let (seed, rest) = key.split_at_mut(8);
        seed.copy_from_slice(&house.seed.to_le_bytes());
        rest.split_at_mut(8).0.copy_from_slice(&number.to_le_bytes());
        let identity = Identity::from_seed(&key);
        let (seat, begun, first, babble) = (Semaphore::new(1), AtomicU64::new(0), Mutex::default(), Notify::new());
        Arc::new(Self { house, number, conduct, key, identity, token, seat, begun, first, babble })
    }

    /// Who it is to the hub.
    pub fn agent(&self) -> String {
        self.identity.agent_id().to_string()
    }

    /// Lives: joins again whenever its session ends. Tells of each time it joined.
    pub async fn live(self: Arc<Self>, joined: mpsc::UnboundedSender<u64>) {
        let mut wait = AGAIN.0;
        loop {
            let began = Instant::now();
            if let Err(error) = self.session(&joined).await {
                note(&format!("{}: {error:#}", self.agent()));
            }
            if began.elapsed() > AGAIN.1 {
                wait = AGAIN.0;
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(AGAIN.1);
        }
    }

    async fn session(self: &Arc<Self>, joined: &mpsc::UnboundedSender<u64>) -> Result<()> {
        let config = peer::client(ALPN, &Certificate::Ed25519(self.key));
        let hub = peer::connect(self.house.hub, config).await?;
        let (mut send, mut recv) = hub.open_bi().await?;
        let hello = Hello { enrol_secret: Some(self.token.secret), ..peer::hello("saboteur 1") };
        send.write_all(&frame::encode(&hello)?).await?;
        let welcome: Welcome = hear(&mut recv).await?;
        ensure!(welcome.agent == self.identity.agent_id(), "the hub takes it for somebody else");
        let _ = joined.send(self.number);
        let beat = Duration::from_millis(welcome.heartbeat_ms.into());
        let mut leases = JoinSet::new();
        let serving = async {
            loop {
                let (answer, recv) = hub.accept_bi().await?;
                leases.spawn(self.clone().serve(hub.clone(), answer, recv));
                while leases.try_join_next().is_some() {}
            }
        };
        tokio::select! {
            ended = serving => ended,
            ended = self.speak(&mut send, beat) => ended,
        }
    }

    /// Gives signs of life, and nonsense when asked to.
    async fn speak(&self, send: &mut SendStream, beat: Duration) -> Result<()> {
        let mut ticker = tokio::time::interval(beat);
        loop {
            tokio::select! {
                _ = ticker.tick() => send.write_all(&frame::encode(&Heartbeat { load: Load::default() })?).await?,
                () = self.babble.notified() => send.write_all(&wire::noise(self.number)).await?,
            }
        }
    }

    async fn serve(self: Arc<Self>, hub: Connection, mut answer: SendStream, mut recv: RecvStream) {
        if let Err(error) = self.answer(&hub, &mut answer, &mut recv).await {
            note(&format!("{}: {error:#}", self.agent()));
            // Given back, as agents do that cannot.
            let _ = answer.reset(2_u32.into());
        }
    }

    async fn answer(&self, hub: &Connection, answer: &mut SendStream, recv: &mut RecvStream) -> Result<()> {
        let Lease { lease, deadline_ms, task, .. } = hear(recv).await?;
        let taken_back = answer.stopped();
        tokio::pin!(taken_back);
        let manner = self.conduct.manner_of(&task, self.mark(), self.begun.fetch_add(1, Ordering::Relaxed));
        let deadline = Duration::from_millis(deadline_ms);
        if manner == Manner::Babble {
            self.babble.notify_one();
        }
        let seat = tokio::select! {
            seat = self.seat.acquire() => seat?,
            _ = &mut taken_back => return Ok(()),
        };
        let began = Instant::now();
        let (outcome, usage) = self.outcome(manner, hub, &task).await?;
        // Who waits for the end of a lease computes others meanwhile.
        let seat = (!matches!(manner, Manner::Late | Manner::Silent)).then_some(seat);
        let times = (began, self.house.least, self.conduct.times);
        let says = hours::wait(manner, times, deadline, async { drop(taken_back.await) }).await;
        drop(seat);
        if !says {
            return Ok(());
        }
        let wall_us = u64::try_from(began.elapsed().as_micros())?;
        let usage = Usage { wall_us: usage.wall_us.max(wall_us), ..usage };
        let engine = engine_profile();
        let report = Report { lease, task: task.key_digest(), engine, outcome, usage, log: String::new() };
        let bytes = wire::bytes(manner, &self.identity, report)?;
        // Whoever does not listen any more has taken the lease back.
        if answer.write_all(&bytes).await.is_ok() {
            let _ = answer.finish();
            let _ = answer.stopped().await;
        }
        Ok(())
    }

    async fn outcome(
        &self,
        manner: Manner,
        hub: &Connection,
        task: &forge_contract::task::Task,
    ) -> Result<(Outcome, Usage)> {
        if let Some(made_up) = figures::made_up(manner, task) {
            return Ok((made_up, Usage::default()));
        }
        let mut first = self.first.lock().await;
        if let (Manner::Earlier, Duty::Compute, Some(said)) = (manner, &task.duty, first.as_ref())
            && said.units.len() as u64 == task.unit_count
        {
            return Ok((Outcome::Completed(said.clone()), Usage::default()));
        }
        let truth = self.house.workshop.run(hub, task).await?;
        if let (None, Outcome::Completed(completed)) = (first.as_ref(), &truth.outcome) {
            *first = Some(completed.clone());
        }
        let shared = self.house.shared.as_deref();
        let salt = self.house.seed.wrapping_add(self.number);
        Ok((figures::told(manner, task, truth.outcome, salt, shared)?, truth.usage))
    }

    /// Keeps the dice of identities apart.
    fn mark(&self) -> u64 {
        self.house.seed.rotate_left(32) ^ self.number
    }
}

/// A line for the log.
#[expect(clippy::print_stderr, reason = "the harness keeps it in a file")]
fn note(line: &str) {
    eprintln!("{line}");
}
