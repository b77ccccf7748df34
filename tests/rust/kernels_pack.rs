//! The shipped pack: golden rows, default versions, damaged files, imports.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use disagg::Error;
use disagg::kernels::ops::Source;
use disagg::kernels::table::{Table, Value};
use disagg::kernels::{Evidence, KernelDb, Query, lookup, report};

pub fn pack() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("python/disagg/data/kernels")
}

fn golden(file: &str) -> Vec<BTreeMap<String, String>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(file);
    let text = std::fs::read_to_string(path).unwrap();
    let mut lines = text.lines().map(split);
    let names = lines.next().unwrap();
    lines.map(|l| names.iter().cloned().zip(l).collect()).collect()
}

/// Splits one CSV line; a quote inside a quoted field is doubled.
fn split(line: &str) -> Vec<String> {
    let (mut out, mut field, mut quoted) = (Vec::new(), String::new(), false);
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => field.push(chars.next().unwrap()),
            '"' => quoted = !quoted,
            ',' if !quoted => out.push(std::mem::take(&mut field)),
            _ => field.push(c),
        }
    }
    out.push(field);
    out
}

fn golden_keys(row: &BTreeMap<String, String>) -> Vec<(String, Value)> {
    let keys: BTreeMap<String, serde_json::Value> = serde_json::from_str(&row["keys"]).unwrap();
    keys.into_iter()
        .map(|(k, v)| {
            let v = match &v {
                serde_json::Value::String(t) => Value::Text(t.clone()),
                v => Value::Number(v.as_f64().unwrap()),
            };
            (k, v)
        })
        .collect()
}

#[test]
fn every_golden_row_is_reproduced() {
    let db = KernelDb::open(&pack()).unwrap();
    let repeats: BTreeMap<usize, (f64, f64)> = golden("golden_ops_repeats.csv")
        .iter()
        .map(|r| (r["row"].parse().unwrap(), (r["least_ms"].parse().unwrap(), r["largest_ms"].parse().unwrap())))
        .collect();
    let rows = golden("golden_ops.csv");
    assert_eq!(rows.len(), 115);
    for (i, row) in rows.iter().enumerate() {
        let query = Query {
            system: row["system"].clone(),
            framework: row["framework"].clone(),
            table: row["table"].clone(),
            version: Some(row["version"].clone()),
            measure: Some(row["measure"].clone()),
            keys: golden_keys(row).into_iter().map(|(k, v)| (k, vec![v])).collect(),
        };
        let got = lookup(&db, &query).unwrap();
        let expected: f64 = row["latency_ms"].parse().unwrap();
        let (least, largest) = repeats.get(&i).copied().unwrap_or((expected, expected));
        assert_eq!(row["n_duplicate_rows"] == "1", !repeats.contains_key(&i));
        let slack = f64::from(f32::EPSILON);
        assert!(got.ms >= least * (1.0 - slack) && got.ms <= largest * (1.0 + slack), "{row:?}: {}", got.ms);
        assert_eq!(got.evidence, Evidence::Measured);
        assert!(got.source.contains(&row["version"]), "{}", got.source);
    }
}

#[test]
fn versions_default_to_the_current_one_then_the_newest() {
    let db = KernelDb::open(&pack()).unwrap();
    assert_eq!(db.table("h200_sxm", "sglang", "moe", None).unwrap().version, "0.5.14");
    assert_eq!(db.table("h200_sxm", "sglang", "wideep_deepep_ll", None).unwrap().version, "0.5.12");
    assert_eq!(db.table("h200_sxm", "trtllm", "moe_a2a", None).unwrap().version, "1.3.0rc11");
    assert_eq!(db.table("b200_sxm", "nccl", "nccl_perf.parquet", None).unwrap().version, "2.29.2");
    let old = db.table("h200_sxm", "sglang", "wideep_deepep_ll", Some("0.5.6.post2")).unwrap();
    assert_eq!(old.version, "0.5.6.post2");
    assert_eq!(old.provenance.path, "h200_sxm/comm/sglang/0.5.6.post2/wideep_deepep_ll_perf.parquet");
}

#[test]
fn unknown_names_are_answered_with_near_ones() {
    let db = KernelDb::open(&pack()).unwrap();
    let says = |r: disagg::Result<Arc<Table>>, what: &str| {
        let text = r.unwrap_err().to_string();
        assert!(text.contains(what), "{text}");
    };
    says(db.table("b200", "sglang", "moe", None), "b200_sxm");
    says(db.table("b200_sxm", "sglan", "moe", None), "did you mean 'sglang'");
    says(db.table("b200_sxm", "sglang", "gem", None), "did you mean 'gemm'");
    says(db.table("b200_sxm", "sglang", "gemm", Some("0.5.15")), "0.5.14");
}

