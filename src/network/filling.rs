//! Max-min fair rates of paths over ports, kept up to date while flows come and go.
//!
//! All rates rise together until a port is full; its paths keep that rate, the others go on: a level (Bertsekas,
//! Gallager, Data Networks 6.5). The levels of the last filling are kept. When flows come or go, levels below the first
//! one that they can touch stand; only those above are filled again. A path has as many flows as the classes on it
//! together, and loads a port with a weight each. Limit: a change that touches the first level costs as much as filling
//! anew, which is what flows of one burst do.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Ports with the share of a flow's bytes that passes each.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Path {
    pub ports: Vec<(u32, f64)>,
}

/// One step of a filling: a port is full, at this rate of the flows it stops.
#[derive(Clone, Debug)]
struct Level {
    rate: f64,
    /// Where its paths begin in `frozen`.
    from: u32,
}

/// Paths over ports, and the max-min rates of those that have flows.
#[derive(Debug)]
pub(crate) struct Filling<'a> {
    capacities: &'a [f64],
    paths: &'a [Path],
    /// Flows of each path, and how many changes put them there: it has none where these cancel.
    count: Vec<f64>,
    classes: Vec<u32>,
    /// Paths with flows by port: (path, weight of one flow).
    members: Vec<Vec<(u32, f64)>>,
    /// Load of frozen paths, and weight of those that are not, by port.
    load: Vec<f64>,
    open: Vec<f64>,
    rates: Vec<f64>,
    /// Level at which a path froze; [`NOT_ACTIVE`] or [`OPEN`].
    level_of: Vec<u32>,
    levels: Vec<Level>,
    frozen: Vec<u32>,
    /// Ports that any path has used, in order of first use.
    used: Vec<u32>,
    known: Vec<bool>,
    /// Share of each of them, where it stands among them, and the full ones of a level.
    shares: Vec<f64>,
    place: Vec<u32>,
    full: Vec<u32>,
    /// Shares of many ports, the least first; one that has changed since is looked up again.
    least: BinaryHeap<Reverse<(u64, u32)>>,
    /// Flows of one port by the level at which they froze.
    by_level: Vec<(u32, f64)>,
    /// Weight that a change brings to ports.
    more: Vec<f64>,
    /// Paths whose rate or flows the last change touched.
    touched: Vec<u32>,
    marked: Vec<bool>,
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
/// Has flows but is not frozen yet.
const OPEN: u32 = u32::MAX - 1;

/// From so many ports on their shares are kept in order instead of looked through.
const MANY_PORTS: usize = 256;

impl<'a> Filling<'a> {
    pub fn new(capacities: &'a [f64], paths: &'a [Path]) -> Self {
        let (ports, n) = (capacities.len(), paths.len());
        Filling {
            capacities,
            paths,
            count: vec![0.0; n],
            classes: vec![0; n],
            members: vec![Vec::new(); ports],
            load: vec![0.0; ports],
            open: vec![0.0; ports],
            rates: vec![0.0; n],
            level_of: vec![NOT_ACTIVE; n],
            levels: Vec::new(),
            frozen: Vec::new(),
            used: Vec::new(),
            known: vec![false; ports],
            shares: Vec::new(),
            place: vec![0; ports],
            full: Vec::new(),
            least: BinaryHeap::new(),
            by_level: Vec::new(),
            more: vec![0.0; ports],
            touched: Vec::new(),
            marked: vec![false; n],
        }
    }

    /// Rate of one flow of a path, bytes/s.
    pub fn rate(&self, path: u32) -> f64 {
        self.rates[path as usize]
    }

    /// Paths whose rate or flows the last change touched, each once.
    pub fn touched(&self) -> &[u32] {
        &self.touched
    }

    /// Flows come (counts above 0) and go (the same below 0), all at once.
    pub fn change(&mut self, changes: &[(u32, f64)]) {
        for t in self.touched.drain(..) {
            self.marked[t as usize] = false;
        }
        let first = self.first_touched(changes);
        self.unwind(first);
        for &(path, flows) in changes {
            self.take(path as usize, flows);
            self.mark(path);
        }
        self.fill();
    }

    fn mark(&mut self, path: u32) {
        if !std::mem::replace(&mut self.marked[path as usize], true) {
            self.touched.push(path);
        }
    }

    /// The first level that does not stand.
    fn first_touched(&mut self, changes: &[(u32, f64)]) -> usize {
        let mut first = self.levels.len();
        for &(path, flows) in changes {
            // What goes leaves its level and those above; what comes may stop a port sooner.
            first = first.min(self.level_of[path as usize] as usize);
            if flows > 0.0 {
                self.paths[path as usize].ports.iter().for_each(|(p, w)| self.more[*p as usize] += w * flows);
            }
        }
        for &(path, _) in changes.iter().filter(|c| c.1 > 0.0) {
            for &(p, _) in &self.paths[path as usize].ports {
                let weight = std::mem::take(&mut self.more[p as usize]);
                if weight > 0.0 && first > 0 {
                    first = first.min(self.first_level(p, weight));
                }
            }
        }
        first
    }

