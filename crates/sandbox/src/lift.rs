//! Between the kernel's own types and the contract's, moving or borrowing lists and copying nothing but buckets.

use forge_contract::canon::CanonError;
use forge_contract::fragment::{
    Distribution, Extrema, Fragment, Histogram, Matrix, Moments, Named, Number, Part, Rows, Segment, Tile, View, view,
};
use forge_contract::task::{Interval, Rectangle, Slice, Task};
use forge_contract::{Failure, FailureCode};

use crate::kernel::bindings::exports::forgepool::kernel::unit as wit;
use crate::trap::cut;

/// The task of one unit as the kernel sees it; `None` where the task has no such unit.
pub(crate) fn task(task: &Task, unit: u64) -> Option<wit::Task<'_>> {
    Some(wit::Task {
        profile: &task.profile,
        stage: &task.stage,
        args: &task.args,
        index: unit,
        units: task.cut.units(),
        slice: match task.cut.slice(unit)? {
            Slice::Items { first, count } => wit::Slice::Items(wit::Items { first, count }),
            Slice::Rectangle(r) => wit::Slice::Rectangle(lowered_rectangle(r)),
            Slice::Element(index) => wit::Slice::Element(index),
            Slice::Interval(i) => wit::Slice::Interval(lowered_interval(i)),
            Slice::Whole => wit::Slice::Whole,
        },
        seed: &task.key.0,
    })
}

pub(crate) fn fragment(found: wit::FragmentResult) -> Fragment {
    let named = |named: wit::NamedResult| Named { name: named.name, part: part(named.part) };
    Fragment { parts: found.parts.into_iter().map(named).collect() }
}

/// A kernel's refusal. Its text is the kernel's and untrusted: cut, never interpreted.
pub(crate) fn failure(refusal: wit::Failure) -> Failure {
    let (code, text) = match refusal {
        wit::Failure::Arguments(text) => (FailureCode::AgentKernelArguments, text),
        wit::Failure::Input(text) => (FailureCode::AgentKernelInput, text),
        wit::Failure::Numeric(text) => (FailureCode::AgentKernelNumeric, text),
        wit::Failure::Other(text) => (FailureCode::AgentKernelOther, text),
    };
    Failure::new(code, cut(text))
}

fn part(part: wit::PartResult) -> Part {
    match part {
        wit::PartResult::Count(n) => Part::Count(n),
        wit::PartResult::Sum(x) => Part::Sum(x),
        wit::PartResult::Moments(m) => Part::Moments(moments(m)),
        wit::PartResult::Extrema(e) => Part::Extrema(extrema(e)),
        wit::PartResult::Histogram(h) => Part::Histogram(histogram(h)),
        wit::PartResult::Distribution(d) => Part::Distribution(Distribution {
            moments: moments(d.moments),
            extrema: extrema(d.extrema),
            histogram: histogram(d.histogram),
        }),
        wit::PartResult::MatrixSum(m) => Part::MatrixSum(Matrix { rows: m.rows, columns: m.columns, values: m.values }),
        wit::PartResult::Tile(t) => Part::Tiles(vec![Tile {
            at: Rectangle { row: t.at.row, column: t.at.column, rows: t.at.rows, columns: t.at.columns },
            number: number(t.number),
            values: t.values,
        }]),
        wit::PartResult::Rows(r) => {
            Part::Rows(Rows { first: r.first, columns: r.columns, number: number(r.number), values: r.values })
        }
        wit::PartResult::Segment(s) => {
            Part::Segments(vec![Segment { at: Interval { start: s.at.start, end: s.at.end }, media: s.media }])
        }
        wit::PartResult::Bytes(bytes) => Part::Bytes(bytes),
    }
}

/// What was found for a shard, to be lowered unit by unit: tiles stay where they lie.
pub(crate) struct Pieces<'a> {
    parts: Vec<Found<'a>>,
    /// A shard of one unit is that unit's, whatever its parts are.
    whole: bool,
}

/// One part of what was found.
struct Found<'a> {
    name: &'a str,
    view: View<'a>,
    /// As the kernel sees them.
    buckets: Vec<wit::Bucket>,
}

impl<'a> Pieces<'a> {
    /// The pieces of a fragment in canonical bytes, which so many units gave.
    ///
    /// # Errors
    /// `CanonError` where the bytes are no fragment's.
    pub(crate) fn of(found: &'a [u8], units: u64) -> Result<Self, CanonError> {
        let parts = view(found)?.into_iter().map(|(name, view)| Found { name, buckets: buckets(&view), view });
        Ok(Self { parts: parts.collect(), whole: units == 1 })
    }

