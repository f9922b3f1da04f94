#![allow(clippy::unwrap_used)]

use std::collections::HashMap;

use arrow_array::{Float64Array, Int8Array, Int32Array};
use forge_contract::array::slice::Selection;

use super::*;
use crate::store::Source;
use crate::vmem::convert;

fn blobs() -> (tempfile::TempDir, Arc<Blobs>) {
    let folder = tempfile::tempdir().unwrap();
    let blobs = Arc::new(Blobs::open(folder.path()).unwrap());
    (folder, blobs)
}

/// The array's file with numbers that count.
fn file(array: &ArrayType) -> Vec<u8> {
    let mut file = npy::header(array);
    let width = usize::try_from(array.number.bytes()).unwrap();
    (0..array.count()).for_each(|number| file.extend(&number.to_le_bytes()[..width]));
    file
}

fn written(array: &ArrayType, format: Format) -> Vec<u8> {
    let file = file(array);
    let data_at = file.len() as u64 - array.bytes();
    let selection = Selection::parse("...", array).unwrap();
    let part = Part { source: Source::Bytes(file.into()), data_at, selection, array: array.clone() };
    let mut out = Vec::new();
    crate::vmem::write(part, format, &mut out).unwrap();
    out
}

fn taken(blobs: &Arc<Blobs>, body: &[u8]) -> Result<(ArrayType, Vec<u8>), ArrayError> {
    let mut draft = blobs.draft().unwrap();
    draft.write(body).unwrap();
    let taken = convert(blobs, draft, Format::ArrowStream)?;
    Ok((taken.array, blobs.get(&taken.hold.digest()).unwrap().unwrap()))
}

#[test]
fn every_array_comes_back_as_it_was() {
    let (_folder, blobs) = blobs();
    for number in [Number::Float32, Number::Float64, Number::Int32, Number::Int64] {
        for shape in [
            &[][..],
            &[0],
            &[1],
            &[1000],
            &[3, 4],
            &[2, 3, 4, 5, 2, 1, 1, 2],
            &[5, 0],
            &[0, 3],
            &[300_001],
            &[700, 500],
        ] {
            let array = ArrayType::new(number, shape.to_vec()).unwrap();
            for format in [Format::ArrowStream, Format::ArrowFile] {
                let body = written(&array, format);
                let back = taken(&blobs, &body).unwrap_or_else(|error| panic!("{shape:?} {format:?}: {error}"));
                assert_eq!(back, (array.clone(), file(&array)), "{shape:?} {format:?}");
            }
        }
    }
}

fn stream(schema: Schema, columns: Vec<ArrayRef>) -> Vec<u8> {
    let schema = Arc::new(schema);
    let mut writer = StreamWriter::try_new(Vec::new(), &schema).unwrap();
    writer.write(&RecordBatch::try_new(schema, columns).unwrap()).unwrap();
    writer.into_inner().unwrap()
}

#[test]
fn what_is_no_array_is_refused_with_its_reason() {
    let (_folder, blobs) = blobs();
    let one = |data_type, nullable| Schema::new(vec![Field::new("x", data_type, nullable)]);
    let doubles: ArrayRef = Arc::new(Float64Array::from(vec![1.0, 2.0]));
    let two = Schema::new(vec![Field::new("x", DataType::Float64, false), Field::new("y", DataType::Float64, false)]);
    let shaped =
        |shape: &str| one(DataType::Float64, false).with_metadata(HashMap::from([(SHAPE.into(), shape.into())]));
    for (words, body) in [
        ("one column", stream(two, vec![Arc::clone(&doubles), Arc::clone(&doubles)])),
        ("not kept", stream(one(DataType::Int8, false), vec![Arc::new(Int8Array::from(vec![1]))])),
        ("missing values", stream(one(DataType::Int32, true), vec![Arc::new(Int32Array::from(vec![Some(1), None]))])),
        ("list of lengths", stream(shaped("2"), vec![Arc::clone(&doubles)])),
        ("says [3]", stream(shaped("[3]"), vec![Arc::clone(&doubles)])),
        ("Arrow", b"nothing of the kind".to_vec()),
        ("Arrow", Vec::new()),
    ] {
        let error = taken(&blobs, &body).unwrap_err().to_string();
        assert!(error.contains(words), "{words:?} is not in {error:?}");
    }
    let square = stream(shaped("[1,2,1]"), vec![doubles]);
    assert_eq!(taken(&blobs, &square).unwrap().0.shape, [1, 2, 1]);
    assert_eq!(std::fs::read_dir(_folder.path().join("tmp")).unwrap().count(), 0, "nothing half made is left");
}

/// Cut anywhere, or with a byte changed anywhere in its first two kilobytes: an array or a refusal, and never more memory
/// than the body has.
#[test]
fn broken_bodies_break_nothing() {
    let (_folder, blobs) = blobs();
    let body = written(&ArrayType::new(Number::Int32, vec![20, 3]).unwrap(), Format::ArrowStream);
    for end in 0..body.len() {
        let _ = std::panic::catch_unwind(|| taken(&blobs, &body[..end]));
    }
    for at in 0..body.len().min(2048) {
        for flip in [1_u8, 0x80, 0xff] {
            let mut body = body.clone();
            body[at] ^= flip;
            let _ = std::panic::catch_unwind(|| taken(&blobs, &body));
        }
    }
}
