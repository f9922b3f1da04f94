//! The cage: what a process gives up before it meets untrusted code.
//!
//! Two steps, because threads are needed and starting one is then forbidden: [`enter`] while there is one thread,
//! [`close`] once all threads exist. Each guard is tried and reported apart; none is assumed.

#[cfg(target_os = "linux")]
mod linux;
#[cfg(not(target_os = "linux"))]
mod other;
#[cfg(target_os = "linux")]
mod syscalls;

#[cfg(target_os = "linux")]
use linux as platform;
#[cfg(not(target_os = "linux"))]
use other as platform;

use core::fmt;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// How much of the cage must hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CageLevel {
    /// Landlock and the system call filter must be in force, else the process does no work.
    Required,
    /// Whatever the machine offers. For one's own kernels, or where the operator has decided so.
    Available,
}

/// One thing a caged process cannot do or reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Guard {
    /// Not root, nor the user that owns the agent's files, where the parent was root.
    User,
    /// No capabilities outside, whatever it holds inside.
    UserNamespace,
    /// No network interface.
    NetNamespace,
    /// No other process to see.
    PidNamespace,
    /// No shared memory or message queue of others.
    IpcNamespace,
    /// No capability.
    Capabilities,
    /// No gain of rights, ever.
    NoNewPrivileges,
    /// Dies with its parent.
    ParentDeath,
    /// Not traced by others, no core file.
    NotDumpable,
    /// Limits of memory, descriptors, files, processor time.
    ResourceLimits,
    /// No file to open, no port to bind or reach.
    Landlock,
    /// Only the system calls that computing needs.
    SystemCalls,
}

impl Guard {
    /// Every guard.
    pub const ALL: [Self; 12] = [
        Self::User,
        Self::UserNamespace,
        Self::NetNamespace,
        Self::PidNamespace,
        Self::IpcNamespace,
        Self::Capabilities,
        Self::NoNewPrivileges,
        Self::ParentDeath,
        Self::NotDumpable,
        Self::ResourceLimits,
        Self::Landlock,
        Self::SystemCalls,
    ];

    /// Its short name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::UserNamespace => "user-ns",
            Self::NetNamespace => "net-ns",
            Self::PidNamespace => "pid-ns",
            Self::IpcNamespace => "ipc-ns",
            Self::Capabilities => "no-capabilities",
            Self::NoNewPrivileges => "no-new-privileges",
            Self::ParentDeath => "parent-death",
            Self::NotDumpable => "not-dumpable",
            Self::ResourceLimits => "resource-limits",
            Self::Landlock => "landlock",
            Self::SystemCalls => "seccomp",
        }
    }
}

/// What is in force in a caged process, and what is not and why.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CageReport {
    guards: BTreeMap<Guard, Result<(), String>>,
}

impl CageReport {
    fn note<E: fmt::Display>(&mut self, guard: Guard, done: Result<(), E>) {
        self.guards.insert(guard, done.map_err(|error| error.to_string()));
    }

    /// Whether a guard is in force.
    #[must_use]
    pub fn holds(&self, guard: Guard) -> bool {
        matches!(self.guards.get(&guard), Some(Ok(())))
    }

    /// Whether untrusted kernels may run here: Landlock and the system call filter are in force.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.holds(Guard::Landlock) && self.holds(Guard::SystemCalls)
    }

    /// The guards in force, in order.
    pub fn in_force(&self) -> impl Iterator<Item = Guard> + '_ {
        self.guards.iter().filter(|(_, done)| done.is_ok()).map(|(guard, _)| *guard)
    }

    /// The guards that are not, with the reason.
    pub fn missing(&self) -> impl Iterator<Item = (Guard, &str)> + '_ {
        Guard::ALL.into_iter().filter_map(|guard| match self.guards.get(&guard) {
            Some(Ok(())) => None,
            Some(Err(reason)) => Some((guard, reason.as_str())),
            None => Some((guard, "not tried")),
        })
    }
}

impl fmt::Display for CageReport {
    /// `landlock seccomp ... missing: pid-ns (reason)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let held: Vec<&str> = self.in_force().map(Guard::name).collect();
        f.write_str(&held.join(" "))?;
        let missing: Vec<String> =
            self.missing().map(|(guard, reason)| format!("{} ({reason})", guard.name())).collect();
        if missing.is_empty() { Ok(()) } else { write!(f, " missing: {}", missing.join(", ")) }
    }
}

/// Exit code of a process that used up its processor time: the shell's for SIGXCPU.
pub const CPU_SPENT: i32 = 152;

/// Limits of a caged process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessLimits {
    /// Memory it may write, bytes (address space alone is not counted: instances reserve far more than they use).
    pub memory_bytes: u64,
    /// Processor time, seconds.
    pub cpu_seconds: Option<u64>,
}

/// Enters everything but the system call filter. One thread must exist, and may come back in another process.
#[must_use]
pub fn enter(limits: ProcessLimits) -> CageReport {
    let mut report = CageReport::default();
    platform::enter(limits, &mut report);
    report
}

/// Whether a process may still take in native code once its cage is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NativeCode {
    /// It has none, or all of it: no memory becomes executable.
    Never,
    /// Its kernel is yet to be loaded; [`seal`] follows.
    UntilSealed,
}

/// Enters the system call filter, for all threads at once: none can be started from here on.
pub fn close(report: &mut CageReport, code: NativeCode) {
    platform::close(report, code);
}

/// Forbids executable memory for good, after the code was loaded into a process closed with
/// [`NativeCode::UntilSealed`].
///
/// # Errors
/// What the system says; the filter of [`close`] stays in force.
pub fn seal() -> Result<(), String> {
    platform::seal()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_tried_is_missing() {
        let mut report = CageReport::default();
        assert!(!report.is_sound());
        assert_eq!(report.missing().count(), Guard::ALL.len());
        report.note(Guard::Landlock, Ok::<(), String>(()));
        report.note(Guard::SystemCalls, Err("no kernel support"));
        assert!(!report.is_sound());
        assert_eq!(report.to_string().split(" missing: ").next(), Some("landlock"));
        assert!(report.to_string().contains("seccomp (no kernel support)"));
        report.note(Guard::SystemCalls, Ok::<(), String>(()));
        assert!(report.is_sound());
    }
}
