//! Phases that overlap, as fluid: every flow gets its max-min fair rate, and rates change only when
//! a flow starts or ends.
//!
//! Max-min fairness (Bertsekas, Gallager, Data Networks 6.5): all rates rise together until a port
//! is full; its flows keep that rate, the others go on. Equal flows travel as one class with a
//! multiplicity, and a flow may load a port with a weight (the share of its bytes that passes it).
//!
//! The levels of the last filling are kept. When a class comes or goes, levels below the first one
//! it can touch stand; only those above are filled again. Bytes are settled lazily: a class is
//! brought up to date when its own rate changes, and its predicted end waits in a heap with the
//! epoch of that rate. Source: network.md 3.4, 4.4. Limits: no packets, no congestion
//! control, no incast penalty; start-up times belong to the kernels.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

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

/// One step of a filling: a port is full, at this rate of the flows it stops.
#[derive(Clone, Debug)]
struct Level {
    rate: f64,
    /// Range in `frozen`.
    classes: (u32, u32),
}

/// Flow classes over ports, and the max-min rates of those that are active.
#[derive(Debug)]
struct Filling<'a> {
    capacities: &'a [f64],
    classes: &'a [Class],
    /// Active classes by port: (class, weight x count).
    members: Vec<Vec<(u32, f64)>>,
    /// Load of frozen classes, and weight of unfrozen ones, by port.
    load: Vec<f64>,
    open: Vec<f64>,
    rates: Vec<f64>,
    /// Level at which a class froze; `u32::MAX`: not active.
    level_of: Vec<u32>,
    levels: Vec<Level>,
    frozen: Vec<u32>,
    /// Ports that any class has used, in order of first use.
    used: Vec<u32>,
    known: Vec<bool>,
    /// Share of each of them, where it stands among them, and the full ones of a level.
    shares: Vec<f64>,
    place: Vec<u32>,
    full: Vec<u32>,
    /// Flows of one port by the level at which they froze.
    by_level: Vec<(u32, f64)>,
    /// Classes whose rate the last change touched.
    touched: Vec<u32>,
}

/// Least of many, eight at a time.
fn least(values: &[f64]) -> f64 {
    let mut lanes = [f64::INFINITY; 8];
    let chunks = values.chunks_exact(8);
    let rest = chunks.remainder();
    for chunk in chunks {
        for (lane, x) in lanes.iter_mut().zip(chunk) {
            *lane = if *x < *lane { *x } else { *lane };
        }
    }
    lanes.iter().chain(rest).copied().fold(f64::INFINITY, f64::min)
}

const NOT_ACTIVE: u32 = u32::MAX;
/// Active but not frozen yet.
const OPEN: u32 = u32::MAX - 1;

impl<'a> Filling<'a> {
    fn new(capacities: &'a [f64], classes: &'a [Class]) -> Self {
        let n = capacities.len();
        Filling {
            capacities,
            classes,
            members: vec![Vec::new(); n],
            load: vec![0.0; n],
            open: vec![0.0; n],
            rates: vec![0.0; classes.len()],
            level_of: vec![NOT_ACTIVE; classes.len()],
            levels: Vec::new(),
            frozen: Vec::new(),
            used: Vec::new(),
            known: vec![false; n],
            shares: Vec::new(),
            place: vec![0; n],
            full: Vec::new(),
            by_level: Vec::new(),
            touched: Vec::new(),
        }
    }

    fn know(&mut self, port: u32) {
        if !self.known[port as usize] {
            self.known[port as usize] = true;
            self.used.push(port);
        }
    }

    /// Puts levels from `k` on back: their classes are open again.
    fn unwind(&mut self, k: usize) {
        while self.levels.len() > k {
            let Some(level) = self.levels.pop() else { break };
            for &c in &self.frozen[level.classes.0 as usize..] {
                if self.level_of[c as usize] == NOT_ACTIVE {
                    continue;
                }
                self.level_of[c as usize] = OPEN;
                let class = &self.classes[c as usize];
                for &(p, w) in &class.ports {
                    let weight = w * class.count;
                    self.load[p as usize] -= weight * level.rate;
                    self.open[p as usize] += weight;
                }
            }
            self.frozen.truncate(level.classes.0 as usize);
        }
        if self.levels.is_empty() {
            // Nothing is frozen: forget what rounding left.
            for &p in &self.used {
                self.load[p as usize] = 0.0;
            }
        }
    }

