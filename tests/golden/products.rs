//! The inputs of gemm@1's known answers: made here, kept in the files.

use forge_contract::Digest;
use forge_contract::manifest::GoldenInput;
use forge_tests::npy::{Matrix, Real};
use serde_json::{Value, json};

/// One answer to ask for: why, profile, arguments, unit, inputs.
pub struct Question {
    pub why: &'static str,
    pub profile: &'static str,
    pub args: Value,
    pub unit: u64,
    pub inputs: Vec<GoldenInput>,
}

/// What is asked of gemm@1, the goldens of its manifest first.
pub fn questions() -> Vec<Question> {
    vec![
        ask::<f64>("doubles, past one block of k", "dgemm", (3, 5, 300), None, 0),
        ask::<f32>("singles, past one block of k", "sgemm", (5, 9, 260), None, 0),
        ask::<f64>("alpha and beta with C", "dgemm", (6, 4, 9), Some((-1.5, 0.3)), 0),
        ask::<f32>("alpha and beta with C, singles", "sgemm", (4, 8, 5), Some((0.1, 2.5)), 0),
        ask::<f64>("the smallest", "dgemm", (1, 1, 1), None, 0),
        ask::<f64>("the last tile of a grid, one row and column wide", "dgemm", (513, 513, 2), None, 3),
        ask::<f64>("alpha of zero", "dgemm", (2, 3, 4), Some((0.0, 1.0)), 0),
        Question { inputs: not_finite(), ..ask::<f64>("infinities and their NaN", "dgemm", (2, 2, 2), None, 0) }
            .named(),
    ]
}

fn ask<T: Real>(
    why: &'static str,
    profile: &'static str,
    (m, n, k): (usize, usize, usize),
    factors: Option<(f64, f64)>,
    unit: u64,
) -> Question {
    let (a, b, c) = (Matrix::<T>::random(1, m, k), Matrix::<T>::random(2, k, n), Matrix::<T>::random(3, m, n));
    let mut inputs = vec![GoldenInput::new("a", &a.file()), GoldenInput::new("b", &b.file())];
    let mut args = json!({"m": m, "n": n, "k": k});
    if let Some((alpha, beta)) = factors {
        inputs.push(GoldenInput::new("c", &c.file()));
        args["alpha"] = json!(alpha);
        args["beta"] = json!(beta);
    }
    Question { why, profile, args, unit, inputs }.named()
}

/// A B has NaNs of both makings, infinity less infinity and infinity times zero: every processor gives the same bits.
fn not_finite() -> Vec<GoldenInput> {
    let matrix = |values: [f64; 4]| Matrix { rows: 2, columns: 2, values: values.to_vec() }.file();
    let (a, b) = ([f64::INFINITY, f64::NEG_INFINITY, f64::INFINITY, 1.0], [1.0, 0.0, 1.0, 2.0]);
    vec![GoldenInput::new("a", &matrix(a)), GoldenInput::new("b", &matrix(b))]
}

impl Question {
    /// With the arguments that name the inputs' digests.
    fn named(mut self) -> Self {
        for input in &self.inputs {
            self.args[input.name.as_str()] = json!(Digest::of(&input.bytes().unwrap()).to_string());
        }
        self
    }
}
