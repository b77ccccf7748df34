//! What-if hardware: whose tables stand for a device that nobody measured, and what to say about it.
//!
//! A device keeps the tables of the system it stands on, that is `Cluster.system`, whatever its figures: kernel
//! times are those measured there times the ratio of the two rooflines at the same shape, so the utilisation that was
//! measured is held, and a small change of a figure changes the times as little. Only a device that goes by
//! another preset's name (a pool's own `h200_sxm` in a cluster of `b200_sxm`, and what is varied of it) reads that
//! preset's tables, and one that goes by the name of a device known by its data sheet (`h20`) those of the relative that
//! its file names. Links are always those of `Cluster.system`. Limits: a device of another make than its
//! system's has other utilisations, which no ratio of rooflines knows; name the system that is most alike.

use crate::error::Result;
use crate::spec::{Cluster, Device, Fabric, catalog};

/// The system whose kernel tables stand for a device, and the device they were measured on.
pub struct StandIn {
    pub system: String,
    pub device: Device,
}

/// Whose tables a cluster's device reads.
pub(crate) fn tables_of(cluster: &Cluster) -> Result<StandIn> {
    let known = catalog::systems();
    let named = |name: &str| known.iter().find(|n| *n == name).cloned();
    // A device known by its data sheet says whose tables are nearest.
    let nearest =
        || catalog::devices().contains(&cluster.device.name).then(|| catalog::system_name(&cluster.device.name));
    let own = match named(&cluster.device.name) {
        None => nearest().transpose()?,
        found => found,
    };
    if let Some(system) = own.or_else(|| named(&cluster.system)) {
        let device = catalog::system(&system)?.0;
        return Ok(StandIn { system, device });
    }
    // A system without a preset has no figures to scale from: its own tables, as they are.
    Ok(StandIn { system: cluster.system.clone(), device: cluster.device.clone() })
}

/// Whether two devices do the same work in the same time.
pub(crate) fn same_speed(a: &Device, b: &Device) -> bool {
    figures(a) == figures(b) && a.sm == b.sm
}

fn figures(d: &Device) -> [f64; 5] {
    [d.bf16_flops, d.fp8_flops, d.fp4_flops, d.hbm_bytes_per_s, d.launch_s]
}

/// The largest |ln| of a ratio of two devices' peaks; units that only one of them has do not count.
pub(crate) fn distance(a: &Device, b: &Device) -> f64 {
    let [a, b] = [a, b].map(|d| [d.bf16_flops, d.fp8_flops, d.hbm_bytes_per_s]);
    let ratios = a.into_iter().zip(b).filter(|(a, b)| *a > 0.0 && *b > 0.0);
    ratios.map(|(a, b)| (a / b).ln().abs()).fold(0.0, f64::max)
}

/// Names and ratios of what differs.
fn ratios<const N: usize>(names: [&str; N], own: [f64; N], preset: [f64; N]) -> Vec<String> {
    let each = names.into_iter().zip(own.into_iter().zip(preset)).filter(|(_, (a, b))| a != b);
    each.map(|(name, (a, b))| {
        // Seven figures show a change of one part in a million.
        let ratio = format!("{:.6}", a / b);
        match b {
            0.0 => format!("{name} of its own"),
            _ => format!("{name} x {}", ratio.trim_end_matches('0').trim_end_matches('.')),
        }
    })
    .collect()
}

/// What a cluster's device and links stand on, in words; none if they are the preset's.
pub(crate) fn words(cluster: &Cluster, system: &str, device: &Device) -> Option<String> {
    let own = &cluster.device;
    let mut parts = Vec::new();
    if !same_speed(own, device) {
        let names = ["BF16 FLOP/s", "FP8 FLOP/s", "FP4 FLOP/s", "HBM bytes/s", "launches"];
        let by = ratios(names, figures(own), figures(device)).join(", ");
        let by = if by.is_empty() { format!("compute capability {} for {}", own.sm, device.sm) } else { by };
        parts.push(format!(
            "device '{}' was not measured: kernel times are those of {system}, scaled by the ratio of the rooflines ({by})",
            own.name
        ));
    } else if system != cluster.system {
        parts.push(format!(
            "device '{}' in a cluster of {}: kernel times are those of {system}",
            own.name, cluster.system
        ));
    }
    if let Ok((_, fabric)) = catalog::system(&cluster.system) {
        let by = links(&cluster.fabric, &fabric);
        if !by.is_empty() {
            let text = "links were not measured: exchanges are those of";
            parts.push(format!("{text} {}, their bandwidth scaled ({})", cluster.system, by.join(", ")));
        }
    }
    (!parts.is_empty()).then(|| format!("what-if: {}", parts.join("; ")))
}

fn links(own: &Fabric, preset: &Fabric) -> Vec<String> {
    let rates = |f: &Fabric| [f.nvlink_bytes_per_s, f.nic_bytes_per_s / f.oversubscription];
    let mut by = ratios(["NVLink bytes/s", "NIC bytes/s"], rates(own), rates(preset));
    let sizes = [("domains", own.domain_gpus, preset.domain_gpus), ("nodes", own.node_gpus, preset.node_gpus)];
    by.extend(sizes.iter().filter(|(_, a, b)| a != b).map(|(name, a, b)| format!("{name} of {a} GPUs for {b}")));
    by
}
