//! Inputs that workers ask for as they are read.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use forge_contract::manifest::PartKind;
use forge_contract::report::Outcome;
use forge_contract::task::Task;
use forge_contract::{Digest, Failure, FailureCode};
use forge_sandbox::{Inputs, Piece, Supply, Want, Worker, WorkerError};
use tokio::sync::watch;

use crate::kernels::{reading, task};
use crate::processes::{LONG, compile_bytes, spawn};

/// A unit that adds up this many bytes of its input, from byte 1 on, and such an input.
const READ: usize = 40_000;
fn large() -> Vec<u8> {
    (0..=250).cycle().take(300_000).collect()
}

fn task_of(input: &[u8]) -> Task {
    let mut task = task("read", PartKind::Count);
    task.parts[0].counts_items = false;
    task.inputs[0].digest = Digest::of(input);
    task.inputs[0].bytes = input.len() as u64;
    task
}

async fn reader() -> Worker {
    let mut worker = spawn().await;
    worker.load(&compile_bytes(&reading(READ)).await.unwrap()).await.unwrap();
    worker
}

/// Gives pieces of so many bytes, and keeps what was asked for.
struct Giving {
    bytes: Bytes,
    piece: u64,
    asked: Mutex<Vec<Want>>,
}

#[async_trait]
impl Supply for Giving {
    async fn pieces(&self, want: Want) -> Result<Vec<Piece>, Failure> {
        self.asked.lock().unwrap().push(want);
        let offset = want.offset / self.piece * self.piece;
        let end = (offset + self.piece).min(self.bytes.len() as u64);
        let range = usize::try_from(offset).unwrap()..usize::try_from(end).unwrap();
        Ok(vec![Piece { offset, bytes: self.bytes.slice(range) }])
    }
}

/// Gives nothing, at once or ever.
struct Refusing {
    at_once: bool,
}

#[async_trait]
impl Supply for Refusing {
    async fn pieces(&self, _: Want) -> Result<Vec<Piece>, Failure> {
        match self.at_once {
            true => Err(Failure::new(FailureCode::AgentFetch, "it is nowhere")),
            false => std::future::pending().await,
        }
    }
}

fn supplied(task: &Task, supply: Arc<dyn Supply>) -> Inputs {
    let mut inputs = Inputs::none();
    inputs.supply(&task.inputs[0], supply);
    inputs
}

#[tokio::test]
async fn an_input_that_is_asked_for_gives_what_one_that_is_sent_gives() {
    let input = large();
    let task = task_of(&input);
    let mut whole = Inputs::none();
    whole.add(&task.inputs[0], input.clone().into());
    let expected = reader().await.run(&task, &whole, LONG, &watch::Sender::new(0)).await.unwrap().outcome;
    let Outcome::Completed(completed) = &expected else { panic!("{expected:?}") };
    assert!(completed.fuel() > READ as u64);
    for piece in [1_000, 16 << 10, 1 << 20] {
        let giving = Arc::new(Giving { bytes: input.clone().into(), piece, asked: Mutex::default() });
        let inputs = supplied(&task, giving.clone());
        let mut worker = reader().await;
        for _ in 0..2 {
            let result = worker.run(&task, &inputs, LONG, &watch::Sender::new(0)).await.unwrap();
            assert!(result.outcome == expected, "pieces of {piece}: {:?}", result.outcome);
        }
        // Four units and two shards read it, and it is asked for once.
        let asked = giving.asked.lock().unwrap();
        assert_eq!(asked.len() as u64, (READ as u64 + 1).div_ceil(piece), "{asked:?}");
        assert!(asked.iter().all(|want| want.offset + want.bytes <= READ as u64 + 1));
    }
}

#[tokio::test]
async fn an_input_that_cannot_be_had_ends_the_shard_and_one_that_does_not_come_meets_the_deadline() {
    let input = large();
    let task = task_of(&input);
    let mut worker = reader().await;
    let inputs = supplied(&task, Arc::new(Refusing { at_once: true }));
    let ended = worker.run(&task, &inputs, LONG, &watch::Sender::new(0)).await;
    assert_eq!(Failure::from(ended.unwrap_err()), Failure::new(FailureCode::AgentFetch, "it is nowhere"));
    let again = worker.run(&task, &inputs, LONG, &watch::Sender::new(0)).await;
    assert!(matches!(again, Err(WorkerError::Busy)), "{again:?}");
    let mut worker = reader().await;
    let inputs = supplied(&task, Arc::new(Refusing { at_once: false }));
    let ended = worker.run(&task, &inputs, Duration::from_millis(200), &watch::Sender::new(0)).await;
    assert!(matches!(ended, Err(WorkerError::Deadline(_))), "{ended:?}");
}
