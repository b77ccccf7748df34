//! Readers and draws of traces: every format, what is malformed, and the laws of the draws.

use std::path::{Path, PathBuf};

use disagg::sim::trace::read::{self, OnError};
use disagg::sim::trace::{Trace, draw, servegen};
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

    // Quoted cells are read; a quote that stays open is never passed over: it would take the lines after it along.
    let head = "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n";
    let row = "1,ChatGPT,5,5,10,Log\n";
    let quoted = written("quoted.csv", &format!("\u{feff}{head}1,\"Chat, GPT\",\"5\",7,12,Log\n\n{row}"));
    let t = read::burstgpt(&quoted, OnError::Fail).unwrap();
    assert_eq!((t.requests.isl.clone(), t.requests.osl.clone()), (vec![5, 5], vec![7, 5]));
    let open = written("open.csv", &format!("{head}{row}1,\"ChatGPT,5,5,10,Log\n{row}{row}"));
    let short = written("short.csv", &format!("{head}{row},,\n{row}"));
    for on_error in [OnError::Fail, OnError::Skip] {
        let e = read::burstgpt(&open, on_error).unwrap_err().to_string();
        assert!(e.contains("open.csv:3") && e.contains("a quote opens"), "{e}");
    }
    assert!(read::burstgpt(&short, OnError::Fail).unwrap_err().to_string().contains("short.csv:3"));
    assert_eq!(read::burstgpt(&short, OnError::Skip).unwrap().skipped, 1);
    [quoted, open, short].iter().for_each(|p| std::fs::remove_file(p).unwrap());

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

/// Two clients: one bursty in its first window and silent in its second, one even with lengths that change.
fn service(name: &str) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("disagg-{}-{name}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let files = [
        ("chunk-0-trace.csv", "0,0.5,6,Gamma,0.0277,72\n600,0,0,,0,0\n1200,0.5,4.47,Weibull,0.4,0.6\n"),
        ("chunk-0-dataset.json", r#"{"0": {"input_tokens": "{10: 0.25, 30: 0.75}", "output_tokens": "{7: 1.0}"}}"#),
        ("chunk-1-trace.csv", "0,1,0,Gamma,1,1\n600,2,0,Gamma,1,0.5\n1200,0,0,,0,0\n"),
        (
            "chunk-1-dataset.json",
            r#"{"0": {"input_tokens": "{}", "output_tokens": "{}"},
                "300": {"input_tokens": "{100: 1}", "output_tokens": "{1: 1}"},
                "900": {"input_tokens": "{200: 1}", "output_tokens": "{2: 1}"}}"#,
        ),
        ("readme.txt", "not a client"),
    ];
    for (file, text) in files {
        std::fs::write(folder.join(file), text).unwrap();
    }
    folder
}

