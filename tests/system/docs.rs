//! Every page's examples are run as they stand: blocks marked `sh`, in order, against a pool of their own.
//!
//! A line `# prints: TEXT` below a command says what that block's output must hold.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;

use forge_tests::binary::{forgepool, root};
use forge_tests::pool::Pool;

use forge_tests::within;
use tokio::process::Command;

/// Between two blocks' outputs: a character that no command prints.
const MARK: char = '\u{1e}';

/// Its walk from an empty folder has a test of its own, which also builds a kernel: `authors.rs`.
const ELSEWHERE: &[&str] = &["kernel-authors.md"];

/// The pages with examples to run, and those examples.
fn pages() -> BTreeMap<String, Vec<String>> {
    let folder = std::fs::read_dir(root().join("docs")).unwrap();
    let files = folder.map(|entry| entry.unwrap().path()).filter(|path| path.extension().is_some_and(|e| e == "md"));
    let page = |path: std::path::PathBuf| {
        let name = path.file_name()?.to_str()?.to_owned();
        let text = std::fs::read_to_string(&path).unwrap();
        let blocks: Vec<String> = text
            .split("\n```sh\n")
            .skip(1)
            .map(|rest| rest.split_once("\n```").unwrap_or_else(|| panic!("{name}: a block has no end")).0.to_owned())
            .collect();
        (!blocks.is_empty() && !ELSEWHERE.contains(&name.as_str())).then_some((name, blocks))
    };
    files.filter_map(page).collect()
}

/// One script of all blocks, so that what one sets the next one has.
fn script(blocks: &[String]) -> String {
    let blocks = blocks.iter().map(|block| format!("printf '{MARK}'\n{block}\n"));
    format!("set -euo pipefail\nexec 2>&1\n{}", blocks.collect::<String>())
}

async fn follow(page: &str, blocks: &[String]) {
    let pool = Pool::start(2).await;
    let folder = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(root().join("examples"), folder.path().join("examples")).unwrap();
    let programs = Path::new(forgepool()).parent().unwrap().to_str().unwrap().to_owned();
    let mut command = Command::new("bash");
    command.args(["-c", &script(blocks)]).current_dir(folder.path()).stdin(Stdio::null()).kill_on_drop(true);
    command.env("PATH", format!("{programs}:{}", std::env::var("PATH").unwrap_or_default()));
    command.env("FORGEPOOL_URL", &pool.api.url).env("FORGEPOOL_API_KEY", &pool.api.key);
    command.env("FORGEPOOL_DATA", pool.dir().join("hub")).env("HUB", pool.quic());
    let output = within(&format!("the end of {page}"), command.output()).await.unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{page} stops in its block {}:\n{said}", said.matches(MARK).count());
    for (block, said) in blocks.iter().zip(said.split(MARK).skip(1)) {
        for wanted in block.lines().filter_map(|line| line.strip_prefix("# prints: ")) {
            assert!(said.contains(wanted.trim()), "{page}: no '{wanted}' in what\n{block}\nprints:\n{said}");
        }
    }
    pool.stop().await;
}

#[tokio::test]
async fn every_example_of_the_pages_runs_as_it_stands() {
    let pages = pages();
    for needed in ["concepts.md", "execution.md", "determinism.md", "replay.md", "clients.md", "operations.md"] {
        assert!(pages.contains_key(needed), "docs/{needed} has no example");
    }
    for (page, blocks) in &pages {
        follow(page, blocks).await;
    }
}
