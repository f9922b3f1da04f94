//! Server-sent events: bytes in, events out.
//!
//! Source: WHATWG HTML, "Server-sent events", section 9.2.6.

/// One event of the stream.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Event {
    /// Where a broken stream goes on from.
    pub id: Option<String>,
    /// The event's name; `message` where the stream gave none.
    pub name: String,
    /// Its data lines, joined by line feeds.
    pub data: String,
}

/// Cuts a byte stream into events, however its chunks fall.
#[derive(Debug, Default)]
pub struct Parser {
    pending: Vec<u8>,
    event: Event,
    has_data: bool,
}

impl Parser {
    /// Takes the next bytes and returns the events they complete. Comments (heartbeats) give none.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<Event> {
        let mut events = Vec::new();
        for byte in bytes {
            if *byte != b'\n' {
                self.pending.push(*byte);
                continue;
            }
            let line = std::mem::take(&mut self.pending);
            let line = String::from_utf8_lossy(&line);
            events.extend(self.line(line.strip_suffix('\r').unwrap_or(&line)));
        }
        events
    }

    fn line(&mut self, line: &str) -> Option<Event> {
        if line.is_empty() {
            return self.finish();
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.event.name),
            "id" => self.event.id = Some(value.to_owned()),
            "data" => {
                if self.has_data {
                    self.event.data.push('\n');
                }
                self.event.data.push_str(value);
                self.has_data = true;
            }
            _ => {}
        }
        None
    }

    fn finish(&mut self) -> Option<Event> {
        let mut event = std::mem::take(&mut self.event);
        if !std::mem::take(&mut self.has_data) {
            return None;
        }
        if event.name.is_empty() {
            "message".clone_into(&mut event.name);
        }
        Some(event)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &str =
        ": hello\n\nid: 4\nevent: progress\ndata: {\"a\":1}\n\n: beat\n\ndata: x\r\ndata:y\r\n\r\ndata: cut";

    fn expected() -> Vec<Event> {
        let event = |id: Option<&str>, name: &str, data: &str| Event {
            id: id.map(str::to_owned),
            name: name.to_owned(),
            data: data.to_owned(),
        };
        vec![event(Some("4"), "progress", "{\"a\":1}"), event(None, "message", "x\ny")]
    }

    #[test]
    fn events_do_not_depend_on_how_chunks_fall() {
        for size in 1..=STREAM.len() {
            let mut parser = Parser::default();
            let events: Vec<Event> = STREAM.as_bytes().chunks(size).flat_map(|chunk| parser.push(chunk)).collect();
            assert_eq!(events, expected(), "chunks of {size}");
        }
    }
}
