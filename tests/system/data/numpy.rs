//! The same arrays in numpy and pyarrow, where python3 has them.

use std::path::Path;
use std::process::Command;

use forge_tests::pool::Pool;

use crate::command::{forge, text};

const WRITE: &str = r#"
import sys, numpy as np, pyarrow as pa
folder = sys.argv[1]
cases = {
    "scalar": np.float32(1.5), "line": np.arange(7, dtype=np.int64), "table": np.arange(12.0).reshape(3, 4),
    "cube": np.arange(60, dtype=np.int32).reshape(3, 4, 5), "none": np.zeros((0, 3)), "row": np.arange(5.0).reshape(1, 5),
}
for name, array in cases.items():
    np.save(f"{folder}/{name}.npy", array)
table = cases["table"]
tensors = pa.FixedShapeTensorArray.from_numpy_ndarray(cases["cube"])
column = pa.table({"x": pa.array(cases["line"])})
with pa.ipc.new_stream(f"{folder}/line.arrows", column.schema) as out:
    out.write_table(column, max_chunksize=3)
batch = pa.RecordBatch.from_arrays([tensors], ["x"])
with pa.ipc.new_file(f"{folder}/cube.arrow", batch.schema) as out:
    out.write_batch(batch)
"#;

const READ: &str = r#"
import sys, numpy as np, pyarrow as pa
folder = sys.argv[1]
cube = np.arange(60, dtype=np.int32).reshape(3, 4, 5)
def same(name, expected):
    found = np.load(f"{folder}/{name}")
    assert found.dtype == expected.dtype and found.shape == expected.shape and (found == expected).all(), (name, found)
for name in ["scalar", "line", "table", "cube", "none", "row"]:
    one, two = open(f"{folder}/{name}.npy", "rb").read(), open(f"{folder}/{name}.back", "rb").read()
    assert one == two, name
same("part.npy", cube[::-1, 1:3, ::2])
same("number.npy", cube[-1, 0, 1])
same("line2.back", np.arange(7, dtype=np.int64))
same("cube2.back", cube)
for open_, name in [(pa.ipc.open_stream, "cube.stream"), (pa.ipc.open_file, "cube.file")]:
    column = open_(f"{folder}/{name}").read_all().column(0).combine_chunks()
    found = column.to_numpy_ndarray()
    assert found.shape == cube.shape and (found == cube).all(), (name, found)
print("numpy and pyarrow agree")
"#;

fn python(script: &str, folder: &Path) -> std::io::Result<std::process::Output> {
    let program = std::env::var("FORGEPOOL_TEST_PYTHON").unwrap_or_else(|_| "python3".into());
    Command::new(program).args(["-c", script]).arg(folder).output()
}

#[tokio::test]
async fn numpy_and_pyarrow_read_and_write_alike() {
    let folder = tempfile::tempdir().unwrap();
    if !python("import numpy, pyarrow", folder.path()).is_ok_and(|output| output.status.success()) {
        println!(
            "python3 with numpy and pyarrow is not there: nothing was compared with them (pip install numpy pyarrow)"
        );
        return;
    }
    let wrote = python(WRITE, folder.path()).unwrap();
    assert!(wrote.status.success(), "{}", text(&wrote.stderr));
    let pool = Pool::start(0).await;
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let run = async |args: &[&str]| {
        let output = forge(&pool, args).await;
        assert!(output.status.success(), "{args:?}: {}", text(&output.stderr));
    };
    for name in ["scalar", "line", "table", "cube", "none", "row"] {
        run(&["vmem", "put", name, &path(&format!("{name}.npy"))]).await;
        run(&["vmem", "get", name, "-o", &path(&format!("{name}.back"))]).await;
    }
    for (name, file) in [("line2", "line.arrows"), ("cube2", "cube.arrow")] {
        run(&["vmem", "put", name, &path(file)]).await;
        run(&["vmem", "get", name, "-o", &path(&format!("{name}.back"))]).await;
    }
    run(&["vmem", "get", "cube", "-o", &path("part.npy"), "--slice", "::-1,1:3,::2"]).await;
    run(&["vmem", "get", "cube", "-o", &path("number.npy"), "--slice", "-1,0,1"]).await;
    run(&["vmem", "get", "cube", "-o", &path("cube.stream"), "--format", "arrow"]).await;
    run(&["vmem", "get", "cube", "-o", &path("cube.file"), "--format", "arrow-file"]).await;
    let read = python(READ, folder.path()).unwrap();
    assert!(read.status.success(), "{}", text(&read.stderr));
    println!("{}", text(&read.stdout).trim());
    pool.stop().await;
}
