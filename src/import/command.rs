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
    line.contains(signs) || assignments(line) > 0
}

/// Makes the shell leave its place to the command, where the line is a single one.
pub(super) fn with_exec(line: &str) -> String {
    let first = line.split_whitespace().next().unwrap_or_default();
    let compound = ["|", "&", ";", "\n", "(", ")", "{", "}", "<(", "`"];
    const WORDS: [&str; 12] = [
        "exec", "cd", "if", "for", "while", "until", "case", "export", "source", ".", "!", "set",
    ];
    if variables_only_in_braces(line, &compound) || WORDS.contains(&first) {
        return line.to_owned();
    }
    if assignments(line) > 0 {
        return format!("exec env {line}");
    }
    format!("exec {line}")
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

/// Counts the `NAME=value` that a line begins with.
fn assignments(line: &str) -> usize {
    let is_assignment = |word: &&str| {
        word.split_once('=').is_some_and(|(name, _)| {
            !name.is_empty()
                && !name.starts_with(|c: char| c.is_ascii_digit())
                && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        })
    };
    line.split_whitespace().take_while(is_assignment).count()
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
            r#"exec ./x 'a b' '--port=it'\''s '"${PORT?}" ${OPTS?} >/dev/null"#
        );
    }

    #[test]
    fn a_shell_leaves_its_place_to_a_single_command_only() {
        for (line, written) in [
            ("rails s -p $PORT", "exec rails s -p $PORT"),
            ("rails s -p ${PORT:-3000}", "exec rails s -p ${PORT:-3000}"),
            ("A=1 B=2 x", "exec env A=1 B=2 x"),
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
