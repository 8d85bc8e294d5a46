//! LoRA adapters in PEFT's layout: make, load, merge.

use std::collections::BTreeSet;
use std::path::Path;

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{DType, Device, FloatDType, Tensor};

use crate::adapter_config::{AdapterConfig, all_linear};
use crate::encoder::Qwen2Vl;
use crate::linear::{Linear, Lora};
use crate::weights::{Init, Naming, TensorFiles, Weights, param};
use crate::{ModelError, vision::VisionBlock};

impl Qwen2Vl {
    /// Puts a new adapter beside the targeted layers and makes it the only trainable part.
    ///
    /// `A` begins random and `B` zero, so that nothing changes at first; both are f32 whatever the
    /// model is stored as.
    ///
    /// # Errors
    /// If the rank is 0, there is no target or one that names no layer, or an adapter is attached already.
    pub fn with_new_adapter(self, config: &AdapterConfig, seed: u64) -> Result<Self, ModelError> {
        config.check().map_err(ModelError::Adapter)?;
        let device = self.device();
        let mut weights = Weights::from_seed(seed, FloatDType::F32, &device);
        let mut unused: BTreeSet<&String> = config.targets.iter().collect();
        let model = self.attach(config, |name, [output, input]| {
            if !config.targets(name) {
                return Ok(None);
            }
            unused.retain(|target| {
                !(AdapterConfig { targets: vec![(*target).clone()], ..config.clone() }).targets(name)
            });
            // As PEFT's default: uniform of this variance.
            let init = Init::Normal((3.0 * input as f64).sqrt().recip());
            let (lora_a, lora_b) = factor_names(name);
            Ok(Some(Lora {
                lora_a: weights.param(&lora_a, [config.rank, input], init)?,
                lora_b: weights.param(&lora_b, [output, config.rank], Init::Zeros)?,
                scale: config.scale(),
            }))
        })?;
        match unused.first() {
            Some(target) => Err(ModelError::Adapter(format!(
                "adapter target `{target}` is the name of no linear layer; the layers are called {}",
                all_linear().join(", ")
            ))),
            None => Ok(model.train_adapter_only()),
        }
    }

    /// Attaches the PEFT adapter in `folder`, frozen.
    ///
    /// # Errors
    /// Names the setting that is not supported, the module that this model lacks or that has no
    /// factors, or the factor whose shape does not fit.
    pub fn with_adapter(self, folder: &Path) -> Result<Self, ModelError> {
        let config = AdapterConfig::load(folder)?;
        let files = TensorFiles::open(folder, &["adapter_model.safetensors".to_owned()])?;
        let factors = Factors { folder, files: &files, rank: config.rank, device: self.device() };
        let mut used = BTreeSet::new();
        let model =
            self.attach(&config, |name, dims| {
                let (lora_a, lora_b) = factor_names(name);
                let stored = [&lora_a, &lora_b].into_iter().find(|name| files.shape(name).is_some());
                match (config.targets(name), stored) {
                    (false, None) => return Ok(None),
                    (false, Some(stored)) => {
                        let stored = files.stored_name(stored);
                        return Err(factors
                            .mismatch(format!("it has `{stored}`, which `target_modules` does not name")));
                    }
                    (true, None) => {
                        return Err(factors
                            .mismatch(format!("`target_modules` names `{name}`, which has no factors")));
                    }
                    (true, Some(_)) => {}
                }
                let lora = factors.read(&lora_a, &lora_b, dims, config.scale())?;
                used.extend([lora_a, lora_b]);
                Ok(Some(lora))
            })?;
        // Saved again, its names are those that the program which made it will look for.
        let naming = files.names().map(|name| Naming::of(files.stored_name(name)));
        let adapter_naming = naming.reduce(|a, b| if a == Naming::Flat { b } else { a }).unwrap_or_default();
        let extra: Vec<&str> = files.names().filter(|name| !used.contains(*name)).collect();
        match extra.first() {
            Some(name) => Err(factors.mismatch(format!(
                "{} of its tensors stand beside no linear layer of this model, first `{}`",
                extra.len(),
                files.stored_name(name)
            ))),
            None => Ok(Qwen2Vl { adapter_naming, ..model }),
        }
    }

    /// Adds the adapter's update to the weights, in f32, and takes the adapter off. What was kept as bf16 to be computed
    /// with as f32 becomes f32 where the adapter changes it.
    pub fn merge_adapter(self) -> Self {
        let widen = self.widen;
        self.merge(|own| if widen { FloatDType::F32 } else { own })
    }

    /// As [`merge_adapter`](Self::merge_adapter), but every weight keeps its type: bf16 is rounded to.
    pub fn merge_adapter_rounded(self) -> Self {
        self.merge(|own| own)
    }

