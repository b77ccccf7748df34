//! ServeGen (alibaba/ServeGen, arXiv 2505.09999): a day of a service as its clients, drawn anew.
//!
//! A directory, or a tar of one (gzip or plain), of pairs `chunk-<k>-trace.csv` (a row a window: start_s,
//! requests per second, CV of the gaps, Gamma or Weibull or nothing, shape, scale) and
//! `chunk-<k>-dataset.json` (histograms of prompt and answer lengths from a time on). In each window a client
//! is a stationary renewal process: gaps of mean 1/rate and of the window's shape; the first arrival comes
//! after what is left of the gap that the window's start falls into, U x a length-biased gap. So a window holds
//! rate x length requests in the mean, however bursty. Lengths are drawn from the client's histogram of
//! the hour, prompt and answer independently: what binds them is which client asks. Limits: windows know
//! nothing of each other; shares of reasoning are left out; before its first histogram a client takes that one.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::Path;

use rand_pcg::Pcg64;
use serde_json::Value;

use super::rows::OnError;
use super::{Said, Trace, draw, text};
use crate::error::{Error, Problems, Result};
use crate::sim::{Requests, to_ps};

/// Streams of the generator; clients have their own.
const STREAM: u128 = 16;

#[derive(Clone, Copy)]
enum Gap {
    Gamma { cv: f64 },
    Weibull { shape: f64, scale: f64 },
}

impl Gap {
    /// A gap of mean 1.
    fn draw(self, rng: &mut Pcg64) -> f64 {
        match self {
            Gap::Gamma { cv } => draw::gap(rng, cv),
            Gap::Weibull { shape, scale } => scale * draw::exponential(rng).powf(1.0 / shape),
        }
    }

    /// What is left of the gap around a time of no account.
    fn residual(self, rng: &mut Pcg64) -> f64 {
        let around = match self {
            Gap::Gamma { cv: 0.0 } => 1.0,
            // Length-biased: one more of the shape, at the same scale.
            Gap::Gamma { cv } => (1.0 + cv * cv) * draw::gamma(rng, 1.0 / (cv * cv) + 1.0),
            Gap::Weibull { shape, scale } => {
                let k = 1.0 + 1.0 / shape;
                scale * (k * draw::gamma(rng, k)).powf(1.0 / shape)
            }
        };
        draw::uniform(rng) * around
    }
}

struct Window {
    start_s: f64,
    rate: f64,
    gap: Gap,
}

/// Values and their running shares.
struct Histogram(Vec<(u32, f64)>);

impl Histogram {
    /// `{45: 0.0097, 46: 0.0117}`, as Python prints a dictionary; nothing if it is empty.
    fn read(text: &str) -> Said<Option<Histogram>> {
        let inner =
            text.trim().strip_prefix('{').and_then(|t| t.strip_suffix('}')).ok_or("is not a {length: share}")?;
        let mut sum = 0.0;
        let mut rows = Vec::new();
        for pair in inner.split(',').filter(|p| !p.trim().is_empty()) {
            let bad = || format!("'{pair}' is not a length and its share");
            let (value, share) = pair.split_once(':').ok_or_else(bad)?;
            let value: u32 = value.trim().parse().map_err(|_| bad())?;
            let share: f64 = share.trim().parse().map_err(|_| bad())?;
            if !(share >= 0.0 && share.is_finite()) || value > 1 << 31 {
                return Err(bad());
            }
            sum += share;
            rows.push((value.max(1), sum));
        }
        Ok((sum > 0.0).then_some(Histogram(rows)))
    }

    fn draw(&self, rng: &mut Pcg64) -> u32 {
        let total = self.0.last().map_or(0.0, |r| r.1);
        let u = draw::uniform(rng) * total;
        let at = self.0.partition_point(|r| r.1 <= u).min(self.0.len().saturating_sub(1));
        self.0.get(at).map_or(1, |r| r.0)
    }
}

/// Prompt and answer lengths from `start_s` on.
struct Lengths {
    start_s: f64,
    prompt: Histogram,
    answer: Histogram,
}

#[derive(Default)]
struct Client {
    windows: Vec<Window>,
    lengths: Vec<Lengths>,
}

/// Whether unpacked bytes are a tar (POSIX.1-1988, at 257 of its first header).
pub(super) fn is_tar(bytes: &[u8]) -> bool {
    bytes.get(257..262) == Some(b"ustar")
}

