//! The page of `eternal status`: how a status is laid out for people.

use anstyle::{AnsiColor, Style};

use super::output::{Page, state_style};
use crate::control::api::{ProgramStatus, Status};
use crate::text;

/// Between two columns.
const GAP: usize = 2;
/// The last column says why: with less room than this, others make place for it.
const READABLE: usize = 36;
/// Names are cut to this where there is no room for them.
const NAME: usize = 24;
/// The columns, and when each is left out: the lowest first, `None` never.
const COLUMNS: [(&str, Option<u8>); 8] = [
    ("NAME", None),
    ("STATE", None),
    ("PID", Some(1)),
    ("UPTIME", Some(3)),
    ("RESTARTS", Some(2)),
    ("CRASHES", Some(4)),
    ("MEMORY", Some(0)),
    ("WHY / NEXT", None),
];
const STATE: usize = 1;
const WHY: usize = COLUMNS.len() - 1;

/// Lays a status out: in lines as long as it takes, or, with a width, in lines that fit.
pub(super) fn page(status: &Status, width: Option<usize>) -> Page {
    let mut page = Page::default();
    header(status, width, &mut page);
    programs(&status.programs, width, &mut page);
    page
}

/// Lays out the table alone.
pub(super) fn programs(programs: &[ProgramStatus], width: Option<usize>, page: &mut Page) {
    if programs.is_empty() {
        page.text("no programs\n");
        return;
    }
    let mut rows: Vec<[String; COLUMNS.len()]> = programs.iter().map(row).collect();
    let layout = Layout::of(&mut rows, width);
    for column in layout.shown() {
        let title = COLUMNS[column].0;
        page.paint(Style::new().bold(), &layout.padded(column, title));
    }
    page.end();
    for row in &rows {
        for column in layout.shown() {
            let text = &row[column];
            if column == STATE {
                page.paint(state_style(text), text);
                page.piece(&layout.padded(column, text)[text.len()..]);
            } else if column == WHY {
                layout.wrapped(text, page);
            } else {
                page.piece(&layout.padded(column, text));
            }
        }
        page.end();
    }
}

/// How wide each column is.
struct Layout {
    widths: [Option<usize>; COLUMNS.len()],
    /// Where the last column begins, and how wide it may be.
    why: (usize, Option<usize>),
}

impl Layout {
    /// Makes room for the last column: names are cut, and columns left out, until it is readable.
    fn of(rows: &mut [[String; COLUMNS.len()]], width: Option<usize>) -> Self {
        let longest = |rows: &[[String; COLUMNS.len()]], column: usize| {
            let cells = rows.iter().map(|row| row[column].chars().count());
            cells.max().unwrap_or(0).max(COLUMNS[column].0.len())
        };
        let mut widths = std::array::from_fn(|column| Some(longest(rows, column)));
        let begins = |widths: &[Option<usize>; COLUMNS.len()]| -> usize {
            widths[..WHY].iter().flatten().map(|w| w + GAP).sum()
        };
        if let Some(width) = width {
            let tight = |widths: &_| begins(widths) + READABLE > width;
            for turn in 0..=4 {
                let column = COLUMNS.iter().position(|(_, out)| *out == Some(turn));
                if let Some(column) = column.filter(|_| tight(&widths)) {
                    widths[column] = None;
                }
            }
            if tight(&widths) && widths[0] > Some(NAME) {
                widths[0] = Some(NAME);
                rows.iter_mut().for_each(|row| row[0] = cut(&row[0], NAME));
            }
        }
        let begins = begins(&widths);
        Self {
            widths,
            // On a terminal too narrow for anything the line may wrap as it wants.
            why: (
                begins,
                width.map(|width| width.saturating_sub(begins).max(READABLE / 2)),
            ),
        }
    }

    fn shown(&self) -> impl Iterator<Item = usize> {
        (0..COLUMNS.len()).filter(|column| self.widths[*column].is_some())
    }

