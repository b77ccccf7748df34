//! The table cut down to one question, and what it says of layouts, pairs and plans.
//!
//! Limit: says what rules forbid; a plan that no rule speaks of is taken to start.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::condition::{Condition, ConditionKind};
use super::shape::{Layout, Shape};
use super::table::{Rule, Table};
use crate::error::Result;
use crate::spec::{AfdPlan, Cluster, Framework, Model, Parallel, Plan, Slot};

/// A rule that a plan breaks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Violation {
    pub rule: String,
    /// The field, as the user writes it.
    pub path: String,
    pub message: String,
    /// What to write instead.
    pub instead: String,
    pub source: String,
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Violation { rule, path, message, instead, source } = self;
        write!(f, "{rule}: {path}: {message}; {instead} [{source}]")
    }
}

/// Whether a plan starts, on what, and why not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Verdict {
    pub runnable: bool,
    /// What would start it (`vllm 0.24.0`, `vLLM 0.30.0 with afd-plugin`); none: no released server does.
    pub server: Option<String>,
    pub why_not: Vec<Violation>,
}

/// The rules of one framework and version for one model and cluster.
#[derive(Clone, Debug)]
pub struct Rules {
    table: Arc<Table>,
    framework: Framework,
    version: String,
    kind: ConditionKind,
    domain: u32,
    experts: u32,
    /// Numbers of the rules on workers and units, on pairs, and on AFD servers.
    on_workers: Vec<usize>,
    on_pairs: Vec<usize>,
    on_servers: Vec<usize>,
    model: Model,
}

impl Rules {
    /// The shipped rules; `version` none: the one whose kernels price.
    ///
    /// # Errors
    /// Something that is no version (`version`).
    pub fn new(framework: Framework, version: Option<&str>, model: &Model, cluster: &Cluster) -> Result<Rules> {
        Rules::of(Table::shipped()?.clone(), framework, version, model, cluster)
    }

    /// The same from another table.
    pub(crate) fn of(
        table: Arc<Table>,
        framework: Framework,
        version: Option<&str>,
        model: &Model,
        cluster: &Cluster,
    ) -> Result<Rules> {
        let all = table.of(framework, version)?;
        let some = |wanted: fn(&Condition) -> bool| {
            all.iter().copied().filter(|i| wanted(&table.rules[*i].condition)).collect::<Vec<_>>()
        };
        let on_pairs = some(|c| {
            use Condition::*;
            matches!(c, PdTensorParallel { .. } | PdPrefillStages {} | PdDecodeStages { .. })
        });
        let on_workers = some(|c| {
            use Condition::*;
            matches!(c, ExpertsOneWay {} | AttentionTpOrDp {} | ContextParallel { .. } | TensorParallelInDomain {})
        });
        let on_servers = some(Condition::is_of_servers);
        let version = version.or_else(|| table.version(framework)).unwrap_or_default().to_string();
        Ok(Rules {
            table,
            framework,
            version,
            kind: ConditionKind::of(model),
            domain: cluster.fabric.domain_gpus,
            experts: model.moe.as_ref().map_or(1, |m| m.experts),
            on_workers,
            on_pairs,
            on_servers,
            model: model.clone(),
        })
    }

    fn rule(&self, i: usize) -> &Rule {
        &self.table.rules[i]
    }

    /// Whether a worker of this layout starts. No allocation: a handful of comparisons.
    pub fn worker(&self, parallel: &Parallel) -> bool {
        self.shape(&parallel.shape(self.experts))
    }

    /// Whether the layout of an AFD unit keeps the framework's rules (whatever servers exist).
    pub fn unit(&self, unit: &AfdPlan) -> bool {
        self.shape(&unit.shape(self.experts))
    }

    /// Whether a layout that is given by its numbers keeps the rules: `dp` attention ranks of a group, `ep` and `moe_tp` of
    /// the experts.
    pub fn shape(&self, shape: &Shape) -> bool {
        self.on_workers.iter().all(|i| self.rule(*i).condition.worker(shape, self.kind, self.domain))
    }

    /// Whether the KV cache of a prefill side goes to a decode side: workers or units of P/D.
    pub fn pair(&self, prefill: &impl Layout, decode: &impl Layout) -> bool {
        self.shapes(&prefill.shape(self.experts), &decode.shape(self.experts))
    }

