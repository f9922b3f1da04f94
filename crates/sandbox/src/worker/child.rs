//! The child's side: cage first, then serve.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::{Duration, Instant};

use bytes::Bytes;
use forge_contract::duty::{Duty, Examination};
use forge_contract::task::Task;
use forge_contract::{Digest, Failure, FailureCode};
use wasmtime::Engine;

use super::asked::{Asked, Line};
use super::frame::{self, Code, FrameError, FromChild, ToChild};
use crate::cage::{self, CageLevel, CageReport, Guard, NativeCode, ProcessLimits};
use crate::engine::{self, Backend, THREAD_STACK_BYTES};
use crate::execute::{ShardResult, UnitRunner, run_shard};
use crate::inputs::Inputs;

/// Between two progress frames.
const PROGRESS_EVERY: Duration = Duration::from_millis(20);

/// The whole life of a process that runs shards: call it first in `main`, before any thread or runtime exists.
///
/// Ends at the end of standard input, even in the middle of a unit.
pub fn worker_main() -> ! {
    end(serve(Kind::Run))
}

/// The whole life of a process that compiles one component: call it first in `main`, before any thread or runtime
/// exists.
///
/// Ends at the end of standard input, even in the middle of compiling.
pub fn compile_main() -> ! {
    end(serve(Kind::Compile))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Run,
    Compile,
}

#[derive(Debug, thiserror::Error)]
enum ChildError {
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error(transparent)]
    Thread(#[from] io::Error),
    #[error(transparent)]
    Engine(#[from] engine::EngineError),
    #[error("the parent's frame does not belong here")]
    Unexpected,
}

fn end(served: Result<(), ChildError>) -> ! {
    // There is nobody to read a message; the code says that something went wrong.
    std::process::exit(i32::from(served.is_err()))
}

fn serve(kind: Kind) -> Result<(), ChildError> {
    let (limits, level) = first_frame()?;
    let mut report = cage::enter(limits);
    let (frames, received) = sync_channel(1);
    let (start, started) = sync_channel::<CageReport>(1);
    std::thread::Builder::new().name("stdin".into()).spawn(move || read_frames(&frames))?;
    let server = std::thread::Builder::new().name("kernel".into()).stack_size(THREAD_STACK_BYTES).spawn(move || {
        crate::wasi::with_runtime(|| {
            started.recv().map_or(Ok(()), |report| serve_frames(kind, level, report, Line::new(received)))
        })
    })?;
    // A compiler writes native code and never runs it.
    let code = if kind == Kind::Run { NativeCode::UntilSealed } else { NativeCode::Never };
    cage::close(&mut report, code);
    // Only now does the server run: everything it will ever do, it does caged.
    let _ = start.send(report);
    server.join().unwrap_or(Err(ChildError::Unexpected))
}

/// Read before the cage is entered, so that nothing is caged by default limits. It comes from the parent alone.
fn first_frame() -> Result<(ProcessLimits, CageLevel), ChildError> {
    // Unbuffered: a buffer would swallow the frames behind it.
    let body = frame::read_body(&mut Unbuffered)?.ok_or(ChildError::Unexpected)?;
    match postcard::from_bytes(&body).map_err(FrameError::from)? {
        ToChild::Enter { limits, level } => Ok((limits, level)),
        _ => Err(ChildError::Unexpected),
    }
}

/// Standard input without a buffer.
struct Unbuffered;

impl io::Read for Unbuffered {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        rustix::io::read(io::stdin(), buffer).map_err(io::Error::from)
    }
}

/// Hands frames to the server, and ends the process when there are no more: the parent is gone or wants this one gone.
fn read_frames(frames: &SyncSender<Vec<u8>>) {
    while let Ok(Some(body)) = frame::read_body(&mut Unbuffered) {
        if frames.send(body).is_err() {
            break;
        }
    }
    std::process::exit(0);
}

pub(super) fn say(message: &FromChild) -> Result<(), FrameError> {
    let mut out = io::stdout().lock();
    frame::write(&mut out, message)?;
    Ok(out.flush()?)
}

