//! The verdict of a study in words: what to deploy, how well it is known, what binds, what would change it.
//!
//! Told from a study's tables, so that one that was read back from a file is told the same. Limit: only plans that were
//! looked at are spoken of.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::math::figures::{change, digits, figure, percent};
use crate::serving::explain::{Told, measured, number, of};
use crate::spec::{Level, Slo};

/// A limit used up to this share is named as what binds.
const NEAR: f64 = 0.9;

/// What does not fit into memory comes after all that is only too slow.
const NO_FIT: f64 = 1e6;

/// A study as it is told.
#[derive(Clone, Debug, Deserialize)]
pub struct Asked {
    pub objective: String,
    pub slo: Slo,
    /// The chance with which the limits are to hold.
    #[serde(default)]
    pub confidence: Option<f64>,
    /// The best estimate of each level, or its nearest miss.
    pub estimates: BTreeMap<String, Told>,
    pub frameworks: Vec<Contender>,
    pub flips: Vec<Flip>,
    /// The least that any plan of a level reaches.
    pub least: Vec<Least>,
}

/// A level with the kernels of a framework.
#[derive(Clone, Debug, Deserialize)]
pub struct Contender {
    pub level: String,
    pub framework: String,
    pub feasible: bool,
    /// What is known does not tell its rate from the best one's.
    #[serde(default)]
    pub equal: bool,
    pub tokens_per_s_per_gpu: Option<f64>,
    pub tokens_per_s_per_user: Option<f64>,
}

/// Who leads under another limit or budget.
#[derive(Clone, Debug, Deserialize)]
pub struct Flip {
    pub what: String,
    pub side: String,
    #[serde(deserialize_with = "number")]
    pub value: f64,
    #[serde(deserialize_with = "number")]
    pub ratio: f64,
    pub level: String,
    pub framework: String,
    pub tokens_per_s_per_gpu: Option<f64>,
    pub tokens_per_s_per_user: Option<f64>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
pub struct Least {
    pub least_ttft_ms: Option<f64>,
    pub least_tpot_ms: Option<f64>,
}

/// The verdict: the level that it is about ("" where there is no plan), and its parts in words.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Words {
    pub level: String,
    pub headline: String,
    pub gives: String,
    pub known: String,
    pub starts: String,
    pub binds: String,
    /// The next level: its place among the rows of levels and frameworks, and how far behind it is.
    pub second: Option<(usize, f64)>,
    pub second_words: String,
    pub would_flip: Vec<String>,
    pub would_not_flip: Vec<String>,
}

impl Asked {
    /// The verdict in words.
    pub fn words(&self) -> Words {
        let Some(e) = self.chosen() else {
            return Words { headline: self.headline(), ..Words::default() };
        };
        let (would_flip, would_not_flip) = self.changes(e);
        let (second, second_words) = if e.feasible { self.second(e) } else { (None, String::new()) };
        Words {
            level: e.level.clone(),
            headline: self.headline(),
            gives: gives(e),
            known: known(e),
            starts: self.starts(e),
            binds: if e.feasible { self.binds(e) } else { self.short(e) },
            second,
            second_words,
            would_flip,
            would_not_flip,
        }
    }

    /// In one line what to deploy, or that nothing keeps the limits.
    pub fn headline(&self) -> String {
        let Some(best) = self.chosen() else {
            return "No plan: no layout of the levels searched fits the model and the budget".to_string();
        };
        let (level, kernels) = (&best.level, &best.framework);
        if !best.feasible {
            return format!("Nothing keeps the limits ({}); nearest: {level} with {kernels} kernels", self.limits());
        }
        let mut rates = format!("{} tokens/s per GPU", figure(of(best.tokens_per_s_per_gpu)));
        if let Some(user) = best.tokens_per_s_per_user {
            rates += &format!(", {} per user", figure(user));
        }
        format!("Deploy {level} with {kernels} kernels: {rates} on {} GPUs", best.gpus)
    }

    /// In the order of the levels.
    fn estimates(&self) -> impl Iterator<Item = &Told> {
        Level::ALL.iter().filter_map(|level| self.estimates.get(level.name()))
    }

    /// The best estimate of all; where none keeps the limits the nearest miss.
    fn chosen(&self) -> Option<&Told> {
        let value = |e: &Told| match self.objective.as_str() {
            "tokens_per_s" => of(e.tokens_per_s),
            "tokens_per_s_per_user" => of(e.tokens_per_s_per_user),
            _ => of(e.tokens_per_s_per_gpu),
        };
        let feasible = self.estimates().filter(|e| e.feasible);
        let best = feasible.reduce(|a, b| if value(b) > value(a) { b } else { a });
        best.or_else(|| self.estimates().reduce(|a, b| if self.over(b) < self.over(a) { b } else { a }))
    }

    /// How far the worst limit is exceeded.
    fn over(&self, e: &Told) -> f64 {
        let misfit = if e.binding.starts_with("memory") { NO_FIT } else { 0.0 };
        self.used(e).first().map_or(0.0, |(share, _)| *share) + misfit
    }

