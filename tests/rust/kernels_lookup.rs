//! The string-keyed lookup: lanes, what may be left out, what is an error, imports.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use disagg::cost::{Library, Op};
use disagg::kernels::import::RawColumn;
use disagg::kernels::lookup::lookup_all;
use disagg::kernels::table::{Provenance, Table, TableKey, TimeUnit, Value};
use disagg::kernels::{Evidence, KernelDb, Latency, Query, lookup};
use disagg::serving::Engine;
use disagg::serving::operators::BreakdownRow;
use disagg::serving::phase::{Phase, StepKind};
use disagg::spec::{Aggregated, Assumptions, Dtype, Framework, Parallel, Plan, Quant, Serving};
use disagg::{Error, Result};

use crate::kernels_pack::pack;
use crate::lab;

fn query(place: &str, keys: &[(&str, Value)]) -> Query {
    let mut parts = place.split('/').map(str::to_string);
    Query {
        system: parts.next().unwrap(),
        framework: parts.next().unwrap(),
        table: parts.next().unwrap(),
        keys: keys.iter().map(|(k, v)| (k.to_string(), vec![v.clone()])).collect(),
        ..Query::default()
    }
}

fn ask(db: &KernelDb, place: &str, keys: &[(&str, Value)]) -> Result<Latency> {
    lookup(db, &query(place, keys))
}

