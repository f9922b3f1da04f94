//! two-stage@1: the reduced output of one stage is the input of the next, and the last one is a reducer of its own.
//!
//! Stage `measure` sums over its piece of the points (i, intercept + slope i); stage `fit`, one unit, reads all sums
//! folded and gives the line through the points, which is the one it was made from.

use forge_sdk_guest::folded::{self, Folded};
use forge_sdk_guest::{
    Failure, Fragment, Kernel, Matrix, Moments, Named, Number, Part, Rectangle, Rows, Task, Tile, arguments,
    export_kernel, items, serde,
};

/// Bytes of folded sums that are read: rows of 16 bytes for each unit of at most 100.
const SUMS_BYTES_MAX: u32 = 1 << 16;

/// The kernel.
pub struct TwoStage;

export_kernel!(TwoStage);

#[derive(serde::Deserialize)]
#[serde(crate = "forge_sdk_guest::serde")]
struct Arguments {
    intercept: f64,
    slope: f64,
}

impl Kernel for TwoStage {
    fn execute(task: &Task) -> Result<Fragment, Failure> {
        let parts = match task.stage.as_str() {
            "measure" => measure(task)?,
            "fit" => fit(&folded::bytes("sums", SUMS_BYTES_MAX)?)?,
            _ => return Err(Failure::Other("no such stage".into())),
        };
        let named = |(name, part): (&str, Part)| Named { name: name.into(), part };
        Ok(Fragment { parts: parts.into_iter().map(named).collect() })
    }
}

type Parts = Vec<(&'static str, Part)>;

fn measure(task: &Task) -> Result<Parts, Failure> {
    let Arguments { intercept, slope } = arguments(task)?;
    let piece = items(task)?;
    let xs = || (piece.first..piece.first + piece.count).map(|i| i as f64);
    let mean = piece.first as f64 + (piece.count - 1) as f64 / 2.0;
    let power = |k: i32| xs().map(|x| (x - mean).powi(k)).sum();
    let moments = Moments { n: piece.count, mean, m2: power(2), m3: power(3), m4: power(4) };
    let mut gram = vec![0.0; 9];
    for x in xs() {
        let point = [1.0, x, intercept + slope * x];
        for (at, sum) in gram.iter_mut().enumerate() {
            *sum += point[at / 3] * point[at % 3];
        }
    }
    let row = [piece.first, piece.count].iter().flat_map(|n| n.to_le_bytes()).collect();
    Ok(vec![
        ("abscissa", Part::Moments(moments)),
        ("gram", Part::MatrixSum(Matrix { rows: 3, columns: 3, values: gram })),
        ("pieces", Part::Rows(Rows { first: task.index, columns: 2, number: Number::Int64, values: row })),
    ])
}

/// The normal equations of a line.
fn fit(bytes: &[u8]) -> Result<Parts, Failure> {
    let other = || Failure::Input("the parts of stage 'measure' are not those expected".into());
    let sums = Folded::read(bytes)?;
    let (
        folded::Part::Moments(abscissa),
        folded::Part::MatrixSum { values, .. },
        folded::Part::Rows { values: rows, .. },
    ) = (sums.part("abscissa")?, sums.part("gram")?, sums.part("pieces")?)
    else {
        return Err(other());
    };
    let &[n, x, y, _, xx, xy, ..] = values.as_slice() else { return Err(other()) };
    let slope = (n * xy - x * y) / (n * xx - x * x);
    let intercept = (y - slope * x) / n;
    let at = Rectangle { row: 0, column: 0, rows: 1, columns: 2 };
    let line = [intercept, slope].iter().flat_map(|value| value.to_le_bytes()).collect();
    Ok(vec![
        ("line", Part::Tile(Tile { at, number: Number::Float64, values: line })),
        ("mean", Part::Sum(abscissa.mean)),
        ("points", Part::Count(abscissa.n)),
        ("units", Part::Count(rows.len() as u64 / 16)),
    ])
}
