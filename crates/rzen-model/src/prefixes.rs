//! Keys and values of beginnings that come again.

use std::cmp::Reverse;
use std::sync::{Arc, Mutex, PoisonError};

/// Keys and values of what items of earlier batches began with (the system prompt, an instruction), so that they are not
/// computed again: for [`Qwen2Vl::embed_after`](crate::Qwen2Vl::embed_after).
///
/// It belongs to one model, whose weights stay as they are. Memory: for each of at most 8 prefixes of at most 128 tokens, two
/// rows of every layer's key heads, 58 MB for the 2B model, 117 MB for the 7B.
#[derive(Default)]
pub struct PrefixCache {
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    prefixes: Vec<Used>,
    /// Counts insertions and uses.
    clock: u64,
}

struct Used {
    prefix: Arc<Prefix>,
    /// The last time that it saved something; 0 where it never did.
    used: u64,
    added: u64,
}

/// Prefixes that are kept, at most.
const PREFIXES: usize = 8;
/// Tokens of a prefix that are kept, at most.
pub(crate) const TOKENS: usize = 128;

/// Tokens, without pictures, that items began with.
#[derive(Debug)]
pub(crate) struct Prefix {
    pub ids: Vec<i64>,
    /// Cosines and sines of their positions, a row for each token.
    pub angles: [Vec<f32>; 2],
    /// For each layer the keys and the values, a row for each token.
    pub layers: Vec<[Vec<f32>; 2]>,
}

impl Prefix {
    /// Tokens that both begin with.
    fn common(&self, other: &Prefix) -> usize {
        self.ids.iter().zip(&other.ids).take_while(|(one, other)| one == other).count()
    }
}

impl PrefixCache {
    /// The prefix of which the most tokens from the first on are those asked for, and how many; `same` compares a token.
    pub(crate) fn find(&self, same: impl Fn(&Prefix, usize) -> bool) -> Option<(Arc<Prefix>, usize)> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let count = |used: &Used| {
            let prefix = &used.prefix;
            (0..prefix.ids.len()).take_while(|token| same(prefix, *token)).count()
        };
        let counts: Vec<usize> = kept.prefixes.iter().map(count).collect();
        // Of equals the one that saved something last, then the oldest: the newest is most often one query's own.
        let rank = |place: &usize| {
            let Used { used, added, .. } = &kept.prefixes[*place];
            (counts[*place], *used, Reverse(*added))
        };
        let best = (0..counts.len()).max_by_key(rank).filter(|place| counts[*place] > 0)?;
        kept.clock += 1;
        kept.prefixes[best].used = kept.clock;
        Some((kept.prefixes[best].prefix.clone(), counts[best]))
    }

    /// Keeps a prefix, in place of those that it begins with. Of too many, the one goes whose beginning another has for the most
    /// tokens, such as a query's own text after an instruction that others have too; of equals the one that saved nothing for the
    /// longest time.
    pub(crate) fn keep(&self, prefix: Prefix) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.clock += 1;
        let mut new = Used { prefix: Arc::new(prefix), used: 0, added: kept.clock };
        let ids = &new.prefix.ids;
        if kept.prefixes.iter().any(|other| other.prefix.ids.starts_with(ids)) {
            return;
        }
        new.used = kept
            .prefixes
            .extract_if(.., |other| new.prefix.ids.starts_with(&other.prefix.ids))
            .map(|other| other.used)
            .max()
            .unwrap_or(0);
        kept.prefixes.push(new);
        if kept.prefixes.len() > PREFIXES {
            let shared = |place: usize| {
                let others = (0..kept.prefixes.len()).filter(|other| *other != place);
                others.map(|other| kept.prefixes[place].prefix.common(&kept.prefixes[other].prefix)).max()
            };
            let rank = |place: &usize| {
                let Used { used, added, .. } = &kept.prefixes[*place];
                (shared(*place), Reverse((*used, *added)))
            };
            // The last one is new.
            let place = (0..PREFIXES).max_by_key(rank).expect("there are some");
            kept.prefixes.remove(place);
        }
    }
}

impl std::fmt::Debug for PrefixCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let lengths = kept.prefixes.iter().map(|used| used.prefix.ids.len());
        f.debug_list().entries(lengths).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(ids: &[i64]) -> Prefix {
        Prefix { ids: ids.to_vec(), angles: Default::default(), layers: vec![] }
    }

    fn found(cache: &PrefixCache, ids: &[i64]) -> usize {
        let same = |prefix: &Prefix, token: usize| ids.get(token) == Some(&prefix.ids[token]);
        cache.find(same).map_or(0, |(_, count)| count)
    }

    #[test]
    fn what_saves_something_stays() {
        let cache = PrefixCache::default();
        assert_eq!(found(&cache, &[1, 2]), 0);
        cache.keep(prefix(&[1, 2, 3, 50]));
        cache.keep(prefix(&[1, 2, 4, 60]));
        assert_eq!(found(&cache, &[1, 2, 4, 61, 7]), 3);
        // The first never saved anything, the second did.
        for other in 100..120 {
            cache.keep(prefix(&[other]));
            assert_eq!(found(&cache, &[1, 2, 4]), 3, "after {other}");
        }
        assert_eq!(found(&cache, &[1, 2, 3, 50]), 2);
        assert_eq!((found(&cache, &[119]), found(&cache, &[100])), (1, 0));
        assert_eq!(cache.kept.lock().unwrap().prefixes.len(), PREFIXES);
    }

    #[test]
    fn a_rare_instruction_stays_among_queries_of_another() {
        let cache = PrefixCache::default();
        let ask = |instruction: &[i64], query: i64| {
            let ids = [&[1, 2], instruction, &[query]].concat();
            let saved = found(&cache, &ids);
            cache.keep(prefix(&ids));
            saved
        };
        for round in 0..5 {
            for query in 0..30 {
                let saved = ask(&[10, 11, 12], 1000 + 100 * round + query);
                assert!(saved == 5 || round + query == 0, "{saved} in round {round}");
            }
            let saved = ask(&[20, 21, 22], 2000 + round);
            assert!(saved == 5 || round == 0, "{saved} of the rare one in round {round}");
        }
    }

    #[test]
    fn longer_prefixes_take_the_place_of_shorter_ones() {
        let cache = PrefixCache::default();
        for ids in [&[1, 2][..], &[1, 2, 3], &[1], &[1, 2, 3]] {
            cache.keep(prefix(ids));
        }
        assert_eq!(format!("{cache:?}"), "[3]");
    }
}