    fn padded(&self, column: usize, text: &str) -> String {
        if column == WHY {
            return text.to_owned();
        }
        let width = self.widths[column].unwrap_or(0) + GAP;
        format!("{text:<width$}")
    }

    fn wrapped(&self, text: &str, page: &mut Page) {
        let (begins, width) = self.why;
        let Some(width) = width else {
            page.piece(text);
            return;
        };
        for (number, line) in wrap(text, width).iter().enumerate() {
            if number > 0 {
                page.end();
                page.piece(&" ".repeat(begins));
            }
            page.piece(line);
        }
    }
}

/// Cuts a text to so many characters; an ellipsis says so.
fn cut(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    let mut cut: String = text.chars().take(most - 1).collect();
    cut.push('…');
    cut
}

/// Breaks a text at its spaces into lines of so many characters; a longer word is broken itself.
pub(super) fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    let mut room = width;
    for word in text.split(' ') {
        let mut rest: Vec<char> = word.chars().collect();
        let begun = lines.last().is_some_and(|line| !line.is_empty());
        if begun && rest.len() + 1 > room {
            lines.push(String::new());
            room = width;
        } else if begun {
            lines.last_mut().into_iter().for_each(|line| line.push(' '));
            room -= 1;
        }
        while rest.len() > room {
            let tail = rest.split_off(room);
            lines
                .last_mut()
                .into_iter()
                .for_each(|line| line.extend(&rest));
            lines.push(String::new());
            (rest, room) = (tail, width);
        }
        room -= rest.len();
        lines
            .last_mut()
            .into_iter()
            .for_each(|line| line.extend(&rest));
    }
    lines
}

fn header(status: &Status, width: Option<usize>, page: &mut Page) {
    let daemon = &status.daemon;
    let uptime = text::seconds(daemon.uptime_seconds);
    let mut words = format!(
        "eternal {}, pid {}, up {uptime}",
        daemon.version, daemon.pid
    );
    if daemon.stopping {
        words.push_str(", stopping");
    }
    if let Some(file) = &daemon.config_file {
        words.push_str(&format!(", config {file}"));
    }
    if let Some(address) = &daemon.metrics_address {
        words.push_str(&format!(", metrics on {address}"));
    }
    for line in fitting(&words, width) {
        page.piece(&line);
        page.end();
    }
    let failed = daemon.last_reload.as_ref().filter(|last| !last.successful);
    if let Some(reload) = failed {
        let words = format!("the reload at {} failed: {}", reload.at, reload.message);
        for line in fitting(&words, width) {
            page.paint(AnsiColor::Red.on_default(), &line);
            page.end();
        }
    }
}

fn fitting(words: &str, width: Option<usize>) -> Vec<String> {
    width.map_or_else(
        || vec![words.to_owned()],
        |width| wrap(words, width.max(READABLE)),
    )
}

fn row(program: &ProgramStatus) -> [String; COLUMNS.len()] {
    let dash = || "-".to_owned();
    let why = match &program.next {
        Some(next) => format!("{}; {next}", program.why),
        None => program.why.clone(),
    };
    [
        program.display_name.clone(),
        program.state.clone(),
        program.pid.map_or_else(dash, |pid| pid.to_string()),
        program.uptime_seconds.map_or_else(dash, text::seconds),
        program.restarts.to_string(),
        program.crashes.to_string(),
        program.memory_bytes.map_or_else(dash, text::bytes),
        // A line end would tear the table apart.
        why.replace(['\n', '\t'], " "),
    ]
    .map(|cell| text::harmless(&cell, text::Lines::One).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_break_at_spaces_and_long_words_where_they_must() {
        assert_eq!(wrap("one two three", 7), ["one two", "three"]);
        assert_eq!(wrap("unbreakable", 4), ["unbr", "eaka", "ble"]);
        assert_eq!(
            wrap("a unbreakable b", 4),
            ["a", "unbr", "eaka", "ble", "b"]
        );
        assert_eq!(wrap("", 4), [""]);
    }
}
