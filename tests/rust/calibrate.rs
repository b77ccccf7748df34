//! The fitted parameters: rebuilt bit for bit on any number of threads, held-out groups never fitted,
//! every law inside its bounds; and the validation table, whose errors may fall but not rise in silence.

use std::sync::Arc;

use disagg::calibrate::{self, collectives, exchanges};
use disagg::control::Control;
use disagg::kernels::KernelDb;
use disagg::network::params::{Fitted, Params};
use disagg::network::samples;
use disagg::validation::{self, CheckedRow, network};
use serde::Serialize;

use crate::lab::db;

fn params() -> &'static Params {
    Params::shipped().unwrap()
}

fn json(x: &impl Serialize) -> String {
    serde_json::to_string(x).unwrap()
}

#[test]
fn fits_are_rebuilt_bit_for_bit() {
    // Every seventh table here; `make calibrate` compares the whole file.
    let tables = samples::collectives(db()).unwrap();
    for table in tables.iter().step_by(7) {
        let shipped = params().collectives.iter().find(|f| f.id == table.id);
        assert_eq!(json(&collectives::fit(table)), json(&shipped), "{:?}", table.id);
    }
    let tables = samples::exchanges(db()).unwrap();
    for table in tables.iter().filter(|t| t.samples.len() < 1000).step_by(7) {
        let shipped = params().exchanges.iter().find(|f| f.id == table.id);
        assert_eq!(json(&exchanges::fit(table)), json(&shipped), "{:?}", table.id);
    }
}

#[test]
fn the_file_holds_every_table_once_and_reads_back() {
    let text = calibrate::to_text(params()).unwrap();
    assert_eq!(text, include_str!("../../python/disagg/data/network/kernels.json"));
    assert_eq!(json(&Params::parse(&text).unwrap()), json(params()));
    let names: Vec<String> = samples::collectives(db()).unwrap().iter().map(|t| json(&t.id)).collect();
    let fitted: Vec<String> = params().collectives.iter().map(|f| json(&f.id)).collect();
    assert_eq!(names, fitted);
    let names: Vec<String> = samples::exchanges(db()).unwrap().iter().map(|t| json(&t.id)).collect();
    let fitted: Vec<String> = params().exchanges.iter().map(|f| json(&f.id)).collect();
    assert_eq!(names, fitted);
}

fn largest<L>(fits: &[Fitted<L>]) -> u32 {
    fits.iter().flat_map(|f| f.ranks.iter().copied()).max().unwrap()
}

#[test]
fn held_out_groups_were_not_fitted() {
    assert_eq!(largest(&params().collectives), 4);
    assert_eq!(largest(&params().exchanges), 32);
    let one_sided: Vec<_> = params().exchanges.iter().filter(|f| f.id.variant.starts_with("NVLinkOneSided")).collect();
    assert!(one_sided.len() == 2 && one_sided.iter().all(|f| f.ranks == [2, 4, 8, 16]));
    // A fit does not change when its check rows do.
    let tables = samples::collectives(db()).unwrap();
    let table = tables.iter().find(|t| t.samples.iter().any(|s| s.ranks == 8)).unwrap();
    let mut other = table.clone();
    for s in other.samples.iter_mut().filter(|s| s.ranks > 4) {
        s.seconds *= 3.0;
    }
    assert_eq!(json(&collectives::fit(table)), json(&collectives::fit(&other)));
    let tables = samples::exchanges(db()).unwrap();
    for name in ["NVLinkOneSided nvfp4", "deepep_low_latency"] {
        let table = tables.iter().find(|t| t.id.variant == name && t.samples.iter().any(|e| e.ep > 16)).unwrap();
        let held_out = table.samples.iter().map(|e| e.ep).max().unwrap();
        let mut other = table.clone();
        for e in other.samples.iter_mut().filter(|e| e.ep == held_out) {
            e.seconds *= 3.0;
        }
        assert_eq!(json(&exchanges::fit(table)), json(&exchanges::fit(&other)), "{name}");
    }
}

