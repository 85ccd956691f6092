//! Where answers are printed: for people on a terminal, for programs elsewhere.

use std::io::{self, IsTerminal, Write};

use anstyle::{AnsiColor, Style};
use serde::Serialize;

/// Standard output and standard error. Colour codes are dropped where they are not wanted.
pub(super) struct Output {
    stdout: anstream::AutoStream<io::Stdout>,
    terminal: bool,
    json: bool,
}

impl Output {
    pub(super) fn new(json: bool) -> Self {
        let terminal = io::stdout().is_terminal();
        Self {
            stdout: anstream::stdout(),
            terminal,
            json,
        }
    }

    pub(super) fn is_terminal(&self) -> bool {
        self.terminal
    }

    pub(super) fn is_json(&self) -> bool {
        self.json
    }

    /// Prints a line.
    pub(super) fn line(&mut self, text: &str) -> io::Result<()> {
        self.text(&format!("{text}\n"))
    }

    /// Prints text as it is, at once.
    pub(super) fn text(&mut self, text: &str) -> io::Result<()> {
        self.stdout.write_all(text.as_bytes())?;
        self.stdout.flush()
    }

    /// Prints a JSON document: readable on a terminal, else on one line.
    pub(super) fn json(&mut self, value: &impl Serialize) -> io::Result<()> {
        let text = if self.terminal {
            serde_json::to_string_pretty(value)?
        } else {
            serde_json::to_string(value)?
        };
        self.line(&text)
    }

    /// Prints a JSON document on one line.
    pub(super) fn json_line(&mut self, value: &impl Serialize) -> io::Result<()> {
        self.line(&serde_json::to_string(value)?)
    }

    /// Says to people that something is wrong. A lost stderr leaves nobody to tell.
    pub(super) fn complain(&mut self, message: &str) {
        let _ = writeln!(anstream::stderr(), "eternal: {}", message.trim_end());
    }

    /// Says how something goes: to people only, without ending the line on a terminal.
    pub(super) fn progress(&mut self, message: &str) -> io::Result<()> {
        if self.json {
            return Ok(());
        }
        if self.terminal {
            self.text(&format!("\r\x1b[2K{message}"))
        } else {
            self.line(message)
        }
    }

    /// Takes an unfinished line of progress away.
    pub(super) fn end_progress(&mut self) -> io::Result<()> {
        if self.terminal && !self.json {
            self.text("\r\x1b[2K")
        } else {
            Ok(())
        }
    }
}

/// Gives a state its colour.
pub(super) fn state_style(state: &str) -> Style {
    let color = match state {
        "running" => AnsiColor::Green,
        "starting" | "stopping" | "backoff" => AnsiColor::Yellow,
        "failed" => AnsiColor::Red,
        _ => return Style::new().dimmed(),
    };
    color.on_default()
}

/// Colours a piece of text.
pub(super) fn paint(style: Style, text: &str) -> String {
    format!("{style}{text}{style:#}")
}
