//! A worker process on its own, for tests: `forge-worker run` or `forge-worker compile`.

fn main() {
    match std::env::args().nth(1).as_deref() {
        Some("compile") => forge_sandbox::compile_main(),
        _ => forge_sandbox::worker_main(),
    }
}
