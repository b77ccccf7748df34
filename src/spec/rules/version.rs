//! Versions of servers: numbers with points; a release candidate comes before its release.
//!
//! Limit: three numbers and a candidate; builds between releases are not told apart.

/// `1.3.0rc20`: numbers, then the number of the candidate (none: released).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version([u32; 3], u32);

impl Version {
    pub(crate) fn parse(text: &str) -> Option<Version> {
        let text = text.trim().trim_start_matches('v');
        let (numbers, candidate) = match text.split_once("rc") {
            Some((numbers, n)) => (numbers.trim_end_matches(['.', '-']), n.parse().ok()?),
            // What follows a release (`.post1`) counts as the release.
            None => (text.split_once(".post").map_or(text, |(release, _)| release), u32::MAX),
        };
        let mut out = [0; 3];
        let mut parts = numbers.split('.');
        for slot in &mut out {
            match parts.next() {
                Some(part) => *slot = part.parse().ok()?,
                None => break,
            }
        }
        (!numbers.is_empty() && parts.next().is_none()).then_some(Version(out, candidate))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::Version;

    #[test]
    fn a_candidate_comes_before_its_release() {
        let order = ["0.9.2", "0.24.0", "1.2.1", "1.3.0rc11", "1.3.0rc20", "1.3.0", "v1.3.1.post1"];
        let read: Vec<Version> = order.iter().map(|v| Version::parse(v).unwrap()).collect();
        assert!(read.windows(2).all(|w| w[0] < w[1]), "{read:?}");
        assert_eq!(Version::parse("0.24"), Version::parse("0.24.0"));
        for bad in ["", "x", "1.x", "1.2.3.4", "1.2rcx"] {
            assert!(Version::parse(bad).is_none(), "{bad}");
        }
    }
}
