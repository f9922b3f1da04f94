//! How an upload becomes a kernel: parsed in a child of its own, recorded as pending, tried by verifiers, decided.

mod child;
mod examiner;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use forge_contract::manifest::Manifest;
use forge_contract::{Digest, Failure, FailureCode};
use forge_lifecycle::event::{Event, ProjectTag};
use forge_lifecycle::trial::{self, Grounds, TrialId, TrialVerdict};
use tokio::sync::mpsc;

pub use child::{ADMIT, admit_main};
pub use examiner::{ExamineError, Examiner, ParseLimits};

use crate::coordinator::{Coordinator, Stopped};
use crate::registry::{Entry, Key, Registry};
use crate::store::blobs::{BlobError, Blobs};
use crate::store::tenancy::Binding;
use crate::store::{Exceeded, KernelState, Standing, Store, StoreError, Write, Written};

/// Kernels of one project that may wait for verifiers.
const PENDING_MAX: usize = 64;

/// Why an upload is no kernel.
#[derive(Debug, thiserror::Error)]
pub enum AdmissionError {
    /// The component breaks a rule.
    #[error("{0}")]
    Refused(Failure),
    /// Its name is not one of the project's.
    #[error(
        "the kernel is named '{name}', but what this project uploads is named '{project}/NAME'; set name = \
         \"{project}/{short}\" in kernel.toml and build again"
    )]
    Namespace {
        /// The name.
        name: String,
        /// The project.
        project: String,
        /// The name without a namespace.
        short: String,
    },
    /// The label is taken.
    #[error(
        "{label} is the component {existing} for ever, and this is {uploaded}; raise `version` in kernel.toml and build again"
    )]
    Taken {
        /// `name@version`.
        label: String,
        /// What it is.
        existing: Digest,
        /// What was uploaded.
        uploaded: Digest,
    },
    /// Too many wait.
    #[error("{PENDING_MAX} kernels of this project wait for verifiers; upload more when some are decided")]
    Crowded,
    /// The project has no room for it.
    #[error("the project may store {} bytes, with this it would store {}", .0.value, .0.asked)]
    NoRoom(Exceeded),
    /// The kernel's state does not allow the change.
    #[error("{label} is {}; only what was admitted can be deprecated, yanked or admitted again", state.as_str())]
    Undecided {
        /// `name@version`.
        label: String,
        /// Where it stands.
        state: KernelState,
    },
    /// The component could not be judged.
    #[error(transparent)]
    Examine(#[from] ExamineError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The blobs.
    #[error(transparent)]
    Blob(#[from] BlobError),
    /// The hub stops.
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

impl AdmissionError {
    /// The same as a client sees it.
    #[must_use]
    pub fn failure(&self) -> Failure {
        let code = match self {
            Self::Refused(failure) => return failure.clone(),
            Self::Namespace { .. } => FailureCode::RequestComponentManifest,
            Self::Taken { .. } => FailureCode::RequestKernelTaken,
            Self::Crowded | Self::NoRoom(_) => FailureCode::RequestQuota,
            Self::Undecided { state: KernelState::Refused, .. } => FailureCode::RequestKernelRefused,
            Self::Undecided { .. } => FailureCode::RequestKernelPending,
            Self::Stopped(_) => FailureCode::SchedulingShutdown,
            Self::Examine(_) | Self::Store(_) | Self::Blob(_) => {
                tracing::error!(error = %self, "an upload could not be judged or recorded");
                return Failure::new(FailureCode::AggregationStorage, "the hub could not judge or record the kernel");
            }
        };
        Failure::new(code, self.to_string())
    }
}

/// A verdict, as the coordinator passes it on.
pub type Decided = (TrialId, TrialVerdict);

/// Trials under way.
#[derive(Debug, Default)]
struct Trials {
    last: u64,
    of: BTreeMap<TrialId, Digest>,
}

/// Where uploads are judged and their state is kept.
pub struct Desk {
    registry: Arc<Registry>,
    store: Arc<dyn Store>,
    blobs: Arc<Blobs>,
    coordinator: Coordinator,
    examiner: Examiner,
    trials: Mutex<Trials>,
    /// One change of the registry at a time: what was looked up still holds when it is recorded.
    turn: tokio::sync::Mutex<()>,
}

impl Desk {
    /// A desk; `decided` brings the coordinator's verdicts. Kernels that were pending are tried again.
    ///
    /// # Errors
    /// `Stopped`.
    pub async fn open(
        (registry, store, blobs): (Arc<Registry>, Arc<dyn Store>, Arc<Blobs>),
        coordinator: Coordinator,
        examiner: Examiner,
        mut decided: mpsc::UnboundedReceiver<Decided>,
    ) -> Result<(Arc<Self>, tokio::task::JoinHandle<()>), Stopped> {
        let (trials, turn) = (Mutex::default(), tokio::sync::Mutex::new(()));
        let desk = Arc::new(Self { registry, store, blobs, coordinator, examiner, trials, turn });
        for entry in desk.registry.pending() {
            desk.try_out(&entry).await?;
        }
        let clerk = Arc::clone(&desk);
        let task = tokio::spawn(async move {
            while let Some((trial, verdict)) = decided.recv().await {
                clerk.decide(trial, verdict).await;
            }
        });
        Ok((desk, task))
    }

    fn trials(&self) -> MutexGuard<'_, Trials> {
        self.trials.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a complete upload: judges it, records it as pending and has it tried. The file is gone afterwards. The
    /// same bytes again change nothing, unless they were refused: then they are tried again.
    ///
    /// # Errors
    /// See [`AdmissionError`]; then nothing is recorded.
    pub async fn submit(&self, project: &str, file: &Path, declared: &Digest) -> Result<Entry, AdmissionError> {
        let taken = self.take(project, file, declared).await;
        // Moved away where it was taken, useless where it was not.
        if let Err(error) = tokio::fs::remove_file(file).await
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(path = %file.display(), %error, "a judged upload stays");
        }
        taken
    }

    async fn take(&self, project: &str, file: &Path, declared: &Digest) -> Result<Entry, AdmissionError> {
        let kernel = self.examiner.examine(file, declared).await?.map_err(AdmissionError::Refused)?;
        check_namespace(project, &kernel.manifest)?;
        let key: Key = (kernel.manifest.name.clone(), kernel.manifest.version);
        let _turn = self.turn.lock().await;
        if let Some(earlier) = self.registry.under(&key).filter(|e| e.standing.state != KernelState::Refused) {
            if earlier.kernel.digest == kernel.digest {
                return Ok(earlier);
            }
            let (existing, uploaded) = (earlier.kernel.digest, kernel.digest);
            return Err(AdmissionError::Taken { label: kernel.manifest.label(), existing, uploaded });
        }
        let mine = |entry: &&Entry| entry.project.as_deref() == Some(project);
        if self.registry.pending().iter().filter(mine).count() >= PENDING_MAX {
            return Err(AdmissionError::Crowded);
        }
        let (blobs, from, digest) = (Arc::clone(&self.blobs), file.to_owned(), kernel.digest);
        let _hold = self.blobs.hold(digest);
        tokio::task::spawn_blocking(move || blobs.adopt(&from, &digest)).await.map_err(|_| StoreError::Closed)??;
        let entry = Entry::uploaded(Arc::new(kernel), project, crate::clock::unix_ms());
        if let Written::Exceeded(exceeded) = self.store.submit(Write::Kernel(Box::new(entry.row()?))).await? {
            return Err(AdmissionError::NoRoom(exceeded));
        }
        self.registry.put(entry.clone());
        tracing::info!(kernel = entry.kernel.manifest.label(), %digest, project, "kernel uploaded");
        self.try_out(&entry).await?;
        Ok(entry)
    }

    /// Where a kernel may be tried: where its project's jobs may run.
    async fn grounds(&self, project: Option<&str>) -> Grounds {
        let Some(project) = project else { return Grounds::default() };
        let binding = match self.store.project(project).await {
            Ok(row) => row.map(|row| row.binding).unwrap_or_default(),
            Err(error) => {
                // It must not leave where it may be: nobody is asked until the store can say.
                tracing::error!(project, %error, "where a kernel may be tried is unknown");
                Binding { exclusive: true, ..Binding::default() }
            }
        };
        let requires = (!binding.is_empty()).then(|| Arc::new(binding.requires()));
        Grounds { project: Some(ProjectTag::of(project)), requires }
    }

    /// Asks the pool for a trial.
    async fn try_out(&self, entry: &Entry) -> Result<(), Stopped> {
        let (kernel, grounds) = (&*entry.kernel, self.grounds(entry.project.as_deref()).await);
        let trial = {
            let mut trials = self.trials();
            trials.last += 1;
            let trial = TrialId(trials.last);
            trials.of.insert(trial, kernel.digest);
            trial
        };
        let exams = match trial::exams(kernel, trial) {
            Ok(exams) => exams,
            // Recorded by another version of the hub, which found them usable.
            Err(error) => {
                let refused = Some(Failure::new(FailureCode::RequestComponentGolden, error.to_string()));
                self.decide(trial, TrialVerdict { passed: Vec::new(), refused }).await;
                return Ok(());
            }
        };
        for (digest, bytes) in trial::contents(&kernel.manifest) {
            self.coordinator.board().publish(trial.job(), digest, &bytes);
        }
        self.coordinator.event(Event::TrialRequested { trial, exams, grounds }).await
    }

    /// Records a verdict, then lets everybody see it.
    async fn decide(&self, trial: TrialId, verdict: TrialVerdict) {
        self.coordinator.board().remove(trial.job());
        let Some(digest) = self.trials().of.remove(&trial) else { return };
        let TrialVerdict { passed, refused } = verdict;
        let standing = Standing {
            state: if refused.is_some() { KernelState::Refused } else { KernelState::Admitted },
            code: refused.as_ref().map(|failure| failure.code),
            reason: refused.map(|failure| failure.detail),
            decided_ms: Some(crate::clock::unix_ms()),
            checks: serde_json::to_string(&passed).unwrap_or_else(|_| "[]".into()),
        };
        let (state, reason) = (standing.state.as_str(), standing.reason.clone());
        match self.record(digest, standing).await {
            Ok(entry) => {
                let kernel = entry.map(|entry| entry.kernel.manifest.label());
                tracing::info!(kernel, %digest, state, reason, "kernel decided");
            }
            // It stays pending, and is tried again after the next start.
            Err(error) => tracing::error!(%digest, %error, "a verdict on a kernel could not be recorded"),
        }
    }

    async fn record(&self, digest: Digest, standing: Standing) -> Result<Option<Entry>, StoreError> {
        let write = Write::KernelStanding { digest, standing: Box::new(standing.clone()) };
        self.store.submit(write).await?;
        Ok(self.registry.stand(&digest, standing))
    }

    /// Deprecates, yanks, or takes either back.
    ///
    /// # Errors
    /// `Undecided` for a kernel that is pending or refused; `Store`.
    pub async fn change(
        &self,
        entry: &Entry,
        state: KernelState,
        reason: Option<String>,
    ) -> Result<Entry, AdmissionError> {
        let _turn = self.turn.lock().await;
        let key: Key = (entry.kernel.manifest.name.clone(), entry.kernel.manifest.version);
        let entry = self.registry.under(&key).unwrap_or_else(|| entry.clone());
        if matches!(entry.standing.state, KernelState::Pending | KernelState::Refused) {
            let (label, state) = (entry.kernel.manifest.label(), entry.standing.state);
            return Err(AdmissionError::Undecided { label, state });
        }
        let decided_ms = Some(crate::clock::unix_ms());
        let standing = Standing { state, code: None, reason, decided_ms, checks: entry.standing.checks.clone() };
        let changed = self.record(entry.kernel.digest, standing).await?;
        tracing::info!(kernel = entry.kernel.manifest.label(), state = state.as_str(), "kernel changed");
        Ok(changed.unwrap_or(entry))
    }

    /// What a pending kernel waits for, for people.
    ///
    /// # Errors
    /// `Stopped`.
    pub async fn waits_for(&self) -> Result<String, Stopped> {
        let agents = self.coordinator.agents().await?;
        let there = agents.iter().any(|agent| agent.verifier && !agent.draining && !agent.quarantined);
        Ok(if there {
            "a verifier runs its known answers".into()
        } else {
            "no verifier is connected: it stays pending until an agent joins that was enrolled with a token of POST \
             /api/v0/agents/tokens {\"verifier\": true}; the agents of `forgepool up` are verifiers"
                .into()
        })
    }
}

/// What a project uploads is named after it, so that no two projects can mean different things by one name.
fn check_namespace(project: &str, manifest: &Manifest) -> Result<(), AdmissionError> {
    let name = &manifest.name;
    let (namespace, short) = name.split_once('/').unwrap_or(("", name));
    if namespace == project {
        return Ok(());
    }
    Err(AdmissionError::Namespace { name: name.clone(), project: project.into(), short: short.into() })
}
