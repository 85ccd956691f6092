//! The dialect of INI that supervisord reads: Python's `RawConfigParser`, with `;` and `#` as
//! inline comments after white space, continuation lines, and repeated sections merged.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use crate::import::Failure;

/// One option.
#[derive(Clone, Debug)]
pub(super) struct Opt {
    pub key: String,
    pub value: String,
    pub file: PathBuf,
    pub line: usize,
}

/// One section.
#[derive(Clone, Debug)]
pub(super) struct Section {
    pub name: String,
    pub file: PathBuf,
    pub line: usize,
    /// The last of each name.
    pub options: Vec<Opt>,
    /// Those that a later one of the same name replaced.
    pub replaced: Vec<Opt>,
    places: HashMap<String, usize>,
}

impl Section {
    /// Finds an option.
    pub fn get(&self, key: &str) -> Option<&Opt> {
        self.options.get(*self.places.get(key)?)
    }

    /// Returns what comes before the colon of its name, and what comes after.
    pub fn parts(&self) -> (&str, &str) {
        let (kind, name) = self.name.split_once(':').unwrap_or((&self.name, ""));
        (kind.trim(), name.trim())
    }

    /// Adds an option and returns its place.
    fn add(&mut self, option: Opt) -> usize {
        if let Some(place) = self.places.get(&option.key) {
            let earlier = std::mem::replace(&mut self.options[*place], option);
            self.replaced.push(earlier);
            return *place;
        }
        let place = self.options.len();
        self.places.insert(option.key.clone(), place);
        self.options.push(option);
        place
    }
}

/// All sections, in the order they were met first.
#[derive(Debug, Default)]
pub(super) struct Ini {
    pub sections: Vec<Section>,
    places: HashMap<String, usize>,
}

impl Ini {
    /// Adds the sections of a text.
    ///
    /// # Errors
    /// Every line that is neither a section, an option, a continuation nor a comment.
    pub fn add(&mut self, file: &Path, text: &str) -> Result<(), Failure> {
        let mut reader = Reader {
            ini: self,
            file,
            section: None,
            option: None,
            indent: 0,
            problems: Vec::new(),
        };
        for (index, line) in text.lines().enumerate() {
            reader.line(index + 1, line);
        }
        let problems = reader.problems;
        for section in &mut self.sections {
            for option in &mut section.options {
                let kept = option.value.trim_end().len();
                option.value.truncate(kept);
            }
        }
        if problems.is_empty() {
            return Ok(());
        }
        Err(Failure::Source(problems.join("\n")))
    }

    fn open(&mut self, file: &Path, line: usize, name: &str) -> usize {
        if let Some(known) = self.places.get(name) {
            return *known;
        }
        self.places.insert(name.to_owned(), self.sections.len());
        self.sections.push(Section {
            name: name.to_owned(),
            file: file.to_owned(),
            line,
            options: Vec::new(),
            replaced: Vec::new(),
            places: HashMap::new(),
        });
        self.sections.len() - 1
    }
}

struct Reader<'a> {
    ini: &'a mut Ini,
    file: &'a Path,
    section: Option<usize>,
    /// The option that the last line belongs to, which an indented one goes on with.
    option: Option<usize>,
    /// Of the line that the option began on.
    indent: usize,
    problems: Vec<String>,
}

impl Reader<'_> {
    fn line(&mut self, number: usize, line: &str) {
        let (line, commented) = without_comment(line);
        let value = line.trim();
        if value.is_empty() {
            if !commented {
                self.go_on("");
            }
            return;
        }
        let indent = line.len() - line.trim_start().len();
        if self.option.is_some() && indent > self.indent {
            self.go_on(value);
            return;
        }
        self.indent = indent;
        let header = value
            .strip_prefix('[')
            .and_then(|rest| Some(&rest[..rest.rfind(']')?]));
        match (header, self.section, value.find(['=', ':'])) {
            (Some(name), _, _) if !name.is_empty() => {
                self.section = Some(self.ini.open(self.file, number, name));
                self.option = None;
            }
            (_, None, _) => {
                self.problem(number, value, "is not in a section");
                self.option = None;
            }
            (_, Some(section), Some(at)) if at > 0 => {
                let option = Opt {
                    key: value[..at].trim_end().to_lowercase(),
                    value: value[at + 1..].trim().to_owned(),
                    file: self.file.to_owned(),
                    line: number,
                };
                self.option = Some(self.ini.sections[section].add(option));
            }
            (_, Some(_), _) => self.problem(number, value, "is no `key = value`"),
        }
    }

    fn go_on(&mut self, value: &str) {
        let place = self.section.zip(self.option);
        let option = place.map(|(section, option)| &mut self.ini.sections[section].options[option]);
        if let Some(option) = option {
            option.value.push('\n');
            option.value.push_str(value);
        }
    }

    fn problem(&mut self, number: usize, value: &str, what: &str) {
        const SHOWN: usize = 60;
        let start: String = value.chars().take(SHOWN).collect();
        self.problems.push(format!(
            "{}:{number}: {start:?} {what}",
            self.file.display()
        ));
    }
}

/// Cuts an inline comment off, and says whether there was one.
fn without_comment(line: &str) -> (&str, bool) {
    let mut before = ' ';
    for (at, c) in line.char_indices() {
        if matches!(c, ';' | '#') && before.is_whitespace() {
            return (&line[..at], true);
        }
        before = c;
    }
    (line, false)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Ini, Failure> {
        let mut ini = Ini::default();
        ini.add(Path::new("x.conf"), text).map(|()| ini)
    }

    #[test]
    fn comments_continuations_and_repeated_sections_are_read_as_python_does() {
        let text = "; head\r\n[program:a]\r\nCommand = /bin/a;b ; why\r\n# no\r\n\
                    environment = A=\"1\",\r\n  B=\"2#3\" # c\r\n\r\n[program:b]\r\ncommand: x=1\r\n\
                    [program:a]\r\ncommand=/bin/c\r\nuser=\r\n";
        let ini = read(text).expect("it is read");
        let a = &ini.sections[0];
        assert_eq!((a.name.as_str(), a.line), ("program:a", 2));
        let command = a.get("command").expect("a command");
        assert_eq!((command.value.as_str(), command.line), ("/bin/c", 11));
        assert_eq!(a.replaced[0].value, "/bin/a;b");
        assert_eq!(
            a.get("environment").expect("one").value,
            "A=\"1\",\nB=\"2#3\""
        );
        assert_eq!(a.get("user").expect("one").value, "");
        assert_eq!(ini.sections[1].get("command").expect("one").value, "x=1");
    }

    #[test]
    fn every_bad_line_is_named() {
        let problem = read("x=1\n[program:a]\nnonsense\n=1\n").expect_err("refused");
        assert_eq!(
            problem.to_string(),
            "x.conf:1: \"x=1\" is not in a section\nx.conf:3: \"nonsense\" is no `key = value`\n\
             x.conf:4: \"=1\" is no `key = value`"
        );
    }
}
