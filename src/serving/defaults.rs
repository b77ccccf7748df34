//! What servers do when nobody says otherwise, in one place: the product and the validation ask here.
//!
//! Number formats by device, framework and checkpoint, token budgets, order of prompts, cadence: from
//! `serving/defaults.json` (`spec::servers`), each with its source. What the user says always wins. The memory
//! fraction is applied where memory is counted (`cost::memory::server`), the launch mode where operators are priced
//! (`cost::library`), the choice among measured kernels where tables are read (`kernels::ops`). Limits: the formats are those of the
//! cluster's own device; a pool on a device of its own takes the same. Whether an FP8 checkpoint names a KV scheme
//! is not kept, so its servers are taken to follow the rule for those that do not.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::cost::Library;
use crate::cost::memory::server;
use crate::error::Result;
use crate::kernels::KernelDb;
use crate::spec::servers::{self, FormatPart};
use crate::spec::{Assumptions, Case, Cluster, Device, Framework, Model, Parallel, Quant, Serving};

impl Case {
    /// Its library with the kernels of `framework`, shared by all who ask the same.
    ///
    /// # Errors
    /// If a table or a format is missing.
    pub fn library(&self, db: &Arc<KernelDb>, framework: Framework) -> Result<Arc<Library>> {
        library(db, &self.model, &self.cluster, framework, &self.quant, &self.serving, &self.assumptions)
    }
}

/// The same of its parts.
pub fn library(
    db: &Arc<KernelDb>,
    model: &Model,
    cluster: &Cluster,
    framework: Framework,
    quant: &Quant,
    serving: &Serving,
    assumptions: &Assumptions,
) -> Result<Arc<Library>> {
    let quant = formats(model, &cluster.device, framework, quant);
    Library::shared(db, model, cluster, framework, &quant, serving, assumptions)
}

/// The user's formats, and the server's where the user names none and the server does not do as the checkpoint says.
pub(crate) fn formats(model: &Model, device: &Device, framework: Framework, quant: &Quant) -> Quant {
    let own = |part| servers::format_rule(model, device, framework, part).map(|r| r.format);
    let other = |format: Option<crate::spec::Dtype>, checkpoint| format.filter(|f| Some(*f) != checkpoint);
    Quant {
        moe: quant.moe.or_else(|| other(own(FormatPart::Moe), model.quant.moe)),
        kv: quant.kv.or_else(|| other(own(FormatPart::Kv), model.quant.kv)),
        ..*quant
    }
}

/// The formats in force, part by part, and where each comes from.
pub fn provenance(lib: &Library) -> BTreeMap<&'static str, String> {
    let f = &lib.formats;
    let (own, asked) = (&lib.model.quant, &lib.quant);
    let rule = |part| servers::format_rule(&lib.model, &lib.cluster.device, lib.framework, part);
    let said = |format: crate::spec::Dtype, asked: Option<_>, own: Option<_>, part: Option<FormatPart>| {
        let rule = part.and_then(rule).filter(|r| r.format == format);
        let origin = match (rule, asked) {
            (Some(r), _) => format!("{}: {}", lib.framework, r.source),
            (None, Some(_)) if asked != own => "asked for".to_string(),
            _ => "the checkpoint's".to_string(),
        };
        format!("{} ({origin})", format.name())
    };
    BTreeMap::from([
        ("gemm", said(f.gemm, asked.gemm, own.gemm, None)),
        ("moe", said(f.moe, asked.moe, own.moe, Some(FormatPart::Moe))),
        ("attention", said(f.attention, asked.attention, own.attention, None)),
        ("kv", said(f.kv, asked.kv, own.kv, Some(FormatPart::Kv))),
        ("comm", said(f.comm, asked.comm, own.comm, None)),
    ])
}

/// Tokens of one step and attention rank that the server of this library is set up for.
pub(crate) fn budget(lib: &Library, parallel: &Parallel) -> f64 {
    let Some(newest) = servers::newest(lib.framework) else { return f64::from(u16::MAX) };
    let layout = server::Layout::of(parallel, lib.model.layers);
    server::budget(&lib.cluster.device, &layout, newest)
}

/// Whether its scheduler serves waiting prompts before decoding requests.
pub(crate) fn prompts_first(framework: Framework) -> bool {
    servers::newest(framework).is_some_and(|s| s.prompts_first)
}

/// Its cadence: prompt tokens join every n-th step at most.
pub(crate) fn prefill_interval(framework: Framework) -> u32 {
    servers::newest(framework).map_or(1, |s| s.prefill_interval)
}
