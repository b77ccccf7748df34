//! ASTRA mode: the congestion-aware analytical backend of ASTRA-sim, to the nanosecond, for parity
//! with published studies and for nothing else.
//!
//! A message is one chunk that is stored and forwarded: a link is busy for floor(bytes/bw) ns, the
//! chunk arrives at the next device after floor(latency + bytes/bw) ns and only then goes on; waiting
//! chunks are first in, first out; times are whole nanoseconds; 1 GB = 2^30 bytes. A switch is one
//! more device that every GPU hangs on, so a message pays its bytes twice. Messages are injected in
//! the order given. Source: network.md 3.2.
//!
//! On a switch the two hops are a tandem of FIFO links: uplinks are served in event order, then each
//! downlink takes its arrivals in that order, without an event queue for the second hop. Any topology
//! also runs through the event queue itself ([`Engine::Events`]), which is the twin in the tests.
//! Limits: it is not how networks behave (all-to-all in natural order takes 1.9 times the optimum).

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};

use crate::control::Control;
use crate::error::{Error, Problems, Result, near};

/// How the devices are joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topology {
    Switch,
    FullyConnected,
    /// Bidirectional; the shorter way, clockwise on ties.
    Ring,
}

/// Names of the topologies.
pub const TOPOLOGIES: [&str; 3] = ["switch", "fully-connected", "ring"];

/// A plain network of equal links.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Network {
    pub topology: Topology,
    pub npus: u32,
    /// 2^30 bytes per second and link.
    pub gib_per_s: f64,
    pub latency_ns: f64,
}

/// One message; `start_ns` 0 for all in parity work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    pub src: u32,
    pub dst: u32,
    pub bytes: u64,
    pub start_ns: u64,
}

/// How it is computed; the results are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    Fast,
    Events,
}

/// More nodes than this are a slip.
pub const MOST_NPUS: u32 = 65_536;
/// More bytes than this overflow the clock.
pub const MOST_BYTES: u64 = 1 << 50;

impl Topology {
    pub fn named(name: &str) -> Result<Topology> {
        match name {
            "switch" => Ok(Topology::Switch),
            "fully-connected" => Ok(Topology::FullyConnected),
            "ring" => Ok(Topology::Ring),
            _ => Err(Error::spec("fabric.topology", format!("'{name}' is not a topology"), near(name, TOPOLOGIES))),
        }
    }
}

impl Network {
    /// Everything that is wrong with it and the messages.
    pub(crate) fn check(&self, messages: &[Message]) -> Problems {
        let mut p = Problems::new();
        if !(2..=MOST_NPUS).contains(&self.npus) {
            p.push("fabric.npus", format!("cannot be {}", self.npus), format!("2 to {MOST_NPUS}"));
        }
        if !(self.gib_per_s.is_finite() && self.gib_per_s > 0.0) {
            p.push("fabric.gib_per_s", format!("{} is not a bandwidth", self.gib_per_s), "2^30 bytes/s, above 0");
        }
        if !(0.0..=1e12).contains(&self.latency_ns) {
            p.push("fabric.latency_ns", format!("cannot be {}", self.latency_ns), "nanoseconds, 0 or more");
        }
        for (i, m) in messages.iter().enumerate() {
            for (field, id) in [("src", m.src), ("dst", m.dst)] {
                if id >= self.npus {
                    let text = format!("{id} is not in a network of {}", self.npus);
                    p.push(format!("flows[{i}].{field}"), text, format!("0 to {}", self.npus.saturating_sub(1)));
                }
            }
            if m.src == m.dst {
                p.push(format!("flows[{i}]"), "goes from a device to itself", "");
            }
            if m.bytes == 0 || m.bytes > MOST_BYTES {
                p.push(format!("flows[{i}].bytes"), format!("{} bytes cannot be sent", m.bytes), "1 to 2^50");
            }
        }
        p
    }

    fn bytes_per_ns(&self) -> f64 {
        self.gib_per_s * f64::from(1u32 << 30) / 1_000_000_000.0
    }

    /// (link busy, chunk arrived) after the start, nanoseconds.
    fn delays(&self, bytes: u64) -> (u64, u64) {
        let wire = bytes as f64 / self.bytes_per_ns();
        (wire as u64, (self.latency_ns + wire) as u64)
    }

    /// When each message has arrived, nanoseconds.
    pub fn finish(&self, messages: &[Message], engine: Engine, control: &Control) -> Result<Vec<u64>> {
        self.check(messages).into_result()?;
        match (engine, self.topology) {
            (Engine::Fast, Topology::Switch) => self.tandem(messages, control),
            _ => self.events(messages, control),
        }
    }

