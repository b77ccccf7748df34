//! Loads of experts that rows were measured under: how uneven the tokens of a step are over them.
//!
//! Limit: three loads that rows were measured under; all layers have the same.

use super::record::choices;

choices! {
    /// A load under which rows of expert kernels were measured, as the tables call it. (Rows with copies of loaded
    /// experts are asked for by `Serving::eplb_slots`.)
    #[derive(PartialOrd, Ord)]
    ExpertLoad {
        /// Every expert the same.
        Balanced = "balanced",
        /// A power law between experts, nearly even within a rank of many.
        PowerLaw101 = "power_law_1.01",
        /// A steeper one.
        PowerLaw12 = "power_law_1.2",
    }
}

impl ExpertLoad {
    /// Exponent of its power law; none: the ranks are even.
    pub(crate) fn exponent(self) -> Option<f64> {
        match self {
            ExpertLoad::PowerLaw101 => Some(1.01),
            ExpertLoad::PowerLaw12 => Some(1.2),
            ExpertLoad::Balanced => None,
        }
    }
}
