//! What can be varied: where it stands in a question, its value, and how it is scaled.
//!
//! Figures of a device are those of every pool (a pool's own hardware is scaled with the cluster's).
//! FLOP/s of all formats go together. Imbalance is the exponent of the experts' power law; of a
//! histogram every load is raised to the factor, which for a power law is the same. `prefix_share`
//! moves tokens between the cached and the new part of the prompt at a fixed total.
//!
//! Limit: one figure at a time; figures that move together (clock and power, say) are moved apart.

use super::baseline::Baseline;
use crate::spec::{Device, ExpertLoad, Imbalance, Plan, PoolPlan, Slot};
use crate::units::{GB, GIB, US};

pub(super) struct Parameter {
    pub name: &'static str,
    pub unit: &'static str,
    /// What it is a property of.
    pub of: &'static str,
    /// Its value, or why the base has none.
    pub value: fn(&Baseline) -> Result<f64, String>,
    pub scale: fn(&mut Baseline, f64),
}

/// Every device that the plan computes on.
fn devices(base: &mut Baseline, change: impl Fn(&mut Device)) {
    change(&mut base.case.cluster.device);
    let own = match &mut base.plan {
        Plan::Aggregated(_) => Vec::new(),
        Plan::Afd(a) => vec![&mut a.attention.device, &mut a.ffn.device],
        Plan::Pd(pd) => [&mut pd.prefill, &mut pd.decode]
            .into_iter()
            .flat_map(|s| match s {
                Slot::Afd(a) => vec![&mut a.attention.device, &mut a.ffn.device],
                Slot::Workers(w) => vec![&mut w.device],
            })
            .collect(),
    };
    own.into_iter().filter_map(Option::as_mut).for_each(change);
}

fn positive(value: f64, what: &str) -> Result<f64, String> {
    if value > 0.0 { Ok(value) } else { Err(format!("{what} is 0")) }
}

/// Ranks that the experts of a plan are spread over, at most.
fn widest(plan: &Plan) -> u32 {
    let pool = |p: &PoolPlan| p.ep.unwrap_or(p.gpus / p.moe_tp.max(1));
    let slot = |s: &Slot| match s {
        Slot::Workers(w) => w.parallel.ep(),
        Slot::Afd(a) => pool(&a.ffn),
    };
    match plan {
        Plan::Aggregated(a) => a.parallel.ep(),
        Plan::Afd(a) => pool(&a.ffn),
        Plan::Pd(pd) => slot(&pd.prefill).max(slot(&pd.decode)),
    }
}

/// The exponent of the experts' load; 1 for a histogram, which has none of its own.
fn exponent(base: &Baseline) -> Result<f64, String> {
    let named = |load: ExpertLoad| load.exponent().ok_or_else(|| "the experts' load is even".to_string());
    let Some(moe) = &base.case.model.moe else { return Err(format!("{} has no experts", base.case.model.name)) };
    if widest(&base.plan) <= 1 {
        return Err("all experts sit on every rank, so that ranks are even".into());
    }
    match &base.case.serving.imbalance {
        None => named(moe.distribution),
        Some(Imbalance::Name(load)) => named(*load),
        Some(Imbalance::Exponent(a)) => positive(*a, "the exponent"),
        Some(Imbalance::Histogram(_)) => Ok(1.0),
    }
}

fn skew(base: &mut Baseline, by: f64) {
    base.case.serving.imbalance = Some(match &base.case.serving.imbalance {
        Some(Imbalance::Histogram(loads)) => Imbalance::Histogram(loads.iter().map(|l| l.powf(by)).collect()),
        _ => Imbalance::Exponent(exponent(base).unwrap_or(0.0) * by),
    });
}

fn prefix_share(base: &Baseline) -> Result<f64, String> {
    let m = base.case.workload.means();
    positive(m.prefix / (m.prefix + m.isl), "the prefix")
}

/// Prefix tokens by a factor, new tokens so that the mean prompt stays.
fn share(base: &mut Baseline, by: f64) {
    let m = base.case.workload.means();
    let rest = (m.isl - (by - 1.0) * m.prefix) / m.isl;
    lengths(base, [by, rest, 1.0]);
}

/// Lengths (prefix, isl, osl) by factors.
fn lengths(base: &mut Baseline, by: [f64; 3]) {
    let w = &mut base.case.workload;
    for sample in &mut w.lengths {
        sample.iter_mut().zip(by).for_each(|(x, f)| *x *= f);
    }
    for (d, f) in [&mut w.prefix, &mut w.isl, &mut w.osl].into_iter().zip(by) {
        *d = d.scaled(f);
    }
}

