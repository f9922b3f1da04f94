//! Builds the kernels under `workloads/` into `workloads/dist`, pinned in `workloads/pins.toml`.

/// Arguments of `cargo xtask kernels`.
#[derive(clap::Args)]
pub struct Args {
    /// Rebuild and compare with what is committed; write nothing.
    #[arg(long)]
    pub check: bool,
}

/// Builds every kernel.
pub fn run(_args: &Args) -> anyhow::Result<()> {
    anyhow::bail!("no kernel project found under workloads/")
}
