//! Which column is what: names that public traces, servers and benchmarks give to arrivals, lengths and sessions.
//!
//! Names are compared in small letters with one underscore between words (`ContextTokens` is `context_tokens`);
//! a unit at the end (`arrival_ms`, `time (s)`) is taken off. Two columns that could both be a length are
//! refused: the caller says which.
//!
//! Limit: English names of known tools; others are told by the caller.

use super::moment::Unit;
use crate::error::{Problems, Result, near};

/// Names of arrivals, the surest first.
const ARRIVAL: &[&str] = &[
    "arrived_at",
    "arrival",
    "arrival_time",
    "arrival_timestamp",
    "arrivals",
    "arrived",
    "request_arrival",
    "request_arrival_time",
    "arrive_time",
    "timestamp",
    "time_stamp",
    "ts",
    "t",
    "datetime",
    "date_time",
    "request_time",
    "request_timestamp",
    "request_ts",
    "sent_at",
    "send_time",
    "submit_time",
    "submitted_at",
    "received_at",
    "receive_time",
    "created_at",
    "created",
    "start_time",
    "start_times",
    "started_at",
    "time",
    "queued_ts",
];

pub(super) const ISL: &[&str] = &[
    "num_prefill_tokens",
    "input_tokens",
    "context_tokens",
    "request_tokens",
    "input_length",
    "input_toks",
    "isl",
    "prompt_tokens",
    "prompt_len",
    "prompt_length",
    "input_len",
    "input_sequence_length",
    "num_prompt_tokens",
    "num_input_tokens",
    "n_prompt_tokens",
    "n_input_tokens",
    "prompt_token_count",
    "input_token_count",
    "prompt_toks",
    "prefill_tokens",
    "tokens_in",
    "in_tokens",
    "in",
    "input_lens",
    "usage_prompt_tokens",
    "usage_input_tokens",
];

pub(super) const OSL: &[&str] = &[
    "num_decode_tokens",
    "output_tokens",
    "generated_tokens",
    "response_tokens",
    "output_length",
    "output_toks",
    "osl",
    "completion_tokens",
    "completion_len",
    "completion_length",
    "output_len",
    "output_sequence_length",
    "num_completion_tokens",
    "num_output_tokens",
    "num_generated_tokens",
    "n_completion_tokens",
    "n_output_tokens",
    "completion_token_count",
    "output_token_count",
    "generation_tokens",
    "generation_len",
    "response_len",
    "response_length",
    "answer_tokens",
    "decode_tokens",
    "tokens_out",
    "out_tokens",
    "out",
    "output_lens",
    "usage_completion_tokens",
    "usage_output_tokens",
];

const PREFIX: &[&str] = &[
    "cached_prefix_tokens_inf",
    "cached_prefix_tokens",
    "prefix",
    "prefix_tokens",
    "prefix_len",
    "prefix_length",
    "cached_tokens",
    "num_cached_tokens",
    "cached_prompt_tokens",
];

const SESSION: &[&str] =
    &["session", "session_id", "conversation_id", "conversation", "conv_id", "dialog_id", "thread_id", "chat_id"];

/// Names of a request's own name.
const REQUEST: &[&str] = &["request_id", "req_id", "requestid", "uuid", "id"];

/// A name in small letters, one underscore between words.
fn plain(name: &str) -> String {
    let mut out = String::with_capacity(name.len() + 4);
    let mut small = false;
    for c in name.chars() {
        if c.is_alphanumeric() {
            if c.is_uppercase() && small {
                out.push('_');
            }
            out.extend(c.to_lowercase());
        } else if !out.ends_with('_') {
            out.push('_');
        }
        small = c.is_lowercase() || c.is_numeric();
    }
    out.trim_matches('_').to_string()
}

/// A plain name without its unit.
fn unit(plain: &str) -> (&str, Option<Unit>) {
    const ENDS: [(&str, Unit); 21] = [
        ("_s", Unit::Seconds),
        ("_sec", Unit::Seconds),
        ("_secs", Unit::Seconds),
        ("_second", Unit::Seconds),
        ("_seconds", Unit::Seconds),
        ("_in_s", Unit::Seconds),
        ("_ms", Unit::Milliseconds),
        ("_msec", Unit::Milliseconds),
        ("_millis", Unit::Milliseconds),
        ("_millisecond", Unit::Milliseconds),
        ("_milliseconds", Unit::Milliseconds),
        ("_in_ms", Unit::Milliseconds),
        ("_us", Unit::Microseconds),
        ("_usec", Unit::Microseconds),
        ("_micros", Unit::Microseconds),
        ("_microseconds", Unit::Microseconds),
        ("_in_us", Unit::Microseconds),
        ("_ns", Unit::Nanoseconds),
        ("_nanos", Unit::Nanoseconds),
        ("_nanoseconds", Unit::Nanoseconds),
        ("_in_ns", Unit::Nanoseconds),
    ];
    let longest =
        ENDS.iter().filter_map(|(end, u)| Some((plain.strip_suffix(end)?, Some(*u)))).min_by_key(|f| f.0.len());
    longest.unwrap_or((plain, None))
}

