//! The AFD schedule against an independent event simulation, its closed forms and its bounds.

use disagg::serving::pipeline::{Rows, Stages, prefill_chunks, schedule, step_time, uniform_alone, uniform_overlapped};
use proptest::prelude::*;

/// The slow, obvious twin: a clock, queues and servers. Micro-batch programs are flat lists of
/// (resource, time); a resource that is idle takes the waiting job that became ready first.
struct Twin {
    programs: Vec<Vec<(usize, f64)>>,
    half: bool,
}

impl Twin {
    fn new(groups: &[(u32, Vec<Stages>)], half: bool, overlapped: bool, steps: usize) -> Twin {
        let m = groups[0].1.len();
        let programs = (0..m)
            .map(|i| {
                let mut list = Vec::new();
                let mut owed = 0.0;
                for _ in 0..steps {
                    for (layers, stages) in groups {
                        let alone = stages.iter().all(|s| s.a2f == 0.0 && s.ffn == 0.0 && s.f2a == 0.0);
                        let s = stages[i];
                        for _ in 0..*layers {
                            owed += s.attention;
                            if !alone {
                                list.extend([(0, owed), (1, s.a2f), (2, s.ffn), (3, s.f2a)]);
                                owed = 0.0;
                            }
                        }
                    }
                }
                if !overlapped && owed > 0.0 {
                    list.push((0, owed));
                }
                list
            })
            .collect();
        Twin { programs, half }
    }

    /// End time of every job of every micro-batch.
    fn run(&self) -> Vec<Vec<f64>> {
        let m = self.programs.len();
        let server = |r: usize| if self.half && r == 3 { 1 } else { r };
        let mut ends: Vec<Vec<f64>> = vec![Vec::new(); m];
        let mut busy: [Option<(usize, f64)>; 4] = [None; 4];
        let mut queues: [Vec<(f64, usize)>; 4] = Default::default();
        let mut now = 0.0;
        for (i, p) in self.programs.iter().enumerate() {
            queues[server(p[0].0)].push((0.0, i));
        }
        loop {
            // Everything that ends now, before anything starts.
            loop {
                let mut any = false;
                for b in &mut busy {
                    if let Some((i, end)) = *b
                        && end <= now
                    {
                        *b = None;
                        ends[i].push(end);
                        if let Some(next) = self.programs[i].get(ends[i].len()) {
                            queues[server(next.0)].push((end, i));
                        }
                        any = true;
                    }
                }
                // Start: first ready first; F2A before A2F; then the one with less behind it.
                for (s, b) in busy.iter_mut().enumerate() {
                    if b.is_none() && !queues[s].is_empty() {
                        let key = |&(ready, i): &(f64, usize)| {
                            let stage = self.programs[i][ends[i].len()].0;
                            (ready, if stage == 3 { 0 } else { 1 }, ends[i].len(), i)
                        };
                        let mut at = 0;
                        for j in 1..queues[s].len() {
                            if key(&queues[s][j]) < key(&queues[s][at]) {
                                at = j;
                            }
                        }
                        let (ready, i) = queues[s].remove(at);
                        *b = Some((i, ready.max(now) + self.programs[i][ends[i].len()].1));
                    }
                }
                if !any {
                    break;
                }
            }
            match busy.iter().flatten().map(|b| b.1).reduce(f64::min) {
                Some(t) => now = t,
                None => return ends,
            }
        }
    }

    fn makespan(&self) -> f64 {
        self.run().iter().filter_map(|e| e.last().copied()).fold(0.0, f64::max)
    }
}

/// Mean step time over 420 steps (a multiple of every cycle length up to 7) of the settled pipeline.
/// Half duplex has cycles of tens of steps: there the mean over 4,200 is only good to some 1e-3.
fn twin_period(groups: &[(u32, Vec<Stages>)], half: bool) -> f64 {
    let (warm, window) = if half { (300, 4200) } else { (180, 420) };
    let twin = Twin::new(groups, half, true, warm + window);
    let ends = twin.run();
    let per_step = twin.programs[0].len() / (warm + window);
    (ends[0][per_step * (warm + window) - 1] - ends[0][per_step * warm - 1]) / window as f64
}

fn st(a: f64, x: f64, f: f64, y: f64) -> Stages {
    Stages::new(a, x, f, y)
}

fn close(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-12 * b.abs().max(1.0)
}

fn stages() -> impl Strategy<Value = Stages> {
    (0u32..60, 1u32..60, 1u32..60, 0u32..60).prop_map(|(a, x, f, y)| st(a.into(), x.into(), f.into(), y.into()))
}

fn real_stages() -> impl Strategy<Value = Stages> {
    (0.0..60.0, 0.01..60.0, 0.01..60.0, 0.01..60.0).prop_map(|(a, x, f, y)| st(a, x, f, y))
}

fn dense() -> impl Strategy<Value = f64> {
    prop_oneof![Just(0.0), (1u32..80).prop_map(f64::from)]
}