#[test]
fn every_table_decodes_with_distinct_sorted_keys() {
    let db = KernelDb::open(&pack()).unwrap();
    let mut rows = 0;
    for system in db.systems() {
        for framework in db.sources(&system).unwrap() {
            assert_eq!(framework != "nccl", db.frameworks(&system).unwrap().contains(&framework), "{framework}");
            for info in db.tables(&system, &framework).unwrap() {
                let t = db.table(&system, &framework, &info.name, Some(&info.version)).unwrap();
                assert_eq!(t.rows(), info.rows);
                for r in 1..t.rows() {
                    let step = t.keys.iter().map(|k| k.code(r).cmp(&k.code(r - 1))).find(|o| o.is_ne());
                    assert_eq!(step, Some(std::cmp::Ordering::Greater), "{} row {r}", info.provenance.path);
                }
                for (name, values) in &t.measures {
                    assert!(values.iter().all(|v| v.is_finite() && *v >= 0.0), "{name}");
                }
                rows += t.rows();
            }
        }
    }
    assert!(rows > 7_000_000);
}

/// A copy of one system's pack that a test may damage.
fn copy(name: &str) -> PathBuf {
    let dir = std::env::temp_dir().join(format!("disagg-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    for file in ["index.json", "h200_sxm.pack"] {
        std::fs::copy(pack().join(file), dir.join(file)).unwrap();
    }
    dir
}

#[test]
fn a_damaged_pack_is_an_error_that_names_the_file() {
    let dir = copy("damaged");
    let path = dir.join("h200_sxm.pack");
    let whole = std::fs::read(&path).unwrap();
    let read = |db: &KernelDb, name: &str| db.table("h200_sxm", "vllm", name, None).map(|t| t.rows());

    let mut bytes = whole.clone();
    for b in bytes.iter_mut().step_by(1000) {
        *b ^= 0x40;
    }
    std::fs::write(&path, &bytes).unwrap();
    let db = KernelDb::open(&dir).unwrap();
    match read(&db, "gemm").unwrap_err() {
        Error::Data { path, message } => {
            assert!(path.ends_with("h200_sxm.pack"), "{path}");
            assert!(message.contains("vllm/0.24.0/gemm") && message.contains("checksum"), "{message}");
        }
        other => panic!("{other:?}"),
    }
    // A read that failed is tried again: mending the file mends the open database.
    std::fs::write(&path, &whole).unwrap();
    assert!(read(&db, "gemm").is_ok());

    std::fs::write(&path, &whole[..1000]).unwrap();
    let text = read(&KernelDb::open(&dir).unwrap(), "moe").unwrap_err().to_string();
    assert!(text.contains("h200_sxm.pack") && text.contains("truncated"), "{text}");

    std::fs::remove_file(&path).unwrap();
    assert!(matches!(read(&KernelDb::open(&dir).unwrap(), "moe"), Err(Error::Data { .. })));

    std::fs::write(dir.join("index.json"), "{\"format\": \"disagg-k").unwrap();
    assert!(matches!(KernelDb::open(&dir), Err(Error::Data { .. })));
    std::fs::remove_dir_all(&dir).unwrap();
    assert!(matches!(KernelDb::open(&dir), Err(Error::Data { .. })));
}

/// A damaged table is an error wherever an estimate needs it: never the roofline of a table that is not there.
#[test]
fn an_estimate_never_takes_a_roofline_for_a_damaged_table() {
    use disagg::prelude::*;
    let dir = copy("roofline");
    let path = dir.join("h200_sxm.pack");
    let whole = std::fs::read(&path).unwrap();
    let index: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(dir.join("index.json")).unwrap()).unwrap();
    let estimate = || -> Result<f64> {
        let db = KernelDb::open(&dir)?;
        let (model, cluster) = (catalog::model("Qwen/Qwen3-30B-A3B")?, catalog::cluster("h200_sxm", 8)?);
        let (quant, serving, how) = (Quant::default(), Serving::default(), Assumptions::physical());
        let lib = library(&db, &model, &cluster, Framework::Trtllm, &quant, &serving, &how)?;
        let parallel = Parallel { tp: 2, ..Parallel::default() };
        let plan = Plan::Aggregated(Aggregated { parallel, batch: Some(8), ..Aggregated::default() });
        Ok(Engine::new(&lib, &catalog::workload("paper-chat")?, &plan)?.point.tpot_s)
    };
    let right = estimate().unwrap();
    let (mut refused, mut untouched) = (Vec::new(), 0);
    for entry in index["tables"].as_array().unwrap().iter().filter(|e| e["system"] == "h200_sxm") {
        let at = entry["offset"].as_u64().unwrap() as usize + entry["bytes"].as_u64().unwrap() as usize / 2;
        let mut bytes = whole.clone();
        bytes[at] ^= 0x40;
        std::fs::write(&path, &bytes).unwrap();
        match estimate() {
            Ok(tpot) => {
                assert_eq!(tpot, right, "{entry}");
                untouched += 1;
            }
            Err(Error::Data { path, message }) => {
                let table = entry["table"].as_str().unwrap();
                assert!(path.ends_with("h200_sxm.pack") && message.contains(table), "{path}: {message}");
                refused.push(table.to_string());
            }
            Err(other) => panic!("{entry}: {other}"),
        }
        assert_eq!(
            KernelDb::open(&dir)
                .unwrap()
                .damaged(&Control::new())
                .unwrap()
                .iter()
                .filter(|(p, _)| p.contains("h200"))
                .count(),
            1
        );
    }
    for needed in ["gemm", "generation_attention", "context_attention", "moe", "nccl"] {
        assert!(refused.iter().any(|t| t == needed), "{needed}: {refused:?}");
    }
    assert!(untouched > 0);
    std::fs::remove_dir_all(&dir).unwrap();
}

