//! Arrays as Arrow: one column of numbers for one dimension, of fixed-shape tensors for more.
//!
//! The first dimension is the rows. The exact shape also stands in the schema's metadata as `forgepool.shape`, which is how
//! a single number or a row of nothing comes back as it was. Sources: "Arrow Columnar Format", encapsulated messages;
//! "Canonical Extension Types", fixed shape tensor.

use std::collections::HashMap;
use std::io::{self, Read, Seek as _, SeekFrom, Write};
use std::sync::Arc;

use arrow_array::types::{ArrowPrimitiveType, Float32Type, Float64Type, Int32Type, Int64Type};
use arrow_array::{Array as _, ArrayRef, FixedSizeListArray, PrimitiveArray, RecordBatch};
use arrow_buffer::{Buffer, MutableBuffer, ScalarBuffer};
use arrow_ipc::reader::StreamReader;
use arrow_ipc::writer::{FileWriter, StreamWriter};
use arrow_schema::{ArrowError, DataType, Field, Schema};
use forge_contract::array::{ArrayType, npy};
use forge_contract::fragment::Number;

use super::convert::{ArrayError, Taken, kept};
use super::{Format, Part};
use crate::store::blobs::{Blobs, Draft};

/// Where the exact shape stands in a schema's metadata.
const SHAPE: &str = "forgepool.shape";
const EXTENSION: &str = "ARROW:extension:name";
const EXTENSION_METADATA: &str = "ARROW:extension:metadata";
const TENSOR: &str = "arrow.fixed_shape_tensor";
/// What the file format begins with: the streaming format follows.
const FILE_MAGIC: &[u8] = b"ARROW1\0\0";
/// Most zeros between the magic and the first message, bytes.
const PADDING_BYTES_MAX: usize = 256;
/// Largest message header that is read, bytes.
const HEADER_BYTES_MAX: u64 = 1 << 20;
/// Largest batch that is read, bytes: it is in memory whole.
const BATCH_BYTES_MAX: u64 = 256 << 20;
/// Bytes of a batch that is written.
const BATCH_BYTES: u64 = 1 << 20;

fn refused(rule: impl Into<String>) -> ArrayError {
    ArrayError::Arrow(rule.into())
}

impl From<ArrowError> for ArrayError {
    fn from(error: ArrowError) -> Self {
        Self::Arrow(format!("the body is no Arrow that is read here: {error}"))
    }
}

/// What a schema says of the array in it.
struct Layout {
    number: Number,
    /// Numbers along each dimension after the rows.
    inner: Vec<u64>,
    /// The shape as it was, where the schema says.
    exact: Option<Vec<u64>>,
}

fn number(of: &DataType) -> Result<Number, ArrayError> {
    match of {
        DataType::Float32 => Ok(Number::Float32),
        DataType::Float64 => Ok(Number::Float64),
        DataType::Int32 => Ok(Number::Int32),
        DataType::Int64 => Ok(Number::Int64),
        other => Err(refused(format!("the type {other} is not kept: float32, float64, int32 and int64 are"))),
    }
}

fn data_type(number: Number) -> DataType {
    match number {
        Number::Float32 => DataType::Float32,
        Number::Float64 => DataType::Float64,
        Number::Int32 => DataType::Int32,
        Number::Int64 => DataType::Int64,
    }
}

impl Layout {
    fn of(schema: &Schema) -> Result<Self, ArrayError> {
        let [field] = schema.fields().iter().as_slice() else {
            let found = schema.fields().len();
            return Err(refused(format!("an array is one column, found {found}; send one array for each")));
        };
        let exact = schema.metadata().get(SHAPE).map(|text| serde_json::from_str(text));
        let exact =
            exact.transpose().map_err(|_| refused(format!("{SHAPE}: expected a list of lengths, such as [2,3]")))?;
        let DataType::FixedSizeList(item, size) = field.data_type() else {
            return Ok(Self { number: number(field.data_type())?, inner: Vec::new(), exact });
        };
        let size = u64::try_from(*size).map_err(|_| refused("a list of a negative size"))?;
        let tensor = field.metadata().get(EXTENSION).is_some_and(|name| name == TENSOR);
        let inner = if tensor { tensor_shape(field)? } else { vec![size] };
        if inner.iter().try_fold(1_u64, |product, length| product.checked_mul(*length)) != Some(size) {
            return Err(refused(format!("the tensors' shape {inner:?} is not that of lists of {size}")));
        }
        Ok(Self { number: number(item.data_type())?, inner, exact })
    }

