//! Where answers are printed: for people on a terminal, for programs elsewhere.
//!
//! The one place that writes. Most of what is printed came from elsewhere: from programs, from files,
//! from whoever answers at the socket. So nothing leaves here that a terminal would obey but what
//! [`Page::paint`] and the progress line put in; only [`Output::raw`] is as it came.

use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;

use anstyle::{AnsiColor, Style};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::Serialize;

use crate::text::{Lines, harmless, is_obeyed};

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
        let text = harmless(text, Lines::Several);
        self.write(&format!("{text}\n"))
    }

    /// Prints text that ends its own lines, at once.
    pub(super) fn text(&mut self, text: &str) -> io::Result<()> {
        self.write(&harmless(text, Lines::Several))
    }

    /// Prints a page at once.
    pub(super) fn page(&mut self, page: &Page) -> io::Result<()> {
        self.write(&page.0)
    }

    /// Prints a page in the place of the one before.
    pub(super) fn redraw(&mut self, page: &Page) -> io::Result<()> {
        self.write(&format!("\x1b[H\x1b[2J{}", page.0))
    }

    /// Prints a line exactly as it came, for those who ask for that.
    pub(super) fn raw(&mut self, line: &str) -> io::Result<()> {
        let mut stdout = io::stdout().lock();
        writeln!(stdout, "{line}")?;
        stdout.flush()
    }

    /// Tells whether whoever read what we print has closed the pipe, which nothing else would show
    /// before there is something to print.
    pub(super) fn reader_is_gone(&self) -> bool {
        let stdout = io::stdout();
        let mut asked = [PollFd::new(stdout.as_fd(), PollFlags::empty())];
        let found = poll(&mut asked, PollTimeout::ZERO);
        let happened = asked[0].revents().unwrap_or(PollFlags::empty());
        found.is_ok() && happened.intersects(PollFlags::POLLERR | PollFlags::POLLNVAL)
    }

    /// Prints a JSON document: readable on a terminal, else on one line.
    pub(super) fn json(&mut self, value: &impl Serialize) -> io::Result<()> {
        let text = if self.terminal {
            serde_json::to_string_pretty(value)?
        } else {
            serde_json::to_string(value)?
        };
        self.write(&format!("{}\n", escaped(&text)))
    }

    /// Prints a JSON document on one line.
    pub(super) fn json_line(&mut self, value: &impl Serialize) -> io::Result<()> {
        let text = serde_json::to_string(value)?;
        self.write(&format!("{}\n", escaped(&text)))
    }

    /// Says to people that something is wrong. A lost stderr leaves nobody to tell.
    pub(super) fn complain(&mut self, message: &str) {
        let message = harmless(message.trim_end(), Lines::Several);
        let _ = writeln!(anstream::stderr(), "eternal: {message}");
    }

    /// Says how something goes: to people only, without ending the line on a terminal.
    pub(super) fn progress(&mut self, message: &str) -> io::Result<()> {
        if self.json {
            return Ok(());
        }
        let message = harmless(message, Lines::One);
        if self.terminal {
            self.write(&format!("\r\x1b[2K{message}"))
        } else {
            self.write(&format!("{message}\n"))
        }
    }

    /// Takes an unfinished line of progress away.
    pub(super) fn end_progress(&mut self) -> io::Result<()> {
        if self.terminal && !self.json {
            self.write("\r\x1b[2K")
        } else {
            Ok(())
        }
    }

    fn write(&mut self, text: &str) -> io::Result<()> {
        self.stdout.write_all(text.as_bytes())?;
        self.stdout.flush()
    }
}

/// Writes what JSON leaves as it is and a terminal obeys as `\u009b`: outside of strings there is none
/// of it but line ends, so the document means the same.
fn escaped(json: &str) -> String {
    let mut safe = String::with_capacity(json.len());
    for c in json.chars() {
        if is_obeyed(c) && c != '\n' {
            safe.push_str(&format!("\\u{:04x}", u32::from(c)));
        } else {
            safe.push(c);
        }
    }
    safe
}

/// Text for people, some of it coloured; whatever is put in is made harmless on the way.
#[derive(Debug, Default)]
pub(super) struct Page(String);

impl Page {
    /// Adds text that may have several lines.
    pub(super) fn text(&mut self, text: &str) {
        self.0.push_str(&harmless(text, Lines::Several));
    }

    /// Adds a piece of one line.
    pub(super) fn piece(&mut self, text: &str) {
        self.0.push_str(&harmless(text, Lines::One));
    }

    /// Adds a piece of one line in a colour.
    pub(super) fn paint(&mut self, style: Style, text: &str) {
        let text = harmless(text, Lines::One);
        self.0.push_str(&format!("{style}{text}{style:#}"));
    }

    /// Ends the line.
    pub(super) fn end(&mut self) {
        self.0.push('\n');
    }

    /// Returns how many lines it has.
    pub(super) fn lines(&self) -> usize {
        self.0.lines().count()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_means_the_same_after_it_was_made_harmless() {
        let wild = "\u{9b}2J \u{202e} \x1b]52;c;x\x07 \"é\n";
        let json = serde_json::to_string(wild).expect("JSON");
        let safe = escaped(&json);
        assert!(!safe.chars().any(is_obeyed), "{safe}");
        assert_eq!(serde_json::from_str::<String>(&safe).expect("JSON"), wild);
    }
}
