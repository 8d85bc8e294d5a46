//! Which rank reads and embeds which rows of a batch.

use std::cmp::Reverse;

use rzen_core::{Item, Part, Sample, VideoSource};
use rzen_model::ProcessorConfig;

/// The rank of each row: the dearest first, each to the rank with the least to do so far.
///
/// No rank gets more than the mean and one row.
pub(crate) fn deal(costs: &[usize], ranks: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..costs.len()).collect();
    order.sort_by_key(|&row| (Reverse(costs[row]), row));
    // Sum, rows, rank: of equal ranks the one with fewer rows, then the lower.
    let mut loads: Vec<(usize, usize, usize)> = (0..ranks).map(|rank| (0, 0, rank)).collect();
    let mut owners = vec![0; costs.len()];
    for row in order {
        let least = loads.iter_mut().min().expect("there is a rank");
        (least.0, least.1) = (least.0 + costs[row], least.1 + 1);
        owners[row] = least.2;
    }
    owners
}

/// About as many tokens as become of a row, without a look at its files: a picture counts as the largest that the
/// processor makes.
pub(crate) fn cost(row: &Sample, config: &ProcessorConfig) -> usize {
    let items = [&row.query, &row.positive].into_iter().chain(&row.hard_negatives);
    items.map(|item| item_cost(item, config)).sum()
}

/// Letters in a token, about.
const LETTERS: usize = 4;

fn item_cost(item: &Item, config: &ProcessorConfig) -> usize {
    let part = |part: &Part| match part {
        Part::Text(text) => text.len().div_ceil(LETTERS),
        Part::Image(_) | Part::Document { .. } => config.image_tokens[1],
        Part::Video(VideoSource::File(_)) => config.num_frames * config.frame_tokens[1],
        Part::Video(VideoSource::Frames(frames)) => {
            frames.len().min(config.num_frames) * config.frame_tokens[1]
        }
    };
    let instruction = item.instruction.as_ref().map_or(0, |text| text.len().div_ceil(LETTERS));
    let content: usize = item.content.iter().map(part).sum();
    // Two rows without a word are still work.
    (config.system_prompt.len() / LETTERS + instruction + content).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_get_alike_much() {
        for (costs, ranks, expected) in [
            (vec![1, 9, 2, 8, 3, 7], 2, vec![0, 0, 0, 1, 0, 1]),
            (vec![5, 5, 5, 5], 4, vec![0, 1, 2, 3]),
            (vec![5, 5], 3, vec![0, 1]),
            (vec![4, 3, 2, 1], 1, vec![0; 4]),
            (vec![], 2, vec![]),
        ] {
            assert_eq!(deal(&costs, ranks), expected, "{costs:?}");
        }
        let costs: Vec<usize> = (0..997).map(|i| 10 + i * i % 1201).collect();
        let owners = deal(&costs, 16);
        let load = |rank| -> usize {
            owners.iter().zip(&costs).filter(|(owner, _)| **owner == rank).map(|(_, cost)| cost).sum()
        };
        let (low, high) = ((0..16).map(load).min().unwrap(), (0..16).map(load).max().unwrap());
        assert!(high - low <= 1210 && high as f64 <= 1.01 * low as f64, "{low} to {high}");
    }

    #[test]
    fn pictures_and_clips_cost_more_than_words() {
        let config = ProcessorConfig::default();
        let picture = Item { content: vec![Part::Image("a.png".into())], instruction: None };
        let frames = Part::Video(VideoSource::Frames(vec!["a.png".into(), "b.png".into()]));
        let clip = Item { content: vec![frames], instruction: None };
        let costs = [&Item::text("a few words"), &clip, &picture].map(|item| item_cost(item, &config));
        assert!(costs.is_sorted() && costs[2] >= config.image_tokens[1], "{costs:?}");
    }
}