    /// Two FIFO hops: uplinks in event order, then every downlink by itself.
    fn tandem(&self, messages: &[Message], control: &Control) -> Result<Vec<u64>> {
        let n = self.npus as usize;
        let mut by_source: Vec<Vec<u32>> = vec![Vec::new(); n];
        let mut counts = vec![0u32; n + 1];
        for (i, m) in messages.iter().enumerate() {
            by_source[m.src as usize].push(i as u32);
            counts[m.dst as usize + 1] += 1;
        }
        if messages.iter().any(|m| m.start_ns != messages[0].start_ns) {
            return self.events(messages, control);
        }
        for d in 0..n {
            counts[d + 1] += counts[d];
        }
        // Arrivals at the switch by destination, in the order in which their events were made.
        let mut fill = counts.clone();
        let mut arrivals = vec![(0u64, 0u32); messages.len()];
        let origin = messages.first().map_or(0, |m| m.start_ns);
        // The starts of all uplinks in event order: (time, order). First the injected ones, as listed.
        let mut first: Vec<u32> = by_source.iter().filter_map(|q| q.first().copied()).collect();
        first.sort_unstable();
        let mut heap: BinaryHeap<Reverse<(u64, u64, u32)>> = BinaryHeap::with_capacity(n);
        let mut seq = 0u64;
        for m in first {
            heap.push(Reverse((origin, seq, messages[m as usize].src)));
            seq += 1;
        }
        let mut at = vec![0u32; n];
        let mut done = 0u64;
        while let Some(mut top) = heap.peek_mut() {
            let Reverse((now, _, src)) = *top;
            let queue = &by_source[src as usize];
            let k = at[src as usize] as usize;
            at[src as usize] += 1;
            let m = &messages[queue[k] as usize];
            let (busy, hop) = self.delays(m.bytes);
            let slot = &mut fill[m.dst as usize];
            arrivals[*slot as usize] = (now + hop, queue[k]);
            *slot += 1;
            if k + 1 < queue.len() {
                *top = Reverse((now + busy, seq, src));
                seq += 1;
            } else {
                std::collections::binary_heap::PeekMut::pop(top);
            }
            done += 1;
            if done.is_multiple_of(65_536) {
                control.check()?;
            }
        }
        let mut out = vec![0u64; messages.len()];
        for d in 0..n {
            let queue = &mut arrivals[counts[d] as usize..counts[d + 1] as usize];
            // Stable: arrivals at one time keep the order of their events.
            if !queue.is_sorted_by_key(|a| a.0) {
                queue.sort_by_key(|a| a.0);
            }
            let mut free = 0u64;
            for &(arrived, i) in queue.iter() {
                let (busy, hop) = self.delays(messages[i as usize].bytes);
                let start = arrived.max(free);
                free = start + busy;
                out[i as usize] = start + hop;
            }
        }
        Ok(out)
    }

    /// Devices that a message passes after its source.
    fn route(&self, m: &Message) -> Vec<u32> {
        match self.topology {
            Topology::FullyConnected => vec![m.dst],
            Topology::Switch => vec![self.npus, m.dst],
            Topology::Ring => {
                let n = self.npus;
                let clockwise = (m.dst + n - m.src) % n;
                if n - clockwise < clockwise {
                    (1..=n - clockwise).map(|i| (m.src + n - i) % n).collect()
                } else {
                    (1..=clockwise).map(|i| (m.src + i) % n).collect()
                }
            }
        }
    }

    /// The event queue itself: (time, order of making) first in, first out.
    fn events(&self, messages: &[Message], control: &Control) -> Result<Vec<u64>> {
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        enum EventKind {
            Send(u32),
            Arrive(u32),
            Free(u32),
        }
        #[derive(Default)]
        struct Link {
            busy: bool,
            waiting: VecDeque<u32>,
        }
        let routes: Vec<Vec<u32>> = messages.iter().map(|m| self.route(m)).collect();
        let mut hop = vec![0usize; messages.len()];
        let mut links: Vec<Link> = Vec::new();
        let mut number: BTreeMap<(u32, u32), u32> = BTreeMap::new();
        let mut queue: BinaryHeap<Reverse<(u64, u64, EventKind)>> = BinaryHeap::new();
        let mut seq = 0u64;
        let mut push = |queue: &mut BinaryHeap<_>, time: u64, kind: EventKind| {
            queue.push(Reverse((time, seq, kind)));
            seq += 1;
        };
        for (i, m) in messages.iter().enumerate() {
            push(&mut queue, m.start_ns, EventKind::Send(i as u32));
        }
        let mut out = vec![0u64; messages.len()];
        let mut done = 0u64;
        while let Some(Reverse((now, _, kind))) = queue.pop() {
            done += 1;
            if done.is_multiple_of(65_536) {
                control.check()?;
            }
            // Who wants to go over which link now.
            let (link, sender) = match kind {
                EventKind::Arrive(m) if hop[m as usize] + 1 == routes[m as usize].len() => {
                    out[m as usize] = now;
                    continue;
                }
                EventKind::Send(m) | EventKind::Arrive(m) => {
                    if matches!(kind, EventKind::Arrive(_)) {
                        hop[m as usize] += 1;
                    }
                    let k = hop[m as usize];
                    let from = if k == 0 { messages[m as usize].src } else { routes[m as usize][k - 1] };
                    let next = links.len() as u32;
                    let link = *number.entry((from, routes[m as usize][k])).or_insert(next);
                    if link == next {
                        links.push(Link::default());
                    }
                    if links[link as usize].busy {
                        links[link as usize].waiting.push_back(m);
                        continue;
                    }
                    (link, m)
                }
                EventKind::Free(link) => match links[link as usize].waiting.pop_front() {
                    Some(m) => (link, m),
                    None => {
                        links[link as usize].busy = false;
                        continue;
                    }
                },
            };
            links[link as usize].busy = true;
            let (busy, arrive) = self.delays(messages[sender as usize].bytes);
            push(&mut queue, now + arrive, EventKind::Arrive(sender));
            push(&mut queue, now + busy, EventKind::Free(link));
        }
        Ok(out)
    }
}
