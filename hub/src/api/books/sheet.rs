//! Tables for spreadsheets and data frames: the same rows as CSV or Parquet, written page by page.

use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};

use arrow_array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow_schema::{DataType, Field, Schema};
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holds {
    /// Text; an empty one is null in Parquet.
    Text,
    /// A signed 64-bit integer.
    Integer,
}

/// A column: its name and what it holds.
pub type Column = (&'static str, Holds);

/// A cell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cell {
    /// Text.
    Text(String),
    /// A number.
    Integer(i64),
}

impl From<u64> for Cell {
    fn from(value: u64) -> Self {
        Self::Integer(i64::try_from(value).unwrap_or(i64::MAX))
    }
}

impl From<i64> for Cell {
    fn from(value: i64) -> Self {
        Self::Integer(value)
    }
}

impl From<String> for Cell {
    fn from(value: String) -> Self {
        Self::Text(value)
    }
}

/// A row, one cell a column.
pub type Row = Vec<Cell>;

/// Where a Parquet writer writes: bytes on their way out.
#[derive(Clone, Debug, Default)]
pub struct Out(Arc<Mutex<Vec<u8>>>);

impl Out {
    fn take(&self) -> Vec<u8> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Write for Out {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Writes a table. What it holds at one time is a page.
pub enum Writer {
    /// RFC 4180, with a header line.
    Csv(&'static [Column]),
    /// Parquet, a row group a page.
    Parquet {
        /// Its columns.
        columns: &'static [Column],
        /// The writer.
        writer: Box<ArrowWriter<Out>>,
        /// Where it writes.
        out: Out,
    },
}

impl Writer {
    /// A Parquet table.
    ///
    /// # Errors
    /// What the format's writer says.
    pub fn parquet(columns: &'static [Column]) -> Result<Self, ParquetError> {
        let out = Out::default();
        let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).build();
        let writer = Box::new(ArrowWriter::try_new(out.clone(), schema(columns), Some(properties))?);
        Ok(Self::Parquet { columns, writer, out })
    }

    /// The bytes before any row.
    #[must_use]
    pub fn begin(&self) -> Vec<u8> {
        match self {
            Self::Csv(columns) => {
                let names: Vec<&str> = columns.iter().map(|(name, _)| *name).collect();
                format!("{}\r\n", names.join(",")).into_bytes()
            }
            Self::Parquet { out, .. } => out.take(),
        }
    }

    /// The bytes of a page of rows.
    ///
    /// # Errors
    /// What the format's writer says.
    pub fn rows(&mut self, rows: &[Row]) -> Result<Vec<u8>, ParquetError> {
        match self {
            Self::Csv(_) => Ok(rows.iter().map(|row| csv(row)).collect::<String>().into_bytes()),
            Self::Parquet { columns, writer, out } => {
                if !rows.is_empty() {
                    writer.write(&batch(columns, rows)?)?;
                    writer.flush()?;
                }
                Ok(out.take())
            }
        }
    }

    /// The bytes after the last row.
    ///
    /// # Errors
    /// What the format's writer says.
    pub fn end(self) -> Result<Vec<u8>, ParquetError> {
        match self {
            Self::Csv(_) => Ok(Vec::new()),
            Self::Parquet { writer, out, .. } => {
                writer.close()?;
                Ok(out.take())
            }
        }
    }
}

fn schema(columns: &[Column]) -> Arc<Schema> {
    let field = |(name, holds): &Column| match holds {
        Holds::Text => Field::new(*name, DataType::Utf8, true),
        Holds::Integer => Field::new(*name, DataType::Int64, false),
    };
    Arc::new(Schema::new(columns.iter().map(field).collect::<Vec<_>>()))
}

fn batch(columns: &[Column], rows: &[Row]) -> Result<RecordBatch, ParquetError> {
    let array = |(at, (_, holds)): (usize, &Column)| -> ArrayRef {
        match holds {
            Holds::Text => {
                let text = |row: &Row| match row.get(at) {
                    Some(Cell::Text(text)) if !text.is_empty() => Some(text.clone()),
                    _ => None,
                };
                Arc::new(rows.iter().map(text).collect::<StringArray>())
            }
            Holds::Integer => {
                let number = |row: &Row| match row.get(at) {
                    Some(Cell::Integer(number)) => *number,
                    _ => 0,
                };
                Arc::new(rows.iter().map(number).collect::<Int64Array>())
            }
        }
    };
    let arrays = columns.iter().enumerate().map(array).collect();
    Ok(RecordBatch::try_new(schema(columns), arrays)?)
}

/// A line of RFC 4180. A text that a spreadsheet would take for a formula gets an apostrophe before it.
fn csv(row: &[Cell]) -> String {
    let cell = |cell: &Cell| match cell {
        Cell::Integer(number) => number.to_string(),
        Cell::Text(text) => {
            let text =
                if text.starts_with(['=', '+', '-', '@', '\t', '\r']) { format!("'{text}") } else { text.clone() };
            if text.contains([',', '"', '\r', '\n']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text }
        }
    };
    let cells: Vec<String> = row.iter().map(cell).collect();
    format!("{}\r\n", cells.join(","))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;
    use arrow_array::Array as _;
    use arrow_array::cast::AsArray as _;
    use arrow_array::types::Int64Type;
    use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

    const COLUMNS: &[Column] = &[("name", Holds::Text), ("micro", Holds::Integer)];

    fn written(mut writer: Writer, pages: &[Vec<Row>]) -> Vec<u8> {
        let mut all = writer.begin();
        for page in pages {
            all.extend(writer.rows(page).unwrap());
        }
        all.extend(writer.end().unwrap());
        all
    }

    #[test]
    fn both_formats_hold_the_same_rows() {
        let row = |name: &str, micro: i64| vec![Cell::from(name.to_owned()), Cell::from(micro)];
        let pages = [vec![row("a,\"b\"", i64::MIN), row("", 2)], vec![row("=1+1", i64::MAX)], vec![]];
        let text = String::from_utf8(written(Writer::Csv(COLUMNS), &pages)).unwrap();
        let expected = format!("name,micro\r\n\"a,\"\"b\"\"\",{}\r\n,2\r\n'=1+1,{}\r\n", i64::MIN, i64::MAX);
        assert_eq!(text, expected);
        let bytes = written(Writer::parquet(COLUMNS).unwrap(), &pages);
        let reader = ParquetRecordBatchReaderBuilder::try_new(bytes::Bytes::from(bytes)).unwrap();
        assert_eq!(reader.metadata().num_row_groups(), 2, "a row group a page");
        let batches: Vec<RecordBatch> = reader.build().unwrap().map(Result::unwrap).collect();
        let mut seen = Vec::new();
        for batch in &batches {
            let (names, micro) = (batch.column(0).as_string::<i32>(), batch.column(1).as_primitive::<Int64Type>());
            for at in 0..batch.num_rows() {
                seen.push((names.is_valid(at).then(|| names.value(at).to_owned()), micro.value(at)));
            }
        }
        assert_eq!(seen, [(Some("a,\"b\"".into()), i64::MIN), (None, 2), (Some("=1+1".into()), i64::MAX)]);
        let empty = written(Writer::parquet(COLUMNS).unwrap(), &[]);
        assert_eq!(
            ParquetRecordBatchReaderBuilder::try_new(bytes::Bytes::from(empty)).unwrap().metadata().num_row_groups(),
            0
        );
    }
}
