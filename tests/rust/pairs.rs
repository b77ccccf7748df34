//! Pairs near the best, found by bounds, against every pair of the two slots.

use disagg::control::Control;
use disagg::search::levels::{self, Task};
use disagg::search::near::Tiers;
use disagg::search::refine::Aim;
use disagg::spec::{Slo, Workload};

use crate::lab;

#[test]
fn bounds_pass_over_nothing_that_may_lead() {
    let (mut found, mut priced, mut empty) = (0, 0, 0);
    for (model, system, gpus, lengths) in [
        ("Qwen/Qwen3-30B-A3B", "h200_sxm", 7, (0.0, 1500.0, 300.0)),
        ("nvidia/DeepSeek-V3.2-NVFP4", "b200_sxm", 12, (4096.0, 512.0, 256.0)),
        ("deepseek-ai/DeepSeek-V3.2", "gb200", 18, (0.0, 6000.0, 40.0)),
    ] {
        let lib = lab::lib(model, system, gpus, "trtllm");
        let w = Workload::fixed("pairs", lengths.0, lengths.1, lengths.2);
        let control = Control::new();
        let task = Task::new(&lib, &w, gpus, 0, &control, true);
        let workers = levels::worker_layouts(&lib, gpus, false);
        let prompts = |layouts| std::sync::Arc::new(task.prompts(layouts).unwrap());
        let sides = [
            task.sides(prompts(&levels::worker_layouts(&lib, gpus, true)), &workers, 10).unwrap(),
            task.sides(prompts(&levels::prefill_unit_layouts(&lib, gpus)), &levels::unit_layouts(&lib, gpus), 4)
                .unwrap(),
        ];
        for (ttft, tpot) in [(60.0, 10.0), (300.0, 12.0), (300.0, 40.0), (5000.0, 20.0), (1e6, 1e6)] {
            let slo = Slo { ttft_ms: Some(ttft), tpot_ms: Some(tpot), percentile: None };
            let aim = Aim { slo, per_user: false };
            for (p, d) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
                let fine = task.fine_decode(&sides[d], &aim).unwrap();
                let every = task.pair(1, &sides[p].prompts.every, &fine.all()).unwrap();
                // What is known beforehand only narrows the search: nothing, and half of the pairs themselves.
                for known in [Tiers::default(), Tiers::of(&every[..every.len() / 2], &aim)] {
                    let near = task.near_best(1, &sides[p].prompts.every, &fine, &aim, known).unwrap();
                    let stands = |r: &&disagg::search::Row| r.point.stands();
                    let tiers = known.and(Tiers::of(&every, &aim));
                    let takes = |r: &&disagg::search::Row| {
                        tiers.is_sure() && tiers.takes(r.point.requests_per_s, r.point.excess(&aim.slo))
                    };
                    let wanted: Vec<_> = every.iter().filter(stands).filter(takes).collect();
                    if tiers.is_sure() {
                        assert!(near.iter().eq(wanted.iter().copied()), "{model} {slo:?} {p} {d}");
                        found += wanted.len();
                    } else {
                        empty += 1;
                    }
                    priced += every.len();
                }
            }
        }
    }
    println!("{found} pairs near the best of {priced}; nothing surely within the limits {empty} times");
    assert!(found > 500 && empty > 5, "{found} {empty}");
}
