//! A real server's log beside the simulation of the same requests.
//!
//! Limit: the log's arrivals and lengths; retries, aborts and cached prefixes of the real server are not known.

use std::sync::Arc;

use super::metrics::Latencies;
use super::{Deployment, Requests, Settings, simulate};
use crate::control::Control;
use crate::cost::Library;
use crate::error::{Problems, Result};
use crate::kernels::KernelDb;
use crate::serving::{Engine, defaults};
use crate::spec::{Case, Cluster, Device, Plan};

/// What the server ran.
#[derive(Clone)]
pub struct Server {
    pub db: Arc<KernelDb>,
    /// The device to start from stands in its cluster.
    pub case: Case,
    pub plan: Plan,
    pub settings: Settings,
}

/// Requests as they came, and when their answers did; not a number: not to be fitted.
#[derive(Clone, Debug, Default)]
pub struct Log {
    pub requests: Requests,
    pub ttft_ms: Vec<f64>,
    pub tpot_ms: Vec<f64>,
}

impl Log {
    /// # Errors
    /// Everything that is wrong with it.
    pub(crate) fn check(&self) -> Result<()> {
        let mut p = Problems::new();
        p.nest("log", self.requests.check());
        for (name, values) in [("ttft_ms", &self.ttft_ms), ("tpot_ms", &self.tpot_ms)] {
            if values.len() != self.requests.len() {
                p.push(format!("log.{name}"), "has another length than the requests", "one row a request");
            }
            if let Some(i) = values.iter().position(|x| *x <= 0.0 || x.is_infinite()) {
                p.push(format!("log.{name}[{i}]"), format!("must be above 0, is {}", values[i]), "NaN where unknown");
            }
        }
        if self.ttft_ms.iter().chain(&self.tpot_ms).all(|x| x.is_nan()) {
            p.push("log", "has no latency to fit to", "give ttft_ms, tpot_ms or both");
        }
        p.into_result()
    }
}

impl Server {
    fn engine(&self, device: &Device) -> Result<Arc<Engine>> {
        let case = &self.case;
        let cluster = Cluster { device: device.clone(), ..case.cluster.clone() };
        let framework = case.framework(&self.db)?;
        let quant = defaults::formats(&case.model, device, framework, &case.quant);
        let (db, how) = (self.db.clone(), (&case.serving, &case.assumptions));
        // One device among hundreds that are tried: not kept for others.
        let lib = Library::new(db, &case.model, &cluster, framework, &quant, how.0, how.1)?;
        Ok(Arc::new(Engine::new(&Arc::new(lib), &case.workload, &self.plan)?))
    }

    /// The same with what its plan leaves open chosen on its own device: a server's settings, which do not
    /// move when another device is tried.
    ///
    /// # Errors
    /// If the plan does not fit.
    pub(crate) fn settled(&self) -> Result<Server> {
        Ok(Server { plan: self.engine(&self.case.cluster.device)?.plan.clone(), ..self.clone() })
    }
}

/// Latencies of the log's requests if the server's device were `device`.
///
/// # Errors
/// If the plan does not fit, or `Cancelled`.
pub fn replay(server: &Server, device: &Device, requests: &Requests, control: &Control) -> Result<Latencies> {
    let outcome = simulate(&Deployment::with_room(&server.engine(device)?)?, requests, &server.settings, control)?;
    Ok(Latencies::of(requests, &outcome))
}
