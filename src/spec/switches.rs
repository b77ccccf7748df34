//! The switches of [`Assumptions`](super::Assumptions) in words: name, allowed values, meaning, source.
//!
//! In the order of the fields, which is the order of an audit. "aiconfigurator 0.12" alone means its
//! public source, "single steps of" it the operator times it printed (tests/golden/golden_breakdown.csv).
//!
//! Limit: words for the fields there are; which values go together is checked where they are used.

/// Name, allowed values, meaning, source; in the order of the fields.
pub(super) const SWITCHES: [(&str, &str, &str, &str); 40] = [
    (
        "launch_floors",
        "by-phase | measured",
        "start-up times of kernels measured in eager mode: dropped where decode runs under graphs, or kept",
        "physics.md 3; both published tools read the tables as they are",
    ),
    (
        "dense_layers",
        "dense | as-moe",
        "the first layers of DeepSeek-like models (3 of 61): priced as they are, or as mixtures like the rest",
        "the models' configurations; public code of arXiv 2605.28302, aiconfigurator 0.12",
    ),
    (
        "exchange",
        "best | gather | gather-in-node",
        "how tokens reach experts without AFD: the fastest measured way, or all-gather and reduce-scatter of all tokens",
        "DeepEP, TensorRT-LLM one-sided all-to-all; public code of arXiv 2605.28302",
    ),
    (
        "collectives",
        "rails | stretched",
        "collectives beyond the measured ranks: over all rails, or the whole time stretched (x 9.6 from 8 to 16 GPUs)",
        "hierarchical collectives over rails; aiconfigurator 0.12",
    ),
    (
        "gather_format",
        "model | framework",
        "format in which an all-gather carries tokens: the model's exchange, or BF16 but for trtllm on SM 100",
        "checkpoints' configurations; single steps of aiconfigurator 0.12 (sglang and Hopper 2 bytes a value)",
    ),
    (
        "lanes",
        "by-rule | as-measured",
        "rows that other frameworks' rows of the same kernel on the same device contradict: the kernel as measured elsewhere, \
         or as the framework's own table has it",
        "kernel-data.md 5; both published tools read the tables as they are",
    ),
    (
        "beyond_tables",
        "slope | utilisation",
        "experts at more tokens than the last row, sparse decode where no row is: the slope goes on, or the utilisation \
         is held (last row; the four nearest over several axes)",
        "leave-one-out over the tables; aiconfigurator 0.12 (util-hold: 32,000 tokens cost 1.953 x 16,384; perf_interp)",
    ),
    (
        "all_reduce_rows",
        "by-phase | graph",
        "rows of all-reduce: eager ones outside CUDA graphs, or those under graphs in every phase",
        "physics.md 3; single steps of aiconfigurator 0.12",
    ),
    (
        "attention_elementwise",
        "bytes | launches",
        "rotary, query and key norms and cache write of grouped-query attention: bytes moved, or 13.2 us a prefill layer \
         (39.6 us with norms) and nothing in decode",
        "physics.md 1; single steps of aiconfigurator 0.12",
    ),
    (
        "shared_expert_split",
        "tp | whole",
        "the shared expert of sparse-attention models on TP ranks: split like a dense FFN, or whole on each",
        "TensorRT-LLM and SGLang split it; single steps of aiconfigurator 0.12",
    ),
    (
        "mixed_attention",
        "counted | by-name",
        "decode attention of whole MLA blocks in mixed steps: counted, or left out outside sglang",
        "aiconfigurator 0.12: mixed steps look it up by a name that those blocks do not bear",
    ),
    (
        "wide_attention",
        "block | wide-ep",
        "prefill attention of latent-attention models in block-scaled FP8: the whole block, or the table of wide EP \
         without projections",
        "physics.md 1; aiconfigurator 0.12 (its operators of wide EP)",
    ),
    (
        "group_routing",
        "counted | ignored",
        "group-limited routing in all-to-all kernels: fewer nodes a token, or the measured rows as they are",
        "network.md; aiconfigurator 0.12",
    ),
    (
        "far_exchange",
        "law | one-node",
        "all-to-all of experts that span nodes: rows of as many nodes or the fabric's law, or without such rows DeepEP \
         inside one node (trtllm and vllm: eager rows)",
        "network.md; aiconfigurator 0.12 (its fallback of moe_a2a: requested EP8/node2; using EP4/node1)",
    ),
    (
        "wide_ep_decode",
        "whole | discounted",
        "decode layers of latent-attention models whose experts span nodes in trtllm: as their kernels, or nine tenths",
        "the tables; aiconfigurator 0.12 (_PDL_FACTOR 0.9 of its DeepSeek models)",
    ),
    (
        "missing_formats",
        "nearest | error",
        "attention formats that the framework's tables lack: the nearest one, tagged, or an error",
        "kernel-data.md; aiconfigurator 0.12 (no FP8 prefill kernel of MLA on Hopper)",
    ),
    (
        "listed_norms",
        "norms | block",
        "a checkpoint (GLM-5-FP8) whose exclusion list names the latent norms of attention: they are in BF16 anyhow, or \
         the list is read as the whole block",
        "the checkpoint's weights; aiconfigurator 0.12 (attention_projection_exclusions: no projection in the name)",
    ),
    (
        "prefill_sync",
        "uncoordinated | aligned",
        "whether the attention ranks prefill on the same steps",
        "engines schedule each rank by its own queue",
    ),
    (
        "mixed_steps",
        "steady-state | counted",
        "steps of chunked prefill: a steady state, or counted for one batch, cached tokens computed again in chunks",
        "physics.md 5; public code of arXiv 2605.28302",
    ),
    (
        "first_token_from",
        "server | decode | decode-step | prefill",
        "who sends the first token of a P/D deployment: as the framework does, decode once the KV has arrived or after its first step, prefill",
        "vLLM's proxies throw the prefill token away; SGLang and TensorRT-LLM send it with the KV",
    ),
    (
        "kv_transfer",
        "layer-wise | bulk | ignored",
        "KV shipped layer by layer beside prefill, after it, or at no cost",
        "Mooncake (FAST25); public code of arXiv 2605.28302",
    ),
    (
        "kv_reserve",
        "full | mean",
        "KV charged a sequence: its final length, or the stationary mean theta",
        "full never evicts; theta is arXiv 2601.21351",
    ),
    (
        "copies",
        "expected | half-of-worst | one-link",
        "copies of a token out to an FFN pool and back",
        "physics.md 5; public code of arXiv 2605.28302; aiconfigurator 0.12",
    ),
    (
        "afd_wire",
        "calibrated | bandwidth | node-link",
        "time of A2F and F2A from their bytes",
        "all-to-all kernels of the same fabric; public code of arXiv 2605.28302; aiconfigurator 0.12",
    ),
    (
        "afd_reductions",
        "true | false",
        "reductions over attention TP and MoE TP inside an AFD unit",
        "physics.md 5; public code of arXiv 2605.28302",
    ),
    (
        "ffn_pool",
        "spread | whole",
        "router and shared expert of an FFN pool: each GPU its share of the tokens, or every GPU all of them",
        "physics.md 5; aiconfigurator 0.12 (one replica whose ranks see all tokens)",
    ),
    (
        "pipeline_formula",
        "schedule | slowest-stage | cycle",
        "one pass of the micro-batch pipeline: the schedule itself, or a published closed form",
        "physics.md 5; public code of arXiv 2605.28302; aiconfigurator 0.12",
    ),
    (
        "microbatch_split",
        "even | floor | ceil",
        "sequences of a micro-batch when M does not divide the batch",
        "physics.md 5; public code of arXiv 2605.28302; aiconfigurator 0.12",
    ),
    (
        "prefill_split",
        "chunks | one-sequence",
        "micro-batches of AFD prefill; as one sequence the prefix is dropped below M sequences",
        "physics.md 5; public code of arXiv 2605.28302",
    ),
    (
        "sparse_attention_memory",
        "counted | ignored",
        "weights of sparse attention and the cache of its indexer",
        "physics.md 4; public code of arXiv 2605.28302",
    ),
    (
        "activations",
        "alive-rows | coefficients | framework",
        "activation memory: of the new tokens, or by published coefficients with cached tokens charged too, or by a \
         framework's coefficients with a least size and its count of embedding, head and sparse KV",
        "physics.md 4; public code of arXiv 2605.28302; aiconfigurator 0.12",
    ),
    (
        "out_of_memory",
        "unplaced | error",
        "an estimate of a plan that does not fit: a result that names the pool, or an error",
        "physics.md 4; aiconfigurator 0.12",
    ),
    (
        "ttft_queue",
        "none | factors",
        "waiting before prefill: none in a closed loop, or constant factors on TTFT",
        "physics.md 5; public code of arXiv 2605.28302",
    ),
    (
        "request_path",
        "client | service",
        "TTFT with what a request waits for outside of the steps that serve it (API server, steps in flight and ahead, polling, hand-over), or without",
        "physics.md 5; serving/defaults.json, request_path",
    ),
    (
        "worker_corrections",
        "none | fixed",
        "constants on the workers of P/D: prefill x 1.1, decode x 1.08, rates x 0.90 and 0.92",
        "public code of arXiv 2605.28302, aiconfigurator 0.12",
    ),
    (
        "shared_expert_overlap",
        "true | false",
        "the shared expert runs beside the routed path in decode",
        "TensorRT-LLM and SGLang use a second stream",
    ),
    (
        "attention_barrier",
        "true | false",
        "a decode step waits for the attention rank with the longest contexts: E[max] from the slots' variance",
        "arXiv 2601.21351 section 4; published tools use the mean",
    ),
    (
        "kv_contention",
        "true | false",
        "KV of P/D on its way and the steps' own traffic share ports, max-min fair; else each has them alone",
        "max-min fair steady state, held against the fluid engine; published tools ignore it",
    ),
    (
        "afd_alpha_scale",
        "a number from 0 to 100",
        "scales every start-up time of A2F and F2A, which no public measurement covers",
        "assumption: 1 is the one-sided dispatch of the same fabric",
    ),
    (
        "dispatch_alpha_scale",
        "a number from 0 to 100",
        "scales every start-up time of dispatch and combine, the twin of afd_alpha_scale",
        "1 is what was measured or fitted",
    ),
];