    /// The shape of an array of this many rows.
    fn shape(&self, rows: u64) -> Result<ArrayType, ArrayError> {
        let mut shape = vec![rows];
        shape.extend(&self.inner);
        let array = ArrayType::new(self.number, shape)?;
        let Some(exact) = &self.exact else { return Ok(array) };
        let exact = ArrayType::new(self.number, exact.clone())?;
        if exact.count() == array.count() {
            return Ok(exact);
        }
        Err(refused(format!("{SHAPE} says {:?}, the column has the shape {:?}", exact.shape, array.shape)))
    }
}

fn tensor_shape(field: &Field) -> Result<Vec<u64>, ArrayError> {
    let text = field.metadata().get(EXTENSION_METADATA).map_or("", String::as_str);
    let unread = || refused("the tensors' metadata: expected {\"shape\": [..]}");
    let value: serde_json::Value = serde_json::from_str(text).map_err(|_| unread())?;
    let list = |name: &str| -> Option<Vec<u64>> { serde_json::from_value(value.get(name)?.clone()).ok() };
    let shape = list("shape").ok_or_else(unread)?;
    if list("permutation").is_some_and(|order| order.iter().copied().ne(0..order.len() as u64)) {
        return Err(refused("the tensors are permuted; write them in the order of their dimensions"));
    }
    Ok(shape)
}

/// Takes in what arrived.
pub(super) fn read(blobs: &Arc<Blobs>, body: &Draft) -> Result<Taken, ArrayError> {
    let mut file = body.reopen()?;
    let mut start = [0; 8];
    let is_file = body.bytes() >= 8 && file.read_exact(&mut start).is_ok() && start == FILE_MAGIC;
    let begins = if is_file { 8 + padding(&mut file)? } else { 0 };
    file.seek(SeekFrom::Start(begins))?;
    let rows = survey(&mut file, body.bytes() - begins)?;
    file.seek(SeekFrom::Start(begins))?;
    let reader = StreamReader::try_new_buffered(file, None)?;
    let layout = Layout::of(&reader.schema())?;
    let array = layout.shape(rows)?;
    let mut draft = blobs.draft()?;
    let header = npy::header(&array);
    draft.write(&header)?;
    for batch in reader {
        append(&batch?, &mut draft)?;
    }
    let found = draft.bytes() - header.len() as u64;
    if found != array.bytes() {
        return Err(ArrayError::Length { expected: array.bytes(), found });
    }
    kept(blobs, draft, array, header.len() as u64)
}

/// Zeros between the file format's magic and its first message, bytes: writers align it as they like.
fn padding(from: &mut impl Read) -> io::Result<u64> {
    let mut next = [0; PADDING_BYTES_MAX];
    let mut read = 0;
    while let Some(rest) = next.get_mut(read..).filter(|rest| !rest.is_empty()) {
        match from.read(rest)? {
            0 => break,
            more => read += more,
        }
    }
    let zeros = next.iter().take(read).take_while(|byte| **byte == 0).count();
    Ok((zeros - zeros % 8) as u64)
}