/// Name and bytes of every file in a directory or a tar.
fn files(path: &Path) -> Result<BTreeMap<String, Vec<u8>>> {
    let fail = |e: std::io::Error| Error::data(path.display().to_string(), e.to_string());
    let mut out = BTreeMap::new();
    if path.is_dir() {
        for entry in fs::read_dir(path).map_err(fail)? {
            let p = entry.map_err(fail)?.path();
            if let (true, Some(name)) = (p.is_file(), p.file_name()) {
                out.insert(name.to_string_lossy().into_owned(), text::bytes(&p)?);
            }
        }
        return Ok(out);
    }
    let bytes = text::bytes(path)?;
    for entry in tar::Archive::new(bytes.as_slice()).entries().map_err(fail)? {
        let mut entry = entry.map_err(fail)?;
        let name = entry.path().map_err(fail)?.file_name().map(|n| n.to_string_lossy().into_owned());
        if let (true, Some(name)) = (entry.header().entry_type().is_file(), name) {
            let mut inside = Vec::new();
            entry.read_to_end(&mut inside).map_err(fail)?;
            out.insert(name, inside);
        }
    }
    Ok(out)
}

fn window(line: &str) -> Said<Window> {
    let cells: Vec<&str> = line.split(',').map(str::trim).collect();
    let number = |i: usize, what: &str| -> Said<f64> {
        let found = cells.get(i).and_then(|c| c.parse::<f64>().ok()).filter(|x| *x >= 0.0 && x.is_finite());
        found.ok_or_else(|| format!("{what} is not a number from 0"))
    };
    let (start_s, rate) = (number(0, "the start of the window")?, number(1, "the rate")?);
    let gap = match cells.get(3).copied().unwrap_or("") {
        "Weibull" => {
            let shape = number(4, "the shape")?;
            if !(0.05..=100.0).contains(&shape) {
                return Err(format!("a Weibull shape of {shape} is not from 0.05 to 100"));
            }
            Gap::Weibull { shape, scale: 1.0 / libm::tgamma(1.0 + 1.0 / shape) }
        }
        "Gamma" => {
            let cv = number(2, "the CV of the gaps")?;
            if !(cv == 0.0 || (0.01..=100.0).contains(&cv)) {
                return Err(format!("a CV of {cv} is not 0 or from 0.01 to 100"));
            }
            Gap::Gamma { cv }
        }
        // One request in a window has no gaps to fit.
        "" => Gap::Gamma { cv: 1.0 },
        other => return Err(format!("gaps of kind '{other}' are not known: Gamma or Weibull")),
    };
    Ok(Window { start_s, rate, gap })
}

fn lengths(from: &str, of: &Value) -> Said<Option<Lengths>> {
    let start_s: f64 = from.parse().map_err(|_| format!("'{from}' is not a time"))?;
    let histogram = |name: &str| {
        let text = of.get(name).and_then(Value::as_str).ok_or_else(|| format!("{name} is missing"))?;
        Histogram::read(text).map_err(|why| format!("{name}: {why}"))
    };
    let (prompt, answer) = (histogram("input_tokens")?, histogram("output_tokens")?);
    Ok(prompt.zip(answer).map(|(prompt, answer)| Lengths { start_s, prompt, answer }))
}

