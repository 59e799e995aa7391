//! The log: to standard error, one JSON object a line or text for people.
//!
//! Every line says which node it is of, and inside of a trace also which trace and span. What a client, a publisher or Redis
//! has said is in many of them: control characters, and those that turn the direction of writing round, are escaped in both
//! formats, so that nobody writes lines of his own or speaks to the terminal.

use std::fmt::{self, Display, Write as _};
use std::io::IsTerminal;
use std::sync::Arc;

use serde_json::Value;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime as _, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{EnvFilter, Layer};

use super::LogStyle;
use crate::trace::{self, TARGET};

/// Writes the log of the node `node` to standard error. A filter that cannot be read lets `info` through; whoever has settings
/// has checked it before.
pub(super) fn layer<S>(style: LogStyle<'_>, node: Option<&str>) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let mut filter = EnvFilter::try_new(style.filter).unwrap_or_else(|_| EnvFilter::new("info"));
    // Spans are for traces: as long as nobody exports them they shall cost nothing.
    if let Ok(off) = format!("{TARGET}=off").parse() {
        filter = filter.add_directive(off);
    }
    let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let lines = Lines { json: style.json, node: node.map(Arc::from) };
    tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(!style.json && std::io::stderr().is_terminal() && !no_colour)
        .event_format(lines)
        .with_filter(filter)
        .boxed()
}

/// How an event becomes a line.
struct Lines {
    json: bool,
    node: Option<Arc<str>>,
}

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut out: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut time = String::new();
        SystemTime.format_time(&mut Writer::new(&mut time))?;
        let mut said = Said::default();
        event.record(&mut said);
        said.add("node", self.node.as_deref());
        if let Some((trace, span)) = trace::here() {
            said.add("trace_id", Some(trace.to_string()));
            said.add("span_id", Some(span.to_string()));
        }
        let metadata = event.metadata();
        let target = said.target.take().unwrap_or_else(|| metadata.target().to_owned());
        let line = Line { time, level: *metadata.level(), target, said };
        if self.json { line.json(&mut out) } else { line.text(&mut out) }
    }
}

/// What an event says, in its order.
#[derive(Default)]
struct Said {
    message: String,
    fields: Vec<(&'static str, Value)>,
    /// Of an event that came over the `log` crate.
    target: Option<String>,
}

impl Said {
    fn add(&mut self, name: &'static str, value: Option<impl Into<Value>>) {
        self.fields.extend(value.map(|value| (name, value.into())));
    }

