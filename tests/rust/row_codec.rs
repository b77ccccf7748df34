//! Rows that cross from one process to another, and studies joined of units searched alone.

use disagg::spec::Framework;
use std::collections::BTreeSet;

use disagg::control::Control;
use disagg::network::Link;
use disagg::search::explore::{join, search};
use disagg::search::row_codec::{HEADER, pack, unpack};
use disagg::search::{Layout, Part, Question, Row, explore};
use disagg::serving::path::PathS;
use disagg::serving::steady_state::KvCost;
use disagg::serving::{Binding, ByPhase, Known, SteadyState};
use disagg::spec::{Case, Level, Parallel, Slo};
use disagg::spec::{PlanPool, Pool, Role};
use proptest::prelude::*;

use crate::lab;

fn bits() -> impl Strategy<Value = f64> {
    prop_oneof![any::<u64>().prop_map(f64::from_bits), any::<f64>(), Just(-0.0), Just(f64::NAN)]
}

fn layout() -> impl Strategy<Value = Layout> {
    let worker = (any::<[u32; 5]>(), any::<Option<u32>>()).prop_map(|([tp, dp, pp, cp, moe_tp], ep)| Layout::Worker {
        parallel: Parallel { tp, dp, pp, cp, ep, moe_tp },
        overlap: tp % 2 == 0,
    });
    let unit = any::<[u32; 7]>().prop_map(|[attention_gpus, tp, ffn_gpus, ep, moe_tp, microbatches, groups]| {
        Layout::Afd { attention_gpus, tp, ffn_gpus, ep, moe_tp, microbatches, groups, pp: groups }
    });
    prop_oneof![worker, unit]
}

fn part() -> impl Strategy<Value = Part> {
    (layout(), any::<[u32; 4]>()).prop_map(|(layout, [batch, chunk, count, interval])| Part {
        layout,
        batch,
        chunk,
        count,
        interval,
    })
}

fn binding() -> impl Strategy<Value = Binding> {
    let pool = prop::sample::select(PlanPool::ALL.to_vec());
    prop_oneof![
        Just(Binding::None),
        Just(Binding::Ttft),
        Just(Binding::Tpot),
        pool.prop_map(Binding::Memory),
        prop::sample::select(Link::ALL.to_vec()).prop_map(Binding::Bandwidth),
        Just(Binding::PrefillRate),
        Just(Binding::Divisibility),
        Just(Binding::Dominated),
    ]
}

fn point() -> impl Strategy<Value = SteadyState> {
    let kv = (bits(), bits(), bits(), any::<bool>());
    let known = || (any::<[u32; 5]>(), any::<[u32; 5]>());
    let evidence = (known(), known());
    let read = |(all, compute): ([u32; 5], [u32; 5])| Known {
        all: all.map(f32::from_bits),
        compute: compute.map(f32::from_bits),
    };
    (prop::array::uniform7(bits()), binding(), evidence, kv).prop_map(move |(f, binding, evidence, kv)| SteadyState {
        ttft_s: f[0],
        tpot_s: f[1],
        itl_worst_s: f[2],
        requests_per_s: f[3],
        concurrency: f[4],
        memory_bytes: f[5],
        binding,
        evidence: ByPhase { ttft: read(evidence.0), tpot: read(evidence.1) },
        decode_batch: f[6],
        kv: KvCost { wait_s: kv.0, prefill_s: kv.1, decode_s: kv.2, same_domain: kv.3 },
        path: PathS { front: kv.0 as f32, in_flight: kv.1 as f32, ahead: kv.2 as f32, ..PathS::default() },
    })
}

fn row() -> impl Strategy<Value = Row> {
    (prop::sample::select(Level::ALL), any::<u8>(), part(), prop::option::of(part()), point(), any::<[bool; 2]>())
        .prop_map(|(level, framework, main, prefill, point, [scanned, leads])| Row {
            level,
            framework,
            main,
            prefill,
            point,
            scanned,
            leads,
        })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(256) })]

    #[test]
    fn every_bit_of_a_row_comes_back(rows in prop::collection::vec(row(), 0..6)) {
        let bytes = pack(&rows).unwrap();
        let back = unpack(&bytes).unwrap();
        // The text of a double is exact but for what kind of not-a-number it is; the bytes tell that too.
        prop_assert_eq!(format!("{back:?}"), format!("{rows:?}"));
        prop_assert_eq!(pack(&back).unwrap(), bytes);
    }

    /// Whatever is changed is noticed or reads as rows; it never panics.
    #[test]
    fn changed_bytes_are_refused_or_rows(rows in prop::collection::vec(row(), 1..3), at in any::<prop::sample::Index>(), byte: u8) {
        let mut bytes = pack(&rows).unwrap();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        match unpack(&bytes) {
            Ok(back) => prop_assert!(back.len() <= bytes.len()),
            Err(e) => prop_assert!(e.to_string().starts_with("rows: ")),
        }
    }

    /// Cut anywhere, rows are refused.
    #[test]
    fn cut_bytes_are_refused(rows in prop::collection::vec(row(), 1..3), at in any::<prop::sample::Index>()) {
        let bytes = pack(&rows).unwrap();
        prop_assert!(unpack(&bytes[..at.index(bytes.len())]).is_err());
    }

    /// Bytes that were never rows, behind a header that is right.
    #[test]
    fn foreign_bytes_are_refused_or_rows(body: Vec<u8>) {
        let bytes = [&pack(&[]).unwrap()[..HEADER], &body].concat();
        if let Ok(back) = unpack(&bytes) {
            prop_assert!(back.len() <= body.len());
        }
    }
}

