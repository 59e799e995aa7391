//! For tests only: the other side of the wire, written from the text of the standards and not from our encoder.
//!
//! Event streams: WHATWG HTML, 9.2.5 "Parsing" and 9.2.6 "Interpreting an event stream". Chunks: RFC 9112, 7.1.

/// An event as a browser would fire it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fired {
    /// The event type; `message` when the stream named none.
    pub(super) kind: String,
    /// The data.
    pub(super) data: String,
    /// The last event id at that time.
    pub(super) id: String,
}

/// What a client makes of a stream, up to its last complete block.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Interpreted {
    /// The events, in order.
    pub(super) fired: Vec<Fired>,
    /// Every reconnection time that was set.
    pub(super) retries: Vec<u64>,
    /// Every comment, without its colon.
    pub(super) comments: Vec<String>,
    /// Fields that the standard does not know; an encoder should write none.
    pub(super) unknown: Vec<String>,
}

/// Interprets a whole stream.
pub(super) fn interpret(stream: &[u8]) -> Interpreted {
    let text = String::from_utf8_lossy(stream);
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let mut out = Interpreted::default();
    let (mut data, mut kind, mut last_id) = (String::new(), String::new(), String::new());
    for line in complete_lines(text) {
        if line.is_empty() {
            dispatch(&mut out, &mut data, &mut kind, &last_id);
        } else if let Some(comment) = line.strip_prefix(':') {
            out.comments.push(comment.to_owned());
        } else {
            let (field, value) = line.split_once(':').unwrap_or((&line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "event" => kind = value.to_owned(),
                "data" => {
                    data.push_str(value);
                    data.push('\n');
                }
                "id" if value.contains('\0') => {}
                "id" => last_id = value.to_owned(),
                "retry" if !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit()) => {
                    out.retries.extend(value.parse::<u64>());
                }
                other => out.unknown.push(other.to_owned()),
            }
        }
    }
    out
}

fn dispatch(out: &mut Interpreted, data: &mut String, kind: &mut String, id: &str) {
    let (mut text, name) = (std::mem::take(data), std::mem::take(kind));
    if text.is_empty() {
        return;
    }
    text.truncate(text.len() - usize::from(text.ends_with('\n')));
    let name = if name.is_empty() { "message".to_owned() } else { name };
    out.fired.push(Fired { kind: name, data: text, id: id.to_owned() });
}

/// The lines that have an end: CRLF, LF or CR. Character by character, as the grammar reads.
fn complete_lines(text: &str) -> Vec<String> {
    let (mut lines, mut line, mut after_cr) = (Vec::new(), String::new(), false);
    for c in text.chars() {
        match c {
            '\n' if after_cr => {}
            '\r' | '\n' => lines.push(std::mem::take(&mut line)),
            other => line.push(other),
        }
        after_cr = c == '\r';
    }
    lines
}

/// The content of the chunks in `wire`, as far as it reaches, and whether the last chunk came. `None` when it is malformed.
pub(super) fn dechunk(mut wire: &[u8]) -> Option<(Vec<u8>, bool)> {
    let mut content = Vec::new();
    loop {
        let Some(end) = wire.windows(2).position(|pair| pair == b"\r\n") else {
            let size = wire.strip_suffix(b"\r").unwrap_or(wire);
            return size.iter().all(u8::is_ascii_hexdigit).then_some((content, false));
        };
        let size = usize::from_str_radix(std::str::from_utf8(&wire[..end]).ok()?, 16).ok()?;
        wire = &wire[end + 2..];
        if size == 0 {
            return (wire == b"\r\n").then_some((content, true));
        }
        content.extend_from_slice(&wire[..size.min(wire.len())]);
        wire = wire.get(size..).unwrap_or_default();
        let ending = &wire[..wire.len().min(2)];
        if !b"\r\n".starts_with(ending) {
            return None;
        }
        wire = &wire[ending.len()..];
    }
}

/// What a client reads back of a data text: every line break is an LF.
pub(super) fn as_read(data: &str) -> String {
    data.replace("\r\n", "\n").replace('\r', "\n")
}
