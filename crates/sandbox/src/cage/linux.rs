//! Linux: namespaces, Landlock, seccomp, limits.

use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, CompatLevel, Compatible as _, Ruleset, RulesetAttr as _, RulesetStatus,
    Scope,
};
use rustix::process::{
    DumpableBehavior, Pid, Resource, Rlimit, Signal, WaitOptions, chdir, geteuid, kill_process, set_dumpable_behavior,
    set_parent_process_death_signal, setrlimit, waitpid,
};
use rustix::thread::{
    CapabilitySet, CapabilitySets, Gid, Uid, UnshareFlags, set_capabilities, set_no_new_privs, set_thread_groups,
    set_thread_res_gid, set_thread_res_uid,
};

use super::syscalls::{self, Stage};
use super::{CageReport, Guard, NativeCode, ProcessLimits};

/// The user that owns nothing.
const NOBODY: u32 = 65_534;

pub(super) fn enter(limits: ProcessLimits, report: &mut CageReport) {
    // Before anything that needs a path: later there are none.
    let moved = chdir("/");
    let closed = close_inherited();
    enter_namespaces(report);
    report.note(Guard::NoNewPrivileges, set_no_new_privs(true));
    let none = CapabilitySet::empty();
    let sets = CapabilitySets { effective: none, permitted: none, inheritable: none };
    report.note(Guard::Capabilities, set_capabilities(None, sets));
    // Changing the user clears this, so it comes after.
    report.note(Guard::ParentDeath, set_parent_process_death_signal(Some(Signal::KILL)));
    report.note(Guard::NotDumpable, set_dumpable_behavior(DumpableBehavior::NotDumpable));
    report.note(Guard::Landlock, landlock());
    report.note(Guard::ResourceLimits, moved.and(closed).and_then(|()| set_limits(limits)).map_err(io::Error::from));
}

pub(super) fn close(report: &mut CageReport, code: NativeCode) {
    // Threads are made by now; the filter forbids more, this forbids them once more.
    let threads = setrlimit(Resource::Nproc, exactly(0)).map_err(io::Error::from);
    let stage = match code {
        NativeCode::Never => Stage::Sealed,
        NativeCode::UntilSealed => Stage::Loading,
    };
    let filtered = syscalls::filter(stage).map_err(io::Error::other);
    report.note(Guard::SystemCalls, filtered.and(threads));
}

pub(super) fn seal() -> Result<(), String> {
    syscalls::filter(Stage::Sealed)
}

/// Descriptors that a careless parent left open.
fn close_inherited() -> rustix::io::Result<()> {
    #[expect(unsafe_code, reason = "close_range has no safe wrapper")]
    // SAFETY: this runs first in a fresh program with one thread, which owns no descriptor but the standard three.
    let closed = unsafe { libc::syscall(libc::SYS_close_range, 3u32, u32::MAX, 0u32) };
    if closed == 0 { Ok(()) } else { Err(rustix::io::Errno::from_raw_os_error(last_errno())) }
}

