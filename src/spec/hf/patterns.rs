//! Entries of lists that say which modules of a checkpoint are meant: names, names with wildcards, and `re:` expressions.
//!
//! A module is looked for as `layers.<number>.<path>`, whatever stands before it; an expression is tried behind the
//! beginnings that checkpoints use, from the start of the name, as PyTorch tools do (`re.match`).
//!
//! Limit: expressions without look-around or references back, as `regex-lite` reads them.

use regex_lite::Regex;

/// What stands before `layers.` in checkpoints.
const BEFORE: &[&str] = &["model.", "", "model.language_model.", "language_model.model.", "backbone.", "transformer."];

pub(crate) enum Pattern {
    Name(Name),
    Expression(Regex),
}

impl Pattern {
    /// None: an expression that cannot be read.
    pub(crate) fn parse(entry: &str) -> Option<Pattern> {
        match entry.strip_prefix("re:") {
            Some(expression) => Regex::new(&format!("^(?:{expression})")).ok().map(Pattern::Expression),
            None => Some(Pattern::Name(Name::parse(entry))),
        }
    }

    /// Whether the entry is of this module of a layer, or of something that contains it.
    pub(crate) fn covers(&self, layer: u32, module: &str) -> bool {
        match self {
            Pattern::Name(name) => name.covers(layer, module),
            Pattern::Expression(e) => BEFORE.iter().any(|b| e.is_match(&format!("{b}layers.{layer}.{module}"))),
        }
    }

    /// Whether the entry is of this very module.
    pub(crate) fn names(&self, layer: u32, module: &[&str]) -> bool {
        matches!(self, Pattern::Name(n) if n.layer.is_none_or(|l| l == layer) && n.path == module)
    }
}

/// `model.layers.3.self_attn*`, `*.mlp.shared_expert.*`, `lm_head`.
pub(crate) struct Name {
    /// None: any layer.
    layer: Option<u32>,
    /// Module names below the layer; empty: the whole layer.
    path: Vec<String>,
    /// Whether the entry was about layers at all.
    whole_layer: bool,
    /// The last name may go on (`indexer*`).
    open: bool,
}

impl Name {
    fn parse(entry: &str) -> Name {
        let open = entry.ends_with('*');
        let (layer, rest, in_layers) = match entry.split_once("layers.") {
            Some((_, after)) => {
                let (number, rest) = after.split_once(['.', '*']).unwrap_or((after, ""));
                let known = number.is_empty() || number.parse::<u32>().is_ok();
                (number.parse().ok(), rest.to_string(), known)
            }
            None => match entry.split_once("layers*") {
                Some((_, rest)) => (None, rest.to_string(), true),
                None => (None, entry.to_string(), false),
            },
        };
        let path: Vec<String> = rest.split(['.', '*']).filter(|s| !s.is_empty()).map(str::to_string).collect();
        let whole_layer = in_layers && path.is_empty();
        Name { layer, path, whole_layer, open }
    }

    fn covers(&self, layer: u32, module: &str) -> bool {
        if self.layer.is_some_and(|l| l != layer) {
            return false;
        }
        if self.path.is_empty() {
            // `model.layers.61*` also globs 610..., which no model has.
            return self.whole_layer && self.layer.is_some();
        }
        let names: Vec<&str> = module.split('.').collect();
        let same = |have: &[&str]| {
            have.len() == self.path.len()
                && have.iter().zip(&self.path).enumerate().all(|(i, (h, p))| {
                    let last = i + 1 == self.path.len();
                    h == p || (last && self.open && h.starts_with(p.as_str()))
                })
        };
        // An entry names the module itself, or something that contains it.
        let n = self.path.len();
        (n <= names.len() && same(&names[..n])) || (n <= names.len() && same(&names[names.len() - n..]))
    }
}
