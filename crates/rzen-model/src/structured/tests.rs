use std::convert::Infallible;

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
        World::with_tower(layers, 32, 2.0)
    }

    fn with_tower(layers: usize, embed_dim: usize, mlp_ratio: f64) -> Self {
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
                embed_dim,
                num_heads: 2,
                mlp_ratio,
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

    fn collator(&self) -> Collator {
        let positions = self.processor.config().positions;
        Collator::new(&self.config, self.processor.special(), positions, &self.device)
    }

    fn input(&self, items: &[Encoded]) -> crate::EncoderInput {
        self.collator().collate(&items.iter().collect::<Vec<_>>())
    }

    /// The structured model after it saw these.
    fn fitted(&self, examples: Vec<FitExample>) -> Qwen2Vl {
        let pieces = examples.chunks(3).map(|piece| Ok::<_, Infallible>(piece.to_vec()));
        self.structured(1).fit_merger(&self.collator(), pieces, 1).unwrap()
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

fn plain(items: &[Encoded]) -> Vec<FitExample> {
    items.iter().map(|item| FitExample { views: vec![item.clone()], caption: None, weight: 1.0 }).collect()
}

#[test]
fn pictures_lie_near_the_words_of_their_captions_after_the_fit() {
    let world = World::new(1);
    let colors = [[255, 0, 0], [0, 160, 0], [20, 20, 255], [250, 240, 60]];
    let names = ["branch of the git", "the wind and the rain", "remove the container", "list files"];
    let kinds = || colors.into_iter().zip(names);
    let examples = kinds().flat_map(|(color, name)| {
        let view = |corner| world.encode(Media::Image(picture(color, corner)));
        let caption = Some(world.text(name).input_ids);
        let example =
            |corner| FitExample { views: vec![view(corner)], caption: caption.clone(), weight: 0.5 };
        (0..4).map(example).collect::<Vec<_>>()
    });
    let fitted = world.fitted(examples.collect());
    let texts = names.map(|name| world.text(name));
    for (place, (color, name)) in kinds().enumerate() {
        // A shade that was not seen.
        let shade = color.map(|channel: u8| channel.saturating_sub(20));
        let mut items = vec![world.encode(Media::Image(picture(shade, 3)))];
        items.extend(texts.iter().cloned());
        let cosines = cosines(&fitted, &world, &items);
        let mut others = cosines.iter().enumerate().filter(|(other, _)| *other != place);
        assert!(others.all(|(_, other)| cosines[place] > other + 0.1), "{name}: {cosines:?}");
    }
}

/// Squares in two corners of a grey picture.
fn squares(first: [u8; 3], second: [u8; 3]) -> Picture {
    let [first, second] = [picture(first, 0), picture(second, 3)];
    let below = first.rgb().iter().zip(second.rgb());
    Picture::new(64, 64, below.map(|(a, b)| if *a == 128 { *b } else { *a }).collect())
}

#[test]
fn what_two_views_differ_by_counts_less_after_the_fit() {
    let world = World::new(1);
    let view = |first, second| world.encode(Media::Image(squares(first, second)));
    let color = |i: u32| [i * 67 % 250, i * 101 % 250, i * 151 % 250].map(|channel| channel as u8);
    let pairs: Vec<[Encoded; 2]> =
        (1..40).map(|i| [view(color(i), color(i + 100)), view(color(i), color(i + 200))]).collect();
    let fitted = |together: bool| {
        let examples = pairs.iter().flat_map(|pair| match together {
            true => vec![FitExample { views: pair.to_vec(), caption: None, weight: 1.0 }],
            false => plain(pair),
        });
        world.fitted(examples.collect())
    };
    let (red, blue, other, another) = ([250, 20, 10], [10, 20, 250], [30, 200, 90], [200, 60, 220]);
    let items = [view(red, other), view(red, another), view(blue, other)];
    let lead = |model| {
        let [same, other] = cosines(&model, &world, &items)[..] else { panic!("two cosines") };
        same - other
    };
    let (apart, together) = (lead(fitted(false)), lead(fitted(true)));
    assert!(together > apart + 0.2, "{apart} {together}");
}

#[test]
fn an_error_of_the_examples_is_given_back() {
    let world = World::new(1);
    let pieces = [Ok(Vec::new()), Err("no such file")].into_iter();
    let found = world.structured(1).fit_merger(&world.collator(), pieces, 1);
    assert_eq!(found.err(), Some("no such file"));
}

/// A still picture of stripes, whose brightness changes along `[y, x]`.
fn stripes(along: [f64; 2], shift: f64) -> Picture {
    let places = (0..64).flat_map(|y| (0..64).map(move |x| (f64::from(y), f64::from(x))));
    let level =
        |(y, x): (f64, f64)| (128.0 + 100.0 * (0.9 * (along[0] * y + along[1] * x) + shift).sin()) as u8;
    Picture::new(64, 64, places.flat_map(|place| [level(place); 3]).collect())
}

#[test]
fn a_caption_without_words_and_captions_all_alike_tell_nothing() {
    let world = World::new(1);
    let items: Vec<Encoded> =
        (0..4).map(|corner| world.encode(Media::Image(picture([255, 0, 0], corner)))).collect();
    let vectors = |text: Option<&str>| {
        let caption = text.map(|text| world.text(text).input_ids);
        let examples = items.iter().map(|item| FitExample {
            views: vec![item.clone()],
            caption: caption.clone(),
            weight: 0.3,
        });
        world.fitted(examples.collect()).encode(world.input(&items)).into_data()
    };
    let plain = vectors(None);
    for text in ["", "list the files"] {
        vectors(Some(text)).assert_approx_eq::<f32>(&plain, burn::tensor::Tolerance::absolute(1e-5));
    }
}

#[test]
fn towers_of_any_shape_begin_finite() {
    let small = World::new(1).config.vision;
    for (patch_size, embed_dim, mlp_ratio, in_channels) in
        [(1, 8, 1.0, 3), (2, 64, 4.0, 3), (3, 24, 2.0, 1), (10, 48, 6.0, 3), (4, 96, 4.0, 3), (14, 4, 1.0, 3)]
    {
        let num_heads = 1;
        let config =
            VisionConfig { patch_size, embed_dim, num_heads, mlp_ratio, in_channels, ..small.clone() };
        let mut made = Made { seed: 1, tensors: BTreeMap::new() };
        vision::make(&mut made, &config);
        assert!(made.tensors.values().flatten().all(|x| x.is_finite()), "{config:?}");
        assert_eq!(
            made.tensors["visual.patch_embed.proj.weight"].len(),
            embed_dim * config.patch_dim(),
            "{config:?}"
        );
    }
}

#[test]
fn edges_are_told_by_direction_and_not_by_place() {
    // Of one sum a patch and of four.
    edges_are_told_by(&World::new(1));
    edges_are_told_by(&World::with_tower(1, 48, 6.0));
}

fn edges_are_told_by(world: &World) {
    let half = 0.5f64.sqrt();
    let directions = [[0.0, 1.0], [1.0, 0.0], [half, half], [half, -half]];
    let pictures = directions.iter().flat_map(|along| (0..6).map(|shift| stripes(*along, f64::from(shift))));
    let items: Vec<Encoded> = pictures.map(|picture| world.encode(Media::Image(picture))).collect();
    let fitted = world.fitted(plain(&items));
    for along in directions {
        let items = [stripes(along, 0.5), stripes(along, 3.6), stripes([along[1], -along[0]], 0.5)];
        let items = items.map(|picture| world.encode(Media::Image(picture)));
        let [moved, turned] = cosines(&fitted, world, &items)[..] else { panic!("two cosines") };
        assert!(moved > turned + 0.5, "{along:?}: {moved} {turned}");
    }
}

#[test]
fn pictures_are_told_apart_after_the_fit_and_not_before() {
    let world = World::new(1);
    let colors = [[255, 0, 0], [0, 160, 0], [20, 20, 255], [250, 240, 60]];
    let all = colors.iter().flat_map(|color| (0..4).map(|corner| picture(*color, corner)));
    let items: Vec<Encoded> = all.map(|picture| world.encode(Media::Image(picture))).collect();
    let mean = |cosines: Vec<f32>| cosines.iter().sum::<f32>() / cosines.len() as f32;
    let alike = mean(cosines(&world.structured(1), &world, &items));
    let after = world.fitted(plain(&items));
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
    assert_eq!(vectors(world.fitted(plain(&items))), vectors(world.structured(1)));
}

#[test]
fn pictures_that_are_all_equal_leave_the_merger_alone() {
    let world = World::new(1);
    let items: Vec<Encoded> = (0..3).map(|_| world.encode(Media::Image(picture([255, 0, 0], 0)))).collect();
    let fitted = world.fitted(plain(&items));
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