fn small() -> Question {
    let slo = Slo { ttft_ms: Some(2000.0), tpot_ms: Some(60.0), percentile: None };
    let cluster = lab::cluster("h200_sxm", 4);
    let mut q =
        Question::new(Case::new(lab::model("Qwen/Qwen3-30B-A3B"), cluster, lab::chat()).on(Framework::Trtllm), slo);
    q.case.frameworks.as_mut().unwrap().push(Framework::Sglang);
    q.batches_per_octave = 2;
    q
}

#[test]
fn rows_of_another_version_or_cut_are_refused() {
    let study = explore(lab::db(), &small(), &Control::new()).unwrap();
    let bytes = pack(&study.rows[..3]).unwrap();
    let said = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut other = bytes.clone();
        change(&mut other);
        unpack(&other).unwrap_err().to_string()
    };
    let cure = "search the unit again";
    for (text, has) in [
        (said(&|b| b[0] ^= 1), "another version of disagg: install the same on every worker"),
        (said(&|b| b[HEADER - 1] ^= 1), "another version of disagg"),
        (said(&|b| b.truncate(2)), "not even a header"),
        (said(&|b| b.truncate(HEADER)), "are cut"),
        (said(&|b| b.truncate(b.len() - 1)), "are cut"),
        // The first byte of the body is the number of rows, the next one the first row's level.
        (said(&|b| b[HEADER] += 1), "are cut"),
        (said(&|b| b[HEADER] -= 1), "too early"),
        (said(&|b| b[HEADER + 1] = 9), "are damaged"),
        (said(&|b| b.push(0)), "end 1 bytes too early"),
        // A count that no memory would hold.
        (
            said(&|b| drop(b.splice(HEADER..=HEADER, [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]))),
            "rows: are ",
        ),
    ] {
        assert!(text.contains(has) && text.starts_with("rows: "), "{text}");
        assert!(text.contains("another version") || text.contains(cure), "{text}");
    }
    let mut row = study.rows[0];
    row.point.binding = Binding::Memory(PlanPool { slot: Role::Decode, pool: Pool::Ffn });
    let bytes = pack(&[row]).unwrap();
    row.point.binding = Binding::Bandwidth(Link::Nic);
    let other = pack(&[row]).unwrap();
    // What binds stands as its number, then its pool's slot and pool, or its link.
    let at = bytes.iter().zip(&other).position(|(a, b)| a != b).unwrap();
    for (place, number) in [(at, 99), (at + 1, 9), (at + 2, 9)] {
        let mut bytes = bytes.clone();
        bytes[place] = number;
        let text = unpack(&bytes).unwrap_err().to_string();
        assert!(text.contains("are damaged") && text.contains(cure), "{text}");
    }
}

#[test]
fn units_searched_alone_make_the_same_study() {
    let q = small();
    let whole = explore(lab::db(), &q, &Control::new()).unwrap();
    let units = q.units().unwrap();
    let names: Vec<String> = units.iter().map(|u| q.label(u)).collect();
    let kinds = ["aggregated", "aggregated+afd", "pd and pd+afd"];
    let expected: Vec<String> =
        ["trtllm", "sglang"].iter().flat_map(|f| kinds.iter().map(move |k| format!("{k} on {f}"))).collect();
    assert_eq!(names, expected);
    let control = Control::new();
    // Backwards, so that nothing rests on what an earlier unit has left behind.
    let mut parts: Vec<Vec<Row>> = Vec::new();
    for unit in units.iter().rev() {
        let rows = search(lab::db(), &q, unit, &control).unwrap();
        parts.insert(0, unpack(&pack(&rows).unwrap()).unwrap());
    }
    let mut swapped = parts.clone();
    swapped.swap(0, 1);
    let joined = join(lab::db(), &q, parts.clone()).unwrap();
    assert!(joined.rows.len() > 1000);
    let levels: BTreeSet<Level> = joined.rows.iter().map(|r| r.level).collect();
    assert_eq!(levels.len(), 4);
    assert!(pack(&joined.rows).unwrap() == pack(&whole.rows).unwrap());
    assert_eq!(format!("{:?}", joined.verdicts), format!("{:?}", whole.verdicts));
    assert!(format!("{:?}", joined.points()) == format!("{:?}", whole.points()));
    let refused = |parts: Vec<Vec<Row>>| join(lab::db(), &q, parts).err().map(|e| e.to_string()).unwrap_or_default();
    assert!(refused(swapped).contains("parts[0]: has rows of another unit than aggregated on trtllm"));
    assert!(refused(parts[..5].to_vec()).contains("5 parts for 6 units"));
}

/// Only what is asked for: a unit of one level, and rows of a level that is not asked for are refused.
#[test]
fn levels_not_asked_for_are_not_searched() {
    let mut q = small();
    q.case.frameworks.as_mut().unwrap().truncate(1);
    q.levels = vec![Level::Pd];
    let units = q.units().unwrap();
    assert_eq!(units.iter().map(|u| q.label(u)).collect::<Vec<_>>(), ["pd on trtllm"]);
    let rows = search(lab::db(), &q, &units[0], &Control::new()).unwrap();
    assert!(!rows.is_empty() && rows.iter().all(|r| r.level == Level::Pd));
    let mut other = rows.clone();
    other[0].level = Level::PdAfd;
    assert!(join(lab::db(), &q, vec![other]).is_err());
    assert_eq!(join(lab::db(), &q, vec![rows]).unwrap().verdicts.len(), 1);
}
