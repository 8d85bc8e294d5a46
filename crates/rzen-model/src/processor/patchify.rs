//! From a picture to the rows that the vision tower takes.

use rayon::prelude::*;
use rzen_core::Picture;

/// The patches of one picture.
#[derive(Clone, Debug, PartialEq)]
pub struct Patches {
    /// Time steps, rows and columns of patches.
    pub grid_thw: [usize; 3],
    /// `[patches, 1176]`: normalised pixels. The patches of a token (a square of them) follow one
    /// another; in a row stand channel, frame, y and x, in this order (3 x 2 x 14 x 14).
    pub rows: Vec<f32>,
}

impl Patches {
    /// True if both frames of each patch are equal, as in every still picture. A model may then add
    /// the two halves of its patch kernel and read one frame alone.
    pub fn is_still(&self) -> bool {
        let channel = self.rows.len() / self.grid_thw.iter().product::<usize>().max(1) / 3;
        channel > 0
            && channel.is_multiple_of(2)
            && self.rows.chunks_exact(channel).all(|frames| frames[..channel / 2] == frames[channel / 2..])
    }
}

/// The normalised value of each byte, for each channel.
#[derive(Clone, Debug)]
pub struct Normalization {
    table: [[f32; 256]; 3],
}

impl Normalization {
    /// `(byte / 255 - mean) / std`, scaled in f64 and normalised in f32 as the published code does.
    pub fn new(mean: [f64; 3], std: [f64; 3]) -> Self {
        let value = |byte: usize, channel: usize| {
            let scaled = (byte as f64 * (1.0 / 255.0)) as f32;
            (scaled - mean[channel] as f32) / std[channel] as f32
        };
        let table = std::array::from_fn(|channel| std::array::from_fn(|byte| value(byte, channel)));
        Normalization { table }
    }
}

/// How a picture is cut.
#[derive(Clone, Copy, Debug)]
pub struct PatchShape {
    /// Pixels on a side of a patch.
    pub patch_size: usize,
    /// Patches on a side of a token.
    pub merge_size: usize,
    /// Frames in a patch; a still picture repeats its frame.
    pub temporal_patch_size: usize,
}

/// Cuts a picture into normalised patches.
///
/// # Panics
/// If a side of the picture is no multiple of `patch_size * merge_size`.
pub fn patchify(picture: &Picture, normalization: &Normalization, shape: PatchShape) -> Patches {
    let PatchShape { patch_size, merge_size, temporal_patch_size } = shape;
    let (width, height) = (picture.width() as usize, picture.height() as usize);
    let token = patch_size * merge_size;
    assert!(
        width.is_multiple_of(token) && height.is_multiple_of(token),
        "a picture of {width}x{height} can't be cut into tokens of {token}x{token}"
    );
    let grid = [height / patch_size, width / patch_size];
    let row_len = 3 * temporal_patch_size * patch_size * patch_size;
    let mut rows = vec![0.0; grid[0] * grid[1] * row_len];
    // Each chunk is one row of tokens.
    rows.par_chunks_mut(grid[1] * merge_size * row_len).enumerate().for_each(|(block_row, rows)| {
        for (i, row) in rows.chunks_exact_mut(row_len).enumerate() {
            let (block_column, y, x) =
                (i / (merge_size * merge_size), i / merge_size % merge_size, i % merge_size);
            let top = (block_row * merge_size + y) * patch_size;
            let left = (block_column * merge_size + x) * patch_size;
            for (channel, frames) in row.chunks_exact_mut(row_len / 3).enumerate() {
                let area = patch_size * patch_size;
                let table = &normalization.table[channel];
                for (y, line) in frames[..area].chunks_exact_mut(patch_size).enumerate() {
                    let start = ((top + y) * width + left) * 3 + channel;
                    let pixels = picture.rgb()[start..].iter().step_by(3);
                    for (value, byte) in line.iter_mut().zip(pixels) {
                        *value = table[usize::from(*byte)];
                    }
                }
                for frame in 1..temporal_patch_size {
                    frames.copy_within(..area, frame * area);
                }
            }
        }
    });
    Patches { grid_thw: [1, grid[0], grid[1]], rows }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: PatchShape = PatchShape { patch_size: 14, merge_size: 2, temporal_patch_size: 2 };

    #[test]
    fn patches_of_a_token_stand_together() {
        // Each patch is flat, with its row and column as red and green.
        let (width, height) = (56, 28);
        let pixel = |i: usize| [(i / width / 14) as u8, (i % width / 14) as u8, 255];
        let picture =
            Picture::new(width as u32, height as u32, (0..width * height).flat_map(pixel).collect());
        let patches = patchify(&picture, &Normalization::new([0.0; 3], [1.0 / 255.0; 3]), SHAPE);
        assert_eq!(patches.grid_thw, [1, 2, 4]);
        assert!(patches.is_still());
        let places: Vec<[f32; 2]> =
            patches.rows.chunks_exact(1176).map(|row| [row[0].round(), row[392].round()]).collect();
        let expected = [[0, 0], [0, 1], [1, 0], [1, 1], [0, 2], [0, 3], [1, 2], [1, 3]];
        assert_eq!(places, expected.map(|place: [u8; 2]| place.map(f32::from)));
    }

    #[test]
    fn moving_frames_are_not_still() {
        let mut patches = Patches { grid_thw: [1, 1, 1], rows: vec![0.5; 1176] };
        assert!(patches.is_still());
        patches.rows[200] = 0.25;
        assert!(!patches.is_still());
    }
}
