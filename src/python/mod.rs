//! The Python face: PyO3 bindings and nothing else. No physics lives here.
//!
//! Every binding takes specs ([`data::Spec`]) and plain numbers, calls the floors below, and gives
//! back a spec, a JSON string of scalars or [`crate::columns::Columns`] moved to numpy. Anything
//! that may take longer than a few milliseconds goes through [`run::run`].
//!
//! Limit: abi3 from Python 3.11 on; sub-interpreters are not supported.

mod afd;
mod border;
mod case;
mod catalog;
mod class_table;
mod classes;
mod columns;
mod construct;
mod convert;
mod data;
mod design;
mod diagnose;
mod door;
mod errors;
mod exploration;
mod fields;
mod give;
mod kernels;
mod made;
mod model_source;
mod network;
mod options;
mod regimes;
mod rules;
mod run;
mod sensitivity;
mod serve;
mod sim;
mod spec;
mod validation;
mod words;

use pyo3::prelude::*;

#[pymodule]
mod _core {
    use pyo3::prelude::*;

    #[pymodule_export]
    use super::afd::{afd_provision, afd_schedule};
    #[pymodule_export]
    use super::case::Case;
    #[pymodule_export]
    use super::catalog::{
        distribution_facts, model_facts, plan_facts, preset_device, preset_devices, preset_fabric, preset_models,
        preset_systems, preset_workload, preset_workloads, switches, workload_facts,
    };
    #[pymodule_export]
    use super::classes::_fields;
    #[pymodule_export]
    use super::columns::frontier;
    #[pymodule_export]
    use super::data::Spec;
    #[pymodule_export]
    use super::design::{DesignSpace, Search, design_metrics};
    #[pymodule_export]
    use super::door::{_frame, _spin, near, num_threads, set_num_threads, versions};
    #[pymodule_export]
    use super::exploration::Exploration;
    #[pymodule_export]
    use super::kernels::{
        kernels_at, kernels_damaged, kernels_frame, kernels_frameworks, kernels_identity, kernels_import,
        kernels_known, kernels_lookup, kernels_origin, kernels_report, kernels_suspects, kernels_systems,
        kernels_table, kernels_tables, kernels_versions,
    };
    #[pymodule_export]
    use super::network::{network_flows, network_phase};
    #[pymodule_export]
    use super::options::_options;
    #[pymodule_export]
    use super::regimes::Regimes;
    #[pymodule_export]
    use super::rules::{check_plan, launch, plan_verdict, rules_table};
    #[pymodule_export]
    use super::sensitivity::sensitivity;
    #[pymodule_export]
    use super::serve::{_told, Engine, Priced, Study};
    #[pymodule_export]
    use super::sim::{Trace, calibrate, goodput_curve, judge, mean_interval, perfetto, simulate};
    #[pymodule_export]
    use super::validation::{validation_report, validation_run, validation_sections};
    #[pymodule_export]
    use super::words::{compare, explain, plan_words, verdict};

    #[pymodule_init]
    fn classes(module: &Bound<'_, PyModule>) -> PyResult<()> {
        super::classes::export(module)
    }
}