fn serve_frames(kind: Kind, level: CageLevel, report: CageReport, frames: Line) -> Result<(), ChildError> {
    if level == CageLevel::Required && !report.is_sound() {
        return Ok(say(&FromChild::Uncaged { report })?);
    }
    match kind {
        Kind::Run => serve_runs(report, frames),
        Kind::Compile => serve_compile(report, &frames),
    }
}

fn serve_compile(report: CageReport, frames: &Line) -> Result<(), ChildError> {
    let engine = engine::engine(Backend::CraneliftSpeed)?;
    say(&FromChild::Ready { report })?;
    let Some(body) = frames.next() else { return Ok(()) };
    let ToChild::Compile { component } = postcard::from_bytes(&body).map_err(FrameError::from)? else {
        return Err(ChildError::Unexpected);
    };
    Ok(say(&FromChild::Compiled(crate::code::compile(&engine, component).map(Code)))?)
}

fn serve_runs(report: CageReport, frames: Line) -> Result<(), ChildError> {
    let frames = Arc::new(frames);
    let mut server = Server {
        engine: engine::runtime_engine(Backend::CraneliftSpeed)?,
        runner: None,
        inputs: BTreeMap::new(),
        asked: BTreeMap::new(),
        frames: Arc::clone(&frames),
        filtered: report.holds(Guard::SystemCalls),
    };
    say(&FromChild::Ready { report })?;
    while let Some(body) = frames.next() {
        match postcard::from_bytes(&body).map_err(FrameError::from)? {
            ToChild::Load { code } => say(&FromChild::Loaded(server.load(code)))?,
            ToChild::Input { digest, bytes } => {
                server.inputs.insert(digest, body.slice_ref(bytes));
            }
            ToChild::Run { task, asked } => {
                let result = server.run(&task, &asked);
                say(&FromChild::Done(Box::new(result)))?;
            }
            ToChild::Enter { .. } | ToChild::Compile { .. } | ToChild::Pieces { .. } => {
                return Err(ChildError::Unexpected);
            }
        }
    }
    Ok(())
}

/// What a run child holds.
struct Server {
    engine: Engine,
    runner: Option<UnitRunner>,
    inputs: BTreeMap<Digest, Bytes>,
    /// Those that the parent is asked for, with what came of them so far.
    asked: BTreeMap<Digest, Arc<Asked>>,
    frames: Arc<Line>,
    /// Whether there is a filter of system calls to make stricter.
    filtered: bool,
}

impl Server {
    fn load(&mut self, code: &[u8]) -> Result<(), Failure> {
        if self.runner.is_some() {
            return Err(Failure::new(FailureCode::AgentProtocol, "a worker is given code once"));
        }
        let runner = UnitRunner::load(&self.engine, code)?;
        // Nothing of the kernel has run yet. From here on there is no new code in this process.
        if self.filtered {
            let unsealed =
                |error| Failure::new(FailureCode::AgentWorkerLost, format!("the cage does not close: {error}"));
            cage::seal().map_err(unsealed)?;
        }
        self.runner = Some(runner);
        Ok(())
    }

    fn run(&mut self, task: &Task, asked: &[Digest]) -> ShardResult {
        let Some(runner) = &self.runner else {
            return ShardResult::failed(Failure::new(FailureCode::AgentProtocol, "a worker needs code before a task"));
        };
        let mut inputs = Inputs::none();
        self.asked.retain(|digest, _| asked.contains(digest));
        for reference in &task.inputs {
            let digest = reference.digest;
            if let Some(bytes) = self.inputs.get(&digest) {
                inputs.add(reference, bytes.clone());
            } else if asked.contains(&digest) {
                let new = || Arc::new(Asked::new(Arc::clone(&self.frames), digest));
                let parent = Arc::clone(self.asked.entry(digest).or_insert_with(new));
                inputs.ask(reference, parent);
            }
        }
        if let Duty::Check(Examination { found, .. }) = &task.duty
            && let Some(bytes) = self.inputs.get(&found.digest)
        {
            inputs.set_found(found, bytes.clone());
        }
        let mut last = Instant::now();
        run_shard(runner, task, &inputs, |units| {
            if last.elapsed() >= PROGRESS_EVERY {
                last = Instant::now();
                // A pipe that is gone ends the process through its other end.
                let _ = say(&FromChild::Progress { units });
            }
        })
    }
}
