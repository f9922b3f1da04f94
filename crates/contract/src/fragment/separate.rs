//! Taking a shard's fragment apart into those of its units, where folding lost nothing.

use super::{Fragment, Named, Part};
use crate::manifest::{PartKind, PartSpec};

impl Fragment {
    /// Whether the units of a fragment with these parts can be told apart after folding: every part lists one piece
    /// per unit, in unit order.
    #[must_use]
    pub fn is_separable(parts: &[PartSpec]) -> bool {
        // Rows and bytes are kept too, yet not where one unit's end and the next one's begin.
        !parts.is_empty() && parts.iter().all(|part| matches!(part.kind, PartKind::Tile | PartKind::Segment))
    }

    /// The fragment of one unit out of a shard's: the unit's own, bit for bit. Units are counted from the shard's first.
    ///
    /// `None` where a part is not of a separable kind or has no such piece.
    #[must_use]
    pub fn unit(&self, index: usize) -> Option<Self> {
        let piece = |named: &Named| {
            let part = match &named.part {
                Part::Tiles(tiles) => Part::Tiles(vec![tiles.get(index)?.clone()]),
                Part::Segments(segments) => Part::Segments(vec![segments.get(index)?.clone()]),
                _ => return None,
            };
            Some(Named { name: named.name.clone(), part })
        };
        Some(Self { parts: self.parts.iter().map(piece).collect::<Option<_>>()? })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::tree::Fold;
    use super::super::{Number, Segment, Tile};
    use super::*;
    use crate::task::{Interval, Rectangle};
    use proptest::prelude::*;

    fn spec(kind: PartKind) -> PartSpec {
        PartSpec { name: "x".into(), kind, counts_items: false, shown: true, unit: None }
    }

    fn leaf(unit: u64, tile: Vec<u8>, media: Vec<u8>) -> Fragment {
        let (start, columns) = (i64::try_from(unit).unwrap(), u32::try_from(tile.len()).unwrap());
        let at = Rectangle { row: unit, column: 0, rows: 1, columns };
        let parts = [
            ("c", Part::Tiles(vec![Tile { at, number: Number::Int32, values: tile }])),
            ("film", Part::Segments(vec![Segment { at: Interval { start, end: start + 1 }, media }])),
        ];
        Fragment { parts: parts.map(|(name, part)| Named { name: name.into(), part }).into() }
    }

    #[test]
    fn only_lists_of_pieces_are_separable() {
        let all = [PartKind::Tile, PartKind::Segment].map(spec);
        assert!(Fragment::is_separable(&all));
        for kind in [PartKind::Rows, PartKind::Bytes, PartKind::Count, PartKind::Distribution] {
            assert!(!Fragment::is_separable(&[spec(PartKind::Tile), spec(kind)]));
        }
        assert!(!Fragment::is_separable(&[]));
        let sum = Fragment { parts: vec![Named { name: "x".into(), part: Part::Sum(1.0) }] };
        assert_eq!(sum.unit(0), None);
    }

    proptest! {
        #[test]
        fn units_come_out_as_they_went_in(
            pieces in prop::collection::vec((any::<Vec<u8>>(), any::<Vec<u8>>()), 1..20),
        ) {
            let leaves: Vec<Fragment> =
                (0..).zip(pieces).map(|(unit, (tile, media))| leaf(unit, tile, media)).collect();
            let mut fold = Fold::new(leaves.len() as u64);
            for (unit, leaf) in (0..).zip(&leaves) {
                fold.insert(unit, 1, leaf.clone()).unwrap();
            }
            let folded = fold.finish().unwrap();
            for (index, leaf) in leaves.iter().enumerate() {
                prop_assert_eq!(folded.unit(index).unwrap().encode(), leaf.encode());
            }
            prop_assert_eq!(folded.unit(leaves.len()), None);
        }
    }
}
