//! What a run says: columns of requests, instances and time, and a summary.
//!
//! TTFT = first token - arrival; TPOT = (finish - first token) / (answer tokens - 1), none with one
//! token; e2e = finish - arrival. Rates are over the time from the first arrival to the last event, goodput over the
//! time of the arrivals.
//!
//! Limit: of requests that finished; the others are counted, and only goodput holds them against a plan.

use serde::Serialize;

use super::request::Requests;
use super::statistics::{self, Interval};
use super::steady::{self, Steady};
use super::{NEVER, Outcome, Status, to_s};
use crate::columns::{Column, Columns};
use crate::spec::Slo;

pub const PERCENTILES: [f64; 7] = [10.0, 50.0, 75.0, 90.0, 95.0, 99.0, 99.9];

fn ms(from: u64, to: u64) -> f64 {
    if from == NEVER || to == NEVER { f64::NAN } else { (to - from) as f64 / 1e9 }
}

/// Latencies of all requests, ms; not a number where there is none.
pub struct Latencies {
    pub ttft_ms: Vec<f64>,
    pub tpot_ms: Vec<f64>,
    pub e2e_ms: Vec<f64>,
}

impl Latencies {
    pub fn of(r: &Requests, o: &Outcome) -> Latencies {
        let all = 0..r.len();
        let tpot = |i: usize| {
            if r.osl[i] < 2 { f64::NAN } else { ms(o.first_token_ps[i], o.finish_ps[i]) / f64::from(r.osl[i] - 1) }
        };
        Latencies {
            ttft_ms: all.clone().map(|i| ms(o.arrival_ps[i], o.first_token_ps[i])).collect(),
            tpot_ms: all.clone().map(tpot).collect(),
            e2e_ms: all.map(|i| ms(o.arrival_ps[i], o.finish_ps[i])).collect(),
        }
    }

    fn named(&self) -> [(&'static str, &[f64]); 3] {
        [("ttft_ms", &self.ttft_ms), ("tpot_ms", &self.tpot_ms), ("e2e_ms", &self.e2e_ms)]
    }

    /// Whether a request finished inside the limits (a single token has no TPOT to miss).
    pub(crate) fn good(&self, i: usize, slo: &Slo) -> bool {
        let fits = |x: f64, limit: Option<f64>| limit.is_none_or(|l| x <= l);
        !self.e2e_ms[i].is_nan()
            && fits(self.ttft_ms[i], slo.ttft_ms)
            && (self.tpot_ms[i].is_nan() || fits(self.tpot_ms[i], slo.tpot_ms))
    }
}

fn known(values: &[f64]) -> Vec<f64> {
    values.iter().copied().filter(|x| !x.is_nan()).collect()
}

fn sorted(values: &[f64]) -> Vec<f64> {
    let mut v = known(values);
    v.sort_by(f64::total_cmp);
    v
}

#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    pub arrivals: usize,
    pub finished: usize,
    pub rejected: usize,
    pub unfinished: usize,
    /// From the first arrival to the last event, and what rates are over.
    pub duration_s: f64,
    /// Seconds over which requests came: what goodput is over.
    pub window_s: f64,
    pub requests_per_s: f64,
    pub tokens_per_s: f64,
    pub tokens_per_s_per_gpu: f64,
    pub gpus: u32,
    pub preemptions: u64,
    /// Share of prompt tokens found in a cache.
    pub prefix_hit: f64,
    /// Time mean of the requests in the system.
    pub in_system: f64,
    /// Means of the requests between the system's filling and its emptying; without intervals where the run is
    /// unstable or short, for it shows no steady state for them to be about, and without an upper end where it holds too few
    /// bursts of waiting to say how much more may come.
    pub ttft_ms: Option<Interval>,
    pub tpot_ms: Option<Interval>,
    pub e2e_ms: Option<Interval>,
    /// What the run shows of a steady state: `steady`, `short` (neither that nor its opposite) or `unstable`.
    pub shows: &'static str,
    /// False where the run shows that what arrives is not served, and then requests a second that the capacity lacks.
    pub stable: bool,
    pub lacks_requests_per_s: f64,
    /// What is to be known of the figures, in words.
    pub notes: Vec<String>,
    pub events: u64,
    pub steps: u64,
}