    /// The limits asked for: name, milliseconds, and what an estimate reaches of it.
    fn limited(&self) -> [(&'static str, Option<f64>); 2] {
        [("TTFT", self.slo.ttft_ms), ("TPOT", self.slo.tpot_ms)]
    }

    fn limits(&self) -> String {
        let given = self.limited().into_iter().filter_map(|(name, limit)| Some((name, limit?)));
        let told: Vec<String> = given.map(|(name, limit)| format!("{name} {} ms", digits(limit, 6))).collect();
        let said = if told.is_empty() { "none asked".to_string() } else { told.join(", ") };
        self.confidence.map_or(said.clone(), |chance| format!("{said} with {}", percent(chance)))
    }

    /// What levels are compared by, as it is shown.
    fn metric(&self, gpu: Option<f64>, user: Option<f64>) -> f64 {
        of(if self.objective == "tokens_per_s_per_user" { user } else { gpu })
    }

    fn rate(&self, e: &Told) -> f64 {
        self.metric(e.tokens_per_s_per_gpu, e.tokens_per_s_per_user)
    }

    fn starts(&self, e: &Told) -> String {
        if e.runnable {
            return e.server.clone().unwrap_or_else(|| e.framework.clone());
        }
        let why: Vec<String> = e.why_not.iter().map(ToString::to_string).collect();
        let why = if why.is_empty() { String::new() } else { format!(" ({})", why.join("; ")) };
        let text = format!("no released server{why}");
        let others = self.estimates().filter(|x| x.runnable && x.feasible);
        match others.reduce(|a, b| if self.rate(b) > self.rate(a) { b } else { a }) {
            Some(best) if e.feasible => {
                let (rate, behind) = (self.rate(best), change(self.rate(best) / self.rate(e)));
                let (level, framework) = (&best.level, &best.framework);
                format!("{text}; the best that one starts: {level} with {framework}, {} ({behind})", figure(rate))
            }
            _ => text,
        }
    }

    /// Shares of each limit that are used, the largest first, and their words.
    fn used(&self, e: &Told) -> Vec<(f64, String)> {
        let mut found = Vec::new();
        for ((name, limit), value) in self.limited().into_iter().zip([of(e.ttft_ms), of(e.tpot_ms)]) {
            if let Some(limit) = limit
                && value > 0.0
            {
                found.push((value / limit, format!("{name} {} of {} ms", digits(value, 4), digits(limit, 6))));
            }
        }
        for pool in e.filled() {
            let used = pool.used() + pool.outside;
            let (told, capacity) = (digits(used, 4), digits(pool.capacity, 4));
            let text = format!("memory of a GPU in {} {told} of {capacity} GiB", pool.pool);
            found.push((used / pool.capacity, text));
        }
        found.retain(|(share, _)| !share.is_nan());
        found.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| b.1.cmp(&a.1)));
        found
    }

    fn binds(&self, e: &Told) -> String {
        let used = self.used(e);
        let near = used.iter().filter(|(share, _)| *share >= NEAR).count();
        let said: Vec<String> =
            used.iter().take(near.max(1)).map(|(share, text)| format!("{text} ({})", percent(*share))).collect();
        match (near, said.is_empty()) {
            (_, true) => "nothing".to_string(),
            (0, false) => format!("no limit is near; the nearest is {}", said.join("; ")),
            _ => said.join("; "),
        }
    }

    /// What a miss is short of.
    fn short(&self, e: &Told) -> String {
        let over = self.used(e).into_iter().filter(|(share, _)| *share > 1.0);
        let mut said: Vec<String> = over.map(|(share, text)| format!("{text} ({share:.2}x)")).collect();
        let reached: [fn(&Least) -> Option<f64>; 2] = [|l| l.least_ttft_ms, |l| l.least_tpot_ms];
        for ((name, limit), reached) in self.limited().into_iter().zip(reached) {
            let least = self.least.iter().filter_map(reached).fold(f64::INFINITY, f64::min);
            if limit.is_some_and(|limit| least.is_finite() && least > limit) {
                said.push(format!("no plan's {name} is below {} ms", digits(least, 4)));
            }
        }
        match (said.is_empty(), e.binding.as_str()) {
            (false, _) => said.join("; "),
            (true, "") => "bound by nothing".to_string(),
            (true, binding) => format!("bound by {binding}"),
        }
    }

    /// The row that leads, of those that keep the limits and are wanted.
    fn leader(&self, wanted: impl Fn(&Contender) -> bool) -> Option<(usize, &Contender, f64)> {
        let rows = self.frameworks.iter().enumerate().filter(|(_, r)| r.feasible && wanted(r));
        let rated = rows.map(|(i, r)| (i, r, self.metric(r.tokens_per_s_per_gpu, r.tokens_per_s_per_user)));
        rated.reduce(|a, b| if b.2 > a.2 { b } else { a })
    }

    fn second(&self, best: &Told) -> (Option<(usize, f64)>, String) {
        let lead = self.rate(best);
        let said = |(_, r, rate): (usize, &Contender, f64)| {
            let equal = if r.equal { ", equal within what is known" } else { "" };
            format!("{} with {}, {} ({}{equal})", r.level, r.framework, figure(rate), change(rate / lead))
        };
        let Some(level) = self.leader(|r| r.level != best.level) else {
            return (None, "no other level keeps the limits".to_string());
        };
        let mut text = said(level);
        if let Some(lane) = self.leader(|r| r.framework != best.framework)
            && lane.1.framework != level.1.framework
        {
            text += &format!("; with other kernels {}", said(lane));
        }
        (Some((level.0, 1.0 - level.2 / lead)), text)
    }

    /// What flips the answer, and what does not.
    fn changes(&self, best: &Told) -> (Vec<String>, Vec<String>) {
        let (here, own) = if best.feasible { (self.rate(best), best.level.as_str()) } else { (f64::NAN, "") };
        let (mut out, mut steady) = (Vec::new(), Vec::new());
        let mut names: Vec<&str> = Vec::new();
        for row in &self.frameworks {
            if !names.contains(&row.framework.as_str()) {
                names.push(&row.framework);
            }
        }
        for name in names.into_iter().filter(|n| *n != best.framework) {
            let top = self.leader(|r| r.framework == name);
            if top.map_or("", |(_, r, _)| r.level.as_str()) != own {
                let reach = top.map_or("no level keeps the limits".to_string(), |(_, r, rate)| {
                    format!("{} leads with {}", r.level, figure(rate))
                });
                out.push(format!("kernels of {name}: {reach}"));
            }
        }
        for r in &self.flips {
            let (what, unit) = match r.what.as_str() {
                "ttft_ms" => ("TTFT limit", " ms"),
                "tpot_ms" => ("TPOT limit", " ms"),
                _ => ("GPUs", ""),
            };
            let (rate, by) = (self.metric(r.tokens_per_s_per_gpu, r.tokens_per_s_per_user), change(r.ratio));
            let leads = match r.level.as_str() {
                "" => "nothing keeps the limits".to_string(),
                level => format!("{level} with {}, {}", r.framework, figure(rate)),
            };
            if r.side != "at" {
                out.push(format!("{what} {} {}{unit} ({by}): {leads}", r.side, digits(r.value, 4)));
            } else if r.level != own {
                out.push(format!("{what} {by} ({}{unit}): {leads}", figure(r.value)));
            } else if here > 0.0 {
                steady.push(format!("{what} {by} (the rate moves by {})", change(rate / here)));
            } else {
                steady.push(format!("{what} {by} (still nothing keeps the limits)"));
            }
        }
        (out, steady)
    }
}

