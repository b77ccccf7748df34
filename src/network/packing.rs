//! How many workers and units stand on a cluster without crossing more domains than they must.
//!
//! A group of g GPUs in domains of D takes floor(g/D) whole domains and one piece of g mod D GPUs in another.
//! Times assume that (`traffic::packed`), so a deployment must have it: five groups of six on 32 GPUs in
//! nodes of eight would have two that straddle a node for nothing. Pieces are placed largest first, the second
//! size into what the first leaves: never more than truly fits; for two sizes rarely fewer (tests).
//! Limits: which domains are neighbours does not count (leaves beyond a pod are the port's business).

/// Whether (count, GPUs each) of two kinds stand on `gpus` GPUs in domains of `domain`.
pub(crate) fn fits(gpus: u32, domain: u32, kinds: [(u32, u32); 2]) -> bool {
    let domain = domain.max(1);
    let whole: u64 = kinds.iter().map(|(n, g)| u64::from(*n) * u64::from(g / domain)).sum();
    let (domains, rest) = (u64::from(gpus / domain), gpus % domain);
    if whole > domains {
        return false;
    }
    let mut free = domains - whole;
    let mut pieces = kinds.map(|(n, g)| (u64::from(n), g % domain)).into_iter().filter(|(n, r)| *n > 0 && *r > 0);
    let (first, second) = match (pieces.next(), pieces.next()) {
        (None, _) => return true,
        (Some(a), None) => (a, (0, 1)),
        (Some(a), Some(b)) if b.1 > a.1 => (b, a),
        (Some(a), Some(b)) => (a, b),
    };
    let (n, r) = first;
    // The last, partial domain first.
    let there = n.min(u64::from(rest / r));
    let mut left = n - there;
    let mut holes = room(rest - there as u32 * r, second.1);
    let each = u64::from(domain / r);
    let full = left / each;
    if left.div_ceil(each) > free {
        return false;
    }
    holes += full * room(domain - each as u32 * r, second.1);
    left -= full * each;
    free -= full;
    if left > 0 {
        holes += room(domain - left as u32 * r, second.1);
        free -= 1;
    }
    holes + free * room(domain, second.1) >= second.0
}

fn room(gpus: u32, piece: u32) -> u64 {
    u64::from(gpus / piece.max(1))
}

/// The most groups of `size` GPUs that fit beside `placed` (count, GPUs each).
pub fn most(gpus: u32, domain: u32, placed: (u32, u32), size: u32) -> u32 {
    let left = gpus.saturating_sub(placed.0 * placed.1);
    (1..=left / size.max(1)).rev().find(|n| fits(gpus, domain, [placed, (*n, size)])).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bins of pieces by trying everything.
    fn packs(bins: &mut Vec<u32>, pieces: &[u32]) -> bool {
        let Some((piece, rest)) = pieces.split_first() else { return true };
        let mut tried = std::collections::BTreeSet::new();
        for i in 0..bins.len() {
            if bins[i] >= *piece && tried.insert(bins[i]) {
                bins[i] -= piece;
                if packs(bins, rest) {
                    bins[i] += piece;
                    return true;
                }
                bins[i] += piece;
            }
        }
        false
    }

    fn by_hand(gpus: u32, domain: u32, kinds: [(u32, u32); 2]) -> bool {
        let mut bins = vec![domain; (gpus / domain) as usize];
        for (n, g) in kinds {
            for _ in 0..n * (g / domain) {
                if bins.pop().is_none() {
                    return false;
                }
            }
        }
        bins.push(gpus % domain);
        let mut pieces: Vec<u32> = kinds
            .into_iter()
            .flat_map(|(n, g)| std::iter::repeat_n(g % domain, n as usize))
            .filter(|r| *r > 0)
            .collect();
        pieces.sort_unstable_by(|a, b| b.cmp(a));
        packs(&mut bins, &pieces)
    }

    #[test]
    fn never_more_than_fits_and_seldom_less() {
        let (mut agree, mut fewer) = (0, 0);
        for domain in [4, 8, 9] {
            for gpus in [8, 16, 20, 27] {
                for (a, b) in (1..=12).flat_map(|a| (1..=12).map(move |b| (a, b))) {
                    for (n, m) in (0..=4).flat_map(|n| (0..=4).map(move |m| (n, m))) {
                        if n * a + m * b > gpus {
                            continue;
                        }
                        let kinds = [(n, a), (m, b)];
                        match (fits(gpus, domain, kinds), by_hand(gpus, domain, kinds)) {
                            (x, y) if x == y => agree += 1,
                            (true, false) => panic!("{gpus} in {domain}: {kinds:?} does not fit"),
                            _ => fewer += 1,
                        }
                    }
                }
            }
        }
        assert!(fewer * 50 < agree, "{fewer} refused of {agree}");
    }

    #[test]
    fn groups_on_nodes() {
        assert_eq!(most(32, 8, (0, 1), 6), 4);
        assert_eq!(most(32, 8, (0, 1), 4), 8);
        assert_eq!(most(64, 8, (0, 1), 12), 5, "12 is a node and half of another");
        assert_eq!(most(144, 72, (0, 1), 16), 8);
        assert_eq!(most(20, 72, (0, 1), 20), 1);
        assert_eq!(most(16, 8, (2, 6), 2), 2);
    }
}
