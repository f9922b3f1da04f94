//! The types of the kernel's functions, written out and compared as text.

use wasmparser::component_types::{ComponentDefinedType, ComponentEntityType, ComponentValType};
use wasmparser::types::Types;

use super::{AdmitError, CHECKS, UNIT};

macro_rules! task {
    () => {
        "record{profile: string, stage: string, args: string, index: u64, units: u64, \
slice: variant{items(record{first: u64, count: u64}), rectangle(record{row: u64, column: u64, rows: u32, columns: u32}), \
element(u64), interval(record{start: s64, end: s64}), whole}, seed: list<u8>}"
    };
}
macro_rules! fragment {
    () => {
        "record{parts: list<record{name: string, \
part: variant{count(u64), sum(f64), moments(record{n: u64, mean: f64, m2: f64, m3: f64, m4: f64}), \
extrema(record{min: f64, max: f64}), histogram(record{mantissa-bits: u8, buckets: list<record{key: u32, count: u64}>}), \
distribution(record{moments: record{n: u64, mean: f64, m2: f64, m3: f64, m4: f64}, extrema: record{min: f64, max: f64}, \
histogram: record{mantissa-bits: u8, buckets: list<record{key: u32, count: u64}>}}), \
matrix-sum(record{rows: u32, columns: u32, values: list<f64>}), \
tile(record{at: record{row: u64, column: u64, rows: u32, columns: u32}, number: enum{float32, float64, int32, int64}, values: list<u8>}), \
rows(record{first: u64, columns: u32, number: enum{float32, float64, int32, int64}, values: list<u8>}), \
segment(record{at: record{start: s64, end: s64}, media: list<u8>}), bytes(list<u8>)}}>}"
    };
}
macro_rules! failure {
    () => {
        "variant{arguments(string), input(string), numeric(string), other(string)}"
    };
}

/// `execute` of wit/kernel.wit with every named type written out. Two types are equal when their texts are.
pub const EXECUTE: &str = concat!("func(task: ", task!(), ") -> result<", fragment!(), ", ", failure!(), ">");
/// `check` of it.
pub const CHECK: &str = concat!(
    "func(task: ",
    task!(),
    ", found: ",
    fragment!(),
    ", challenge: list<u8>) -> result<variant{sound(f64), wrong(string)}, ",
    failure!(),
    ">"
);

/// Deepest nesting of types written out.
const DEPTH_MAX: usize = 16;

/// Checks that `execute` has the interface's type.
pub fn check(types: &Types) -> Result<(), AdmitError> {
    let found = function(types, UNIT, "execute").unwrap_or_else(|| "missing".into());
    if found == EXECUTE { Ok(()) } else { Err(AdmitError::UnitType { found: shorten(&found), expected: EXECUTE }) }
}

/// Checks that `check` has the interface's type.
pub fn check_checks(types: &Types) -> Result<(), AdmitError> {
    let found = function(types, CHECKS, "check").unwrap_or_else(|| "missing".into());
    if found == CHECK { Ok(()) } else { Err(AdmitError::CheckType { found: shorten(&found), expected: CHECK }) }
}

fn shorten(text: &str) -> String {
    if text.len() <= 2000 { text.to_owned() } else { text.chars().take(2000).chain("...".chars()).collect() }
}

fn function(types: &Types, interface: &str, name: &str) -> Option<String> {
    let ComponentEntityType::Instance(instance) = types.component_item_for_export(interface)?.ty else { return None };
    let ComponentEntityType::Func(function) = types.as_ref().get(instance)?.exports.get(name)?.ty else {
        return None;
    };
    let function = types.as_ref().get(function)?;
    let mut text = String::from(if function.async_ { "async func(" } else { "func(" });
    list(&mut text, function.params.iter(), |text, (name, ty)| {
        text.push_str(name);
        text.push_str(": ");
        value(types, ty, 0, text);
    });
    text.push(')');
    if let Some(result) = &function.result {
        text.push_str(" -> ");
        value(types, result, 0, &mut text);
    }
    Some(text)
}

fn list<T>(text: &mut String, items: impl Iterator<Item = T>, mut write: impl FnMut(&mut String, T)) {
    for (index, item) in items.enumerate() {
        if index > 0 {
            text.push_str(", ");
        }
        write(text, item);
    }
}

fn value(types: &Types, ty: &ComponentValType, depth: usize, text: &mut String) {
    match ty {
        ComponentValType::Primitive(primitive) => text.push_str(&primitive.to_string()),
        ComponentValType::Type(id) => match types.as_ref().get(*id) {
            // Types may double at every level: what is longer than any kernel's needs no end.
            Some(ty) if depth < DEPTH_MAX && text.len() < 4 * EXECUTE.len() => defined(types, ty, depth + 1, text),
            _ => text.push('?'),
        },
    }
}

fn defined(types: &Types, ty: &ComponentDefinedType, depth: usize, text: &mut String) {
    match ty {
        ComponentDefinedType::Primitive(primitive) => text.push_str(&primitive.to_string()),
        ComponentDefinedType::Record(record) => {
            text.push_str("record{");
            list(text, record.fields.iter(), |text, (name, ty)| {
                text.push_str(name);
                text.push_str(": ");
                value(types, ty, depth, text);
            });
            text.push('}');
        }
        ComponentDefinedType::Variant(variant) => {
            text.push_str("variant{");
            list(text, variant.cases.iter(), |text, (name, case)| {
                text.push_str(name);
                if let Some(ty) = &case.ty {
                    text.push('(');
                    value(types, ty, depth, text);
                    text.push(')');
                }
            });
            text.push('}');
        }
        ComponentDefinedType::Enum(names) => {
            text.push_str("enum{");
            list(text, names.iter(), |text, name| text.push_str(name));
            text.push('}');
        }
        ComponentDefinedType::List { element, .. } => {
            text.push_str("list<");
            value(types, element, depth, text);
            text.push('>');
        }
        ComponentDefinedType::Option { ty, .. } => {
            text.push_str("option<");
            value(types, ty, depth, text);
            text.push('>');
        }
        ComponentDefinedType::Result { ok, err, .. } => {
            text.push_str("result<");
            list(text, [ok, err].into_iter(), |text, ty| match ty {
                Some(ty) => value(types, ty, depth, text),
                None => text.push('_'),
            });
            text.push('>');
        }
        ComponentDefinedType::Tuple(tuple) => {
            text.push_str("tuple<");
            list(text, tuple.types.iter(), |text, ty| value(types, ty, depth, text));
            text.push('>');
        }
        _ => text.push('?'),
    }
}
