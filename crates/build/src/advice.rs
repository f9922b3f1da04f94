//! Why a kernel cannot have an import, and what in the author's source asks for it.

/// One sentence for an import that is refused: the cause and the fix in the author's words.
#[must_use]
pub fn advice(import: &str) -> &'static str {
    let interface = import.split('@').next().unwrap_or(import);
    let (package, name) = interface.split_once('/').unwrap_or((interface, ""));
    match (package, name) {
        ("wasi:clocks", "wall-clock") => {
            "kernels have no clock; remove `SystemTime::now` (C: `time`, JavaScript: `Date`), and take the instant as an argument"
        }
        ("wasi:clocks", _) => {
            "kernels have no clock; remove `Instant::now` (C: `clock`, `clock_gettime`), which measures: the pool records each unit's fuel"
        }
        ("wasi:random", _) => {
            "kernels have no entropy; draw from the unit's generator (Rust: `generator(task)`, C: `forge_seeded`), and turn off what seeds a hash map or `rand::rng` from the system"
        }
        ("wasi:sockets" | "wasi:http", _) => {
            "kernels have no network; declare what the kernel reads as an input in kernel.toml and open it by name"
        }
        ("wasi:filesystem", _) => {
            "kernels have no files; remove `std::fs` (C: `fopen`), declare what the kernel reads as an input in kernel.toml and open it by name"
        }
        ("wasi:cli", "stdin") => "kernels have no standard input; take what you read as an argument or an input",
        ("wasi:cli" | "wasi:io", _) => {
            "of WASI only output, an empty environment and exit exist; build for wasm32-unknown-unknown, which imports nothing"
        }
        ("forgepool:kernel", _) => {
            "the only import of the interface is `inputs` in version 1.0.0; build against this version's wit/kernel.wit"
        }
        _ => "nothing of that name exists here; link what it stands for into the kernel",
    }
}

#[cfg(test)]
mod tests {
    use super::advice;

    #[test]
    fn each_import_has_its_cause_and_fix() {
        for (import, word) in [
            ("wasi:clocks/monotonic-clock@0.2.6", "Instant::now"),
            ("wasi:clocks/wall-clock@0.2.0", "SystemTime::now"),
            ("wasi:random/random@0.2.6", "generator(task)"),
            ("wasi:sockets/tcp@0.2.6", "no network"),
            ("wasi:filesystem/types@0.2.6", "std::fs"),
            ("wasi:cli/stdin@0.2.6", "standard input"),
            ("acme:thing/x", "nothing of that name"),
        ] {
            assert!(advice(import).contains(word), "{import}");
        }
    }
}
