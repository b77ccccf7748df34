//! Flows between GPUs of a cluster or devices of a plain network: when does each end?
//!
//! Three engines: `fluid` (max-min fair rates, the default), `bound` (the busiest port, a lower bound
//! of the phase) and `astra` (exact emulation, for parity, on plain networks only). Times are those of
//! the wires: start-up times belong to the communication kernels. On a plain network fluid and bound
//! give every device one port out and one in (switch), or every pair a link (fully connected), and
//! add the latency of the hops.
//!
//! Limit: ports are shared, switches are not: what happens inside a fabric with full bisection is not seen, nor is loss
//! or retry.

use super::astra::{self, Message, Network, Topology};
use super::fabric::Fabric;
use super::fluid::{self, Class, MOST_BYTES};
use crate::columns::{Column, Columns};
use crate::control::Control;
use crate::error::{Error, Problems, Result, near};
use crate::spec::choices;

choices! {
    /// Ways to answer.
    Engine {
        Fluid = "fluid",
        Bound = "bound",
        Astra = "astra",
    }
}

/// Where flows run.
#[derive(Clone, Debug)]
pub enum Place {
    Cluster(Fabric),
    Plain(Network),
}

/// Flows as columns of equal length.
#[derive(Clone, Debug, Default)]
pub struct Flows {
    pub src: Vec<i64>,
    pub dst: Vec<i64>,
    pub bytes: Vec<f64>,
    /// Empty: all start at 0.
    pub start_s: Vec<f64>,
}

impl Flows {
    fn start(&self, i: usize) -> f64 {
        self.start_s.get(i).copied().unwrap_or(0.0)
    }

    /// Everything that is wrong, for devices `0..devices`.
    fn check(&self, devices: u32) -> Problems {
        let mut p = Problems::new();
        for (field, n) in [("dst", self.dst.len()), ("bytes", self.bytes.len()), ("start_s", self.start_s.len())] {
            if n != self.src.len() && !(field == "start_s" && n == 0) {
                p.push(format!("flows.{field}"), format!("has {n} rows, src has {}", self.src.len()), "");
            }
        }
        if !p.is_empty() {
            return p;
        }
        for i in 0..self.src.len() {
            for (field, id) in [("src", self.src[i]), ("dst", self.dst[i])] {
                if !(0..i64::from(devices)).contains(&id) {
                    let text = format!("{id} is absent: there are {devices} devices");
                    p.push(format!("flows[{i}].{field}"), text, format!("0 to {}", devices - 1));
                }
            }
            if !(self.bytes[i] > 0.0 && self.bytes[i] <= MOST_BYTES) {
                let text = format!("{} bytes cannot be sent", self.bytes[i]);
                p.push(format!("flows[{i}].bytes"), text, "more than 0, at most 1e18");
            }
            if !(0.0..=1e9).contains(&self.start(i)) {
                p.push(format!("flows[{i}].start_s"), format!("cannot be {}", self.start(i)), "seconds, 0 or more");
            }
        }
        p
    }
}

