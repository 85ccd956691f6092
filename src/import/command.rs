//! A command line as the source means it: words, or a line for `sh` where a shell is needed.

/// A part of a word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// As it is.
    Text(String),
    /// The value that a variable has when the program is started; it has to be set.
    Variable(String),
    /// The same, split at white space: it stands for any number of words.
    Words(String),
}

/// One word.
pub(super) type Word = Vec<Piece>;

/// What is done in a shell before the program takes its place.
#[derive(Clone, Debug, Default)]
pub(super) struct Command {
    /// Variables to be set, which need the value of another.
    pub exports: Vec<(String, Word)>,
    /// Lines to be run first, as written.
    pub before: Vec<String>,
    /// The program and its arguments.
    pub words: Vec<Word>,
    /// Redirections, as `sh` writes them.
    pub redirections: Vec<&'static str>,
}

impl Command {
    /// Makes one of plain words.
    pub fn plain(words: impl IntoIterator<Item = String>) -> Self {
        Self {
            words: words
                .into_iter()
                .map(|word| vec![Piece::Text(word)])
                .collect(),
            ..Self::default()
        }
    }

    /// Tells whether it takes a shell.
    pub fn needs_shell(&self) -> bool {
        let all = self.words.iter().flatten();
        !self.exports.is_empty()
            || !self.before.is_empty()
            || !self.redirections.is_empty()
            || all
                .into_iter()
                .any(|piece| !matches!(piece, Piece::Text(_)))
    }

    /// Returns the words for `command`.
    pub fn argv(&self) -> Vec<String> {
        if !self.needs_shell() {
            return self.words.iter().map(literal).collect();
        }
        vec!["sh".to_owned(), "-c".to_owned(), self.script()]
    }

    fn script(&self) -> String {
        let mut parts: Vec<String> = self.before.clone();
        let mut pieces = self.words.iter().flatten();
        if pieces.any(|piece| matches!(piece, Piece::Words(_))) {
            // What a variable holds is no pattern for the names of files.
            parts.push("set -f".to_owned());
        }
        for (name, value) in &self.exports {
            parts.push(format!("{name}={}; export {name}", quoted(value)));
        }
        let words: Vec<String> = self.words.iter().map(quoted).collect();
        let mut last = format!("exec {}", words.join(" "));
        for redirection in &self.redirections {
            last.push(' ');
            last.push_str(redirection);
        }
        parts.push(last);
        parts.join("; ")
    }
}

/// Returns the text of a word without variables.
fn literal(word: &Word) -> String {
    word.iter()
        .map(|piece| match piece {
            Piece::Text(text) => text.as_str(),
            Piece::Variable(_) | Piece::Words(_) => "",
        })
        .collect()
}

/// Writes a word for `sh`. A variable that is unset ends the shell with a message, as it would have
/// kept the source from being loaded.
fn quoted(word: &Word) -> String {
    if word.is_empty() {
        return "''".to_owned();
    }
    word.iter()
        .map(|piece| match piece {
            Piece::Text(text) => quote(text),
            Piece::Variable(name) => format!("\"${{{name}?}}\""),
            Piece::Words(name) => format!("${{{name}?}}"),
        })
        .collect()
}

/// Quotes a text for `sh`, where that is needed.
pub(super) fn quote(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"_-./:,@%+=".contains(&b);
    if !text.is_empty() && text.bytes().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', "'\\''"))
}

/// Tells whether `sh` would do more with a line than split it into words.
pub(super) fn has_shell_syntax(line: &str) -> bool {
    let signs = |c: char| "|&;<>()$`*?[]{}!\n~#".contains(c);
    line.contains(signs) || assignments(line) > line.len() - line.trim_start().len()
}

/// Makes the shell leave its place to the command, where the line is a single one.
pub(super) fn with_exec(line: &str) -> String {
    let (variables, command) = line.split_at(assignments(line));
    let first = command.split_whitespace().next().unwrap_or_default();
    let compound = ["|", "&", ";", "\n", "(", ")", "{", "}", "<(", "`"];
    // What is the shell's own cannot take its place; nor can nothing.
    const WORDS: [&str; 25] = [
        "", "exec", "cd", "if", "for", "while", "until", "case", "export", "source", ".", "!",
        "set", ":", "eval", "command", "ulimit", "umask", "unset", "trap", "wait", "shift",
        "readonly", "alias", "exit",
    ];
    if variables_only_in_braces(line, &compound) || WORDS.contains(&first) {
        return line.to_owned();
    }
    // The shell still reads the values: their variables, their tildes, their quotes.
    format!("{variables}exec {command}")
}

