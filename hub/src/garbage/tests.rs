#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};

use forge_contract::array::ArrayType;
use forge_contract::fragment::Number;
use forge_contract::{Digest, JobId};

use super::*;
use crate::store::data::{Kept, KvKey, NewArray};
use crate::store::sqlite::Sqlite;
use crate::store::tenancy::{NewProject, OPERATOR, TenancyWrite};
use crate::store::{AcceptedRow, ArtifactRow, FinishedJob, KernelRow, NewJob, Phase, Standing, Write, Written};

const NOW: Option<Duration> = Some(Duration::ZERO);

struct World {
    _folder: tempfile::TempDir,
    store: Arc<dyn Store>,
    blobs: Arc<Blobs>,
    collector: Collector,
}

impl World {
    async fn new(grace: Duration) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let blobs = Arc::new(Blobs::open(&folder.path().join("blobs")).unwrap());
        let store = Sqlite::open(&folder.path().join("hub.db"), Arc::clone(&blobs)).await.unwrap();
        let store: Arc<dyn Store> = Arc::new(store);
        for id in ["a", "b", "c", "d"] {
            let project = TenancyWrite::Project(NewProject::plain(id, OPERATOR));
            store.submit(Write::Tenancy(Box::new(project))).await.unwrap();
        }
        let collector = Collector::new(Arc::clone(&store), Arc::clone(&blobs), grace);
        Self { _folder: folder, store, blobs, collector }
    }

    async fn data(&self, write: DataWrite) -> DataWritten {
        write_data(&*self.store, write).await.unwrap()
    }

    async fn claim(&self, project: &str, digest: Digest) {
        self.store.submit(Write::Blob { project: project.into(), digest, bytes: 1 }).await.unwrap();
    }

    async fn array(&self, digest: Digest) -> u64 {
        let array = ArrayType::new(Number::Int32, vec![1]).unwrap();
        let (project, name) = ("a".to_owned(), "array".to_owned());
        let new = NewArray { project, name, digest, bytes: 132, array, data_at: 128, source: None, version: None };
        match self.data(DataWrite::Array(Box::new(new))).await {
            DataWritten::Version(version) => version,
            other => panic!("{other:?}"),
        }
    }

    async fn accept(&self, number: u128, content: Vec<Digest>) -> JobId {
        let job = JobId::new(1, number);
        let new = NewJob {
            job,
            project: "a".into(),
            client_job_id: None,
            trace_id: "t".into(),
            op: "op".into(),
            envelope: "{}".into(),
            envelope_digest: Digest::of(b"e"),
            plan: "{}".into(),
            accepted_ms: 1,
            idempotency_key: None,
            request_digest: Digest::of(b"r"),
            replay_of: None,
            content,
            charge: None,
        };
        assert_eq!(self.store.submit(Write::Accept(Box::new(new))).await.unwrap(), Written::Done);
        job
    }

    /// Ends a job with one artifact, which a key stands for.
    async fn finish(&self, job: JobId, digest: Digest) {
        let at = KvKey { project: "a".into(), namespace: "jobs".into(), key: format!("{job}/x") };
        let finished = FinishedJob {
            job,
            phase: Phase::Completed,
            code: None,
            finished_ms: 2,
            document: "{}".into(),
            artifacts: vec![ArtifactRow { name: "x".into(), media_type: "x/y".into(), digest, bytes: 200_000 }],
            objects: vec![],
            entry: "{}".into(),
            settlement: None,
            stakes: vec![],
            erratum: None,
            kept: Kept { references: vec![(at, "x".into())], arrays: vec![] },
        };
        self.store.submit(Write::Finish(Box::new(finished))).await.unwrap();
    }

    async fn kernel(&self, number: u32, digest: Digest) {
        let kernel = KernelRow {
            name: format!("k{number}"),
            version: 1,
            digest,
            bytes: 1,
            manifest: "{}".into(),
            project: None,
            recorded_ms: 1,
            standing: Standing::built_in(),
        };
        self.store.submit(Write::Kernel(Box::new(kernel))).await.unwrap();
    }
}

/// Numbers that are the same in every run.
fn dice(seed: u64) -> impl FnMut(u64) -> u64 {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    move |sides| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % sides
    }
}

