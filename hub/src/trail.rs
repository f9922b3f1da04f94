//! The audit log beside requests: the hub's signature over where it stands, and what the operator does at the command
//! line. Requests leave their rows in `api::ticket`.

use std::sync::Arc;
use std::time::Duration;

use forge_lifecycle::trail::{Entry, Head, Purpose};
use tokio_util::sync::CancellationToken;

use crate::coordinator::Notary;
use crate::store::{Store, StoreError, TrailWrite};

/// Who did what the command line says.
const OPERATOR: &str = "operator";

/// The row of what the hub does at its operator's word.
#[must_use]
pub fn by_operator(action: &str, project: &str, note: String) -> Entry {
    Entry {
        at_ms: crate::clock::unix_ms(),
        project: project.to_owned(),
        key: OPERATOR.into(),
        action: action.to_owned(),
        note,
        trace_id: crate::clock::trace_id(),
        ..Entry::default()
    }
}

/// Signs where the log stands, unless that is signed already; durable when this returns.
///
/// # Errors
/// What the store says.
pub async fn sign(store: &dyn Store, notary: &dyn Notary, purpose: Purpose) -> Result<(), StoreError> {
    let tip = store.trail_tip().await?;
    let signed = store.trail_head().await?.map_or(0, |head| head.seq);
    if signed >= tip.seq {
        return Ok(());
    }
    let at_ms = crate::clock::unix_ms();
    let head = Head::seal(tip, at_ms, (purpose, String::new()), notary.key(), |bytes| notary.sign(bytes));
    tracing::debug!(seq = head.seq, purpose = purpose.as_str(), "signed where the audit log stands");
    store.submit(TrailWrite::Head(head).into()).await.map(drop)
}

/// Signs every so often until the hub stops; the last head is its shutdown's.
pub(crate) async fn keep(store: Arc<dyn Store>, notary: Arc<dyn Notary>, every: Duration, stopping: CancellationToken) {
    loop {
        tokio::select! {
            () = stopping.cancelled() => return,
            () = tokio::time::sleep(every) => {}
        }
        if let Err(error) = sign(&*store, &*notary, Purpose::Periodic).await {
            tracing::error!(%error, "the audit log could not be signed");
        }
    }
}
