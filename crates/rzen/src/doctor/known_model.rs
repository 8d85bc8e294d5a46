//! A tiny model whose vectors are known: what a device must reproduce.
//!
//! Weights are those of [`RandomCheckpoint`], the same on every machine, and go through files, as any model's do.
//! `expected.json` holds what transformers gives for them; `benches/parity/doctor.py` makes it.

use std::path::Path;

use anyhow::{Context, Result};
use burn::tensor::{Device, FloatDType, Tensor};
use rzen_core::Encode;
use rzen_model::{
    Collator, Companions, Encoded, ModelConfig, Patches, PositionMode, Qwen2Vl, RandomCheckpoint, SpecialIds,
    TextConfig, VisionConfig,
};
use serde_json::{Value, json};

const EXPECTED: &str = include_str!("expected.json");

/// Tokens that are words; control tokens follow.
const WORDS: u32 = 120;

const SPECIAL: SpecialIds = SpecialIds {
    endoftext: WORDS,
    im_start: WORDS + 1,
    im_end: WORDS + 2,
    vision_start: WORDS + 3,
    vision_end: WORDS + 4,
    image_pad: WORDS + 5,
    video_pad: WORDS + 6,
};

/// How far a vector is from the known one.
pub struct Difference {
    /// What was embedded.
    pub item: &'static str,
    /// The largest difference of two numbers; infinite where one is not finite.
    pub largest: f64,
    /// One less the cosine.
    pub cosine_distance: f64,
}

/// The most by which a right vector differs: `(largest, cosine_distance)`.
///
/// As golden tests have it: 1e-4 in f32, a cosine of 0.999 with narrower weights.
pub fn limits(dtype: FloatDType) -> (f64, f64) {
    match dtype {
        FloatDType::F32 => (1e-4, 1e-5),
        _ => (f64::INFINITY, 1e-3),
    }
}

impl Difference {
    /// Whether a vector is right for weights of `dtype`.
    pub fn is_small(&self, dtype: FloatDType) -> bool {
        let (largest, cosine_distance) = limits(dtype);
        // Not the other way round: what is no number is not small. No length is asked for where only cosines count.
        self.largest.is_finite() && self.largest <= largest && self.cosine_distance <= cosine_distance
    }
}

/// Writes the model, and in `items.json` what is embedded with it, into a folder that exists.
///
/// # Errors
/// If a file can't be written.
pub fn write(folder: &Path) -> Result<()> {
    let config = config();
    let checkpoint =
        RandomCheckpoint { config: &config, seed: 1, dtype: FloatDType::F32, shard_size: u64::MAX };
    checkpoint.write(folder, &Companions::default())?;
    let items: Vec<Value> = items().iter().map(|(name, item)| item_json(name, item)).collect();
    let path = folder.join("items.json");
    std::fs::write(&path, serde_json::to_string(&items)?)
        .with_context(|| format!("writing {}", path.display()))
}

fn item_json(name: &str, item: &Encoded) -> Value {
    let pictures =
        item.pictures.iter().map(|picture| json!({"grid_thw": picture.grid_thw, "rows": picture.rows}));
    json!({"name": name, "input_ids": item.input_ids, "pictures": pictures.collect::<Vec<_>>()})
}

/// How far each vector is from the known one when the model in `folder` computes on `device`: the largest difference of
/// alone and in a batch of all, made as in training and as for use.
///
/// # Errors
/// If the folder can't be read.
///
/// # Panics
/// Where the device or its driver does.
pub fn differences(folder: &Path, dtype: FloatDType, device: &Device) -> Result<Vec<Difference>> {
    let trained = Qwen2Vl::load(folder, dtype, device)?;
    let used = Qwen2Vl::load_to_embed(device, folder, dtype, device)?;
    let collator = Collator::new(used.config(), &SPECIAL, PositionMode::Sequential, device);
    let encode = |items: &[&Encoded]| trained.encode(collator.collate(items));
    let embed = |items: &[&Encoded]| used.embed(&collator.collate(items));
    let ways: [Way; 2] = [&encode, &embed];
    let numbers = |vectors: Tensor<2>| -> Vec<f32> {
        vectors.into_data().convert::<f32>().try_to_vec().expect("the data was converted to f32")
    };
    let expected: Value = serde_json::from_str(EXPECTED).expect("the program's own file is JSON");
    let items = items();
    let all: Vec<&Encoded> = items.iter().map(|(_, item)| item).collect();
    let together = ways.map(|way| numbers(way(&all)));
    let dim = used.config().text.hidden_size;
    let differences = items.iter().enumerate().map(|(place, (name, item))| {
        let expected: Vec<f64> =
            serde_json::from_value(expected[*name].clone()).expect("each item has a known vector");
        let alone = ways.map(|way| numbers(way(&[item])));
        let in_batch = together.each_ref().map(|together| together[place * dim..][..dim].to_vec());
        let distances = alone.iter().chain(&in_batch).map(|vector| distance(vector, &expected));
        let (largest, cosine_distance) =
            distances.fold((0.0, 0.0), |most: (f64, f64), one| (most.0.max(one.0), most.1.max(one.1)));
        Difference { item: name, largest, cosine_distance }
    });
    Ok(differences.collect())
}

/// Makes vectors of a batch.
type Way<'a> = &'a dyn Fn(&[&Encoded]) -> Tensor<2>;

