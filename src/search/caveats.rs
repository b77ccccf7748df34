//! What should be known beside a study's answer, in words: whose tables stand in, where frameworks disagree, how
//! little of the winner is known, limits that look like another unit.
//!
//! Limit: warns by thresholds set by hand (`HALF`, `SECONDS`), of what the study itself has seen.

use super::study::{Study, Verdict};
use crate::serving::Known;
use crate::spec::Level;

/// Known less than this, an answer is a guess of which half was measured.
const HALF: f64 = 0.5;
/// A limit so many times below what any plan reaches was meant in seconds.
const SECONDS: f64 = 200.0;

fn percent(share: f64) -> String {
    format!("{:.0} %", 100.0 * share)
}

impl Study {
    /// All of it; empty if there is nothing to warn of.
    pub fn caveats(&self) -> Vec<String> {
        let mut out: Vec<String> = Vec::new();
        out.extend(self.libraries.first().and_then(|l| l.what_if()));
        out.extend(self.disagreement());
        out.extend(self.little_known());
        out.extend(self.seconds_meant());
        out
    }

    /// The verdict that nothing beats, among those of one framework or of all.
    pub(super) fn winner<'a>(&self, verdicts: impl Iterator<Item = &'a Verdict>) -> Option<&'a Verdict> {
        let gain = |v: &Verdict| v.row.map_or(0.0, |i| self.gain(&self.rows[i]));
        verdicts.filter(|v| v.feasible).reduce(|a, b| if gain(b) > gain(a) { b } else { a })
    }

    fn disagreement(&self) -> Option<String> {
        let names = self.question.case.named();
        let each: Vec<(&str, Option<Level>)> = names
            .iter()
            .enumerate()
            .map(|(f, name)| {
                let own = self.by_framework.iter().filter(|(k, _)| *k == f).map(|(_, v)| v);
                (name.name(), self.winner(own).map(|v| v.level))
            })
            .collect();
        if each.windows(2).all(|w| w[0].1 == w[1].1) {
            return None;
        }
        let say = |(name, level): &(&str, Option<Level>)| {
            format!("{} with {name}", level.map_or("none feasible", Level::name))
        };
        let words: Vec<String> = each.iter().map(say).collect();
        Some(format!("frameworks disagree on the winning level: {}", words.join(", ")))
    }

    fn little_known(&self) -> Option<String> {
        let v = self.winner(self.verdicts.iter())?;
        let row = &self.rows[v.row?];
        let known = &row.point.evidence;
        if known.share() >= HALF {
            return None;
        }
        let framework = &self.question.case.named()[usize::from(row.framework)];
        let say = |known: &Known| {
            let scaled = known.scaled();
            let also = if scaled > 0.0 { format!(" ({} scaled)", percent(scaled)) } else { String::new() };
            format!("{}{also}", percent(known.share()))
        };
        let mut text = format!("the winner ({} with {framework}) is known less than half: ", v.level.name());
        text.push_str(&format!("measured or interpolated is {} of TTFT", say(&known.ttft)));
        if known.tpot.share().is_finite() {
            text.push_str(&format!(", {} of TPOT", say(&known.tpot)));
        }
        let well = |v: &&Verdict| v.row.is_some_and(|i| self.rows[i].point.evidence.share() >= HALF);
        if let Some(other) = self.winner(self.by_framework.iter().map(|(_, v)| v).filter(well))
            && let Some(at) = other.row.map(|i| &self.rows[i])
        {
            let name = &self.question.case.named()[usize::from(at.framework)];
            let behind = 100.0 * (1.0 - self.gain(at) / self.gain(row));
            text.push_str(&format!(
                "; best of what is known better: {} with {name}, {behind:.0} % less",
                other.level.name()
            ));
        }
        Some(text)
    }

    fn seconds_meant(&self) -> Option<String> {
        if self.verdicts.iter().any(|v| v.feasible) {
            return None;
        }
        let slo = &self.question.slo;
        let least = |of: fn(&Verdict) -> f64| self.verdicts.iter().map(of).fold(f64::INFINITY, f64::min) * 1e3;
        let mut wrong = Vec::new();
        for (name, limit, least) in
            [("ttft_ms", slo.ttft_ms, least(|v| v.least_ttft_s)), ("tpot_ms", slo.tpot_ms, least(|v| v.least_tpot_s))]
        {
            if let Some(limit) = limit.filter(|l| least.is_finite() && least > SECONDS * l) {
                wrong.push(format!(
                    "{name}={limit} is {limit} ms, and no plan is below {least:.3} ms; did you mean {name}={}?",
                    limit * 1e3
                ));
            }
        }
        (!wrong.is_empty()).then(|| format!("limits are in milliseconds: {}", wrong.join("; ")))
    }
}
