//! The names that library versions give to the same module.
//!
//! `transformers` before 4.52 and from 4.57 on says `model.layers…` and `visual…`; in between it said
//! `model.language_model.layers…` and `model.visual…`, and a model without a head says
//! `language_model.layers…`. The first form is the canonical one here. `rzen-model` has the same rule, and neither crate may
//! depend on the other, nor both on one that knows names: `fixtures/tensor_names.json` is what both are tested on.

/// What `peft` puts before a module's name.
const PEFT_PREFIX: &str = "base_model.model.";

/// The renamed beginnings, the longer of two that fit first.
const RENAMED: [(&str, &str); 5] = [
    ("language_model.lm_head.", "lm_head."),
    ("model.language_model.", "model."),
    ("language_model.model.", "model."),
    ("language_model.", "model."),
    ("model.visual.", "visual."),
];

/// Which of the two factors of an update.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Factor {
    A,
    B,
}

/// The canonical name of a module or tensor, also behind `peft`'s prefix.
pub(crate) fn canonical(name: &str) -> String {
    let name = name.strip_prefix(PEFT_PREFIX).unwrap_or(name);
    for (found, older) in RENAMED {
        if let Some(rest) = name.strip_prefix(found) {
            return format!("{older}{rest}");
        }
    }
    name.into()
}

/// Whether a canonical name is that of the head of a language model, which no embedder has a use for.
pub(crate) fn is_head(name: &str) -> bool {
    name.starts_with("lm_head.")
}

/// Takes a tensor's name in an adapter apart; `None` if it is no factor of an update.
pub(crate) fn parse_factor(tensor: &str) -> Option<(String, Factor)> {
    let name = tensor.strip_prefix(PEFT_PREFIX)?;
    let (module, factor) = match name.strip_suffix(".lora_A.weight") {
        Some(module) => (module, Factor::A),
        None => (name.strip_suffix(".lora_B.weight")?, Factor::B),
    };
    Some((canonical(module), factor))
}

/// The name of a factor in an adapter.
pub(crate) fn factor_name(module: &str, factor: Factor) -> String {
    format!("{PEFT_PREFIX}{module}.lora_{factor:?}.weight")
}

/// The ending by which `peft` finds a module in each layer and under each naming.
pub(crate) fn target(module: &str) -> String {
    let parts: Vec<&str> = module.split('.').collect();
    let layer = parts.iter().position(|part| matches!(*part, "layers" | "blocks"));
    let start = match layer {
        Some(at) if at + 2 < parts.len() => at + 2,
        _ => parts.len().saturating_sub(3),
    };
    parts[start..].join(".")
}

/// The ending that names a module of one layer under each naming: `layers.3.mlp.up_proj`.
pub(crate) fn layer_target(module: &str) -> String {
    match layer(module) {
        Some((tower, _)) => module[tower.len()..].trim_start_matches('.').to_owned(),
        None => target(module),
    }
}

/// What stands before `layers` or `blocks`, and the layer's number as it is written.
pub(crate) fn layer(module: &str) -> Option<(&str, &str)> {
    let at = ["layers.", "blocks."].iter().find_map(|part| {
        let found = module.find(part)?;
        (found == 0 || module[..found].ends_with('.')).then_some(found)
    })?;
    let number = module[at..].split('.').nth(1)?;
    Some((module[..at].trim_end_matches('.'), number))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn every_naming_is_the_same_module() {
        let names: BTreeMap<String, String> =
            serde_json::from_str(include_str!("../../../fixtures/tensor_names.json")).unwrap();
        for (found, expected) in names {
            assert_eq!(canonical(&found), expected, "{found}");
        }
    }

    #[test]
    fn factors_are_told_from_other_tensors() {
        let name = factor_name("visual.blocks.3.attn.qkv", Factor::B);
        assert_eq!(name, "base_model.model.visual.blocks.3.attn.qkv.lora_B.weight");
        assert_eq!(parse_factor(&name), Some(("visual.blocks.3.attn.qkv".into(), Factor::B)));
        assert_eq!(parse_factor("base_model.model.model.layers.0.mlp.up_proj.lora_magnitude_vector"), None);
        assert_eq!(parse_factor("model.layers.0.mlp.up_proj.lora_A.weight"), None);
    }

    #[test]
    fn targets_leave_the_layer_out() {
        assert_eq!(target("model.layers.12.self_attn.q_proj"), "self_attn.q_proj");
        assert_eq!(target("visual.blocks.3.attn.proj"), "attn.proj");
        assert_eq!(target("visual.merger.mlp.2"), "merger.mlp.2");
        assert_eq!(target("proj"), "proj");
        assert_eq!(layer_target("model.layers.12.self_attn.q_proj"), "layers.12.self_attn.q_proj");
        assert_eq!(layer_target("visual.blocks.3.attn.proj"), "blocks.3.attn.proj");
        assert_eq!(layer_target("visual.merger.mlp.2"), "merger.mlp.2");
        assert_eq!(layer("model.layers.12.self_attn.q_proj"), Some(("model", "12")));
    }
}