/// A report reads tables beside its own: one that is damaged is an error with the file, not rows that are passed over.
#[test]
fn a_report_never_passes_over_what_a_damaged_table_serves() {
    let dir = copy("report");
    let path = dir.join("h200_sxm.pack");
    let whole = std::fs::read(&path).unwrap();
    let index: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(dir.join("index.json")).unwrap()).unwrap();
    let suspects = |table: &str| {
        let source = Source {
            db: KernelDb::open(&dir)?,
            system: "h200_sxm".into(),
            framework: "sglang".into(),
            device: disagg::spec::catalog::system("h200_sxm")?.0,
            graph: false,
            by_rule: false,
        };
        report::suspects(&source, table)
    };
    let asked = ["dsa_generation_module", "dsa_context_module", "generation_mla"];
    let right = asked.map(|t| suspects(t).unwrap());
    let mut refused = Vec::new();
    let of = |e: &&serde_json::Value| e["system"] == "h200_sxm" && e["framework"] == "sglang";
    for entry in index["tables"].as_array().unwrap().iter().filter(of) {
        let table = entry["table"].as_str().unwrap();
        let at = entry["offset"].as_u64().unwrap() as usize + entry["bytes"].as_u64().unwrap() as usize / 2;
        let mut bytes = whole.clone();
        bytes[at] ^= 0x40;
        std::fs::write(&path, &bytes).unwrap();
        for (name, right) in asked.iter().zip(&right) {
            match suspects(name) {
                Ok(found) => assert_eq!(found, *right, "{name} with {table} damaged"),
                Err(Error::Data { path, message }) => {
                    assert!(path.ends_with("h200_sxm.pack") && message.contains(table), "{path}: {message}");
                    refused.push((*name, table.to_string()));
                }
                Err(other) => panic!("{name}, {table}: {other}"),
            }
        }
    }
    assert!(asked.iter().all(|name| refused.iter().any(|(n, table)| n == name && table == name)), "{refused:?}");
    std::fs::remove_dir_all(&dir).unwrap();
}

/// A change of any byte of the index is found before a table is looked for.
#[test]
fn a_damaged_index_is_refused() {
    let dir = copy("index");
    let path = dir.join("index.json");
    let whole = std::fs::read(&path).unwrap();
    for at in (0..whole.len()).step_by(997) {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        match KernelDb::open(&dir) {
            Err(Error::Data { path, .. }) => assert!(path.ends_with("index.json"), "{path}"),
            other => panic!("byte {at}: {other:?}"),
        }
    }
    // Line ends may change on the way, tables may not be left out.
    let text = String::from_utf8(whole).unwrap();
    std::fs::write(&path, text.replace('\n', "\r\n")).unwrap();
    assert!(KernelDb::open(&dir).is_ok());
    let shorter: Vec<&str> = text.lines().filter(|l| !l.contains("\"table\":\"gemm\"")).collect();
    std::fs::write(&path, shorter.join("\n")).unwrap();
    assert!(matches!(KernelDb::open(&dir), Err(Error::Data { .. })));
    std::fs::remove_dir_all(&dir).unwrap();
}

/// What a table holds is told apart, shipped or imported.
#[test]
fn the_identity_of_the_tables_follows_their_contents() {
    let db = KernelDb::open(&pack()).unwrap();
    let table = db.table("h200_sxm", "vllm", "gemm", None).unwrap();
    let own = |f: f32| {
        let mut table = (*table).clone();
        table.measures[0].1[7] *= f;
        db.with_tables("own", vec![table]).unwrap().identity()
    };
    assert_eq!(db.identity(), KernelDb::open(&pack()).unwrap().identity());
    assert_eq!(own(1.0), own(1.0));
    assert!(own(1.0) != db.identity() && own(1.0) != own(1.01));
}