pub fn summary(r: &Requests, o: &Outcome, gpus: u32) -> Summary {
    let (finished, rejected, unfinished) = o.counts();
    let latencies = Latencies::of(r, o);
    let duration_s = duration_s(o);
    // An empty sum of floats is -0.
    let per = |x: f64| if duration_s > 0.0 && x > 0.0 { x / duration_s } else { 0.0 };
    let answered = (0..r.len()).filter(|i| o.status[*i] == Status::Finished).map(|i| f64::from(r.osl[i])).sum::<f64>();
    let prompt = (0..r.len()).filter(|i| o.status[*i] != Status::Rejected).map(|i| f64::from(r.isl[i])).sum::<f64>();
    let hit: f64 = o.prefix_hit_tokens.iter().map(|x| f64::from(*x)).sum();
    let found = steady::steady(r, o);
    let stable = !matches!(found, Steady::Unstable { .. });
    let (from, to) = steady::window_ps(o);
    let mean = |v: &[f64]| {
        let known = |keep: &dyn Fn(u64) -> bool| -> Vec<f64> {
            let rows = v.iter().zip(&o.arrival_ps).filter(|(x, a)| !x.is_nan() && keep(**a));
            rows.map(|(x, _)| *x).collect()
        };
        let kept = known(&|a| (from..=to).contains(&a));
        let (warm_up, cool_down) = (known(&|a| a < from).len(), known(&|a| a > to).len());
        let interval = (!kept.is_empty()).then(|| Interval { warm_up, cool_down, ..statistics::interval(&kept) })?;
        Some(if found == Steady::Yes { interval } else { interval.bare() })
    };
    let (ttft, tpot, e2e) = (mean(&latencies.ttft_ms), mean(&latencies.tpot_ms), mean(&latencies.e2e_ms));
    let e2e = e2e.map(|i| ttft.map_or(i, |part| i.with_part(&part)));
    let mut notes: Vec<String> = steady::said(found, r.len()).into_iter().collect();
    if notes.is_empty() {
        let named = [("TTFT", &ttft), ("TPOT", &tpot), ("e2e", &e2e)];
        notes.extend(named.iter().filter_map(|(name, i)| steady::firm(name, i.as_ref()?)));
    }
    Summary {
        arrivals: r.len(),
        finished,
        rejected,
        unfinished,
        duration_s,
        window_s: window_s(r, o),
        requests_per_s: per(finished as f64),
        tokens_per_s: per(answered),
        tokens_per_s_per_gpu: per(answered) / f64::from(gpus.max(1)),
        gpus,
        preemptions: o.preemptions.iter().map(|p| u64::from(*p)).sum(),
        prefix_hit: if prompt > 0.0 { hit / prompt } else { 0.0 },
        in_system: per(o.in_system_ps as f64 / super::PS),
        ttft_ms: ttft,
        tpot_ms: tpot,
        e2e_ms: e2e,
        shows: steady::shows(found),
        stable,
        lacks_requests_per_s: lacking(found),
        notes,
        events: o.events,
        steps: o.steps,
    }
}

/// One row a request.
pub fn requests(r: &Requests, o: &Outcome) -> Columns {
    let l = Latencies::of(r, o);
    let n = r.len();
    let whole = |v: &[u32]| Column::I64(v.iter().map(|x| i64::from(*x)).collect());
    let gap = |v: &[u64]| {
        let one = |i: usize| if o.status[i] == Status::Finished && r.osl[i] > 1 { v[i] as f64 / 1e9 } else { f64::NAN };
        Column::F64((0..n).map(one).collect())
    };
    let at = |a: &u64| if *a == NEVER { f64::NAN } else { to_s(*a) };
    let status = |s: &Status| match s {
        Status::Finished => "finished",
        Status::Rejected => "rejected",
        Status::Unfinished => "unfinished",
    };
    let mut c = Columns::new();
    c.push("arrival_s", Column::F64(o.arrival_ps.iter().map(at).collect()));
    c.push("ttft_ms", Column::F64(l.ttft_ms));
    c.push("tpot_ms", Column::F64(l.tpot_ms));
    c.push("itl_p99_ms", gap(&o.itl_p99_ps));
    c.push("itl_max_ms", gap(&o.itl_max_ps));
    c.push("e2e_ms", Column::F64(l.e2e_ms));
    c.push("isl", whole(&r.isl));
    c.push("osl", whole(&r.osl));
    c.push("prefix_hit_tokens", whole(&o.prefix_hit_tokens));
    let instance = |i: &u32| if *i == u32::MAX { -1 } else { i64::from(*i) };
    c.push("instance", Column::I64(o.instance.iter().map(instance).collect()));
    c.push("preemptions", Column::I64(o.preemptions.iter().map(|p| i64::from(*p)).collect()));
    c.push("status", Column::from_strings(o.status.iter().map(status)));
    c
}

/// One row a percentile.
pub fn percentiles(r: &Requests, o: &Outcome) -> Columns {
    let mut c = Columns::new();
    c.push("percentile", Column::F64(PERCENTILES.to_vec()));
    for (name, values) in Latencies::of(r, o).named() {
        let v = sorted(values);
        c.push(name, Column::F64(PERCENTILES.iter().map(|p| statistics::quantile(&v, p / 100.0)).collect()));
    }
    c
}

