//! Parts of an array, as numpy's basic slicing names them: `0:10,:,3`, `::2`, `-1`, `...,0`.
//!
//! A selection says which numbers it takes as runs of equal distance, in the order of the result: reading the runs one after
//! the other gives the part in C order, and nothing else needs to be read.

use super::ArrayType;

/// Longest text of a selection, bytes.
pub const TEXT_BYTES_MAX: usize = 256;
/// What a selection is spelt with, as a regular expression.
pub const PATTERN: &str = "^[-0-9:., ]{1,256}$";

/// Whether a text is spelt as selections are; whether it is one depends on the array.
#[must_use]
pub fn is_spelt(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_digit() || b"-:., ".contains(&byte);
    (1..=TEXT_BYTES_MAX).contains(&text.len()) && text.bytes().all(allowed)
}

/// Why a selection is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SliceError {
    /// The text is no selection.
    #[error("'{found}' is neither an index nor a slice START:STOP:STEP; write it as in numpy, such as 0:10,:,3")]
    Text {
        /// The part that is not.
        found: String,
    },
    /// The text is too long.
    #[error("a selection has at most {TEXT_BYTES_MAX} bytes")]
    Long,
    /// A step of nothing.
    #[error("dimension {dimension}: a step cannot be 0")]
    Step {
        /// Which, from 0.
        dimension: usize,
    },
    /// An index that is not there.
    #[error("dimension {dimension}: the index {index} is not in 0 to {length}, the end excluded")]
    Index {
        /// Which, from 0.
        dimension: usize,
        /// The index as given.
        index: i64,
        /// The dimension's length.
        length: u64,
    },
    /// More indices than dimensions.
    #[error("the selection has {found} indices, the array {dimensions} dimensions")]
    Dimensions {
        /// How many it has.
        found: usize,
        /// How many there are.
        dimensions: usize,
    },
    /// Two ellipses.
    #[error("a selection has one '...' at most")]
    Ellipses,
}

/// One index of a selection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Index {
    At(i64),
    Slice { start: Option<i64>, stop: Option<i64>, step: i64 },
    Rest,
}

/// Numbers at equal distances, counted from the array's first number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// Place of the first.
    pub first: u64,
    /// How many, at least one.
    pub count: u64,
    /// From one to the next; 1 is a run without gaps.
    pub step: i64,
}

impl Run {
    /// Places of the lowest number and of the one after the highest.
    #[must_use]
    pub const fn span(&self) -> (u64, u64) {
        let far = self.step.unsigned_abs() * self.count.saturating_sub(1);
        if self.step < 0 { (self.first - far, self.first + 1) } else { (self.first, self.first + far + 1) }
    }
}

/// A part of an array.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection {
    shape: Vec<u64>,
    first: u64,
    /// Count and distance of each dimension that is not one number long, neighbours joined where they can be.
    axes: Vec<(u64, i64)>,
    count: u64,
}

impl Selection {
    /// The part that this text names.
    ///
    /// # Errors
    /// See [`SliceError`].
    pub fn parse(text: &str, array: &ArrayType) -> Result<Self, SliceError> {
        if text.len() > TEXT_BYTES_MAX {
            return Err(SliceError::Long);
        }
        let indices: Vec<Index> = text.split(',').map(|part| index(part.trim())).collect::<Result<_, _>>()?;
        let indices = spread(indices, array.shape.len())?;
        let mut selection = Self { shape: Vec::new(), first: 0, axes: Vec::new(), count: 1 };
        let mut stride = array.count_after();
        for (dimension, (index, length)) in indices.iter().zip(&array.shape).enumerate() {
            selection.add(dimension, *index, *length, stride.remove(0))?;
        }
        selection.join();
        Ok(selection)
    }