fn last_errno() -> i32 {
    io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

fn enter_namespaces(report: &mut CageReport) {
    let apart = [
        (Guard::NetNamespace, UnshareFlags::NEWNET),
        (Guard::IpcNamespace, UnshareFlags::NEWIPC),
        (Guard::PidNamespace, PID),
    ];
    let was_root = geteuid().is_root();
    if was_root {
        // With root's rights no user namespace is needed for the others, so a machine that forbids it keeps them.
        for (guard, flag) in apart {
            report.note(guard, unshare(flag));
        }
        report.note(Guard::User, become_nobody());
        report.note(Guard::UserNamespace, unshare(UnshareFlags::NEWUSER));
    } else {
        report.note(Guard::User, Ok::<(), io::Error>(()));
        report.note(Guard::UserNamespace, unshare(UnshareFlags::NEWUSER));
        for (guard, flag) in apart {
            report.note(guard, unshare(flag));
        }
    }
    if report.holds(Guard::PidNamespace) {
        report.note(Guard::PidNamespace, become_first_process());
    }
}

/// The flag of a namespace for children.
const PID: UnshareFlags = UnshareFlags::NEWPID;

fn unshare(flags: UnshareFlags) -> io::Result<()> {
    #[expect(unsafe_code, reason = "unshare is unsafe for flags that part descriptors or memory between threads")]
    // SAFETY: there is one thread, and the flags are those of namespaces.
    let done = unsafe { rustix::thread::unshare_unsafe(flags) };
    done.map_err(io::Error::from)
}

/// Gives up root for good: all three user and group ids, and every other group.
fn become_nobody() -> io::Result<()> {
    let (user, group) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
    set_thread_groups(&[])?;
    set_thread_res_gid(group, group, group)?;
    set_thread_res_uid(user, user, user)?;
    Ok(())
}

/// Forks: the child is the first process of the new namespace and returns from here; this process waits for it and
/// ends as it did, so that whoever started this one sees how the other ended.
fn become_first_process() -> io::Result<()> {
    #[expect(unsafe_code, reason = "fork has no safe wrapper")]
    // SAFETY: there is one thread, so the child has every lock in a known state.
    let child = unsafe { libc::fork() };
    match child {
        0 => Ok(()),
        -1 => Err(io::Error::last_os_error()),
        child => wait_and_end(child),
    }
}

/// Watches over the first process: ends it when the parent's pipe closes, and ends as it ended.
fn wait_and_end(child: libc::pid_t) -> ! {
    let _ = set_parent_process_death_signal(Some(Signal::KILL));
    #[expect(unsafe_code, reason = "standard output is closed by number")]
    // SAFETY: nothing in this process writes from here on, and the pipe must close when the child ends.
    unsafe {
        libc::close(1);
    }
    let Some(pid) = Pid::from_raw(child) else { std::process::exit(1) };
    let by_itself = wait_for_either(pid);
    // It has ended, or must: the parent is gone or wants it gone, and it may not be what it was.
    let _ = kill_process(pid, Signal::KILL);
    loop {
        match waitpid(Some(pid), WaitOptions::empty()) {
            Err(rustix::io::Errno::INTR) => {}
            // Asked to end, it ends well, whoever was quicker: it at its own end of the pipe or the signal.
            Ok(Some(_)) if !by_itself => std::process::exit(0),
            Ok(Some((_, status))) => std::process::exit(ended_as(status)),
            Ok(None) | Err(_) => std::process::exit(1),
        }
    }
}

/// Returns when the child has ended (true; it is not collected yet) or the other end of standard input is closed.
fn wait_for_either(child: Pid) -> bool {
    let Ok(child) = rustix::process::pidfd_open(child, rustix::process::PidfdFlags::empty()) else {
        wait_for_pipe(None);
        // Nobody knows which it was: the status tells.
        return true;
    };
    wait_for_pipe(Some(&child))
}

fn wait_for_pipe(child: Option<&OwnedFd>) -> bool {
    // A negative descriptor is ignored; a closed pipe is reported without being asked for.
    let ended = libc::pollfd { fd: child.map_or(-1, |fd| fd.as_raw_fd()), events: libc::POLLIN, revents: 0 };
    let mut either = [ended, libc::pollfd { fd: 0, events: 0, revents: 0 }];
    loop {
        #[expect(unsafe_code, reason = "poll has no safe wrapper here")]
        // SAFETY: the array outlives the call and its length is given.
        let ready = unsafe { libc::poll(either.as_mut_ptr(), 2, -1) };
        if ready != -1 || last_errno() != libc::EINTR {
            return either.first().is_some_and(|ended| ended.revents != 0);
        }
    }
}

/// The shell's convention: 128 and the signal.
fn ended_as(status: rustix::process::WaitStatus) -> i32 {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => code,
        (None, Some(signal)) => 128 + signal,
        (None, None) => 1,
    }
}

/// Denies every file, port, abstract socket and signal Landlock knows of; there are no exceptions.
fn landlock() -> Result<(), String> {
    let text = |error: landlock::RulesetError| error.to_string();
    let status = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(ABI::V6))
        .and_then(|rules| rules.handle_access(AccessNet::from_all(ABI::V6)))
        .and_then(|rules| rules.scope(Scope::from_all(ABI::V6)))
        .and_then(Ruleset::create)
        .and_then(|rules| rules.restrict_self())
        .map_err(text)?;
    match status.ruleset {
        RulesetStatus::FullyEnforced | RulesetStatus::PartiallyEnforced => Ok(()),
        RulesetStatus::NotEnforced => Err("the operating system's kernel has no Landlock".into()),
    }
}

fn exactly(value: u64) -> Rlimit {
    Rlimit { current: Some(value), maximum: Some(value) }
}

fn set_limits(limits: ProcessLimits) -> rustix::io::Result<()> {
    // Address space is left alone: an instance reserves 4 GiB of it and touches little.
    setrlimit(Resource::Data, exactly(limits.memory_bytes))?;
    setrlimit(Resource::Core, exactly(0))?;
    setrlimit(Resource::Fsize, exactly(0))?;
    setrlimit(Resource::Memlock, exactly(0))?;
    // The standard three are open; no other can be.
    setrlimit(Resource::Nofile, exactly(3))?;
    if let Some(seconds) = limits.cpu_seconds {
        end_when_time_is_up()?;
        // The soft limit lets the process say why it ends; the hard one does not ask.
        setrlimit(Resource::Cpu, Rlimit { current: Some(seconds), maximum: Some(seconds.saturating_add(2)) })?;
    }
    Ok(())
}

/// Turns SIGXCPU into an exit code. Left to itself, the first process of a namespace does not even notice it.
fn end_when_time_is_up() -> rustix::io::Result<()> {
    extern "C" fn end(_: libc::c_int) {
        #[expect(unsafe_code, reason = "a signal handler may call nothing that is not async-signal-safe")]
        // SAFETY: `_exit` is async-signal-safe and does not return.
        unsafe {
            libc::_exit(super::CPU_SPENT)
        }
    }
    let handler: extern "C" fn(libc::c_int) = end;
    #[expect(unsafe_code, reason = "setting a signal handler has no safe wrapper")]
    // SAFETY: the handler is a function of the signature that `signal` documents, and does nothing but end the process.
    let before = unsafe { libc::signal(libc::SIGXCPU, handler as usize) };
    if before == libc::SIG_ERR { Err(rustix::io::Errno::from_raw_os_error(last_errno())) } else { Ok(()) }
}
