//! HF `config.json` of the families GQA-MoE, MLA-MoE, MLA+DSA-MoE and dense GQA.
