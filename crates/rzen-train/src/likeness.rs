//! Whether all ranks hold the same weights.

use std::hash::{DefaultHasher, Hasher};

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::Tensor;
use rzen_core::Ranks;

use crate::{Contrastive, TrainError};

/// Compares what trains over all ranks, bit for bit. Every rank takes the same steps from the same weights by the same
/// gradients, so that they differ only where a machine computes otherwise.
pub(crate) fn check_alike<E: Module, O: Module>(
    model: &Contrastive<E, O>,
    ranks: &dyn Ranks,
    step: usize,
) -> Result<(), TrainError> {
    if ranks.size() == 1 {
        return Ok(());
    }
    let mut hash = TrainedHash(DefaultHasher::new());
    model.visit_parts(&mut hash);
    let all = ranks.all_gather_bytes(&hash.0.finish().to_le_bytes());
    match all.iter().position(|other| *other != all[0]) {
        Some(rank) => Err(TrainError::Apart { step, rank }),
        None => Ok(()),
    }
}

struct TrainedHash(DefaultHasher);

impl ModuleVisitor for TrainedHash {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if param.is_require_grad() {
            self.0.write(param.val().into_data().as_bytes());
        }
    }
}
