//! `%(name)s` in a value, as Python's formatting and supervisord's names have it.

use std::collections::BTreeMap;

use crate::import::command::Piece;

/// What may stand in `%(…)s`.
#[derive(Clone, Debug, Default)]
pub(super) struct Scope {
    /// `here`, `program_name`, `group_name`, `host_node_name`.
    pub texts: BTreeMap<&'static str, String>,
    /// `process_num`, `numprocs`.
    pub numbers: BTreeMap<&'static str, i64>,
    /// What the program's own `environment` sets.
    pub own: BTreeMap<String, String>,
    /// The environment that the import was started with.
    pub outer: BTreeMap<String, String>,
}

impl Scope {
    /// Expands a value; variables of the environment stay what they are.
    ///
    /// # Errors
    /// What is wrong with the value, to stand after its name.
    pub fn expand(&self, value: &str) -> Result<Vec<Piece>, String> {
        let mut pieces = Vec::new();
        let mut text = String::new();
        let mut rest = value;
        while let Some(at) = rest.find('%') {
            text.push_str(&rest[..at]);
            rest = &rest[at + 1..];
            if let Some(after) = rest.strip_prefix('%') {
                text.push('%');
                rest = after;
                continue;
            }
            let inside = rest.strip_prefix('(').and_then(|r| r.split_once(')'));
            let Some((name, after)) = inside else {
                return Err("has a % that stands for nothing; write %% for the sign".to_owned());
            };
            let flags = after.len()
                - after
                    .trim_start_matches(|c: char| c.is_ascii_digit() || "-+ #.".contains(c))
                    .len();
            let (format, after) = after.split_at(flags);
            let mut chars = after.chars();
            let kind = chars.next().unwrap_or(' ');
            rest = chars.as_str();
            match self.value(name)? {
                Value::Number(number) => text.push_str(&written(number, format, kind)?),
                Value::Text(value) if kind == 's' => text.push_str(&value),
                Value::Text(_) => {
                    return Err(format!(
                        "has %({name}){format}{kind}, which is not a number"
                    ));
                }
                Value::Variable(name) => {
                    if !text.is_empty() {
                        pieces.push(Piece::Text(std::mem::take(&mut text)));
                    }
                    pieces.push(Piece::Variable(name));
                }
            }
        }
        text.push_str(rest);
        if !text.is_empty() {
            pieces.push(Piece::Text(text));
        }
        Ok(pieces)
    }

    /// Expands a value that has to be known now. Returns the variables it was made of as well.
    ///
    /// # Errors
    /// As [`Scope::expand`], and where a variable is not set.
    pub fn now(&self, value: &str) -> Result<(String, Vec<String>), String> {
        let mut text = String::new();
        let mut used = Vec::new();
        for piece in self.expand(value)? {
            match piece {
                Piece::Text(part) => text.push_str(&part),
                Piece::Variable(name) | Piece::Words(name) => {
                    let value = self.outer.get(&name).ok_or_else(|| {
                        format!(
                            "needs the variable {name}, which is not set; set it and import again"
                        )
                    })?;
                    text.push_str(value);
                    used.push(name);
                }
            }
        }
        Ok((text, used))
    }

    fn value(&self, name: &str) -> Result<Value, String> {
        if let Some(variable) = name.strip_prefix("ENV_") {
            return Ok(match self.own.get(variable) {
                Some(value) => Value::Text(value.clone()),
                None => Value::Variable(variable.to_owned()),
            });
        }
        if let Some(number) = self.numbers.get(name) {
            return Ok(Value::Number(*number));
        }
        self.texts
            .get(name)
            .map(|text| Value::Text(text.clone()))
            .ok_or_else(|| format!("has %({name})s, which supervisord does not know here"))
    }
}

enum Value {
    Text(String),
    Number(i64),
    Variable(String),
}

/// Writes a number as Python's `%` does: `02d`, `d`, `s`, `5d`.
fn written(number: i64, format: &str, kind: char) -> Result<String, String> {
    let digits = format.trim_start_matches(|c: char| !c.is_ascii_digit());
    let zero = digits.starts_with('0');
    let width: usize = digits.trim_start_matches('0').parse().unwrap_or(0);
    const WIDEST: usize = 64;
    if !matches!(kind, 'd' | 'i' | 'u' | 's') || width > WIDEST {
        return Err(format!(
            "has the format {format}{kind}, which is not translated"
        ));
    }
    Ok(match (zero && kind != 's', format.starts_with('-')) {
        (_, true) => format!("{number:<width$}"),
        (true, false) => format!("{number:0width$}"),
        (false, false) => format!("{number:width$}"),
    })
}

/// Reads `KEY="value",KEY2=value`; commas, and line ends, divide.
///
/// # Errors
/// Where the pairs end unexpectedly.
pub(super) fn pairs(text: &str) -> Result<Vec<(String, String)>, String> {
    let mut pairs = Vec::new();
    let mut rest = text.trim_start_matches([',', ' ', '\t', '\n']);
    while !rest.is_empty() {
        let (name, after) = rest
            .split_once('=')
            .ok_or("has a variable without a value")?;
        let name = name.trim();
        if name.is_empty() || name.contains(char::is_whitespace) {
            return Err("has a value without a variable".to_owned());
        }
        let after = after.trim_start();
        let quote = after.chars().next().filter(|c| matches!(c, '"' | '\''));
        let (value, after) = match quote {
            Some(quote) => after[1..]
                .split_once(quote)
                .ok_or("has a quote that is not closed")?,
            None => after.split_at(after.find([',', '\n']).unwrap_or(after.len())),
        };
        let value = value.trim_matches(['"', '\'']);
        let value = if quote.is_some() { value } else { value.trim() };
        pairs.push((name.to_owned(), value.to_owned()));
        let after = after.trim_start();
        if !after.is_empty() && !after.starts_with(',') && quote.is_some() && !after.contains('=') {
            return Err("has something after a closing quote".to_owned());
        }
        rest = after.trim_start_matches([',', ' ', '\t', '\n']);
    }
    Ok(pairs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope() -> Scope {
        Scope {
            texts: [("here", "/etc".to_owned())].into(),
            numbers: [("process_num", 7)].into(),
            own: [("OWN".to_owned(), "o".to_owned())].into(),
            outer: [("OUT".to_owned(), "x y".to_owned())].into(),
        }
    }

    #[test]
    fn names_formats_and_variables_are_expanded() {
        let text = |value: &str| scope().now(value).map(|(text, _)| text);
        for (value, expanded) in [
            ("a %% b", "a % b"),
            ("%(here)s/x", "/etc/x"),
            ("w_%(process_num)02d", "w_07"),
            ("80%(process_num)d%(process_num)s", "8077"),
            ("%(ENV_OWN)s %(ENV_OUT)s", "o x y"),
        ] {
            assert_eq!(text(value).expect(value), expanded);
        }
        for bad in [
            "50%",
            "%(nosuch)s",
            "%(ENV_NO)s",
            "%(here)d",
            "%d",
            "%(process_num)x",
        ] {
            assert!(text(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn pairs_are_divided_by_commas_outside_quotes() {
        let read = pairs("A=\"1,2\",B='it',\n C=/x/y:z , D=\"\"").expect("read");
        let read: Vec<(&str, &str)> = read
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        assert_eq!(
            read,
            [("A", "1,2"), ("B", "it"), ("C", "/x/y:z"), ("D", "")]
        );
        for bad in ["A", "A=\"x", "=1", "A=\"x\"y"] {
            assert!(pairs(bad).is_err(), "{bad}");
        }
    }
}