pub(super) const PARAMETERS: [Parameter; 16] = [
    Parameter {
        name: "tflops",
        unit: "TFLOP/s (BF16)",
        of: "device",
        value: |c| Ok(c.case.cluster.device.bf16_flops / 1e12),
        scale: |c, by| {
            devices(c, |d| {
                d.bf16_flops *= by;
                d.fp8_flops *= by;
                d.fp4_flops *= by;
            });
        },
    },
    Parameter {
        name: "hbm_gb_per_s",
        unit: "GB/s",
        of: "device",
        value: |c| Ok(c.case.cluster.device.hbm_bytes_per_s / GB),
        scale: |c, by| devices(c, |d| d.hbm_bytes_per_s *= by),
    },
    Parameter {
        name: "hbm_gib",
        unit: "GiB",
        of: "device",
        value: |c| Ok(c.case.cluster.device.hbm_bytes / GIB),
        scale: |c, by| devices(c, |d| d.hbm_bytes *= by),
    },
    Parameter {
        name: "launch_us",
        unit: "us",
        of: "device",
        value: |c| positive(c.case.cluster.device.launch_s / US, "the launch floor"),
        scale: |c, by| devices(c, |d| d.launch_s *= by),
    },
    Parameter {
        name: "nvlink_gb_per_s",
        unit: "GB/s",
        of: "fabric",
        value: |c| Ok(c.case.cluster.fabric.nvlink_bytes_per_s / GB),
        scale: |c, by| c.case.cluster.fabric.nvlink_bytes_per_s *= by,
    },
    Parameter {
        name: "nic_gb_per_s",
        unit: "GB/s",
        of: "fabric",
        value: |c| Ok(c.case.cluster.fabric.nic_bytes_per_s / GB),
        scale: |c, by| c.case.cluster.fabric.nic_bytes_per_s *= by,
    },
    Parameter {
        name: "afd_alpha_scale",
        unit: "",
        of: "exchange",
        value: |c| {
            if c.plan.afd_units().is_empty() {
                return Err("the plan has no A2F and F2A".into());
            }
            positive(c.case.assumptions.afd_alpha_scale, "it")
        },
        scale: |c, by| c.case.assumptions.afd_alpha_scale *= by,
    },
    Parameter {
        name: "dispatch_alpha_scale",
        unit: "",
        of: "exchange",
        value: |c| {
            if c.case.model.moe.is_none() {
                return Err("the model has no experts, so no dispatch and combine".into());
            }
            positive(c.case.assumptions.dispatch_alpha_scale, "it")
        },
        scale: |c, by| c.case.assumptions.dispatch_alpha_scale *= by,
    },
    Parameter { name: "imbalance", unit: "exponent", of: "serving", value: exponent, scale: skew },
    Parameter {
        name: "acceptance",
        unit: "tokens/step",
        of: "serving",
        value: |c| positive(c.case.serving.accepted(), "there are no draft tokens, acceptance"),
        scale: |c, by| {
            c.case.serving.acceptance = Some(c.case.serving.accepted() * by);
            c.case.serving.draft_acceptance = None;
        },
    },
    Parameter { name: "prefix_share", unit: "", of: "workload", value: prefix_share, scale: share },
    Parameter {
        name: "isl",
        unit: "tokens",
        of: "workload",
        value: |c| Ok(c.case.workload.means().isl),
        scale: |c, by| lengths(c, [1.0, by, 1.0]),
    },
    Parameter {
        name: "osl",
        unit: "tokens",
        of: "workload",
        value: |c| Ok(c.case.workload.means().osl),
        scale: |c, by| lengths(c, [1.0, 1.0, by]),
    },
    Parameter {
        name: "load",
        unit: "requests/s",
        of: "workload",
        value: |c| c.load.ok_or_else(|| "the loop is closed; give estimate(load=)".into()),
        scale: |c, by| c.load = c.load.map(|l| l * by),
    },
    Parameter {
        name: "usd_per_hour",
        unit: "USD/h a GPU",
        of: "price",
        value: |c| positive(c.case.cluster.device.usd_per_hour, "the price of a GPU-hour"),
        scale: |c, by| devices(c, |d| d.usd_per_hour *= by),
    },
    Parameter {
        name: "power_w",
        unit: "W a GPU",
        of: "device",
        value: |c| positive(c.case.cluster.device.power_w, "the board power"),
        scale: |c, by| devices(c, |d| d.power_w *= by),
    },
];