fn with<'a>(keys: &[(&'a str, Value)], more: &[(&'a str, Value)]) -> Vec<(&'a str, Value)> {
    keys.iter().chain(more).cloned().collect()
}

fn text(result: Result<Latency>) -> String {
    result.unwrap_err().to_string()
}

fn n(x: i64) -> Value {
    x.into()
}

fn attention(head_dim: i64) -> Vec<(&'static str, Value)> {
    vec![
        ("batch_size", n(8)),
        ("isl", n(1024)),
        ("num_heads", n(64)),
        ("num_key_value_heads", n(4)),
        ("head_dim", n(head_dim)),
        ("window_size", n(0)),
        ("attn_dtype", "bfloat16".into()),
        ("kv_cache_dtype", "bfloat16".into()),
    ]
}

fn moe(tokens: i64) -> Vec<(&'static str, Value)> {
    vec![
        ("moe_dtype", "nvfp4".into()),
        ("num_tokens", n(tokens)),
        ("hidden_size", n(7168)),
        ("inter_size", n(2048)),
        ("topk", n(8)),
        ("num_experts", n(256)),
        ("moe_tp_size", n(1)),
        ("moe_ep_size", n(8)),
        ("distribution", "power_law_1.2".into()),
    ]
}

fn dsa() -> Vec<(&'static str, Value)> {
    vec![
        ("architecture", "DeepseekV32ForCausalLM".into()),
        ("kv_cache_dtype", "fp8".into()),
        ("gemm_type", "fp8_block".into()),
        ("num_heads", n(128)),
        ("batch_size", n(8)),
        ("step", n(8192)),
    ]
}

#[test]
fn default_lanes_choose_the_kernel_the_framework_runs() {
    let db = KernelDb::open(&pack()).unwrap();
    let kernel = |place: &str, keys: &[(&str, Value)]| {
        let source = ask(&db, place, keys).unwrap().source;
        source[source.find('[').unwrap() + 1..source.len() - 1].to_string()
    };
    assert_eq!(kernel("h200_sxm/sglang/context_attention", &attention(128)), "fa3");
    assert_eq!(kernel("b200_sxm/trtllm/moe", &moe(128)), "moe_torch_flow_min_latency");
    assert_eq!(kernel("b200_sxm/trtllm/moe", &moe(160)), "moe_torch_flow_cutlass");
    let named = with(&moe(1024), &[("kernel_source", "moe_torch_flow_min_latency".into())]);
    assert_eq!(kernel("b200_sxm/trtllm/moe", &named), "moe_torch_flow_min_latency");
    let reduce = [("num_gpus", n(8)), ("message_size", n(1_048_576))];
    assert_eq!(kernel("b200_sxm/sglang/custom_allreduce", &reduce), "SGLang_CustomAllReduce_graph");
    let wide = [("num_heads", n(128)), ("batch_size", n(8)), ("isl", n(1024))];
    assert_eq!(kernel("h200_sxm/sglang/wideep_context_mla", &wide), "fa3");
    assert_eq!(kernel("gb200/sglang/wideep_context_mla", &wide), "trtllm_mla");
    let send = [("op_name", "alltoall_dispatch".into()), ("moe_dtype", "nvfp4".into()), ("num_tokens", n(128))];
    assert_eq!(kernel("gb200/trtllm/trtllm_alltoall", &with(&send, &[("moe_ep_size", n(8))])), "NVLinkOneSided");
    assert_eq!(kernel("gb200/trtllm/trtllm_alltoall", &with(&send, &[("moe_ep_size", n(64))])), "NVLinkTwoSided");
}

#[test]
fn two_kernels_for_one_key_are_an_error_that_lists_them() {
    let db = KernelDb::open(&pack()).unwrap();
    // On Blackwell neither of the two measured at this shape is sglang's default (Triton).
    let mut keys = attention(128);
    keys[2].1 = n(32);
    let said = text(ask(&db, "b200_sxm/sglang/context_attention", &keys));
    assert!(said.contains("flashinfer, trtllm_mha") && said.contains("kernel_source="), "{said}");
    let named = with(&keys, &[("kernel_source", "flashinfer".into())]);
    assert!(ask(&db, "b200_sxm/sglang/context_attention", &named).unwrap().source.contains("flashinfer"));
}

#[test]
fn a_nongated_kernel_must_be_asked_for() {
    let db = KernelDb::open(&pack()).unwrap();
    let table = db.table("b200_sxm", "trtllm", "moe", None).unwrap();
    let row = table.find(&[("kernel_source", "moe_torch_flow_nongated".into())])[0] as usize;
    let all: Vec<(&str, Value)> = table
        .keys
        .iter()
        .map(|k| {
            let v = match k {
                TableKey::Int { values, .. } => n(values[row]),
                TableKey::Text { codes, labels, .. } => labels[codes[row] as usize].as_str().into(),
            };
            (k.name(), v)
        })
        .collect();
    assert!(ask(&db, "b200_sxm/trtllm/moe", &all).is_ok());
    let unnamed: Vec<_> = all.into_iter().filter(|(k, _)| *k != "kernel_source").collect();
    assert!(text(ask(&db, "b200_sxm/trtllm/moe", &unnamed)).contains("without a gate"));
}

#[test]
fn what_does_not_matter_is_ignored_and_spellings_of_one_dtype_agree() {
    let db = KernelDb::open(&pack()).unwrap();
    let place = "b200_sxm/sglang/dsa_generation_module";
    let plain = ask(&db, place, &dsa()).unwrap();
    assert!(!plain.source.contains("skip_indexer"), "{}", plain.source);
    let extra = with(&dsa(), &[("model", "deepseek-ai/DeepSeek-V3.2".into()), ("tp_size", n(8))]);
    assert_eq!(ask(&db, place, &extra).unwrap(), plain);
    let mut e4m3 = dsa();
    e4m3[1].1 = "fp8_e4m3".into();
    assert_eq!(ask(&db, place, &e4m3).unwrap(), plain);
}

#[test]
fn microseconds_come_back_as_milliseconds() {
    let db = KernelDb::open(&pack()).unwrap();
    let keys = [
        ("node_num", n(1)),
        ("hidden_size", n(7168)),
        ("num_token", n(128)),
        ("num_topk", n(8)),
        ("num_experts", n(256)),
    ];
    let mut q = query("h200_sxm/sglang/wideep_deepep_ll", &keys);
    let said = text(lookup(&db, &q));
    assert!(said.contains("measure=") && said.contains("dispatch_avg_t_us"), "{said}");
    q.measure = Some("dispatch_avg_t_us".into());
    let dispatch = lookup(&db, &q).unwrap().ms;
    assert!((0.01..0.5).contains(&dispatch), "{dispatch}");
    q.measure = Some("dispatch_avg_t_us + combine_avg_t_us".into());
    assert!(lookup(&db, &q).unwrap().ms > 1.5 * dispatch);
    q.measure = Some("dispatch_bandwidth_gbps".into());
    assert!(text(lookup(&db, &q)).contains("not a time"));
    let table = db.table("b200_sxm", "vllm", "moe_a2a", None).unwrap();
    assert_eq!(table.unit("latency"), TimeUnit::Microseconds);
}

#[test]
fn unknown_keys_and_values_are_answered_with_near_ones() {
    let db = KernelDb::open(&pack()).unwrap();
    let gemm = [("gemm_dtype", "bfloat16".into()), ("m", n(64)), ("n", n(7168)), ("k", n(2048))];
    let place = "h200_sxm/trtllm/gemm";
    assert!(ask(&db, place, &gemm).is_ok());
    let said = text(ask(&db, place, &with(&gemm, &[("gem_dtype", "fp8".into())])));
    assert!(said.contains("did you mean 'gemm_dtype'"), "{said}");
    let said = text(ask(&db, place, &[&[("gemm_dtype", Value::from("bfloat"))], &gemm[1..]].concat()));
    assert!(said.contains("gemm_dtype") && said.contains("bfloat16"), "{said}");
    let said = text(ask(&db, place, &gemm[1..]));
    assert!(said.contains("gemm_dtype=") && said.contains("fp8_block"), "{said}");
    let said = text(ask(&db, "h200_sxm/sglang/context_attention", &attention(100)));
    assert!(said.contains("head_dim") && said.contains("128"), "{said}");
    let said = text(ask(&db, place, &with(&gemm[..3], &[("k", "big".into())])));
    assert!(said.contains("expected a number"), "{said}");
}

#[test]
fn points_off_the_grid_lie_between_their_neighbours() {
    let db = KernelDb::open(&pack()).unwrap();
    let between = |place: &str, keys: &[(&str, Value)], name: &str, lo: i64, at: f64, hi: i64| {
        let [lo, mid, hi] = [lo as f64, at, hi as f64].map(|x| {
            let mut keys = keys.to_vec();
            keys.retain(|k| k.0 != name);
            keys.push((name, Value::Number(x)));
            ask(&db, place, &keys).unwrap()
        });
        assert_eq!((lo.evidence, hi.evidence), (Evidence::Measured, Evidence::Measured), "{place} {name}");
        assert!(mid.evidence > Evidence::Measured, "{place} {name}");
        assert!(mid.ms > 0.9 * lo.ms && mid.ms < hi.ms / 0.9, "{place} {name}: {} {} {}", lo.ms, mid.ms, hi.ms);
        mid
    };
    let gemm = [("gemm_dtype", "fp8".into()), ("m", n(1024)), ("n", n(7168)), ("k", n(2048))];
    between("h200_sxm/trtllm/gemm", &gemm, "m", 1024, 1100.0, 1280);
    between("h200_sxm/trtllm/gemm", &gemm, "n", 4096, 4608.0, 7168);
    between("h200_sxm/sglang/context_attention", &attention(128), "isl", 1024, 1300.0, 1536);
    between("b200_sxm/trtllm/moe", &moe(1024), "num_tokens", 1024, 1200.0, 1536);
    between("b200_sxm/sglang/dsa_generation_module", &dsa(), "step", 8192, 9000.0, 16_384);
    let nccl = [("op_name", "all_gather".into()), ("nccl_dtype", "half".into()), ("num_gpus", n(8))];
    between("b200_sxm/nccl/nccl", &nccl, "message_size", 1 << 20, 1.5e6, 1 << 21);
    let far = with(&nccl, &[("message_size", n(1 << 30))]);
    let (edge, far) = (with(&nccl, &[("message_size", n(1 << 29))]), ask(&db, "b200_sxm/nccl/nccl", &far).unwrap());
    let ratio = far.ms / ask(&db, "b200_sxm/nccl/nccl", &edge).unwrap().ms;
    assert_eq!(far.evidence, Evidence::Extrapolated);
    assert!((1.9..2.1).contains(&ratio), "{ratio}");
    // An odd EP size, a named kernel, a named version.
    between("b200_sxm/trtllm/moe", &moe(1024), "moe_ep_size", 32, 28.0, 16);
    let named = with(&moe(1024), &[("kernel_source", "moe_torch_flow_min_latency".into())]);
    let one = between("b200_sxm/trtllm/moe", &named, "num_tokens", 1024, 1200.0, 1536);
    assert!(one.source.contains("min_latency") && !one.source.contains("cutlass"), "{}", one.source);
    // A system without a data sheet interpolates the rows themselves.
    let table = db.table("h200_sxm", "trtllm", "gemm", None).unwrap();
    let mine = Table { system: "my_gpu".into(), ..(*table).clone() };
    let mine = KernelDb::empty().with_tables("lab", vec![mine]).unwrap();
    let at = |m: i64| {
        ask(&mine, "my_gpu/trtllm/gemm", &[gemm[0].clone(), ("m", n(m)), gemm[2].clone(), gemm[3].clone()]).unwrap().ms
    };
    assert!(at(1100) > 0.9 * at(1024) && at(1100) < at(1280) / 0.9);
}

#[test]
fn numbers_broadcast() {
    let db = KernelDb::open(&pack()).unwrap();
    let mut q = query("h200_sxm/trtllm/gemm", &[("gemm_dtype", "bfloat16".into()), ("n", n(7168)), ("k", n(2048))]);
    q.keys.push(("m".into(), [1, 64, 4096].map(n).to_vec()));
    let all = lookup_all(&db, &q).unwrap();
    assert_eq!(all.len(), 3);
    assert!(all[0].ms < all[2].ms);
    for (one, m) in all.iter().zip([1, 64, 4096]) {
        let mut single = q.clone();
        single.keys[3].1 = vec![n(m)];
        assert_eq!(lookup(&db, &single).unwrap(), *one);
    }
    q.keys[1].1 = [512, 7168].map(n).to_vec();
    assert!(matches!(lookup_all(&db, &q), Err(Error::Spec(_))));
    q.keys[1].1 = vec![n(7168)];
    q.keys[3].1 = vec![];
    assert_eq!(lookup_all(&db, &q).unwrap(), vec![]);
}

fn raw(case: &serde_json::Value) -> Vec<(String, RawColumn)> {
    case["columns"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| {
            let values = c["values"].as_array().unwrap();
            let column = match c["kind"].as_str().unwrap() {
                "int" => RawColumn::Int(values.iter().map(|v| v.as_i64().unwrap()).collect()),
                "text" => RawColumn::Text(values.iter().map(|v| v.as_str().unwrap().to_string()).collect()),
                _ => RawColumn::Measure(values.iter().map(|v| v.as_f64().unwrap()).collect()),
            };
            (c["name"].as_str().unwrap().to_string(), column)
        })
        .collect()
}

/// The same file is read by `tests/python/test_kernel_build.py`.
#[test]
fn imported_rows_collapse_as_the_pack_builder_collapses_them() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/kernel_collapse.json");
    let case: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let table = case["table"].as_str().unwrap();
    let t = Table::from_columns("sys", "fw", "1", table, raw(&case), Provenance::default()).unwrap();
    let expected = &case["expected"];
    let names: Vec<&str> = t.keys.iter().map(TableKey::name).collect();
    let keys: Vec<Vec<String>> = t.keys.iter().map(|k| (0..t.rows()).map(|r| k.show(k.code(r))).collect()).collect();
    assert_eq!(serde_json::json!(names), expected["keys"]);
    assert_eq!(serde_json::json!(keys), expected["rows"]);
    let medians: Vec<f64> = t.measure("latency").unwrap().iter().map(|&v| f64::from(v)).collect();
    assert_eq!(serde_json::json!(medians), expected["latency"]);
    let noise = serde_json::to_value(t.provenance.noise).unwrap();
    for (name, want) in expected["noise"].as_object().unwrap() {
        assert!((noise[name].as_f64().unwrap() - want.as_f64().unwrap()).abs() < 1e-6, "{name}");
    }
}

