//! The published configuration classes: what a `model_type` calls things, and what it leaves out.
//!
//! `classes.json` has them as data: other spellings (`names`), class defaults, whether the FFN has a gate, what of a
//! family no field says (`rules`), and for families that are known and not priced the reason (`refused`). A class may be
//! another one with changes (`is`). Source: its first line. Limits: a default that the class works out from other
//! fields is a rule or is read where it is needed.

use std::collections::{BTreeMap, HashMap};
use std::sync::OnceLock;

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::error::near;

/// What no field of a family says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Rule {
    /// Without a width of its own the FFN is four times as wide as the model.
    FourHidden,
    /// One KV head unless the config says otherwise.
    MultiQuery,
    /// Experts from a first to a last layer, at an interval (ERNIE).
    MoeRange,
    /// Of each group of layers the first one has full attention, not the last.
    FullFirst,
    /// Layers that do not see all tokens see those of their own chunk (Llama-4).
    Chunked,
    /// Attention's output has a gate for each head, or for each value of a head.
    HeadGate,
    ElementGate,
    GatedAttention,
    /// Layers are mixers and FFNs in a pattern (Nemotron-H).
    Blocks,
    /// Two attention blocks and two dense FFNs a layer, experts beside them (LongCat).
    TwoBlocks,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Class {
    #[serde(default)]
    is: Option<String>,
    /// Other values of `model_type`.
    #[serde(default)]
    types: Vec<String>,
    /// Architectures without their ending (`Llama` of `LlamaForCausalLM`).
    #[serde(default)]
    architectures: Vec<String>,
    /// Its own spellings of what others call by these names.
    #[serde(default)]
    names: BTreeMap<String, Vec<String>>,
    #[serde(default)]
    pub gate: Option<bool>,
    #[serde(default)]
    pub rules: Vec<Rule>,
    #[serde(default)]
    pub refused: Option<String>,
    #[serde(default)]
    defaults: Map<String, Value>,
}

impl Class {
    pub(crate) fn has(&self, rule: Rule) -> bool {
        self.rules.contains(&rule)
    }

    /// Its spellings of a field, its own first.
    pub(crate) fn spellings<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.names.get(name).into_iter().flatten().map(String::as_str).chain([name])
    }

    /// What the class has where the config says nothing.
    pub(crate) fn usual(&self, name: &str) -> Option<&Value> {
        self.spellings(name).find_map(|n| self.defaults.get(n)).filter(|v| !v.is_null())
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(rename = "source")]
    _source: String,
    classes: BTreeMap<String, Class>,
}

struct Classes {
    all: BTreeMap<String, Class>,
    /// By what configs say: `model_type`, or the stem of an architecture.
    types: HashMap<String, String>,
    architectures: HashMap<String, String>,
}

fn classes() -> &'static Classes {
    static CLASSES: OnceLock<Classes> = OnceLock::new();
    CLASSES.get_or_init(|| {
        let read = serde_json::from_str(include_str!("classes.json"));
        let File { mut classes, .. } = read.expect("classes.json is part of the crate, and a test reads it");
        let derived: Vec<(String, String)> =
            classes.iter().filter_map(|(name, c)| Some((name.clone(), c.is.clone()?))).collect();
        for (name, base) in derived {
            let (Some(base), Some(own)) = (classes.get(&base), classes.get(&name)) else { continue };
            let (names, defaults) = (&base.names, &base.defaults);
            let merged = Class {
                is: own.is.clone(),
                types: own.types.clone(),
                architectures: own.architectures.clone(),
                names: names.iter().chain(&own.names).map(|(k, v)| (k.clone(), v.clone())).collect(),
                gate: own.gate.or(base.gate),
                rules: base.rules.iter().chain(&own.rules).copied().collect(),
                refused: own.refused.clone(),
                defaults: defaults.iter().chain(&own.defaults).map(|(k, v)| (k.clone(), v.clone())).collect(),
            };
            classes.insert(name, merged);
        }
        let (mut types, mut architectures) = (HashMap::new(), HashMap::new());
        for (name, c) in &classes {
            for known in c.types.iter().chain([name]) {
                types.insert(known.clone(), name.clone());
            }
            for known in &c.architectures {
                architectures.insert(known.clone(), name.clone());
            }
        }
        Classes { all: classes, types, architectures }
    })
}

/// `LlamaForCausalLM` is `Llama`.
fn stem(architecture: &str) -> &str {
    let cut = architecture.find("For").filter(|at| *at > 0).unwrap_or(architecture.len());
    let stem = &architecture[..cut];
    ["LMHeadModel", "Model"].iter().find_map(|end| stem.strip_suffix(end)).unwrap_or(stem)
}

/// The class that a config's own words name: `model_type` and `architectures`, of the language model first.
pub(crate) fn named(said: &[(&str, &Value)]) -> Option<&'static Class> {
    let all = classes();
    let known = |(field, value): &(&str, &Value)| {
        let text = value.as_str()?;
        let name = if *field == "model_type" { all.types.get(text) } else { all.architectures.get(stem(text)) };
        all.all.get(name?)
    };
    said.iter().find_map(known)
}

/// A class of a user's own: all spellings that are known, no defaults.
pub(crate) fn any() -> &'static Class {
    static ANY: OnceLock<Class> = OnceLock::new();
    ANY.get_or_init(|| {
        let mut names: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for class in classes().all.values() {
            for (name, spellings) in &class.names {
                let known = names.entry(name.clone()).or_default();
                // A common name keeps its meaning.
                for own in spellings.iter().filter(|s| !AMBIGUOUS.contains(&s.as_str())) {
                    if !known.contains(own) {
                        known.push(own.clone());
                    }
                }
            }
        }
        Class { names, ..Class::default() }
    })
}

/// Spellings that mean something else elsewhere.
const AMBIGUOUS: &[&str] = &["layer_types", "num_attention_heads", "num_local_experts", "seq_length"];

/// The known type that is nearest to a name.
pub(crate) fn nearest(name: &str) -> String {
    let hint = near(name, classes().types.keys().map(String::as_str).collect::<std::collections::BTreeSet<_>>());
    // The whole list helps nobody.
    if hint.starts_with("known:") { String::new() } else { hint }
}
