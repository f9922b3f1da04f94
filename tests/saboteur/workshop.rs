//! What identities of one process share: kernels and inputs by content, compiled once, run in this process.

use std::collections::HashMap;
use std::sync::Arc;

use anyhow::{Context as _, Result, anyhow};
use bytes::Bytes;
use forge_contract::Digest;
use forge_contract::duty::{Duty, Examination};
use forge_contract::report::Outcome;
use forge_contract::task::Task;
use forge_protocol::frame;
use forge_protocol::message::{Fetch, Have};
use forge_protocol::proof::{self, Selection, Span};
use forge_sandbox::engine::Backend;
use forge_sandbox::local::{self, LocalKernel};
use forge_sandbox::{Inputs, ShardResult};
use forge_tests::peer::hear;
use quinn::Connection;
use tokio::sync::{Mutex, OnceCell};

/// A kernel that is being compiled, or is.
type Bench = Arc<OnceCell<Arc<LocalKernel>>>;

/// The kernels at hand.
#[derive(Default)]
pub struct Workshop {
    kernels: Mutex<HashMap<Digest, Bench>>,
}

impl Workshop {
    /// The truth about a shard.
    pub async fn run(&self, hub: &Connection, task: &Task) -> Result<ShardResult> {
        let kernel = self.kernel(hub, task).await?;
        let mut inputs = Inputs::none();
        for input in &task.inputs {
            inputs.add(input, fetch(hub, input.digest).await?);
        }
        if let Duty::Check(Examination { found, .. }) = &task.duty {
            inputs.set_found(found, fetch(hub, found.digest).await?);
        }
        let task = task.clone();
        let running = move || local::run_shard(&kernel, &task, &inputs, |_| {});
        let result = tokio::task::spawn_blocking(running).await?;
        match &result.outcome {
            // The machine's failure, not the kernel's: nobody wants it as the truth.
            Outcome::Failed(failure) if failure.code.as_str() == "agent.worker_lost" => Err(anyhow!("{failure}")),
            _ => Ok(result),
        }
    }

    async fn kernel(&self, hub: &Connection, task: &Task) -> Result<Arc<LocalKernel>> {
        let bench = self.kernels.lock().await.entry(task.component).or_default().clone();
        let compiled = bench.get_or_try_init(|| async {
            let component = fetch(hub, task.component).await?;
            let compiling = move || local::compile(&component, Backend::CraneliftSpeed);
            let kernel = tokio::task::spawn_blocking(compiling).await?;
            anyhow::Ok(Arc::new(kernel.map_err(|failure| anyhow!("{failure}"))?))
        });
        compiled.await.cloned()
    }
}

/// An object by content, as agents fetch it.
async fn fetch(hub: &Connection, digest: Digest) -> Result<Bytes> {
    let (mut send, mut recv) = hub.open_bi().await?;
    send.write_all(&frame::encode(&Fetch { digest, spans: vec![Span::ALL] })?).await?;
    send.finish()?;
    let Have { bytes } = hear(&mut recv).await?;
    let selection = Selection::new(bytes, &[Span::ALL]).context("an object has a group")?;
    let encoded_max = usize::try_from(bytes)? / 128 * 129 + 64;
    let encoded = recv.read_to_end(encoded_max).await.context("the object broke off")?;
    let groups = proof::verify(&digest, &selection, encoded.into())?;
    Ok(groups.iter().flat_map(|group| &group.bytes[..]).copied().collect::<Vec<u8>>().into())
}
