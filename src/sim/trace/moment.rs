//! When a row came: dates with their UTC offsets, or numbers of a unit; no digit is lost on the way to picoseconds.
//!
//! A number without a unit is an epoch where it lies between 1990 and 2100 in seconds, milli-, micro- or
//! nanoseconds; else what its format or the caller says, else seconds. Limits: times of day without an offset are
//! taken as they stand (no summer time), and dates are year first.

use jiff::Timestamp;
use serde_json::Value;

use super::Said;

/// What a number of a time column counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    Seconds,
    Milliseconds,
    Microseconds,
    Nanoseconds,
}

impl Unit {
    pub const ALL: [(&'static str, Unit); 4] =
        [("s", Unit::Seconds), ("ms", Unit::Milliseconds), ("us", Unit::Microseconds), ("ns", Unit::Nanoseconds)];

    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, u)| *u == self).map_or("s", |(n, _)| n)
    }

    /// How many of it a second has.
    fn per_second(self) -> i64 {
        match self {
            Unit::Seconds => 1,
            Unit::Milliseconds => 1_000,
            Unit::Microseconds => 1_000_000,
            Unit::Nanoseconds => 1_000_000_000,
        }
    }

    /// The unit of an epoch between 1990 and 2100.
    pub(super) fn of_epoch(value: f64) -> Option<Unit> {
        Self::ALL.iter().map(|(_, u)| *u).find(|u| (6.3e8..4.2e9).contains(&(value / u.per_second() as f64)))
    }
}

/// Whole seconds and the part of one, kept apart to lose no digits.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Moment {
    pub s: i64,
    pub part: f64,
}

impl Moment {
    /// Seconds since `base`.
    pub fn since(self, base: Moment) -> f64 {
        (self.s - base.s) as f64 + (self.part - base.part)
    }

    pub fn plus(self, seconds: f64) -> Moment {
        Moment { part: self.part + seconds, ..self }
    }
}

/// A time as a row says it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Time {
    Number { whole: i64, part: f64 },
    Date { at: Moment, offset: bool },
}

impl Time {
    pub fn number(self) -> Option<f64> {
        match self {
            Time::Number { whole, part } => Some(whole as f64 + part),
            Time::Date { .. } => None,
        }
    }

    pub fn moment(self, unit: Unit) -> Moment {
        match self {
            Time::Number { whole, part } => {
                let per = unit.per_second();
                let rest = whole.rem_euclid(per) as f64 + part;
                Moment { s: whole.div_euclid(per), part: rest / per as f64 }
            }
            Time::Date { at, .. } => at,
        }
    }

    fn of(x: f64) -> Option<Time> {
        (x.abs() < 9e18).then(|| Time::Number { whole: x.floor() as i64, part: x - x.floor() })
    }
}

/// A number as text has it; `comma`: with a comma for the point.
pub(super) fn parse(text: &str, comma: bool) -> Option<f64> {
    let text = text.trim();
    let found = if comma && !text.contains('.') { text.replacen(',', ".", 1).parse() } else { text.parse::<f64>() };
    found.ok().filter(|x| x.is_finite())
}

/// The time that a cell says.
pub(super) fn time(cell: &Value, comma: bool) -> Said<Time> {
    let bad = |what: &str| format!("'{what}' is not a time: a number, or a date like 2023-11-16 18:15:46.68+00:00");
    match cell {
        Value::Number(n) => match n.as_i64() {
            Some(whole) => Ok(Time::Number { whole, part: 0.0 }),
            None => n.as_f64().and_then(Time::of).ok_or_else(|| bad(&n.to_string())),
        },
        Value::String(text) => {
            if let Ok(whole) = text.trim().parse::<i64>() {
                return Ok(Time::Number { whole, part: 0.0 });
            }
            if let Some(x) = parse(text, comma) {
                return Time::of(x).ok_or_else(|| bad(text));
            }
            date(text).ok_or_else(|| bad(text))
        }
        Value::Null => Err("has no time".into()),
        other => Err(bad(&other.to_string())),
    }
}

fn date(text: &str) -> Option<Time> {
    // Year first, a point before the fraction, no blank before the offset, at most nine digits.
    let mut tidy = text.trim().trim_end_matches("UTC").trim_end().to_string();
    let utc = text.trim().ends_with("UTC");
    if tidy.get(4..5) == Some("/") {
        tidy = tidy.replacen('/', "-", 2);
    }
    tidy = tidy.replace(',', ".");
    if tidy.matches(' ').count() > 1 || tidy.contains('T') && tidy.contains(' ') {
        let at = tidy.rfind(' ')?;
        if !tidy[at + 1..].starts_with(['+', '-', 'Z']) {
            return None;
        }
        tidy.remove(at);
    }
    if let Some(point) = tidy.find('.') {
        let digits = tidy[point + 1..].bytes().take_while(u8::is_ascii_digit).count();
        if digits > 9 {
            tidy.replace_range(point + 10..point + 1 + digits, "");
        }
    }
    if utc {
        tidy.push('Z');
    }
    let of = |t: Timestamp, offset| {
        let ns = t.as_nanosecond();
        let (s, rest) = (ns.div_euclid(1_000_000_000), ns.rem_euclid(1_000_000_000));
        Time::Date { at: Moment { s: s as i64, part: rest as f64 * 1e-9 }, offset }
    };
    if let Ok(t) = tidy.parse::<Timestamp>() {
        return Some(of(t, true));
    }
    // What has an offset and is no time must not lose it.
    let clock = tidy.get(11..).unwrap_or("");
    if clock.is_empty() || clock.contains(['+', '-', 'Z', 'z', '[']) {
        return None;
    }
    format!("{tidy}Z").parse().ok().map(|t| of(t, false))
}
