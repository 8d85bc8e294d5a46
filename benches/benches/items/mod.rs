//! What the models of several benches are given.

use rzen_core::Picture;
use rzen_model::{Encoded, ProcessorConfig, SpecialIds, picture_patches};

pub const SPECIAL: SpecialIds = SpecialIds {
    endoftext: 990,
    im_start: 991,
    im_end: 992,
    vision_start: 993,
    vision_end: 994,
    image_pad: 995,
    video_pad: 996,
};

/// Other tokens for each seed.
pub fn words(seed: u32, length: u32) -> Encoded {
    Encoded { input_ids: (0..length).map(|i| (i * 7 + seed * 13) % 990).collect(), pictures: Vec::new() }
}

/// A square of noise, another for each seed.
pub fn picture(side: u32, seed: u32) -> Encoded {
    let byte = |i: u32| (i.wrapping_mul(2_654_435_761).wrapping_add(seed << 20) >> 24) as u8;
    let picture = Picture::new(side, side, (0..side * side * 3).map(byte).collect());
    let patches = picture_patches(&ProcessorConfig::default(), &picture, [4, 1280]);
    let tokens = patches.grid_thw.iter().product::<usize>() / 4;
    let input_ids = [vec![SPECIAL.image_pad; tokens], vec![SPECIAL.endoftext]].concat();
    Encoded { input_ids, pictures: vec![patches] }
}