/// Reads the headers of all messages and gives the rows of all batches. No size in them is taken at its word: what a
/// message says it has must be there.
fn survey(from: &mut impl Read, mut left: u64) -> Result<u64, ArrayError> {
    let cut = || refused("the Arrow stream ends within a message");
    let mut rows = 0_u64;
    loop {
        let mut word = [0; 4];
        let mut size = |from: &mut dyn Read, left: &mut u64| -> Result<Option<u32>, ArrayError> {
            if *left < 4 {
                return if *left == 0 { Ok(None) } else { Err(cut()) };
            }
            from.read_exact(&mut word)?;
            *left -= 4;
            Ok(Some(u32::from_le_bytes(word)))
        };
        // Since version 0.15 each message begins with this mark.
        let header = match size(&mut *from, &mut left)? {
            Some(u32::MAX) => size(&mut *from, &mut left)?.ok_or_else(cut)?,
            Some(header) => header,
            None => return Ok(rows),
        };
        if header == 0 {
            return Ok(rows);
        }
        let header = u64::from(header);
        if header > HEADER_BYTES_MAX || header > left {
            return Err(refused(format!("this is no Arrow: a message's header of {header} bytes is too long")));
        }
        let mut bytes = Vec::new();
        from.by_ref().take(header).read_to_end(&mut bytes)?;
        left -= header;
        let message = arrow_ipc::root_as_message(&bytes).map_err(|error| refused(format!("no Arrow: {error}")))?;
        let body = u64::try_from(message.bodyLength()).map_err(|_| refused("a message of a negative size"))?;
        if body > left {
            return Err(cut());
        }
        if body > BATCH_BYTES_MAX {
            return Err(refused(format!(
                "a batch has at most {BATCH_BYTES_MAX} bytes, found {body}; write smaller batches"
            )));
        }
        if let Some(batch) = message.header_as_record_batch() {
            let more = u64::try_from(batch.length()).map_err(|_| refused("a batch of a negative length"))?;
            rows = rows.checked_add(more).ok_or_else(|| refused("more rows than can be counted"))?;
        } else if message.header_as_schema().is_none() {
            return Err(refused("only batches of numbers are read: no dictionaries, no tensors of their own"));
        }
        if io::copy(&mut from.by_ref().take(body), &mut io::sink())? != body {
            return Err(cut());
        }
        left -= body;
    }
}

fn append(batch: &RecordBatch, draft: &mut Draft) -> Result<(), ArrayError> {
    let Some(column) = batch.columns().first() else { return Ok(()) };
    let nulls = || refused("an array has no missing values; fill them first");
    if column.null_count() > 0 {
        return Err(nulls());
    }
    let (values, offset, count) = match column.as_any().downcast_ref::<FixedSizeListArray>() {
        Some(list) => {
            let size = usize::try_from(list.value_length()).unwrap_or(0);
            (Arc::clone(list.values()), usize::try_from(list.value_offset_at(0)).unwrap_or(0), list.len() * size)
        }
        None => (Arc::clone(column), 0, column.len()),
    };
    let values = values.slice(offset, count);
    if values.null_count() > 0 {
        return Err(nulls());
    }
    let bytes = bytes_of::<Float32Type>(&values)
        .or_else(|| bytes_of::<Float64Type>(&values))
        .or_else(|| bytes_of::<Int32Type>(&values))
        .or_else(|| bytes_of::<Int64Type>(&values));
    let bytes = bytes.ok_or_else(|| refused("a batch is not of the type that the schema says"))?;
    draft.write(bytes.as_slice())?;
    Ok(())
}

fn bytes_of<T: ArrowPrimitiveType>(values: &ArrayRef) -> Option<Buffer> {
    values.as_any().downcast_ref::<PrimitiveArray<T>>().map(|array| array.values().inner().clone())
}

/// The schema of an array, and how many numbers a row has.
fn schema(array: &ArrayType) -> io::Result<(Schema, u64)> {
    let inner = array.shape.get(1..).unwrap_or_default();
    let row: u64 = inner.iter().product();
    let shape = serde_json::to_string(&array.shape)?;
    let metadata = HashMap::from([(SHAPE.to_owned(), shape)]);
    let item = data_type(array.number);
    if inner.is_empty() {
        return Ok((Schema::new_with_metadata(vec![Field::new("value", item, false)], metadata), 1));
    }
    let size = i32::try_from(row).map_err(|_| io::Error::other("a row has more numbers than an Arrow list holds"))?;
    let list = DataType::FixedSizeList(Arc::new(Field::new("item", item, false)), size);
    let tensor = HashMap::from([
        (EXTENSION.to_owned(), TENSOR.to_owned()),
        (EXTENSION_METADATA.to_owned(), serde_json::json!({ "shape": inner }).to_string()),
    ]);
    let field = Field::new("value", list, false).with_metadata(tensor);
    Ok((Schema::new_with_metadata(vec![field], metadata), row))
}

