//! HTTP by hand, for requests that no client would send.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::api::{Answer, Api};
use crate::within;

/// A connection to the hub over which any bytes can go.
#[derive(Debug)]
pub struct Raw {
    stream: TcpStream,
}

impl Raw {
    /// Connects.
    ///
    /// # Panics
    /// Nobody listens.
    pub async fn open(api: &Api) -> Self {
        let address = api.url.trim_start_matches("http://");
        Self { stream: within("connection", TcpStream::connect(address)).await.expect("the hub listens") }
    }

    /// Sends bytes; a peer that has closed already is no failure.
    pub async fn send(&mut self, bytes: &[u8]) {
        within("room to send", self.stream.write_all(bytes)).await.ok();
    }

    /// Says that nothing more will be sent.
    pub async fn finish(&mut self) {
        self.stream.shutdown().await.ok();
    }

    /// Reads one whole answer (which must close the connection or carry a length).
    ///
    /// # Panics
    /// No answer comes.
    pub async fn answer(&mut self) -> Option<Answer> {
        let mut bytes = Vec::new();
        let mut chunk = [0_u8; 4096];
        loop {
            if let Some(answer) = parse(&bytes) {
                return Some(answer);
            }
            let read = within("answer", self.stream.read(&mut chunk)).await.unwrap_or(0);
            if read == 0 {
                return parse(&bytes);
            }
            bytes.extend_from_slice(chunk.get(..read).unwrap_or_default());
        }
    }
}

/// The head of a `POST /api/v0/ops/execute` with these extra header lines.
#[must_use]
pub fn execute_head(api: &Api, headers: &[(&str, &str)]) -> String {
    let host = api.url.trim_start_matches("http://");
    let mut head =
        format!("POST /api/v0/ops/execute HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {}\r\n", api.key);
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head + "\r\n"
}

fn parse(bytes: &[u8]) -> Option<Answer> {
    let text = String::from_utf8_lossy(bytes);
    let (head, body) = text.split_once("\r\n\r\n")?;
    let mut lines = head.lines();
    let status = lines.next()?.split_whitespace().nth(1)?.parse::<u16>().ok()?;
    let mut headers = reqwest::header::HeaderMap::new();
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        let name = reqwest::header::HeaderName::from_bytes(name.as_bytes()).ok()?;
        headers.append(name, value.trim().parse().ok()?);
    }
    let length = headers.get("content-length").and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    if length.is_some_and(|length| body.len() < length) {
        return None;
    }
    Some(Answer {
        status: reqwest::StatusCode::from_u16(status).ok()?,
        headers,
        body: serde_json::from_str(body).unwrap_or_default(),
        text: body.to_owned(),
    })
}
