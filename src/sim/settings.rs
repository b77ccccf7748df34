//! How requests are scheduled and routed: what a simulation takes beside the plan and the requests.
//!
//! Limit: one scheduler and one router for the whole deployment.

use serde::Deserialize;

use super::{PS, to_ps};
use crate::error::{Problems, Result, near};
use crate::spec::json;

/// How an instance fills its steps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scheduler {
    /// A token budget a step: decode first, prompt chunks in what is left (vLLM).
    #[default]
    ChunkedPrefill,
    /// Whole prompts as soon as they fit, decode waits meanwhile.
    PrefillFirst,
    /// Prompts first in chunks of the budget, decode waits; admission keeps room for answers (SGLang).
    Sglang,
    /// A batch is filled, runs to its last token, and only then the next one comes.
    Static,
}

/// How a request finds its instance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Router {
    RoundRobin,
    /// Fewest requests in hand, lowest number first.
    #[default]
    LeastLoaded,
    /// Fewest prompt tokens to compute, cached prefixes taken off, tokens in hand added.
    PrefixAware,
    /// The less loaded of two drawn at random.
    PowerOfTwo,
    /// Where its session went before; a new session goes where the load is least.
    SessionSticky,
}

/// What happens to a sequence whose KV has to go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Preemption {
    /// Its KV is dropped, prompt and answer so far are computed again.
    #[default]
    Recompute,
    /// Its KV is moved to host memory and back.
    Swap,
}

/// When a prompt takes its KV blocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KvAdmission {
    /// All of them when it is let in, so that who is in is never put out by its own kind.
    #[default]
    Prompt,
    /// Piece by piece as it is computed (vLLM's `KVCacheManager.allocate_slots`): more are let in, and who came last
    /// gives way where blocks run out. So do prompts of a prefill instance; at decode,
    /// KV that comes by wire or is computed again takes its place whole.
    Chunk,
}

/// Settings of a simulation.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    pub scheduler: Scheduler,
    pub router: Router,
    pub preemption: Preemption,
    pub kv_admission: KvAdmission,
    /// Reuse named prompt blocks; declared prefixes count in any case.
    pub prefix_cache: bool,
    /// KV blocks per attention rank; none: what the memory holds.
    pub kv_blocks: Option<u64>,
    /// Tokens of a KV block (16 in vLLM).
    pub kv_block_tokens: u32,
    /// Idle cached blocks are forgotten after so long.
    pub ttl_ps: Option<u64>,
    /// A cache behind all instances: tokens it holds, and tokens per second that it delivers.
    pub shared_tier: Option<SharedTier>,
    /// Bytes per second between GPU and host, for swapping (PCIe 5 x16: 64e9 less overhead).
    pub host_bytes_per_s: f64,
    pub seed: u64,
    /// Stop at this time; what is in the system then is unfinished.
    pub stop_ps: Option<u64>,
    /// Spans to keep at most; 0: no timeline.
    pub timeline: usize,
    /// Decode steps that one event may stand for; 1: step by step, the slow way to the same bits.
    pub max_run: u32,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SharedTier {
    pub tokens: u64,
    pub tokens_per_s: f64,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            scheduler: Scheduler::default(),
            router: Router::default(),
            preemption: Preemption::default(),
            kv_admission: KvAdmission::default(),
            prefix_cache: true,
            kv_blocks: None,
            kv_block_tokens: 16,
            ttl_ps: None,
            shared_tier: None,
            host_bytes_per_s: 50e9,
            seed: 0,
            stop_ps: None,
            timeline: 0,
            max_run: u32::MAX,
        }
    }
}

const SCHEDULERS: [(&str, Scheduler); 4] = [
    ("chunked-prefill", Scheduler::ChunkedPrefill),
    ("prefill-first", Scheduler::PrefillFirst),
    ("sglang", Scheduler::Sglang),
    ("static", Scheduler::Static),
];

const ROUTERS: [(&str, Router); 5] = [
    ("round-robin", Router::RoundRobin),
    ("least-loaded", Router::LeastLoaded),
    ("prefix-aware", Router::PrefixAware),
    ("power-of-two", Router::PowerOfTwo),
    ("session-sticky", Router::SessionSticky),
];

const PREEMPTIONS: [(&str, Preemption); 2] = [("recompute", Preemption::Recompute), ("swap", Preemption::Swap)];

