//! The table of rules: read, checked, and cut down to a framework and version.
//!
//! Limit: the versions that were read; what newer servers start is not known.

use std::sync::{Arc, OnceLock};

use serde::{Deserialize, Serialize};

use super::condition::Condition;
use super::version::Version;
use crate::error::{Error, Problems, Result};
use crate::spec::{Framework, json};

/// A server whose rules were read.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Server {
    pub framework: Framework,
    /// Taken where nobody names a version: the one whose kernels price.
    pub version: String,
    /// What was read.
    pub source: String,
}

/// What one or several servers cannot start.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    pub name: String,
    pub frameworks: Vec<Framework>,
    /// First version it holds for; none: all.
    #[serde(default)]
    pub since: Option<String>,
    /// First version it no longer holds for; none: still holds.
    #[serde(default)]
    pub until: Option<String>,
    /// What a plan must keep.
    pub condition: Condition,
    /// Where it is said.
    pub source: String,
    /// What to write instead.
    pub instead: String,
}

/// All rules.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Table {
    pub servers: Vec<Server>,
    pub rules: Vec<Rule>,
}

const SHIPPED: &str = include_str!("../../../python/disagg/data/serving/rules.json");

impl Table {
    /// Reads a table; an unknown framework, condition or field is an error that names it (`rules.rules[2].frameworks[0]`).
    pub fn parse(text: &str) -> Result<Table> {
        let table: Table = json::parse(text, "rules")?;
        table.check().into_result()?;
        Ok(table)
    }

    /// The table that ships with the package.
    pub(crate) fn shipped() -> Result<&'static Arc<Table>> {
        static TABLE: OnceLock<Result<Arc<Table>>> = OnceLock::new();
        TABLE.get_or_init(|| Table::parse(SHIPPED).map(Arc::new)).as_ref().map_err(Clone::clone)
    }

    fn check(&self) -> Problems {
        let mut p = Problems::new();
        for (i, s) in self.servers.iter().enumerate() {
            if Version::parse(&s.version).is_none() {
                let path = format!("rules.servers[{i}].version");
                p.push(path, format!("'{}' is no version", s.version), "numbers with points, e.g. '0.24.0'");
            }
            if self.servers[..i].iter().any(|t| t.framework == s.framework) {
                p.push(format!("rules.servers[{i}].framework"), format!("{} is there twice", s.framework.name()), "");
            }
        }
        for (i, r) in self.rules.iter().enumerate() {
            let at = |field: &str| format!("rules.rules[{i}].{field}");
            for (field, text) in [("name", &r.name), ("source", &r.source), ("instead", &r.instead)] {
                if text.trim().is_empty() {
                    p.push(at(field), "is empty", "");
                }
            }
            if self.rules[..i].iter().any(|other| other.name == r.name) {
                p.push(at("name"), format!("'{}' is there twice", r.name), "");
            }
            if r.frameworks.is_empty() {
                p.push(at("frameworks"), "names no framework", "e.g. ['vllm']");
            }
            for (field, version) in [("since", &r.since), ("until", &r.until)] {
                if let Some(v) = version
                    && Version::parse(v).is_none()
                {
                    p.push(at(field), format!("'{v}' is no version"), "numbers with points, e.g. '0.24.0'");
                }
            }
        }
        p
    }

    /// The version that is meant where none is named.
    pub(crate) fn version(&self, framework: Framework) -> Option<&str> {
        self.servers.iter().find(|s| s.framework == framework).map(|s| s.version.as_str())
    }

    /// Numbers of the rules of a framework at a version; none: the one in `servers`.
    pub(super) fn of(&self, framework: Framework, version: Option<&str>) -> Result<Vec<usize>> {
        let named = version.or_else(|| self.version(framework));
        let version = match named {
            Some(text) => Some(Version::parse(text).ok_or_else(|| {
                Error::spec("version", format!("'{text}' is no version"), "numbers with points, e.g. '0.24.0'")
            })?),
            None => None,
        };
        let bound = |text: &Option<String>| text.as_deref().and_then(Version::parse);
        let holds = |r: &Rule| {
            r.frameworks.contains(&framework)
                && version.is_none_or(|v| {
                    bound(&r.since).is_none_or(|since| v >= since) && bound(&r.until).is_none_or(|until| v < until)
                })
        };
        Ok((0..self.rules.len()).filter(|i| holds(&self.rules[*i])).collect())
    }
}
