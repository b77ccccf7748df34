//! Where the two pools of an AFD unit sit: what share of each GPU's traffic stays inside a scale-up domain.
//!
//! A GPU's bytes to the other pool are spread evenly over that pool's GPUs, so the share that stays
//! on NVLink is the share of the other pool in the GPU's own domain. The busiest GPU of each side
//! counts, for NVLink and for the NIC by itself. Pools are packed from the start of a domain,
//! attention first, unless they are placed by hand (GPU ids). Placement by hand and packing by
//! formula agree where they describe the same thing (property test).
//! Limits: experts that do not divide evenly are taken at the fullest GPU (see afd.rs).

use crate::error::Problems;
use crate::math::combinatorics::hit_probability;

/// A unit on its domains.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// Domains that hold a GPU of the unit, and of its FFN pool.
    pub domains: u32,
    pub ffn_domains: u32,
    /// Largest share of an attention GPU's bytes on NVLink, and on the NIC.
    pub attention_near: f64,
    pub attention_far: f64,
    pub ffn_near: f64,
    pub ffn_far: f64,
    /// FFN GPUs by domain: (GPUs, domains of that size), at most three sizes; the rest is not exact.
    sizes: [(u32, u32); 3],
}

impl Spread {
    /// Attention GPUs first, FFN GPUs after them, from the start of a domain.
    pub(crate) fn packed(attention: u32, ffn: u32, domain: u32) -> Spread {
        let (a, f, domain) = (attention.max(1), ffn.max(1), domain.max(1));
        let rest = a % domain;
        let mixed = if rest == 0 { (0, 0) } else { (rest, f.min(domain - rest)) };
        let pure = f - mixed.1;
        let (attention_near, attention_far) = shares(a, mixed.0, mixed.1, f);
        let (ffn_near, ffn_far) = shares(f, mixed.1, mixed.0, a);
        Spread {
            domains: (a + f).div_ceil(domain),
            ffn_domains: pure.div_ceil(domain) + u32::from(mixed.1 > 0),
            attention_near,
            attention_far,
            ffn_near,
            ffn_far,
            sizes: [(mixed.1, 1), (domain, pure / domain), (pure % domain, 1)],
        }
    }

    /// Pools on these GPUs.
    pub fn placed(attention: &[u32], ffn: &[u32], domain: u32) -> Spread {
        let domain = domain.max(1);
        let mut here: std::collections::BTreeMap<u32, (u32, u32)> = std::collections::BTreeMap::new();
        for g in attention {
            here.entry(g / domain).or_default().0 += 1;
        }
        for g in ffn {
            here.entry(g / domain).or_default().1 += 1;
        }
        let (a, f) = (attention.len().max(1) as f64, ffn.len().max(1) as f64);
        let mut s = Spread {
            domains: here.len().max(1) as u32,
            ffn_domains: here.values().filter(|(_, n)| *n > 0).count().max(1) as u32,
            attention_near: 0.0,
            attention_far: 0.0,
            ffn_near: 0.0,
            ffn_far: 0.0,
            sizes: [(0, 0); 3],
        };
        let mut sizes: std::collections::BTreeMap<u32, u32> = std::collections::BTreeMap::new();
        for (in_a, in_f) in here.into_values() {
            if in_a > 0 {
                let near = f64::from(in_f) / f;
                s.attention_near = s.attention_near.max(near);
                s.attention_far = s.attention_far.max(1.0 - near);
            }
            if in_f > 0 {
                let near = f64::from(in_a) / a;
                s.ffn_near = s.ffn_near.max(near);
                s.ffn_far = s.ffn_far.max(1.0 - near);
                *sizes.entry(in_f).or_insert(0) += 1;
            }
        }
        // More than three sizes: the smallest are taken together at their mean, rounded.
        while sizes.len() > 3 {
            let Some((x, n)) = sizes.pop_first() else { break };
            let Some((y, m)) = sizes.pop_first() else { break };
            *sizes.entry((x * n + y * m).div_ceil(n + m)).or_insert(0) += n + m;
        }
        for (slot, size) in s.sizes.iter_mut().zip(sizes) {
            *slot = size;
        }
        s
    }

    /// The same of units whose attention pools are `groups` equal parts with one FFN pool: the group that sends the
    /// most over the NICs counts for all.
    pub(crate) fn slowest_group(attention: &[u32], ffn: &[u32], units: u32, groups: u32, domain: u32) -> Spread {
        let n = units.max(1) as usize;
        let (a, f) = ((attention.len() / n / groups.max(1) as usize).max(1), (ffn.len() / n).max(1));
        let pools = ffn.chunks(f).flat_map(|pool| std::iter::repeat_n(pool, groups.max(1) as usize));
        attention
            .chunks(a)
            .zip(pools)
            .map(|(a, f)| Spread::placed(a, f, domain))
            .max_by(|x, y| (x.attention_far + x.ffn_far).total_cmp(&(y.attention_far + y.ffn_far)))
            .unwrap_or_else(|| Spread::placed(attention, ffn, domain))
    }

