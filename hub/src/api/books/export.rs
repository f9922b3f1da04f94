//! Which form of a table a request asks for, and answers that are written while they are read from the store.

use std::future::Future;
use std::io;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use forge_contract::FailureCode;
use futures_util::stream::try_unfold;
use http::{HeaderMap, header};

use super::sheet::{Column, Row, Writer};
use crate::api::problem::Problem;
use crate::store::StoreError;

/// The media type of Parquet.
const PARQUET: &str = "application/vnd.apache.parquet";
/// The media type of CSV.
const CSV: &str = "text/csv";

/// What the parameter `format` may say.
pub(in crate::api) const FORMATS: [&str; 3] = ["json", "csv", "parquet"];

/// The form of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// A page as JSON.
    Json,
    /// Everything as CSV.
    Csv,
    /// Everything as Parquet.
    Parquet,
}

impl Format {
    /// What the parameter `format` says, else what `Accept` prefers, else JSON.
    ///
    /// # Errors
    /// `request.schema` for a format that is none.
    pub fn of(headers: &HeaderMap, asked: Option<&str>) -> Result<Self, Problem> {
        match asked {
            Some("json") => return Ok(Self::Json),
            Some("csv") => return Ok(Self::Csv),
            Some("parquet") => return Ok(Self::Parquet),
            Some(other) => {
                let detail = format!("the parameter format: expected json, csv or parquet, found '{other}'");
                return Err(Problem::of(FailureCode::RequestSchema, detail));
            }
            None => {}
        }
        let accepted = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
        let kinds = accepted.flat_map(|value| value.split(',')).map(|kind| kind.split(';').next().unwrap_or("").trim());
        for kind in kinds {
            match kind {
                "application/json" | "application/*" | "*/*" => return Ok(Self::Json),
                CSV => return Ok(Self::Csv),
                PARQUET => return Ok(Self::Parquet),
                _ => {}
            }
        }
        Ok(Self::Json)
    }
}

enum Step<C> {
    Begin(Writer, C),
    Rows(Writer, C),
    End(Writer),
}

/// A whole table, page by page: `next` gives the rows from a cursor on and the next cursor, `None` after the last page.
///
/// # Errors
/// The format's writer cannot begin.
pub fn table<C, F, N>(
    (parquet, name): (bool, &str),
    columns: &'static [Column],
    first: C,
    next: N,
) -> Result<Response, Problem>
where
    C: Send + 'static,
    F: Future<Output = Result<(Vec<Row>, Option<C>), StoreError>> + Send,
    N: Fn(C) -> F + Clone + Send + Sync + 'static,
{
    let unwritable = |_| Problem::of(FailureCode::AggregationStorage, "the table cannot be written");
    let writer = if parquet { Writer::parquet(columns).map_err(unwritable)? } else { Writer::Csv(columns) };
    let pages = try_unfold(Some(Step::Begin(writer, first)), move |step| {
        let next = next.clone();
        async move {
            let broken = |error: &dyn core::fmt::Display| io::Error::other(error.to_string());
            let (bytes, step) = match step {
                None => return Ok::<_, io::Error>(None),
                Some(Step::Begin(writer, cursor)) => (writer.begin(), Some(Step::Rows(writer, cursor))),
                Some(Step::Rows(mut writer, cursor)) => {
                    let (rows, cursor) = next(cursor).await.map_err(|error| broken(&error))?;
                    let bytes = writer.rows(&rows).map_err(|error| broken(&error))?;
                    let step = match cursor {
                        Some(cursor) => Step::Rows(writer, cursor),
                        None => Step::End(writer),
                    };
                    (bytes, Some(step))
                }
                Some(Step::End(writer)) => (writer.end().map_err(|error| broken(&error))?, None),
            };
            Ok(Some((Bytes::from(bytes), step)))
        }
    });
    let (kind, end) = if parquet { (PARQUET, "parquet") } else { (CSV, "csv") };
    let disposition = format!("attachment; filename=\"{name}.{end}\"");
    let headers = [(header::CONTENT_TYPE, kind.to_owned()), (header::CONTENT_DISPOSITION, disposition)];
    Ok((headers, Body::from_stream(pages)).into_response())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_parameter_wins_over_the_header() {
        let accept = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, text.parse().unwrap());
            headers
        };
        for (header, asked, expected) in [
            ("text/csv", None, Format::Csv),
            ("text/html, application/vnd.apache.parquet;q=0.9", None, Format::Parquet),
            ("*/*", None, Format::Json),
            ("image/png", None, Format::Json),
            ("text/csv", Some("json"), Format::Json),
            ("*/*", Some("parquet"), Format::Parquet),
        ] {
            assert_eq!(Format::of(&accept(header), asked).unwrap(), expected, "{header} {asked:?}");
        }
        assert_eq!(Format::of(&HeaderMap::new(), Some("xlsx")).unwrap_err().code(), FailureCode::RequestSchema);
    }
}
