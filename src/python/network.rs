//! The network by itself: flows over a cluster or a plain fabric.
//!
//! Limit: at most one cluster or plain network a call, and no schedule of phases.

use super::give::Payload;
use pyo3::prelude::*;
use pyo3::types::PyTuple;
use serde_json::Value;

use super::data::{Data, Spec};
use super::{columns, errors, kernels, run};
use crate::columns::{Column, Columns};
use crate::error::{Error, Problems, Result, near};
use crate::network::astra::{Network, Topology};
use crate::network::fabric::Fabric;
use crate::network::flows::{self, Flows, Place};
use crate::network::{Comm, GpuPort, ask};
use crate::serving::framework::with_kernels;

const PLAIN: [&str; 4] = ["topology", "npus", "gib_per_s", "latency_ns"];

/// A plain fabric from its JSON.
fn plain(text: &str) -> Result<Network> {
    let value: Value = crate::spec::json::parse(text, "fabric")?;
    let Value::Object(map) = value else {
        return Err(Error::spec("fabric", "is not a dict", "topology, npus, gib_per_s, latency_ns"));
    };
    let mut p = Problems::new();
    for key in map.keys().filter(|k| !PLAIN.contains(&k.as_str())) {
        p.push(format!("fabric.{key}"), "is not a field of a plain fabric", near(key, PLAIN));
    }
    let mut number = |name: &str| match map.get(name).and_then(Value::as_f64) {
        Some(x) => x,
        None => {
            p.push(format!("fabric.{name}"), if map.contains_key(name) { "is not a number" } else { "is missing" }, "");
            0.0
        }
    };
    let (npus, gib_per_s, latency_ns) = (number("npus"), number("gib_per_s"), number("latency_ns"));
    let topology = match map.get("topology").and_then(Value::as_str) {
        Some(name) => match Topology::named(name) {
            Ok(t) => t,
            Err(Error::Spec(inner)) => {
                p.0.extend(inner.0);
                Topology::Switch
            }
            Err(other) => return Err(other),
        },
        None => {
            p.push("fabric.topology", "is missing", near("", crate::network::astra::TOPOLOGIES));
            Topology::Switch
        }
    };
    p.into_result()?;
    // A fraction or a negative number of devices fails the network's own check.
    let npus = if npus.fract() == 0.0 && npus >= 0.0 { npus as u32 } else { 0 };
    Ok(Network { topology, npus, gib_per_s, latency_ns })
}

