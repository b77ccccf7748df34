//! A timeline in the Chrome trace event format, which Perfetto opens: complete events ("X"), time
//! in microseconds, a process per instance and a thread per lane.
//!
//! Limit: spans only: no counters, no flows between instances.

use serde_json::json;

use super::Span;

/// The whole file as text; `names` are those of the instances.
pub fn to_json(timeline: &[Span], names: &[String]) -> String {
    let mut events = Vec::with_capacity(timeline.len() + names.len());
    for (i, name) in names.iter().enumerate() {
        events.push(json!({"name": "process_name", "ph": "M", "pid": i, "tid": 0, "args": {"name": name}}));
    }
    for s in timeline {
        events.push(json!({
            "name": s.kind.name(), "cat": s.kind.name(), "ph": "X", "pid": s.instance, "tid": s.lane,
            "ts": s.start_ps as f64 / 1e6, "dur": (s.end_ps - s.start_ps) as f64 / 1e6,
            "args": {"batch": s.batch, "steps": s.steps},
        }));
    }
    json!({"traceEvents": events, "displayTimeUnit": "ms"}).to_string()
}