/// Worlds in which every file is named by anything or nothing, and then by less: what is named stays, what is not goes.
#[tokio::test]
async fn what_is_named_stays_and_what_is_not_goes() {
    for seed in 1..=12 {
        let world = World::new(Duration::ZERO).await;
        let mut roll = dice(seed);
        let mut named: BTreeMap<Digest, BTreeSet<&str>> = BTreeMap::new();
        let (mut claims, mut arrays, mut held) = (Vec::new(), Vec::new(), Vec::new());
        for number in 0..40_u32 {
            let digest = world.blobs.put(&[&number.to_le_bytes()[..], &seed.to_le_bytes()].concat()).unwrap();
            let names = named.entry(digest).or_default();
            for _ in 0..roll(4) {
                match roll(7) {
                    0 => {
                        let project = ["a", "b"][usize::try_from(roll(2)).unwrap()];
                        world.claim(project, digest).await;
                        claims.push((project, digest));
                        names.insert(project);
                    }
                    1 => {
                        arrays.push((world.array(digest).await, digest));
                        names.insert("array");
                    }
                    2 if !names.contains("content") => {
                        world.accept(u128::from(number), vec![Digest::of(b"other"), digest]).await;
                        names.insert("content");
                    }
                    3 if !names.contains("artifact") => {
                        let job = world.accept(1000 + u128::from(number), vec![]).await;
                        world.finish(job, digest).await;
                        names.insert("artifact");
                    }
                    4 => {
                        world.kernel(number, digest).await;
                        names.insert("kernel");
                    }
                    5 => {
                        held.push(world.blobs.hold(digest));
                        names.insert("held");
                    }
                    _ => {}
                }
            }
        }
        // A shard's fragment that is too large for the database is a file, too.
        let job = world.accept(5000, vec![]).await;
        let fragment = vec![u8::try_from(seed).unwrap(); 300_000];
        named.entry(Digest::of(&fragment)).or_default().insert("accepted");
        let row = AcceptedRow { job, stage: 0, shard: 0, body: vec![1], fragment };
        world.store.submit(Write::Accepted(Box::new(row))).await.unwrap();

        check(&world, &named, seed).await;
        for (project, digest) in claims {
            if roll(2) == 0 {
                let write = DataWrite::Unclaim { project: project.into(), digest };
                let there = named.get_mut(&digest).unwrap().remove(project);
                assert_eq!(world.data(write).await, DataWritten::Removed(there));
            }
        }
        for (version, digest) in &arrays {
            if roll(2) == 0 {
                let write = DataWrite::ArrayDelete { project: "a".into(), name: "array".into(), version: *version };
                assert_eq!(world.data(write).await, DataWritten::Removed(true));
                let row = world.store.array("a", "array", Some(*version)).await.unwrap().unwrap();
                assert!(row.digest.is_none() && row.deleted_ms.is_some());
            }
            let mut of_digest = arrays.iter().filter(|(_, one)| one == digest);
            let mut left = false;
            for (version, _) in &mut of_digest {
                left |= world.store.array("a", "array", Some(*version)).await.unwrap().unwrap().digest.is_some();
            }
            if !left {
                named.get_mut(digest).unwrap().remove("array");
            }
        }
        drop(held);
        for names in named.values_mut() {
            names.remove("held");
        }
        check(&world, &named, seed).await;
        assert_eq!(world.store.marked().await.unwrap(), []);
    }
}

async fn check(world: &World, named: &BTreeMap<Digest, BTreeSet<&str>>, seed: u64) {
    world.collector.collect(NOW).await.unwrap();
    for (digest, names) in named {
        assert_eq!(world.blobs.has(digest), !names.is_empty(), "world {seed}: {digest} is named by {names:?}");
    }
}

#[tokio::test]
async fn nothing_goes_before_its_time() {
    let world = World::new(Duration::from_secs(3600)).await;
    let digest = world.blobs.put(b"x").unwrap();
    for _ in 0..2 {
        let waiting = Collected { marked: 1, removed: 0, bytes: 0 };
        assert_eq!(world.collector.collect(None).await.unwrap(), waiting);
        assert_eq!(world.store.marked().await.unwrap(), [digest]);
    }
    // Named in between: its time begins anew.
    world.claim("a", digest).await;
    assert_eq!(world.collector.collect(None).await.unwrap(), Collected::default());
    assert_eq!(world.store.marked().await.unwrap(), []);
    world.data(DataWrite::Unclaim { project: "a".into(), digest }).await;
    let gone = Collected { marked: 0, removed: 1, bytes: 1 };
    assert_eq!(world.collector.collect(NOW).await.unwrap(), gone);
    assert_eq!((world.blobs.has(&digest), world.store.marked().await.unwrap()), (false, vec![]));
}

/// Four projects send the same content again and again and give it up, while everything that nothing names is removed at
/// once: content whose claim was acknowledged is there.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn uploads_of_the_same_content_race_its_removal() {
    let world = Arc::new(World::new(Duration::ZERO).await);
    let senders = ["a", "b", "c", "d"].map(|project| {
        let world = Arc::clone(&world);
        tokio::spawn(async move {
            for round in 0..60_u8 {
                let content = [round % 3];
                let digest = Digest::of(&content);
                let hold = world.blobs.hold(digest);
                let blobs = Arc::clone(&world.blobs);
                tokio::task::spawn_blocking(move || blobs.put(&content).unwrap()).await.unwrap();
                world.claim(project, digest).await;
                drop(hold);
                assert_eq!(world.blobs.get(&digest).unwrap().as_deref(), Some(&content[..]), "{project} {round}");
                world.data(DataWrite::Unclaim { project: project.into(), digest }).await;
            }
        })
    });
    let (done, mut ended) = tokio::sync::oneshot::channel::<()>();
    let collecting = {
        let world = Arc::clone(&world);
        tokio::spawn(async move {
            let mut removed = 0;
            while ended.try_recv() == Err(tokio::sync::oneshot::error::TryRecvError::Empty) {
                removed += world.collector.collect(NOW).await.unwrap().removed;
            }
            removed
        })
    };
    for sender in senders {
        sender.await.unwrap();
    }
    done.send(()).unwrap();
    assert!(collecting.await.unwrap() > 0, "nothing was removed while it mattered");
    world.collector.collect(NOW).await.unwrap();
    assert!((0..3_u8).all(|content| !world.blobs.has(&Digest::of(&[content]))));
}
