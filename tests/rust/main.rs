//! The crate's integration tests: one binary, one module a subject.
#![allow(clippy::unwrap_used)]

mod astra;
mod audit;
mod binding;
mod breakdown;
mod calibrate;
mod choose;
mod contention;
mod cost;
mod depth;
mod design;
mod first_token;
mod fluid;
mod golden_estimates;
mod kernels_lookup;
mod kernels_pack;
mod lab;
mod layers;
mod network;
mod open_loop;
mod pipeline;
mod profiles;
mod provision;
mod refine;
mod scan;
mod search;
mod served;
mod serving;
mod sim;
mod sim_stats;
mod specs;
mod surfaces;
mod traces;
mod traffic;
mod validation;
mod what_if;
