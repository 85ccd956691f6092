//! Query strings and percent-encoding.

use super::failure::Failure;

/// The parameters of a request, decoded.
#[derive(Debug)]
pub(super) struct Parameters(Vec<(String, String)>);

impl Parameters {
    /// Reads a query string; a key outside `known` or given twice is an error, because what is
    /// silently ignored is silently not done.
    pub(super) fn parse(query: Option<&str>, known: &[&str]) -> Result<Self, Failure> {
        let mut pairs: Vec<(String, String)> = Vec::new();
        for pair in query
            .unwrap_or_default()
            .split('&')
            .filter(|pair| !pair.is_empty())
        {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let key = decode(&key.replace('+', " "))?;
            let value = decode(&value.replace('+', " "))?;
            if !known.contains(&key.as_str()) {
                return Err(Failure::bad_request(unknown(&key, known)));
            }
            if pairs.iter().any(|(other, _)| *other == key) {
                return Err(Failure::bad_request(format!(
                    "parameter {key:?} is given twice"
                )));
            }
            pairs.push((key, value));
        }
        Ok(Self(pairs))
    }

    /// Returns a parameter's text; an empty one counts as absent.
    pub(super) fn text(&self, key: &str) -> Option<&str> {
        let (_, value) = self.0.iter().find(|(name, _)| name == key)?;
        (!value.is_empty()).then_some(value)
    }

    /// Returns a switch: `true` or `false`.
    pub(super) fn switch(&self, key: &str, default: bool) -> Result<bool, Failure> {
        match self.text(key) {
            None => Ok(default),
            Some("true") => Ok(true),
            Some("false") => Ok(false),
            Some(other) => Err(Failure::bad_request(format!(
                "parameter {key:?} is true or false, not {other:?}"
            ))),
        }
    }

    /// Returns a whole number up to `most`.
    pub(super) fn number(&self, key: &str, most: u32) -> Result<Option<u32>, Failure> {
        let Some(text) = self.text(key) else {
            return Ok(None);
        };
        let number = text
            .parse()
            .ok()
            .filter(|number| *number <= most)
            .ok_or_else(|| {
                Failure::bad_request(format!(
                    "parameter {key:?} is a whole number from 0 to {most}, not {text:?}"
                ))
            })?;
        Ok(Some(number))
    }
}

fn unknown(key: &str, known: &[&str]) -> String {
    if known.is_empty() {
        format!("unknown parameter {key:?}: this path takes none")
    } else {
        format!(
            "unknown parameter {key:?}: this path takes {}",
            known.join(", ")
        )
    }
}

/// Decodes `%41` and its like.
pub(super) fn decode(text: &str) -> Result<String, Failure> {
    let malformed = || Failure::bad_request(format!("{text:?} is not valid percent-encoding"));
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        if first != b'%' {
            bytes.push(first);
            continue;
        }
        let [high, low, after @ ..] = rest else {
            return Err(malformed());
        };
        let (high, low) = hex(*high).zip(hex(*low)).ok_or_else(malformed)?;
        bytes.push(high * 16 + low);
        rest = after;
    }
    String::from_utf8(bytes).map_err(|_| malformed())
}

fn hex(digit: u8) -> Option<u8> {
    let value = char::from(digit).to_digit(16)?;
    u8::try_from(value).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percent_encoding_is_decoded_or_refused() {
        assert_eq!(decode("web%2F1").expect("valid"), "web/1");
        assert_eq!(decode("%e2%82%ac").expect("valid"), "€");
        for bad in ["%", "%4", "%zz", "%ff", "%+1"] {
            assert!(decode(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_parameter_that_would_be_ignored_is_refused() {
        assert!(Parameters::parse(Some("wiat=false"), &["wait"]).is_err());
        assert!(Parameters::parse(Some("wait=false&wait=true"), &["wait"]).is_err());
        let good = Parameters::parse(Some("wait=false&&replica=2"), &["wait", "replica"]);
        let good = good.expect("known parameters");
        assert!(!good.switch("wait", true).expect("a switch"));
        assert_eq!(good.number("replica", 9).expect("a number"), Some(2));
        assert!(good.number("replica", 1).is_err());
    }
}
