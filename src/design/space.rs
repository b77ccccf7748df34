//! A base question, axes over its fields, constraints, and the numbering of the points.
//!
//! Points are the mixed-radix numbers of the axes' value lists, last axis fastest. The axes up to the last one that a
//! constraint reads are a decision diagram (`diagram`), those behind are a plain product. So `size` is exact, point `i`
//! is found in steps by the number of axes, and memory is bounded by what the constraints tell apart.
//! Limits: those of the diagram; numbers of points are below 2^63.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::diagram::{Diagram, too_many};
use super::expression::Expression;
use crate::control::Control;
use crate::error::{Error, Problems, Result, near};
use crate::spec::{catalog, choices};

choices! {
    /// The parts of a question, in the order in which they are built.
    Root {
        Model = "model",
        Cluster = "cluster",
        Workload = "workload",
        Plan = "plan",
        Framework = "framework",
        Quant = "quant",
        Serving = "serving",
        Assumptions = "assumptions",
    }
}

/// One axis: a dotted path into the question and the values that it takes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Axis {
    pub path: String,
    pub values: Vec<Value>,
}

/// A space as JSON carries it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Description {
    /// `model`, `cluster`, `workload`, `plan`, and optionally `framework`, `quant`, `serving`, `assumptions`.
    pub question: Map<String, Value>,
    pub axes: Vec<Axis>,
    #[serde(rename = "where")]
    pub constraints: Vec<String>,
}

/// A space ready to be counted, sampled and priced.
#[derive(Clone, Debug)]
pub struct Space {
    pub description: Description,
    pub constraints: Vec<Expression>,
    /// Values of each axis as numbers; NaN where a value is none.
    numbers: Vec<Vec<f64>>,
    /// Leading axes that constraints read.
    constrained: usize,
    /// Their assignments that keep the constraints; `None`: there are no constraints.
    kept: Option<Diagram>,
    /// Points behind each of them.
    tail: u64,
}

fn number(value: &Value) -> f64 {
    match value {
        Value::Number(n) => n.as_f64().unwrap_or(f64::NAN),
        Value::Bool(b) => f64::from(u8::from(*b)),
        _ => f64::NAN,
    }
}

impl Space {
    /// Checks a description as a whole and counts its points.
    pub fn new(description: Description) -> Result<Space> {
        Space::counted(description, &Control::new())
    }

    /// The same for a caller that may ask to stop.
    pub fn counted(description: Description, control: &Control) -> Result<Space> {
        let mut problems = Problems::new();
        for root in ["model", "cluster", "workload", "plan"] {
            if !description.question.contains_key(root) {
                problems.push(root, "is missing", "");
            }
        }
        for root in description.question.keys().filter(|k| Root::named(k).is_none()) {
            problems.push(root, "is not a part of a question", near(root, Root::NAMES));
        }
        for (i, axis) in description.axes.iter().enumerate() {
            let at = format!("axes.{}", axis.path);
            if axis.values.is_empty() {
                problems.push(at.clone(), "has no values", "give at least one, or leave the axis out");
            }
            if description.axes[..i].iter().any(|a| a.path == axis.path) {
                problems.push(at.clone(), "is there twice", "");
            }
            let mut seen = std::collections::BTreeSet::new();
            if !axis.values.iter().all(|v| seen.insert(v.to_string())) {
                problems.push(at.clone(), "has the same value twice", "");
            }
            // The first value must find its place.
            if let Some(first) = axis.values.first()
                && let Err(Error::Spec(inner)) = set(&mut description.question.clone(), &axis.path, first)
            {
                problems.nest("axes", inner);
            }
        }
        problems.into_result()?;
        let numbers: Vec<Vec<f64>> = description.axes.iter().map(|a| a.values.iter().map(number).collect()).collect();
        let mut problems = Problems::new();
        let mut constraints = Vec::new();
        for (i, text) in description.constraints.iter().enumerate() {
            let path = format!("where[{i}]");
            match Expression::new(text, &path, &|name| resolve(&description.axes, name)) {
                Ok(e) => {
                    for &a in e.axes.iter().filter(|a| numbers[**a].iter().any(|x| x.is_nan())) {
                        let axis = &description.axes[a].path;
                        problems.push(&path, format!("'{text}': values of {axis} are not numbers"), "");
                    }
                    constraints.push(e);
                }
                Err(Error::Spec(inner)) => problems.0.extend(inner.0),
                Err(other) => return Err(other),
            }
        }
        problems.into_result()?;
        let constrained = constraints.iter().flat_map(|c| c.axes.iter().map(|a| a + 1)).max().unwrap_or(0);
        let mut space = Space { description, constraints, numbers, constrained, kept: None, tail: 1 };
        space.tail = space.product(constrained..space.radices().len())?;
        if !space.constraints.is_empty() {
            let all: Vec<&Expression> = space.constraints.iter().collect();
            let Some(found) = Diagram::new(&space.numbers[..constrained], &all, control)? else {
                return Err(space.contradiction(control)?);
            };
            space.kept = Some(found);
        }
        let heads = space.kept.as_ref().map_or(1, Diagram::size);
        if heads.checked_mul(space.tail).is_none_or(|n| n > i64::MAX as u64) {
            return Err(too_many());
        }
        Ok(space)
    }

