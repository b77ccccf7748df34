//! Expected distinct destinations of a routed token.
//!
//! A token picks `k` of `E` experts uniformly without replacement. The probability that a group
//! holding `e` of them receives at least one copy is `1 - C(E-e, k) / C(E, k)`; the expected
//! number of groups reached is the sum over groups. Source: network.md, physics.md 5.
//!
//! Limit: uniform, independent tokens; a load that favours some experts is weighed elsewhere (`network::traffic`).

/// Probability that at least one of `k` draws without replacement from `total` falls into a
/// subset of size `subset`.
pub fn hit_probability(total: u32, subset: u32, k: u32) -> f64 {
    if subset == 0 || k == 0 || total == 0 {
        return 0.0;
    }
    if subset + k > total {
        return 1.0;
    }
    let mut miss = 1.0;
    for i in 0..k {
        miss *= f64::from(total - subset - i) / f64::from(total - i);
    }
    1.0 - miss
}

/// Experts per group when `experts` are spread as evenly as possible over `groups`:
/// `(larger size, how many groups have it, smaller size, how many groups have it)`.
pub fn even_split(experts: u32, groups: u32) -> (u32, u32, u32, u32) {
    let groups = groups.max(1);
    let small = experts / groups;
    let larger = experts % groups;
    (small + 1, larger, small, groups - larger)
}

/// Expected number of distinct groups that one token reaches (`groups(1 - C(E-E/G,k)/C(E,k))`
/// when the split is even).
pub fn distinct_groups(experts: u32, groups: u32, k: u32) -> f64 {
    let (big, n_big, small, n_small) = even_split(experts, groups);
    f64::from(n_big) * hit_probability(experts, big, k) + f64::from(n_small) * hit_probability(experts, small, k)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_copies() {
        // network.md: E = 256, k = 8.
        for (n, d) in [(4, 3.614), (8, 5.295), (16, 6.523), (32, 7.267), (64, 7.676), (128, 7.890), (256, 8.0)] {
            assert!((distinct_groups(256, n, 8) - d).abs() < 6e-4, "{n}");
        }
    }
}