    fn take(&mut self, path: usize, flows: f64) {
        let (n, all) = (path as u32, self.paths);
        let ports = &all[path].ports;
        if flows > 0.0 {
            self.classes[path] += 1;
        } else {
            self.classes[path] = self.classes[path].saturating_sub(1);
        }
        if self.level_of[path] == NOT_ACTIVE {
            self.level_of[path] = OPEN;
            for &(p, w) in ports {
                if !std::mem::replace(&mut self.known[p as usize], true) {
                    self.used.push(p);
                }
                self.members[p as usize].push((n, w));
            }
        }
        self.count[path] += flows;
        ports.iter().for_each(|(p, w)| self.open[*p as usize] += w * flows);
        if self.classes[path] == 0 {
            self.count[path] = 0.0;
            self.level_of[path] = NOT_ACTIVE;
            self.rates[path] = 0.0;
            for &(p, _) in ports {
                self.members[p as usize].retain(|(m, _)| *m != n);
                if self.members[p as usize].is_empty() {
                    self.open[p as usize] = 0.0;
                }
            }
        }
    }

    /// Puts levels from `k` on back: their paths are open again.
    fn unwind(&mut self, k: usize) {
        while self.levels.len() > k {
            let Some(level) = self.levels.pop() else { break };
            for &path in &self.frozen[level.from as usize..] {
                self.level_of[path as usize] = OPEN;
                let count = self.count[path as usize];
                for &(p, w) in &self.paths[path as usize].ports {
                    let weight = w * count;
                    self.load[p as usize] -= weight * level.rate;
                    self.open[p as usize] += weight;
                }
            }
            self.frozen.truncate(level.from as usize);
        }
        if self.levels.is_empty() {
            // Nothing is frozen: forget what rounding left.
            for &p in &self.used {
                self.load[p as usize] = 0.0;
            }
        }
    }

    /// The first level that does not stand when `weight` more wants to pass port `p`: between two levels at
    /// which flows of the port freeze, its share is constant and the rates of the levels only rise.
    fn first_level(&mut self, p: u32, weight: f64) -> usize {
        let members = self.members[p as usize].iter().map(|(m, w)| (*m as usize, *w));
        self.by_level.clear();
        self.by_level.extend(members.map(|(m, w)| (self.level_of[m], w * self.count[m])));
        self.by_level.sort_unstable_by_key(|m| m.0);
        let mut open = weight + self.by_level.iter().map(|m| m.1).sum::<f64>();
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
                load += w * self.levels.get(*level as usize).map_or(0.0, |l| l.rate);
                open -= w;
            }
        }
        self.levels.len()
    }

    /// What a flow of weight 1 would get at a port if it filled next.
    fn share(&self, p: u32) -> f64 {
        let open = self.open[p as usize];
        if open > 0.0 { (self.capacities[p as usize] - self.load[p as usize]) / open } else { f64::INFINITY }
    }

    /// The least share, and into `full` the places of the ports that have it.
    fn fullest(&mut self, many: bool) -> f64 {
        self.full.clear();
        if !many {
            let best = least(&self.shares);
            self.full.extend((0..self.used.len() as u32).filter(|i| self.shares[*i as usize] == best));
            return best;
        }
        let mut best = f64::INFINITY;
        while let Some(&Reverse((bits, i))) = self.least.peek() {
            let (said, is) = (f64::from_bits(bits), self.shares[i as usize].max(0.0));
            if said > best {
                break;
            }
            self.least.pop();
            if said == is {
                best = is;
                self.full.push(i);
            } else if is.is_finite() {
                self.least.push(Reverse((is.to_bits(), i)));
            }
        }
        self.full.sort_unstable();
        self.full.dedup();
        best
    }

    /// Fills what is open, on top of the levels that stand. Ports that fill at the same rate are one level.
    fn fill(&mut self) {
        self.shares.clear();
        for i in 0..self.used.len() {
            let p = self.used[i];
            self.place[p as usize] = i as u32;
            self.shares.push(self.share(p));
        }
        let many = self.used.len() > MANY_PORTS;
        if many {
            let open = self.shares.iter().enumerate().filter(|(_, s)| s.is_finite());
            self.least = open.map(|(i, s)| Reverse((s.max(0.0).to_bits(), i as u32))).collect();
        }
        loop {
            let best = self.fullest(many);
            if best.is_infinite() {
                break;
            }
            let rate = best.max(self.levels.last().map_or(0.0, |l| l.rate));
            let from = self.frozen.len() as u32;
            for i in 0..self.full.len() {
                let port = self.used[self.full[i] as usize];
                for k in 0..self.members[port as usize].len() {
                    let (path, _) = self.members[port as usize][k];
                    if self.level_of[path as usize] == OPEN {
                        self.freeze(path, rate);
                    }
                }
                // The port is full: what rounding leaves open is nothing.
                self.open[port as usize] = 0.0;
                self.shares[self.full[i] as usize] = f64::INFINITY;
            }
            self.levels.push(Level { rate, from });
        }
    }

    fn freeze(&mut self, path: u32, rate: f64) {
        self.level_of[path as usize] = self.levels.len() as u32;
        self.frozen.push(path);
        if self.rates[path as usize] != rate {
            self.rates[path as usize] = rate;
            self.mark(path);
        }
        let (paths, count) = (self.paths, self.count[path as usize]);
        for &(p, w) in &paths[path as usize].ports {
            let weight = w * count;
            self.load[p as usize] += weight * rate;
            self.open[p as usize] -= weight;
            if self.open[p as usize] <= 1e-12 * weight {
                self.open[p as usize] = 0.0;
            }
            self.shares[self.place[p as usize] as usize] = self.share(p);
        }
    }
}
