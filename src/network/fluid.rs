//! Phases that overlap, as fluid: every flow gets its max-min fair rate, and rates change only when
//! a flow starts or ends.
//!
//! Max-min fairness (Bertsekas, Gallager, Data Networks 6.5): all rates rise together until a port
//! is full; its flows keep that rate, the others go on. Equal flows travel as one class with a
//! multiplicity, and a flow may load a port with a weight (the share of its bytes that passes it).
//!
//! Flows over the same ports have the same rate, so they are one path (`filling`), on which each ends once the path has
//! carried its bytes since it came: virtual time, as in fair queueing (Parekh, Gallager 1993). A path is brought up to
//! date when its own rate changes, and the end of its next flow waits in a heap with the epoch of that rate. What starts
//! or ends at one time is one change. Source: network.md 3.4, 4.4. Limits: no packets, no congestion control, no incast
//! penalty; start-up times belong to the kernels.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use super::filling::{Filling, Path};
use crate::control::Control;
use crate::error::{Error, Problems, Result};

/// Equal flows over the same ports.
#[derive(Clone, Debug, PartialEq)]
pub struct Class {
    /// Ports with the share of the flow's bytes that passes each.
    pub ports: Vec<(u32, f64)>,
    /// Bytes of one flow.
    pub bytes: f64,
    /// How many flows.
    pub count: f64,
    /// When they start, seconds.
    pub start_s: f64,
}

/// Everything wrong with classes on ports of these capacities.
pub(crate) fn check(capacities: &[f64], classes: &[Class]) -> Problems {
    let mut p = Problems::new();
    for (i, c) in capacities.iter().enumerate().filter(|(_, c)| !(c.is_finite() && **c > 0.0)) {
        p.push(format!("capacities[{i}]"), format!("{c} is not a bandwidth"), "bytes/s, above 0");
    }
    for (i, f) in classes.iter().enumerate() {
        let at = |field: &str| format!("flows[{i}].{field}");
        if !(f.bytes.is_finite() && f.bytes > 0.0 && f.bytes <= MOST_BYTES) {
            p.push(at("bytes"), format!("{} bytes cannot be sent", f.bytes), "more than 0, at most 1e18");
        }
        if !(f.count.is_finite() && f.count > 0.0) {
            p.push(at("count"), format!("{} flows are not possible", f.count), "");
        }
        if !(f.start_s.is_finite() && f.start_s >= 0.0) {
            p.push(at("start_s"), format!("cannot be {}", f.start_s), "seconds, 0 or more");
        }
        for (port, weight) in &f.ports {
            if *port as usize >= capacities.len() {
                p.push(
                    at("ports"),
                    format!("port {port} is absent"),
                    format!("0 to {}", capacities.len().saturating_sub(1)),
                );
            }
            if !(weight.is_finite() && *weight > 0.0) {
                p.push(at("ports"), format!("weight {weight} is not possible"), "more than 0");
            }
        }
    }
    p
}

/// More is a slip of a unit.
pub const MOST_BYTES: f64 = 1e18;

/// The paths of classes, and which of them each class takes; those without ports have a path that is never full.
fn paths(classes: &[Class]) -> (Vec<Path>, Vec<u32>) {
    let mut known: BTreeMap<Vec<(u32, u64)>, u32> = BTreeMap::new();
    let mut out: Vec<Path> = Vec::new();
    let of = classes
        .iter()
        .map(|c| {
            let key = c.ports.iter().map(|(p, w)| (*p, w.to_bits())).collect();
            *known.entry(key).or_insert_with(|| {
                out.push(Path { ports: c.ports.clone() });
                out.len() as u32 - 1
            })
        })
        .collect();
    (out, of)
}

/// Max-min fair rate of one flow of each class, all active at once, bytes/s. A class without ports
/// is not limited (infinite).
pub fn rates(capacities: &[f64], classes: &[Class]) -> Result<Vec<f64>> {
    check(capacities, classes).into_result()?;
    let (paths, of) = paths(classes);
    let mut filling = Filling::new(capacities, &paths);
    let limited = classes.iter().zip(&of).filter(|(c, _)| !c.ports.is_empty());
    filling.change(&limited.map(|(c, path)| (*path, c.count)).collect::<Vec<_>>());
    let rate = |(c, path): (&Class, &u32)| if c.ports.is_empty() { f64::INFINITY } else { filling.rate(*path) };
    Ok(classes.iter().zip(&of).map(rate).collect())
}

/// An event in the heap: time, path, epoch. Times are positive, so their bits sort like them.
type Event = Reverse<(u64, u32, u32)>;

/// What flows on a path.
#[derive(Clone, Default)]
struct Traffic {
    /// Bytes that a flow which has been there all the time has got, since when, and at which rate.
    carried: f64,
    since: f64,
    rate: f64,
    /// What each class waits for to be carried.
    waiting: BinaryHeap<Reverse<(u64, u32)>>,
    /// When the first of them has it, as far as is known.
    end: f64,
    epoch: u32,
}

impl Traffic {
    fn settle(&mut self, now: f64) {
        self.carried += self.rate * (now - self.since);
        self.since = now;
    }

    fn join(&mut self, class: u32, bytes: f64) {
        if self.waiting.is_empty() {
            self.carried = 0.0;
        }
        self.waiting.push(Reverse(((self.carried + bytes).to_bits(), class)));
    }

    /// The classes that end together: the first, and those that want as much.
    fn leave(&mut self, mut gone: impl FnMut(u32)) {
        let Some(Reverse((first, _))) = self.waiting.peek().copied() else { return };
        while let Some(Reverse((_, class))) = self.waiting.peek().filter(|r| r.0.0 == first).copied() {
            self.waiting.pop();
            gone(class);
        }
    }

