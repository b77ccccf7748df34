//! What the first token waits for, and what a slot holds until then.

use disagg::cost::Batch;
use disagg::serving::pd::Several;
use disagg::serving::{Load, StepEngine, aggregated, pd};
use disagg::spec::assumptions::{FirstToken, KvTransfer};
use disagg::spec::workload::PrefixHome;
use disagg::spec::{Assumptions, Parallel, Workload};

use crate::lab;

fn ttft(s: &StepEngine, load: &Load, chunk: f64) -> f64 {
    aggregated::solve(s, load, 4.0, chunk, 1).service_ttft_s()
}

#[test]
fn the_last_chunk_is_charged_as_what_it_is() {
    let lib = lab::small();
    let w = Workload::fixed("long answers", 0.0, 4096.0, 4096.0);
    let (s, load) = (lab::worker(&lib, lab::split(1, 1, 1), &w), Load::of(&w));
    // Budgets that leave 4, 4.03 and 5 chunks beside four decoding sequences.
    let [whole, over, five] = [1028.0, 1020.0, 824.0].map(|c| ttft(&s, &load, c));
    assert!(over > whole, "one more step: {over} against {whole}");
    assert!(over < whole + 0.6 * (five - whole).max(whole / 4.0), "a sliver is no whole chunk: {whole} {over} {five}");
    // By hand: three whole chunks and the rest, prompts being rare.
    let p = aggregated::solve(&s, &load, 4.0, 1020.0, 1);
    let room = 1020.0 - p.decode_batch;
    let step = |new: f64, past: f64, ending: f64| {
        let b = Batch {
            decode: p.decode_batch,
            context: load.context,
            sequences: 1.0,
            new,
            past,
            ending,
            ..Batch::decode(p.decode_batch, load.context, 1.0)
        };
        s.step(&b).seconds
    };
    let chunks = (load.isl / room).ceil();
    let rest = load.isl - (chunks - 1.0) * room;
    let by_hand =
        (chunks - 1.0) * step(room, (load.isl - room) / 2.0, room / load.isl) + step(rest, load.isl - rest, 1.0);
    lab::near(p.service_ttft_s(), by_hand, 0.02, "by hand");
    // Prompts that fit one step take one step.
    let one = aggregated::solve(&s, &load, 4.0, 5000.0, 1);
    lab::near(one.service_ttft_s(), one.itl_worst_s, 1e-12, "one step");
}

#[test]
fn a_prefill_slot_holds_no_answer() {
    let lib = lab::small();
    let w = Workload::fixed("long answers", 1000.0, 1000.0, 30_000.0);
    let p = Parallel::default();
    let (slot, whole) = (lab::worker(&lib, p, &w.prefill_part()), lab::worker(&lib, p, &w));
    let per_token = lib.model.kv_bytes_per_token(lib.formats.kv);
    let [slot, whole] = [slot, whole].map(|s| s.memory()[0].kv_per_sequence / per_token);
    lab::near(slot, 2001.0, 1e-9, "prefix, prompt and first token");
    lab::near(whole, 32_000.0, 1e-9, "the answer too");
    let mut joint = w;
    joint.lengths = vec![[10.0, 20.0, 30.0], [1.0, 2.0, 3.0]];
    assert_eq!(joint.prefill_part().lengths, [[10.0, 20.0, 1.0], [1.0, 2.0, 1.0]]);
}

#[test]
fn kv_that_leaves_together_waits_together() {
    // In bulk: nothing hides behind compute.
    let bulk = Assumptions { kv_transfer: KvTransfer::Bulk, ..Assumptions::physical() };
    let (model, cluster) = (lab::model("Qwen/Qwen3-30B-A3B"), lab::cluster("b200_sxm", 16));
    let lib = lab::library(&model, &cluster, "trtllm", &bulk);
    let mut w = Workload::fixed("shipped", 30_000.0, 2000.0, 200.0);
    w.prefix_home = PrefixHome::Prefill;
    let load = Load::of(&w);
    let (p, d) =
        (lab::worker(&lib, lab::split(1, 1, 1), &w.prefill_part()), lab::worker(&lib, lab::split(1, 1, 1), &w));
    let wait = |sequences: f64| {
        let side = pd::prefill_side(&p, &load, sequences, 2000.0);
        assert_eq!(side.prefill.together, sequences);
        // 16 GPUs of two nodes: KV crosses NICs.
        let point =
            pd::combine(Several::of(&p, &side, 7), Several::of(&d, &pd::decode_side(&d, &load, 16.0), 9), &load);
        point.service_ttft_s() - side.prefill.latency_s
    };
    let (one, four) = (wait(1.0), wait(4.0));
    assert!(one > 0.0 && four > 3.0 * one && four < 4.5 * one, "{one} {four}");
    // Groups of an AFD unit end one after another: their KV does not leave together.
    let unit = lab::unit(&lib, &lab::afd_plan(lab::pool(2, 1), lab::pool(2, 1), 8), &w.prefill_part());
    let side = pd::prefill_side(&unit, &load, 4.0, 1000.0);
    assert_eq!(side.prefill.together, 1.0);
}