    fn add(&mut self, dimension: usize, index: Index, length: u64, stride: u64) -> Result<(), SliceError> {
        // Lengths and strides of an array that exists are far below 2^63.
        let signed = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        let (start, step, count) = match index {
            Index::At(at) => {
                let place = if at < 0 { at.saturating_add(signed(length)) } else { at };
                let place = u64::try_from(place).ok().filter(|place| *place < length);
                let place = place.ok_or(SliceError::Index { dimension, index: at, length })?;
                self.first += place * stride;
                return Ok(());
            }
            Index::Slice { step: 0, .. } => return Err(SliceError::Step { dimension }),
            Index::Slice { start, stop, step } => bounds(start, stop, step, signed(length)),
            Index::Rest => (0, 1, length),
        };
        self.shape.push(count);
        self.count = self.count.saturating_mul(count);
        if count > 0 {
            self.first += start * stride;
        }
        if count != 1 {
            self.axes.push((count, step.saturating_mul(signed(stride))));
        }
        Ok(())
    }

    /// Joins dimensions that follow each other without a seam.
    fn join(&mut self) {
        let mut joined: Vec<(u64, i64)> = Vec::with_capacity(self.axes.len());
        for (count, distance) in std::mem::take(&mut self.axes).into_iter().rev() {
            match joined.last_mut() {
                Some((inner, step))
                    if i64::try_from(*inner).ok().and_then(|n| n.checked_mul(*step)) == Some(distance) =>
                {
                    *inner = inner.saturating_mul(count);
                }
                _ => joined.push((count, distance)),
            }
        }
        joined.reverse();
        self.axes = joined;
    }

    /// The part's shape: an index alone takes its dimension away.
    #[must_use]
    pub fn shape(&self) -> &[u64] {
        &self.shape
    }

    /// The runs of the part, in its order.
    #[must_use]
    pub fn runs(&self) -> Runs<'_> {
        let (outer, inner) = match self.axes.split_last() {
            Some((inner, outer)) => (outer, *inner),
            None => (&[][..], (1, 1)),
        };
        Runs { outer, inner, at: vec![0; outer.len()], first: self.first, left: self.count > 0 }
    }
}

impl ArrayType {
    /// For each dimension, the distance between neighbours along it.
    fn count_after(&self) -> Vec<u64> {
        let mut strides: Vec<u64> = Vec::with_capacity(self.shape.len());
        for at in 0..self.shape.len() {
            // Where the array is empty no distance matters, and the product could be absurd.
            let after = self.shape.iter().skip(at + 1);
            strides.push(if self.count() == 0 { 0 } else { after.product() });
        }
        strides
    }
}

/// The runs of a selection.
#[derive(Clone, Debug)]
pub struct Runs<'a> {
    outer: &'a [(u64, i64)],
    inner: (u64, i64),
    at: Vec<u64>,
    first: u64,
    left: bool,
}

impl Iterator for Runs<'_> {
    type Item = Run;

    fn next(&mut self) -> Option<Run> {
        if !self.left {
            return None;
        }
        let run = Run { first: self.first, count: self.inner.0, step: self.inner.1 };
        self.left = false;
        for ((count, distance), at) in self.outer.iter().zip(&mut self.at).rev() {
            if *at + 1 < *count {
                *at += 1;
                self.first = self.first.wrapping_add_signed(*distance);
                self.left = true;
                break;
            }
            let back = distance.unsigned_abs() * *at;
            self.first = if *distance < 0 { self.first + back } else { self.first - back };
            *at = 0;
        }
        Some(run)
    }
}

/// First place, step and count of a slice, as Python's `slice.indices` gives them.
fn bounds(start: Option<i64>, stop: Option<i64>, step: i64, length: i64) -> (u64, i64, u64) {
    // With a negative step the place before the first one is an end.
    let (low, high) = if step < 0 { (-1, length - 1) } else { (0, length) };
    let clamp = |value: i64| (if value < 0 { value.saturating_add(length) } else { value }).clamp(low, high);
    let start = start.map_or(if step < 0 { high } else { low }, clamp);
    let stop = stop.map_or(if step < 0 { low } else { high }, clamp);
    let far = if step < 0 { start - stop } else { stop - start };
    let count = u64::try_from(far).map_or(0, |far| far.div_ceil(step.unsigned_abs()));
    (u64::try_from(start).unwrap_or(0), step, count)
}

