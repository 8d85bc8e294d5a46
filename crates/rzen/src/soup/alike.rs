//! Whether the weights of models mean the same, so that they can be averaged.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rzen_model::{ModelConfig, ProcessorConfig};
use serde_json::Value;

use crate::models::processor_config;

/// Refuses models of another shape than the first, and models that turn items into other input: an average has the settings of
/// one of them.
///
/// Files are read as a model is opened, so that layouts and defaults of library versions don't matter, nor does what an
/// embedder doesn't look at: the format of numbers, the head of a language model, settings of generation.
///
/// # Errors
/// Names the file, the key and both values.
pub(crate) fn check_alike(folders: &[PathBuf]) -> Result<()> {
    let Some((first, others)) = folders.split_first() else { return Ok(()) };
    let ours = settings(first)?;
    for other in others {
        for ((file, ours), (_, theirs)) in ours.iter().zip(settings(other)?) {
            if let Some((key, our, their)) = difference("", ours, &theirs) {
                bail!(
                    "{file} of {} and {} differ: `{key}` is {our} in the one and {their} in the other; average models of one \
                     shape that were trained on the same input",
                    first.display(),
                    other.display()
                );
            }
        }
    }
    Ok(())
}

fn settings(folder: &Path) -> Result<[(&'static str, Value); 2]> {
    let of = || format!("model {}", folder.display());
    let mut config = ModelConfig::load(folder).with_context(of)?;
    // The head and what ends a generated text: an embedder has neither.
    config.tie_word_embeddings = true;
    config.token_ids.retain(|key, _| !matches!(key.as_str(), "bos_token_id" | "eos_token_id"));
    let processor = processor_config(folder, None).with_context(of)?;
    let processor = serde_json::from_str(&processor.to_json())?;
    Ok([("config.json", config.to_json("")), (ProcessorConfig::FILE, processor)])
}

/// The first key of which two tables have other values, and both; keys of tables inside of tables stand behind a dot.
fn difference(inside: &str, first: &Value, other: &Value) -> Option<(String, Value, Value)> {
    let (Some(ours), Some(theirs)) = (first.as_object(), other.as_object()) else {
        return (first != other).then(|| (inside.to_owned(), first.clone(), other.clone()));
    };
    let missing = theirs.keys().filter(|key| !ours.contains_key(*key));
    ours.keys().chain(missing).find_map(|key| {
        let name = if inside.is_empty() { key.clone() } else { format!("{inside}.{key}") };
        let value = |table: &serde_json::Map<String, Value>| table.get(key).cloned().unwrap_or_default();
        difference(&name, &value(ours), &value(theirs))
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use serde_json::json;

    use super::*;

    #[test]
    fn the_key_and_both_values_are_named() {
        let place = tempfile::tempdir().unwrap();
        let folders = ["one", "other"].map(|name| place.path().join(name));
        let config = ModelConfig::preset("qwen2-vl-2b").unwrap();
        for folder in &folders {
            fs::create_dir(folder).unwrap();
            fs::write(folder.join("config.json"), config.to_json("float32").to_string()).unwrap();
        }
        let write = |name: &str, value: &Value| fs::write(folders[1].join(name), value.to_string()).unwrap();
        let refused = || check_alike(&folders).unwrap_err().to_string();

        // What an embedder doesn't look at.
        let mut other = config.to_json("bfloat16");
        other["tie_word_embeddings"] = json!(false);
        other["transformers_version"] = json!("4.45.0");
        write("config.json", &other);
        write("processor.json", &serde_json::from_str(&ProcessorConfig::default().to_json()).unwrap());
        check_alike(&folders).unwrap();

        other["rms_norm_eps"] = json!(1e-5);
        write("config.json", &other);
        let error = refused();
        assert!(error.starts_with("config.json of ") && error.contains("/one and "), "{error}");
        assert!(error.contains("`rms_norm_eps` is 1e-6 in the one and 0.00001 in the other"), "{error}");
        other["rms_norm_eps"] = json!(1e-6);
        let depth = other["vision_config"]["depth"].as_u64().unwrap();
        other["vision_config"]["depth"] = json!(depth + 1);
        write("config.json", &other);
        let named = format!("`vision_config.depth` is {depth} in the one and {} in the other", depth + 1);
        assert!(refused().contains(&named), "{}", refused());

        write("config.json", &config.to_json("float32"));
        write("processor.json", &json!({"image_tokens": [4, 64]}));
        let error = refused();
        assert!(error.starts_with("processor.json of "), "{error}");
        assert!(error.contains("`image_tokens` is [256,1280] in the one and [4,64] in the other"), "{error}");
    }
}
