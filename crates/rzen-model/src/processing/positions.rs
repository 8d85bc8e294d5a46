//! Rotary positions of a sequence: time, height and width of each token.

use super::{PositionMode, SpecialIds};

/// The positions of one unpadded sequence: three rows (time, height, width) of a number a token.
///
/// - `grids`: time, height and width in patches of the sequence's pictures and videos, in order
/// - `merge_size`: patches on a side of a token
///
/// In M-RoPE a picture that begins at position `s` gives its tokens `s` plus their place in time, height
/// and width, and the text goes on at `s` plus the largest of the three sizes.
///
/// # Panics
/// If the picture tokens are not those of `grids`.
pub fn position_ids(
    mode: PositionMode,
    input_ids: &[u32],
    grids: &[[usize; 3]],
    special: &SpecialIds,
    merge_size: usize,
) -> [Vec<i64>; 3] {
    if mode == PositionMode::Sequential || grids.is_empty() {
        let row: Vec<i64> = (0..input_ids.len() as i64).collect();
        return [row.clone(), row.clone(), row];
    }
    let mut rows: [Vec<i64>; 3] = Default::default();
    let mut grids = grids.iter();
    let (mut next, mut i) = (0, 0);
    while i < input_ids.len() {
        if !special.is_picture(input_ids[i]) {
            rows.iter_mut().for_each(|row| row.push(next));
            next += 1;
            i += 1;
            continue;
        }
        let &[time, height, width] = grids.next().expect("a grid for each picture of the sequence");
        let (height, width) = (height / merge_size, width / merge_size);
        let count = time * height * width;
        let whole = i + count <= input_ids.len() && input_ids[i..i + count].iter().all(|id| special.is_picture(*id));
        assert!(whole, "a picture of {time}x{height}x{width} tokens has so many in the sequence");
        for place in 0..count {
            let offsets = [place / (height * width), place / width % height, place % width];
            rows.iter_mut().zip(offsets).for_each(|(row, offset)| row.push(next + offset as i64));
        }
        next += time.max(height).max(width) as i64;
        i += count;
    }
    rows
}