    fn radices(&self) -> Vec<u64> {
        self.description.axes.iter().map(|a| a.values.len() as u64).collect()
    }

    fn product(&self, range: std::ops::Range<usize>) -> Result<u64> {
        self.radices()[range].iter().try_fold(1u64, |p, r| p.checked_mul(*r)).ok_or_else(too_many)
    }

    /// Points in all.
    pub fn size(&self) -> u64 {
        self.kept.as_ref().map_or(1, Diagram::size) * self.tail
    }

    /// Names a smallest set of constraints that no point keeps.
    fn contradiction(&self, control: &Control) -> Result<Error> {
        let mut core: Vec<usize> = (0..self.constraints.len()).collect();
        let mut i = 0;
        while i < core.len() {
            let mut without = core.clone();
            without.remove(i);
            let others: Vec<&Expression> = without.iter().map(|c| &self.constraints[*c]).collect();
            if Diagram::any(&self.numbers[..self.constrained], &others, control)? { i += 1 } else { core = without }
        }
        let texts: Vec<String> = core.iter().map(|c| format!("'{}'", self.constraints[*c].text)).collect();
        let message = match texts.as_slice() {
            [one] => format!("no point keeps {one}"),
            many => format!("no point keeps {} together", many.join(" and ")),
        };
        Ok(Error::spec("where", message, "widen an axis or drop a constraint"))
    }

    /// Choice on each axis of point `i`.
    pub fn choices(&self, i: u64) -> Vec<usize> {
        let (head, mut rest) = (i / self.tail, i % self.tail);
        let axes = &self.description.axes;
        let mut out = vec![0usize; axes.len()];
        if let Some(kept) = &self.kept {
            kept.choices(head, &mut out[..self.constrained]);
        }
        for (a, axis) in axes.iter().enumerate().skip(self.constrained).rev() {
            let r = axis.values.len() as u64;
            out[a] = (rest % r) as usize;
            rest /= r;
        }
        out
    }

    /// Number of the point with these choices, if it keeps the constraints.
    pub fn index_of(&self, choices: &[usize]) -> Option<u64> {
        let (heads, tails) = choices.split_at(self.constrained.min(choices.len()));
        let rest = tails.iter().zip(&self.radices()[self.constrained..]).fold(0, |n, (c, r)| n * r + *c as u64);
        let head = match &self.kept {
            Some(kept) => kept.index_of(heads)?,
            None => 0,
        };
        Some(head * self.tail + rest)
    }

    pub(crate) fn value(&self, axis: usize, choice: usize) -> &Value {
        &self.description.axes[axis].values[choice]
    }

    /// The value as a number; NaN where it is none.
    pub(crate) fn number(&self, axis: usize, choice: usize) -> f64 {
        self.numbers[axis][choice]
    }

    /// The whole question of point `i`.
    pub fn question(&self, i: u64) -> Result<Map<String, Value>> {
        let mut question = self.description.question.clone();
        for (a, choice) in self.choices(i).into_iter().enumerate() {
            set(&mut question, &self.description.axes[a].path, self.value(a, choice))?;
        }
        Ok(question)
    }

    pub(crate) fn lengths(&self) -> Vec<usize> {
        self.description.axes.iter().map(|a| a.values.len()).collect()
    }
}

