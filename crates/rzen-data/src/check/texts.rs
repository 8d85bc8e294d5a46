//! Texts that say the same.

use std::collections::{HashMap, HashSet};

/// The words of a text as they are compared: small letters, one space between words, no punctuation that is only
/// typography. Signs that carry meaning in code and numbers stay.
pub(super) fn normalized(text: &str) -> String {
    let small = text.to_lowercase();
    let typography = |c: char| c.is_whitespace() || ".,;:!?\"'`´’‘“”„«»()[]{}…–—。，、！？：；".contains(c);
    let mut words = String::with_capacity(small.len());
    for word in small.split(|c: char| c.is_whitespace()) {
        let word = word.trim_matches(typography);
        if word.is_empty() {
            continue;
        }
        if !words.is_empty() {
            words.push(' ');
        }
        words += word;
    }
    words
}

/// Letters and digits of a text.
pub(super) fn letters(text: &str) -> usize {
    text.chars().filter(|c| c.is_alphanumeric()).count()
}

/// Words from which on texts are compared by what they have in common; shorter ones must be equal.
const LONG: usize = 30;

/// Words in a run.
const RUN: usize = 3;

/// Hash functions, and how many of them make a key: texts with 80 % of their runs in common share a key but for one
/// case in 5,000, those with 40 % do so in a third of the cases and are told apart by their runs.
const HASHES: usize = 64;
const IN_A_KEY: usize = 4;

/// Texts by what they say: the number of an earlier one that says the same.
#[derive(Default)]
pub(super) struct TextIndex {
    equal: HashMap<String, Vec<usize>>,
    keys: HashMap<(usize, u64), Vec<usize>>,
}

impl TextIndex {
    /// Adds a text under a number.
    pub fn add(&mut self, number: usize, text: &str) {
        let text = normalized(text);
        if let Some(runs) = long_runs(&text) {
            for key in keys(&runs) {
                self.keys.entry(key).or_default().push(number);
            }
        }
        self.equal.entry(text).or_default().push(number);
    }

    /// The numbers of the texts that say nearly the same: equal words, or for long texts at least a share of `common`
    /// of all runs of three words; in order. `added` gives back what was added under a number.
    pub fn near<'a>(&self, text: &str, common: f64, added: impl Fn(usize) -> &'a str) -> Vec<usize> {
        let text = normalized(text);
        // What is all punctuation says nothing.
        if text.is_empty() {
            return Vec::new();
        }
        let mut found = self.equal.get(&text).cloned().unwrap_or_default();
        if let Some(runs) = long_runs(&text) {
            let mut candidates: Vec<usize> =
                keys(&runs).filter_map(|key| self.keys.get(&key)).flatten().copied().collect();
            candidates.sort_unstable();
            candidates.dedup();
            found.extend(candidates.into_iter().filter(|number| {
                let others = runs_of(&normalized(added(*number)));
                let both = runs.intersection(&others).count() as f64;
                both >= common * (runs.len() + others.len()) as f64 / (1.0 + common)
            }));
        }
        found.sort_unstable();
        found.dedup();
        found
    }
}

/// The runs of a long text.
fn long_runs(text: &str) -> Option<HashSet<u64>> {
    (text.split(' ').count() >= LONG).then(|| runs_of(text))
}

/// Hashes of runs of words.
fn runs_of(text: &str) -> HashSet<u64> {
    let words: Vec<&str> = text.split(' ').collect();
    words.windows(RUN).map(|run| run.iter().fold(SEED, |start, word| hash(start, word))).collect()
}

const SEED: u64 = 0xcbf2_9ce4_8422_2325;

/// FNV-1a, so that the same texts are found by every build.
fn hash(start: u64, word: &str) -> u64 {
    word.bytes()
        .chain([b' '])
        .fold(start, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}

/// The keys of MinHash: equal ones are likely where many runs are.
fn keys(runs: &HashSet<u64>) -> impl Iterator<Item = (usize, u64)> + use<> {
    let least = |function: usize| runs.iter().map(|run| mixed(run ^ mixed(function as u64 + 1))).min();
    let least: Vec<u64> = (0..HASHES).filter_map(least).collect();
    let key = |band: &[u64]| band.iter().fold(SEED, |key, value| mixed(key ^ value));
    let keys: Vec<u64> = least.chunks(IN_A_KEY).map(key).collect();
    keys.into_iter().enumerate()
}

/// The finaliser of SplitMix64.
fn mixed(mut value: u64) -> u64 {
    value = (value ^ value >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ value >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ value >> 31
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passage(words: impl Iterator<Item = usize>) -> String {
        words.map(|word| format!("word{word}")).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn typography_does_not_count_and_signs_do() {
        assert_eq!(normalized(" A  “Red” blood cell.\n"), "a red blood cell");
        assert_ne!(normalized("ls -l"), normalized("ls l"));
        assert_ne!(normalized("3.5 m"), normalized("35 m"));
        assert_eq!(normalized("?! …"), "");
    }

    #[test]
    fn short_texts_must_be_equal_and_long_ones_alike() {
        let texts = ["What is the outlook for gout?".to_owned(), passage(0..200), "…".to_owned()];
        let mut index = TextIndex::default();
        texts.iter().enumerate().for_each(|(number, text)| index.add(number, text));
        let near = |text: &str| index.near(text, 0.8, |number| &texts[number]);
        assert_eq!(near("what is the outlook for gout"), [0]);
        assert!(near("what is the outlook for flu").is_empty());
        assert_eq!(near(&passage(10..205)), [1]);
        assert_eq!(near(&(passage(0..100) + " else " + &passage(101..200))), [1]);
        assert!(near(&passage(100..300)).is_empty());
        assert!(near("!").is_empty());
    }
}
