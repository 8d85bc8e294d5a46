//! From a picture to the rows that the vision tower takes.

use rayon::prelude::*;
use rzen_core::{Picture, prefer_large_pages};

/// The patches of one picture or clip.
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
    /// Frames in a patch; where there are fewer the last is repeated.
    pub temporal_patch_size: usize,
}

/// Cuts a picture, or the frames of a clip, into normalised patches. Each time step takes as many frames as a patch has.
///
/// # Panics
/// If there is no frame, frames differ in size, or a side is no multiple of `patch_size * merge_size`.
pub fn patchify(frames: &[&Picture], normalization: &Normalization, shape: PatchShape) -> Patches {
    let (width, height) = (frames[0].width() as usize, frames[0].height() as usize);
    let token = shape.patch_size * shape.merge_size;
    assert!(
        width.is_multiple_of(token) && height.is_multiple_of(token),
        "a picture of {width}x{height} can't be cut into tokens of {token}x{token}"
    );
    let same = |frame: &&Picture| (frame.width() as usize, frame.height() as usize) == (width, height);
    assert!(frames.iter().all(same), "the frames of a clip are {width}x{height}, all of them");
    let steps = frames.chunks(shape.temporal_patch_size);
    let grid_thw = [steps.len(), height / shape.patch_size, width / shape.patch_size];
    let row_len = 3 * shape.temporal_patch_size * shape.patch_size * shape.patch_size;
    let mut rows = vec![0.0; grid_thw.iter().product::<usize>() * row_len];
    prefer_large_pages(&mut rows);
    let step_len = rows.len() / steps.len();
    for (frames, rows) in steps.zip(rows.chunks_exact_mut(step_len)) {
        fill_step(frames, rows, normalization, shape);
    }
    Patches { grid_thw, rows }
}

/// Fills the rows of one time step.
fn fill_step(frames: &[&Picture], rows: &mut [f32], normalization: &Normalization, shape: PatchShape) {
    let PatchShape { patch_size, merge_size, temporal_patch_size } = shape;
    let (area, width) = (patch_size * patch_size, frames[0].width() as usize);
    let row_len = 3 * temporal_patch_size * area;
    // Each chunk is one row of tokens.
    rows.par_chunks_mut(width / patch_size * merge_size * row_len).enumerate().for_each(
        |(block_row, rows)| {
            for (i, row) in rows.chunks_exact_mut(row_len).enumerate() {
                let (block_column, y, x) =
                    (i / (merge_size * merge_size), i / merge_size % merge_size, i % merge_size);
                let top = (block_row * merge_size + y) * patch_size;
                let left = (block_column * merge_size + x) * patch_size;
                for (channel, values) in row.chunks_exact_mut(row_len / 3).enumerate() {
                    let table = &normalization.table[channel];
                    for (frame, values) in frames.iter().zip(values.chunks_exact_mut(area)) {
                        for (y, line) in values.chunks_exact_mut(patch_size).enumerate() {
                            let start = ((top + y) * width + left) * 3 + channel;
                            let pixels = frame.rgb()[start..].iter().step_by(3);
                            for (value, byte) in line.iter_mut().zip(pixels) {
                                *value = table[usize::from(*byte)];
                            }
                        }
                    }
                    for frame in frames.len()..temporal_patch_size {
                        values.copy_within((frame - 1) * area..frame * area, frame * area);
                    }
                }
            }
        },
    );
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
        let patches = patchify(&[&picture], &Normalization::new([0.0; 3], [1.0 / 255.0; 3]), SHAPE);
        assert_eq!(patches.grid_thw, [1, 2, 4]);
        assert!(patches.is_still());
        let places: Vec<[f32; 2]> =
            patches.rows.chunks_exact(1176).map(|row| [row[0].round(), row[392].round()]).collect();
        let expected = [[0, 0], [0, 1], [1, 0], [1, 1], [0, 2], [0, 3], [1, 2], [1, 3]];
        assert_eq!(places, expected.map(|place: [u8; 2]| place.map(f32::from)));
    }

    #[test]
    fn a_clip_has_two_frames_in_a_patch() {
        let flat = |level: u8| Picture::new(28, 28, vec![level; 28 * 28 * 3]);
        let frames = [flat(10), flat(20), flat(30)];
        let frames: Vec<&Picture> = frames.iter().collect();
        let patches = patchify(&frames, &Normalization::new([0.0; 3], [1.0 / 255.0; 3]), SHAPE);
        assert_eq!(patches.grid_thw, [2, 2, 2]);
        assert!(!patches.is_still());
        // In a row stand the two frames of each channel; the last frame is repeated.
        let levels =
            |row: &[f32]| row.chunks_exact(196).map(|frame| frame[0].round() as u8).collect::<Vec<_>>();
        let rows: Vec<Vec<u8>> = patches.rows.chunks_exact(1176).map(levels).collect();
        assert_eq!(rows[..4], vec![vec![10, 20, 10, 20, 10, 20]; 4]);
        assert_eq!(rows[4..], vec![vec![30; 6]; 4]);
    }

    #[test]
    fn moving_frames_are_not_still() {
        let mut patches = Patches { grid_thw: [1, 1, 1], rows: vec![0.5; 1176] };
        assert!(patches.is_still());
        patches.rows[200] = 0.25;
        assert!(!patches.is_still());
    }
}