    /// `to` says what a weight of a type becomes.
    fn merge(mut self, to: impl Fn(FloatDType) -> FloatDType) -> Self {
        self.each_linear(&mut |_, linear| {
            if let Some(lora) = linear.lora.take() {
                linear.weight = linear.weight.clone().map(|weight| {
                    let dtype = to(FloatDType::from(weight.dtype()));
                    (weight.cast(FloatDType::F32) + lora.delta()).cast(dtype)
                });
            }
            Ok(())
        })
        .expect("merging can't fail");
        Qwen2Vl { adapter: None, adapter_naming: Naming::default(), ..self }
    }

    /// Freezes everything but the adapter.
    pub fn train_adapter_only(self) -> Self {
        self.set_require_grad(false).map(&mut Unfreeze { inside: false })
    }

    fn attach(
        mut self,
        config: &AdapterConfig,
        mut make: impl FnMut(&str, [usize; 2]) -> Result<Option<Lora>, ModelError>,
    ) -> Result<Self, ModelError> {
        if self.adapter.is_some() {
            return Err(ModelError::Adapter("the model has an adapter already; merge it first".into()));
        }
        self.each_linear(&mut |name, linear| {
            linear.lora = make(name, linear.weight.dims())?;
            Ok(())
        })?;
        Ok(Qwen2Vl { adapter: Some(config.clone()), ..self })
    }

    /// Calls `f` with the name of every linear layer of both towers.
    pub(crate) fn each_linear(
        &mut self,
        f: &mut dyn FnMut(&str, &mut Linear) -> Result<(), ModelError>,
    ) -> Result<(), ModelError> {
        for (i, VisionBlock { attn, mlp, .. }) in self.visual.blocks.iter_mut().enumerate() {
            let block = format!("visual.blocks.{i}");
            f(&format!("{block}.attn.qkv"), &mut attn.qkv)?;
            f(&format!("{block}.attn.proj"), &mut attn.proj)?;
            f(&format!("{block}.mlp.fc1"), &mut mlp.fc1)?;
            f(&format!("{block}.mlp.fc2"), &mut mlp.fc2)?;
        }
        let [first, second] = self.visual.merger.mlp.as_mut_slice() else {
            unreachable!("the merger has two layers")
        };
        f("visual.merger.mlp.0", first)?;
        f("visual.merger.mlp.2", second)?;
        for (i, layer) in self.model.layers.iter_mut().enumerate() {
            let (attn, mlp) = (&mut layer.self_attn, &mut layer.mlp);
            let parts = [
                ("q_proj", &mut attn.q_proj),
                ("k_proj", &mut attn.k_proj),
                ("v_proj", &mut attn.v_proj),
                ("o_proj", &mut attn.o_proj),
            ];
            for (part, linear) in parts {
                f(&format!("model.layers.{i}.self_attn.{part}"), linear)?;
            }
            let parts = [
                ("gate_proj", &mut mlp.gate_proj),
                ("up_proj", &mut mlp.up_proj),
                ("down_proj", &mut mlp.down_proj),
            ];
            for (part, linear) in parts {
                f(&format!("model.layers.{i}.mlp.{part}"), linear)?;
            }
        }
        Ok(())
    }

    /// Where the weights lie, without autodiff.
    pub fn device(&self) -> Device {
        self.model.norm.weight.val().inner().device()
    }
}

/// What the two factors beside a layer are called.
fn factor_names(module: &str) -> (String, String) {
    (format!("{module}.lora_A.weight"), format!("{module}.lora_B.weight"))
}

/// The factors of an adapter in its file.
struct Factors<'a> {
    folder: &'a Path,
    files: &'a TensorFiles,
    rank: usize,
    device: Device,
}

impl Factors<'_> {
    fn read(&self, a: &str, b: &str, [output, input]: [usize; 2], scale: f64) -> Result<Lora, ModelError> {
        Ok(Lora {
            lora_a: self.factor(a, [self.rank, input])?,
            lora_b: self.factor(b, [output, self.rank])?,
            scale,
        })
    }

    fn factor(&self, name: &str, expected: [usize; 2]) -> Result<Param<Tensor<2>>, ModelError> {
        let stored = self.files.stored_name(name);
        match self.files.shape(name) {
            None => return Err(self.mismatch(format!("`{stored}` {expected:?} is missing"))),
            Some(found) if *found != expected => {
                return Err(self.mismatch(format!("`{stored}` is {found:?}, expected {expected:?}")));
            }
            Some(_) => {}
        }
        let data = self.files.data(name, &expected, &expected, FloatDType::F32)?;
        Ok(param(name, Tensor::from_data(data, (&self.device, DType::F32))))
    }

    fn mismatch(&self, problem: String) -> ModelError {
        ModelError::AdapterMismatch { folder: self.folder.to_owned(), problem }
    }
}

/// Makes the adapter's factors trainable.
struct Unfreeze {
    inside: bool,
}

impl ModuleMapper for Unfreeze {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.inside |= name == "lora_a" || name == "lora_b";
    }

    fn exit_module(&mut self, name: &str, _container: &str) {
        self.inside &= name != "lora_a" && name != "lora_b";
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let train = self.inside;
        if train { param.set_require_grad(true) } else { param }
    }
}
