//! A distribution as bars of text.

/// Mass between two values.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bin {
    /// Where it begins.
    pub from: f64,
    /// Where it ends.
    pub to: f64,
    /// How much lies in it, in any unit.
    pub mass: f64,
}

const EIGHTHS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];

/// One line per bin: its range, a bar of at most `width` characters, its share of `total`.
#[must_use]
pub fn bars(bins: &[Bin], total: f64, width: u16, label: impl Fn(&Bin) -> String) -> String {
    let largest = bins.iter().map(|bin| bin.mass).fold(0.0, f64::max);
    let labels: Vec<String> = bins.iter().map(label).collect();
    let label_width = labels.iter().map(|text| text.chars().count()).max().unwrap_or(0);
    let mut text = String::new();
    for (bin, label) in bins.iter().zip(&labels) {
        let share = if total > 0.0 { bin.mass / total } else { 0.0 };
        let bar = bar(if largest > 0.0 { bin.mass / largest } else { 0.0 }, width);
        let padding = usize::from(width).saturating_sub(bar.chars().count());
        text.push_str(&format!("  {label:>label_width$} │{bar}{:padding$} {:>6.2} %\n", "", share * 100.0));
    }
    text
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of a bar is small and positive")]
fn bar(share: f64, width: u16) -> String {
    let eighths = (share.clamp(0.0, 1.0) * f64::from(width) * 8.0).round() as usize;
    // Something is there: show that it is.
    let eighths = if share > 0.0 { eighths.max(1) } else { 0 };
    let mut bar = "█".repeat(eighths / 8);
    bar.push_str(EIGHTHS.get(eighths % 8).copied().unwrap_or(""));
    bar
}

/// Bins of `edges` (one more than `counts`), neighbours put together until at most `bins_max` are left.
#[must_use]
pub fn merged(edges: &[f64], counts: &[u64], bins_max: usize) -> Vec<Bin> {
    let together = counts.len().div_ceil(bins_max.max(1)).max(1);
    let bounds = edges.windows(2).filter_map(|pair| Some((*pair.first()?, *pair.last()?)));
    let bins: Vec<Bin> = bounds.zip(counts).map(|((from, to), count)| Bin { from, to, mass: *count as f64 }).collect();
    let merge = |bins: &[Bin]| {
        let (first, last) = (bins.first()?, bins.last()?);
        Some(Bin { from: first.from, to: last.to, mass: bins.iter().map(|bin| bin.mass).sum() })
    };
    bins.chunks(together).filter_map(merge).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bin(from: f64, to: f64, mass: f64) -> Bin {
        Bin { from, to, mass }
    }

    #[test]
    fn merging_keeps_mass_and_range() {
        let merged = merged(&[0.0, 1.0, 2.0, 4.0, 8.0, 16.0], &[5, 4, 3, 2, 1], 3);
        assert_eq!(merged, [bin(0.0, 2.0, 9.0), bin(2.0, 8.0, 5.0), bin(8.0, 16.0, 1.0)]);
        assert_eq!(super::merged(&[], &[], 3), []);
    }

    #[test]
    fn the_longest_bar_fills_the_width_and_a_trace_is_seen() {
        let text =
            bars(&[bin(0.0, 1.0, 1e-9), bin(1.0, 2.0, 3.0), bin(2.0, 3.0, 0.0)], 3.0, 4, |bin| bin.from.to_string());
        assert_eq!(text, "  0 │▏      0.00 %\n  1 │████ 100.00 %\n  2 │       0.00 %\n");
    }
}
