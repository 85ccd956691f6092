//! How a line looks in the daemon log and on stderr.
//!
//! Control characters are escaped, so that a child can forge neither a log line nor a terminal
//! escape; what is not UTF-8 is replaced. Lines over 64 KiB come in pieces; JSON marks each but the
//! last with `"partial": true`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value};

use super::split::Piece;
use super::{Level, Record, Stream, clock};
use crate::text::{Fact, Lines, harmless};

/// The look of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// Timestamp, level, program, text.
    Text,
    /// The same with colours.
    Colour,
    /// For the journal, which stamps lines itself: `<N>` and the text.
    Journal,
    /// One object a line.
    Json,
}

/// A captured line's origin.
#[derive(Clone, Copy, Debug)]
pub(super) struct Origin<'a> {
    /// Who wrote it.
    pub program: &'a str,
    /// Where.
    pub stream: Stream,
}

/// RFC 3339 with milliseconds, formatted once for all lines of the same millisecond.
#[derive(Debug, Default)]
pub(super) struct Stamp {
    millis: u64,
    text: String,
}

impl Stamp {
    /// Returns the text of this moment.
    pub fn text(&mut self, at: SystemTime) -> &str {
        let millis = clock::millis(at);
        if self.text.is_empty() || millis != self.millis {
            self.millis = millis;
            self.text = rfc3339(millis);
        }
        &self.text
    }
}

/// Returns milliseconds since 1970 as `2026-11-23T19:13:00.123Z`.
pub(super) fn rfc3339(millis: u64) -> String {
    let at = jiff::Timestamp::from_millisecond(i64::try_from(millis).unwrap_or(i64::MAX));
    format!("{:.3}", at.unwrap_or(jiff::Timestamp::UNIX_EPOCH))
}

/// Returns the moment that [`rfc3339`] wrote.
pub(super) fn parse_rfc3339(text: &str) -> Option<SystemTime> {
    let at: jiff::Timestamp = text.parse().ok()?;
    let millis = u64::try_from(at.as_millisecond()).ok()?;
    UNIX_EPOCH.checked_add(Duration::from_millis(millis))
}

/// Appends one captured line.
pub(super) fn output(
    to: &mut Vec<u8>,
    look: Look,
    stamp: &str,
    origin: Origin<'_>,
    piece: Piece<'_>,
) {
    match look {
        Look::Text | Look::Colour => {
            let (before, after) = colours(look, origin.stream == Stream::Stderr, "\x1b[33m");
            let stream = match origin.stream {
                Stream::Stdout => "OUT  ",
                Stream::Stderr => "ERR  ",
            };
            for part in [stamp, " ", before, stream, after, " ", origin.program, ": "] {
                to.extend_from_slice(part.as_bytes());
            }
            escape(to, piece.bytes);
        }
        Look::Journal => {
            let priority = if origin.stream == Stream::Stderr {
                "<5>"
            } else {
                "<6>"
            };
            for part in [priority, origin.program, ": "] {
                to.extend_from_slice(part.as_bytes());
            }
            escape(to, piece.bytes);
        }
        Look::Json => {
            let mut object = Map::new();
            object.insert("timestamp".into(), stamp.into());
            object.insert("program".into(), origin.program.into());
            object.insert("stream".into(), origin.stream.label().into());
            object.insert(
                "message".into(),
                String::from_utf8_lossy(piece.bytes).into(),
            );
            if piece.partial {
                object.insert("partial".into(), true.into());
            }
            to.extend_from_slice(Value::Object(object).to_string().as_bytes());
        }
    }
    to.push(b'\n');
}

/// Appends one of the daemon's own lines.
pub(super) fn record(to: &mut Vec<u8>, look: Look, record: &Record) {
    let stamp = rfc3339(clock::millis(record.at));
    match look {
        Look::Json => {
            let mut object = Map::new();
            object.insert("timestamp".into(), stamp.into());
            object.insert("level".into(), record.level.label().trim_end().into());
            if let Some(program) = &record.program {
                object.insert("program".into(), program.as_str().into());
            }
            object.insert("message".into(), record.message.as_str().into());
            for (name, value) in &record.fields {
                object.insert((*name).into(), json(value));
            }
            to.extend_from_slice(Value::Object(object).to_string().as_bytes());
        }
        Look::Journal => {
            let priority = match record.level {
                Level::Error => "<3>",
                Level::Warn => "<4>",
                Level::Info => "<6>",
                Level::Debug | Level::Trace => "<7>",
            };
            to.extend_from_slice(priority.as_bytes());
            sentence(to, record);
        }
        Look::Text | Look::Colour => {
            let colour = match record.level {
                Level::Error => "\x1b[31m",
                Level::Warn => "\x1b[33m",
                Level::Info => "\x1b[32m",
                Level::Debug | Level::Trace => "\x1b[2m",
            };
            let (before, after) = colours(look, true, colour);
            for part in [&stamp, " ", before, record.level.label(), after, " "] {
                to.extend_from_slice(part.as_bytes());
            }
            sentence(to, record);
        }
    }
    to.push(b'\n');
}

