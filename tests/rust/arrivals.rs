//! Leaders with arrivals of their own: against every plan looked at, and against the simulator.

use disagg::control::Control;
use disagg::search::arrivals::leader;
use disagg::search::{Objective, Question, explore};
use disagg::serving::Engine;
use disagg::serving::queueing::Arrivals;
use disagg::spec::Framework;
use disagg::spec::{Case, Level, Slo, Workload};

use crate::lab;

fn question(percentile: Option<f64>) -> Question {
    let (model, cluster) = (lab::model("Qwen/Qwen3-30B-A3B"), lab::cluster("h200_sxm", 4));
    let slo = Slo { ttft_ms: Some(150.0), tpot_ms: Some(12.0), percentile };
    let mut q =
        Question::new(Case::new(model, cluster, Workload::fixed("w", 0.0, 1024.0, 256.0)).on(Framework::Trtllm), slo);
    q.levels = vec![Level::Aggregated, Level::Pd];
    q.batches_per_octave = 2;
    (q.arrivals, q.confirm) = (Arrivals::Poisson, false);
    q
}

/// Every row whose closed loop serves more than the leader, whatever its latencies there, serves less so; to 2 % on means,
/// as the seats tried lie 1.4x apart. A percentile of TPOT is best kept with neither too few nor too many seats, and the
/// search misses up to a tenth there: such a leader is not called proved.
#[test]
fn no_plan_looked_at_serves_more() {
    for percentile in [None, Some(95.0)] {
        let q = question(percentile);
        let study = explore(lab::db(), &q, &Control::new()).unwrap();
        for (k, level) in [(0, Level::Aggregated), (1, Level::Pd)] {
            let found = study.verdicts[k].leader.clone().unwrap();
            assert!(found.proved == percentile.is_none() && found.held.rate > 0.0);
            let again = leader(&q, &study.libraries, &study.rows, (0, level), &Control::new()).unwrap().unwrap();
            assert_eq!(again.held.rate, found.held.rate);
            let above = study
                .rows
                .iter()
                .filter(|r| r.level == level && r.point.stands() && r.point.requests_per_s > found.held.rate);
            let all: Vec<_> = above.collect();
            let stride = (all.len() / 400).max(1);
            let mut judged = 0;
            for r in all.into_iter().step_by(stride) {
                let Ok(e) = Engine::new(&study.libraries[0], &q.case.workload, &r.plan()) else { continue };
                let rate = e.rate_within(&q.slo, Arrivals::Poisson).unwrap().rate;
                assert!(
                    rate <= found.held.rate * if percentile.is_none() { 1.02 } else { 1.1 },
                    "{rate} above {}: {:?}",
                    found.held.rate,
                    r.plan()
                );
                judged += 1;
            }
            println!(
                "{level:?} {percentile:?}: {:.3} of {:.3} closed, {judged} judged",
                found.held.rate, found.row.point.requests_per_s
            );
            assert!(judged > 20, "{judged}");
        }
    }
}

#[test]
fn the_simulator_confirms_the_leaders() {
    let q = Question { confirm: true, ..question(None) };
    let study = explore(lab::db(), &q, &Control::new()).unwrap();
    for v in &study.verdicts {
        let l = v.leader.as_ref().unwrap();
        let s = l.simulated.unwrap();
        println!(
            "held {:.2} simulated {:.2} ({:.2} to {:.2}), closed {:.2}",
            l.held.rate, s.rate, s.low, s.high, l.row.point.requests_per_s
        );
        assert!(s.low <= s.rate && s.rate <= s.high);
        assert!(lab::gap(s.rate, l.held.rate) < 0.10, "{} {}", s.rate, l.held.rate);
    }
}

#[test]
fn what_cannot_be_honoured_is_refused() {
    let q = Question { arrivals: Arrivals::Closed, ..question(Some(99.0)) };
    let text = explore(lab::db(), &q, &Control::new()).err().unwrap().to_string();
    assert!(text.contains("slo.percentile") && text.contains("percentile needs arrivals='poisson'"), "{text}");
    let q = Question { objective: Objective::TokensPerSPerUser, ..question(None) };
    let text = explore(lab::db(), &q, &Control::new()).err().unwrap().to_string();
    assert!(text.contains("objective") && text.contains("no rate"), "{text}");
}
