//! Queues with an exact recursion: waits are equal to the picosecond.

use disagg::sim::{Deployment, Requests, Router, Settings, Timing};
use proptest::prelude::*;

use super::*;

/// Start times of a first-come queue with `c` servers (Kiefer and Wolfowitz 1955; c = 1: Lindley 1952).
fn starts(arrivals: &[u64], service: &[u64], c: usize) -> Vec<u64> {
    let mut free = vec![0_u64; c];
    arrivals
        .iter()
        .zip(service)
        .map(|(a, s)| {
            let k = (0..c).min_by_key(|k| (free[*k], *k)).unwrap();
            let start = free[k].max(*a);
            free[k] = start + s;
            start
        })
        .collect()
}

fn cumulative(gaps: &[u64], unit: u64) -> Vec<u64> {
    gaps.iter()
        .scan(0, |t, g| {
            *t += g * unit;
            Some(*t)
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// One seat a server: service is prefill and the decode steps after it; odd units, so nothing is aligned.
    #[test]
    fn one_server(jobs in prop::collection::vec((0_u64..3000, 1_u32..80), 1..200)) {
        let (prefill, decode) = (7_919_u64, 104_729_u64);
        let gaps: Vec<u64> = jobs.iter().map(|j| j.0).collect();
        let r = Requests {
            arrival_ps: cumulative(&gaps, 1_301),
            isl: vec![100; jobs.len()],
            osl: jobs.iter().map(|j| j.1).collect(),
            ..Requests::default()
        };
        let service: Vec<u64> = r.osl.iter().map(|o| prefill + decode * u64::from(*o - 1)).collect();
        let d = Deployment::uniform(1, 1, 8192, Timing::Fixed { prefill_ps: prefill, decode_ps: decode });
        let o = run(&d, &r, &Settings::default());
        for (i, start) in starts(&r.arrival_ps, &service, 1).into_iter().enumerate() {
            prop_assert_eq!(o.first_token_ps[i], start + prefill);
            prop_assert_eq!(o.finish_ps[i], start + service[i]);
        }
    }

    /// `c` seats that advance together are `c` servers when arrivals lie on the grid of steps: one more request, the
    /// first, decodes all the time, so that every step decodes.
    #[test]
    fn many_servers(c in 1_u32..6, jobs in prop::collection::vec((0_u64..60, 1_u32..80), 1..200)) {
        let step = 104_729_u64;
        let mut gaps: Vec<u64> = [0].into_iter().chain(jobs.iter().map(|j| j.0)).collect();
        // It has begun when the others come.
        gaps[1] += 1;
        let r = Requests {
            arrival_ps: cumulative(&gaps, step),
            isl: vec![1; jobs.len() + 1],
            osl: [1_000_000].into_iter().chain(jobs.iter().map(|j| j.1)).collect(),
            ..Requests::default()
        };
        let service: Vec<u64> = r.osl.iter().map(|o| step * u64::from(*o)).collect();
        let d = Deployment::uniform(1, c + 1, 8192, Timing::Fixed { prefill_ps: 0, decode_ps: step });
        let o = run(&d, &r, &Settings::default());
        for (i, start) in starts(&r.arrival_ps[1..], &service[1..], c as usize).into_iter().enumerate() {
            prop_assert_eq!(o.finish_ps[i + 1], start + service[i + 1], "request {} of {}", i, r.len());
        }
    }

    /// Equal jobs dealt in turn to `c` instances start as in one queue for all of them.
    #[test]
    fn many_instances(c in 1_u32..6, gaps in prop::collection::vec(0_u64..3000, 1..200)) {
        let (prefill, decode) = (7_919_u64, 104_729_u64);
        let mut r = regular(gaps.len(), 0, 50, 9);
        r.arrival_ps = cumulative(&gaps, 1_301);
        let service = vec![prefill + 8 * decode; gaps.len()];
        let d = Deployment::uniform(c, 1, 8192, Timing::Fixed { prefill_ps: prefill, decode_ps: decode });
        let o = run(&d, &r, &Settings { router: Router::RoundRobin, ..Settings::default() });
        for (i, start) in starts(&r.arrival_ps, &service, c as usize).into_iter().enumerate() {
            prop_assert_eq!(o.finish_ps[i], start + service[i]);
        }
    }
}
