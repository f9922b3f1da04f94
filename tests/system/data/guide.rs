//! `docs/data.md`, word for word.

use forge_tests::binary::{forgepool, root};
use forge_tests::pool::Pool;

use crate::command::text;

#[tokio::test]
async fn the_guide_can_be_followed_to_the_letter() {
    let guide = std::fs::read_to_string(root().join("docs/data.md")).unwrap();
    let blocks: Vec<&str> = guide.split("```sh\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert!(blocks.len() >= 6, "the guide's commands: {blocks:?}");
    let pool = Pool::start(1).await;
    let folder = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(root().join("examples"), folder.path().join("examples")).unwrap();
    let programs = format!("{}:{}", forgepool().parent().unwrap().display(), std::env::var("PATH").unwrap_or_default());
    let mut command = tokio::process::Command::new("bash");
    command
        .args(["-eux", "-o", "pipefail", "-c", &blocks.concat()])
        .current_dir(folder.path())
        .env("PATH", programs)
        .env("FORGEPOOL_URL", &pool.api.url)
        .env("FORGEPOOL_API_KEY", &pool.api.key);
    let output = forge_tests::within("end of the guide", command.output()).await.unwrap();
    assert!(output.status.success(), "{}\n{}", text(&output.stdout), text(&output.stderr));
    // A quarter turn four times is none.
    let file = std::fs::read(folder.path().join("full-turn.npy")).unwrap();
    let turned = forge_tests::npy::Matrix::<f64>::parse(&file);
    assert_eq!(turned.values, [1.0, 0.0, 0.0, 1.0]);
    pool.stop().await;
}
