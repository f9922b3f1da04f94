//! The fixed reduction tree.
//!
//! Units are the leaves of one binary tree: node (level, i) combines (level-1, 2i) and (level-1, 2i+1) where the
//! right one exists, else it is the left one unchanged. An aligned power-of-two run of units is a whole subtree, so a
//! shard folded by an agent is the very node the hub needs, and the bits never depend on how the work was cut.

use std::collections::BTreeMap;

use super::{CombineError, Fragment};

/// Folds aligned runs of units, in any order of arrival, along the tree.
///
/// Holds only nodes whose sibling is still missing: at most one per level and gap.
#[derive(Debug, Clone)]
pub struct Fold {
    units: u64,
    nodes: BTreeMap<(u32, u64), Fragment>,
}

/// Why a run cannot be placed in the tree.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FoldError {
    /// Not an aligned power-of-two run within the units, or one already there.
    #[error("units {first}..+{count} are no free node of a tree of {units} units")]
    Misplaced {
        /// First unit.
        first: u64,
        /// Number of units.
        count: u64,
        /// Units of the tree.
        units: u64,
    },
    /// Two neighbours do not fit.
    #[error(transparent)]
    Combine(#[from] CombineError),
}

impl Fold {
    /// An empty tree of `units` leaves.
    #[must_use]
    pub fn new(units: u64) -> Self {
        Self { units, nodes: BTreeMap::new() }
    }

    /// Places the fragment of units `first .. first + count` and folds upward as far as siblings allow.
    ///
    /// The run must be a node: `first` a multiple of `2^level`, `count` equal to `2^level` or cut short by the end.
    ///
    /// # Errors
    /// `Misplaced`, `Combine`.
    pub fn insert(&mut self, first: u64, count: u64, fragment: Fragment) -> Result<(), FoldError> {
        let misplaced = FoldError::Misplaced { first, count, units: self.units };
        let Some(end) = first.checked_add(count).filter(|end| count > 0 && *end <= self.units) else {
            return Err(misplaced);
        };
        let span = count.next_power_of_two();
        let whole = count == span || end == self.units;
        if !whole || !first.is_multiple_of(span) {
            return Err(misplaced);
        }
        let (mut level, mut index, mut node) = (span.trailing_zeros(), first / span, fragment);
        if self.nodes.contains_key(&(level, index)) {
            return Err(misplaced);
        }
        while self.width(level) > 1 {
            let sibling = index ^ 1;
            if index & 1 == 1 {
                let Some(mut left) = self.nodes.remove(&(level, sibling)) else { break };
                left.combine(node)?;
                node = left;
            } else if sibling < self.width(level) {
                let Some(right) = self.nodes.remove(&(level, sibling)) else { break };
                node.combine(right)?;
            }
            level += 1;
            index /= 2;
        }
        self.nodes.insert((level, index), node);
        Ok(())
    }

    /// Nodes at a level.
    fn width(&self, level: u32) -> u64 {
        1u64.checked_shl(level).map_or(1, |span| self.units.div_ceil(span))
    }

    /// The root, once every unit is in.
    #[must_use]
    pub fn finish(mut self) -> Option<Fragment> {
        let root = self.root()?;
        self.nodes.remove(&root)
    }

    /// The root by reference, once every unit is in.
    #[must_use]
    pub fn peek(&self) -> Option<&Fragment> {
        self.nodes.get(&self.root()?)
    }

    /// The fold of exactly the units `0 .. count`, where these and no others are in: the root of a tree of `count`
    /// units, bit for bit. `None` where another set of units is in.
    ///
    /// # Errors
    /// `Combine`.
    pub fn prefix(&self, count: u64) -> Result<Option<Fragment>, FoldError> {
        if count >= self.units {
            return Ok(self.peek().filter(|_| count == self.units).cloned());
        }
        // Whole subtrees side by side, each smaller than the one before: the tree of `count` units folds them from
        // the right.
        let mut nodes: Vec<(u64, u32, &Fragment)> =
            self.nodes.iter().map(|((level, index), node)| (index << level, *level, node)).collect();
        nodes.sort_unstable_by_key(|(first, ..)| *first);
        let mut end = 0;
        for (first, level, _) in &nodes {
            if *first != end {
                return Ok(None);
            }
            end += 1 << level;
        }
        if end != count {
            return Ok(None);
        }
        let mut folded: Option<Fragment> = None;
        for (_, _, node) in nodes.into_iter().rev() {
            let mut left = node.clone();
            if let Some(right) = folded.take() {
                left.combine(right)?;
            }
            folded = Some(left);
        }
        Ok(folded)
    }

    fn root(&self) -> Option<(u32, u64)> {
        let (key, _) = self.nodes.first_key_value()?;
        (self.nodes.len() == 1 && self.width(key.0) == 1).then_some(*key)
    }

