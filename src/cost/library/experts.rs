//! Expert kernels of a library: whose rows are read, where the load asked for stands between them, and what redundant
//! copies of the busiest experts weigh.
//!
//! Limit: loads that were not measured are scaled between a balanced and a skewed row (`cost::balance`).

use std::sync::Arc;

use super::{Library, SurfaceKey};
use crate::cost::{balance, published};
use crate::error::Result;
use crate::kernels::Surface;
use crate::kernels::ops::{self, ExpertShape, Served, Source};
use crate::kernels::roofline::{self, Roofline};
use crate::spec::assumptions::BeyondTables;
use crate::spec::{ExpertLoad, Imbalance};

impl Library {
    fn expert_shape(&self, ep: u32, moe_tp: u32) -> Option<(ExpertShape, ExpertLoad)> {
        let moe = self.model.moe.as_ref()?;
        let shape = ExpertShape {
            hidden: self.model.expert_hidden(),
            gated: self.model.gated,
            intermediate: moe.intermediate,
            topk: moe.topk,
            experts: moe.experts,
            moe_tp,
            ep,
        };
        Some((shape, self.measured_load()))
    }

    /// The load distribution whose rows are read: the one asked for, or the measured one nearest to it.
    fn measured_load(&self) -> ExpertLoad {
        let own = self.model.moe.as_ref().map_or(ExpertLoad::Balanced, |m| m.distribution);
        match &self.serving.imbalance {
            Some(Imbalance::Name(load)) => *load,
            Some(Imbalance::Exponent(a)) if *a > 1.1 => ExpertLoad::PowerLaw12,
            Some(Imbalance::Exponent(_)) => ExpertLoad::PowerLaw101,
            // Skewed rows are needed to scale between.
            Some(Imbalance::Histogram(_)) if own == ExpertLoad::Balanced => ExpertLoad::PowerLaw101,
            Some(Imbalance::Histogram(_)) | None => own,
        }
    }

    /// Where the load asked for stands between the balanced row (0) and the row that is read (1);
    /// none: it is that row.
    pub(crate) fn skew(&self, ep: u32) -> Option<f64> {
        let experts = self.model.moe.as_ref()?.experts;
        let slots = self.serving.eplb_slots;
        let exponent = self.measured_load().exponent()?;
        let row = balance::power_law(exponent, experts);
        let loads = match &self.serving.imbalance {
            Some(Imbalance::Histogram(loads)) => loads.clone(),
            Some(Imbalance::Exponent(a)) => balance::power_law(*a, experts),
            Some(Imbalance::Name(_)) | None if slots == 0 => return None,
            Some(Imbalance::Name(_)) | None => row.clone(),
        };
        let hot = if slots > 0 { balance::balanced_rank(&loads, ep, slots) } else { balance::hot_rank(&loads, ep) };
        let measured = balance::hot_rank(&row, ep) - 1.0;
        Some(if measured > 0.0 { (hot - 1.0) / measured } else { 0.0 })
    }

    /// Rooflines of the fullest rank without and with its redundant copies; none without any.
    pub(crate) fn copies(&self, ep: u32, moe_tp: u32) -> Option<[Roofline; 2]> {
        let moe = self.model.moe.as_ref()?;
        if self.serving.eplb_slots == 0 {
            return None;
        }
        let local = moe.experts.div_ceil(ep);
        let more = (moe.experts + self.serving.eplb_slots).div_ceil(ep);
        let all = f64::from(moe.experts);
        // As many rows on the rank, over more weights: the model grows with the rank.
        let of = |local: u32, all: f64| {
            roofline::experts(
                &self.cluster.device,
                self.formats.moe,
                [f64::from(self.model.expert_hidden()), f64::from(moe.intermediate) / f64::from(moe_tp)],
                self.model.gated,
                all,
                f64::from(local),
                f64::from(moe.topk),
            )
        };
        Some([of(local, all), of(more, all * f64::from(more) / f64::from(local))])
    }

    /// Fused expert kernel; axis: tokens entering the layer, all ranks together. `None` without experts.
    pub(crate) fn experts_fused(
        &self,
        decode: bool,
        ep: u32,
        moe_tp: u32,
        attention_dp: bool,
        even: bool,
    ) -> Result<Option<Arc<Surface>>> {
        let Some((shape, load)) = self.expert_shape(ep, moe_tp) else { return Ok(None) };
        let load = if even { ExpertLoad::Balanced } else { load };
        let graph = self.graph(decode);
        let (grouped, decode) = (false, false);
        self.cached(SurfaceKey::Experts { graph, tokens_ep: ep, moe_tp, attention_dp, grouped, decode, even }, || {
            let make = |source: &Source| {
                let fused_dispatch = self.serving.fused_dispatch;
                let served = Served { attention_dp, fused_dispatch, kernel: self.serving.expert_kernel.as_deref() };
                let found = ops::served_moe(source, shape, self.formats.moe, load.name(), &served)?;
                Ok(if self.assumptions.beyond_tables == BeyondTables::Utilisation {
                    let work = published::expert_work(&source.device, self.formats.moe, &shape);
                    found.held(work)
                } else {
                    found
                })
            };
            self.built(graph, |s| make(s).map(Some), make)
        })
    }

    /// Grouped wide-EP kernel, where it was measured for this shape.
    pub(crate) fn experts_grouped(&self, decode: bool, ep: u32, even: bool) -> Result<Option<Arc<Surface>>> {
        let Some((shape, load)) = self.expert_shape(ep, 1) else { return Ok(None) };
        let load = if even { ExpertLoad::Balanced } else { load };
        let graph = self.graph(decode);
        let (grouped, moe_tp, attention_dp) = (true, 1, true);
        self.cached(SurfaceKey::Experts { graph, tokens_ep: ep, moe_tp, attention_dp, grouped, decode, even }, || {
            self.built(
                graph,
                |source| ops::grouped_moe(source, shape, self.formats.moe, load.name(), decode),
                |source| ops::moe(source, shape, self.formats.moe, load.name()),
            )
        })
    }
}
