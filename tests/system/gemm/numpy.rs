//! The same files in numpy, where python3 and numpy are there.

use std::process::Command;

use forge_tests::binary::root;
use forge_tests::npy::Real;
use forge_tests::pool::Pool;

use super::{Product, file};
use crate::answers::digest;

fn python(args: &[&str]) -> Option<std::process::Output> {
    Command::new("python3").args(args).current_dir(root()).output().ok()
}

/// numpy reads the inputs and the result, agrees within the bound, and writes the very file that the hub made.
async fn compare<T: Real>(pool: &Pool, product: &Product<T>) {
    let answer = pool.api.execute(&product.contract(pool).await).await;
    digest(&answer.body);
    let (bytes, _) = file::<T>(pool, &answer.body).await;
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(format!("{name}.npy")).to_string_lossy().into_owned();
    let mut files = vec![("a", product.a.file()), ("b", product.b.file()), ("found", bytes)];
    files.extend(product.c.as_ref().map(|c| ("c", c.file())));
    for (name, bytes) in files {
        std::fs::write(path(name), bytes).unwrap();
    }
    let (alpha, beta) = (product.alpha.to_string(), product.beta.to_string());
    let args = ["tests/benches/peers/gemm_numpy.py", "check", &folder.path().to_string_lossy(), &alpha, &beta];
    let checked = python(&args).unwrap();
    let (out, err) = (String::from_utf8_lossy(&checked.stdout), String::from_utf8_lossy(&checked.stderr));
    assert!(checked.status.success(), "{out}{err}");
    println!("numpy: {}", out.trim());
}

#[tokio::test]
async fn numpy_reads_writes_and_multiplies_alike() {
    if !python(&["-c", "import numpy"]).is_some_and(|output| output.status.success()) {
        println!("python3 with numpy is not there: nothing was compared with numpy (pip install numpy)");
        return;
    }
    let pool = Pool::start(1).await;
    compare(&pool, &Product::<f64>::new((700, 600, 517))).await;
    compare(&pool, &Product::<f64>::new((100, 513, 300)).scaled(-0.3, 1.7)).await;
    compare(&pool, &Product::<f32>::new((520, 100, 1000)).scaled(1.5, 0.25)).await;
    pool.stop().await;
}
