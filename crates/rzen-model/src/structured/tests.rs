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
    let after = before.fit_merger([world.input(&items)].into_iter(), 1);
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
    let fitted = world.structured(1).fit_merger([world.input(&items)].into_iter(), 1);
    assert_eq!(vectors(fitted), vectors(world.structured(1)));
}

#[test]
fn pictures_that_are_all_equal_leave_the_merger_alone() {
    let world = World::new(1);
    let items: Vec<Encoded> = (0..3).map(|_| world.encode(Media::Image(picture([255, 0, 0], 0)))).collect();
    let inputs = items.iter().map(|item| world.input(std::slice::from_ref(item)));
    let fitted = world.structured(1).fit_merger(inputs, 1);
    let vectors = |model: &Qwen2Vl| model.encode(world.input(&items)).into_data();
    assert_eq!(vectors(&fitted), vectors(&world.structured(1)));
}

/// The product of a query and a key with these biases, the key `step` rows or columns further.
fn logit(query: &[f32], key: &[f32], frequencies: &[f64], pairs: std::ops::Range<usize>, step: f64) -> f64 {
    let half = query.len() / 2;
    let turned = |x: &[f32], i: usize, angle: f64| {
        let (a, b) = (f64::from(x[i]), f64::from(x[half + i]));
        [a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin()]
    };
    pairs
        .zip(frequencies)
        .map(|(i, frequency)| {
            let (q, k) = (turned(query, i, 0.0), turned(key, i, frequency * step));
            q[0] * k[0] + q[1] * k[1]
        })
        .sum()
}

#[test]
fn a_head_of_the_tower_looks_at_its_neighbour() {
    for head in [8, 16, 20, 80] {
        let count = head / 4;
        let frequencies: Vec<f64> = (0..count).map(|i| 10_000_f64.powf(-(i as f64) / count as f64)).collect();
        let Biases { query, key } = vision::neighbour([-1.0, 1.0], head);
        for (axis, offset) in [-1.0, 1.0].into_iter().enumerate() {
            let pairs = axis * count..(axis + 1) * count;
            let at = |step: f64| logit(&query, &key, &frequencies, pairs.clone(), step);
            for step in [-3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0] {
                assert!(step == offset || at(step) < at(offset) - 1.0, "{head}: {step} against {offset}");
            }
        }
    }
}

#[test]
fn what_all_heads_see_passes_the_decoder_unchanged() {
    for key_heads in [8, 4] {
        let config = TextConfig { num_key_value_heads: key_heads, ..World::new(1).config.text };
        let made = Made { seed: 1, tensors: BTreeMap::new() };
        let turn = made.orthogonal("values", config.hidden_size);
        let out = decoder::way_out(&turn, &config);
        let head = config.head_dim();
        let values = DMatrix::from_fn(config.hidden_size, config.hidden_size, |i, j| {
            turn[(i / head / (8 / key_heads) * head + i % head, j)]
        });
        let both = out * values;
        let content = both.view((RESERVED, RESERVED), (126, 126));
        // With fewer values than coordinates it is a projection: it changes nothing when done twice.
        assert!((content.transpose() - content).norm() < 1e-9);
        match key_heads {
            8 => assert!((content - DMatrix::identity(126, 126)).norm() < 1e-9),
            _ => assert!((both.trace() - 64.0).abs() < 3.0, "{}", both.trace()),
        }
        assert_eq!(both.rows(0, RESERVED).norm(), 0.0);
    }
}

#[test]
fn words_of_the_template_keep_their_spelling() {
    let world = World::new(1);
    let processor = &world.processor;
    let shared = processor.tokenizer().encode("user", false).unwrap().get_ids()[0];
    assert!(world.words.template.contains(&shared) && !world.words.control.contains(&shared));
    let model = world.structured(1);
    let table = model.model.embed_tokens.weight.val().into_data().try_to_vec::<f32>().unwrap();
    let row = |id: u32| &table[id as usize * 128..][..128];
    assert!(row(shared)[RESERVED..].iter().any(|x| *x != 0.0) && row(shared)[TEMPLATE] != 0.0);
    assert!(row(processor.special().im_end)[RESERVED..].iter().all(|x| *x == 0.0));
}
