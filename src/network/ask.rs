//! Questions about single phases as plain data, checked as a whole.
//!
//! Limit: one phase on an idle fabric; amounts beyond 1e18 bytes or 1e9 tokens are refused as slips of a unit.

use serde::Deserialize;
use serde_json::Value;

use super::a2a::{A2aKind, A2aShape};
use super::afd::AfdShape;
use super::port::Collective;
use super::report::Report;
use super::spread::{self, Spread};
use super::{Comm, Seats, skew};
use crate::error::{Error, Problems, Result, near};
use crate::spec::{Cluster, Dtype, json};

/// What can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Collective,
    Dispatch,
    Combine,
    A2f,
    F2a,
    KvTransfer,
}

impl Phase {
    const ALL: [Phase; 6] =
        [Phase::Collective, Phase::Dispatch, Phase::Combine, Phase::A2f, Phase::F2a, Phase::KvTransfer];

    fn name(self) -> &'static str {
        match self {
            Phase::Collective => "collective",
            Phase::Dispatch => "dispatch",
            Phase::Combine => "combine",
            Phase::A2f => "a2f",
            Phase::F2a => "f2a",
            Phase::KvTransfer => "kv_transfer",
        }
    }

    fn parse(name: &str) -> Result<Phase> {
        let known = || near(name, Phase::ALL.map(Phase::name));
        let found = Phase::ALL.into_iter().find(|p| p.name() == name);
        found.ok_or_else(|| Error::spec("phase", format!("'{name}' is not a phase"), known()))
    }
}

