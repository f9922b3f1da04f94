//! What a worker of the real program can still do once hostile code has taken it over: nothing.
//!
//! The kernel's machine code is replaced by the attacker's, so the attempts come from the thread, the process and the
//! cage that kernels run in. `cargo test --workspace --test cage -- --nocapture` prints the table.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::print_stdout)]

mod attempts;
mod hijacked;

use std::os::fd::AsRawFd as _;
use std::path::PathBuf;
use std::time::Duration;

use attempts::{Attempt, Must};
use forge_contract::fragment::{Fragment, Part};
use forge_contract::report::Outcome;
use forge_sandbox::{CageLevel, Compiler, Inputs, Worker, WorkerError};
use forge_tests::binary::forgepool;
use tokio::sync::watch;

/// Only a hung attempt takes this long.
const LONG: Duration = Duration::from_secs(60);

async fn worker(program: PathBuf) -> Option<Worker> {
    match Worker::spawn(&program, &["__worker".into()], CageLevel::Required).await {
        Ok(worker) => Some(worker),
        Err(WorkerError::Uncaged { report }) => {
            // Said aloud and not passed over: agents on such a machine refuse untrusted kernels.
            println!("this machine cannot cage untrusted code; nothing to hold it to: {report}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// What the system said: a value, or an error's number.
async fn said(worker: &mut Worker, component: &[u8], attempts: usize, index: usize) -> Result<u64, i32> {
    let task = hijacked::task(component, attempts, index);
    let result = worker.run(&task, &Inputs::none(), LONG, &watch::Sender::new(0)).await.expect("the worker lives");
    let Outcome::Completed(completed) = result.outcome else { panic!("attempt {index}: {:?}", result.outcome) };
    let fragment = Fragment::decode(&completed.fragment).unwrap();
    let Some(Part::Count(value)) = fragment.part("work") else { panic!("{fragment:?}") };
    let signed = value.cast_signed();
    if (-4095..0).contains(&signed) { Err(i32::try_from(-signed).unwrap()) } else { Ok(*value) }
}

fn name_of(error: i32) -> String {
    let name = match error {
        libc::EPERM => "EPERM",
        libc::ENOMEM => "ENOMEM",
        libc::EBADF => "EBADF",
        libc::EACCES => "EACCES",
        libc::EFAULT => "EFAULT",
        libc::EINVAL => "EINVAL",
        libc::ENOSYS => "ENOSYS",
        libc::ESRCH => "ESRCH",
        other => return format!("error {other}"),
    };
    name.to_owned()
}

fn as_it_must(attempt: &Attempt, said: Result<u64, i32>) -> bool {
    let must = match attempt.must {
        Must::Filtered => libc::EPERM,
        Must::NoMemory => libc::ENOMEM,
        Must::NoDescriptor => libc::EBADF,
    };
    said == Err(must)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_was_taken_over_can_do_nothing() {
    let Some(mut worker) = worker(forgepool().to_owned()).await else { return };
    drop(worker);
    // What a careless parent leaves open: a key file without close-on-exec, and a port where somebody listens.
    let secret = tempfile::tempfile().unwrap();
    let inherited = rustix::io::dup(&secret).unwrap();
    rustix::io::fcntl_setfd(&inherited, rustix::io::FdFlags::empty()).unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let attempts = attempts::attempts(std::process::id(), inherited.as_raw_fd(), port);
    let component = hijacked::component(&attempts);

    let compiler = Compiler::new(forgepool().to_owned(), vec!["__compile".into()], CageLevel::Required);
    let code = compiler.compile(&component).await.unwrap();
    worker = self::worker(forgepool().to_owned()).await.unwrap();
    println!("cage: {}", worker.cage());
    worker.load(&hijacked::broken(code)).await.unwrap();
    let (mut escaped, mut table) = (Vec::new(), String::new());
    for (index, attempt) in attempts.iter().enumerate() {
        let said = said(&mut worker, &component, attempts.len(), index).await;
        let words = match said {
            Ok(value) => format!("DONE ({value:#x})"),
            Err(error) => name_of(error),
        };
        table.push_str(&format!("  {:<42} {words}\n", attempt.name));
        if !as_it_must(attempt, said) {
            escaped.push(format!("{}: {words}", attempt.name));
        }
    }
    println!("{} attempts\n{table}", attempts.len());
    assert!(escaped.is_empty(), "not denied as they must be: {escaped:#?}");
    assert!(attempts.len() >= 30);
}

/// The same machine code does make system calls: an attempt that nothing forbids succeeds, so a refusal is the cage's.
#[tokio::test(flavor = "multi_thread")]
async fn the_hijacked_code_really_makes_system_calls() {
    let harmless = |call, name: &str| Attempt { name: name.into(), calls: vec![(call, vec![])], must: Must::Filtered };
    let attempts = vec![harmless(libc::SYS_getpid, "getpid"), harmless(libc::SYS_gettid, "gettid")];
    let component = hijacked::component(&attempts);
    let Some(mut worker) = worker(forgepool().to_owned()).await else { return };
    let compiler = Compiler::new(forgepool().to_owned(), vec!["__compile".into()], CageLevel::Required);
    worker.load(&hijacked::broken(compiler.compile(&component).await.unwrap())).await.unwrap();
    let process = said(&mut worker, &component, attempts.len(), 0).await.unwrap();
    let thread = said(&mut worker, &component, attempts.len(), 1).await.unwrap();
    if worker.cage().holds(forge_sandbox::cage::Guard::PidNamespace) {
        assert_eq!(process, 1, "the first process of its namespace");
    }
    assert_ne!(process, thread, "kernels run in a thread of their own");
}