/// Whether Arrow can hold an array of this shape: its lists are of 31 bits.
pub(crate) fn holds(array: &ArrayType) -> bool {
    schema(array).is_ok()
}

/// Writes a part.
pub(super) fn write(part: Part, format: Format, to: &mut impl Write) -> io::Result<()> {
    let (schema, row) = schema(&part.array)?;
    let schema = Arc::new(schema);
    if format == Format::ArrowFile {
        let mut writer = FileWriter::try_new(to, &schema).map_err(io::Error::other)?;
        batches(part, &schema, row, |batch| writer.write(batch))?;
        writer.finish().map_err(io::Error::other)
    } else {
        let mut writer = StreamWriter::try_new(to, &schema).map_err(io::Error::other)?;
        batches(part, &schema, row, |batch| writer.write(batch))?;
        writer.finish().map_err(io::Error::other)
    }
}

fn batches(
    mut part: Part,
    schema: &Arc<Schema>,
    row: u64,
    mut write: impl FnMut(&RecordBatch) -> Result<(), ArrowError>,
) -> io::Result<()> {
    let number = part.array.number;
    let rows = part.array.shape.first().copied().unwrap_or(1);
    // Rows of nothing have no bytes to be counted by.
    if part.array.count() == 0 {
        let column = column(&[], number, schema, rows)?;
        let batch = RecordBatch::try_new(Arc::clone(schema), vec![column]).map_err(io::Error::other)?;
        return write(&batch).map_err(io::Error::other);
    }
    let row_bytes = row * number.bytes();
    let full = usize::try_from((BATCH_BYTES / row_bytes).max(1) * row_bytes).map_err(|_| io::ErrorKind::OutOfMemory)?;
    let mut gathered: Vec<u8> = Vec::new();
    let mut give = |bytes: &[u8]| {
        let column = column(bytes, number, schema, bytes.len() as u64 / row_bytes)?;
        let batch = RecordBatch::try_new(Arc::clone(schema), vec![column]).map_err(io::Error::other)?;
        write(&batch).map_err(io::Error::other)
    };
    part.numbers(|bytes| {
        gathered.extend_from_slice(bytes);
        let mut given = 0;
        while let Some(batch) = gathered.get(given..given + full) {
            give(batch)?;
            given += full;
        }
        gathered.drain(..given);
        Ok(())
    })?;
    if gathered.is_empty() { Ok(()) } else { give(&gathered) }
}

fn column(bytes: &[u8], number: Number, schema: &Schema, rows: u64) -> io::Result<ArrayRef> {
    let mut buffer = MutableBuffer::from_len_zeroed(bytes.len());
    buffer.as_slice_mut().copy_from_slice(bytes);
    let buffer = Buffer::from(buffer);
    let count = bytes.len() / usize::try_from(number.bytes()).unwrap_or(8);
    let values: ArrayRef = match number {
        Number::Float32 => primitive::<Float32Type>(buffer, count),
        Number::Float64 => primitive::<Float64Type>(buffer, count),
        Number::Int32 => primitive::<Int32Type>(buffer, count),
        Number::Int64 => primitive::<Int64Type>(buffer, count),
    };
    let Some(DataType::FixedSizeList(item, size)) = schema.fields().first().map(|field| field.data_type()) else {
        return Ok(values);
    };
    let rows = usize::try_from(rows).map_err(|_| io::ErrorKind::OutOfMemory)?;
    let list = FixedSizeListArray::try_new_with_length(Arc::clone(item), *size, values, None, rows);
    Ok(Arc::new(list.map_err(io::Error::other)?))
}

fn primitive<T: ArrowPrimitiveType>(buffer: Buffer, count: usize) -> ArrayRef {
    Arc::new(PrimitiveArray::<T>::new(ScalarBuffer::new(buffer, 0, count), None))
}

#[cfg(test)]
mod tests;
