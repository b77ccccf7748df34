//! Presets of models, systems and workloads, each a data file with its source.
