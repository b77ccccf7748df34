//! Errors that name the field and the cure.
//!
//! A spec is checked as a whole: every problem found is reported at once, each with the path of
//! the field, what is wrong and, where it can be said, what would do.
//!
//! Limit: problems of one spec or call; a file that cannot be parsed names its first flaw only.

use std::fmt;

/// One thing wrong with one field.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Problem {
    /// Dotted path of the field, as the user wrote it (`plan.decode.parallel.tp`).
    pub path: String,
    /// What is wrong (`3 does not divide 64 attention heads`).
    pub message: String,
    /// What would do (`did you mean 4?`); empty when nothing can be said.
    pub hint: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.message)?;
        if !self.hint.is_empty() {
            write!(f, "; {}", self.hint)?;
        }
        Ok(())
    }
}

/// Everything wrong with a spec, collected before anything is refused.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

impl Problems {
    pub fn new() -> Self {
        Self::default()
    }

    pub(crate) fn push(&mut self, path: impl Into<String>, message: impl Into<String>, hint: impl Into<String>) {
        self.0.push(Problem { path: path.into(), message: message.into(), hint: hint.into() });
    }

    /// Takes over the problems of a part, with the part's own path put in front.
    pub(crate) fn nest(&mut self, prefix: &str, inner: Problems) {
        for mut p in inner.0 {
            p.path = match (prefix, p.path.as_str()) {
                ("", _) => p.path,
                (_, "") => prefix.to_string(),
                (_, path) => format!("{prefix}.{path}"),
            };
            self.0.push(p);
        }
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// `Ok` when nothing was found, else all of it as one error.
    pub fn into_result(self) -> Result<()> {
        if self.0.is_empty() { Ok(()) } else { Err(Error::Spec(self)) }
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, p) in self.0.iter().enumerate() {
            if i > 0 {
                writeln!(f)?;
            }
            write!(f, "{p}")?;
        }
        Ok(())
    }
}

/// Why a call was refused or could not finish.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The input is wrong: which fields, and what would do.
    #[error("{0}")]
    Spec(Problems),
    /// The plan is well formed but cannot be had: what is short, and by how much.
    #[error("{reason}: needs {need}, has {have}")]
    Infeasible { reason: String, need: String, have: String },
    /// A data file is missing, damaged or does not hold what was asked.
    #[error("{path}: {message}")]
    Data { path: String, message: String },
    /// The caller asked to stop.
    #[error("cancelled")]
    Cancelled,
}

impl Error {
    /// A spec error about a single field.
    pub(crate) fn spec(path: impl Into<String>, message: impl Into<String>, hint: impl Into<String>) -> Self {
        let mut p = Problems::new();
        p.push(path, message, hint);
        Error::Spec(p)
    }

    pub(crate) fn data(path: impl Into<String>, message: impl Into<String>) -> Self {
        Error::Data { path: path.into(), message: message.into() }
    }
}

pub type Result<T> = std::result::Result<T, Error>;

/// `did you mean 'x'?` for the nearest of `known` names, or the list of them when none is near.
pub(crate) fn near(name: &str, known: impl IntoIterator<Item = impl AsRef<str>>) -> String {
    let known: Vec<String> = known.into_iter().map(|k| k.as_ref().to_string()).collect();
    let lower = name.to_lowercase();
    let mut scored: Vec<(f64, &String)> =
        known.iter().map(|k| (strsim::jaro_winkler(&lower, &k.to_lowercase()), k)).collect();
    scored.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(b.1)));
    match scored.first() {
        Some((score, best)) if *score > 0.8 => {
            let others: Vec<&str> =
                scored.iter().skip(1).take(2).filter(|(s, _)| *s > 0.8).map(|(_, k)| k.as_str()).collect();
            if others.is_empty() {
                format!("did you mean '{best}'?")
            } else {
                format!("did you mean '{best}' (or '{}')?", others.join("', '"))
            }
        }
        _ => format!("known: {}", known.join(", ")),
    }
}