#[test]
fn a_service_is_drawn_from_its_clients() {
    let folder = service("servegen");
    let draw = |seed| servegen::servegen(&folder, 0.0, None, seed, OnError::Fail).unwrap();
    let t = draw(1);
    assert!(t.requests.check().is_empty());
    assert_eq!(t, draw(1));
    assert_ne!(t, draw(2));
    let of = |k: u32| -> Vec<(f64, u32, u32)> {
        let r = &t.requests;
        let rows = r.session.iter().zip(&r.arrival_ps).zip(r.isl.iter().zip(&r.osl));
        rows.filter(|((s, _), _)| **s == k).map(|((_, a), (p, d))| (*a as f64 / 1e12, *p, *d)).collect()
    };
    // Even gaps: 600 of one second and 1,200 of half a second, lengths by the hour.
    let even = of(1);
    assert!(even.len().abs_diff(1800) <= 2);
    let steps: Vec<f64> = even.windows(2).map(|w| w[1].0 - w[0].0).collect();
    assert!(steps[..590].iter().all(|s| (s - 1.0).abs() < 1e-9) && steps[610..].iter().all(|s| (s - 0.5).abs() < 1e-9));
    assert!(even.iter().all(|(at, p, d)| (*p, *d) == if *at < 900.0 { (100, 1) } else { (200, 2) }));
    assert!(of(0).iter().all(|(at, p, d)| !(600.0..1200.0).contains(at) && [10, 30].contains(p) && *d == 7));

    // A window holds rate x length in the mean, however bursty: 300 and 300, within five standard errors.
    let (mut counts, mut short, mut all) = (Vec::new(), 0.0, 0.0);
    for seed in 0..400 {
        let r = draw(seed).requests;
        let of: Vec<usize> = (0..r.len()).filter(|i| r.session[*i] == 0).collect();
        let first = of.iter().filter(|i| r.arrival_ps[**i] < 600_000_000_000_000).count() as f64;
        counts.push([first, of.len() as f64 - first]);
        short += of.iter().filter(|i| r.isl[**i] == 10).count() as f64;
        all += of.len() as f64;
    }
    for window in 0..2 {
        let n = counts.len() as f64;
        let mean = counts.iter().map(|c| c[window]).sum::<f64>() / n;
        let var = counts.iter().map(|c| (c[window] - mean).powi(2)).sum::<f64>() / (n - 1.0);
        assert!((mean - 300.0).abs() < 5.0 * (var / n).sqrt(), "window {window}: {mean}, variance {var}");
    }
    assert!((short / all - 0.25).abs() < 0.01, "{}", short / all);

    // A part of the day starts at 0, and a tar (gzip) says the same as its folder.
    let part = servegen::servegen(&folder, 900.0, Some(1000.0), 1, OnError::Fail).unwrap();
    assert!(part.requests.arrival_ps.iter().all(|a| *a < 100_000_000_000_000));
    assert!(part.requests.len().abs_diff(200) <= 1);
    let file = folder.with_extension("tar.gz");
    let gz = flate2::write::GzEncoder::new(std::fs::File::create(&file).unwrap(), flate2::Compression::fast());
    let mut tar = tar::Builder::new(gz);
    tar.append_dir_all("data/reason", &folder).unwrap();
    tar.into_inner().unwrap().finish().unwrap();
    let packed = servegen::servegen(&file, 0.0, None, 1, OnError::Fail).unwrap();
    assert_eq!(packed.requests, t.requests);
    std::fs::remove_dir_all(folder).unwrap();
    std::fs::remove_file(file).unwrap();
}

#[test]
fn a_service_with_bad_lines_names_them() {
    let folder = service("servegen-bad");
    let read = |on_error| servegen::servegen(&folder, 0.0, None, 0, on_error);
    let bad = [
        ("chunk-0-trace.csv", "0,1,1,Gamma,1,1\n0,1,1,Gamma,1,1\n", ":2", "rise"),
        ("chunk-0-trace.csv", "0,1,1,Pareto,1,1\n600,1,1,Gamma,1,1\n", ":1", "Pareto"),
        ("chunk-0-trace.csv", "0,-1,1,Gamma,1,1\n600,1,1,Gamma,1,1\n", ":1", "rate"),
        ("chunk-1-dataset.json", r#"{"0": {"input_tokens": "{5; 1}", "output_tokens": "{}"}}"#, ":1", "5; 1"),
        ("chunk-1-dataset.json", "{", ":1", "EOF"),
    ];
    for (file, text, line, why) in bad {
        let before = std::fs::read_to_string(folder.join(file)).unwrap();
        std::fs::write(folder.join(file), text).unwrap();
        let e = read(OnError::Fail).unwrap_err().to_string();
        assert!(e.contains(&format!("{file}{line}")) && e.contains(why), "{e}");
        assert_eq!(read(OnError::Skip).unwrap().skipped, 1);
        std::fs::write(folder.join(file), before).unwrap();
    }
    for (start, end, why) in [(-1.0, None, "start_s"), (5.0, Some(5.0), "end_s"), (1e5, Some(2e5), "no request")] {
        let e = servegen::servegen(&folder, start, end, 0, OnError::Fail).unwrap_err().to_string();
        assert!(e.contains(why), "{e}");
    }
    let empty = folder.join("empty");
    std::fs::create_dir_all(&empty).unwrap();
    assert!(servegen::servegen(&empty, 0.0, None, 0, OnError::Fail).unwrap_err().to_string().contains("no client"));
    std::fs::remove_dir_all(folder).unwrap();
}