    /// One unit's parts as the kernel sees them, units counted from the shard's first; `None` where a part has no such
    /// piece or a single unit's lists other than one.
    pub(crate) fn unit(&self, index: u64) -> Option<Vec<wit::NamedParam<'_>>> {
        let at = usize::try_from(index).ok()?;
        self.parts.iter().map(|found| Some(wit::NamedParam { name: found.name, part: self.part(found, at)? })).collect()
    }

    fn part<'b>(&self, found: &'b Found<'_>, at: usize) -> Option<wit::PartParam<'b>> {
        match &found.view {
            View::Tiles(tiles) => {
                let tile = self.piece(tiles, at)?;
                let number = lowered_number(tile.number);
                Some(wit::PartParam::Tile(wit::TileParam {
                    at: lowered_rectangle(tile.at),
                    number,
                    values: tile.values,
                }))
            }
            View::Other(Part::Segments(segments)) => {
                let segment = self.piece(segments, at)?;
                let (at, media) = (lowered_interval(segment.at), segment.media.as_slice());
                Some(wit::PartParam::Segment(wit::SegmentParam { at, media }))
            }
            View::Other(part) => self.whole.then(|| lowered_part(part, &found.buckets)).flatten(),
        }
    }

    /// The unit's piece of a list of them.
    fn piece<'b, T>(&self, pieces: &'b [T], at: usize) -> Option<&'b T> {
        if self.whole && pieces.len() != 1 { None } else { pieces.get(at) }
    }
}

fn buckets(view: &View<'_>) -> Vec<wit::Bucket> {
    match view {
        View::Other(Part::Histogram(histogram) | Part::Distribution(Distribution { histogram, .. })) => {
            histogram.buckets.iter().map(|(key, count)| wit::Bucket { key: *key, count: *count }).collect()
        }
        _ => Vec::new(),
    }
}

/// A part that is no list of pieces.
fn lowered_part<'a>(part: &'a Part, buckets: &'a [wit::Bucket]) -> Option<wit::PartParam<'a>> {
    let histogram = |h: &Histogram| wit::HistogramParam { mantissa_bits: h.mantissa_bits, buckets };
    Some(match part {
        Part::Count(n) => wit::PartParam::Count(*n),
        Part::Sum(x) => wit::PartParam::Sum(*x),
        Part::Moments(m) => wit::PartParam::Moments(lowered_moments(*m)),
        Part::Extrema(e) => wit::PartParam::Extrema(lowered_extrema(*e)),
        Part::Histogram(h) => wit::PartParam::Histogram(histogram(h)),
        Part::Distribution(d) => wit::PartParam::Distribution(wit::DistributionParam {
            moments: lowered_moments(d.moments),
            extrema: lowered_extrema(d.extrema),
            histogram: histogram(&d.histogram),
        }),
        Part::MatrixSum(m) => {
            wit::PartParam::MatrixSum(wit::MatrixParam { rows: m.rows, columns: m.columns, values: &m.values })
        }
        Part::Rows(r) => wit::PartParam::Rows(wit::RowsParam {
            first: r.first,
            columns: r.columns,
            number: lowered_number(r.number),
            values: &r.values,
        }),
        Part::Bytes(bytes) => wit::PartParam::Bytes(bytes),
        Part::Tiles(_) | Part::Segments(_) => return None,
    })
}

fn lowered_rectangle(r: Rectangle) -> wit::Rectangle {
    wit::Rectangle { row: r.row, column: r.column, rows: r.rows, columns: r.columns }
}

fn lowered_moments(m: Moments) -> wit::Moments {
    wit::Moments { n: m.n, mean: m.mean, m2: m.m2, m3: m.m3, m4: m.m4 }
}

fn lowered_extrema(e: Extrema) -> wit::Extrema {
    wit::Extrema { min: e.min, max: e.max }
}

fn lowered_interval(i: Interval) -> wit::Interval {
    wit::Interval { start: i.start, end: i.end }
}

const fn lowered_number(number: Number) -> wit::Number {
    match number {
        Number::Float32 => wit::Number::Float32,
        Number::Float64 => wit::Number::Float64,
        Number::Int32 => wit::Number::Int32,
        Number::Int64 => wit::Number::Int64,
    }
}

fn moments(m: wit::Moments) -> Moments {
    Moments { n: m.n, mean: m.mean, m2: m.m2, m3: m.m3, m4: m.m4 }
}

fn extrema(e: wit::Extrema) -> Extrema {
    Extrema { min: e.min, max: e.max }
}

fn histogram(h: wit::HistogramResult) -> Histogram {
    // Same size and alignment on both sides: the standard library collects in place.
    let buckets = h.buckets.into_iter().map(|bucket| (bucket.key, bucket.count)).collect();
    Histogram { mantissa_bits: h.mantissa_bits, buckets }
}