    /// The nodes held, by level and index: what a partial answer is made of.
    pub fn nodes(&self) -> impl Iterator<Item = &Fragment> {
        self.nodes.values()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::{Named, Part};
    use super::*;
    use proptest::prelude::*;

    /// A sum whose bits depend on the order of additions.
    fn leaf(unit: u64) -> Fragment {
        let value = (unit as f64 + 0.1) * 1.1f64.powi(i32::try_from(unit % 40).unwrap() - 20);
        Fragment {
            parts: vec![
                Named { name: "s".into(), part: Part::Sum(value) },
                Named { name: "b".into(), part: Part::Bytes(vec![(unit & 0xff) as u8]) },
            ],
        }
    }

    /// The definition, recursively.
    fn reference(level: u32, index: u64, units: u64) -> Fragment {
        if level == 0 {
            return leaf(index);
        }
        let mut left = reference(level - 1, 2 * index, units);
        if 2 * index + 1 < units.div_ceil(1 << (level - 1)) {
            left.combine(reference(level - 1, 2 * index + 1, units)).unwrap();
        }
        left
    }

    fn run(first: u64, count: u64) -> Fragment {
        let mut fold = Fold::new(count);
        for unit in 0..count {
            fold.insert(unit, 1, leaf(first + unit)).unwrap();
        }
        fold.finish().unwrap()
    }

    /// Cuts 0..units into aligned runs, choosing sizes by the given numbers.
    fn cuts(units: u64, choices: &[u32]) -> Vec<(u64, u64)> {
        let (mut runs, mut first, mut at) = (Vec::new(), 0u64, 0usize);
        while first < units {
            let aligned =
                if first == 0 { 63 - units.next_power_of_two().leading_zeros() } else { first.trailing_zeros() };
            let level = choices[at % choices.len()] % (aligned.min(7) + 1);
            at += 1;
            runs.push((first, (1u64 << level).min(units - first)));
            first += 1 << level;
        }
        runs
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(600))]
        #[test]
        fn any_cut_in_any_order_gives_the_same_bits(
            units in 1u64..200,
            choices in prop::collection::vec(0u32..8, 1..20),
            order in any::<u64>(),
        ) {
            let mut runs = cuts(units, &choices);
            let mut state = order;
            for i in (1..runs.len()).rev() {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                runs.swap(i, usize::try_from(state >> 33).unwrap() % (i + 1));
            }
            let mut fold = Fold::new(units);
            for (first, count) in runs {
                prop_assert!(fold.peek().is_none());
                fold.insert(first, count, run(first, count)).unwrap();
            }
            let level = 64 - (units - 1).leading_zeros();
            let expected = reference(if units == 1 { 0 } else { level }, 0, units);
            prop_assert_eq!(fold.finish().unwrap().encode(), expected.encode());
        }
    }

    proptest! {
        #[test]
        fn a_prefix_is_the_tree_of_its_units(
            units in 2u64..200,
            at in any::<prop::sample::Index>(),
            level in 0u32..4,
            order in any::<u64>(),
        ) {
            let span = 1u64 << level;
            let count = (at.index(usize::try_from(units.div_ceil(span)).unwrap()) as u64 + 1) * span;
            let mut runs: Vec<u64> = (0..count / span).map(|run| run * span).collect();
            let mut state = order;
            for i in (1..runs.len()).rev() {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                runs.swap(i, usize::try_from(state >> 33).unwrap() % (i + 1));
            }
            let count = count.min(units);
            let mut fold = Fold::new(units);
            for first in runs {
                prop_assert_eq!(fold.prefix(count).unwrap(), None);
                let length = span.min(units - first);
                fold.insert(first, length, run(first, length)).unwrap();
            }
            prop_assert_eq!(fold.prefix(count).unwrap().unwrap().encode(), run(0, count).encode());
            prop_assert_eq!(fold.prefix(count + 1).unwrap(), None);
        }
    }

    #[test]
    fn misplaced_runs_are_refused() {
        let mut fold = Fold::new(10);
        assert!(fold.insert(1, 2, run(1, 2)).is_err());
        assert!(fold.insert(0, 3, run(0, 3)).is_err());
        assert!(fold.insert(8, 4, run(8, 4)).is_err());
        assert!(fold.insert(0, 0, leaf(0)).is_err());
        fold.insert(8, 2, run(8, 2)).unwrap();
        fold.insert(0, 2, run(0, 2)).unwrap();
        assert!(fold.insert(0, 2, run(0, 2)).is_err());
        assert!(fold.finish().is_none());
    }

    #[test]
    fn folding_order_matters_to_these_leaves() {
        // Guards the test above: a plain left fold must give other bits, else the property proves nothing.
        let mut plain = leaf(0);
        for unit in 1..100 {
            plain.combine(leaf(unit)).unwrap();
        }
        assert_ne!(plain.encode(), run(0, 100).encode());
    }
}
