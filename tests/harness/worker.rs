//! The child program of tests: what agents do behind a hidden subcommand.

fn main() {
    match std::env::args().nth(1).as_deref() {
        Some("compile") => forge_sandbox::compile_main(),
        _ => forge_sandbox::worker_main(),
    }
}