/// The same with groups of many layers, in which the run repeats.
fn deep_programs(m: std::ops::Range<usize>) -> impl Strategy<Value = Vec<(u32, Vec<Stages>)>> {
    (programs(m), 6u32..80, 0u32..40).prop_map(|(mut g, a, b)| {
        (g[1].0, g[2].0) = (a, b);
        g
    })
}

/// Leading dense layers, two groups of full layers, trailing dense layers; each micro-batch on its own.
fn programs(m: std::ops::Range<usize>) -> impl Strategy<Value = Vec<(u32, Vec<Stages>)>> {
    m.prop_flat_map(|m| {
        (
            (0u32..3, prop::collection::vec(dense(), m)),
            (1u32..6, prop::collection::vec(real_stages(), m)),
            (0u32..5, prop::collection::vec(real_stages(), m)),
            (0u32..2, prop::collection::vec(dense(), m)),
        )
            .prop_map(|(d, a, b, h)| {
                let only = |v: &[f64]| v.iter().map(|t| st(*t, 0.0, 0.0, 0.0)).collect::<Vec<_>>();
                vec![(d.0, only(&d.1)), a, b, (h.0, only(&h.1))]
            })
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    /// More micro-batches than are looked through one by one stand in lines.
    #[test]
    fn lines_of_many_micro_batches_are_the_events(g in programs(17..24)) {
        let (t, twin) = (schedule(&g, true, false), Twin::new(&g, true, false, 1).makespan());
        prop_assert!(close(t, twin), "{} {}", t, twin);
    }
}

/// Of many micro-batches the step is the work of the busiest server, however few steps were run to see it.
#[test]
fn many_micro_batches_keep_the_busiest_server_busy() {
    let of = |stage: Stages, m: usize| schedule(&[(61, vec![stage; m])], true, true);
    for (stage, busiest) in
        [(st(20.0, 10.0, 5.0, 5.0), 20.0), (st(9.0, 8.0, 5.0, 7.0), 15.0), (st(3.0, 4.0, 12.5, 2.0), 12.5)]
    {
        for m in [20, 64] {
            let wanted = busiest * 61.0 * m as f64;
            assert!(close(of(stage, m), wanted), "{m}: {} {wanted}", of(stage, m));
        }
    }
}

#[test]
fn one_micro_batch_is_the_sequential_sum() {
    let g = [(1, vec![st(20.0, 5.0, 10.0, 5.0)])];
    for half in [false, true] {
        for overlapped in [false, true] {
            assert_eq!(schedule(&g, half, overlapped), 40.0);
        }
    }
    assert_eq!(uniform_alone(&g[0].1[0], 1, 1), 40.0);
    assert_eq!(uniform_overlapped(&g[0].1[0], 61, 1), 61.0 * 40.0);
    assert_eq!(schedule(&[(3, vec![st(7.0, 0.0, 0.0, 0.0)]), (58, g[0].1.clone())], true, true), 21.0 + 58.0 * 40.0);
}

#[test]
fn more_micro_batches_than_fit_inline() {
    let s = st(20.0, 5.0, 10.0, 5.0);
    for m in [16, 17, 40] {
        let mut v = vec![s; m];
        assert!(close(schedule(&[(5, v.clone())], false, false), uniform_alone(&s, 5, m as u32)));
        v[1].ffn += 1e-9;
        for overlapped in [false, true] {
            let t = schedule(&[(5, v.clone())], false, overlapped);
            let u = if overlapped { uniform_overlapped(&s, 5, m as u32) } else { uniform_alone(&s, 5, m as u32) };
            assert!((t - u).abs() < 1e-7, "{m} {t} {u}");
        }
    }
}

#[test]
fn nothing_to_do_takes_no_time() {
    assert_eq!(schedule(&[], false, true), 0.0);
    assert_eq!(step_time(&[Rows { layers: 0, stages: &[] }], true, false), 0.0);
    let dense = [(3, vec![st(2.0, 0.0, 0.0, 0.0); 4])];
    assert_eq!(schedule(&dense, false, true), 24.0);
    assert_eq!(schedule(&dense, true, false), 24.0);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn closed_forms_are_the_events(s in real_stages(), layers in 1u32..9, m in 1usize..7) {
        let g = [(layers, vec![s; m])];
        prop_assert!(close(uniform_alone(&s, layers, m as u32), Twin::new(&g, false, false, 1).makespan()));
        prop_assert!(close(schedule(&g, false, false), uniform_alone(&s, layers, m as u32)));
        prop_assert!(close(schedule(&g, false, true), uniform_overlapped(&s, layers, m as u32)));
    }

    #[test]
    fn alone_is_the_events(g in programs(1..7), half: bool) {
        prop_assert!(close(schedule(&g, half, false), Twin::new(&g, half, false, 1).makespan()));
        prop_assert_eq!(schedule(&g, half, false), prefill_chunks(&g, half));
    }

    #[test]
    fn deep_alone_is_the_events(g in deep_programs(1..7), half: bool) {
        let (t, twin) = (schedule(&g, half, false), Twin::new(&g, half, false, 1).makespan());
        prop_assert!((t - twin).abs() <= 1e-10 * twin, "{} {}", t, twin);
    }

    #[test]
    fn dense_layers_in_closed_form(s in stages(), d in 1u32..200, layers in 1u32..7, m in 1usize..7) {
        let g = [(2, vec![st(d.into(), 0.0, 0.0, 0.0); m]), (layers, vec![s; m])];
        prop_assert!(close(schedule(&g, false, false), Twin::new(&g, false, false, 1).makespan()));
        // Splitting the layers in two groups forces the recurrence.
        let mut split = vec![g[0].clone(), (1, vec![s; m]), (layers - 1, vec![s; m])];
        prop_assert!(close(schedule(&g, false, true), schedule(&split, false, true)));
        prop_assert!(close(schedule(&g, false, false), schedule(&split, false, false)));
        split.rotate_left(1);
        prop_assert!(close(schedule(&g, false, true), schedule(&split, false, true)));
        let split = [g[1].clone(), g[0].clone()];
        prop_assert!(close(schedule(&g, false, true), schedule(&split, false, true)));
    }

    #[test]
    fn bounds(g in programs(1..7), half: bool) {
        let t = schedule(&g, half, true);
        let m = g[0].1.len();
        let total = |f: &dyn Fn(&Stages) -> f64| -> f64 { g.iter().map(|(l, v)| f64::from(*l) * v.iter().map(f).sum::<f64>()).sum() };
        let link = if half { total(&|s| s.a2f + s.f2a) } else { total(&|s| s.a2f).max(total(&|s| s.f2a)) };
        let busiest = total(&|s| s.attention).max(total(&|s| s.ffn)).max(link);
        prop_assert!(t >= busiest * (1.0 - 1e-12), "{} {}", t, busiest);
        for i in 0..m {
            let own: f64 = g.iter().map(|(l, v)| f64::from(*l) * v[i].sum()).sum();
            prop_assert!(t >= own * (1.0 - 1e-12));
        }
        let alone = schedule(&g, half, false);
        if !half {
            prop_assert!(t <= alone * (1.0 + 1e-12), "overlap never costs: {} {}", t, alone);
        }
        prop_assert!(schedule(&g, false, true) <= t * (1.0 + 1e-12) || half);
    }

    #[test]
    fn monotone_in_every_stage(g in programs(1..7), group in 1usize..3, stage in 0usize..4, who in 0usize..6, more in 0.0..30.0, overlapped: bool) {
        let mut h = g.clone();
        let m = h[group].1.len();
        let s = &mut h[group].1[who % m];
        *[&mut s.attention, &mut s.a2f, &mut s.ffn, &mut s.f2a][stage] += more;
        let (a, b) = (schedule(&g, false, overlapped), schedule(&h, false, overlapped));
        prop_assert!(b >= a * (1.0 - 1e-12), "{} {}", a, b);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn overlapped_is_the_events(g in programs(1..5), half: bool) {
        let (t, twin) = (schedule(&g, half, true), twin_period(&g, half));
        let tolerance = if half { 2e-3 } else { 1e-9 };
        prop_assert!((t - twin).abs() <= tolerance * twin, "{} {}", t, twin);
    }

    #[test]
    fn deep_overlapped_is_the_events(g in deep_programs(1..5)) {
        let (t, twin) = (schedule(&g, true, true), twin_period(&g, true));
        prop_assert!((t - twin).abs() <= 2e-3 * twin, "{} {}", t, twin);
    }

    #[test]
    fn overlapped_uniform_half_duplex(s in stages(), layers in 1u32..5, m in 1usize..6) {
        let g = [(layers, vec![s; m])];
        let (t, twin) = (schedule(&g, true, true), twin_period(&g, true));
        prop_assert!((t - twin).abs() <= 2e-3 * twin, "{} {}", t, twin);
    }
}

#[test]
#[ignore = "prints nanoseconds a call: cargo test --release pipeline::speed -- --ignored --nocapture"]
fn speed() {
    let s = st(20.0, 5.1, 11.3, 7.7);
    let dense = [st(18.0, 0.0, 0.0, 0.0); 4];
    let mut uneven = [s; 4];
    uneven[3] = st(15.0, 3.0, 10.0, 5.0);
    for (name, full) in [("equal", [s; 4]), ("uneven", uneven)] {
        let rows = [Rows { layers: 3, stages: &dense }, Rows { layers: 58, stages: &full }];
        for (half, overlapped) in [(false, false), (false, true), (true, false), (true, true)] {
            let start = std::time::Instant::now();
            let sum: f64 = (0..2000).map(|_| step_time(std::hint::black_box(&rows), half, overlapped)).sum();
            println!(
                "{name} half {half} overlapped {overlapped}: {:.0} ns ({:.1})",
                start.elapsed().as_nanos() as f64 / 2e3,
                sum / 2e3
            );
        }
    }
}