#[test]
fn laws_keep_their_bounds() {
    for f in &params().collectives {
        for l in &f.law.lines {
            assert!(l.alpha > 0.0 && l.per_rank >= 0.0 && l.own >= 0.0, "{:?}", f.id);
            assert!(l.eta > 0.0 && l.eta <= 1.05, "{:?} {}", f.id, l.eta);
        }
        let mut last = 0.0;
        for x in 8..30 {
            let t = f.law.seconds(6, f64::from(x).exp2(), 450e9);
            assert!(t >= last, "{:?}", f.id);
            last = t;
        }
    }
    for f in &params().exchanges {
        let l = &f.law;
        assert!(
            l.alpha > 0.0
                && l.per_expert >= 0.0
                && l.per_log2_ranks >= 0.0
                && l.step >= 0.0
                && l.per_log2_domains >= 0.0,
            "{:?}",
            f.id
        );
        assert!(l.eta_nvlink > 0.0 && l.eta_nvlink <= 1.05 && l.eta_nic > 0.0 && l.eta_nic <= 1.05, "{:?}", f.id);
        assert!(l.p.is_none_or(|p| p >= 1.0), "{:?}", f.id);
    }
}

fn rows() -> Vec<CheckedRow> {
    validation::rows(db(), &[validation::Section::Network], false, &Control::new()).unwrap()
}

#[test]
fn the_table_says_what_was_fitted_and_what_was_not() {
    let rows = rows();
    let row = |name: &str| rows.iter().find(|r| r.name == name).unwrap_or_else(|| panic!("no row {name}"));
    // (name, largest error): measured when the laws were fitted, rounded up.
    for (name, most) in [
        ("nccl all_reduce half, n = 2 and 4", 0.045),
        ("nccl all_reduce half, n = 8 from n <= 4", 0.08),
        ("deepep_low_latency dispatch, EP <= 8", 0.04),
        ("deepep_low_latency combine, EP <= 8", 0.055),
        ("deepep_low_latency dispatch, EP <= 4", 0.04),
        ("deepep_low_latency combine, EP <= 4", 0.065),
        ("deepep_low_latency dispatch across nodes, EP64 from EP <= 32", 0.06),
        ("deepep_low_latency combine across nodes, EP64 from EP <= 32", 0.06),
        ("deepep_low_latency dispatch, unseen shapes", 0.035),
        ("deepep_low_latency combine, unseen shapes", 0.04),
        ("NVLinkOneSided nvfp4 dispatch, EP32 from EP <= 16", 0.045),
        ("NVLinkOneSided nvfp4 combine, EP32 from EP <= 16", 0.085),
        ("nvl72-bf16 dispatch", 0.12),
        ("deepep-h800-ll dispatch", 0.07),
        ("deepep-h800-ll combine", 0.07),
        ("fabric-lib-deepep-decode dispatch", 0.125),
    ] {
        assert!(row(name).predicted < most, "{name}: {}", row(name).predicted);
    }
    for r in &rows {
        let spread = r.spread.unwrap();
        assert!(spread.rows > 0 && spread.median <= spread.p95 && spread.mape == r.predicted, "{}", r.name);
        assert_eq!(r.status.split(':').count(), 3, "{}", r.status);
        let met = r.status.ends_with(":met");
        assert!(!met || r.predicted <= r.target, "{}", r.name);
    }
    for table in network::published().unwrap() {
        assert!(rows.iter().any(|r| r.name.starts_with(&table.name) && r.status.contains(":check:")), "{}", table.name);
        assert!(table.rows.iter().all(|r| r.len() == table.columns.len()), "{}", table.name);
    }
    let text = network::report(&rows);
    assert_eq!(text.lines().count(), rows.len() + 2);
}

#[test]
fn an_empty_database_has_nothing_to_fit() {
    let empty: Arc<KernelDb> = KernelDb::empty();
    let fitted = calibrate::network(&empty, &Control::new()).unwrap();
    assert!(fitted.collectives.is_empty() && fitted.exchanges.is_empty());
    let stopped = Control::new();
    stopped.cancel();
    assert!(calibrate::network(db(), &stopped).is_err());
}
