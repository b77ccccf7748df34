//! Which frameworks on which systems measured the kernels that set a model apart: its experts at their very sizes, its
//! latent attention or the width of its heads, its running state. What is not known is priced from the nearest rows or by
//! roofline, and tagged so.
//!
//! Limit: asks whether rows are there, not whether they are good; formats of weights do not count.

use super::KernelDb;
use super::table::{Table, TableKey};
use crate::error::{Error, Result};
use crate::spec::{Attention, LayerMixer, Model};

/// For each system its frameworks that measured them all, the usual version or another.
///
/// # Errors
/// If a table cannot be read.
pub fn known(db: &KernelDb, model: &Model) -> Result<Vec<(String, Vec<String>)>> {
    let of = |system: &String| -> Result<(String, Vec<String>)> {
        let mut found = Vec::new();
        for framework in db.frameworks(system)? {
            if measured(db, system, framework, model)? || newest_with(db, system, framework, model)?.is_some() {
                found.push(framework.clone());
            }
        }
        Ok((system.clone(), found))
    };
    db.systems().iter().map(of).collect()
}

/// The newest version of a framework that measured them all, where the tables that answer by themselves did not. None: those
/// did, or no version has.
pub fn newest_with(db: &KernelDb, system: &str, framework: &str, model: &Model) -> Result<Option<String>> {
    if measured(db, system, framework, model)? {
        return Ok(None);
    }
    for version in db.versions(system, framework) {
        if measured(&db.at_version(framework, &version), system, framework, model)? {
            return Ok(Some(version));
        }
    }
    Ok(None)
}

fn measured(db: &KernelDb, system: &str, framework: &str, model: &Model) -> Result<bool> {
    let table = |name: &str| db.find(system, framework, name, None);
    let any = |names: &[&str]| {
        for name in names {
            if table(name)?.is_some() {
                return Ok(true);
            }
        }
        Ok::<bool, Error>(false)
    };
    let attention = match &model.attention {
        Attention::Mla { indexer: Some(_), .. } => any(&["dsa_generation_module"])?,
        Attention::Mla { .. } => any(&["generation_mla", "mla_generation_module"])?,
        Attention::Gqa { head_dim, .. } => {
            table("generation_attention")?.is_some_and(|t| row(&t, &[("head_dim", *head_dim)]))
        }
        Attention::Own(own) => any(&own.tables())?,
    };
    let mut running = true;
    for mixer in &model.mixers {
        if let LayerMixer::Own(own) = mixer {
            running &= any(&own.tables())?;
        }
    }
    let moe = table("moe")?;
    let experts = model.moe.as_ref().is_none_or(|m| {
        let sizes = [("hidden_size", model.expert_hidden()), ("inter_size", m.intermediate), ("topk", m.topk)];
        let sizes: Vec<(&str, u32)> = sizes.into_iter().chain([("num_experts", m.experts)]).collect();
        moe.as_ref().is_some_and(|t| row(t, &sizes))
    });
    Ok(attention && running && experts)
}

/// Whether a table has a row with these values.
fn row(table: &Table, values: &[(&str, u32)]) -> bool {
    let column = |name: &str| {
        table.keys.iter().find_map(|k| match k {
            TableKey::Int { name: n, values } if n == name => Some(values),
            _ => None,
        })
    };
    let columns: Option<Vec<_>> = values.iter().map(|(n, v)| Some((column(n)?, i64::from(*v)))).collect();
    columns.is_some_and(|c| (0..table.rows()).any(|i| c.iter().all(|(values, wanted)| values[i] == *wanted)))
}