/// More is a slip of a unit.
const MOST_BYTES: f64 = 1e18;
const MOST_TOKENS: f64 = 1e9;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OfAll {
    op: String,
    ranks: u32,
    bytes: f64,
    dtype: Dtype,
    placement: Option<Vec<u32>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Exchange {
    tokens: f64,
    hidden: u32,
    topk: u32,
    experts: u32,
    ranks: u32,
    dtype: Dtype,
    backend: Option<String>,
    groups: u32,
    topk_groups: u32,
    load: Option<Vec<f64>>,
    exponent: Option<f64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Afd {
    tokens: f64,
    hidden: u32,
    topk: u32,
    experts: u32,
    senders: u32,
    receivers: u32,
    tp: u32,
    ep: Option<u32>,
    moe_tp: u32,
    dtype: Dtype,
    prereduce: bool,
    groups: u32,
    topk_groups: u32,
    attention: Option<Vec<u32>>,
    ffn: Option<Vec<u32>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Kv {
    bytes: f64,
    prefill_tp: u32,
    decode_tp: u32,
    same_domain: bool,
    layers: Option<u32>,
    compute_ms: f64,
}

struct Asked<'a> {
    problems: Problems,
    cluster: &'a Cluster,
}

impl Asked<'_> {
    fn amount(&mut self, field: &str, x: f64, most: f64) {
        if !(x.is_finite() && x > 0.0 && x <= most) {
            self.problems.push(field, format!("cannot be {x}"), format!("more than 0, at most {most:e}"));
        }
    }

    fn count(&mut self, field: &str, n: u32, low: u32, high: u32) {
        if !(low..=high).contains(&n) {
            self.problems.push(field, format!("cannot be {n}"), format!("{low} to {high}"));
        }
    }

    fn ranks(&mut self, field: &str, n: u32) {
        self.count(field, n, 1, self.cluster.gpus);
    }

    fn routing(&mut self, topk: u32, experts: u32, groups: u32, topk_groups: u32) {
        self.count("experts", experts, 1, 65_536);
        self.count("topk", topk, 1, experts.max(1));
        if groups > 1 && (!experts.is_multiple_of(groups) || topk_groups == 0 || topk_groups > groups) {
            let text = format!("{topk_groups} of {groups} groups of {experts} experts cannot be chosen");
            self.problems.push("topk_groups", text, "groups divide the experts; topk_groups is 1 to groups");
        }
    }

    fn done(self) -> Result<()> {
        self.problems.into_result()
    }
}

/// Answers one phase of `comm`, built for `cluster`.
pub fn phase(comm: &Comm, cluster: &Cluster, what: &str, args: Value) -> Result<Report> {
    let what = Phase::parse(what)?;
    let mut asked = Asked { problems: Problems::new(), cluster };
    match what {
        Phase::Collective => {
            let a: OfAll = json::from_value(args, "")?;
            asked.ranks("ranks", a.ranks);
            asked.amount("bytes", a.bytes, MOST_BYTES);
            let op = Collective::named(&a.op).unwrap_or_else(|| {
                let known = near(&a.op, Collective::NAMES);
                asked.problems.push("op", format!("'{}' is not a collective", a.op), known);
                Collective::AllReduce
            });
            if a.dtype != Dtype::Bf16 {
                let text = format!("{} was not measured", a.dtype.name());
                asked.problems.push("dtype", text, "bfloat16: bytes decide, whatever they hold");
            }
            if let Some(ids) = &a.placement {
                let mut wrong = spread::check(ids, &[], (a.ranks, 0), cluster.gpus);
                for p in &mut wrong.0 {
                    p.path = p.path.replacen("attention", "placement", 1);
                }
                asked.problems.0.extend(wrong.0);
            }
            asked.done()?;
            let seats = a.placement.map_or_else(|| comm.packed(a.ranks), |ids| Seats::of(&ids, comm.domain()));
            Ok(comm.report_collective(op, a.bytes, seats))
        }
        Phase::Dispatch | Phase::Combine => {
            let a: Exchange = json::from_value(args, "")?;
            asked.amount("tokens", a.tokens, MOST_TOKENS);
            asked.count("hidden", a.hidden, 1, 1 << 20);
            asked.ranks("ranks", a.ranks);
            asked.routing(a.topk, a.experts, a.groups, a.topk_groups);
            asked.count("ranks", a.ranks, 1, a.experts.max(1));
            exchange_dtype(&mut asked, a.dtype);
            let kind = backend(&mut asked, comm, a.backend.as_deref(), a.ranks);
            if a.load.is_some() && a.exponent.is_some() {
                asked.problems.push("load", "and exponent both say how uneven the experts are", "give one of them");
            }
            if let Some(x) = a.exponent.filter(|x| !(0.0..=4.0).contains(x)) {
                asked.problems.push("exponent", format!("cannot be {x}"), "0 (even) to 4");
            }
            if let Some(Err(Error::Spec(p))) = a.load.as_ref().map(|l| skew::check(l, a.experts, "load")) {
                asked.problems.0.extend(p.0);
            }
            asked.done()?;
            let load = a.load.or_else(|| a.exponent.map(|x| skew::zipf(a.experts, x, a.ranks)));
            let shape = A2aShape {
                hidden: a.hidden,
                topk: a.topk,
                experts: a.experts,
                groups: a.groups,
                topk_groups: a.topk_groups,
                ep: a.ranks,
                dispatch_dtype: a.dtype,
            };
            let kind = kind.unwrap_or_else(|| comm.best_kind(&shape, a.tokens));
            Ok(comm.report_exchange(&shape, a.tokens, kind, what == Phase::Combine, load.as_deref()))
        }
        Phase::A2f | Phase::F2a => afd(asked, comm, what == Phase::F2a, args),
        Phase::KvTransfer => {
            let a: Kv = json::from_value(args, "")?;
            asked.amount("bytes", a.bytes, MOST_BYTES);
            asked.ranks("prefill_tp", a.prefill_tp);
            asked.ranks("decode_tp", a.decode_tp);
            if let Some(n) = a.layers {
                asked.count("layers", n, 1, 100_000);
            }
            if !(0.0..=1e9).contains(&a.compute_ms) {
                asked.problems.push(
                    "compute_ms",
                    format!("cannot be {}", a.compute_ms),
                    "milliseconds a layer, 0 or more",
                );
            }
            asked.done()?;
            let links = a.prefill_tp.min(a.decode_tp);
            Ok(comm.report_kv(a.bytes, links, a.same_domain, a.layers.map(|n| (n, a.compute_ms * 1e-3))))
        }
    }
}

fn exchange_dtype(asked: &mut Asked<'_>, dtype: Dtype) {
    if !matches!(dtype, Dtype::Bf16 | Dtype::Fp8 | Dtype::Fp8Block | Dtype::Nvfp4) {
        asked.problems.push("dtype", format!("{} is not sent", dtype.name()), "bfloat16, fp8 or nvfp4");
    }
}

fn backend(asked: &mut Asked<'_>, comm: &Comm, name: Option<&str>, ranks: u32) -> Option<A2aKind> {
    let name = name?;
    let Some(kind) = A2aKind::named(name) else {
        asked.problems.push("backend", format!("'{name}' is not a kernel"), near(name, A2aKind::NAMES));
        return None;
    };
    if !comm.kinds().contains(&kind) || (kind == A2aKind::OneSided && ranks > comm.domain()) {
        let text = format!("'{name}' does not reach {ranks} ranks here");
        asked.problems.push("backend", text, "one-sided kernels work inside an NVL72 rack");
    }
    Some(kind)
}

fn afd(mut asked: Asked<'_>, comm: &Comm, back: bool, args: Value) -> Result<Report> {
    let a: Afd = json::from_value(args, "")?;
    let (attention, ffn) = if back { (a.receivers, a.senders) } else { (a.senders, a.receivers) };
    asked.amount("tokens", a.tokens, MOST_TOKENS);
    asked.count("hidden", a.hidden, 1, 1 << 20);
    asked.routing(a.topk, a.experts, a.groups, a.topk_groups);
    let most = asked.cluster.gpus;
    asked.count("senders", a.senders, 1, most);
    asked.count("receivers", a.receivers, 1, most);
    if u64::from(a.senders) + u64::from(a.receivers) > u64::from(most) {
        let text = format!("{} and {} GPUs do not fit a cluster of {most}", a.senders, a.receivers);
        asked.problems.push("receivers", text, "");
    }
    if a.tp == 0 || !attention.is_multiple_of(a.tp) {
        asked.problems.push("tp", format!("{} does not divide {attention} attention GPUs", a.tp), "");
    }
    exchange_dtype(&mut asked, a.dtype);
    let moe_tp = a.moe_tp.max(1);
    let ep = a.ep.unwrap_or_else(|| (ffn / moe_tp).min(a.experts).max(1));
    if a.moe_tp == 0 || ep == 0 || ep > a.experts || !ffn.is_multiple_of(ep.saturating_mul(moe_tp).max(1)) {
        let text = format!("{ep} groups of {} GPUs do not fill {ffn} FFN GPUs with {} experts", a.moe_tp, a.experts);
        asked.problems.push("ep", text, "ep x moe_tp divides the FFN pool");
    }
    let spread = match (&a.attention, &a.ffn) {
        (None, None) => None,
        (Some(x), Some(y)) => {
            asked.problems.nest("placement", spread::check(x, y, (attention, ffn), most));
            Some(Spread::placed(x, y, comm.domain()))
        }
        _ => {
            asked.problems.push("placement", "names one pool only", "give attention and ffn");
            None
        }
    };
    asked.done()?;
    let shape = AfdShape {
        hidden: a.hidden,
        topk: a.topk,
        experts: a.experts,
        groups: a.groups,
        topk_groups: a.topk_groups,
        attention_gpus: attention,
        attention_tp: a.tp,
        ffn_gpus: ffn,
        ep,
        moe_tp,
        dispatch_dtype: a.dtype,
        prereduce: a.prereduce,
        shared_copy: false,
        half_duplex: false,
        spread,
    };
    Ok(comm.report_afd(&shape, a.tokens, back))
}
