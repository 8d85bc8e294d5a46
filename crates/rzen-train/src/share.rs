//! A batch that several ranks embed, each its share.

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use rzen_core::Ranks;

use crate::Contrastive;
use crate::gradients::split_off;

/// Which rank embeds which row of a batch. The micro-batches of a rank hold its rows in the order of the batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Share {
    /// For each query of the whole batch, its rank.
    pub queries: Vec<usize>,
    /// For each candidate of the whole batch, its rank.
    pub candidates: Vec<usize>,
}

/// One of the two that are compared.
#[derive(Clone, Copy)]
pub(crate) enum Side {
    Queries,
    Candidates,
}

/// A step's ranks, and what each does of it.
#[derive(Clone, Copy)]
pub(crate) struct Shared<'a> {
    pub ranks: &'a dyn Ranks,
    pub share: &'a Share,
}

impl Shared<'_> {
    /// All rows of the batch in its order, `[queries, dim]` and `[candidates, dim]` in f32, of the rows of this rank.
    pub(crate) fn gather(
        &self,
        queries: Vec<Tensor<2>>,
        candidates: Vec<Tensor<2>>,
        device: &Device,
    ) -> [Tensor<2>; 2] {
        let mine: Vec<f32> = queries.into_iter().chain(candidates).flat_map(floats).collect();
        let all = self.ranks.all_gather(&mine);
        let Share { queries, candidates } = self.share;
        let dim = all.len() / (queries.len() + candidates.len());
        let [mut whole_queries, mut whole_candidates] =
            [queries, candidates].map(|side| vec![0.0_f32; side.len() * dim]);
        let mut rows = all.chunks_exact(dim);
        for rank in 0..self.ranks.size() {
            for (side, whole) in [(queries, &mut whole_queries), (candidates, &mut whole_candidates)] {
                for place in places(side, rank) {
                    let row = rows.next().expect("each rank embeds the rows of its share");
                    whole[place * dim..][..dim].copy_from_slice(row);
                }
            }
        }
        assert!(rows.next().is_none(), "each rank embeds the rows of its share alone");
        [(queries, whole_queries), (candidates, whole_candidates)].map(|(side, whole)| {
            Tensor::from_data(TensorData::new(whole, [side.len(), dim]), (device, DType::F32))
        })
    }

    /// The rows of this rank, of which there is one at least, out of those of the whole batch.
    pub(crate) fn own(&self, whole: Tensor<2>, side: Side) -> Tensor<2> {
        let side = match side {
            Side::Queries => &self.share.queries,
            Side::Candidates => &self.share.candidates,
        };
        let own: Vec<i64> = places(side, self.ranks.rank()).map(|place| place as i64).collect();
        let count = own.len();
        let own: Tensor<1, Int> = Tensor::from_data(TensorData::new(own, [count]), &whole.device());
        whole.select(0, own)
    }

    /// The gradients of the whole batch, of those that the rows of each rank have. The objective's gradients and the
    /// loss are known to all, each to its own rounding; those of rank 0 count.
    pub(crate) fn sum<E: Module, O: Module>(
        &self,
        model: &Contrastive<E, O>,
        gradients: GradientsParams,
        loss: Tensor<1>,
    ) -> (GradientsParams, Tensor<1>) {
        let first = self.ranks.rank() == 0;
        let gradients = match first {
            true => gradients,
            false => split_off(gradients, &model.objective).0,
        };
        let mut own = OwnGradients { gradients, found: Vec::new() };
        model.visit_parts(&mut own);
        let anywhere = self.anywhere(&own.found);
        let mut flat = Flat { gradients: own.gradients, anywhere: &anywhere, at: 0, values: Vec::new() };
        model.visit_parts(&mut flat);
        let mut values = flat.values;
        let device = loss.device();
        let own_loss = floats(loss);
        values.push(if first { own_loss[0] } else { 0.0 });
        self.ranks.all_reduce_sum(&mut values);
        let loss = values.pop().expect("the loss was put there");
        let mut parts =
            Parts { values: &values, anywhere: &anywhere, at: 0, gradients: GradientsParams::new() };
        model.visit_parts(&mut parts);
        (parts.gradients, Tensor::from_data([loss], (&device, DType::F32)))
    }

    /// Which parameters have a gradient on some rank: without any, an optimizer leaves a parameter alone.
    fn anywhere(&self, mine: &[u8]) -> Vec<bool> {
        let mut anywhere = vec![false; mine.len()];
        for (rank, found) in self.ranks.all_gather_bytes(mine).iter().enumerate() {
            assert_eq!(found.len(), mine.len(), "parameters of the model on rank {rank}");
            anywhere.iter_mut().zip(found).for_each(|(any, here)| *any |= *here != 0);
        }
        anywhere
    }
}

fn places(side: &[usize], rank: usize) -> impl Iterator<Item = usize> {
    side.iter().enumerate().filter(move |(_, owner)| **owner == rank).map(|(place, _)| place)
}

fn floats<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.cast(DType::F32).into_data().try_into_vec().expect("the tensor is f32")
}

/// For each parameter whether it has a gradient here.
struct OwnGradients {
    gradients: GradientsParams,
    found: Vec<u8>,
}

impl ModuleVisitor for OwnGradients {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.found.push(u8::from(self.gradients.get::<D>(param.id).is_some()));
    }
}

/// Gradients one after another, zeros where this rank has none and another does.
struct Flat<'a> {
    gradients: GradientsParams,
    anywhere: &'a [bool],
    at: usize,
    values: Vec<f32>,
}

impl ModuleVisitor for Flat<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if self.anywhere[self.at] {
            match self.gradients.remove::<D>(param.id) {
                Some(gradient) => self.values.append(&mut floats(gradient)),
                None => self.values.resize(self.values.len() + param.shape().num_elements(), 0.0),
            }
        }
        self.at += 1;
    }
}

/// The way back.
struct Parts<'a> {
    values: &'a [f32],
    anywhere: &'a [bool],
    at: usize,
    gradients: GradientsParams,
}

impl ModuleVisitor for Parts<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if self.anywhere[self.at] {
            let (shape, value) = (param.shape(), param.val());
            let (own, rest) = self.values.split_at(shape.num_elements());
            let to = (&value.device().inner(), value.dtype());
            let gradient = Tensor::<D>::from_data(TensorData::new(own.to_vec(), shape), to);
            self.gradients.register(param.id, gradient);
            self.values = rest;
        }
        self.at += 1;
    }
}
