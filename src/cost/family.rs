//! The layer programs of the families that configs describe: from a model's facts to mixers and their order.
//!
//! A layer has softmax attention, with the model's window where its pattern says so, unless `layer_mixers` gives it
//! others; the first `dense_layers`, or those that `expert_layers` leaves out, have a dense FFN, the others experts.
//!
//! Limit: one order of layers for all tokens; layers that are skipped or chosen by the input are not in it.

mod block_sparse;
mod blocks;
mod compressed;

use std::sync::Arc;

use self::block_sparse::BlockSparseAttention;
use self::compressed::CompressedAttention;

use super::chain::Chain;
use super::program::{Ffn, Mixer, Program};
use super::running::RunningState;
use super::softmax::Softmax;
use crate::spec::{Attention, LayerMixer, Model, OwnMixer};

impl Program {
    /// The program of a model's facts.
    pub fn of(model: &Model) -> Program {
        let softmax = |slides| Arc::new(Softmax::new(&model.attention, slides)) as Arc<dyn Mixer>;
        let first = match &model.attention {
            Attention::Own(kind) => own(kind),
            _ => softmax(false),
        };
        let slides: &[bool] = match &model.attention {
            Attention::Gqa { window: Some(w), .. } if w.layers.contains(&true) => &w.layers,
            _ => &[],
        };
        let mut mixers = vec![first];
        if !slides.is_empty() {
            mixers.push(softmax(true));
        }
        let place = place(model, slides, &mut mixers);
        let layer = |i: u32| {
            let own = model.expert_layers.get(i as usize);
            let dense = model.moe.is_none() || own.map_or(i < model.dense_layers, |experts| !experts);
            (place[i as usize], if dense { Ffn::Dense } else { Ffn::Experts })
        };
        Program::ordered(mixers, &(0..model.layers).map(layer).collect::<Vec<_>>())
    }
}

/// The mixer of each layer; those that are not there yet are added.
fn place(model: &Model, slides: &[bool], mixers: &mut Vec<Arc<dyn Mixer>>) -> Vec<usize> {
    if model.layer_mixers.is_empty() {
        let of = |i: u32| usize::from(slides.get(i as usize).copied().unwrap_or(false));
        return (0..model.layers).map(of).collect();
    }
    let first = mixers[0].clone();
    let one = |number: u32| -> Arc<dyn Mixer> {
        match model.mixer(number) {
            None => first.clone(),
            Some(LayerMixer::Attention(a)) => Arc::new(Softmax::other(&a.attention, a.window)),
            Some(LayerMixer::Own(kind)) => own(kind),
        }
    };
    let mut known: Vec<&[u32]> = vec![&[0]];
    let mut place = Vec::with_capacity(model.layers as usize);
    for layer in &model.layer_mixers {
        let at = known.iter().position(|k| *k == layer.as_slice());
        place.push(at.unwrap_or(known.len()));
        if at.is_none() {
            known.push(layer);
            let all: Vec<Arc<dyn Mixer>> = layer.iter().map(|n| one(*n)).collect();
            mixers.push(match all.as_slice() {
                [only] => only.clone(),
                _ => Arc::new(Chain::new(all)),
            });
        }
    }
    place
}

/// The operators of a kind with facts of its own.
fn own(kind: &OwnMixer) -> Arc<dyn Mixer> {
    match kind {
        OwnMixer::Compressed(c) => Arc::new(CompressedAttention(*c)),
        OwnMixer::BlockSparse(b) => Arc::new(BlockSparseAttention(*b)),
        state => Arc::new(RunningState::new(state)),
    }
}
