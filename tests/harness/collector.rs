//! A collector of traces that keeps what it gets: OTLP over HTTP, protobuf.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// A span as it came.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sent {
    /// `service.name` of whoever sent it.
    pub service: String,
    /// Its trace, hexadecimal.
    pub trace: String,
    /// Its id, hexadecimal.
    pub id: String,
    /// Its parent's id, hexadecimal; empty without one.
    pub parent: String,
    /// Its name.
    pub name: String,
    /// When it began, ns since 1970.
    pub from: u64,
    /// When it ended, ns since 1970.
    pub until: u64,
    /// Its attributes, numbers as text.
    pub attributes: BTreeMap<String, String>,
}

/// A collector on a port of its own.
#[derive(Debug)]
pub struct Collector {
    url: String,
    spans: Arc<Mutex<Vec<Sent>>>,
}

impl Collector {
    /// Starts it.
    ///
    /// # Panics
    /// No port is free.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("it is bound"));
        let spans: Arc<Mutex<Vec<Sent>>> = Arc::default();
        let kept = Arc::clone(&spans);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&kept)));
            }
        });
        Self { url, spans }
    }

    /// Where it listens.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// What has come so far.
    #[must_use]
    pub fn spans(&self) -> Vec<Sent> {
        self.spans.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn serve(stream: TcpStream, spans: Arc<Mutex<Vec<Sent>>>) {
    let mut stream = BufReader::new(stream);
    loop {
        let mut length = 0;
        let mut first = String::new();
        if stream.read_line(&mut first).await.unwrap_or(0) == 0 {
            return;
        }
        assert!(first.starts_with("POST /v1/traces "), "{first}");
        loop {
            let mut line = String::new();
            stream.read_line(&mut line).await.expect("a header");
            let line = line.trim_end().to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            if let Some(value) = line.strip_prefix("content-length:") {
                length = value.trim().parse().expect("a length");
            }
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await.expect("the whole body");
        spans.lock().unwrap_or_else(PoisonError::into_inner).extend(read(&body));
        let answer = b"HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n";
        if stream.get_mut().write_all(answer).await.is_err() {
            return;
        }
    }
}

/// A field of a protobuf message.
enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

impl<'a> Field<'a> {
    fn bytes(&self) -> &'a [u8] {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Number(_) => &[],
        }
    }

    fn number(&self) -> u64 {
        match self {
            Self::Number(number) => *number,
            Self::Bytes(_) => 0,
        }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(self.bytes()).into_owned()
    }

    fn hex(&self) -> String {
        self.bytes().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// The fields of a message by number (protobuf encoding: varint, 64 bit, length-delimited, 32 bit).
fn fields(mut rest: &[u8]) -> Vec<(u64, Field<'_>)> {
    fn varint(rest: &mut &[u8]) -> u64 {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let (byte, after) = rest.split_first().expect("a whole number");
            *rest = after;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                break;
            }
        }
        value
    }
    let mut found = Vec::new();
    while !rest.is_empty() {
        let key = varint(&mut rest);
        let field = match key & 7 {
            0 => Field::Number(varint(&mut rest)),
            2 => {
                let length = usize::try_from(varint(&mut rest)).expect("a length");
                let (bytes, after) = rest.split_at(length);
                rest = after;
                Field::Bytes(bytes)
            }
            width @ (1 | 5) => {
                let (bytes, after) = rest.split_at(if width == 1 { 8 } else { 4 });
                rest = after;
                Field::Number(bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
            }
            other => panic!("wire type {other}"),
        };
        found.push((key >> 3, field));
    }
    found
}

/// The spans of an `ExportTraceServiceRequest` (opentelemetry-proto, trace v1).
fn read(body: &[u8]) -> Vec<Sent> {
    let mut spans = Vec::new();
    for (_, resource_spans) in fields(body) {
        let parts = fields(resource_spans.bytes());
        let resource = parts.iter().filter(|(number, _)| *number == 1).flat_map(|(_, field)| fields(field.bytes()));
        let about: BTreeMap<String, String> =
            resource.filter(|(number, _)| *number == 1).map(|(_, field)| attribute(field.bytes())).collect();
        let service = about.get("service.name").cloned().unwrap_or_default();
        for (_, scope) in parts.iter().filter(|(number, _)| *number == 2) {
            for (_, span) in fields(scope.bytes()).iter().filter(|(number, _)| *number == 2) {
                spans.push(Sent { service: service.clone(), ..one(span.bytes()) });
            }
        }
    }
    spans
}

fn one(bytes: &[u8]) -> Sent {
    let mut span = Sent::default();
    for (number, field) in fields(bytes) {
        match number {
            1 => span.trace = field.hex(),
            2 => span.id = field.hex(),
            4 => span.parent = field.hex(),
            5 => span.name = field.text(),
            7 => span.from = field.number(),
            8 => span.until = field.number(),
            9 => {
                let (name, value) = attribute(field.bytes());
                span.attributes.insert(name, value);
            }
            _ => {}
        }
    }
    span
}

fn attribute(bytes: &[u8]) -> (String, String) {
    let (mut name, mut value) = (String::new(), String::new());
    for (number, field) in fields(bytes) {
        match number {
            1 => name = field.text(),
            2 => {
                for (kind, field) in fields(field.bytes()) {
                    value = if kind == 1 { field.text() } else { field.number().to_string() };
                }
            }
            _ => {}
        }
    }
    (name, value)
}
