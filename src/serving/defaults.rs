//! What servers do when nobody says otherwise, in one place: the product and the validation ask here.

use std::sync::Arc;

use crate::cost::Library;
use crate::error::Result;
use crate::kernels::KernelDb;
use crate::spec::{Assumptions, Cluster, Model, Quant, Serving};

/// The library of a question, shared by all who ask the same.
#[allow(clippy::too_many_arguments)]
pub fn library(
    db: &Arc<KernelDb>,
    model: &Model,
    cluster: &Cluster,
    framework: &str,
    quant: &Quant,
    serving: &Serving,
    assumptions: &Assumptions,
) -> Result<Arc<Library>> {
    Library::shared(db, model, cluster, framework, quant, serving, assumptions)
}
