//! What a valid configuration meets on a machine.

use std::fmt;

use serde::Serialize;

/// Something that a start of a configuration would meet here and now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What it means.
    pub weight: Weight,
    /// The key that it is about: `metrics.listen`, `programs.web.user`.
    pub key: String,
    /// What was found, in a sentence.
    pub message: String,
}

/// What a [`Finding`] means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Weight {
    /// The daemon would not start.
    Error,
    /// It would start, and something would not work.
    Warning,
    /// It cannot be told from here.
    Unchecked,
}

impl Finding {
    /// Makes one.
    #[must_use]
    pub fn new(weight: Weight, key: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            weight,
            key: key.into(),
            message: message.into(),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, message, .. } = self;
        match self.weight {
            Weight::Error => write!(f, "error: {key}: {message}"),
            Weight::Warning => write!(f, "warning: {key}: {message}"),
            Weight::Unchecked => write!(f, "not checked: {key}: {message}"),
        }
    }
}