    fn note(&mut self, field: &Field, value: Value) {
        match (field.name(), value) {
            ("message", Value::String(text)) => self.message = text,
            ("log.target", Value::String(target)) => self.target = Some(target),
            // Where in its library an event of the `log` crate comes from.
            (name, _) if name.starts_with("log.") => {}
            (name, value) => self.fields.push((name, value)),
        }
    }
}

impl Visit for Said {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.note(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.note(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.note(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.note(field, value.into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.note(field, value.into());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.note(field, format!("{value:?}").into());
    }
}

struct Line {
    time: String,
    level: Level,
    target: String,
    said: Said,
}

impl Line {
    fn json(self, out: &mut Writer<'_>) -> fmt::Result {
        let head = [
            ("timestamp", self.time.into()),
            ("level", self.level.as_str().into()),
            ("target", self.target.into()),
            ("message", self.said.message.into()),
        ];
        let mut line = String::new();
        for (name, value) in head.into_iter().chain(self.said.fields) {
            let before = if line.is_empty() { '{' } else { ',' };
            write!(line, "{before}{}:{value}", Value::from(name))?;
        }
        // What JSON itself need not escape, inside of strings all of it.
        for c in line.chars() {
            if is_hidden(c) { write!(out, "\\u{:04x}", u32::from(c))? } else { out.write_char(c)? }
        }
        writeln!(out, "}}")
    }

    fn text(self, out: &mut Writer<'_>) -> fmt::Result {
        let Self { time, level, target, said } = self;
        if out.has_ansi_escapes() {
            write!(
                out,
                "\x1b[2m{time}\x1b[0m \x1b[{}m{level:>5}\x1b[0m \x1b[2m{target}:\x1b[0m ",
                colour(level)
            )?;
        } else {
            write!(out, "{time} {level:>5} {target}: ")?;
        }
        write!(out, "{}", Escaped(&said.message))?;
        for (name, value) in said.fields {
            match value {
                Value::String(text) if is_plain(&text) => write!(out, " {name}={text}")?,
                Value::String(text) => {
                    let text = text.replace('\\', r"\\").replace('"', "\\\"");
                    write!(out, " {name}=\"{}\"", Escaped(&text))?;
                }
                number => write!(out, " {name}={number}")?,
            }
        }
        writeln!(out)
    }
}

/// Of the Select Graphic Rendition (ECMA-48, section 8.3.117).
const fn colour(level: Level) -> u8 {
    match level {
        Level::ERROR => 31,
        Level::WARN => 33,
        Level::INFO => 32,
        Level::DEBUG => 34,
        Level::TRACE => 35,
    }
}

/// Needs no quotes: whoever reads the line knows where it ends.
fn is_plain(text: &str) -> bool {
    let special = |c: char| c.is_whitespace() || is_hidden(c) || matches!(c, '"' | '=' | '\\');
    !text.is_empty() && !text.contains(special)
}

/// Is not seen, or does something to what is around it: control characters, and those of Unicode that change the direction of
/// writing, end a line or have no width. All of them have at most four hexadecimal digits.
fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

/// A text with what is hidden in it written out.
struct Escaped<'a>(&'a str);

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| {
            if is_hidden(c) { write!(f, "{}", c.escape_default()) } else { f.write_char(c) }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Everything that could end a line, move a cursor or turn text round.
    const HOSTILE: &str = "a\r\nb\u{1b}[2J\0\u{7f}\u{9b}31m\u{202e}\u{2028}\"\\=";

    fn line(message: &str, fields: Vec<(&'static str, Value)>) -> Line {
        let said = Said { message: message.into(), fields, target: None };
        Line { time: "2026-01-02T03:04:05Z".into(), level: Level::WARN, target: "fanlight::x".into(), said }
    }

    fn written(write: impl FnOnce(&mut Writer<'_>) -> fmt::Result) -> String {
        let mut text = String::new();
        write(&mut Writer::new(&mut text)).unwrap();
        text
    }

    #[test]
    fn text_is_one_line_without_control_characters_whatever_is_said() {
        let fields = vec![("reason", HOSTILE.into()), ("n", 7.into()), ("id", "plain-1".into())];
        let text = written(|out| line(HOSTILE, fields).text(out));
        let (one, rest) = text.split_once('\n').unwrap();
        assert!(rest.is_empty() && !one.contains(is_hidden), "{one:?}");
        assert!(one.starts_with("2026-01-02T03:04:05Z  WARN fanlight::x: a\\r\\nb\\u{1b}[2J\\u{0}"), "{one}");
        assert!(one.contains(" reason=\"a\\r\\nb") && one.ends_with(" n=7 id=plain-1"), "{one}");
    }

    #[test]
    fn json_is_one_line_from_which_everything_is_read_again() {
        let text = written(|out| line(HOSTILE, vec![("reason", HOSTILE.into()), ("n", 7.into())]).json(out));
        let (one, rest) = text.split_once('\n').unwrap();
        assert!(rest.is_empty() && one.is_ascii() && !one.contains(is_hidden), "{one:?}");
        let read: Value = serde_json::from_str(one).unwrap();
        assert_eq!((read["message"].as_str(), read["reason"].as_str()), (Some(HOSTILE), Some(HOSTILE)));
        assert_eq!((read["level"].as_str(), read["n"].as_u64()), (Some("WARN"), Some(7)));
    }

    #[test]
    fn what_has_spaces_or_quotes_is_quoted_so_that_nobody_adds_fields() {
        let text =
            written(|out| line("m", vec![("why", "a level=ERROR".into()), ("empty", "".into())]).text(out));
        assert!(text.ends_with(": m why=\"a level=ERROR\" empty=\"\"\n"), "{text}");
    }
}
