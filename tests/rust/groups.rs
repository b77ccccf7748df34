//! Attention groups on one FFN pool: the schedule against an unrolled twin and its bounds; units, memory and refusals.

use disagg::serving::pipeline::{Rows, Stages, step_time, step_time_of};
use disagg::serving::step_engine::EngineKind;
use disagg::serving::{Engine, StepEngine, timeline};
use disagg::spec::plan::{Duplex, PipelineMode, Placement};
use disagg::spec::{AfdPlan, Assumptions, PdPlan, Plan, Slot};
use proptest::prelude::*;

use crate::lab::{self, afd_plan, gap, near, pool};

/// The slow, obvious twin: every stage of every micro-batch of every layer of many steps, one after the other, each
/// from when its micro-batch and all that it needs are free. Groups in turn. End times of the steps.
fn unrolled(rows: &[Rows<'_>], groups: usize, overlapped: bool, steps: usize) -> Vec<f64> {
    let m = rows[0].stages.len();
    let mut ready = vec![0.0_f64; m * groups];
    let mut owed = vec![0.0; m * groups];
    let mut attention = vec![0.0_f64; groups];
    let mut links = vec![[0.0_f64; 2]; groups];
    let (mut ffn, mut ports) = (0.0_f64, [0.0_f64; 2]);
    let mut ends = Vec::new();
    for _ in 0..steps {
        for row in rows {
            for _ in 0..row.layers {
                let alone = row.stages.iter().all(|s| s.a2f == 0.0 && s.ffn == 0.0 && s.f2a == 0.0);
                for i in 0..m * groups {
                    let (g, s) = (i % groups, row.stages[i / groups]);
                    owed[i] += s.attention;
                    if alone {
                        continue;
                    }
                    attention[g] = ready[i].max(attention[g]) + std::mem::take(&mut owed[i]);
                    let start = attention[g].max(links[g][0]).max(ports[0]);
                    (links[g][0], ports[0]) = (start + s.a2f, start + s.ports[0]);
                    ffn = links[g][0].max(ffn) + s.ffn;
                    let start = ffn.max(links[g][1]).max(ports[1]);
                    (links[g][1], ports[1]) = (start + s.f2a, start + s.ports[1]);
                    ready[i] = links[g][1];
                }
            }
        }
        if !overlapped {
            for i in 0..m * groups {
                if owed[i] > 0.0 {
                    attention[i % groups] = ready[i].max(attention[i % groups]) + owed[i];
                    ready[i] = attention[i % groups];
                }
            }
        }
        ends.push(ready.iter().fold(0.0, |t: f64, r| t.max(*r)));
    }
    ends
}

/// A step by the twin. 840 steps are a multiple of every cycle length up to 8.
fn twin(rows: &[Rows<'_>], groups: u32, overlapped: bool) -> f64 {
    if !overlapped {
        return unrolled(rows, groups as usize, false, 1)[0];
    }
    let ends = unrolled(rows, groups as usize, true, 260 + 840);
    (ends[260 + 839] - ends[259]) / 840.0
}

/// Stages with whole numbers, so that ties happen; ports are part of their hop.
fn stages() -> impl Strategy<Value = Stages> {
    (0u32..60, 1u32..60, 1u32..60, 1u32..60, 0.0..1.0f64, 0.0..1.0f64).prop_map(|(a, x, f, y, p, q)| {
        let (x, y) = (f64::from(x), f64::from(y));
        Stages { ports: [(p * x).round(), (q * y).round()], ..Stages::new(a.into(), x, f.into(), y) }
    })
}

fn with_ports(s: &Stages, share: f64) -> Stages {
    Stages { ports: [share * s.a2f, share * s.f2a], ..*s }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// Equal layers and micro-batches, attention-only layers before them (overlapped: after them too).
    #[test]
    fn closed_forms_are_the_unrolled_schedule(
        s in stages(), m in 1usize..4, groups in 1u32..5, layers in 1u32..9, dense in 0u32..90, overlapped: bool,
    ) {
        let (front, all) = (vec![Stages::attention(f64::from(dense)); m], vec![s; m]);
        let rows = [Rows { layers: 1, stages: &front }, Rows { layers, stages: &all }];
        let (t, slow) = (step_time_of(&rows, groups, false, overlapped), twin(&rows, groups, overlapped));
        prop_assert!((t - slow).abs() <= 1e-9 * slow, "{t} against {slow}");
        if overlapped {
            let back = [rows[1], rows[0]];
            near(step_time_of(&back, groups, false, true), t, 1e-12, "ends before or after, on a ring");
        }
        if dense == 0 {
            let (l, m, g) = (f64::from(layers), m as f64, f64::from(groups));
            let shared = if groups == 1 { s.ffn } else { s.ffn.max(s.ports[0]).max(s.ports[1]) };
            let tau = s.attention.max(s.a2f).max(s.f2a).max(g * shared);
            let gap = (m * tau).max(s.sum());
            let want = if overlapped {
                l * gap
            } else {
                (l - 1.0) * gap + (m - 1.0) * tau + (g - 1.0) * shared + s.sum()
            };
            prop_assert!((t - want).abs() <= 1e-9 * want, "{t} against {want}");
        }
    }

    /// Layers and micro-batches that differ.
    #[test]
    fn uneven_programs_are_the_unrolled_schedule(
        (a, b, d) in (1usize..4).prop_flat_map(|m| (
            prop::collection::vec(stages(), m), prop::collection::vec(stages(), m), prop::collection::vec(0u32..80, m),
        )),
        groups in 1u32..4, layers in (1u32..6, 0u32..4), overlapped: bool,
    ) {
        let dense: Vec<Stages> = d.iter().map(|t| Stages::attention(f64::from(*t))).collect();
        let rows = [
            Rows { layers: 1, stages: &dense },
            Rows { layers: layers.0, stages: &a },
            Rows { layers: layers.1, stages: &b },
            Rows { layers: 1, stages: &dense },
        ];
        let (t, slow) = (step_time_of(&rows, groups, false, overlapped), twin(&rows, groups, overlapped));
        // Cycles of up to nine micro-batches are not all whole in the window of the twin.
        let tolerance = if overlapped { 2e-3 } else { 1e-12 };
        prop_assert!((t - slow).abs() <= tolerance * slow, "{t} against {slow}");
    }

    /// With one group its ports are nobody else's: the same bits.
    #[test]
    fn one_group_is_today(
        a in prop::collection::vec(stages(), 1..5), layers in 1u32..30, half: bool, overlapped: bool,
    ) {
        let bare: Vec<Stages> = a.iter().map(|s| with_ports(s, 0.0)).collect();
        let t = step_time(&[Rows { layers, stages: &bare }], half, overlapped);
        prop_assert_eq!(step_time_of(&[Rows { layers, stages: &a }], 1, half, overlapped), t);
    }

    /// The hops lie between links that groups share whole and links that they do not share at all; sharing an FFN
    /// pool is never better than one of one's own, and attention side by side never worse than one after another.
    #[test]
    fn sharing_has_its_bounds(
        s in stages(), m in 1usize..4, groups in 2u32..5, layers in 1u32..20, overlapped: bool,
    ) {
        let time = |share: Option<f64>, m: usize, groups| {
            let all = vec![share.map_or(s, |x| with_ports(&s, x)); m];
            step_time_of(&[Rows { layers, stages: &all }], groups, false, overlapped)
        };
        let (own, between, whole) = (time(Some(0.0), m, groups), time(None, m, groups), time(Some(1.0), m, groups));
        prop_assert!(own <= between * (1.0 + 1e-12) && between <= whole * (1.0 + 1e-12), "{own} {between} {whole}");
        prop_assert!(time(None, m, 1) <= own * (1.0 + 1e-12));
        prop_assert!(whole <= time(None, m * groups as usize, 1) * (1.0 + 1e-12));
    }

    /// Half duplex: the event run is the plain one of the drawn schedule, never faster than full duplex, and
    /// steps overlapped are what many steps in a row come to.
    #[test]
    fn half_duplex_groups_are_the_drawn_events(
        a in prop::collection::vec(stages(), 1..4), groups in 1u32..4, layers in 1u32..12, dense in 0u32..50,
    ) {
        let front = vec![Stages::attention(f64::from(dense)); a.len()];
        let rows = [Rows { layers: 1, stages: &front }, Rows { layers, stages: &a }];
        let alone = step_time_of(&rows, groups, true, false);
        let drawn = |rows: &[Rows<'_>]| {
            let bars = timeline::bars(rows, groups as usize, true, usize::MAX);
            bars.iter().map(|b| b.end).fold(0.0, f64::max)
        };
        near(alone, drawn(&rows), 1e-12, "alone");
        let steps = |n: usize| drawn(&rows.iter().copied().cycle().take(2 * n).collect::<Vec<_>>());
        let (few, many) = (steps(40), steps(200));
        let period = step_time_of(&rows, groups, true, true);
        prop_assert!(gap(period, (many - few) / 160.0) < 0.03, "{period} against {}", (many - few) / 160.0);
        let busy = f64::from(layers) * a.iter().map(|s| f64::from(groups) * s.ffn).sum::<f64>();
        prop_assert!(period >= busy * (1.0 - 1e-9));
    }
}

fn grouped(a: u32, f: u32, groups: u32, m: u32) -> AfdPlan {
    AfdPlan { attention_groups: groups, ..afd_plan(pool(a, 1), pool(f, 1), m) }
}

fn afd(s: &StepEngine) -> &disagg::serving::step_engine::Unit {
    let EngineKind::Afd(u) = &s.kind else { panic!("an AFD unit") };
    u
}

#[test]
fn groups_put_the_same_tokens_on_the_pool_and_read_attention_weights_once() {
    let (lib, w) = (lab::v32(), lab::chat());
    let (one, two) = (lab::unit(&lib, &grouped(16, 16, 1, 2), &w), lab::unit(&lib, &grouped(16, 16, 2, 1), &w));
    assert_eq!((one.ranks(), two.ranks(), afd(&two).unit.ranks()), (16.0, 16.0, 8.0));
    assert_eq!((one.gpus(), two.gpus(), two.kv_gpus(), two.kv_links()), (32, 32, 16, 1));
    let b = disagg::cost::Batch::decode(32.0, 4000.0, 1.0);
    let (s1, s2) = (afd(&one).unit.stages(&b.part(2), 0), afd(&two).unit.stages(&b, 0));
    near(s1.ffn.seconds, s2.ffn.seconds, 1e-12, "the pool serves 16 sequences of 16 ranks, or 32 of 8");
    assert!(s2.attention.seconds < 2.0 * s1.attention.seconds, "one pass over all is less than two over halves");
    // A token travels the same; a rank sends twice as many at once.
    assert!(s2.ports[0] <= s2.a2f.seconds && s2.ports[1] <= s2.f2a.seconds && s2.ports[0] > 0.0);
    assert_eq!(s1.ports, [0.0; 2], "nobody asks with one group");
    // Nothing in memory.
    for (a, b) in one.memory().iter().zip(two.memory()) {
        assert_eq!(a, b);
    }
    // With one micro-batch a group's own GPUs wait for every stage of it; what groups fill is the pool.
    let (step, alone) = (two.decode(32.0, 4000.0).seconds, 58.0 * s2.seconds(None).iter().sum::<f64>());
    assert!(step >= alone, "{step} {alone}");
}

#[test]
fn a_step_of_equal_micro_batches_is_its_closed_form() {
    let lib = lab::lib("Qwen/Qwen3-235B-A22B", "b200_sxm", 32, "trtllm");
    let w = lab::chat();
    for (groups, m, batch) in [(2, 1, 64.0), (2, 3, 96.0), (4, 2, 64.0), (1, 2, 64.0)] {
        let s = lab::unit(&lib, &grouped(16, 16, groups, m), &w);
        let u = afd(&s);
        let part = disagg::cost::Batch::decode(batch / f64::from(m), 3000.0, 1.0);
        let stages = u.unit.stages(&part, 0);
        let [a, x, f, y] = stages.seconds(None);
        let ends = u.unit.ends(&part).seconds;
        let (l, m, g) = (94.0, f64::from(m), f64::from(groups));
        let shared = if groups == 1 { f } else { f.max(stages.ports[0]).max(stages.ports[1]) };
        let tau = a.max(x).max(y).max(g * shared);
        let gap = (m * tau).max(a + x + f + y);
        let (first, sum) = (ends + a, ends + a + x + f + y);
        let want = (sum + (l - 1.0) * gap)
            .max(sum + (m - 1.0) * first + tau + (l - 2.0) * gap)
            .max(m * (first + (l - 1.0) * a))
            .max(l * m * g * shared);
        near(s.decode(batch, 3000.0).seconds, want, 1e-12, "step");
    }
}

#[test]
fn groups_serve_at_every_level_and_say_who_is_busy() {
    let (lib, w) = (lab::v32(), lab::chat());
    for groups in [1, 2, 4] {
        let unit = AfdPlan { batch: Some(32), ..grouped(8, 8, groups, 2) };
        let mixed = Plan::Afd(AfdPlan { chunk_tokens: Some(600), ..unit.clone() });
        let split = Plan::Pd(PdPlan {
            prefill: Slot::Afd(AfdPlan { batch: Some(2), chunk_tokens: Some(256), ..grouped(8, 8, groups, 2) }),
            decode: Slot::Afd(unit),
        });
        for plan in [mixed, split] {
            let engine = Engine::new(&lib, &w, &plan).unwrap();
            let e = engine.estimate().unwrap();
            assert!(e.scalars.feasible && e.scalars.requests_per_s > 0.0);
            assert!(e.tables.pipeline.iter().all(|r| r.utilization > 0.0 && r.utilization <= 1.0));
            let lanes = e.tables.timeline.iter().map(|r| r.bar.group).max().unwrap() + 1;
            assert_eq!(lanes as u32, groups);
            // Busy on the FFN pool by the breakdown is busy by the stages.
            let ffn: f64 = e
                .tables
                .breakdown
                .iter()
                .filter(|r| r.phase.name() == "decode" && r.pool.name() == "ffn")
                .map(|r| r.ms)
                .sum();
            let stage =
                e.tables.pipeline.iter().find(|r| r.phase.name() == "decode" && r.stage.name() == "ffn").unwrap();
            near(ffn, stage.ms * 58.0 * 2.0 * f64::from(groups), 1e-6, "FFN pool");
        }
    }
}

#[test]
fn what_cannot_be_is_refused_by_name() {
    let (lib, w) = (lab::v32(), lab::chat());
    let refused = |lib: &std::sync::Arc<disagg::cost::Library>, plan: AfdPlan| {
        Engine::new(lib, &w, &Plan::Afd(plan)).err().map_or(String::new(), |e| e.to_string())
    };
    let text = refused(&lib, grouped(6, 10, 4, 1));
    assert!(text.contains("plan.attention_groups") && text.contains("6 attention ranks"), "{text}");
    let text = refused(&lib, AfdPlan { attention: pool(8, 4), ..grouped(8, 8, 4, 1) });
    assert!(text.contains("2 attention ranks of tp=4") && text.contains("did you mean 2"), "{text}");
    assert_eq!(refused(&lib, grouped(8, 8, 4, 1)), "");
    for (profile, names) in [
        (Assumptions::paper(), &["pipeline_formula", "activations", "copies", "afd_wire"][..]),
        (Assumptions::aiconfigurator(), &["pipeline_formula", "ffn_pool"][..]),
    ] {
        let lib = lab::library(&lib.model, &lib.cluster, "trtllm", &profile);
        let text = refused(&lib, grouped(8, 8, 2, 1));
        assert!(names.iter().all(|n| text.contains(n)), "{text}");
        assert!(text.contains("attention_groups=1, or pipeline_formula='schedule'"), "{text}");
    }
}

#[test]
fn placed_groups_are_packed_groups_where_they_stand_in_order() {
    let (lib, w) = (lab::v32(), lab::chat());
    let packed = grouped(8, 16, 2, 2);
    let at = |attention: std::ops::Range<u32>, ffn: std::ops::Range<u32>| AfdPlan {
        placement: Some(Placement { attention: attention.collect(), ffn: ffn.collect(), ..Placement::default() }),
        ..packed.clone()
    };
    let step = |plan: &AfdPlan| lab::unit(&lib, plan, &w).decode(64.0, 4000.0).seconds;
    assert_eq!(step(&packed), step(&at(0..8, 8..24)));
    // One group beside the pool and one in another domain: the farther one counts.
    let far = AfdPlan { pipeline: PipelineMode::Alone, ..at(0..8, 16..32) };
    assert!(step(&far) >= step(&AfdPlan { pipeline: PipelineMode::Alone, ..packed.clone() }));
}

#[test]
fn more_groups_never_make_the_pool_faster() {
    let (lib, w) = (lab::v32(), lab::chat());
    for duplex in [Duplex::Full, Duplex::Half] {
        for m in [1, 2] {
            let step = |groups| {
                // As many ranks and tokens in every group: the pool serves `groups` times as many.
                let plan = AfdPlan { duplex, ..grouped(4 * groups, 16, groups, m) };
                lab::unit(&lib, &plan, &w).decode(32.0, 4000.0).seconds
            };
            let times = [step(1), step(2), step(4)];
            assert!(times[0] <= times[1] * 1.0001 && times[1] <= times[2] * 1.0001, "{times:?}");
            assert!(times[2] <= 4.0 * times[0] * 1.05, "{times:?}");
        }
    }
}
