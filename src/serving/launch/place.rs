//! Servers of a plan and the GPUs of each: the largest first, whole nodes or parts of one node, in order.
//!
//! Limit: nodes of equal size, filled in order; ports and hosts are names that the operator fills in.

use super::ask::Ask;
use crate::spec::{self, AfdPlan, Parallel, Plan, Pool, Slot, Workers};

/// What a server does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Prefill and decode.
    Serve,
    Prefill,
    Decode,
    /// The pools of an AFD unit.
    Attention,
    Ffn,
}

impl Role {
    pub fn name(self) -> &'static str {
        match self {
            Role::Serve => "serve",
            Role::Prefill => "prefill",
            Role::Decode => "decode",
            Role::Attention => "attention",
            Role::Ffn => "ffn",
        }
    }
}

/// One server: a replica, a worker, or a pool of an AFD unit.
#[derive(Clone, Debug)]
pub struct Server {
    pub role: Role,
    /// Its number among those of its role.
    pub index: u32,
    pub parallel: Parallel,
    pub batch: Option<u32>,
    pub chunk: Option<u32>,
    /// Whether two half batches overlap.
    pub overlap: bool,
    /// Prompt tokens join every n-th step.
    pub interval: Option<u32>,
    /// The slot of the plan that it belongs to, and the pool there that it runs.
    pub slot: spec::Role,
    pub pool: Pool,
    /// First of its GPUs, counted through the cluster.
    pub first: u32,
    pub gpus: u32,
    /// HTTP port, its own in the whole deployment.
    pub port: u16,
}

/// The part of a server on one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessPart {
    pub node: u32,
    /// Its number among the server's nodes.
    pub rank: u32,
    /// GPUs on that node.
    pub local: Vec<u32>,
}

/// Where a slot stands in a plan.
pub fn path(slot: spec::Role) -> &'static str {
    match slot {
        spec::Role::Both => "plan",
        spec::Role::Prompts => "plan.prefill",
        spec::Role::Decode => "plan.decode",
    }
}

impl Server {
    /// Where it stands in the plan.
    pub fn path(&self) -> &'static str {
        path(self.slot)
    }

    /// A field of its layout, as the user writes it.
    pub fn at(&self, field: &str) -> String {
        let layout = match self.pool {
            Pool::Worker => "parallel",
            Pool::Attention | Pool::Ffn => self.pool.name(),
        };
        format!("{}.{layout}.{field}", self.path())
    }

    /// Its number in the whole deployment.
    pub fn number(&self) -> u16 {
        self.port - PORTS
    }

    pub fn name(&self) -> String {
        format!("{}{}", self.role.name(), self.index)
    }

    /// Token budget of a rank's step, and what says so.
    pub fn budget(&self, ask: &Ask) -> (Option<u32>, String) {
        match (self.role, self.chunk, self.batch) {
            // A decode step carries a token a sequence, and its drafts.
            (Role::Decode, None, Some(batch)) => {
                let tokens = batch.saturating_mul(1 + ask.case.serving.mtp);
                (Some(tokens), format!("{}.batch: a token and its drafts a sequence", self.path()))
            }
            (_, chunk, _) => (chunk, format!("{}.chunk_tokens: token budget of a rank's step", self.path())),
        }
    }

    /// GPUs of one attention rank through all stages: what one engine of vLLM takes.
    pub fn engine_gpus(&self) -> u32 {
        self.parallel.tp * self.parallel.cp * self.parallel.pp
    }

    /// GPUs of a stage: the `tp_size` of SGLang and TensorRT-LLM.
    pub fn world(&self) -> u32 {
        self.parallel.stage_gpus()
    }

    pub fn parts(&self, node_gpus: u32) -> Vec<ProcessPart> {
        let node_gpus = node_gpus.max(1);
        let mut out: Vec<ProcessPart> = Vec::new();
        for gpu in self.first..self.first + self.gpus {
            let node = gpu / node_gpus;
            match out.last_mut() {
                Some(p) if p.node == node => p.local.push(gpu % node_gpus),
                _ => out.push(ProcessPart { node, rank: out.len() as u32, local: vec![gpu % node_gpus] }),
            }
        }
        out
    }
}

/// First port of the servers; the router has 8000.
const PORTS: u16 = 8100;
/// Servers that get ports of their own.
pub const MOST: usize = 1000;

