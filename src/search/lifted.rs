//! What the rules of servers cost: the same question searched once more with the rules lifted.
//!
//! One row a level: what the best plan that a server starts gives, what the best plan of all gives, and which rules
//! that one breaks. A gain of nothing says that no rule stands in the way.
//!
//! Limit: all rules or none; which single rule would have to go is not worked out.

use std::sync::Arc;

use super::explore::explore;
use super::question::Question;
use super::study::{Study, Verdict, describe};
use crate::columns::{Column, Columns};
use crate::control::Control;
use crate::error::Result;
use crate::kernels::KernelDb;
use crate::spec::Rules;

/// `level runnable_tokens_per_s_per_gpu lifted_tokens_per_s_per_gpu gain plan rules`; NaN where nothing keeps the limits.
/// `gain`: the second rate over the first, less one.
///
/// # Errors
/// As `explore`.
pub fn lifted(db: &Arc<KernelDb>, study: &Study, control: &Control) -> Result<Columns> {
    let q = &study.question;
    let all = explore(db, &Question { runnable: false, ..q.clone() }, control)?;
    let scale = q.case.workload.means().osl.max(1.0) / f64::from(q.case.cluster.gpus);
    let rate = |s: &Study, v: &Verdict| match s.said(v).filter(|_| v.feasible) {
        Some(p) => p.requests_per_s * scale,
        None => f64::NAN,
    };
    let own: Vec<f64> = study.verdicts.iter().map(|v| rate(study, v)).collect();
    let free: Vec<f64> = all.verdicts.iter().map(|v| rate(&all, v)).collect();
    let broken = |v: &Verdict| -> Result<String> {
        let Some(row) = v.row.map(|i| &all.rows[i]) else { return Ok(String::new()) };
        let rules = Rules::new(q.case.named()[usize::from(row.framework)], None, &q.case.model, &q.case.cluster)?;
        let names: Vec<String> = rules.violations(&row.plan()).into_iter().map(|b| b.rule).collect();
        Ok(names.join(", "))
    };
    let rules = all.verdicts.iter().map(broken).collect::<Result<Vec<String>>>()?;
    let plan = |v: &Verdict| v.row.map_or(String::new(), |i| describe(&all.rows[i]));
    let mut c = Columns::new();
    c.push("level", Column::from_strings(all.verdicts.iter().map(|v| v.level.name())));
    c.push("runnable_tokens_per_s_per_gpu", Column::F64(own.clone()));
    c.push("lifted_tokens_per_s_per_gpu", Column::F64(free.clone()));
    c.push("gain", Column::F64(own.iter().zip(&free).map(|(a, b)| b / a - 1.0).collect()));
    c.push("plan", Column::from_strings(all.verdicts.iter().map(plan)));
    c.push("rules", Column::from_strings(rules));
    Ok(c)
}
