//! Queries as trees.
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "the parser's enums are not ours, and grow"
)]

use std::collections::BTreeSet;
use std::time::Duration;

use promql_parser::parser::{self, Expr, VectorSelector};

/// What Grafana puts for `$__rate_interval`, as far as these tests care: a length nobody writes by hand.
pub const RATE_INTERVAL: Duration = Duration::from_secs(7919);

/// Parses a query after putting values for Grafana's variables outside of quotes.
pub fn parse(query: &str) -> Result<Expr, String> {
    let mut text = String::new();
    for (n, part) in query.split('"').enumerate() {
        if n > 0 {
            text.push('"');
        }
        if n % 2 == 1 {
            text.push_str(part);
        } else {
            text.push_str(
                &part
                    .replace("$__rate_interval", "7919s")
                    .replace("$__interval", "4099s")
                    .replace("$__range", "6067s")
                    .replace('$', ""),
            );
        }
    }
    parser::parse(&text)
}

/// A selector with what stands around it.
pub struct Selector<'a> {
    pub vector: &'a VectorSelector,
    pub range: Option<Duration>,
    /// The function whose argument it is.
    pub call: Option<&'static str>,
}

impl Selector<'_> {
    pub fn metric(&self) -> &str {
        self.vector.name.as_deref().unwrap_or_default()
    }

    /// Tells whether it has the matcher `label=~"value"`.
    pub fn matches(&self, label: &str, value: &str) -> bool {
        self.vector.matchers.matchers.iter().any(|matcher| {
            matcher.name == label && matcher.op.to_string() == "=~" && matcher.value == value
        })
    }
}

/// A comparison with a constant.
#[derive(Clone, Debug, PartialEq)]
pub struct Comparison {
    pub operator: String,
    pub constant: f64,
    pub sources: BTreeSet<Source>,
    /// What is compared comes from `increase` or `changes`: a count.
    pub counts: bool,
}

/// A metric and the range it is looked at over.
pub type Source = (String, Option<Duration>);

/// Returns every selector of a tree.
pub fn selectors(expr: &Expr) -> Vec<Selector<'_>> {
    let mut found = Vec::new();
    walk(expr, None, &mut |node, parent| {
        let call = match parent {
            Some(Expr::Call(call)) => Some(call.func.name),
            _ => None,
        };
        if let Expr::VectorSelector(vector) = node {
            let range = None;
            found.push(Selector {
                vector,
                range,
                call,
            });
        } else if let Expr::MatrixSelector(matrix) = node {
            found.push(Selector {
                vector: &matrix.vs,
                range: Some(matrix.range),
                call,
            });
        }
    });
    found
}

/// Returns every label that aggregations and matches of a tree name.
pub fn grouped_by(expr: &Expr) -> BTreeSet<String> {
    let mut labels = BTreeSet::new();
    walk(expr, None, &mut |node, _| {
        let modifier = match node {
            Expr::Aggregate(aggregate) => aggregate.modifier.as_ref(),
            Expr::Binary(binary) => binary.modifier.as_ref().and_then(|m| m.matching.as_ref()),
            _ => None,
        };
        if let Some(modifier) = modifier {
            labels.extend(modifier.labels().labels.iter().cloned());
        }
    });
    labels
}

/// Returns what a tree looks at.
pub fn sources(expr: &Expr) -> BTreeSet<Source> {
    selectors(expr)
        .iter()
        .map(|selector| (selector.metric().to_owned(), selector.range))
        .collect()
}

/// Returns every comparison with a constant in a tree.
pub fn comparisons(expr: &Expr) -> Vec<Comparison> {
    let mut found = Vec::new();
    walk(expr, None, &mut |node, _| {
        if let Expr::Binary(binary) = node
            && binary.op.is_comparison_operator()
            && let Some(constant) = constant(&binary.rhs)
        {
            found.push(Comparison {
                operator: binary.op.to_string(),
                constant,
                sources: sources(&binary.lhs),
                counts: selectors(&binary.lhs)
                    .iter()
                    .any(|s| matches!(s.call, Some("increase" | "changes"))),
            });
        }
    });
    found
}

fn constant(expr: &Expr) -> Option<f64> {
    match expr {
        Expr::NumberLiteral(number) => Some(number.val),
        Expr::Paren(paren) => constant(&paren.expr),
        Expr::Binary(binary) if binary.op.to_string() == "*" => {
            Some(constant(&binary.lhs)? * constant(&binary.rhs)?)
        }
        _ => None,
    }
}

fn walk<'a>(
    node: &'a Expr,
    parent: Option<&'a Expr>,
    look: &mut impl FnMut(&'a Expr, Option<&'a Expr>),
) {
    look(node, parent);
    let children: Vec<&Expr> = match node {
        Expr::Aggregate(e) => e.param.iter().chain([&e.expr]).map(|e| &**e).collect(),
        Expr::Unary(e) => vec![&e.expr],
        Expr::Binary(e) => vec![&e.lhs, &e.rhs],
        Expr::Paren(e) => vec![&e.expr],
        Expr::Subquery(e) => vec![&e.expr],
        Expr::Call(e) => e.args.args.iter().map(|e| &**e).collect(),
        Expr::Extension(_)
        | Expr::NumberLiteral(_)
        | Expr::StringLiteral(_)
        | Expr::VectorSelector(_)
        | Expr::MatrixSelector(_) => Vec::new(),
    };
    for child in children {
        walk(child, Some(node), look);
    }
}
