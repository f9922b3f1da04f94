//! Sections of a WebAssembly binary, taken apart and put together without looking inside.
//!
//! ```text
//! binary  = magic(4) version(2) layer(2) section*
//! section = id(1) size(LEB128) body       id 0: body = name(size, bytes) data
//! ```
//! Layer 0 is a module, 1 a component, where sections 1 and 4 hold whole modules and components.

use super::component::ComponentError;

const HEADER_BYTES: usize = 8;
const CUSTOM: u8 = 0;
const CORE_MODULE: u8 = 1;
const COMPONENT: u8 = 4;

/// Whether the bytes begin like a component.
pub(crate) fn is_component(bytes: &[u8]) -> bool {
    bytes.starts_with(b"\0asm") && bytes.get(6..8) == Some(&[1, 0])
}

/// The binary without those custom sections whose name is refused, in it and in all it contains.
pub(crate) fn without_custom(bytes: &[u8], refuse: &dyn Fn(&str) -> bool) -> Result<Vec<u8>, ComponentError> {
    let (header, mut rest) = bytes.split_at_checked(HEADER_BYTES).ok_or(ComponentError::Malformed { at: 0 })?;
    let nested = is_component(bytes);
    let mut out = header.to_vec();
    while let Some((id, after)) = rest.split_first() {
        let at = bytes.len() - rest.len();
        let (size, after) = size(after).ok_or(ComponentError::Malformed { at })?;
        let (body, after) = after.split_at_checked(size).ok_or(ComponentError::Malformed { at })?;
        rest = after;
        match *id {
            CUSTOM if refuse(name(body).ok_or(ComponentError::Malformed { at })?) => {}
            CORE_MODULE | COMPONENT if nested => section(&mut out, *id, &without_custom(body, refuse)?),
            other => section(&mut out, other, body),
        }
    }
    Ok(out)
}

/// Adds a custom section at the end.
pub(crate) fn push_custom(out: &mut Vec<u8>, name: &str, data: &[u8]) {
    let mut body = Vec::with_capacity(name.len() + data.len() + 5);
    push_size(&mut body, name.len());
    body.extend_from_slice(name.as_bytes());
    body.extend_from_slice(data);
    section(out, CUSTOM, &body);
}

fn section(out: &mut Vec<u8>, id: u8, body: &[u8]) {
    out.push(id);
    push_size(out, body.len());
    out.extend_from_slice(body);
}

fn name(body: &[u8]) -> Option<&str> {
    let (length, rest) = size(body)?;
    std::str::from_utf8(rest.get(..length)?).ok()
}

/// An unsigned LEB128 of at most 32 bits, and what follows it.
fn size(mut bytes: &[u8]) -> Option<(usize, &[u8])> {
    let mut value = 0_u64;
    for shift in (0..35).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some((usize::try_from(u32::try_from(value).ok()?).ok()?, bytes));
        }
    }
    None
}

fn push_size(out: &mut Vec<u8>, mut value: usize) {
    loop {
        let low = u8::try_from(value & 0x7f).unwrap_or_default();
        value >>= 7;
        if value == 0 {
            out.push(low);
            return;
        }
        out.push(low | 0x80);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn module() -> Vec<u8> {
        wat::parse_str("(module (func (export \"f\")) (@custom \"producers\" \"x\") (@custom \"keep\" \"y\"))").unwrap()
    }

    #[test]
    fn refused_sections_go_and_nothing_else() {
        let all = module();
        assert_eq!(without_custom(&all, &|_| false).unwrap(), all);
        let stripped = without_custom(&all, &|n| n == "producers").unwrap();
        assert!(stripped.len() < all.len());
        assert!(stripped.windows(4).any(|w| w == b"keep"));
        assert!(!stripped.windows(9).any(|w| w == b"producers"));
    }

    #[test]
    fn sections_inside_a_component_go_too() {
        let component =
            wat::parse_str("(component (core module (@custom \"name-like\" \"x\")) (@custom \"producers\" \"z\"))")
                .unwrap();
        let stripped = without_custom(&component, &|n| n != "keep").unwrap();
        assert!(!stripped.windows(9).any(|w| w == b"name-like" || w == b"producers"));
        wasmparser::validate(&stripped).unwrap();
    }

    #[test]
    fn every_cut_is_refused_or_whole_sections() {
        let all = module();
        for end in 0..all.len() {
            if let Ok(kept) = without_custom(&all[..end], &|_| false) {
                assert_eq!(kept, &all[..end]);
            }
        }
    }

    #[test]
    fn long_sections_keep_their_size() {
        let mut out = module();
        let before = out.len();
        push_custom(&mut out, "long", &vec![7; 70_000]);
        assert_eq!(out.len(), before + 1 + 3 + 1 + 4 + 70_000);
        assert_eq!(without_custom(&out, &|n| n == "long").unwrap().len(), before);
    }
}