    fn add(&mut self, c: u32) {
        let class = &self.classes[c as usize];
        // The first level whose rate is above what one of the class's ports could still give with it.
        let mut first = self.levels.len();
        for &(p, w) in &class.ports {
            first = first.min(self.first_level(p, w * class.count));
        }
        self.unwind(first);
        for &(p, w) in &class.ports {
            self.know(p);
            self.members[p as usize].push((c, w * class.count));
            self.open[p as usize] += w * class.count;
        }
        self.level_of[c as usize] = OPEN;
        self.fill();
    }

    /// The first level that does not stand when `weight` more wants to pass port `p`: between two levels at
    /// which flows of the port freeze, its share is constant and the rates of the levels only rise.
    fn first_level(&mut self, p: u32, weight: f64) -> usize {
        let members = &self.members[p as usize];
        self.by_level.clear();
        self.by_level.extend(members.iter().map(|(m, w)| (self.level_of[*m as usize], *w)));
        self.by_level.sort_unstable_by_key(|m| m.0);
        let mut open = weight + members.iter().map(|m| m.1).sum::<f64>();
        let mut load = 0.0;
        let mut from = 0usize;
        for i in 0..=self.by_level.len() {
            let to = self.by_level.get(i).map_or(self.levels.len(), |m| m.0 as usize + 1).min(self.levels.len());
            if to > from {
                let share = (self.capacities[p as usize] - load) / open;
                let k = from + self.levels[from..to].partition_point(|l| l.rate < share);
                if k < to {
                    return k;
                }
                from = to;
            }
            if let Some((level, w)) = self.by_level.get(i) {
                load += w * self.levels[*level as usize].rate;
                open -= w;
            }
        }
        self.levels.len()
    }

    fn remove(&mut self, c: u32) {
        let k = self.level_of[c as usize] as usize;
        self.unwind(k);
        let class = &self.classes[c as usize];
        for &(p, w) in &class.ports {
            self.members[p as usize].retain(|(m, _)| *m != c);
            self.open[p as usize] -= w * class.count;
            if self.members[p as usize].is_empty() {
                self.open[p as usize] = 0.0;
            }
        }
        self.level_of[c as usize] = NOT_ACTIVE;
        self.rates[c as usize] = 0.0;
        self.fill();
    }

    /// What a flow of weight 1 would get at a port if it filled next.
    fn share(&self, p: u32) -> f64 {
        let open = self.open[p as usize];
        if open > 0.0 { (self.capacities[p as usize] - self.load[p as usize]) / open } else { f64::INFINITY }
    }

    /// Fills what is open, on top of the levels that stand. Ports that fill at the same rate are one level.
    fn fill(&mut self) {
        self.touched.clear();
        self.shares.clear();
        for i in 0..self.used.len() {
            let p = self.used[i];
            self.place[p as usize] = i as u32;
            self.shares.push(self.share(p));
        }
        loop {
            let best = least(&self.shares);
            if best.is_infinite() {
                break;
            }
            let rate = best.max(self.levels.last().map_or(0.0, |l| l.rate));
            let from = self.frozen.len() as u32;
            self.full.clear();
            self.full.extend((0..self.used.len() as u32).filter(|i| self.shares[*i as usize] == best));
            for i in 0..self.full.len() {
                let port = self.used[self.full[i] as usize];
                for k in 0..self.members[port as usize].len() {
                    let (c, _) = self.members[port as usize][k];
                    if self.level_of[c as usize] == OPEN {
                        self.freeze(c, rate);
                    }
                }
                // The port is full: what rounding leaves open is nothing.
                self.open[port as usize] = 0.0;
                self.shares[self.full[i] as usize] = f64::INFINITY;
            }
            self.levels.push(Level { rate, classes: (from, self.frozen.len() as u32) });
        }
    }