/// Columns as the caller names them; what is left out is found by its name.
#[derive(Clone, Debug, Default)]
pub struct Named {
    pub arrival: Option<String>,
    pub isl: Option<String>,
    pub osl: Option<String>,
    pub prefix: Option<String>,
    pub session: Option<String>,
}

/// Where the parts of a request stand.
#[derive(Clone, Debug, Default)]
pub(super) struct Roles {
    pub arrival: Option<(usize, Option<Unit>)>,
    pub delay: Option<(usize, Unit)>,
    pub isl: Option<usize>,
    pub osl: Option<usize>,
    pub prefix: Option<usize>,
    pub session: Option<usize>,
    pub parent: Option<usize>,
    pub request: Option<usize>,
    pub ids: Option<usize>,
    pub runs: Option<usize>,
    /// Bailian's own: chats that name the one before, seconds, blocks of 16 tokens.
    pub bailian: bool,
    /// Other columns that could have been the arrivals.
    pub others: Vec<String>,
}

struct Columns<'a> {
    names: &'a [String],
    plain: Vec<String>,
    problems: Problems,
}

impl Columns<'_> {
    /// The column that the caller names.
    fn own(&mut self, field: &str, name: &str) -> Option<usize> {
        let twice = self.names.iter().filter(|n| *n == name).count() > 1;
        let exact = self.names.iter().position(|n| n == name);
        let found = exact.or_else(|| self.names.iter().position(|n| n.trim().eq_ignore_ascii_case(name.trim())));
        if twice {
            self.problems.push(field, format!("two columns are called '{name}'"), "rename one");
        } else if found.is_none() {
            let text = format!("no column '{name}' in: {}", self.names.join(", "));
            self.problems.push(field, text, near(name, self.names));
        }
        found
    }

    fn all(&self, known: &[&str]) -> Vec<usize> {
        let columns = || self.plain.iter().enumerate();
        known.iter().flat_map(|k| columns().filter(move |(_, p)| p == k).map(|(i, _)| i)).collect()
    }

    fn length(&mut self, field: &str, given: Option<&str>, known: &[&str]) -> Option<usize> {
        if let Some(name) = given {
            return self.own(field, name);
        }
        let found = self.all(known);
        if let [first, second, ..] = found[..] {
            let (a, b) = (&self.names[first], &self.names[second]);
            self.problems.push(field, format!("could be column '{a}' or '{b}'"), format!("say {field}='{a}'"));
        }
        found.first().copied()
    }
}

/// Where the parts of a request stand among columns of these names.
///
/// # Errors
/// A column that the caller names and that is not there, and lengths that could be two columns.
pub(super) fn roles(names: &[String], named: &Named) -> Result<Roles> {
    let mut c = Columns { names, plain: names.iter().map(|n| plain(n)).collect(), problems: Problems::new() };
    let mut out = Roles {
        isl: c.length("isl", named.isl.as_deref(), ISL),
        osl: c.length("osl", named.osl.as_deref(), OSL),
        prefix: c.length("prefix", named.prefix.as_deref(), PREFIX),
        session: match named.session.as_deref() {
            Some(name) => c.own("session", name),
            None => c.all(SESSION).first().copied(),
        },
        request: c.all(REQUEST).first().copied(),
        parent: c.all(&["parent_chat_id"]).first().copied(),
        ids: c.all(&["hash_ids"]).first().copied(),
        runs: c.all(&["hash_rle"]).first().copied(),
        ..Roles::default()
    };
    let chat = c.all(&["chat_id"]).first().copied().filter(|_| out.parent.is_some());
    (out.bailian, out.request) = (chat.is_some(), chat.or(out.request));
    let based: Vec<(usize, &str, Option<Unit>)> =
        c.plain.iter().enumerate().map(|(i, p)| (i, unit(p).0, unit(p).1)).collect();
    let delays = based.iter().find(|(_, base, _)| *base == "delay");
    out.delay = delays.map(|(i, _, u)| (*i, u.unwrap_or(Unit::Milliseconds)));
    let all: Vec<(usize, Option<Unit>)> = ARRIVAL
        .iter()
        .flat_map(|k| based.iter().filter(move |(_, base, _)| base == k).map(|(i, _, u)| (*i, *u)))
        .collect();
    out.others = all.iter().skip(1).map(|(i, _)| names[*i].clone()).collect();
    out.arrival = match named.arrival.as_deref() {
        Some(name) => c.own("arrival", name).map(|i| (i, unit(&c.plain[i]).1)),
        None => all.first().copied(),
    };
    let twice = [out.isl, out.osl, out.arrival.map(|a| a.0), out.prefix].into_iter().flatten();
    for i in twice.collect::<Vec<_>>() {
        if names.iter().filter(|n| **n == names[i]).count() > 1 {
            c.problems.push("columns", format!("two are called '{}'", names[i]), "rename one");
        }
    }
    c.problems.into_result().map(|()| out)
}