/// Tells whether a line is more than one simple command. `${…}` is part of a word.
fn variables_only_in_braces(line: &str, signs: &[&str]) -> bool {
    let mut rest = String::new();
    let mut inside = false;
    let mut before = ' ';
    for c in line.chars() {
        match (inside, c) {
            (false, '{') if before == '$' => inside = true,
            (true, '}') => inside = false,
            (false, c) => rest.push(c),
            (true, _) => {}
        }
        before = c;
    }
    signs.iter().any(|sign| rest.contains(sign))
}

/// Returns where the `NAME=value` that a line begins with end, and its command begins, in bytes.
fn assignments(line: &str) -> usize {
    let is_name = |name: &str| {
        !name.is_empty()
            && !name.starts_with(|c: char| c.is_ascii_digit())
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
    };
    let blanks = |text: &str| text.len() - text.trim_start().len();
    let mut end = blanks(line);
    while let Some((name, _)) = line[end..].split_once('=') {
        if !is_name(name) {
            break;
        }
        end += word_length(&line[end..]);
        end += blanks(&line[end..]);
    }
    end
}

/// Returns how long the first word of a line is for a shell, in bytes.
fn word_length(line: &str) -> usize {
    let (mut quote, mut braces, mut before) = (None, 0_u32, ' ');
    for (at, c) in line.char_indices() {
        let escaped = before == '\\' && quote != Some('\'');
        match (quote, c) {
            _ if escaped => {
                before = ' ';
                continue;
            }
            (Some(open), _) if open == c => quote = None,
            (None, '\'' | '"') => quote = Some(c),
            (_, '{') if before == '$' => braces += 1,
            (_, '}') => braces = braces.saturating_sub(1),
            (None, c) if c.is_whitespace() && braces == 0 => return at,
            _ => {}
        }
        before = c;
    }
    line.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_stay_words_until_a_shell_is_needed() {
        let plain = Command::plain(["./x".to_owned(), "a b".to_owned()]);
        assert_eq!(plain.argv(), ["./x", "a b"]);
        let mut command = plain.clone();
        command.words.push(vec![
            Piece::Text("--port=it's ".to_owned()),
            Piece::Variable("PORT".to_owned()),
        ]);
        command.words.push(vec![Piece::Words("OPTS".to_owned())]);
        command.redirections.push(">/dev/null");
        assert_eq!(
            command.argv()[2],
            r#"set -f; exec ./x 'a b' '--port=it'\''s '"${PORT?}" ${OPTS?} >/dev/null"#
        );
    }

    #[test]
    fn a_shell_leaves_its_place_to_a_single_command_only() {
        for (line, written) in [
            ("rails s -p $PORT", "exec rails s -p $PORT"),
            ("rails s -p ${PORT:-3000}", "exec rails s -p ${PORT:-3000}"),
            ("A=1 B=2 x", "A=1 B=2 exec x"),
            ("A=$W B=~/b x $A", "A=$W B=~/b exec x $A"),
            (
                r#"A="1 2" B='3 4' C=5\ 6 x y"#,
                r#"A="1 2" B='3 4' C=5\ 6 exec x y"#,
            ),
            ("A=${B:-c d} x", "A=${B:-c d} exec x"),
            ("A=1 exec x", "A=1 exec x"),
            ("A=1", "A=1"),
            ("ulimit -n 10", "ulimit -n 10"),
            ("a && b", "a && b"),
            ("cd x && y", "cd x && y"),
            ("exec x", "exec x"),
            ("a | b", "a | b"),
        ] {
            assert_eq!(with_exec(line), written);
        }
    }

    #[test]
    fn shell_syntax_is_seen() {
        for line in ["a $B", "a > b", "A=1 b", "a *.c", "a; b", "a `b`"] {
            assert!(has_shell_syntax(line), "{line}");
        }
        for line in ["a b", "a 'b c'", "a --x=1", "a b\\ c"] {
            assert!(!has_shell_syntax(line), "{line}");
        }
    }
}