/// Say when each flow between GPUs ends, all of them sharing the ports.
///
/// Parameters
/// ----------
/// cluster_or_fabric
///     A `Cluster`, or a plain network of equal links for parity work:
///     ``dict(topology="switch"|"fully-connected"|"ring", npus=8, gib_per_s=450, latency_ns=500)``
///     (2^30 bytes per second).
/// flows
///     Rows ``(src, dst, bytes)`` or ``(src, dst, bytes, start_s)``, or columns of these names.
/// engine
///     ``"fluid"``: max-min fair rates; ``"bound"``: the busiest port, a lower bound of the phase;
///     ``"astra"``: ASTRA-sim's congestion-aware analytical backend to the nanosecond (plain
///     networks; store and forward, in the order given).
///
/// Returns
/// -------
/// Frame
///     The flows with ``finish_s`` and ``finish_ns`` (whole nanoseconds). Times on the wires, without
///     the start-up of any kernel.
///
/// Raises
/// ------
/// SpecError
///     If a device is absent, bytes are zero or too many, or the engine does not fit the fabric.
///
/// Notes
/// -----
/// Max-min fairness: Bertsekas and Gallager, Data Networks 6.5. Sources of the bandwidths:
/// ``cluster.fabric.source``.
///
/// Examples
/// --------
/// Two flows into one GPU share its port:
///
/// >>> import disagg as dg
/// >>> found = dg.network.flows(dg.Cluster("h200_sxm", gpus=8), [(0, 2, 450e6), (1, 2, 450e6)])
/// >>> found["finish_s"].round(6).tolist()
/// [0.002, 0.002]
/// >>> plain = dict(topology="switch", npus=8, gib_per_s=450, latency_ns=500)
/// >>> dg.network.flows(plain, [(0, 1, 2**20)], engine="astra")["finish_ns"].tolist()
/// [5340]
#[pyfunction]
#[pyo3(signature = (cluster, plain_fabric, src, dst, bytes, start_s, engine, progress: "_Report" = None))]
#[allow(clippy::too_many_arguments)]
pub fn network_flows<'py>(
    py: Python<'py>,
    cluster: Option<&Spec>,
    plain_fabric: Option<&str>,
    src: columns::Array<'py, i64>,
    dst: columns::Array<'py, i64>,
    bytes: columns::Array<'py, f64>,
    start_s: Option<columns::Array<'py, f64>>,
    engine: &str,
    progress: Option<&Bound<'_, PyAny>>,
) -> PyResult<Payload<'py>> {
    let place = errors::guard(|| match (cluster.map(Spec::data), plain_fabric) {
        (Some(Data::Cluster(c)), _) => Ok(Place::Cluster(Fabric::new(&c.fabric, c.gpus))),
        (_, Some(text)) => plain(text).map(Place::Plain),
        _ => Err(Error::spec("cluster_or_fabric", "is neither a Cluster nor a plain fabric", "")),
    })?;
    let flows = Flows {
        src: src.as_array().to_vec(),
        dst: dst.as_array().to_vec(),
        bytes: columns::floats(&bytes),
        start_s: start_s.as_ref().map_or_else(Vec::new, columns::floats),
    };
    let engine = engine.to_string();
    let found = run::run(py, progress, move |control| flows::run(&place, &flows, &engine, control))?;
    columns::to_python(py, found)
}

/// One phase: ({ms, alpha_ms, bound, evidence, kernel, tier} as JSON, its ports as columns).
#[pyfunction]
#[pyo3(signature = (cluster, what, args, framework=None, alpha_scale=1.0))]
pub fn network_phase<'py>(
    py: Python<'py>,
    cluster: &Spec,
    what: &str,
    args: &str,
    framework: Option<&str>,
    alpha_scale: f64,
) -> PyResult<Bound<'py, PyTuple>> {
    let report = errors::guard(|| {
        let Data::Cluster(cluster) = cluster.data() else {
            return Err(Error::spec("cluster", "is not a Cluster", ""));
        };
        let db = kernels::db()?;
        let known = db.frameworks(&cluster.system)?;
        let name = match framework {
            Some(f) if known.iter().any(|k| k == f) => f,
            Some(f) => {
                let text = format!("'{f}' is not a framework with kernels for {}", cluster.system);
                return Err(Error::spec("framework", text, near(f, known)));
            }
            None => with_kernels(&db, &cluster.system)?.first().copied().unwrap_or_default().name(),
        };
        let comm = Comm::new(db, cluster, name, alpha_scale)?;
        let args: Value = crate::spec::json::parse(args, "args")?;
        ask::phase(&comm, cluster, what, args)
    })?;
    let scalars = serde_json::json!({
        "ms": report.seconds * 1e3,
        "alpha_ms": report.alpha_s * 1e3,
        "bound": report.bound().map_or("alpha", GpuPort::name),
        "evidence": report.evidence.name(),
        "kernel": report.kernel,
        "tier": report.tier.name(),
    });
    let mut ports = Columns::new();
    ports.push("port", Column::from_strings(report.ports.iter().map(|p| p.port.name())));
    ports.push("side", Column::from_strings(report.ports.iter().map(|p| p.side.name())));
    ports.push("bytes", Column::F64(report.ports.iter().map(|p| p.bytes).collect()));
    ports.push("gb_per_s", Column::F64(report.ports.iter().map(|p| p.bytes_per_s / 1e9).collect()));
    ports.push("ms", Column::F64(report.ports.iter().map(|p| p.seconds() * 1e3).collect()));
    PyTuple::new(py, [scalars.to_string().into_pyobject(py)?.into_any(), columns::to_python(py, ports)?.0])
}
