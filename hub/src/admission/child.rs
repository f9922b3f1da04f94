//! The child's side: limits first, then one component is read, parsed, and judged.
//!
//! A parser of foreign bytes may be made to loop or to eat memory; here that ends a process that holds nothing.

use std::io::{self, Read as _, Write as _};

use forge_contract::limits::COMPONENT_BYTES_MAX;
use forge_contract::manifest::Manifest;
use forge_contract::{Digest, FailureCode};
use forge_lifecycle::admit;
use serde::{Deserialize, Serialize};

/// The hidden subcommand under which a program must call [`admit_main`].
pub const ADMIT: &str = "__admit";

/// What the child says of a component.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Judged {
    /// It keeps every rule that parsing can tell.
    Sound {
        /// Its digest.
        digest: Digest,
        /// Its size, bytes.
        bytes: u64,
        /// What it says of itself.
        manifest: Box<Manifest>,
    },
    /// It breaks one.
    Refused {
        /// Which family of rules.
        code: FailureCode,
        /// The rule, the offender, the fix.
        detail: String,
    },
}

/// The whole life of a process that judges one component: call it first in `main`, before any thread or runtime.
///
/// Arguments after the subcommand: processor seconds, bytes of address space. The component comes on standard input,
/// the judgement leaves as JSON on standard output.
pub fn admit_main() -> ! {
    // There is nobody to read a message; the code says that something went wrong.
    std::process::exit(i32::from(serve().is_err()))
}

fn serve() -> io::Result<()> {
    let mut numbers = std::env::args().skip(2).map(|text| text.parse::<u64>().map_err(io::Error::other));
    let mut number = || numbers.next().unwrap_or_else(|| Err(io::ErrorKind::InvalidInput.into()));
    let (cpu_seconds, memory_bytes) = (number()?, number()?);
    confine(cpu_seconds, memory_bytes)?;
    let mut component = Vec::new();
    io::stdin().lock().take(COMPONENT_BYTES_MAX + 1).read_to_end(&mut component)?;
    let judged = match admit::inspect_upload(&component) {
        Ok(admitted) => {
            Judged::Sound { digest: admitted.digest, bytes: admitted.bytes, manifest: Box::new(admitted.manifest) }
        }
        Err(error) => Judged::Refused { code: error.code(), detail: error.to_string() },
    };
    let mut out = io::stdout().lock();
    serde_json::to_writer(&mut out, &judged)?;
    out.flush()
}

/// No file can be opened or written, no core is left, and processor and memory end.
#[cfg(unix)]
fn confine(cpu_seconds: u64, memory_bytes: u64) -> io::Result<()> {
    use rustix::process::{Resource, Rlimit, setrlimit};
    let exactly = |value| Rlimit { current: Some(value), maximum: Some(value) };
    let limits = [
        (Resource::Core, exactly(0)),
        (Resource::Fsize, exactly(0)),
        (Resource::Nofile, exactly(3)),
        (Resource::As, exactly(memory_bytes)),
        // The second before the last one is announced by a signal that says what ended it.
        (Resource::Cpu, Rlimit { current: Some(cpu_seconds), maximum: Some(cpu_seconds.saturating_add(1)) }),
    ];
    for (resource, limit) in limits {
        let set = setrlimit(resource, limit).map_err(io::Error::from);
        // Elsewhere not every limit exists; the parent's deadline always does.
        if cfg!(target_os = "linux") {
            set?;
        }
    }
    #[cfg(target_os = "linux")]
    rustix::thread::set_no_new_privs(true)?;
    Ok(())
}

#[cfg(not(unix))]
fn confine(_cpu_seconds: u64, _memory_bytes: u64) -> io::Result<()> {
    Ok(())
}
