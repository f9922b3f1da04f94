//! Medians of repeated rounds, and the table they end in.

/// The middle of some numbers; of an even count, the mean of the two in the middle.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => values[middle],
        _ => (values[middle - 1] + values[middle]) / 2.0,
    }
}

/// The value below which a share of some numbers lies (nearest rank).
pub fn quantile(mut values: Vec<f64>, share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let rank = (share * values.len() as f64).ceil().max(1.0) as usize;
    values.get(rank.min(values.len()) - 1).copied().unwrap_or(f64::NAN)
}

/// A figure of the report.
pub struct Figure {
    name: &'static str,
    value: f64,
    unit: &'static str,
    target: &'static str,
    note: String,
}

/// The report.
#[derive(Default)]
pub struct Report {
    figures: Vec<Figure>,
}

impl Report {
    /// Adds a figure and prints it at once, so that a long run shows what it has.
    pub fn add(&mut self, name: &'static str, value: f64, unit: &'static str, target: &'static str, note: String) {
        let figure = Figure { name, value, unit, target, note };
        println!("{}", line(&figure));
        self.figures.push(figure);
    }

    /// All figures as one JSON object.
    pub fn json(&self) -> serde_json::Value {
        let rows = self.figures.iter().map(|f| {
            let row = serde_json::json!({"value": f.value, "unit": f.unit, "target": f.target, "note": f.note});
            (f.name.to_owned(), row)
        });
        serde_json::Value::Object(rows.collect())
    }
}

fn line(f: &Figure) -> String {
    let value = if f.value >= 1000.0 { format!("{:.0}", f.value) } else { format!("{:.3}", f.value) };
    format!("{:<34} {value:>10} {:<8} {:<16} {}", f.name, f.unit, f.target, f.note)
}
