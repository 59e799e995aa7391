//! What people see: colours on a terminal, plain when piped, `NO_COLOR` honoured (no-color.org).

use std::borrow::Cow;
use std::io::{IsTerminal, Write};

/// SGR codes around a text.
#[derive(Clone, Copy, Debug)]
pub(super) enum Style {
    /// What matters less.
    Dim,
    /// Something went wrong.
    Red,
    /// Something is not as it should be.
    Yellow,
    /// Event types.
    Cyan,
}

impl Style {
    const fn code(self) -> &'static str {
        match self {
            Self::Dim => "2",
            Self::Red => "31",
            Self::Yellow => "33",
            Self::Cyan => "36",
        }
    }
}

/// How to write to one stream.
#[derive(Clone, Copy, Debug)]
pub(super) struct Look {
    terminal: bool,
    colour: bool,
}

impl Look {
    /// For standard output.
    pub(super) fn stdout() -> Self {
        Self::of(std::io::stdout().is_terminal())
    }

    /// For standard error.
    pub(super) fn stderr() -> Self {
        Self::of(std::io::stderr().is_terminal())
    }

    /// Without colours, for a file or a test.
    #[cfg(test)]
    pub(super) fn plain() -> Self {
        Self { terminal: false, colour: false }
    }

    /// For a terminal whose user wants no colours.
    #[cfg(test)]
    pub(super) fn terminal_without_colour() -> Self {
        Self { terminal: true, colour: false }
    }

    /// Whether somebody looks at it.
    pub(super) fn is_terminal(self) -> bool {
        self.terminal
    }

    fn of(terminal: bool) -> Self {
        let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        Self { terminal, colour: terminal && !no_colour && !dumb }
    }

    /// `text` in `style`, where colours are wanted.
    pub(super) fn paint(self, style: Style, text: &str) -> Cow<'_, str> {
        if self.colour { format!("\u{1b}[{}m{text}\u{1b}[0m", style.code()).into() } else { text.into() }
    }

    /// `text` as it may be shown: an event must not move the cursor of whoever looks at it. Piped, it stays as it is.
    pub(super) fn harmless(self, text: &str) -> Cow<'_, str> {
        let harmful = |c: char| c.is_control() && c != '\n' && c != '\t';
        if !self.terminal || !text.contains(harmful) {
            return text.into();
        }
        text.chars().map(|c| if harmful(c) { '\u{fffd}' } else { c }).collect::<String>().into()
    }
}

/// `error: …` on standard error.
pub(super) fn error(message: &str) {
    labelled(Style::Red, "error", message);
}

/// `warning: …` on standard error.
pub(super) fn warning(message: &str) {
    labelled(Style::Yellow, "warning", message);
}

fn labelled(style: Style, label: &str, message: &str) {
    let look = Look::stderr();
    // Nobody is left to tell when standard error has gone.
    let _ = writeln!(std::io::stderr(), "{}: {}", look.paint(style, label), look.harmless(message));
}

/// A remark on standard error, beside the output proper.
pub(super) fn note(message: &str) {
    let look = Look::stderr();
    let _ = writeln!(std::io::stderr(), "{}", look.paint(Style::Dim, &look.harmless(message)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_cannot_steer_a_terminal() {
        let terminal = Look { terminal: true, colour: true };
        assert_eq!(terminal.harmless("a\u{1b}[2Jb\u{9b}c\r\td"), "a\u{fffd}[2Jb\u{fffd}c\u{fffd}\td");
        let piped = Look { terminal: false, colour: false };
        assert_eq!(piped.harmless("a\u{1b}b"), "a\u{1b}b");
        assert_eq!(piped.paint(Style::Red, "x"), "x");
    }
}