fn index(text: &str) -> Result<Index, SliceError> {
    let wrong = || SliceError::Text { found: text.chars().take(40).flat_map(char::escape_default).collect() };
    let number = |text: &str| match text.trim() {
        "" => Ok(None),
        digits => digits.parse::<i64>().map(Some).map_err(|_| wrong()),
    };
    if text == "..." {
        return Ok(Index::Rest);
    }
    if text.contains('+') {
        return Err(wrong());
    }
    let parts: Vec<&str> = text.split(':').collect();
    match parts.as_slice() {
        [one] => number(one)?.map(Index::At).ok_or_else(wrong),
        [start, stop] => Ok(Index::Slice { start: number(start)?, stop: number(stop)?, step: 1 }),
        [start, stop, step] => {
            let step = number(step)?.unwrap_or(1);
            Ok(Index::Slice { start: number(start)?, stop: number(stop)?, step })
        }
        _ => Err(wrong()),
    }
}

/// One index for each dimension: an ellipsis, or the end, stands for whole dimensions.
fn spread(indices: Vec<Index>, dimensions: usize) -> Result<Vec<Index>, SliceError> {
    let ellipses = indices.iter().filter(|index| **index == Index::Rest).count();
    if ellipses > 1 {
        return Err(SliceError::Ellipses);
    }
    let found = indices.len() - ellipses;
    let whole = dimensions.checked_sub(found).ok_or(SliceError::Dimensions { found, dimensions })?;
    let rest = std::iter::repeat_n(Index::Rest, whole);
    let at = indices.iter().position(|index| *index == Index::Rest).unwrap_or(indices.len());
    let after = indices.iter().skip(at + 1);
    Ok(indices.iter().take(at).copied().chain(rest).chain(after.copied()).collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;
    use crate::fragment::Number;
    use proptest::prelude::*;

    fn array(shape: &[u64]) -> ArrayType {
        ArrayType::new(Number::Float64, shape.to_vec()).unwrap()
    }

    fn places(selection: &Selection) -> Vec<u64> {
        let place = |run: Run| (0..run.count).map(move |k| run.first.wrapping_add_signed(run.step * k.cast_signed()));
        selection.runs().flat_map(place).collect()
    }

    #[test]
    fn selections_are_those_of_numpy() {
        // numpy.arange(60).reshape(3, 4, 5)[...]
        let cube = array(&[3, 4, 5]);
        for (text, shape, expected) in [
            ("1", &[4, 5][..], (20..40).collect::<Vec<u64>>()),
            ("0:2,:,3", &[2, 4], vec![3, 8, 13, 18, 23, 28, 33, 38]),
            ("-1,-1,-1", &[], vec![59]),
            ("...,0", &[3, 4], (0..60).step_by(5).collect()),
            ("::2,1:3,::-2", &[2, 2, 3], vec![9, 7, 5, 14, 12, 10, 49, 47, 45, 54, 52, 50]),
            ("2:1", &[0, 4, 5], vec![]),
            ("5:", &[0, 4, 5], vec![]),
            ("-2:,3:99,4:1:-1", &[2, 1, 3], vec![39, 38, 37, 59, 58, 57]),
            (" 1 , 2 : 3 ,...", &[1, 5], (30..35).collect()),
        ] {
            let found = Selection::parse(text, &cube).unwrap();
            assert_eq!((found.shape(), places(&found)), (shape, expected), "{text}");
        }
    }

    #[test]
    fn what_lies_together_is_one_run() {
        let cube = array(&[3, 4, 5]);
        let runs = |text| Selection::parse(text, &cube).unwrap().runs().count();
        assert_eq!((runs("..."), runs("1:3"), runs("1,1:3"), runs(":,1:3"), runs("...,0")), (1, 1, 1, 3, 1));
        let all = Selection::parse(":", &cube).unwrap();
        assert_eq!(all.runs().next().unwrap(), Run { first: 0, count: 60, step: 1 });
    }

    #[test]
    fn mistakes_are_named() {
        let matrix = array(&[3, 4]);
        let of = |text: &str| Selection::parse(text, &matrix).unwrap_err();
        for bad in ["", "a", "1:2:3:4", "1.5", "1,,2", "0x1", "9999999999999999999999"] {
            assert!(matches!(of(bad), SliceError::Text { .. }), "{bad}: {:?}", of(bad));
        }
        assert_eq!(of("::0"), SliceError::Step { dimension: 0 });
        assert_eq!(of(":,4"), SliceError::Index { dimension: 1, index: 4, length: 4 });
        assert_eq!(of("-4"), SliceError::Index { dimension: 0, index: -4, length: 3 });
        assert_eq!(of("0,0,0"), SliceError::Dimensions { found: 3, dimensions: 2 });
        assert_eq!(of("...,..."), SliceError::Ellipses);
        assert_eq!(of(&"1".repeat(300)), SliceError::Long);
    }

    /// One index: its text, and the places it takes of a dimension, by Python's own definition of a slice.
    fn one(length: u64) -> impl Strategy<Value = (String, Vec<u64>, bool)> {
        let bound = proptest::option::of(-12_i64..12);
        (bound.clone(), bound, prop_oneof![-4_i64..0, 1_i64..5], any::<bool>(), 0..length.max(1)).prop_map(
            move |(start, stop, step, single, at)| {
                if single && length > 0 {
                    return (at.to_string(), vec![at], true);
                }
                let text = |value: Option<i64>| value.map(|value| value.to_string()).unwrap_or_default();
                let n = length.cast_signed();
                let (low, high) = if step > 0 { (0, n) } else { (-1, n - 1) };
                let fit = |value: i64| (if value < 0 { value + n } else { value }).max(low).min(high);
                let mut place = start.map_or(if step > 0 { low } else { high }, fit);
                let end = stop.map_or(if step > 0 { high } else { low }, fit);
                let mut taken = Vec::new();
                while (step > 0 && place < end) || (step < 0 && place > end) {
                    taken.push(place.cast_unsigned());
                    place += step;
                }
                (format!("{}:{}:{step}", text(start), text(stop)), taken, false)
            },
        )
    }

    /// A shape; for each slice its text, the indices it takes, and whether it keeps its dimension.
    type Case = (Vec<u64>, Vec<(String, Vec<u64>, bool)>);

    fn case() -> impl Strategy<Value = Case> {
        proptest::collection::vec(0_u64..6, 1..=4).prop_flat_map(|shape| {
            let indices: Vec<_> = shape.iter().map(|length| one(*length)).collect();
            (Just(shape), indices)
        })
    }

    proptest! {
        /// Every place of the part, in order, whatever the shape and the slices.
        #[test]
        fn runs_are_the_places_of_the_definition((shape, indices) in case()) {
            let text: Vec<&str> = indices.iter().map(|(text, _, _)| text.as_str()).collect();
            let found = Selection::parse(&text.join(","), &array(&shape)).unwrap();
            let mut expected = vec![0_u64];
            for (length, (_, taken, _)) in shape.iter().zip(&indices) {
                expected = expected.iter().flat_map(|before| taken.iter().map(move |at| before * length + at)).collect();
            }
            let kept: Vec<u64> =
                indices.iter().filter(|(_, _, single)| !single).map(|(_, taken, _)| taken.len() as u64).collect();
            prop_assert_eq!(found.shape(), kept.as_slice());
            prop_assert_eq!(places(&found), expected);
            for run in found.runs() {
                let (low, high) = run.span();
                prop_assert!(low < high && high <= shape.iter().product());
            }
        }

        #[test]
        fn nothing_panics(text in "[-0-9:,. ]{0,30}", shape in proptest::collection::vec(0_u64..1 << 40, 0..=8)) {
            if let Ok(array) = ArrayType::new(Number::Int32, shape) {
                let _ = Selection::parse(&text, &array).map(|found| found.runs().take(100).count());
            }
        }
    }
}