const fn number(number: wit::Number) -> Number {
    match number {
        wit::Number::Float32 => Number::Float32,
        wit::Number::Float64 => Number::Float64,
        wit::Number::Int32 => Number::Int32,
        wit::Number::Int64 => Number::Int64,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;

    fn named(name: &str, part: Part) -> Named {
        Named { name: name.into(), part }
    }

    fn tile(row: u64, values: &[u8]) -> Tile {
        let at = Rectangle { row, column: 3, rows: 1, columns: u32::try_from(values.len() / 4).unwrap() };
        Tile { at, number: Number::Int32, values: values.into() }
    }

    fn segment(start: i64, media: &[u8]) -> Segment {
        Segment { at: Interval { start, end: start + 5 }, media: media.into() }
    }

    #[test]
    fn a_single_unit_is_lowered_as_it_was_lifted_whatever_its_parts_are() {
        let moments = Moments { n: 2, mean: 1.0, m2: 2.0, m3: 3.0, m4: 4.0 };
        let extrema = Extrema { min: -1.0, max: 7.0 };
        let histogram = Histogram { mantissa_bits: 6, buckets: vec![(3, 1), (9, 4)] };
        let parts = [
            Part::Count(5),
            Part::Sum(0.5),
            Part::Moments(moments),
            Part::Extrema(extrema),
            Part::Histogram(histogram.clone()),
            Part::Distribution(Distribution { moments, extrema, histogram }),
            Part::MatrixSum(Matrix { rows: 1, columns: 2, values: vec![1.5, 2.5] }),
            Part::Tiles(vec![tile(7, &[1, 2, 3, 4])]),
            Part::Rows(Rows { first: 4, columns: 1, number: Number::Float32, values: vec![0, 0, 1, 0] }),
            Part::Segments(vec![segment(-2, b"film")]),
            Part::Bytes(b"bytes".to_vec()),
        ];
        let parts = parts.into_iter().enumerate().map(|(at, part)| named(&at.to_string(), part)).collect();
        let whole = Fragment { parts };
        let bytes = whole.encode();
        let pieces = Pieces::of(&bytes, 1).unwrap();
        let lowered = pieces.unit(0).unwrap();
        let lifted = lowered.iter().map(|found| wit::NamedResult { name: found.name.into(), part: owned(&found.part) });
        assert_eq!(fragment(wit::FragmentResult { parts: lifted.collect() }), whole);
    }

    /// What a kernel would have given.
    fn owned(part: &wit::PartParam<'_>) -> wit::PartResult {
        let histogram = |h: &wit::HistogramParam<'_>| wit::HistogramResult {
            mantissa_bits: h.mantissa_bits,
            buckets: h.buckets.to_vec(),
        };
        match part {
            wit::PartParam::Count(n) => wit::PartResult::Count(*n),
            wit::PartParam::Sum(x) => wit::PartResult::Sum(*x),
            wit::PartParam::Moments(m) => wit::PartResult::Moments(*m),
            wit::PartParam::Extrema(e) => wit::PartResult::Extrema(*e),
            wit::PartParam::Histogram(h) => wit::PartResult::Histogram(histogram(h)),
            wit::PartParam::Distribution(d) => wit::PartResult::Distribution(wit::DistributionResult {
                moments: d.moments,
                extrema: d.extrema,
                histogram: histogram(&d.histogram),
            }),
            wit::PartParam::MatrixSum(m) => wit::PartResult::MatrixSum(wit::MatrixResult {
                rows: m.rows,
                columns: m.columns,
                values: m.values.to_vec(),
            }),
            wit::PartParam::Tile(t) => {
                wit::PartResult::Tile(wit::TileResult { at: t.at, number: t.number, values: t.values.to_vec() })
            }
            wit::PartParam::Rows(r) => wit::PartResult::Rows(wit::RowsResult {
                first: r.first,
                columns: r.columns,
                number: r.number,
                values: r.values.to_vec(),
            }),
            wit::PartParam::Segment(s) => {
                wit::PartResult::Segment(wit::SegmentResult { at: s.at, media: s.media.to_vec() })
            }
            wit::PartParam::Bytes(bytes) => wit::PartResult::Bytes(bytes.to_vec()),
        }
    }

    #[test]
    fn a_shard_comes_apart_into_its_units_pieces_where_it_lies() {
        let tiles = Part::Tiles(vec![tile(0, &[1; 4]), tile(1, &[2; 8])]);
        let parts = vec![named("c", tiles), named("film", Part::Segments(vec![segment(0, b"a"), segment(5, b"b")]))];
        let bytes = Fragment { parts }.encode();
        let pieces = Pieces::of(&bytes, 2).unwrap();
        let second = pieces.unit(1).unwrap();
        let [wit::NamedParam { name: "c", part: wit::PartParam::Tile(tile) }, wit::NamedParam { name: "film", part }] =
            second.as_slice()
        else {
            panic!("a tile and a segment");
        };
        assert_eq!((tile.at.row, tile.values), (1, &[2; 8][..]));
        assert!(bytes.as_ptr_range().contains(&tile.values.as_ptr()), "not copied");
        assert!(matches!(part, wit::PartParam::Segment(wit::SegmentParam { media: b"b", .. })));
        assert!(pieces.unit(2).is_none(), "there is no third");
        // One unit gives one piece; only lists of pieces come apart.
        assert!(Pieces::of(&bytes, 1).unwrap().unit(0).is_none());
        let count = Fragment { parts: vec![named("n", Part::Count(4))] }.encode();
        assert!(Pieces::of(&count, 2).unwrap().unit(0).is_none());
        assert!(Pieces::of(&bytes[..bytes.len() - 1], 2).is_err());
    }
}
