//! Inputs that are not what the arguments describe: the job fails in the kernel's words, and no agent is blamed.

use forge_tests::contract::changed;
use forge_tests::npy::{self, Matrix};
use forge_tests::pool::Pool;
use serde_json::{Value, json};

use super::{Product, contract, multiply};

/// A good job's contract with A replaced by these bytes.
async fn with_a(pool: &Pool, bytes: Vec<u8>) -> Value {
    let good = Product::<f64>::new((2, 3, 4)).contract(pool).await;
    changed(good, &[("/args/a", json!(pool.api.put_blob(bytes).await))])
}

#[tokio::test]
async fn a_bad_input_is_refused_by_name_with_the_fix() {
    let pool = Pool::start(2).await;
    let good = Matrix::<f64>::random(1, 2, 4).file();
    let data = &[0u8; 64];
    let fix = "np.ascontiguousarray(a, dtype='<f8')";
    let cases = [
        (Matrix::<f64>::random(1, 4, 2).file(), ["shape (4, 2)", "expected (2, 4)"]),
        (npy::file("<f8", false, "(8,)", data), ["shape (8,)", "expected (2, 4)"]),
        (npy::file("<f8", true, "(2, 4)", data), ["fortran_order True", fix]),
        (Matrix::<f32>::random(1, 2, 4).file(), ["'<f4'", fix]),
        (npy::file(">f8", false, "(2, 4)", data), ["'>f8'", fix]),
        (npy::file("<i8", false, "(2, 4)", data), ["'<i8'", fix]),
        (good[..good.len() - 1].to_vec(), ["191 bytes", "expected 192"]),
        ([good.as_slice(), b"\0"].concat(), ["193 bytes", "expected 192"]),
        (b"\x93NUMPY\x01\0\x76\0{'descr'".to_vec(), ["a header that", "numpy.save"]),
        (b"1.0,2.0\n".to_vec(), ["no .npy file", "numpy.save"]),
    ];
    for (bytes, pieces) in cases {
        let answer = pool.api.execute(&with_a(&pool, bytes).await).await;
        assert_eq!(answer.at("/status"), "FAILED", "{}", answer.text);
        assert_eq!(answer.at("/error/code"), "agent.kernel_input", "{}", answer.text);
        let detail = answer.at("/error/detail").as_str().unwrap();
        assert!(detail.contains("input 'a': ") && pieces.iter().all(|piece| detail.contains(piece)), "{detail}");
    }
    let agents = pool.api.get("/api/v0/agents").await;
    for agent in agents.at("/items").as_array().unwrap_or_else(|| panic!("{}", agents.text)) {
        assert_eq!(agent["quarantined"], json!(false), "{agent}");
    }
    multiply(&pool, &Product::<f64>::new((2, 3, 4))).await;
    pool.stop().await;
}

#[tokio::test]
async fn what_the_arguments_leave_out_is_named() {
    let pool = Pool::start(1).await;
    let good = Product::<f64>::new((2, 3, 4)).contract(&pool).await;

    let answer = pool.api.execute(&changed(good.clone(), &[("/args/beta", json!(0.5))])).await;
    assert_eq!(answer.at("/error/code"), "agent.kernel_input", "{}", answer.text);
    assert!(answer.text.contains("there is no input 'c'"), "{}", answer.text);

    let large = json!({"m": 100_000, "n": 50_000, "k": 4, "a": good["args"]["a"], "b": good["args"]["b"]});
    let answer = pool.api.execute(&contract("dgemm", &large)).await;
    assert_eq!((answer.at("/code"), answer.at("/pointer")), (&json!("request.arguments"), &json!("/args/m")));
    let detail = answer.at("/detail").as_str().unwrap();
    assert!(detail.contains("40000000000 bytes") && detail.contains("268435456"), "{detail}");

    let text = changed(good, &[("/args/a", json!("not a digest"))]);
    let answer = pool.api.execute(&text).await;
    assert_eq!((answer.at("/code"), answer.at("/pointer")), (&json!("request.arguments"), &json!("/args/a")));
    pool.stop().await;
}
