//! Between the kernel's own types and the contract's, moving lists and copying nothing but buckets.

use forge_contract::fragment::{
    Distribution, Extrema, Fragment, Histogram, Matrix, Moments, Named, Number, Part, Rows, Segment, Tile,
};
use forge_contract::task::{Interval, Rectangle, Slice, Task};
use forge_contract::{Failure, FailureCode};

use crate::kernel::bindings::exports::forgepool::kernel::unit as wit;
use crate::trap::cut;

/// The task of one unit as the kernel sees it; `None` where the task has no such unit.
pub(crate) fn task(task: &Task, unit: u64) -> Option<wit::Task> {
    Some(wit::Task {
        profile: task.profile.clone(),
        stage: task.stage.clone(),
        args: task.args.clone(),
        index: unit,
        units: task.cut.units(),
        slice: match task.cut.slice(unit)? {
            Slice::Items { first, count } => wit::Slice::Items(wit::Items { first, count }),
            Slice::Rectangle(r) => wit::Slice::Rectangle(lowered_rectangle(r)),
            Slice::Element(index) => wit::Slice::Element(index),
            Slice::Interval(i) => wit::Slice::Interval(wit::Interval { start: i.start, end: i.end }),
            Slice::Whole => wit::Slice::Whole,
        },
        seed: task.key.0.to_vec(),
    })
}

pub(crate) fn fragment(found: wit::Fragment) -> Fragment {
    let named = |named: wit::Named| Named { name: named.name, part: part(named.part) };
    Fragment { parts: found.parts.into_iter().map(named).collect() }
}

/// One unit's fragment as the kernel sees it; `None` where a part lists other than one piece.
pub(crate) fn lowered(fragment: Fragment) -> Option<wit::Fragment> {
    let named = |named: Named| Some(wit::Named { name: named.name, part: lowered_part(named.part)? });
    Some(wit::Fragment { parts: fragment.parts.into_iter().map(named).collect::<Option<_>>()? })
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

fn part(part: wit::Part) -> Part {
    match part {
        wit::Part::Count(n) => Part::Count(n),
        wit::Part::Sum(x) => Part::Sum(x),
        wit::Part::Moments(m) => Part::Moments(moments(m)),
        wit::Part::Extrema(e) => Part::Extrema(extrema(e)),
        wit::Part::Histogram(h) => Part::Histogram(histogram(h)),
        wit::Part::Distribution(d) => Part::Distribution(Distribution {
            moments: moments(d.moments),
            extrema: extrema(d.extrema),
            histogram: histogram(d.histogram),
        }),
        wit::Part::MatrixSum(m) => Part::MatrixSum(Matrix { rows: m.rows, columns: m.columns, values: m.values }),
        wit::Part::Tile(t) => Part::Tiles(vec![Tile {
            at: Rectangle { row: t.at.row, column: t.at.column, rows: t.at.rows, columns: t.at.columns },
            number: number(t.number),
            values: t.values,
        }]),
        wit::Part::Rows(r) => {
            Part::Rows(Rows { first: r.first, columns: r.columns, number: number(r.number), values: r.values })
        }
        wit::Part::Segment(s) => {
            Part::Segments(vec![Segment { at: Interval { start: s.at.start, end: s.at.end }, media: s.media }])
        }
        wit::Part::Bytes(bytes) => Part::Bytes(bytes),
    }
}

fn lowered_part(part: Part) -> Option<wit::Part> {
    Some(match part {
        Part::Count(n) => wit::Part::Count(n),
        Part::Sum(x) => wit::Part::Sum(x),
        Part::Moments(m) => wit::Part::Moments(lowered_moments(m)),
        Part::Extrema(e) => wit::Part::Extrema(wit::Extrema { min: e.min, max: e.max }),
        Part::Histogram(h) => wit::Part::Histogram(lowered_histogram(h)),
        Part::Distribution(d) => wit::Part::Distribution(wit::Distribution {
            moments: lowered_moments(d.moments),
            extrema: wit::Extrema { min: d.extrema.min, max: d.extrema.max },
            histogram: lowered_histogram(d.histogram),
        }),
        Part::MatrixSum(m) => wit::Part::MatrixSum(wit::Matrix { rows: m.rows, columns: m.columns, values: m.values }),
        Part::Tiles(tiles) => {
            let [tile] = <[Tile; 1]>::try_from(tiles).ok()?;
            wit::Part::Tile(wit::Tile {
                at: lowered_rectangle(tile.at),
                number: lowered_number(tile.number),
                values: tile.values,
            })
        }
        Part::Rows(r) => wit::Part::Rows(wit::Rows {
            first: r.first,
            columns: r.columns,
            number: lowered_number(r.number),
            values: r.values,
        }),
        Part::Segments(segments) => {
            let [segment] = <[Segment; 1]>::try_from(segments).ok()?;
            let at = wit::Interval { start: segment.at.start, end: segment.at.end };
            wit::Part::Segment(wit::Segment { at, media: segment.media })
        }
        Part::Bytes(bytes) => wit::Part::Bytes(bytes),
    })
}

fn lowered_rectangle(r: Rectangle) -> wit::Rectangle {
    wit::Rectangle { row: r.row, column: r.column, rows: r.rows, columns: r.columns }
}

fn lowered_moments(m: Moments) -> wit::Moments {
    wit::Moments { n: m.n, mean: m.mean, m2: m.m2, m3: m.m3, m4: m.m4 }
}

fn lowered_histogram(h: Histogram) -> wit::Histogram {
    let buckets = h.buckets.into_iter().map(|(key, count)| wit::Bucket { key, count }).collect();
    wit::Histogram { mantissa_bits: h.mantissa_bits, buckets }
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

fn histogram(h: wit::Histogram) -> Histogram {
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