/// What was read of all clients, and how many lines were not.
fn clients(path: &Path, on_error: OnError) -> Result<(Vec<Client>, u64)> {
    let mut found: BTreeMap<u32, Client> = BTreeMap::new();
    let mut skipped = 0;
    let mut refuse = |place: String, why: String| {
        if on_error == OnError::Skip {
            skipped += 1;
            return Ok(());
        }
        Err(Error::data(place, format!("{why} (on_error=\"skip\" leaves such lines out)")))
    };
    for (name, bytes) in files(path)? {
        let number = |end: &str| name.strip_prefix("chunk-")?.strip_suffix(end)?.parse::<u32>().ok();
        let place = |line: usize| format!("{}/{name}:{line}", path.display());
        let text = String::from_utf8_lossy(&bytes);
        if let Some(k) = number("-trace.csv") {
            let client = found.entry(k).or_default();
            for (i, line) in text.lines().enumerate().filter(|(_, l)| !l.trim().is_empty()) {
                match window(line) {
                    Ok(w) if client.windows.last().is_some_and(|before| w.start_s <= before.start_s) => {
                        refuse(place(i + 1), "windows do not rise in time".into())?;
                    }
                    Ok(w) => client.windows.push(w),
                    Err(why) => refuse(place(i + 1), why)?,
                }
            }
        } else if let Some(k) = number("-dataset.json") {
            let client = found.entry(k).or_default();
            let all: Value = match serde_json::from_str(&text) {
                Ok(all) => all,
                Err(e) => {
                    refuse(place(e.line()), e.to_string())?;
                    continue;
                }
            };
            for (from, of) in all.as_object().into_iter().flatten() {
                match lengths(from, of) {
                    Ok(l) => client.lengths.extend(l),
                    Err(why) => refuse(place(1), format!("{from}: {why}"))?,
                }
            }
            client.lengths.sort_by(|a, b| a.start_s.total_cmp(&b.start_s));
        }
    }
    let all: Vec<Client> = found.into_values().filter(|c| !c.windows.is_empty() && !c.lengths.is_empty()).collect();
    if all.is_empty() {
        let what = "holds no client: pairs of chunk-<k>-trace.csv and chunk-<k>-dataset.json";
        return Err(Error::data(path.display().to_string(), what));
    }
    Ok((all, skipped))
}

impl Client {
    /// Hands on (arrival, prompt, answer) of every request from `start_s` to before `end_s`.
    fn play(&self, rng: &mut Pcg64, start_s: f64, end_s: f64, mut take: impl FnMut(f64, u32, u32)) {
        let ends = self.windows.iter().skip(1).map(|w| w.start_s);
        let n = self.windows.len();
        let usual = if n > 1 { self.windows[n - 1].start_s - self.windows[n - 2].start_s } else { 600.0 };
        let last = self.windows[n - 1].start_s + usual;
        for (w, until) in self.windows.iter().zip(ends.chain([last])) {
            let (from, until) = (w.start_s.max(start_s), until.min(end_s));
            if w.rate <= 0.0 || until <= from {
                continue;
            }
            let mut at = from + w.gap.residual(rng) / w.rate;
            while at < until {
                let of = &self.lengths[self.lengths.partition_point(|l| l.start_s <= at).saturating_sub(1)];
                take(at, of.prompt.draw(rng), of.answer.draw(rng));
                at += w.gap.draw(rng) / w.rate;
            }
        }
    }
}

/// The requests of `start_s` to before `end_s` of the day, moved to start at 0; a session is a client.
///
/// # Errors
/// If the files cannot be read, hold no client or no request in that time.
pub fn servegen(path: &Path, start_s: f64, end_s: Option<f64>, seed: u64, on_error: OnError) -> Result<Trace> {
    let end = end_s.unwrap_or(f64::MAX);
    let mut p = Problems::new();
    if !(0.0..1.8e7).contains(&start_s) {
        p.push("start_s", format!("must be from 0 to 1.8e7, is {start_s}"), "seconds of the day");
    }
    if end <= start_s || end.is_nan() {
        p.push("end_s", format!("must be above start_s, is {end}"), "seconds of the day");
    }
    p.into_result()?;
    let (all, skipped) = clients(path, on_error)?;
    let mut rows: Vec<(u64, u32, u32, u32)> = Vec::new();
    for (k, client) in all.iter().enumerate() {
        let mut rng = Pcg64::new(u128::from(seed), STREAM + k as u128);
        client.play(&mut rng, start_s, end, |at, prompt, answer| {
            rows.push((to_ps(at - start_s), k as u32, prompt, answer));
        });
    }
    if rows.is_empty() {
        return Err(Error::data(path.display().to_string(), "holds no request in that time"));
    }
    // Stable: a client's own order stays.
    rows.sort_by_key(|r| (r.0, r.1));
    let requests = Requests {
        arrival_ps: rows.iter().map(|r| r.0).collect(),
        isl: rows.iter().map(|r| r.2).collect(),
        osl: rows.iter().map(|r| r.3).collect(),
        session: rows.iter().map(|r| r.1).collect(),
        ..Requests::default()
    };
    Ok(Trace { requests, source: format!("{}, drawn with seed {seed}", path.display()), skipped, notes: Vec::new() })
}