const ADMISSIONS: [(&str, KvAdmission); 2] = [("prompt", KvAdmission::Prompt), ("chunk", KvAdmission::Chunk)];

impl KvAdmission {
    pub fn name(self) -> &'static str {
        ADMISSIONS.iter().find(|(_, a)| *a == self).map_or("", |(n, _)| n)
    }
}

fn named<T: Copy + Default>(p: &mut Problems, field: &str, name: &str, known: &[(&str, T)]) -> T {
    match known.iter().find(|(n, _)| *n == name) {
        Some((_, found)) => *found,
        None => {
            p.push(field, format!("'{name}' is not known"), near(name, known.iter().map(|(n, _)| *n)));
            T::default()
        }
    }
}

/// Settings as a user writes them: names, seconds, gigabytes.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    pub scheduler: String,
    pub router: String,
    pub preemption: String,
    pub kv_admission: String,
    pub prefix_cache: bool,
    pub kv_blocks: Option<u64>,
    pub cache_ttl_s: Option<f64>,
    pub shared_tier: Option<TierOptions>,
    pub stop_s: Option<f64>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TierOptions {
    pub tokens: u64,
    pub gb_per_s: f64,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            scheduler: SCHEDULERS[0].0.into(),
            router: "least-loaded".into(),
            preemption: PREEMPTIONS[0].0.into(),
            kv_admission: ADMISSIONS[0].0.into(),
            prefix_cache: true,
            kv_blocks: None,
            cache_ttl_s: None,
            shared_tier: None,
            stop_s: None,
        }
    }
}

impl Options {
    /// Reads options from JSON.
    ///
    /// # Errors
    /// A field that is missing, unknown or of the wrong type, by name.
    pub fn from_json(text: &str) -> Result<Options> {
        json::parse(text, "")
    }

    /// Settings of a simulation whose KV takes `kv_bytes` a token.
    ///
    /// # Errors
    /// Everything that is wrong, by name.
    pub fn settings(&self, kv_bytes: f64) -> Result<Settings> {
        let mut p = Problems::new();
        let mut seconds = |field: &str, given: Option<f64>| {
            let fits = |s: &f64| *s > 0.0 && *s < u64::MAX as f64 / PS;
            if let Some(s) = given.filter(|s| !fits(s)) {
                p.push(field, format!("must be above 0, is {s}"), "seconds; leave it out for no limit");
            }
            given.map(to_ps)
        };
        let (ttl_ps, stop_ps) = (seconds("cache_ttl_s", self.cache_ttl_s), seconds("stop_s", self.stop_s));
        let settings = Settings {
            scheduler: named(&mut p, "scheduler", &self.scheduler, &SCHEDULERS),
            router: named(&mut p, "router", &self.router, &ROUTERS),
            preemption: named(&mut p, "preemption", &self.preemption, &PREEMPTIONS),
            kv_admission: named(&mut p, "kv_admission", &self.kv_admission, &ADMISSIONS),
            prefix_cache: self.prefix_cache,
            kv_blocks: self.kv_blocks,
            ttl_ps,
            stop_ps,
            shared_tier: self.shared_tier.map(|t| SharedTier {
                tokens: t.tokens,
                tokens_per_s: t.gb_per_s * 1e9 / kv_bytes.max(f64::MIN_POSITIVE),
            }),
            ..Settings::default()
        };
        p.nest("", settings.check());
        p.into_result().map(|()| settings)
    }
}

impl Settings {
    /// Everything that is wrong; paths are relative to it.
    pub(crate) fn check(&self) -> Problems {
        let mut p = Problems::new();
        if self.kv_block_tokens == 0 {
            p.push("kv_block_tokens", "is 0", "16 is usual");
        }
        if self.max_run == 0 {
            p.push("max_run", "is 0", "at least one step an event");
        }
        if self.kv_blocks == Some(0) {
            p.push("kv_blocks", "is 0", "leave it out for what the memory holds");
        }
        if !(self.host_bytes_per_s > 0.0 && self.host_bytes_per_s.is_finite()) {
            p.push("host_bytes_per_s", "must be above 0", "");
        }
        if let Some(t) = self.shared_tier
            && !(t.tokens_per_s > 0.0 && t.tokens_per_s.is_finite() && t.tokens > 0)
        {
            p.push("shared_tier", "needs tokens and a speed above 0", "");
        }
        p
    }
}
