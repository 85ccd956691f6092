//! The one sentence about a program that does not exist.

/// How alike a name must be to be suggested; 1 is the same.
const ALIKE: f64 = 0.7;
/// Names listed when none is alike.
const LISTED: usize = 20;

/// Says that there is no such program, and which one may have been meant or which there are.
#[must_use]
pub fn no_such_program<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let mut names: Vec<&str> = Vec::new();
    for other in known {
        // Replicas of a program need not stand together.
        if !names.contains(&other) {
            names.push(other);
        }
    }
    let alike = names
        .iter()
        .map(|other| (strsim::jaro(name, other), *other))
        .filter(|(likeness, _)| *likeness >= ALIKE)
        .max_by(|one, other| one.0.total_cmp(&other.0));
    if let Some((_, other)) = alike {
        return format!("there is no program {name:?}; did you mean {other:?}?");
    }
    if names.is_empty() {
        return format!("there is no program {name:?}: the daemon has none");
    }
    let more = if names.len() > LISTED { ", …" } else { "" };
    names.truncate(LISTED);
    format!(
        "there is no program {name:?}; there are: {}{more}",
        names.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_is_listed_once_in_the_order_of_the_config() {
        let grown = ["web", "worker", "cron", "worker"];
        assert_eq!(
            no_such_program("zzz", grown),
            "there is no program \"zzz\"; there are: web, worker, cron"
        );
        assert_eq!(
            no_such_program("wrker", grown),
            "there is no program \"wrker\"; did you mean \"worker\"?"
        );
    }
}