/// The axis that a name means: its whole path, or the end of it.
fn resolve(axes: &[Axis], name: &str) -> std::result::Result<usize, String> {
    name_of(axes.iter().map(|a| a.path.as_str()), name, "an axis")
}

/// Which of the paths a name means, whole or by its end; `what` they are.
pub fn name_of<'a>(
    paths: impl Iterator<Item = &'a str> + Clone,
    name: &str,
    what: &str,
) -> std::result::Result<usize, String> {
    if let Some(i) = paths.clone().position(|p| p == name) {
        return Ok(i);
    }
    let ends = |path: &str| path.strip_suffix(name).is_some_and(|front| front.ends_with('.'));
    let found: Vec<(usize, &str)> = paths.clone().enumerate().filter(|(_, p)| ends(p)).collect();
    match found.as_slice() {
        [one] => Ok(one.0),
        [] => Err(format!("'{name}' is not {what}; {}", near(name, paths))),
        many => {
            let paths: Vec<&str> = many.iter().map(|p| p.1).collect();
            Err(format!("'{name}' may be {}", paths.join(" or ")))
        }
    }
}

/// Paths that users write and where they lead, with the factor of their unit.
const ALIASES: [(&str, &str, f64); 2] = [
    ("cluster.nic_gb_per_s", "cluster.fabric.nic_bytes_per_s", 1e9),
    ("cluster.oversubscription", "cluster.fabric.oversubscription", 1.0),
];

/// Puts `value` at `path` of a question.
pub(crate) fn set(question: &mut Map<String, Value>, path: &str, value: &Value) -> Result<()> {
    let alias = ALIASES.iter().find(|(from, ..)| *from == path);
    if let (Some((_, to, factor)), Some(x)) = (alias, value.as_f64()) {
        return set(question, to, &json!(x * factor));
    }
    match (path, value) {
        ("model", Value::String(name)) => {
            let model = catalog::model(name)?;
            question.insert("model".into(), crate::spec::json::to_value(&model, "model")?);
            return Ok(());
        }
        ("cluster.system", Value::String(system)) => {
            let gpus = question.get("cluster").and_then(|c| c.get("gpus")).and_then(Value::as_u64).unwrap_or(1);
            let cluster = catalog::cluster(system, u32::try_from(gpus).unwrap_or(u32::MAX))?;
            question.insert("cluster".into(), crate::spec::json::to_value(&cluster, "cluster")?);
            return Ok(());
        }
        ("workload", Value::String(name)) => {
            let workload = catalog::workload(name)?;
            question.insert("workload".into(), crate::spec::json::to_value(&workload, "workload")?);
            return Ok(());
        }
        ("workload.isl" | "workload.osl" | "workload.prefix", Value::Number(n)) => {
            let x = n.as_f64().unwrap_or(f64::NAN);
            let fixed = crate::spec::json::to_value(&crate::spec::Distribution::fixed(x), path)?;
            return set(question, path, &fixed);
        }
        _ => {}
    }
    let mut parts = path.split('.');
    let root = parts.next().unwrap_or_default();
    let Some(part) = Root::named(root) else {
        return Err(Error::spec(path, format!("'{root}' is not a part of a question"), near(root, Root::NAMES)));
    };
    if !question.contains_key(root) {
        let blank = match part {
            Root::Serving => crate::spec::json::to_value(&crate::spec::Serving::default(), root)?,
            Root::Quant => crate::spec::json::to_value(&crate::spec::Quant::default(), root)?,
            Root::Assumptions => crate::spec::json::to_value(&crate::spec::Assumptions::physical(), root)?,
            Root::Model | Root::Cluster | Root::Workload | Root::Plan | Root::Framework => Value::Null,
        };
        question.insert(root.into(), blank);
    }
    let mut at = &mut question[root];
    for part in parts {
        let Some(map) = at.as_object_mut() else {
            return Err(Error::spec(
                path,
                format!("nothing lies below '{part}'"),
                "the base question has no such part",
            ));
        };
        if !map.contains_key(part) {
            let hint = near(part, map.keys().filter(|k| *k != "kind"));
            return Err(Error::spec(path, format!("has no field '{part}'"), hint));
        }
        at = &mut map[part];
    }
    *at = value.clone();
    Ok(())
}