/// One row an instance.
pub fn utilization(o: &Outcome) -> Columns {
    let u = &o.usage;
    let end = o.end_ps.max(1) as f64;
    let whole = |f: &dyn Fn(&super::Usage) -> u64| Column::I64(u.iter().map(|x| f(x) as i64).collect());
    let share = |f: &dyn Fn(&super::Usage) -> f64| Column::F64(u.iter().map(|x| f(x) / end).collect());
    let mut c = Columns::new();
    c.push("instance", Column::I64((0..u.len() as i64).collect()));
    c.push("pool", Column::from_strings(u.iter().map(|x| x.role.name())));
    c.push("gpus", whole(&|x| u64::from(x.gpus)));
    c.push("busy", share(&|x| x.busy_ps as f64));
    c.push("kv", share(&|x| x.kv_share_ps));
    c.push("decode_batch", share(&|x| x.batch_ps));
    c.push("steps", whole(&|x| x.steps));
    c.push("prefill_tokens", whole(&|x| x.prefill_tokens));
    c.push("decode_tokens", whole(&|x| x.decode_tokens));
    c.push("kv_peak_blocks", whole(&|x| x.kv_peak_blocks));
    c.push("preemptions", whole(&|x| x.preemptions));
    c
}

/// One row a stretch of time on an instance's lane.
pub fn timeline(o: &Outcome) -> Columns {
    let t = &o.timeline;
    let whole = |f: &dyn Fn(&super::Span) -> u32| Column::I64(t.iter().map(|x| i64::from(f(x))).collect());
    let mut c = Columns::new();
    c.push("instance", whole(&|x| x.instance));
    c.push("lane", whole(&|x| x.lane));
    c.push("start_s", Column::F64(t.iter().map(|x| to_s(x.start_ps)).collect()));
    c.push("end_s", Column::F64(t.iter().map(|x| to_s(x.end_ps)).collect()));
    c.push("kind", Column::from_strings(t.iter().map(|x| x.kind.name())));
    c.push("batch", whole(&|x| x.batch));
    c.push("steps", whole(&|x| x.steps));
    c
}

/// Goodput and whether the limits hold at their percentile (none: for the means). Requests that keep the limits by the
/// seconds over which requests came: the time in which the last ones end says nothing of a rate. No more than is
/// served where the run is unstable.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Goodput {
    pub requests_per_s: f64,
    /// Share of all arrivals that finished inside the limits.
    pub share: f64,
    pub ttft_ms: f64,
    pub tpot_ms: f64,
    pub holds: bool,
}

/// Rejected and unfinished requests miss every limit; at a percentile they count as endless.
pub fn judge(l: &Latencies, finished: &[bool], window_s: f64, lacks: f64, slo: &Slo) -> Goodput {
    let n = finished.len();
    let good = (0..n).filter(|i| finished[*i] && l.good(*i, slo)).count() as f64;
    let at = |values: &[f64]| {
        let end = |i: usize| if finished[i] { values[i] } else { f64::INFINITY };
        let mut v: Vec<f64> = (0..n).map(end).filter(|x| !x.is_nan()).collect();
        match slo.percentile {
            Some(p) => {
                v.sort_by(f64::total_cmp);
                // The rank above, so that an endless value is never mixed with a finite one.
                v.get(((v.len() as f64 * p / 100.0).ceil() as usize).max(1) - 1).copied().unwrap_or(0.0)
            }
            None => v.iter().sum::<f64>() / v.len().max(1) as f64,
        }
    };
    let (ttft_ms, tpot_ms) = (at(&l.ttft_ms), at(&l.tpot_ms));
    let fits = |x: f64, limit: Option<f64>| limit.is_none_or(|m| x <= m);
    Goodput {
        requests_per_s: if window_s > 0.0 {
            (good / window_s).min((n as f64 / window_s - lacks).max(0.0))
        } else {
            0.0
        },
        share: good / n.max(1) as f64,
        ttft_ms,
        tpot_ms,
        holds: fits(ttft_ms, slo.ttft_ms) && fits(tpot_ms, slo.tpot_ms),
    }
}

/// [`judge`] of a run.
pub fn goodput(r: &Requests, o: &Outcome, slo: &Slo) -> Goodput {
    let finished: Vec<bool> = o.status.iter().map(|s| *s == Status::Finished).collect();
    let lacks = lacking(steady::steady(r, o));
    judge(&Latencies::of(r, o), &finished, window_s(r, o), lacks, slo)
}

fn lacking(found: Steady) -> f64 {
    if let Steady::Unstable { arrive, served } = found { arrive - served } else { 0.0 }
}

/// Seconds over which requests came, each with the gap before it; in a closed loop all of the run.
pub(crate) fn window_s(r: &Requests, o: &Outcome) -> f64 {
    let came = o.arrival_ps.iter().filter(|a| **a != NEVER);
    let (n, first, last) = came.fold((0_u64, NEVER, 0), |(n, f, l), a| (n + 1, f.min(*a), l.max(*a)));
    if r.closed.is_some() || n < 2 || last == first {
        return duration_s(o);
    }
    to_s(last - first) * n as f64 / (n - 1) as f64
}

/// From the first arrival to the last event.
pub(crate) fn duration_s(o: &Outcome) -> f64 {
    to_s(o.end_ps - o.arrival_ps.iter().copied().min().unwrap_or(0).min(o.end_ps))
}