    /// Takes a rate; when the first class ends then, and none without any.
    fn run(&mut self, rate: f64) -> Option<f64> {
        self.rate = rate;
        self.epoch += 1;
        let Reverse((first, _)) = self.waiting.peek()?;
        self.end = self.since + (f64::from_bits(*first) - self.carried).max(0.0) / rate;
        Some(self.end)
    }
}

/// Of the paths in use, the share whose rate a change must touch for all their ends to be put in order at once.
const MOST_TOUCHED: usize = 8;

/// When the flows of each class end, seconds.
pub fn finish(capacities: &[f64], classes: &[Class], control: &Control) -> Result<Vec<f64>> {
    check(capacities, classes).into_result()?;
    let mut out = vec![f64::NAN; classes.len()];
    let mut order: Vec<u32> = (0..classes.len() as u32).collect();
    order.sort_by(|a, b| classes[*a as usize].start_s.total_cmp(&classes[*b as usize].start_s).then(a.cmp(b)));
    let (paths, of) = paths(classes);
    let mut filling = Filling::new(capacities, &paths);
    let mut traffic: Vec<Traffic> = vec![Traffic::default(); paths.len()];
    let mut ends: BinaryHeap<Event> = BinaryHeap::new();
    let mut changes: Vec<(u32, f64)> = Vec::new();
    let (mut next, mut active) = (0usize, 0usize);
    loop {
        control.check()?;
        while ends.peek().is_some_and(|Reverse((_, p, e))| traffic[*p as usize].epoch != *e) {
            ends.pop();
        }
        let end = ends.peek().map(|Reverse((t, ..))| f64::from_bits(*t));
        let start = order.get(next).map(|c| classes[*c as usize].start_s);
        changes.clear();
        let now = match (start, end) {
            (None, None) => break,
            (Some(s), e) if e.is_none_or(|t| s < t) => {
                while let Some(&c) = order.get(next).filter(|c| classes[**c as usize].start_s == s) {
                    next += 1;
                    let class = &classes[c as usize];
                    if class.ports.is_empty() {
                        out[c as usize] = s;
                        continue;
                    }
                    let path = &mut traffic[of[c as usize] as usize];
                    path.settle(s);
                    active += usize::from(path.waiting.is_empty());
                    path.join(c, class.bytes);
                    changes.push((of[c as usize], class.count));
                }
                s
            }
            (_, Some(t)) => {
                while let Some(&Reverse((_, p, epoch))) = ends.peek().filter(|r| f64::from_bits(r.0.0) == t) {
                    ends.pop();
                    let path = &mut traffic[p as usize];
                    if path.epoch != epoch {
                        continue;
                    }
                    path.epoch += 1;
                    path.settle(t);
                    path.leave(|c| {
                        out[c as usize] = t;
                        changes.push((p, -classes[c as usize].count));
                    });
                    active -= usize::from(path.waiting.is_empty());
                }
                t
            }
            (Some(_), None) => break,
        };
        filling.change(&changes);
        let many = filling.touched().len() > active / MOST_TOUCHED;
        for &p in filling.touched() {
            let (rate, path) = (filling.rate(p), &mut traffic[p as usize]);
            path.settle(now);
            if let Some(Reverse((_, c))) = path.waiting.peek().filter(|_| rate <= 0.0) {
                return Err(Error::spec(format!("flows[{c}]"), "gets no bandwidth", "a port is taken whole"));
            }
            if let Some(end) = path.run(rate).filter(|_| !many) {
                ends.push(Reverse((end.to_bits(), p, path.epoch)));
            }
        }
        if many {
            let running = traffic.iter().enumerate().filter(|(_, t)| !t.waiting.is_empty());
            ends = running.map(|(p, t)| Reverse((t.end.to_bits(), p as u32, t.epoch))).collect();
        }
    }
    Ok(out)
}

/// The port bound: no schedule ends the flows through a port sooner than its busy time from any start
/// on. Per class, the bound of its busiest port (or its own bytes alone, where they take longer).
pub fn bound(capacities: &[f64], classes: &[Class]) -> Result<Vec<f64>> {
    check(capacities, classes).into_result()?;
    if classes.iter().all(|c| c.start_s == 0.0) {
        let mut total = vec![0.0; capacities.len()];
        for c in classes {
            for &(p, w) in &c.ports {
                total[p as usize] += c.bytes * w * c.count;
            }
        }
        let at = |p: u32| total[p as usize] / capacities[p as usize];
        return Ok(classes.iter().map(|c| c.ports.iter().map(|(p, _)| at(*p)).fold(0.0, f64::max)).collect());
    }
    let mut through: Vec<Vec<(f64, f64)>> = vec![Vec::new(); capacities.len()];
    for c in classes {
        for &(p, w) in &c.ports {
            through[p as usize].push((c.start_s, c.bytes * w * c.count));
        }
    }
    let by_port: Vec<f64> = through
        .iter_mut()
        .zip(capacities)
        .map(|(flows, capacity)| {
            // From the last start back: bytes that start no earlier than s end no sooner than s + bytes/capacity.
            flows.sort_by(|a, b| b.0.total_cmp(&a.0));
            let mut bytes = 0.0;
            let mut most: f64 = 0.0;
            for (start, b) in flows.iter() {
                bytes += b;
                most = most.max(start + bytes / capacity);
            }
            most
        })
        .collect();
    Ok(classes.iter().map(|c| c.ports.iter().map(|(p, _)| by_port[*p as usize]).fold(c.start_s, f64::max)).collect())
}