#[test]
fn equal_shares_of_racks_keep_kv_inside() {
    let lib = lab::lib("Qwen/Qwen3-30B-A3B", "gb200", 144, "trtllm");
    let mut w = Workload::fixed("shipped", 60_000.0, 2000.0, 200.0);
    w.prefix_home = PrefixHome::Prefill;
    let load = Load::of(&w);
    let s = lab::worker(&lib, lab::split(1, 4, 1), &w);
    let side = pd::prefill_side(&s, &load, 1.0, 2000.0);
    let ttft = |np: u32, nd: u32| {
        pd::combine(Several::of(&s, &side, np), Several::of(&s, &pd::decode_side(&s, &load, 4.0), nd), &load)
            .service_ttft_s()
    };
    // 18 workers of 4 fill a rack. 12 + 24 split evenly over two racks, 13 + 23 do not.
    lab::near(ttft(12, 24), ttft(6, 12), 1e-12, "two racks as one");
    assert!(ttft(13, 23) > ttft(12, 24), "a pair across racks");
    assert!(ttft(9, 8) <= ttft(12, 24), "one rack");
}

#[test]
fn a_routed_copy_reaches_every_moe_tp_rank() {
    let lib = lab::v32();
    let w = lab::chat();
    let of = |moe_tp: u32| {
        let p = Parallel { tp: 1, dp: 8, pp: 1, cp: 1, ep: None, moe_tp };
        lab::worker(&lib, p, &w).memory()[0].activation_per_token
    };
    let (h, inter, k) = (7168.0, 2048.0, 8.0);
    // FP8 copies in and FP8 input of the down projection, BF16 gate, up and result, on the rank's share of the experts.
    let fp8 = 1.0 + 4.0 / 128.0;
    let copies = |moe_tp: f64| k * (fp8 * (h + inter / moe_tp) + 4.0 * inter / moe_tp + 2.0 * h) * moe_tp;
    lab::near(of(2) - of(1), copies(2.0) - copies(1.0), 1e-9, "moe_tp 2");
    lab::near(of(8) - of(1), copies(8.0) - copies(1.0), 1e-9, "moe_tp 8");
    let ffn = |moe_tp: u32| {
        let mut plan = lab::afd_plan(lab::pool(8, 1), lab::pool(8, 1), 2);
        plan.ffn.moe_tp = moe_tp;
        lab::unit(&lib, &plan, &w).memory()[1].activation_per_token
    };
    lab::near(ffn(4) / ffn(1), copies(4.0) / copies(1.0), 1e-9, "FFN pool");
}

/// vLLM's proxies throw the prefill worker's token away; SGLang and TensorRT-LLM send it with the KV.
#[test]
fn the_first_token_comes_as_the_server_sends_it() {
    for (framework, expected) in
        [("vllm", FirstToken::DecodeStep), ("sglang", FirstToken::Decode), ("trtllm", FirstToken::Decode)]
    {
        let lib = lab::lib("Qwen/Qwen3-30B-A3B", "h100_sxm", 8, framework);
        assert_eq!(pd::first_token(&lib), expected, "{framework}");
        let solve = |first: FirstToken| {
            let a = Assumptions { first_token_from: first, ..Assumptions::physical() };
            let lib = lab::library(&lib.model, &lib.cluster, framework, &a);
            let w = lab::chat();
            let load = Load::of(&w);
            let s = lab::worker(&lib, lab::split(1, 1, 1), &w);
            let side = pd::prefill_side(&s, &load, 1.0, load.isl);
            pd::combine(Several::of(&s, &side, 4), Several::of(&s, &pd::decode_side(&s, &load, 16.0), 1), &load)
        };
        let [server, with_kv, by_step, prefill] =
            [FirstToken::Server, FirstToken::Decode, FirstToken::DecodeStep, FirstToken::Prefill].map(solve);
        assert_eq!(server, if expected == FirstToken::Decode { with_kv } else { by_step }, "{framework}");
        lab::near(
            by_step.service_ttft_s() - with_kv.service_ttft_s(),
            1.5 * by_step.itl_worst_s,
            1e-9,
            "one step and a half",
        );
        assert!(prefill.ttft_s < with_kv.ttft_s);
        // Decode is the slot that limits: it makes one token more an answer.
        let osl = lab::chat().osl.mean();
        lab::near(by_step.requests_per_s / with_kv.requests_per_s, (osl - 1.0) / osl, 1e-6, "one step more");
    }
}
