//! The system calls that computing needs; every other fails with EPERM.
//!
//! It fails and does not kill, so that a C library which tries something new and can do without it does so.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    apply_filter_all_threads,
};

/// Allowed whatever their arguments: memory, the pipes, locks, signals of this process, time, the end.
const FREE: [i64; 29] = [
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_close,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_mincore,
    // Tells whether the machine has swap: see `memory::residue`.
    libc::SYS_sysinfo,
    libc::SYS_brk,
    libc::SYS_futex,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_clock_gettime,
    libc::SYS_gettimeofday,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_getrandom,
    libc::SYS_restart_syscall,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_membarrier,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

/// What a filter lets through besides [`FREE`].
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Code is yet to be loaded: memory may become executable, and [`Stage::Sealed`] may follow.
    Loading,
    /// For good: no memory becomes executable and no filter follows.
    Sealed,
}

/// Puts the filter in force for every thread of the process.
pub(super) fn filter(stage: Stage) -> Result<(), String> {
    let program = program(stage).map_err(|error| error.to_string())?;
    apply_filter_all_threads(&program).map_err(|error| error.to_string())
}

fn program(stage: Stage) -> Result<BpfProgram, seccompiler::BackendError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = FREE.into_iter().map(|call| (call, Vec::new())).collect();
    // Memory is this process's alone: what is shared is not counted against its limit.
    let private = || without(3, libc::MAP_SHARED);
    let (unwritable, unexecutable) = (|| without(2, libc::PROT_WRITE), || without(2, libc::PROT_EXEC));
    // Memory is writable or executable, never both, and once the code is there never executable.
    let mut map = vec![rule([unexecutable()?, private()?])?];
    let mut protect = vec![rule([unexecutable()?])?];
    if stage == Stage::Loading {
        map.push(rule([unwritable()?, private()?])?);
        protect.push(rule([unwritable()?])?);
        rules.insert(libc::SYS_prctl, vec![rule([equal(0, PR_SET_NO_NEW_PRIVS)?])?]);
        rules.insert(libc::SYS_seccomp, vec![rule([equal(0, SET_MODE_FILTER)?, equal(1, FILTER_FOR_ALL_THREADS)?])?]);
    }
    rules.insert(libc::SYS_mmap, map);
    rules.insert(libc::SYS_mprotect, protect);
    // `abort` signals its own thread; no other signal and no other process, even where it could be named.
    let own = u64::from(std::process::id());
    let abort = rule([equal(0, own)?, equal(2, u64::from(libc::SIGABRT.cast_unsigned()))?])?;
    rules.insert(libc::SYS_tgkill, vec![abort]);
    let action = SeccompAction::Errno(u32::try_from(libc::EPERM).unwrap_or(1));
    let arch = std::env::consts::ARCH.try_into()?;
    SeccompFilter::new(rules, action, SeccompAction::Allow, arch)?.try_into()
}

/// The two calls by which a filter is put in force for all threads.
const PR_SET_NO_NEW_PRIVS: u64 = 38;
const SET_MODE_FILTER: u64 = 1;
const FILTER_FOR_ALL_THREADS: u64 = 1;

fn rule<const N: usize>(conditions: [SeccompCondition; N]) -> Result<SeccompRule, seccompiler::BackendError> {
    SeccompRule::new(conditions.into())
}

/// Argument `index` has none of these bits.
fn without(index: u8, bits: i32) -> Result<SeccompCondition, seccompiler::BackendError> {
    let mask = u64::from(bits.cast_unsigned());
    SeccompCondition::new(index, SeccompCmpArgLen::Dword, SeccompCmpOp::MaskedEq(mask), 0)
}

fn equal(index: u8, value: u64) -> Result<SeccompCondition, seccompiler::BackendError> {
    SeccompCondition::new(index, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value)
}
