//! Readers and draws of traces: every format, what is malformed, and the laws of the draws.

use std::path::{Path, PathBuf};

use disagg::error::Result;
use disagg::sim::trace::moment::Unit;
use disagg::sim::trace::read::{self, Wanted};
use disagg::sim::trace::roles::Named;
use disagg::sim::trace::rows::OnError;
use disagg::sim::trace::{Trace, draw, lengths, servegen, weka};
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
    let m = read::mooncake(&golden("mooncake_conversation_200.jsonl.gz"), None, OnError::Fail).unwrap();
    assert_eq!((m.requests.len(), m.requests.isl[0], m.requests.osl[0]), (200, 6758, 500));
    assert_eq!(m.requests.blocks(1)[..3], [0, 14, 15]);
    let a = read::azure(&golden("azure_conv_2023_200.csv"), OnError::Fail).unwrap();
    // 18:15:50.9951690 less 18:15:46.6805900.
    assert_eq!((a.requests.len(), a.requests.arrival_ps[1]), (200, 4_314_579_000_000));
    let w = weka::weka(&golden("weka_session.json.gz"), 0.0, OnError::Fail).unwrap();
    assert!(w.requests.arrival_ps.is_sorted() && w.stats().prefix_hit.unwrap() > 0.5);
    let l = lengths::lengths(&golden("arxiv_summarization_200.csv"), 2.0, 1, 0, OnError::Fail).unwrap();
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
        ("over", r#"{"timestamp": 2500, "input_length": 20, "output_length": 5, "hash_ids": [1, 2]}"#, "make 1"),
        ("zero", r#"{"timestamp": 3000, "input_length": 0, "output_length": 5, "hash_ids": []}"#, "at least one"),
        ("part", r#"{"timestamp": 3000, "input_length": 2.5, "output_length": 5}"#, "input_length"),
        ("json", "{", "not JSON"),
        ("early", r#"{"timestamp": -1, "input_length": 5, "output_length": 5}"#, "arrival"),
    ];
    for (name, line, why) in cases {
        let path = written(name, &format!("{good}\n{line}\n{good}\n"));
        let e = read::mooncake(&path, Some(512), OnError::Fail).unwrap_err().to_string();
        assert!(e.contains(":2: ") && e.contains(why), "{e}");
        let t = read::mooncake(&path, Some(512), OnError::Skip).unwrap();
        assert_eq!((t.requests.len(), t.skipped), (2, 1));
        std::fs::remove_file(path).unwrap();
    }
    let empty = written("empty", "\n");
    assert!(read::mooncake(&empty, None, OnError::Fail).unwrap_err().to_string().contains("no request"));
    std::fs::remove_file(empty).unwrap();
}

/// Prefix hits by searching a plain list: out goes the least recently used prompt, its tail first.
fn slow_hits(t: &Trace, most: usize) -> Vec<u32> {
    let mut cache: Vec<u64> = Vec::new();
    (0..t.requests.len())
        .map(|i| {
            let blocks = t.requests.blocks(i);
            let hit = blocks.iter().take_while(|b| cache.contains(b)).count() as u32;
            cache.retain(|c| !blocks.contains(c));
            // The tail of a prompt goes before its head.
            cache.extend(blocks.iter().rev());
            cache.drain(..cache.len().saturating_sub(most));
            (hit * t.requests.block_tokens).min(t.requests.isl[i])
        })
        .collect()
}

fn any(name: &str, text: impl AsRef<[u8]>, wanted: &Wanted) -> Result<Trace> {
    let path = std::env::temp_dir().join(format!("disagg-{}-any-{name}", std::process::id()));
    std::fs::write(&path, text).unwrap();
    let found = read::read(&path, wanted);
    std::fs::remove_file(path).unwrap();
    found
}

fn seconds(t: &Trace) -> Vec<f64> {
    t.requests.arrival_ps.iter().map(|a| *a as f64 / 1e12).collect()
}

/// Files of one content: 1.5 s apart, 500 and 80 prompt tokens, 20 and 30 answer tokens.
#[test]
fn one_content_in_many_forms() {
    let utf16 = |text: &str, big: bool| -> Vec<u8> {
        let bytes = |u: u16| if big { u.to_be_bytes() } else { u.to_le_bytes() };
        "\u{feff}".encode_utf16().chain(text.encode_utf16()).flat_map(bytes).collect()
    };
    let dates = "time,prompt_tokens,completion_tokens\n2023-11-16 23:59:59.5,500,20\n2023-11-17 00:00:01,80,30\n";
    let gz = |text: &str| {
        use std::io::Write;
        let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        out.write_all(text.as_bytes()).unwrap();
        out.finish().unwrap()
    };
    let forms: Vec<(&str, Vec<u8>)> = vec![
        ("plain", "arrival_s,isl,osl\n0,500,20\n1.5,80,30\n".into()),
        ("returns", "arrival_s,isl,osl\r\n0,500,20\r\n1.5,80,30\r\n".into()),
        ("unsorted", "arrival_s,isl,osl\n1.5,80,30\n0,500,20\n".into()),
        ("quoted", "\"arrival_s\",\"isl\",\"osl\"\n\"0\",\"500\",\"20\"\n\"1.5\",\"80\",\"30\"\n".into()),
        ("tabs", "Timestamp\tRequest tokens\tResponse tokens\n0\t500\t20\n1.5\t80\t30\n".into()),
        ("german", "arrived_at;prompt_len;output_len\n0,0;500;20\n1,5;80;30\n".into()),
        ("excel", "sep=;\narrived_at;prompt_len;output_len\n0;500;20\n1.5;80;30\n".into()),
        ("remarks", "# made by hand\n\narrival_ms|isl|osl\n0|500|20\n1500|80|30\n".into()),
        ("twice", "arrival_us,isl,osl\n0,500,20\narrival_us,isl,osl\n1500000,80,30\n".into()),
        ("dates", dates.into()),
        ("latin", b"time,model,isl,osl\n2023-11-16 23:59:59.5,caf\xe9,500,20\n2023-11-17 00:00:01,x,80,30\n".to_vec()),
        ("slashes", dates.replace('-', "/").into()),
        ("comma", dates.replace(',', ";").replace("59.5", "59,500").into()),
        ("zones", "ts,isl,osl\n2023-11-17T01:59:59.5+02:00,500,20\n2023-11-16T19:00:01-05:00,80,30\n".into()),
        ("utc", "ts,isl,osl\n2023-11-16 23:59:59.5 UTC,500,20\n2023-11-17 00:00:01Z,80,30\n".into()),
        ("little", utf16(dates, false)),
        ("big", utf16(dates, true)),
        ("gzip", gz(dates)),
        ("epoch", "timestamp,isl,osl\n1700000000.0,500,20\n1700000001.5,80,30\n".into()),
        ("epoch_ms", "timestamp,isl,osl\n1700000000000,500,20\n1700000001500,80,30\n".into()),
        ("epoch_ns", "timestamp,isl,osl\n1700000000000000000,500,20\n1700000001500000000,80,30\n".into()),
        ("lines", "\u{feff}{\"arrival\":0,\"isl\":500,\"osl\":20}\n{\"arrival\":1.5,\"isl\":80,\"osl\":30}\n".into()),
        ("list", "[{\"arrival\":0,\"isl\":500,\"osl\":20},\n {\"arrival\":1.5,\"isl\":80,\"osl\":30}]".into()),
        ("columns", "{\"arrival\":[0,1.5],\"isl\":[500,80],\"osl\":[20,30]}".into()),
        ("pandas", "{\"arrival\":{\"0\":0,\"1\":1.5},\"isl\":{\"0\":500,\"1\":80},\"osl\":{\"0\":20,\"1\":30}}".into()),
        (
            "nested",
            "{\"created\":1700000000,\"usage\":{\"prompt_tokens\":500,\"completion_tokens\":20}}\n\
             {\"created\":1700000001.5,\"usage\":{\"prompt_tokens\":80,\"completion_tokens\":30}}\n"
                .into(),
        ),
        (
            "mooncake",
            "{\"timestamp\":0,\"input_length\":500,\"output_length\":20}\n\
             {\"timestamp\":1500,\"input_length\":80,\"output_length\":30}\n"
                .into(),
        ),
        (
            "bailian",
            "{\"chat_id\":1,\"parent_chat_id\":-1,\"timestamp\":0.0,\"input_length\":500,\"output_length\":20}\n\
             {\"chat_id\":2,\"parent_chat_id\":1,\"timestamp\":1.5,\"input_length\":80,\"output_length\":30}\n"
                .into(),
        ),
        (
            "aiperf",
            "{\"session_id\":\"a\",\"timestamp\":0,\"input_length\":500,\"output_length\":20}\n\
             {\"session_id\":\"a\",\"delay\":1500,\"input_length\":80,\"output_length\":30}\n"
                .into(),
        ),
    ];
    for (name, bytes) in forms {
        let t = any(name, bytes, &Wanted::default()).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(seconds(&t), [0.0, 1.5], "{name}");
        assert_eq!((t.requests.isl.clone(), t.requests.osl.clone()), (vec![500, 80], vec![20, 30]), "{name}");
        assert!(t.requests.check().is_empty());
        assert!(t.notes.iter().any(|n| n.starts_with("arrival from")), "{name}: {:?}", t.notes);
    }
}

#[test]
fn what_cannot_be_read_says_what_would_do() {
    let head = "ts,isl,osl\n";
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("february", format!("{head}2023-02-31 00:00:00,1,1\n").into(), ":2: '2023-02-31"),
        ("second", format!("{head}2023-02-03 00:00:75,1,1\n").into(), ":2: '2023-02-03 00:00:75"),
        ("mixed", format!("{head}2023-02-03 00:00:01,1,1\n2023-02-03 00:00:01Z,1,1\n").into(), "UTC offset"),
        ("both", format!("{head}2023-02-03 00:00:01,1,1\n17,1,1\n").into(), "numbers and dates"),
        ("nan", format!("{head}1,nan,1\n").into(), ":2: 'isl' is no count"),
        ("empty", format!("{head}1,,1\n").into(), ":2: 'isl' is missing"),
        ("late", format!("{head},5,1\n").into(), ":2: 'ts' is missing"),
        ("part", format!("{head}1,2.5,1\n").into(), "is no count"),
        ("negative", format!("{head}1,-2,1\n").into(), "is no count"),
        ("unnamed", b"0,500,20\n1,80,30\n".to_vec(), "has no names of columns"),
        ("none", b"ts,isl\n0,500\n".to_vec(), "say osl="),
        ("never", b"isl,osl\n5,500\n".to_vec(), "Trace.lengths"),
        ("two", b"ts,isl,prompt_tokens,osl\n0,5,7,5\n".to_vec(), "say isl='isl'"),
        ("same", b"ts,isl,isl,osl\n0,5,7,5\n".to_vec(), "isl"),
        ("prefix", b"ts,isl,osl,prefix\n0,5,7,50\n".to_vec(), "isl counts both"),
        ("again", b"request_id,ts,isl,osl\na,0,5,7\nb,1,5,7\na,0,5,7\n".to_vec(), ":4: is the request of line 2 once more"),
        ("parquet", b"PAR1....".to_vec(), "pyarrow"),
        ("zip", b"PK\x03\x04....".to_vec(), "unpack"),
        ("xz", b"\xfd7zXZ\0...".to_vec(), "xz"),
        ("binary", b"abc\x00\x01\x02\x03,defg".to_vec(), "is not text"),
        ("cut", b"\x1f\x8b\x08\x00\x00\x00".to_vec(), "cannot be read"),
        ("hist", br#"{"hist": {"input_tokens": [[1, 1.0]], "output_tokens": [[1, 1.0]]}}"#.to_vec(), "Trace.lengths"),
        (
            "fast",
            "{\"timestamp\":0.5,\"input_length\":5,\"output_length\":2}\n{\"timestamp\":0.75,\"input_length\":8,\"output_length\":3}\n"
                .into(),
            "unit='s'",
        ),
    ];
    for (name, bytes, why) in cases {
        let e = any(name, bytes, &Wanted::default()).map(|t| seconds(&t)).unwrap_err().to_string();
        assert!(e.contains(why), "{name}: {e}");
    }
    let named = Named { isl: Some("tokens".into()), ..Named::default() };
    let e = any("named", "ts,a_tokens,osl\n0,1,1\n", &Wanted { columns: named, ..Wanted::default() }).unwrap_err();
    assert!(e.to_string().contains("no column 'tokens' in: ts, a_tokens, osl"), "{e}");
    let t =
        any("unit", "t,isl,osl\n0,1,1\n2500,1,1\n", &Wanted { unit: Some(Unit::Milliseconds), ..Wanted::default() });
    assert_eq!(seconds(&t.unwrap()), [0.0, 2.5]);
    let arrivals = written("arrivals.csv", "arrived_at,num_prefill_tokens,num_decode_tokens\n1,5,5\n");
    let e = lengths::lengths(&arrivals, 1.0, 1, 0, OnError::Fail).unwrap_err().to_string();
    assert!(e.contains("Trace.read keeps them"), "{e}");
    std::fs::remove_file(arrivals).unwrap();
}

/// Names of prompt blocks tell their size; sessions of any name are told apart.
#[test]
fn blocks_and_sessions_are_what_the_rows_say() {
    // 521 tokens in blocks of 16, the first 32 of them full and known to the second request.
    let ids: Vec<String> = (0..33).map(|i| (7 + i).to_string()).collect();
    let row = |at: &str, chat: u32, parent: i32| {
        let chats = format!("\"chat_id\":{chat},\"parent_chat_id\":{parent},");
        format!(
            "{{{chats}\"timestamp\":{at},\"input_length\":521,\"output_length\":9,\"hash_ids\":[{}]}}",
            ids.join(",")
        )
    };
    let bailian = format!("{}\n{}\n{}\n", row("0.0", 1, -1), row("61.114", 2, 1), row("70.0", 9, -1));
    let path = written("bailian.jsonl", &bailian);
    let t = read::mooncake(&path, None, OnError::Fail).unwrap();
    std::fs::remove_file(&path).unwrap();
    assert_eq!((seconds(&t), t.requests.block_tokens), (vec![0.0, 61.114, 70.0], 16));
    assert_eq!(t.requests.session, [1, 1, 9]);
    assert!(t.hits(None)[1] <= 521);
    // The same rows without the chats: still blocks of 16, and a size that does not fit is refused with the one that does.
    let plain = bailian.replace("\"chat_id\"", "\"a\"").replace("61.114", "61114").replace("70.0", "70000");
    let t = any("sixteen", &plain, &Wanted::default()).unwrap();
    assert_eq!((t.requests.block_tokens, seconds(&t)[1]), (16, 61.114));
    let e = any("refused", &plain, &Wanted { block_tokens: Some(512), ..Wanted::default() }).unwrap_err().to_string();
    assert!(e.contains("33 block names for 521 tokens") && e.contains("block_tokens=16"), "{e}");

    let text = "ts,isl,osl,session\n0,1,1,18446744073709551615\n1,1,1,4294967297\n2,1,1,\n3,1,1,4294967297\n4,1,1,1\n";
    let t = any("sessions", text, &Wanted::default()).unwrap();
    assert_eq!(t.requests.session, [0, 1, 3, 1, 2]);
    let t = any("texts", "ts,isl,osl,session_id\n0,1,1,ann\n1,1,1,bob\n2,1,1,ann\n", &Wanted::default()).unwrap();
    assert_eq!(t.requests.session, [0, 1, 0]);
}

#[test]
fn hits_are_those_of_a_plain_list() {
    let t = read::mooncake(&golden("mooncake_conversation_200.jsonl.gz"), None, OnError::Fail).unwrap();
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
