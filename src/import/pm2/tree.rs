//! YAML and JSON as one tree, with the line of every value.

use super::yaml::read as yaml;

/// A value.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Node {
    /// Counted from 1; `None`: not known.
    pub line: Option<usize>,
    pub kind: Kind,
}

/// What a value is.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Kind {
    Null,
    Bool(bool),
    Integer(i64),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    /// In the order written; a later one of the same name replaces the earlier.
    Map(Vec<(String, Node)>),
}

impl Node {
    /// Returns a member of a map; null is as good as none.
    pub fn get(&self, name: &str) -> Option<&Self> {
        self.members()
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, node)| node)
            .filter(|node| node.kind != Kind::Null)
    }

    /// Returns the members of a map, in their order; of anything else, none.
    pub fn members(&self) -> &[(String, Self)] {
        match &self.kind {
            Kind::Map(members) => members,
            Kind::Null
            | Kind::Bool(_)
            | Kind::Integer(_)
            | Kind::Float(_)
            | Kind::Text(_)
            | Kind::List(_) => &[],
        }
    }

    /// Returns the items of a list; anything else is a list of one.
    pub fn items(&self) -> &[Self] {
        match &self.kind {
            Kind::List(items) => items,
            Kind::Null
            | Kind::Bool(_)
            | Kind::Integer(_)
            | Kind::Float(_)
            | Kind::Text(_)
            | Kind::Map(_) => std::slice::from_ref(self),
        }
    }

    /// Returns a scalar as the text that a shell or an environment would see.
    pub fn scalar(&self) -> Option<String> {
        match &self.kind {
            Kind::Bool(truth) => Some(truth.to_string()),
            Kind::Integer(number) => Some(number.to_string()),
            Kind::Float(number) => Some(number.to_string()),
            Kind::Text(text) => Some(text.clone()),
            Kind::Null | Kind::List(_) | Kind::Map(_) => None,
        }
    }

    /// Writes it as JSON.
    pub fn json(&self) -> serde_json::Value {
        match &self.kind {
            Kind::Null => serde_json::Value::Null,
            Kind::Bool(truth) => (*truth).into(),
            Kind::Integer(number) => (*number).into(),
            Kind::Float(number) => (*number).into(),
            Kind::Text(text) => text.clone().into(),
            Kind::List(items) => items.iter().map(Self::json).collect(),
            Kind::Map(members) => members
                .iter()
                .map(|(name, node)| (name.clone(), node.json()))
                .collect(),
        }
    }
}

/// Why a text is not a tree.
#[derive(Debug)]
pub(super) struct Bad {
    pub line: usize,
    pub what: String,
}

/// Reads JSON, with comments and what else JavaScript lets one write in a literal.
///
/// # Errors
/// What is wrong, and where.
pub(super) fn json(text: &str) -> Result<Node, Bad> {
    let plain = without_comments(text);
    // JSON is a subset of YAML, whose parser knows lines; but for pairs of surrogates in escapes.
    match (
        yaml(&plain),
        serde_json::from_str::<serde_json::Value>(&plain),
    ) {
        (Ok(node), _) => Ok(node),
        (Err(_), Ok(value)) => Ok(of_json(&value)),
        (Err(_), Err(error)) => Err(Bad {
            line: error.line(),
            what: format!("not valid JSON: {error}"),
        }),
    }
}

/// Makes a tree of JSON, without lines.
pub(super) fn of_json(value: &serde_json::Value) -> Node {
    let kind = match value {
        serde_json::Value::Null => Kind::Null,
        serde_json::Value::Bool(truth) => Kind::Bool(*truth),
        serde_json::Value::Number(number) => number.as_i64().map_or_else(
            || Kind::Float(number.as_f64().unwrap_or(f64::NAN)),
            Kind::Integer,
        ),
        serde_json::Value::String(text) => Kind::Text(text.clone()),
        serde_json::Value::Array(items) => Kind::List(items.iter().map(of_json).collect()),
        serde_json::Value::Object(members) => Kind::Map(
            members
                .iter()
                .map(|(name, value)| (name.clone(), of_json(value)))
                .collect(),
        ),
    };
    Node { line: None, kind }
}

/// Blanks comments, and tabs outside strings, without moving anything to another line.
pub(super) fn without_comments(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    let mut quote = None;
    while let Some(c) = chars.next() {
        match (quote, c, chars.peek().copied()) {
            (Some(_), '\\', Some(next)) => {
                out.push(c);
                out.push(next);
                chars.next();
            }
            (Some(open), _, _) => {
                if c == open || (c == '\n' && open != '`') {
                    quote = None;
                }
                out.push(c);
            }
            (None, '"' | '\'' | '`', _) => {
                quote = Some(c);
                out.push(c);
            }
            (None, '/', Some('/')) => {
                while chars.peek().is_some_and(|c| *c != '\n') {
                    chars.next();
                }
            }
            (None, '/', Some('*')) => {
                chars.next();
                let mut before = ' ';
                for c in chars.by_ref() {
                    if c == '\n' {
                        out.push(c);
                    }
                    if before == '*' && c == '/' {
                        break;
                    }
                    before = c;
                }
                out.push(' ');
            }
            (None, '\t', _) => out.push(' '),
            (None, c, _) => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn anchors_and_merges_are_resolved_and_lines_are_kept() {
        let text = "base: &b\n  env: {A: 1}\n  watch: true\napps:\n  - <<: *b\n    watch: no\n    name: x\n";
        let node = yaml(text).expect("it is read");
        let app = &node.get("apps").expect("apps").items()[0];
        assert_eq!(
            app.get("watch").expect("watch").kind,
            Kind::Text("no".to_owned())
        );
        assert_eq!(app.get("name").expect("name").line, Some(7));
        assert_eq!(app.get("env").expect("env").line, Some(2));
    }

    #[test]
    fn json_may_have_comments_tabs_and_a_last_comma() {
        let text =
            "\u{9}{\n// one\n\"apps\": [ /* two\n */ {\"a\":\"//x\", 'b': 1.5,\n\tc:\t-3,},],}";
        let node = json(text).expect("it is read");
        let app = &node.get("apps").expect("apps").items()[0];
        assert_eq!(app.get("a").expect("a").kind, Kind::Text("//x".to_owned()));
        assert_eq!(app.get("b").expect("b").kind, Kind::Float(1.5));
        let c = app.get("c").expect("c");
        assert_eq!((&c.kind, c.line), (&Kind::Integer(-3), Some(5)));
        let smile = json("{\"a\": \"\\ud83d\\ude00\"}").expect("it is read");
        assert_eq!(smile.get("a").expect("a").kind, Kind::Text("😀".to_owned()));
        assert_eq!(json("{\"a\": }{").expect_err("refused").line, 1);
    }

    #[test]
    fn a_file_that_is_out_to_fill_the_memory_is_refused() {
        let mut text = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n".to_owned();
        for level in 1..12 {
            let last = level - 1;
            let items = vec![format!("*a{last}"); 10].join(",");
            text.push_str(&format!("a{level}: &a{level} [{items}]\n"));
        }
        assert!(yaml(&text).expect_err("refused").what.contains("too large"));
        assert!(yaml(&"[".repeat(100_000)).is_err());
        assert!(yaml("a: &a [*a]").is_err());
    }
}