#[test]
fn an_import_stands_in_front_of_the_pack_under_its_own_name() {
    let db = KernelDb::open(&pack()).unwrap();
    let columns = |ms: f64| {
        vec![
            ("gemm_dtype".to_string(), RawColumn::Text(vec!["bfloat16".into()])),
            ("m".to_string(), RawColumn::Int(vec![64])),
            ("n".to_string(), RawColumn::Int(vec![7168])),
            ("k".to_string(), RawColumn::Int(vec![2048])),
            ("latency".to_string(), RawColumn::Measure(vec![ms])),
        ]
    };
    let make = |system: &str, ms: f64| {
        Table::from_columns(system, "trtllm", "9.9", "gemm", columns(ms), Provenance::default()).unwrap()
    };
    let mine = db.with_tables("lab", vec![make("h200_sxm", 0.5), make("my_gpu", 0.25)]).unwrap();
    let gemm = [("gemm_dtype", "bfloat16".into()), ("m", n(64)), ("n", n(7168)), ("k", n(2048))];
    let got = ask(&mine, "h200_sxm/trtllm/gemm", &gemm).unwrap();
    assert_eq!((got.ms, got.evidence), (0.5, Evidence::Measured));
    assert_eq!(got.source, "lab: h200_sxm trtllm 9.9 gemm");
    assert_eq!(ask(&mine, "my_gpu/trtllm/gemm", &gemm).unwrap().ms, 0.25);
    assert!(mine.systems().contains(&"my_gpu".to_string()));
    // The pack's table is still there by its version, the first database has not changed.
    let mut q = query("h200_sxm/trtllm/gemm", &gemm);
    q.version = Some("1.3.0rc20".into());
    let packed = lookup(&mine, &q).unwrap();
    assert_eq!(packed, ask(&db, "h200_sxm/trtllm/gemm", &gemm).unwrap());
    q.version = Some("lab".into());
    assert_eq!(lookup(&mine, &q).unwrap().ms, 0.5);
    assert!(db.table("my_gpu", "trtllm", "gemm", None).is_err());
    assert!(mine.with_tables("lab", vec![]).is_err());
    let a = db.table("h200_sxm", "vllm", "mla_bmm", None).unwrap();
    assert!(Arc::ptr_eq(&a, &mine.table("h200_sxm", "vllm", "mla_bmm", None).unwrap()));
}