    /// One unit packed from the start of a domain, attention first, whose attention pool is `groups` equal parts.
    pub(crate) fn packed_groups(attention: u32, ffn: u32, groups: u32, domain: u32) -> Spread {
        let ids: Vec<u32> = (0..attention + ffn).collect();
        let (a, f) = ids.split_at(attention as usize);
        Spread::slowest_group(a, f, 1, groups, domain)
    }

    /// Destination domains of a token of `topk` of `experts` experts, uniform routing, and the largest
    /// probability that one FFN GPU has to take a token in for its domain.
    pub(crate) fn reached(&self, experts: u32, topk: u32, ffn: u32) -> (f64, f64) {
        let (mut reached, mut per_gpu) = (0.0, 0.0_f64);
        for (size, count) in self.sizes.into_iter().filter(|(size, count)| *size > 0 && *count > 0) {
            let held = (f64::from(experts) * f64::from(size) / f64::from(ffn.max(1))).ceil() as u32;
            let hit = hit_probability(experts, held.min(experts), topk);
            reached += f64::from(count) * hit;
            per_gpu = per_gpu.max(hit / f64::from(size));
        }
        (reached, per_gpu)
    }
}

/// (largest NVLink share, largest NIC share) of a GPU of one side, which has `own` GPUs of which
/// `mixed` share their domain with `others_here` of the `others`.
fn shares(own: u32, mixed: u32, others_here: u32, others: u32) -> (f64, f64) {
    let near = f64::from(others_here) / f64::from(others);
    (if mixed > 0 { near } else { 0.0 }, if own > mixed { 1.0 } else { 1.0 - near })
}

/// Everything wrong with pools placed by hand: lengths, ids, GPUs that stand twice.
pub fn check(attention: &[u32], ffn: &[u32], sizes: (u32, u32), gpus: u32) -> Problems {
    let mut p = Problems::new();
    let mut seen = std::collections::BTreeMap::new();
    for (pool, ids, wanted) in [("attention", attention, sizes.0), ("ffn", ffn, sizes.1)] {
        if ids.len() != wanted as usize {
            p.push(pool, format!("names {} GPUs, needs {wanted}", ids.len()), "one id a GPU");
        }
        for (i, g) in ids.iter().enumerate() {
            if *g >= gpus {
                p.push(
                    format!("{pool}[{i}]"),
                    format!("GPU {g} is not in a cluster of {gpus}"),
                    format!("0 to {}", gpus.saturating_sub(1)),
                );
            }
            if let Some(first) = seen.insert(*g, pool) {
                p.push(format!("{pool}[{i}]"), format!("GPU {g} is taken already, by {first}"), "");
            }
        }
    }
    p
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Packing by formula is placement by hand of consecutive ids.
        #[test]
        fn packing_is_placing_in_order(a in 1u32..200, f in 1u32..200, domain in prop_oneof![Just(4u32), Just(8), Just(72)]) {
            let ids: Vec<u32> = (0..a + f).collect();
            let (by_hand, packed) = (Spread::placed(&ids[..a as usize], &ids[a as usize..], domain), Spread::packed(a, f, domain));
            let near = |x: f64, y: f64| (x - y).abs() < 1e-12;
            prop_assert_eq!((by_hand.domains, by_hand.ffn_domains), (packed.domains, packed.ffn_domains));
            prop_assert!(near(by_hand.attention_near, packed.attention_near) && near(by_hand.attention_far, packed.attention_far));
            prop_assert!(near(by_hand.ffn_near, packed.ffn_near) && near(by_hand.ffn_far, packed.ffn_far));
            let (x, y) = (by_hand.reached(256, 8, f), packed.reached(256, 8, f));
            prop_assert!(near(x.0, y.0) && near(x.1, y.1));
        }
    }

    #[test]
    fn wrong_placements_are_named() {
        let text = check(&[0, 9], &[0], (2, 2), 8).to_string();
        for part in [
            "attention[1]: GPU 9 is not in a cluster of 8",
            "ffn: names 1 GPUs, needs 2",
            "ffn[0]: GPU 0 is taken already, by attention",
        ] {
            assert!(text.contains(part), "{text}");
        }
    }
}
