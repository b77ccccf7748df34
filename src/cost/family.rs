//! The layer programs of the families that configs describe: from a model's facts to mixers and their order.
//!
//! Every layer has softmax attention, with the model's window where its pattern says so; the first `dense_layers` have a
//! dense FFN, the others experts.

use std::sync::Arc;

use super::program::{Ffn, Mixer, Program};
use super::softmax::Softmax;
use crate::spec::{Attention, Model};

impl Program {
    /// The program of a model's facts.
    pub fn of(model: &Model) -> Program {
        let softmax = |slides| Arc::new(Softmax::new(&model.attention, slides)) as Arc<dyn Mixer>;
        let slides: &[bool] = match &model.attention {
            Attention::Gqa { window: Some(w), .. } if w.layers.contains(&true) => &w.layers,
            _ => &[],
        };
        let mut mixers = vec![softmax(false)];
        if !slides.is_empty() {
            mixers.push(softmax(true));
        }
        let layer = |i: u32| {
            let mixer = usize::from(slides.get(i as usize).copied().unwrap_or(false));
            let dense = model.moe.is_none() || i < model.dense_layers;
            (mixer, if dense { Ffn::Dense } else { Ffn::Experts })
        };
        Program::ordered(mixers, &(0..model.layers).map(layer).collect::<Vec<_>>())
    }
}