fn gives(e: &Told) -> String {
    let Some(ttft) = e.ttft_ms else { return String::new() };
    let idle = match e.gpus.saturating_sub(e.gpus_used) {
        0 => String::new(),
        idle => format!(", {idle} of {} GPUs idle", e.gpus),
    };
    let usd = e.usd_per_mtok.filter(|usd| *usd > 0.0);
    let cost = usd.map_or(String::new(), |usd| format!(", ${} per million output tokens", digits(usd, 3)));
    let between = |name: &str| {
        let ends = e.ends(name).map(|(low, high)| format!(" ({} to {} with 80 %)", figure(low), figure(high)));
        ends.unwrap_or_default()
    };
    let decodes = e.tpot_ms.filter(|t| *t > 0.0);
    let tpot = decodes.map_or(String::new(), |t| format!(", TPOT {} ms{}", digits(t, 4), between("tpot_ms")));
    let rate = format!("{}{}", figure(of(e.tokens_per_s)), between("tokens_per_s"));
    format!("{rate} output tokens/s in all, TTFT {} ms{}{tpot}{cost}{idle}", digits(ttft, 4), between("ttft_ms"))
}

fn known(e: &Told) -> String {
    let both = [("TTFT", measured(&e.evidence_ttft)), ("TPOT", measured(&e.evidence_tpot))];
    let told: Vec<String> =
        both.iter().filter(|(_, share)| !share.is_nan()).map(|(n, share)| format!("{n} {}", percent(*share))).collect();
    if told.is_empty() {
        return String::new();
    }
    let of_scaled = |shares: &BTreeMap<String, f64>| shares.get("scaled").copied().unwrap_or(0.0);
    let scaled = of_scaled(&e.evidence_ttft).max(of_scaled(&e.evidence_tpot));
    let more = match scaled > 0.0 {
        true => format!("; up to {} measured and scaled to a what-if device", percent(scaled)),
        false => String::new(),
    };
    let all = e.measured_share.map_or("none".to_string(), percent);
    format!("{all} measured or interpolated ({}){more}", told.join(", "))
}