/// Servers of the plan, placed.
pub fn servers(ask: &Ask, notes: &mut Vec<String>) -> Vec<Server> {
    let mut out = Vec::new();
    match ask.plan {
        Plan::Aggregated(a) => {
            let overlap = a.two_batch_overlap.or(ask.case.serving.two_batch_overlap).unwrap_or(false);
            let interval = a.prefill_interval.or(ask.case.serving.prefill_interval);
            let one = server(Role::Serve, spec::Role::Both, a.parallel, a.batch, a.chunk_tokens, overlap, interval);
            add(&mut out, &one, a.replicas);
        }
        Plan::Afd(a) => units(&mut out, ask, spec::Role::Both, a),
        Plan::Pd(p) => {
            for (role, slot, held) in
                [(Role::Prefill, spec::Role::Prompts, &p.prefill), (Role::Decode, spec::Role::Decode, &p.decode)]
            {
                match held {
                    Slot::Workers(w) => workers(&mut out, ask, role, slot, w),
                    Slot::Afd(a) => units(&mut out, ask, slot, a),
                }
            }
        }
    }
    place(&mut out, ask, notes);
    open(&out, notes);
    for (i, s) in out.iter_mut().enumerate() {
        s.port = PORTS + u16::try_from(i).unwrap_or(u16::MAX - PORTS);
    }
    out
}

/// What the plan leaves to the server.
fn open(servers: &[Server], notes: &mut Vec<String>) {
    for s in servers {
        let chunk = s.chunk.is_none() && !matches!(s.role, Role::Decode | Role::Ffn);
        for (field, open) in [("batch", s.batch.is_none()), ("chunk_tokens", chunk)] {
            let text =
                format!("{}.{field} is open: the server's own default holds; estimate.launch() fills it in", s.path());
            if open && !notes.contains(&text) {
                notes.push(text);
            }
        }
    }
}

fn server(
    role: Role,
    slot: spec::Role,
    parallel: Parallel,
    batch: Option<u32>,
    chunk: Option<u32>,
    overlap: bool,
    interval: Option<u32>,
) -> Server {
    let gpus = parallel.gpus();
    let pool = match role {
        Role::Serve | Role::Prefill | Role::Decode => Pool::Worker,
        Role::Attention => Pool::Attention,
        Role::Ffn => Pool::Ffn,
    };
    Server { role, index: 0, parallel, batch, chunk, overlap, interval, slot, pool, first: 0, gpus, port: PORTS }
}

fn add(out: &mut Vec<Server>, one: &Server, count: u32) {
    out.extend((0..count).map(|index| Server { index, ..one.clone() }));
}

fn workers(out: &mut Vec<Server>, ask: &Ask, role: Role, slot: spec::Role, w: &Workers) {
    let overlap = w.two_batch_overlap.or(ask.case.serving.two_batch_overlap).unwrap_or(false);
    add(out, &server(role, slot, w.parallel, w.batch, w.chunk_tokens, overlap, None), w.count);
}

fn units(out: &mut Vec<Server>, ask: &Ask, slot: spec::Role, a: &AfdPlan) {
    let interval = a.prefill_interval.or(ask.case.serving.prefill_interval);
    let overlap = a.microbatches.is_some_and(|m| m > 1);
    let attention = Parallel { tp: a.attention.tp, dp: a.attention.ranks(), ..Parallel::default() };
    let experts = ask.case.model.moe.as_ref().map_or(1, |m| m.experts);
    let ep = Some(a.ffn.ep_for(experts));
    let ffn = Parallel { dp: a.ffn.gpus, ep, moe_tp: a.ffn.moe_tp, ..Parallel::default() };
    let one = server(Role::Attention, slot, attention, a.batch, a.chunk_tokens, overlap, interval);
    let pool = server(Role::Ffn, slot, ffn, a.batch, a.chunk_tokens, overlap, None);
    add(out, &one, a.stages());
    add(out, &pool, a.stages());
}

/// Gives each server its GPUs: one that fits a node does not cross nodes while there is room.
fn place(servers: &mut [Server], ask: &Ask, notes: &mut Vec<String>) {
    let node = ask.case.cluster.fabric.node_gpus.max(1);
    let mut order: Vec<usize> = (0..servers.len()).collect();
    order.sort_by_key(|i| std::cmp::Reverse(servers[*i].gpus));
    for whole in [true, false] {
        let mut next = 0;
        for &i in &order {
            let s = &mut servers[i];
            // From the largest down, what divides a node stays aligned; other sizes move to the next node.
            let crosses = next / node != (next + s.gpus - 1) / node;
            let fits = if s.gpus <= node { crosses } else { next % node != 0 };
            if whole && fits {
                next = next.div_ceil(node) * node;
            }
            s.first = next;
            next += s.gpus;
        }
        if next <= ask.case.cluster.gpus {
            if !whole {
                notes.push("servers cross nodes: the plan leaves no room to keep each inside one".into());
            }
            return;
        }
    }
}

/// The servers of a role.
pub fn of(servers: &[Server], role: Role) -> impl Iterator<Item = &Server> {
    servers.iter().filter(move |s| s.role == role)
}