fn colours(look: Look, wanted: bool, colour: &'static str) -> (&'static str, &'static str) {
    if look == Look::Colour && wanted {
        (colour, "\x1b[0m")
    } else {
        ("", "")
    }
}

/// Writes a number as one, where JSON has it.
fn json(fact: &Fact) -> Value {
    let number = fact.is_number().then(|| serde_json::from_str(fact).ok());
    number.flatten().unwrap_or_else(|| Value::from(&**fact))
}

fn sentence(to: &mut Vec<u8>, record: &Record) {
    if let Some(program) = &record.program {
        to.extend_from_slice(program.as_bytes());
        to.extend_from_slice(b": ");
    }
    escape(to, record.message.as_bytes());
    // Where lines are for people, the ids of traces are noise.
    let for_people = |field: &&(&str, Fact)| !matches!(field.0, "trace_id" | "span_id");
    for (name, value) in record.fields.iter().filter(for_people) {
        to.push(b' ');
        to.extend_from_slice(name.as_bytes());
        to.push(b'=');
        let plain = !value.is_empty() && !value.contains([' ', '"', '=']);
        if plain {
            escape(to, value.as_bytes());
        } else {
            let quoted = value.replace('\\', "\\\\").replace('"', "\\\"");
            to.push(b'"');
            escape(to, quoted.as_bytes());
            to.push(b'"');
        }
    }
}

/// Appends text that stays on its line and sends nothing to a terminal. A carriage return before
/// the end is part of the line's end.
pub(super) fn escape(to: &mut Vec<u8>, bytes: &[u8]) {
    let bytes = bytes.strip_suffix(b"\r").unwrap_or(bytes);
    let plain = bytes.iter().fold(true, |so_far, byte| {
        so_far & ((0x20..0x7f).contains(byte) | (*byte == b'\t'))
    });
    if plain {
        to.extend_from_slice(bytes);
        return;
    }
    let text = String::from_utf8_lossy(bytes);
    to.extend_from_slice(harmless(&text, Lines::One).as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at() -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(1_795_461_180_123)
    }

    fn text(look: Look, bytes: &[u8]) -> String {
        let mut to = Vec::new();
        let origin = Origin {
            program: "web/1",
            stream: Stream::Stdout,
        };
        output(
            &mut to,
            look,
            Stamp::default().text(at()),
            origin,
            Piece {
                bytes,
                partial: false,
            },
        );
        String::from_utf8(to).expect("the log is UTF-8")
    }

    #[test]
    fn a_captured_line_says_when_where_and_who() {
        let stamp = rfc3339(clock::millis(at()));
        assert_eq!(
            text(Look::Text, b"the line"),
            format!("{stamp} OUT   web/1: the line\n")
        );
        assert_eq!(parse_rfc3339(&stamp), Some(at()));
        assert_eq!(stamp.len(), "2026-11-23T19:13:00.123Z".len());
    }

    #[test]
    fn a_child_can_forge_neither_a_line_nor_a_terminal_escape() {
        let nasty = "a\n2026 INFO  web: fake\x1b[2J\u{9b}31m\0\x7f\ttab é".as_bytes();
        assert!(
            text(Look::Text, nasty)
                .ends_with(": a\\x0a2026 INFO  web: fake\\x1b[2J\\x9b31m\\x00\\x7f\ttab é\n")
        );
        assert_eq!(text(Look::Json, nasty).matches('\n').count(), 1);
        assert!(text(Look::Text, b"caf\xe9\r").ends_with("caf\u{fffd}\n"));
    }

    #[test]
    fn the_daemons_own_line_carries_its_fields() {
        let mut to = Vec::new();
        let own = Record {
            level: Level::Info,
            at: at(),
            program: Some("web".into()),
            message: "started".into(),
            fields: vec![("pid", Fact::number(42)), ("why", "a \"b\"".into())],
        };
        record(&mut to, Look::Text, &own);
        let text = String::from_utf8(to).expect("the log is UTF-8");
        assert!(
            text.ends_with("Z INFO  web: started pid=42 why=\"a \\\"b\\\"\"\n"),
            "{text}"
        );
        let mut to = Vec::new();
        record(&mut to, Look::Json, &own);
        let json: Value = serde_json::from_slice(&to).expect("JSON");
        assert_eq!(
            (&json["pid"], &json["why"]),
            (&42.into(), &"a \"b\"".into())
        );
    }
}