/// What an import lacks is answered by the rows that were there, to the bit; what it has hides all of its lane.
#[test]
fn an_import_leaves_alone_what_it_lacks() {
    let db = KernelDb::open(&pack()).unwrap();
    let shipped = db.table("b200_sxm", "trtllm", "moe", None).unwrap();
    let TableKey::Text { codes, labels, .. } = shipped.key("moe_dtype").unwrap() else { panic!() };
    let of = |name: &str| {
        let code = labels.iter().position(|l| l == name).unwrap();
        (0..shipped.rows() as u32).filter(|r| usize::from(codes[*r as usize]) == code).collect::<Vec<u32>>()
    };
    // Every other bfloat16 row, twice as slow: DeepSeek's experts in FP8 are none of its business.
    let mut mine = shipped.subset(&of("bfloat16").into_iter().step_by(2).collect::<Vec<_>>());
    mine.version = "9.9".into();
    mine.measures.iter_mut().for_each(|(_, v)| v.iter_mut().for_each(|x| *x *= 2.0));
    let lab = db.with_tables("lab", vec![mine.clone()]).unwrap();
    let both = lab.table("b200_sxm", "trtllm", "moe", None).unwrap();
    assert_eq!(lab.table("b200_sxm", "trtllm", "moe", Some("lab")).unwrap().rows(), mine.rows());
    let row = |t: &Table, r: u32| -> (Vec<String>, f32) {
        (
            t.keys.iter().map(|k| format!("{}={}", k.name(), k.show(k.code(r as usize)))).collect(),
            t.measures[0].1[r as usize],
        )
    };
    let sorted = |t: &Table, rows: &[u32]| {
        let mut all: Vec<_> = rows
            .iter()
            .map(|r| row(t, *r))
            .map(|(mut k, v)| {
                k.sort();
                (k, v.to_bits())
            })
            .collect();
        all.sort();
        all
    };
    let all: Vec<u32> = (0..both.rows() as u32).collect();
    let (own, kept): (Vec<u32>, Vec<u32>) = all.iter().partition(|r| both.imports_any(&[**r]));
    assert_eq!(sorted(&both, &own), sorted(&mine, &(0..mine.rows() as u32).collect::<Vec<_>>()));
    let fp8 = of("fp8_block");
    assert!(fp8.len() > 1000 && kept.len() >= fp8.len());
    let kept_fp8: Vec<u32> =
        kept.iter().copied().filter(|r| row(&both, *r).0.iter().any(|k| k == "moe_dtype=fp8_block")).collect();
    assert_eq!(sorted(&both, &kept_fp8), sorted(&shipped, &fp8));
    assert!(
        both.named(&kept[..1]).contains("1.3.0rc20") && both.named(&own[..1]).starts_with("lab: b200_sxm trtllm 9.9")
    );
    // A second import over the first: three kinds of rows, each under its own name.
    let mut more = shipped.subset(&of("nvfp4").into_iter().take(500).collect::<Vec<_>>());
    more.version = "10".into();
    let three = lab.with_tables("more", vec![more]).unwrap().table("b200_sxm", "trtllm", "moe", None).unwrap();
    let names: BTreeSet<String> = (0..three.rows() as u32).map(|r| three.named(&[r])).collect();
    assert_eq!(names.len(), 3, "{names:?}");
    // Experts of DeepSeek-R1 in FP8 are priced as before, those in bfloat16 as the import says.
    for (dtype, slower) in [(Dtype::Fp8Block, 1.0), (Dtype::Bf16, 2.0)] {
        let quant = Quant { moe: Some(dtype), ..Quant::default() };
        let seconds = |db: &Arc<KernelDb>| {
            let (model, cluster) = (lab::model("deepseek-ai/DeepSeek-R1"), lab::cluster("b200_sxm", 8));
            let (serving, assumptions) = (Serving::default(), Assumptions::default());
            let trtllm = Framework::Trtllm;
            let lib = Library::new(db.clone(), &model, &cluster, trtllm, &quant, &serving, &assumptions).unwrap();
            let plan = Plan::Aggregated(Aggregated {
                parallel: Parallel { ep: Some(1), moe_tp: 8, ..lab::split(8, 1, 1) },
                batch: Some(16),
                ..Aggregated::default()
            });
            let estimate = Engine::new(&Arc::new(lib), &lab::chat(), &plan).unwrap().estimate().unwrap();
            let decode = |r: &&BreakdownRow| r.op == Op::Experts && r.phase == Phase::StepClock(StepKind::Decode);
            estimate.tables.breakdown.iter().filter(decode).map(|r| r.ms).sum::<f64>()
        };
        let (before, after) = (seconds(&db), seconds(&lab));
        assert!((after / before / slower - 1.0).abs() < 0.02, "{dtype:?}: {before} {after}");
        assert!(slower > 1.0 || before == after, "{before} {after}");
    }
}

