//! A vector does not depend on its company, on any device: neither on what it is computed beside, nor on the order.

use burn::tensor::{FloatDType, Tensor};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use rzen_core::{Encode, check_unit_vector};
use rzen_model::{Companions, Encoded, EncoderInput, Patches, PositionMode, Qwen2Vl, RandomCheckpoint};

use crate::case::{Case, cases, collator, special_ids};
use crate::golden::{Place, rows};
use crate::reference::cosine;

/// Around the sizes of blocks that products and attention are computed in.
const LENGTHS: [usize; 22] =
    [1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129, 191, 255, 256, 257];

/// Grids of patches: the numbers of patches, 4 to 260, are beside such sizes too.
const GRIDS: [[usize; 3]; 6] = [[1, 2, 2], [1, 2, 8], [1, 4, 8], [1, 6, 6], [1, 8, 16], [1, 10, 26]];

/// Makes vectors of a batch.
pub type Way = fn(&Qwen2Vl, &EncoderInput) -> Tensor<2>;

/// Tensor by tensor as in training, and as vectors are made for use.
pub const WAYS: [Way; 2] = [|model, input| model.encode(input.clone()), Qwen2Vl::embed];

pub fn embed(way: Way, model: &Qwen2Vl, items: &[&Encoded]) -> Vec<Vec<f32>> {
    rows(&way(model, &collator(model, PositionMode::Mrope).collate(items)).into_data())
}

/// Texts of all lengths around block sizes, and pictures of such sizes.
pub fn at_block_sizes(place: &Place) {
    let Some(model) = place.model(FloatDType::F32) else { return };
    let mut rng = ChaCha8Rng::seed_from_u64(20_251_101);
    let texts = LENGTHS.map(|length| text(&mut rng, length));
    let pictures = GRIDS.map(|grid| picture(&mut rng, grid));
    // Texts apart: with pictures in a batch they go another way.
    check(place, &model, &texts.iter().collect::<Vec<_>>());
    check(place, &model, &texts.iter().step_by(3).chain(&pictures).collect::<Vec<_>>());
}

/// Weights that are stored as bf16 and computed with as f32, which is how released checkpoints are opened; texts long enough for
/// attention that is split into bf16 as well.
#[allow(dead_code, reason = "on the CPU alone; tests of devices have this module too")]
pub fn with_weights_as_stored(place: &Place) {
    let Some(reference) = place.model(FloatDType::F32) else { return };
    let folder = tempfile::tempdir().unwrap();
    let checkpoint = RandomCheckpoint {
        config: reference.config(),
        seed: 7,
        dtype: FloatDType::BF16,
        shard_size: u64::MAX,
    };
    checkpoint.write(folder.path(), &Companions::default()).unwrap();
    let model = Qwen2Vl::load_to_embed(&place.device, folder.path(), FloatDType::F32, &place.device).unwrap();
    let mut rng = ChaCha8Rng::seed_from_u64(20_251_102);
    let texts: Vec<Encoded> =
        LENGTHS.iter().step_by(2).chain(&[599, 600, 601, 640]).map(|n| text(&mut rng, *n)).collect();
    let pictures = GRIDS.map(|grid| picture(&mut rng, grid));
    check_way(Qwen2Vl::embed, place, &model, &texts.iter().collect::<Vec<_>>());
    check_way(Qwen2Vl::embed, place, &model, &texts.iter().step_by(4).chain(&pictures).collect::<Vec<_>>());
}

/// The items of golden cases.
pub fn of_golden_cases(place: &Place) {
    let Some(model) = place.model(FloatDType::F32) else { return };
    let cases: Vec<Case> = cases().into_iter().filter(|case| !case.name.starts_with("official")).collect();
    let items: Vec<&Encoded> =
        cases.iter().flat_map(Case::items).filter(|item| item.input_ids.len() < 300).collect();
    check(place, &model, &items);
}

/// Each alone, all in a batch, the batch in reverse, and each beside the longest.
fn check(place: &Place, model: &Qwen2Vl, items: &[&Encoded]) {
    WAYS.into_iter().for_each(|way| check_way(way, place, model, items));
}

fn check_way(way: Way, place: &Place, model: &Qwen2Vl, items: &[&Encoded]) {
    let embed = |items: &[&Encoded]| embed(way, model, items);
    let together = embed(items);
    let reversed: Vec<&Encoded> = items.iter().rev().copied().collect();
    let backwards = embed(&reversed);
    let longest = items.iter().max_by_key(|item| item.input_ids.len()).unwrap();
    for (i, item) in items.iter().enumerate() {
        let alone = embed(&[item]).swap_remove(0);
        check_unit_vector(&alone).unwrap();
        let alone: Vec<f64> = alone.iter().map(|x| f64::from(*x)).collect();
        let beside = embed(&[longest, item]).swap_remove(1);
        let others = [
            ("in a batch", &together[i]),
            ("in another order", &backwards[items.len() - 1 - i]),
            ("beside a longer one", &beside),
        ];
        for (company, vector) in others {
            let cosine = cosine(vector, &alone);
            let (tokens, pictures) = (item.input_ids.len(), item.pictures.len());
            assert!(
                cosine >= 1.0 - 1e-6 * place.slack,
                "item {i} of {tokens} tokens and {pictures} pictures {company}: {cosine}"
            );
        }
    }
}

fn text(rng: &mut ChaCha8Rng, length: usize) -> Encoded {
    // All control tokens stand behind the words.
    let words = special_ids().endoftext;
    Encoded { input_ids: (0..length).map(|_| rng.next_u32() % words).collect(), pictures: Vec::new() }
}

fn picture(rng: &mut ChaCha8Rng, grid_thw: [usize; 3]) -> Encoded {
    let special = special_ids();
    let patches: usize = grid_thw.iter().product();
    // Both frames of a patch are equal, as in any picture.
    let mut frame = || (0..196).map(|_| (rng.next_u32() % 256) as f32 / 64.0 - 1.9).collect::<Vec<f32>>();
    let rows = (0..patches * 3).flat_map(|_| frame().repeat(2)).collect();
    let mut input_ids = vec![special.vision_start];
    input_ids.extend(std::iter::repeat_n(special.image_pad, patches / 4));
    input_ids.extend([special.vision_end, 5, special.endoftext]);
    Encoded { input_ids, pictures: vec![Patches { grid_thw, rows }] }
}