    fn freeze(&mut self, c: u32, rate: f64) {
        self.level_of[c as usize] = self.levels.len() as u32;
        self.frozen.push(c);
        if self.rates[c as usize] != rate {
            self.rates[c as usize] = rate;
            self.touched.push(c);
        }
        let class = &self.classes[c as usize];
        for &(p, w) in &class.ports {
            let weight = w * class.count;
            self.load[p as usize] += weight * rate;
            self.open[p as usize] -= weight;
            if self.open[p as usize] <= 1e-12 * weight {
                self.open[p as usize] = 0.0;
            }
            let share = self.share(p);
            self.shares[self.place[p as usize] as usize] = share;
        }
    }
}

/// Max-min fair rate of one flow of each class, all active at once, bytes/s. A class without ports
/// is not limited (infinite).
pub fn rates(capacities: &[f64], classes: &[Class]) -> Result<Vec<f64>> {
    check(capacities, classes).into_result()?;
    let mut filling = Filling::new(capacities, classes);
    for (i, class) in classes.iter().enumerate() {
        for &(p, w) in &class.ports {
            filling.know(p);
            filling.members[p as usize].push((i as u32, w * class.count));
            filling.open[p as usize] += w * class.count;
        }
        filling.level_of[i] = OPEN;
    }
    filling.fill();
    Ok(classes.iter().zip(&filling.rates).map(|(c, r)| if c.ports.is_empty() { f64::INFINITY } else { *r }).collect())
}

/// An event in the heap: time, kind and class, epoch. Times are positive, so their bits sort like them.
type Event = Reverse<(u64, u32, u32)>;

/// When the flows of each class end, seconds.
pub fn finish(capacities: &[f64], classes: &[Class], control: &Control) -> Result<Vec<f64>> {
    check(capacities, classes).into_result()?;
    let n = classes.len();
    let mut out = vec![f64::NAN; n];
    let mut order: Vec<u32> = (0..n as u32).collect();
    order.sort_by(|a, b| classes[*a as usize].start_s.total_cmp(&classes[*b as usize].start_s).then(a.cmp(b)));
    let mut filling = Filling::new(capacities, classes);
    let mut left: Vec<f64> = classes.iter().map(|c| c.bytes).collect();
    let mut since = vec![0.0; n];
    let mut rate = vec![0.0; n];
    let mut epoch = vec![0u32; n];
    let mut ends: BinaryHeap<Event> = BinaryHeap::new();
    let mut next = 0usize;
    let mut events = 0u64;
    loop {
        events += 1;
        if events.is_multiple_of(256) {
            control.check()?;
        }
        while ends.peek().is_some_and(|Reverse((_, c, e))| epoch[*c as usize] != *e) {
            ends.pop();
        }
        let end = ends.peek().map(|Reverse((t, c, _))| (f64::from_bits(*t), *c));
        let start = order.get(next).map(|c| (classes[*c as usize].start_s, *c));
        let now = match (start, end) {
            (None, None) => break,
            (Some((s, c)), e) if e.is_none_or(|(t, _)| s < t) => {
                next += 1;
                if classes[c as usize].ports.is_empty() {
                    out[c as usize] = s;
                    continue;
                }
                since[c as usize] = s;
                filling.add(c);
                s
            }
            (_, Some((t, c))) => {
                ends.pop();
                out[c as usize] = t;
                epoch[c as usize] += 1;
                filling.remove(c);
                t
            }
            (Some(_), None) => break,
        };
        for i in 0..filling.touched.len() {
            let c = filling.touched[i] as usize;
            let fresh = filling.rates[c];
            left[c] = (left[c] - rate[c] * (now - since[c])).max(0.0);
            since[c] = now;
            rate[c] = fresh;
            epoch[c] += 1;
            if fresh <= 0.0 {
                return Err(Error::spec(format!("flows[{c}]"), "gets no bandwidth", "a port is taken whole"));
            }
            ends.push(Reverse(((now + left[c] / fresh).to_bits(), c as u32, epoch[c])));
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