#[test]
fn bad_columns_are_refused_with_column_and_row() {
    let good = || {
        vec![("m".to_string(), RawColumn::Int(vec![1, 2])), ("latency".to_string(), RawColumn::Measure(vec![1.0, 2.0]))]
    };
    let make = |columns| Table::from_columns("s", "f", "1", "gemm", columns, Provenance::default());
    assert!(make(good()).is_ok());
    let bad: BTreeMap<&str, Vec<(String, RawColumn)>> = BTreeMap::from([
        (
            "column 'latency', row 1: -2 is negative",
            vec![good()[0].clone(), ("latency".into(), RawColumn::Measure(vec![1.0, -2.0]))],
        ),
        (
            "column 'latency', row 0: NaN",
            vec![good()[0].clone(), ("latency".into(), RawColumn::Measure(vec![f64::NAN, 2.0]))],
        ),
        ("column 'latency' has 1 rows", vec![good()[0].clone(), ("latency".into(), RawColumn::Measure(vec![1.0]))]),
        ("column 'm' is there twice", vec![good()[0].clone(), good()[0].clone(), good()[1].clone()]),
        ("no measured column", vec![good()[0].clone()]),
        ("no key column", vec![good()[1].clone()]),
        ("no rows", vec![]),
        (
            "code 3 has no label",
            vec![("d".into(), RawColumn::Coded { codes: vec![0, 3], labels: vec!["a".into()] }), good()[1].clone()],
        ),
    ]);
    for (what, columns) in bad {
        let said = make(columns).unwrap_err().to_string();
        assert!(said.contains(what), "{said}");
    }
}
