//! Versions of a framework: their order, and which stand behind others where none is named.
//!
//! The current version of a framework answers alone for the tables that it has. A table that it has not is answered by the
//! newest version that has one, and lanes (`overlay`) that this lacks by the others, newest first: each measured the models of its
//! month. A version that is named stands in front of the current one in the same way. Versions before the current one stand
//! behind nothing: what they hold beside a newer table was measured again. Builds between releases (`dev`) have numbers that
//! say nothing of their age and count as newer. Libraries of collectives have no current version: their newest answers alone.
//!
//! Limit: `CURRENT` is set by hand with the pack; ages of builds between releases are not known.

use std::cmp::Ordering;

/// The version of each framework that lookups mean when they name none.
const CURRENT: [(&str, &str); 3] = [("sglang", "0.5.14"), ("trtllm", "1.3.0rc20"), ("vllm", "0.24.0")];

/// The current version of a framework.
pub(super) fn current(framework: &str) -> Option<&'static str> {
    CURRENT.iter().find(|c| c.0 == framework).map(|c| c.1)
}

/// Whether a version may answer for what the one in front of it lacks.
pub(super) fn stands_behind(framework: &str, version: &str) -> bool {
    let newer = |c: &str| version.contains("dev") || compare_versions(version, c) != Ordering::Less;
    current(framework).is_some_and(newer)
}

/// Orders versions as people do: by number, a release candidate before its release, a post-release after.
pub fn compare_versions(a: &str, b: &str) -> Ordering {
    let (a, b) = (version_parts(a), version_parts(b));
    let end = (1, 0, String::new());
    for i in 0..a.len().max(b.len()) {
        let order = a.get(i).unwrap_or(&end).cmp(b.get(i).unwrap_or(&end));
        if order.is_ne() {
            return order;
        }
    }
    Ordering::Equal
}

/// (rank, number, word) per part: words that come before a release 0, the end 1, post 2, numbers 3.
fn version_parts(v: &str) -> Vec<(u8, u64, String)> {
    let mut out: Vec<(u8, u64, String)> = Vec::new();
    let mut rest = v;
    while let Some(c) = rest.chars().next() {
        let digits = c.is_ascii_digit();
        let end = rest.find(|x: char| x == '.' || x.is_ascii_digit() != digits).unwrap_or(rest.len());
        if end == 0 {
            rest = &rest[1..];
            continue;
        }
        let (part, tail) = rest.split_at(end);
        rest = tail;
        out.push(match part.parse::<u64>() {
            Ok(n) if digits => (3, n, String::new()),
            _ => (if part == "post" { 2 } else { 0 }, 0, part.to_string()),
        });
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_rise_as_people_read_them() {
        let rising = ["0.5.6", "0.5.6.post2", "0.5.12", "0.24.0", "1.3.0rc9", "1.3.0rc20", "1.3.0", "2.27", "2.27.3"];
        for w in rising.windows(2) {
            assert_eq!(compare_versions(w[0], w[1]), Ordering::Less, "{w:?}");
        }
    }
}
