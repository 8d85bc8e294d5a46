//! The pair that trains together.

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::Tensor;

/// An encoder and the objective that judges its embeddings; one optimizer steps both.
#[derive(Module, Debug)]
pub struct Contrastive<E, O> {
    /// Turns inputs into embeddings.
    pub encoder: E,
    /// Turns embeddings into a loss; its parameters are the temperatures.
    pub objective: O,
}

impl<E: Module, O: Module> Contrastive<E, O> {
    /// The same weights with autodiff on; what is frozen stays so.
    pub(crate) fn with_gradients(self) -> Self {
        Contrastive { encoder: self.encoder.train(), objective: self.objective.train() }
    }

    /// The same weights on the plain device.
    pub(crate) fn without_gradients(&self) -> Self {
        Contrastive { encoder: self.encoder.valid(), objective: self.objective.valid() }
    }

    /// Visits the encoder's parameters under `encoder.` and the objective's under `objective.`.
    pub(crate) fn visit_parts(&self, visitor: &mut impl ModuleVisitor) {
        visitor.enter_module("encoder", "Struct:Contrastive");
        self.encoder.visit(visitor);
        visitor.exit_module("encoder", "Struct:Contrastive");
        visitor.enter_module("objective", "Struct:Contrastive");
        self.objective.visit(visitor);
        visitor.exit_module("objective", "Struct:Contrastive");
    }

    /// The parameters that train, in the order of the model; it must be on the autodiff device.
    pub(crate) fn trained_parameters(&self) -> Vec<Trained> {
        let mut visitor = TrainedVisitor::default();
        self.visit_parts(&mut visitor);
        visitor.found
    }
}

/// A parameter that trains.
pub(crate) struct Trained {
    /// Starts with `encoder.` or `objective.`.
    pub path: String,
    pub id: burn::module::ParamId,
    pub shape: Vec<usize>,
}

#[derive(Default)]
struct TrainedVisitor {
    path: Vec<String>,
    found: Vec<Trained>,
}

impl ModuleVisitor for TrainedVisitor {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if param.is_require_grad() {
            let shape = param.shape().to_vec();
            self.found.push(Trained { path: self.path.join("."), id: param.id, shape });
        }
    }
}
