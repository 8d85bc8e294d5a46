//! Position numbers of tokens: 0, 1, 2, … or M-RoPE's three rows.

use serde::{Deserialize, Serialize};

use super::tokenizer::SpecialIds;

/// How tokens are numbered for the rotary embedding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PositionMode {
    /// The index of the token in all three rows, also inside pictures; what the released code computes.
    #[default]
    Sequential,
    /// Time, height and width inside pictures (Qwen2-VL §2.1, <https://arxiv.org/abs/2409.12191>).
    Mrope,
}

/// Numbers the tokens of one sequence without padding; returns the rows time, height and width.
///
/// - `grids`: time steps, rows and columns of patches of each picture or video, in order of their tokens;
///   if there are none, every token is a word
/// - `merge_size`: patches on a side of a token
///
/// # Panics
/// In M-RoPE mode, if `grids` do not match the picture tokens.
pub fn position_ids(
    mode: PositionMode,
    input_ids: &[u32],
    grids: &[[usize; 3]],
    special: &SpecialIds,
    merge_size: usize,
) -> [Vec<i64>; 3] {
    match mode {
        PositionMode::Sequential => std::array::from_fn(|_| (0..input_ids.len() as i64).collect()),
        PositionMode::Mrope => mrope(input_ids, grids, special, merge_size),
    }
}

fn mrope(input_ids: &[u32], grids: &[[usize; 3]], special: &SpecialIds, merge_size: usize) -> [Vec<i64>; 3] {
    let mut rows: [Vec<i64>; 3] = std::array::from_fn(|_| Vec::with_capacity(input_ids.len()));
    let mut push = |position: [i64; 3]| rows.iter_mut().zip(position).for_each(|(row, p)| row.push(p));
    let mut grids = grids.iter();
    let (mut at, mut next) = (0, 0);
    let any_pictures = grids.len() > 0;
    while at < input_ids.len() {
        if !any_pictures || !special.is_picture(input_ids[at]) {
            push([next; 3]);
            (at, next) = (at + 1, next + 1);
            continue;
        }
        let [time, height, width] = *grids.next().expect("each picture in the tokens has a grid");
        let (height, width) = (height / merge_size, width / merge_size);
        let tokens = time * height * width;
        let own = input_ids[at..].iter().take(tokens).filter(|id| special.is_picture(**id)).count();
        assert!(
            tokens > 0 && own == tokens,
            "a picture of {time}x{height}x{width} tokens has {own} in the sequence"
        );
        for token in 0..tokens {
            let [t, h, w] = [token / (height * width), token / width % height, token % width];
            push([t, h, w].map(|place| next + place as i64));
        }
        (at, next) = (at + tokens, next + time.max(height).max(width) as i64);
    }
    assert!(grids.next().is_none(), "each grid has its picture in the tokens");
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPECIAL: SpecialIds = SpecialIds {
        endoftext: 90,
        im_start: 91,
        im_end: 92,
        vision_start: 93,
        vision_end: 94,
        image_pad: 95,
        video_pad: 96,
    };

    #[test]
    fn pictures_count_in_three_rows() {
        let ids = [1, 93, 95, 95, 95, 95, 95, 95, 94, 2];
        let [time, height, width] = position_ids(PositionMode::Mrope, &ids, &[[1, 4, 6]], &SPECIAL, 2);
        assert_eq!(time, [0, 1, 2, 2, 2, 2, 2, 2, 5, 6]);
        assert_eq!(height, [0, 1, 2, 2, 2, 3, 3, 3, 5, 6]);
        assert_eq!(width, [0, 1, 2, 3, 4, 2, 3, 4, 5, 6]);
        let sequential = position_ids(PositionMode::Sequential, &ids, &[[1, 4, 6]], &SPECIAL, 2);
        assert!(sequential.iter().all(|row| row.iter().copied().eq(0..10)));
    }

    #[test]
    fn a_picture_token_without_any_picture_is_a_word() {
        for mode in [PositionMode::Mrope, PositionMode::Sequential] {
            let rows = position_ids(mode, &[1, 95, 95, 96, 2], &[], &SPECIAL, 2);
            assert!(rows.iter().all(|row| row == &[0, 1, 2, 3, 4]));
        }
    }

    #[test]
    fn a_vision_start_without_a_picture_is_a_word() {
        let rows = position_ids(PositionMode::Mrope, &[1, 93, 94, 93], &[], &SPECIAL, 2);
        assert!(rows.iter().all(|row| row == &[0, 1, 2, 3]));
    }
}
