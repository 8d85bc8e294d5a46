use burn::tensor::Tensor;
use rzen_core::{Encode, Media, Picture};

use super::*;
use crate::processor::{ProcessorConfig, train_tokenizer};
use crate::{Collator, Encoded, TextConfig, VisionConfig};

const TEXTS: [&str; 6] = [
    "show the branches of a git repository",
    "list the files of a folder",
    "remove the container and its image",
    "Git branch",
    "the wind and the rain",
    "show the image of the folder",
];

struct World {
    processor: Processor,
    config: ModelConfig,
    device: Device,
    words: WordStatistics,
}

impl World {
    fn new(layers: usize) -> Self {
        let texts = TEXTS.iter().cycle().take(60).map(|text| (*text).to_owned());
        let tokenizer = train_tokenizer(texts, 400).unwrap();
        let settings = ProcessorConfig {
            image_tokens: [1, 2],
            load_tokens: [1, 64],
            patch_size: 8,
            merge_size: 4,
            ..ProcessorConfig::default()
        };
        let processor = Processor::new(settings, &tokenizer).unwrap();
        let config = ModelConfig {
            text: TextConfig {
                hidden_size: 128,
                intermediate_size: 64,
                num_hidden_layers: layers,
                num_attention_heads: 8,
                num_key_value_heads: 4,
                vocab_size: 400,
                rms_norm_eps: 1e-6,
                rope_theta: 1e6,
                mrope_section: [2, 3, 3],
            },
            vision: VisionConfig {
                depth: 1,
                embed_dim: 32,
                num_heads: 2,
                mlp_ratio: 2.0,
                in_channels: 3,
                patch_size: 8,
                spatial_merge_size: 4,
                temporal_patch_size: 2,
            },
            tie_word_embeddings: true,
            token_ids: BTreeMap::new(),
        };
        let words = WordStatistics::count(&processor, TEXTS.into_iter()).unwrap();
        World { processor, config, device: Device::flex(), words }
    }

    fn encode(&self, part: Media) -> Encoded {
        self.processor.process(&LoadedItem { parts: vec![part], instruction: None }).unwrap()
    }

    fn text(&self, text: &str) -> Encoded {
        self.encode(Media::Text(text.to_owned()))
    }

    fn input(&self, items: &[Encoded]) -> crate::EncoderInput {
        let positions = self.processor.config().positions;
        let collator = Collator::new(&self.config, self.processor.special(), positions, &self.device);
        collator.collate(&items.iter().collect::<Vec<_>>())
    }

    fn structured(&self, seed: u64) -> Qwen2Vl {
        Qwen2Vl::structured(&self.config, seed, &self.words, &self.device)
    }

    fn random(&self) -> Qwen2Vl {
        Qwen2Vl::random(&self.config, 1, FloatDType::F32, &self.device)
    }
}

/// Cosines of the first item with the others.
fn cosines(model: &Qwen2Vl, world: &World, items: &[Encoded]) -> Vec<f32> {
    let vectors: Tensor<2> = model.encode(world.input(items));
    let first = vectors.clone().narrow(0, 0, 1);
    vectors.matmul(first.transpose()).into_data().try_to_vec::<f32>().unwrap()[1..].to_vec()
}

#[test]
fn an_untrained_model_finds_texts_of_the_same_words() {
    for layers in [1, 2] {
        let world = World::new(layers);
        let query = world.text("git branches");
        let items =
            [query, world.text("show the branches of a Git repository"), world.text("the wind and the rain")];
        let [near, far] = cosines(&world.structured(1), &world, &items)[..] else { panic!("two cosines") };
        assert!(near > far + 0.2, "{layers} layers: {near} {far}");
        // Where everything looks alike, it does not.
        let [near, far] = cosines(&world.random(), &world, &items)[..] else { panic!("two cosines") };
        assert!(near < far + 0.2, "{layers} layers: {near} {far}");
    }
}

#[test]
fn spelling_decides_and_case_does_not() {
    let world = World::new(1);
    let items = ["Git branch", "git branch", "gits", "wind"].map(|text| world.text(text));
    let [same, near, far] = cosines(&world.structured(1), &world, &items)[..] else {
        panic!("three cosines")
    };
    assert!(same > 0.8 && near > far + 0.1, "{same} {near} {far}");
}

/// A square of one colour in a corner of a grey picture.
fn picture(color: [u8; 3], corner: usize) -> Picture {
    let mut pixels = vec![128; 64 * 64 * 3];
    for (y, x) in (0..24).flat_map(|y| (0..24).map(move |x| (y, x))) {
        let (y, x) = (y + corner / 2 * 40, x + corner % 2 * 40);
        pixels[(y * 64 + x) * 3..][..3].copy_from_slice(&color);
    }
    Picture::new(64, 64, pixels)
}

#[test]
fn pictures_are_told_apart_after_the_fit_and_not_before() {
    let world = World::new(1);
    let colors = [[255, 0, 0], [0, 160, 0], [20, 20, 255], [250, 240, 60]];
    let all = colors.iter().flat_map(|color| (0..4).map(|corner| picture(*color, corner)));
    let items: Vec<Encoded> = all.map(|picture| world.encode(Media::Image(picture))).collect();
    let before = world.structured(1);
    let mean = |cosines: Vec<f32>| cosines.iter().sum::<f32>() / cosines.len() as f32;
    let alike = mean(cosines(&before, &world, &items));
    let after = before.fit_merger(&[world.input(&items)], 1);
    let told_apart = mean(cosines(&after, &world, &items));
    assert!(alike > 0.4 && told_apart < 0.1, "{alike} {told_apart}");
    // A little darker is still the same; another corner is not.
    let near = world.encode(Media::Image(picture([225, 0, 0], 0)));
    let pair = [items[0].clone(), near, items[1].clone()];
    let [near, far] = cosines(&after, &world, &pair)[..] else { panic!("two cosines") };
    assert!(near > 0.8 && near > far + 0.3, "{near} {far}");
}

#[test]
fn the_seed_decides_and_texts_need_no_pictures() {
    let world = World::new(1);
    let items = [world.text("git branches"), world.text("the wind")];
    let vectors = |model: Qwen2Vl| model.encode(world.input(&items)).into_data();
    assert_eq!(vectors(world.structured(1)), vectors(world.structured(1)));
    assert_ne!(vectors(world.structured(1)), vectors(world.structured(2)));
    let fitted = world.structured(1).fit_merger(&[world.input(&items)], 1);
    assert_eq!(vectors(fitted), vectors(world.structured(1)));
}