/// The flows with `finish_s` and `finish_ns` beside them.
pub fn run(place: &Place, flows: &Flows, engine: &str, control: &Control) -> Result<Columns> {
    let engine = Engine::named(engine)
        .ok_or_else(|| Error::spec("engine", format!("'{engine}' is not an engine"), near(engine, Engine::NAMES)))?;
    let devices = match place {
        Place::Cluster(f) => f.gpus,
        Place::Plain(n) => {
            n.check(&[]).into_result()?;
            n.npus
        }
    };
    flows.check(devices).into_result()?;
    let finish: Vec<f64> = match (engine, place) {
        (Engine::Astra, Place::Plain(n)) => {
            let messages = messages(flows)?;
            n.finish(&messages, astra::Engine::Fast, control)?.into_iter().map(|t| t as f64 * 1e-9).collect()
        }
        (Engine::Astra, Place::Cluster(_)) => {
            let hint = "give a plain fabric: dict(topology='switch', npus=8, gib_per_s=450, latency_ns=500)";
            return Err(Error::spec("engine", "'astra' knows plain networks only", hint));
        }
        (_, Place::Cluster(f)) => {
            let classes: Vec<Class> = (0..flows.src.len())
                .map(|i| {
                    let path = f.path(flows.src[i] as u32, flows.dst[i] as u32)?;
                    Ok(class(flows, i, path.as_slice()))
                })
                .collect::<Result<_>>()?;
            solve(f.capacities(), &classes, engine, control)?
        }
        (_, Place::Plain(n)) => plain(n, flows, engine, control)?,
    };
    let mut out = Columns::new();
    out.push("src", Column::I64(flows.src.clone()));
    out.push("dst", Column::I64(flows.dst.clone()));
    out.push("bytes", Column::F64(flows.bytes.clone()));
    if !flows.start_s.is_empty() {
        out.push("start_s", Column::F64(flows.start_s.clone()));
    }
    out.push("finish_ns", Column::I64(finish.iter().map(|t| (t * 1e9).round() as i64).collect()));
    out.push("finish_s", Column::F64(finish));
    out.attrs.insert("engine".into(), format!("\"{}\"", engine.name()));
    Ok(out)
}

fn class(flows: &Flows, i: usize, ports: &[u32]) -> Class {
    Class {
        ports: ports.iter().map(|p| (*p, 1.0)).collect(),
        bytes: flows.bytes[i],
        count: 1.0,
        start_s: flows.start(i),
    }
}

fn solve(capacities: &[f64], classes: &[Class], engine: Engine, control: &Control) -> Result<Vec<f64>> {
    if engine == Engine::Fluid {
        fluid::finish(capacities, classes, control)
    } else {
        fluid::bound(capacities, classes)
    }
}

/// Whole bytes and whole nanoseconds.
fn messages(flows: &Flows) -> Result<Vec<Message>> {
    let mut p = Problems::new();
    let out = (0..flows.src.len())
        .map(|i| {
            if flows.bytes[i].fract() != 0.0 {
                p.push(
                    format!("flows[{i}].bytes"),
                    format!("{} is not whole", flows.bytes[i]),
                    "ASTRA sends whole bytes",
                );
            }
            Message {
                src: flows.src[i] as u32,
                dst: flows.dst[i] as u32,
                bytes: flows.bytes[i] as u64,
                start_ns: (flows.start(i) * 1e9).round() as u64,
            }
        })
        .collect();
    p.into_result().map(|()| out)
}

fn plain(n: &Network, flows: &Flows, engine: Engine, control: &Control) -> Result<Vec<f64>> {
    let rate = n.gib_per_s * f64::from(1u32 << 30);
    let devices = n.npus;
    let (capacities, hops): (Vec<f64>, f64) = match n.topology {
        Topology::Switch => (vec![rate; 2 * devices as usize], 2.0),
        Topology::FullyConnected => (Vec::new(), 1.0),
        Topology::Ring => {
            let hint = "use engine='astra', or a switch";
            return Err(Error::spec("fabric.topology", format!("a ring has no '{}' engine", engine.name()), hint));
        }
    };
    let mut capacities = capacities;
    let mut pairs = std::collections::BTreeMap::new();
    let classes: Vec<Class> = (0..flows.src.len())
        .map(|i| {
            let (s, d) = (flows.src[i] as u32, flows.dst[i] as u32);
            if s == d {
                return class(flows, i, &[]);
            }
            if n.topology == Topology::Switch {
                return class(flows, i, &[s, devices + d]);
            }
            let next = pairs.len() as u32;
            class(flows, i, &[*pairs.entry((s, d)).or_insert(next)])
        })
        .collect();
    if n.topology == Topology::FullyConnected {
        capacities = vec![rate; pairs.len()];
    }
    let latency = hops * n.latency_ns * 1e-9;
    let ends = solve(&capacities, &classes, engine, control)?;
    Ok(classes.iter().zip(ends).map(|(c, t)| if c.ports.is_empty() { t } else { t + latency }).collect())
}