    /// The same by their numbers; only `tp` and `pp` count.
    pub fn shapes(&self, prefill: &Shape, decode: &Shape) -> bool {
        self.on_pairs.iter().all(|i| self.rule(*i).condition.pair(prefill, decode, self.kind))
    }

    /// Whether a plan keeps every layout rule.
    pub fn plan(&self, plan: &Plan) -> bool {
        match plan {
            Plan::Aggregated(a) => self.worker(&a.parallel),
            Plan::Afd(a) => self.unit(a),
            Plan::Pd(p) => {
                let (prefill, decode) = (p.prefill.shape(self.experts), p.decode.shape(self.experts));
                self.shape(&prefill) && self.shape(&decode) && self.shapes(&prefill, &decode)
            }
        }
    }

    /// Every layout rule that a plan breaks.
    pub fn violations(&self, plan: &Plan) -> Vec<Violation> {
        let mut out = Vec::new();
        match plan {
            Plan::Aggregated(a) => self.of_shape(&mut out, "plan", false, &a.parallel.shape(self.experts)),
            Plan::Afd(a) => self.of_shape(&mut out, "plan", true, &a.shape(self.experts)),
            Plan::Pd(p) => {
                for (path, slot) in [("plan.prefill", &p.prefill), ("plan.decode", &p.decode)] {
                    self.of_shape(&mut out, path, matches!(slot, Slot::Afd(_)), &slot.shape(self.experts));
                }
                let (prefill, decode) = (p.prefill.shape(self.experts), p.decode.shape(self.experts));
                for &i in &self.on_pairs {
                    let rule = self.rule(i);
                    if !rule.condition.pair(&prefill, &decode, self.kind) {
                        let (side, message) = rule.condition.of_pair(&prefill, &decode);
                        out.push(violation(rule, format!("plan.{side}"), message, None));
                    }
                }
            }
        }
        out
    }

    fn of_shape(&self, out: &mut Vec<Violation>, path: &str, afd: bool, shape: &Shape) {
        for &i in &self.on_workers {
            let rule = self.rule(i);
            if rule.condition.worker(shape, self.kind, self.domain) {
                continue;
            }
            let (field, message) = rule.condition.of_worker(shape);
            let part = match (afd, field) {
                (false, _) => "parallel",
                (true, "moe_tp") => "ffn",
                (true, _) => "attention",
            };
            out.push(violation(rule, format!("{path}.{part}.{field}"), message, None));
        }
    }

    /// Whether a plan starts: the layout rules, and for AFD a released server that takes the unit.
    pub fn verdict(&self, plan: &Plan) -> Verdict {
        let mut why_not = self.violations(plan);
        let own = format!("{} {}", self.framework.name(), self.version);
        let mut server = Some(own.trim_end().to_string());
        let units: Vec<(&str, &AfdPlan)> = match plan {
            Plan::Aggregated(_) => Vec::new(),
            Plan::Afd(a) => vec![("plan", a)],
            Plan::Pd(p) => [("plan.prefill", &p.prefill), ("plan.decode", &p.decode)]
                .into_iter()
                .filter_map(|(path, s)| if let Slot::Afd(a) = s { Some((path, a)) } else { None })
                .collect(),
        };
        for (path, unit) in units {
            for &i in &self.on_servers {
                let rule = self.rule(i);
                match &rule.condition {
                    Condition::AfdServer(takes) => match takes.refuses(unit, &self.model) {
                        None => server = Some(takes.server.clone()),
                        Some((field, message, instead)) => {
                            let at = if field.is_empty() { path.to_string() } else { format!("{path}.{field}") };
                            why_not.push(violation(rule, at, message, Some(instead)));
                        }
                    },
                    _ => {
                        let message = format!("no released server of {} starts AFD units", self.framework.name());
                        why_not.push(violation(rule, path.to_string(), message, None));
                    }
                }
            }
        }
        if !why_not.is_empty() {
            server = None;
        }
        Verdict { runnable: why_not.is_empty(), server, why_not }
    }
}

fn violation(rule: &Rule, path: String, message: String, instead: Option<String>) -> Violation {
    let instead = instead.unwrap_or_else(|| rule.instead.clone());
    Violation { rule: rule.name.clone(), path, message, instead, source: rule.source.clone() }
}
