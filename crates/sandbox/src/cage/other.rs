//! Systems without Linux's guards: resource limits alone, and a report that says so.

use rustix::process::{Resource, Rlimit, setrlimit};

use super::{CageReport, Guard, NativeCode, ProcessLimits};

pub(super) fn enter(limits: ProcessLimits, report: &mut CageReport) {
    let of = |value| Rlimit { current: Some(value), maximum: Some(value) };
    let mut done = setrlimit(Resource::Core, of(0)).and_then(|()| setrlimit(Resource::Fsize, of(0)));
    if let Some(seconds) = limits.cpu_seconds {
        done = done.and_then(|()| setrlimit(Resource::Cpu, of(seconds)));
    }
    report.note(Guard::ResourceLimits, done);
    report.note(Guard::Landlock, Err("this operating system has none"));
}

pub(super) fn close(report: &mut CageReport, _: NativeCode) {
    report.note(Guard::SystemCalls, Err("this operating system has no system call filter"));
}

pub(super) fn seal() -> Result<(), String> {
    Err("this operating system has no system call filter".into())
}
