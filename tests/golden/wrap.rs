//! A generated module as a kernel: its first function of numbers alone, called by `execute`, its results as bytes.

use std::fmt::Write as _;

use wasmparser::{Encoding, ExternalKind, Parser, Payload, TypeRef, ValType};

/// The component around a core module, every type of the interface spelled out.
const SHELL: &str = include_str!("../hostile/kernels/shell.wat");

/// A function that can be wrapped.
struct Function {
    export: String,
    params: Vec<ValType>,
    results: Vec<ValType>,
}

/// The kernel of a module; `None` where it exports no function of numbers.
#[must_use]
pub fn kernel(module: &[u8]) -> Option<Vec<u8>> {
    let function = first_function(module)?;
    let text = |types: &[ValType]| types.iter().map(|ty| format!(" {ty}")).collect::<String>();
    let signature = format!("(param{}) (result{})", text(&function.params), text(&function.results));
    let export = quoted(&function.export);
    let stands_in = format!(
        "(core module $g (func (export \"{export}\") {signature} unreachable)) (core instance $gi (instantiate $g))"
    );
    let core = format!("(import \"g\" \"{export}\" (func $f {signature}))\n{}", execute(&function));
    let whole = SHELL
        .replace("@IMPORTS@", &stands_in)
        .replace("@ARGUMENTS@", "(with \"g\" (instance $gi))")
        .replace("@CORE@", &core);
    let component = wat::parse_str(&whole).unwrap_or_else(|e| panic!("{e}\n{whole}"));
    Some(with_module(&component, module))
}

fn quoted(text: &str) -> String {
    text.bytes().fold(String::new(), |mut quoted, byte| {
        let _ = write!(quoted, "\\{byte:02x}");
        quoted
    })
}

/// `execute`: calls with small numbers, stores the results 16 bytes apart from 1024, answers with them as bytes.
fn execute(function: &Function) -> String {
    let mut body = String::new();
    for (at, ty) in function.params.iter().enumerate() {
        let _ = match ty {
            ValType::V128 => writeln!(body, "(v128.const i64x2 {at} {at})"),
            ty => writeln!(body, "({ty}.const {at})"),
        };
    }
    body.push_str("call $f\n");
    for (at, ty) in function.results.iter().enumerate().rev() {
        // The value is on the stack, its address must lie beneath it.
        let _ = writeln!(body, "local.set $r{at} (i32.const {}) (local.get $r{at}) {ty}.store", 1024 + 16 * at);
    }
    let locals: String = function.results.iter().enumerate().map(|(at, ty)| format!("(local $r{at} {ty}) ")).collect();
    format!(
        "(memory (export \"memory\") 1 16)
        (func (export \"execute\") (param i32 i32 i32 i32 i32 i32 i64 i64 i32 i64 i64 i32 i32 i32 i32) (result i32)
          {locals}
          {body}
          (i32.store8 (i32.const 64) (i32.const 0))
          (i32.store (i32.const 68) (i32.const 128))
          (i32.store (i32.const 72) (i32.const 1))
          (i32.store (i32.const 128) (i32.const 8))
          (i32.store (i32.const 132) (i32.const 4))
          (i32.store8 (i32.const 136) (i32.const 10))
          (i32.store (i32.const 144) (i32.const 1024))
          (i32.store (i32.const 148) (i32.const {}))
          (i32.const 64))",
        16 * function.results.len()
    )
}

fn first_function(module: &[u8]) -> Option<Function> {
    let (mut types, mut functions) = (Vec::new(), Vec::new());
    for payload in Parser::new(0).parse_all(module) {
        match payload.unwrap() {
            Payload::TypeSection(section) => {
                types.extend(section.into_iter_err_on_gc_types().map(|ty| ty.unwrap()));
            }
            Payload::ImportSection(section) => {
                functions.extend(section.into_imports().filter_map(|import| match import.unwrap().ty {
                    TypeRef::Func(ty) => Some(ty),
                    _ => None,
                }));
            }
            Payload::FunctionSection(section) => functions.extend(section.into_iter().map(|ty| ty.unwrap())),
            Payload::ExportSection(section) => {
                for export in section {
                    let export = export.unwrap();
                    if export.kind != ExternalKind::Func {
                        continue;
                    }
                    let ty = &types[functions[export.index as usize] as usize];
                    let numbers = |list: &[ValType]| list.iter().all(|ty| !matches!(ty, ValType::Ref(_)));
                    if numbers(ty.params()) && numbers(ty.results()) && !ty.results().is_empty() {
                        let (params, results) = (ty.params().to_vec(), ty.results().to_vec());
                        return Some(Function { export: export.name.to_owned(), params, results });
                    }
                }
            }
            _ => {}
        }
    }
    None
}

/// The component with its first core module replaced.
fn with_module(component: &[u8], module: &[u8]) -> Vec<u8> {
    let mut first = None;
    for payload in Parser::new(0).parse_all(component) {
        match payload.unwrap() {
            Payload::ModuleSection { unchecked_range, .. } if first.is_none() => first = Some(unchecked_range),
            Payload::Version { encoding: Encoding::Module, .. } if first.is_none() => panic!("not a component"),
            _ => {}
        }
    }
    let range = first.expect("the shell has a module");
    // A section is its number, its length and its bytes; the length has no fixed size.
    let length = leb(range.len());
    let start = range.start - length.len() - 1;
    assert_eq!(component[start], 1, "a core module section");
    assert_eq!(component[start + 1..range.start], length);
    [&component[..=start], &leb(module.len()), module, &component[range.end..]].concat()
}

fn leb(mut number: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number >= 0x80 {
        bytes.push(u8::try_from(number & 0x7f).unwrap() | 0x80);
        number >>= 7;
    }
    bytes.push(u8::try_from(number).unwrap());
    bytes
}
