//! Drawing without repetition.

use std::collections::BTreeSet;

/// Draws that many times in a row without anything new mean that little new is left.
const PATIENCE: usize = 300;

/// Draws `count` values whose keys differ for as long as new ones can be found; after that, keys
/// come a second time, so that equal ones stand far apart.
pub(super) fn spread<T, K: Ord>(count: usize, mut draw: impl FnMut() -> T, key: impl Fn(&T) -> K) -> Vec<T> {
    let mut drawn = Vec::with_capacity(count);
    let mut seen = BTreeSet::new();
    let mut misses = 0;
    while drawn.len() < count {
        let value = draw();
        if seen.insert(key(&value)) {
            drawn.push(value);
            misses = 0;
        } else {
            misses += 1;
        }
        if misses == PATIENCE {
            seen.clear();
            misses = 0;
        }
    }
    drawn
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::dice::Dice;

    #[test]
    fn values_differ_until_all_are_used() {
        let mut dice = Dice::seeded(1);
        let drawn = spread(15, || dice.below(10), |value| *value);
        assert_eq!(drawn.len(), 15);
        assert_eq!(drawn[..10].iter().collect::<BTreeSet<_>>().len(), 10);
        assert_eq!(drawn[10..].iter().collect::<BTreeSet<_>>().len(), 5);
    }
}
