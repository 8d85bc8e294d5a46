//! Where a list of items is cut into batches.

use std::ops::Range;

use rzen_model::Encoded;

/// What counts as a batch's tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tokens {
    /// As many times the longest item's as there are items: shorter ones are padded.
    Padded,
    /// Those of its items, which stand one behind the other.
    Packed,
}

/// Batches of neighbours, of at most `most_items` items and, where there is more than one, of at most `most_tokens`
/// `tokens`.
pub(crate) fn cut<'a>(
    items: impl IntoIterator<Item = &'a Encoded>,
    most_items: usize,
    most_tokens: usize,
    tokens: Tokens,
) -> Vec<Range<usize>> {
    let mut batches: Vec<Range<usize>> = Vec::new();
    let (mut longest, mut sum) = (0, 0);
    for (i, item) in items.into_iter().enumerate() {
        let length = item.input_ids.len();
        let counted = |batch: &Range<usize>| match tokens {
            Tokens::Padded => (batch.len() + 1) * longest.max(length),
            Tokens::Packed => sum + length,
        };
        match batches.last_mut() {
            Some(batch) if batch.len() < most_items && counted(batch) <= most_tokens => {
                (longest, sum) = (longest.max(length), sum + length);
                batch.end = i + 1;
            }
            _ => {
                (longest, sum) = (length, length);
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
        for tokens in [Tokens::Padded, Tokens::Packed] {
            assert_eq!(cut(&items, 3, 1000, tokens), [0..3, 3..6, 6..7]);
            assert_eq!(cut(&items[..2], 0, 0, tokens), [0..1, 1..2]);
            assert!(cut(&items[..0], 1, 1, tokens).is_empty());
        }
        assert_eq!(cut(&items, 100, 12, Tokens::Padded), [0..4, 4..5, 5..6, 6..7]);
        assert_eq!(cut(&items, 100, 12, Tokens::Packed), [0..4, 4..5, 5..6, 6..7]);
        assert_eq!(cut(&items, 100, 17, Tokens::Packed), [0..5, 5..6, 6..7]);
        assert_eq!(cut(&items, 100, 17, Tokens::Padded), [0..4, 4..5, 5..6, 6..7]);
    }
}