/// The largest difference and one less the cosine; infinite where a number is not finite.
fn distance(found: &[f32], expected: &[f64]) -> (f64, f64) {
    if found.len() != expected.len() || found.iter().any(|x| !x.is_finite()) {
        return (f64::INFINITY, f64::INFINITY);
    }
    let pairs = || found.iter().map(|x| f64::from(*x)).zip(expected.iter().copied());
    let largest = pairs().map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    let (dot, aa, bb) =
        pairs().fold((0.0, 0.0, 0.0), |(dot, aa, bb), (a, b)| (dot + a * b, aa + a * a, bb + b * b));
    (largest, if aa > 0.0 { 1.0 - dot / (aa * bb).sqrt() } else { f64::INFINITY })
}

fn config() -> ModelConfig {
    ModelConfig {
        text: TextConfig {
            hidden_size: 64,
            intermediate_size: 176,
            num_hidden_layers: 2,
            num_attention_heads: 4,
            num_key_value_heads: 2,
            vocab_size: 128,
            rms_norm_eps: 1e-6,
            rope_theta: 1_000_000.0,
            mrope_section: [2, 3, 3],
        },
        vision: VisionConfig {
            depth: 2,
            embed_dim: 64,
            num_heads: 4,
            mlp_ratio: 4.0,
            in_channels: 3,
            patch_size: 14,
            spatial_merge_size: 2,
            temporal_patch_size: 2,
        },
        tie_word_embeddings: true,
        token_ids: [
            ("bos_token_id", SPECIAL.endoftext),
            ("eos_token_id", SPECIAL.im_end),
            ("vision_start_token_id", SPECIAL.vision_start),
            ("vision_end_token_id", SPECIAL.vision_end),
            ("image_token_id", SPECIAL.image_pad),
            ("video_token_id", SPECIAL.video_pad),
        ]
        .map(|(key, id)| (key.to_owned(), u64::from(id)))
        .into(),
    }
}

/// What is embedded: texts past the sizes of blocks, a picture, and frames of a clip.
fn items() -> Vec<(&'static str, Encoded)> {
    vec![
        ("text", item(11, &[])),
        ("long text", item(130, &[])),
        ("picture", item(9, &[[1, 4, 18]])),
        ("clip", item(7, &[[1, 4, 6], [1, 4, 6], [1, 4, 6]])),
    ]
}

/// `words` tokens behind pictures of these grids, all of them functions of their places.
fn item(words: u32, grids: &[[usize; 3]]) -> Encoded {
    let mut input_ids = vec![SPECIAL.im_start];
    for grid in grids {
        input_ids.push(SPECIAL.vision_start);
        input_ids.extend(std::iter::repeat_n(SPECIAL.image_pad, grid.iter().product::<usize>() / 4));
        input_ids.push(SPECIAL.vision_end);
    }
    input_ids.extend((0..words).map(|place| place * 37 % WORDS));
    input_ids.push(SPECIAL.endoftext);
    let pictures = grids.iter().zip(1..).map(|(grid, number)| picture(*grid, number)).collect();
    Encoded { input_ids, pictures }
}

/// Numbers of the size of normalised pixels, exact in f32; both frames of a patch are equal, as in any picture.
fn picture(grid_thw: [usize; 3], number: usize) -> Patches {
    let frames = grid_thw.iter().product::<usize>() * 3;
    let frame = |place: usize| {
        (0..196).map(move |pixel| ((place * 196 + pixel) * 7919 * number % 257) as f32 / 64.0 - 2.0)
    };
    Patches { grid_thw, rows: (0..frames).flat_map(|place| frame(place).chain(frame(place))).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes the model, lets `change` alter its weights' file, and returns whether all vectors are right on the CPU.
    #[cfg(feature = "cpu")]
    fn all_right(dtype: FloatDType, change: impl Fn(&mut [u8])) -> bool {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path()).unwrap();
        let path = folder.path().join("model.safetensors");
        let mut bytes = std::fs::read(&path).unwrap();
        change(&mut bytes);
        std::fs::write(&path, bytes).unwrap();
        let differences = differences(folder.path(), dtype, &Device::flex()).unwrap();
        assert_eq!(differences.len(), items().len());
        differences.iter().all(|difference| difference.is_small(dtype))
    }

    #[cfg(feature = "cpu")]
    #[test]
    fn the_cpu_gives_what_transformers_gives_and_other_weights_do_not() {
        for dtype in [FloatDType::F32, FloatDType::BF16, FloatDType::F16] {
            assert!(all_right(dtype, |_| ()), "{dtype:?}");
            let zero_end = |bytes: &mut [u8]| bytes.iter_mut().rev().take(4096).for_each(|byte| *byte = 0);
            assert!(!all_right(dtype, zero_end), "{dtype:?}");
        }
    }

    #[test]
    fn what_is_no_number_is_far() {
        assert_eq!(distance(&[1.0, 0.0], &[1.0, 0.0]), (0.0, 0.0));
        assert_eq!(distance(&[0.0, 1.0], &[1.0, 0.0]), (1.0, 1.0));
        for wrong in [[f32::NAN, 0.0], [f32::INFINITY, 0.0], [0.0, 0.0]] {
            let (largest, cosine_distance) = distance(&wrong, &[1.0, 0.0]);
            let difference = Difference { item: "text", largest, cosine_distance };
            assert!(!difference.is_small(FloatDType::F32) && !difference.is_small(FloatDType::BF16));
        }
    }
}
