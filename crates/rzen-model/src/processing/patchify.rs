//! Pixels to patch rows: normalised, in the order in which the vision tower takes them.

use rayon::prelude::*;
use rzen_core::Picture;

use super::{Patches, ProcessorConfig};

/// The value of each byte in each channel: rescaled in f64, normalised in f32, as the reference does.
pub(super) fn normalisation(config: &ProcessorConfig) -> [[f32; 256]; 3] {
    let mut table = [[0.0; 256]; 3];
    for (channel, values) in table.iter_mut().enumerate() {
        let (mean, std) = (config.image_mean[channel] as f32, config.image_std[channel] as f32);
        for (byte, value) in values.iter_mut().enumerate() {
            let rescaled = (byte as f64 * (1.0 / 255.0)) as f32;
            *value = (rescaled - mean) / std;
        }
    }
    table
}

/// Cuts a picture whose sides are multiples of a token into patches.
///
/// Rows go block by block, so that the patches of a token are neighbours; within a row stand channel,
/// frame, y, x. A still picture gives each frame of a patch the same pixels.
///
/// # Panics
/// If a side is no multiple of a token.
pub(super) fn patchify(picture: &Picture, table: &[[f32; 256]; 3], config: &ProcessorConfig) -> Patches {
    let (side, merge, frames) = (config.patch_size, config.merge_size, config.temporal_patch_size);
    let (width, height) = (picture.width() as usize, picture.height() as usize);
    assert!(width.is_multiple_of(side * merge) && height.is_multiple_of(side * merge), "sides of whole tokens");
    let (grid_height, grid_width) = (height / side, width / side);
    let area = side * side;
    let patch_dim = 3 * frames * area;
    let mut rows = vec![0.0; grid_height * grid_width * patch_dim];
    rows.par_chunks_mut(patch_dim * merge * merge).enumerate().for_each(|(block, rows)| {
        let (block_y, block_x) = (block / (grid_width / merge), block % (grid_width / merge));
        for (i, row) in rows.chunks_exact_mut(patch_dim).enumerate() {
            let (y, x) = ((block_y * merge + i / merge) * side, (block_x * merge + i % merge) * side);
            for (channel, values) in row.chunks_exact_mut(frames * area).enumerate() {
                let (first, others) = values.split_at_mut(area);
                for (dy, line) in first.chunks_exact_mut(side).enumerate() {
                    let start = ((y + dy) * width + x) * 3 + channel;
                    for (value, byte) in line.iter_mut().zip(picture.rgb()[start..].iter().step_by(3)) {
                        *value = table[channel][usize::from(*byte)];
                    }
                }
                others.chunks_exact_mut(area).for_each(|frame| frame.copy_from_slice(first));
            }
        }
    });
    Patches { grid_thw: [1, grid_height, grid_width], rows }
}
