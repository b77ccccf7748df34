//! Readers and draws of traces: every format, what is malformed, and the laws of the draws.

use std::path::{Path, PathBuf};

use disagg::sim::trace::read::{self, OnError};
use disagg::sim::trace::{Trace, draw};
use disagg::spec::Workload;

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/traces").join(name)
}

fn written(name: &str, text: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("disagg-{}-{name}", std::process::id()));
    std::fs::write(&path, text).unwrap();
    path
}

#[test]
fn every_format_loads() {
    let m = read::mooncake(&golden("mooncake_conversation_200.jsonl.gz"), 512, OnError::Fail).unwrap();
    assert_eq!((m.requests.len(), m.requests.isl[0], m.requests.osl[0]), (200, 6758, 500));
    assert_eq!(m.requests.blocks(1)[..3], [0, 14, 15]);
    let a = read::azure(&golden("azure_conv_2023_200.csv"), OnError::Fail).unwrap();
    // 18:15:50.9951690 less 18:15:46.6805900.
    assert_eq!((a.requests.len(), a.requests.arrival_ps[1]), (200, 4_314_579_000_000));
    let w = read::weka(&golden("weka_session.json.gz"), 0.0, OnError::Fail).unwrap();
    assert!(w.requests.arrival_ps.is_sorted() && w.stats().prefix_hit.unwrap() > 0.5);
    let l = read::lengths(&golden("arxiv_summarization_200.csv"), 2.0, 1, 0, OnError::Fail).unwrap();
    assert_eq!((l.requests.len(), l.requests.isl[0], l.requests.osl[0]), (200, 3772, 54));
    for t in [m, a, w, l] {
        assert!(t.requests.check().is_empty());
    }
}

#[test]
fn a_bad_line_is_named_or_counted() {
    let path = golden("burstgpt_form.csv");
    let e = read::burstgpt(&path, OnError::Fail).unwrap_err().to_string();
    assert!(e.contains("burstgpt_form.csv:5"), "{e}");
    let t = read::burstgpt(&path, OnError::Skip).unwrap();
    assert_eq!((t.requests.len(), t.skipped), (4, 1));

    let good = r#"{"timestamp": 2000, "input_length": 5, "output_length": 5, "hash_ids": [1]}"#;
    let cases = [
        ("back", r#"{"timestamp": 1000, "input_length": 5, "output_length": 5, "hash_ids": []}"#, "time goes back"),
        ("zero", r#"{"timestamp": 3000, "input_length": 0, "output_length": 5, "hash_ids": []}"#, "at least one"),
        ("part", r#"{"timestamp": 3000, "input_length": 2.5, "output_length": 5}"#, "input_length"),
        ("json", "{", "not JSON"),
        ("nan", r#"{"timestamp": -1, "input_length": 5, "output_length": 5}"#, "arrival"),
    ];
    for (name, line, why) in cases {
        let path = written(name, &format!("{good}\n{line}\n{good}\n"));
        let e = read::mooncake(&path, 512, OnError::Fail).unwrap_err().to_string();
        assert!(e.contains(":2: ") && e.contains(why), "{e}");
        let t = read::mooncake(&path, 512, OnError::Skip).unwrap();
        assert_eq!((t.requests.len(), t.skipped), (2, 1));
        std::fs::remove_file(path).unwrap();
    }
    let empty = written("empty", "\n");
    assert!(read::mooncake(&empty, 512, OnError::Fail).unwrap_err().to_string().contains("no request"));
    std::fs::remove_file(empty).unwrap();
}

/// Prefix hits by searching a plain list, least recently used first.
fn slow_hits(t: &Trace, most: usize) -> Vec<u32> {
    let mut cache: Vec<u64> = Vec::new();
    (0..t.requests.len())
        .map(|i| {
            let blocks = t.requests.blocks(i);
            let hit = blocks.iter().take_while(|b| cache.contains(b)).count() as u32;
            for b in blocks {
                cache.retain(|c| c != b);
                cache.push(*b);
                if cache.len() > most {
                    cache.remove(0);
                }
            }
            (hit * t.requests.block_tokens).min(t.requests.isl[i])
        })
        .collect()
}

#[test]
fn hits_are_those_of_a_plain_list() {
    let t = read::mooncake(&golden("mooncake_conversation_200.jsonl.gz"), 512, OnError::Fail).unwrap();
    for most in [1, 7, 200, 1_000_000] {
        assert_eq!(t.hits(Some(most as u64 * 512)), slow_hits(&t, most), "{most} blocks");
    }
    assert_eq!(t.hits(None), slow_hits(&t, usize::MAX));
}

#[test]
fn draws_have_their_rate_and_spread_and_a_new_rate_keeps_the_lengths() {
    let w =
        Workload { osl: disagg::spec::Distribution::Geometric { mean: 50.0 }, ..Workload::fixed("t", 0.0, 9.0, 1.0) };
    for cv in [0.5, 1.0, 3.0] {
        let t = draw::open(&w, 5.0, cv, 200_000, 7).unwrap();
        let gaps: Vec<f64> = t.requests.arrival_ps.windows(2).map(|p| (p[1] - p[0]) as f64 / 1e12).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let spread = (gaps.iter().map(|g| (g - mean).powi(2)).sum::<f64>() / gaps.len() as f64).sqrt() / mean;
        // Six standard errors of the mean.
        assert!((mean * 5.0 - 1.0).abs() < 6.0 * cv / 447.0, "{mean}");
        assert!((spread / cv - 1.0).abs() < 0.05, "{spread} of {cv}");
    }
    let (a, b) = (draw::open(&w, 5.0, 1.0, 99, 7).unwrap(), draw::open(&w, 50.0, 1.0, 99, 7).unwrap());
    assert_eq!(a.requests.osl, b.requests.osl);
    assert_eq!(a, draw::open(&w, 5.0, 1.0, 99, 7).unwrap());
    assert_ne!(a.requests.osl, draw::open(&w, 5.0, 1.0, 99, 8).unwrap().requests.osl);
    for (rate, cv, n) in [(-1.0, 1.0, 5), (f64::NAN, 1.0, 5), (1.0, -1.0, 5), (1.0, 1.0, 0)] {
        assert!(draw::open(&w, rate, cv, n, 0).is_err());
    }
}

#[test]
fn scale_and_window_keep_the_pattern() {
    let t = read::azure(&golden("azure_conv_2023_200.csv"), OnError::Fail).unwrap();
    let s = t.scale(10.0).unwrap();
    assert!((s.rate().unwrap() - 10.0).abs() < 1e-6);
    assert!(t.scale(-1.0).is_err() && t.scale(0.0).is_err());
    let end = t.span_s() + 1.0;
    let (a, b) = (t.window(0.0, 20.0).unwrap(), t.window(20.0, end).unwrap());
    assert_eq!(a.requests.len() + b.requests.len(), t.requests.len());
    assert!(t.window(end, end + 1.0).is_err() && t.window(5.0, 5.0).is_err());
}
