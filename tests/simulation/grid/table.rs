//! The grid as a table, for a terminal and for a page.

use forge_contract::envelope::VerifyMode;

use super::bound;
use super::cell::{Cell, Tally};
use super::gate::{Promise, broken, promise};

const COLUMNS: usize = 17;
const HEAD: [&str; COLUMNS] = [
    "strategy",
    "mode",
    "verifiers",
    "bad %",
    "shards",
    "at first",
    "wrong",
    "rate",
    "bound",
    "slack",
    "attempts",
    "predicted",
    "harmed",
    "faulty out",
    "burned",
    "jobs failed",
    "gate",
];

/// A finished cell.
pub struct Row {
    pub cell: Cell,
    pub tally: Tally,
}

impl Row {
    fn words(&self) -> [String; COLUMNS] {
        let Self { cell, tally } = self;
        let mut strategy = cell.strategy.to_string();
        if let Some(other) = cell.instead {
            strategy = format!("{other}: {strategy}");
        }
        if cell.faulty {
            strategy.push_str(", faulty core");
        }
        if cell.leases > 1 {
            strategy.push_str(", wide");
        }
        if cell.churn {
            strategy.push_str(", churn");
        }
        let broken = broken(cell, tally);
        let gate = match (promise(cell), broken.join("+").as_str()) {
            (Promise::All, "") => "holds".to_owned(),
            (Promise::All, broken) => format!("BREAKS {broken}"),
            (Promise::Nothing, "") => "-".to_owned(),
            (Promise::Nothing, broken) => format!("- ({broken})"),
        };
        let bound = match cell.mode {
            VerifyMode::None => "-".to_owned(),
            _ => scientific(bound::rate(cell)),
        };
        [
            strategy,
            cell.mode.to_string(),
            cell.verifiers.to_string(),
            cell.bad.to_string(),
            tally.delivered.to_string(),
            tally.wrong.to_string(),
            tally.delivered_wrong.to_string(),
            scientific(tally.rate()),
            bound,
            scientific(bound::chance(tally.variance) / tally.delivered.max(1) as f64),
            format!("{:.3}", tally.overhead()),
            format!("{:.3}", tally.overhead_predicted()),
            tally.harmed.to_string(),
            tally.faulty_out.to_string(),
            tally.burned.to_string(),
            tally.jobs_failed.to_string(),
            gate,
        ]
    }

    /// Whether something promised does not hold.
    pub fn fails(&self) -> bool {
        let broken = broken(&self.cell, &self.tally);
        promise(&self.cell) == Promise::All && !broken.is_empty()
    }
}

fn scientific(rate: f64) -> String {
    if rate == 0.0 { "0".to_owned() } else { format!("{rate:.2e}") }
}

/// Columns as wide as their widest word.
pub fn plain(rows: &[Row]) -> String {
    let mut lines: Vec<[String; COLUMNS]> = vec![HEAD.map(str::to_owned)];
    lines.extend(rows.iter().map(Row::words));
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..HEAD.len()).map(width).collect();
    let mut text = String::new();
    for line in &lines {
        let words = line.iter().zip(&widths).enumerate().map(|(column, (word, width))| match column {
            0 | 1 => format!("{word:<width$}"),
            _ if column + 1 == COLUMNS => word.clone(),
            _ => format!("{word:>width$}"),
        });
        text.push_str(&words.collect::<Vec<_>>().join("  "));
        text.push('\n');
    }
    text
}

/// The same for a page.
pub fn markdown(rows: &[Row]) -> String {
    let line = |words: &[String]| format!("| {} |\n", words.join(" | "));
    let head = HEAD.map(str::to_owned);
    let rule = HEAD.map(|word| if word == "strategy" || word == "mode" { "---" } else { "--:" }.to_owned());
    let body: String = rows.iter().map(|row| line(&row.words())).collect();
    format!("{}{}{body}", line(&head), line(&rule))
}
