//! Where a list of items is cut into batches.

use std::ops::Range;

use rzen_model::Encoded;

/// Batches of neighbours, of at most `most_items` items and, where there is more than one, of at most `most_tokens`
/// tokens: as many times the longest as there are items.
pub(crate) fn cut<'a>(
    items: impl IntoIterator<Item = &'a Encoded>,
    most_items: usize,
    most_tokens: usize,
) -> Vec<Range<usize>> {
    let mut batches: Vec<Range<usize>> = Vec::new();
    let mut longest = 0;
    for (i, item) in items.into_iter().enumerate() {
        let length = item.input_ids.len();
        match batches.last_mut() {
            Some(batch)
                if batch.len() < most_items && (batch.len() + 1) * longest.max(length) <= most_tokens =>
            {
                longest = longest.max(length);
                batch.end = i + 1;
            }
            _ => {
                longest = length;
                batches.push(i..i + 1);
            }
        }
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_limits_hold() {
        let items = [1, 2, 3, 3, 8, 9, 30].map(|n| Encoded { input_ids: vec![1; n], pictures: vec![] });
        assert_eq!(cut(&items, 3, 1000), [0..3, 3..6, 6..7]);
        assert_eq!(cut(&items, 100, 12), [0..4, 4..5, 5..6, 6..7]);
        assert_eq!(cut(&items[..2], 0, 0), [0..1, 1..2]);
        assert!(cut(&items[..0], 1, 1).is_empty());
    }
}
