//! A byte-level BPE of one's own in the layout of Qwen2-VL's `tokenizer.json`.
//!
//! The trainer is ours and not the `tokenizers` crate's: that one walks hash maps while it merges,
//! so that two runs over the same texts may disagree.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap};

use serde_json::{Value, json};
use tokenizers::tokenizer::{
    NormalizedString, Normalizer, OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer, Tokenizer,
};

use super::error::ProcessError;

/// Qwen2-VL's special tokens, in the order of their ids.
pub const SPECIAL_TOKENS: [&str; 14] = [
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|object_ref_start|>",
    "<|object_ref_end|>",
    "<|box_start|>",
    "<|box_end|>",
    "<|quad_start|>",
    "<|quad_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
];

/// Where Qwen2 splits a text before it merges bytes.
const SPLIT: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// Learns a tokenizer of at most `vocab_size` tokens: 256 bytes, merges, and 14 special tokens behind.
///
/// The most frequent pair is merged first, of equally frequent ones that with the lower ids; pairs
/// that occur once are not merged. The result depends on nothing but the multiset of words.
///
/// # Errors
/// If `vocab_size` is under 270, or a text can't be split.
pub fn train_tokenizer(
    texts: impl Iterator<Item = String>,
    vocab_size: usize,
) -> Result<Tokenizer, ProcessError> {
    let mut vocab: Vec<String> = byte_alphabet().into_iter().map(String::from).collect();
    let least = vocab.len() + SPECIAL_TOKENS.len();
    if vocab_size < least {
        return Err(ProcessError::Vocabulary { found: vocab_size, least });
    }
    let words = count_words(texts, &build(&vocab, &[])?)?;
    let merges = learn_merges(&words, &mut vocab, vocab_size - SPECIAL_TOKENS.len());
    build(&vocab, &merges)
}

/// GPT-2's printable stand-ins for the 256 bytes, in order of their ids.
fn byte_alphabet() -> Vec<char> {
    let printable = ('!'..='~').chain('¡'..='¬').chain('®'..='ÿ');
    let others = 256 - printable.clone().count() as u32;
    let stand_ins = (256..256 + others).map(|c| char::from_u32(c).expect("no surrogate is so low"));
    printable.chain(stand_ins).collect()
}

fn build(vocab: &[String], merges: &[(String, String)]) -> Result<Tokenizer, ProcessError> {
    let json = tokenizer_json(vocab, merges).to_string();
    Tokenizer::from_bytes(json).map_err(ProcessError::Tokenize)
}

fn tokenizer_json(vocab: &[String], merges: &[(String, String)]) -> Value {
    let added = SPECIAL_TOKENS.iter().enumerate().map(|(i, token)| {
        json!({"id": vocab.len() + i, "content": token, "single_word": false, "lstrip": false, "rstrip": false,
               "normalized": false, "special": true})
    });
    let byte_level =
        json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false});
    let split =
        json!({"type": "Split", "pattern": {"Regex": SPLIT}, "behavior": "Isolated", "invert": false});
    let ids: serde_json::Map<String, Value> =
        vocab.iter().enumerate().map(|(id, token)| (token.clone(), id.into())).collect();
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added.collect::<Vec<_>>(),
        "normalizer": {"type": "NFC"},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, byte_level]},
        "post_processor": byte_level, "decoder": byte_level,
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": "",
                  "end_of_word_suffix": "", "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
                  "vocab": ids, "merges": merges},
    })
}

/// Counts the words between which nothing is merged, as `tokenizer` splits texts.
fn count_words(
    texts: impl Iterator<Item = String>,
    tokenizer: &Tokenizer,
) -> Result<BTreeMap<String, i64>, ProcessError> {
    let mut words = BTreeMap::new();
    for text in texts {
        let mut text = NormalizedString::from(text);
        if let Some(normalizer) = tokenizer.get_normalizer() {
            normalizer.normalize(&mut text).map_err(ProcessError::Tokenize)?;
        }
        let mut text = PreTokenizedString::from(text);
        if let Some(splitter) = tokenizer.get_pre_tokenizer() {
            splitter.pre_tokenize(&mut text).map_err(ProcessError::Tokenize)?;
        }
        for (word, _, _) in text.get_splits(OffsetReferential::Normalized, OffsetType::Byte) {
            match words.get_mut(word) {
                Some(count) => *count += 1,
                None => drop(words.insert(word.to_owned(), 1)),
            }
        }
    }
    Ok(words)
}

type Pair = (u32, u32);

/// Merges pairs until `vocab` has `size` tokens or no pair occurs twice; returns the merges in order.
fn learn_merges(
    words: &BTreeMap<String, i64>,
    vocab: &mut Vec<String>,
    size: usize,
) -> Vec<(String, String)> {
    let mut ids: HashMap<String, u32> = vocab.iter().cloned().zip(0..).collect();
    let split = |word: &String| word.chars().map(|c| ids[c.encode_utf8(&mut [0; 4]) as &str]).collect();
    let mut words: Vec<(Vec<u32>, i64)> = words.iter().map(|(word, count)| (split(word), *count)).collect();
    let mut pairs = PairCounts::default();
    for (i, (word, count)) in words.iter().enumerate() {
        pairs.count(word, *count, i);
    }
    pairs.queue_touched();
    let mut merges = Vec::new();
    while vocab.len() < size
        && let Some(pair) = pairs.most_frequent()
    {
        let (left, right) = (vocab[pair.0 as usize].clone(), vocab[pair.1 as usize].clone());
        // Another pair may have made the same token before.
        let token = *ids.entry([left.as_str(), &right].concat()).or_insert_with_key(|token| {
            vocab.push(token.clone());
            vocab.len() as u32 - 1
        });
        merges.push((left, right));
        for i in pairs.take_places(pair) {
            let (word, count) = &mut words[i];
            pairs.count(word, -*count, i);
            merge(word, pair, token);
            pairs.count(word, *count, i);
        }
        pairs.queue_touched();
    }
    merges
}

fn merge(word: &mut Vec<u32>, pair: Pair, token: u32) {
    let mut kept = 0;
    let mut at = 0;
    while at < word.len() {
        let is_pair = word[at] == pair.0 && word.get(at + 1) == Some(&pair.1);
        word[kept] = if is_pair { token } else { word[at] };
        kept += 1;
        at += if is_pair { 2 } else { 1 };
    }
    word.truncate(kept);
}

/// How often each pair occurs and in which words; nothing here depends on the order of a hash map.
#[derive(Default)]
struct PairCounts {
    counts: HashMap<Pair, i64>,
    /// Words that hold the pair, or held it once.
    places: HashMap<Pair, Vec<usize>>,
    /// By count, then lowest ids; entries whose count has changed since are passed over.
    queue: BinaryHeap<(i64, Reverse<Pair>)>,
    touched: Vec<Pair>,
}

impl PairCounts {
    /// Adds `count` for each pair of word `place`; a negative count takes them away again.
    fn count(&mut self, word: &[u32], count: i64, place: usize) {
        for pair in word.windows(2).map(|pair| (pair[0], pair[1])) {
            *self.counts.entry(pair).or_default() += count;
            self.touched.push(pair);
            let places = self.places.entry(pair).or_default();
            if count > 0 && places.last() != Some(&place) {
                places.push(place);
            }
        }
    }

    fn queue_touched(&mut self) {
        self.touched.sort_unstable();
        self.touched.dedup();
        for pair in self.touched.drain(..) {
            self.queue.push((self.counts[&pair], Reverse(pair)));
        }
    }

    /// The pair that occurs most, if it occurs more than once.
    fn most_frequent(&mut self) -> Option<Pair> {
        while let Some((count, Reverse(pair))) = self.queue.pop() {
            if count == self.counts[&pair] {
                return (count > 1).then_some(pair);
            }
        }
        None
    }

    /// The words that hold `pair`, each once, in order.
    fn take_places(&mut self, pair: Pair) -> Vec<usize> {
        let mut places = self.places.remove(&pair).unwrap_or_default();
        places.sort_unstable();
        places.dedup();
        places
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts() -> Vec<String> {
        let words =
            ["red circle", "blue square", "a red square above a blue circle", "naïve café", "数字 42"];
        (0..200).map(|i| format!("{} {}, {}", words[i % 5], words[(i * 7 + 3) % 5], i % 13)).collect()
    }

    fn json(tokenizer: &Tokenizer) -> Value {
        serde_json::from_str(&tokenizer.to_string(false).unwrap()).unwrap()
    }

    #[test]
    fn the_same_texts_in_any_order_give_the_same_tokenizer() {
        let first = train_tokenizer(texts().into_iter(), 300).unwrap();
        let second = train_tokenizer(texts().into_iter().rev(), 300).unwrap();
        assert_eq!(first.to_string(false).unwrap(), second.to_string(false).unwrap());
        assert_eq!(first.get_vocab_size(true), 300);
    }

    #[test]
    fn frequent_pairs_become_tokens_and_texts_come_back() {
        let tokenizer = train_tokenizer(texts().into_iter(), 400).unwrap();
        let red = tokenizer.encode(" red", false).unwrap();
        assert_eq!(red.get_tokens(), ["Ġred"]);
        for text in ["a red square, 7", "unseen wörds\n\t 漢字 😀", ""] {
            let ids = tokenizer.encode(text, false).unwrap().get_ids().to_vec();
            assert_eq!(tokenizer.decode(&ids, false).unwrap(), text);
        }
        let merges = json(&tokenizer)["model"]["merges"].as_array().unwrap().clone();
        let mut distinct = merges.clone();
        distinct.sort_by_key(Value::to_string);
        distinct.dedup();
        assert_eq!(merges.len(), distinct.len());
    }

    #[test]
    fn special_tokens_stand_behind_in_their_order() {
        let tokenizer = train_tokenizer(texts().into_iter(), 300).unwrap();
        let base = tokenizer.get_vocab_size(true) - SPECIAL_TOKENS.len();
        for (i, token) in SPECIAL_TOKENS.iter().enumerate() {
            assert_eq!(tokenizer.token_to_id(token), Some((base + i) as u32), "{token}");
        }
        assert_eq!(tokenizer.token_to_id("!"), Some(0));
    }

    #[test]
    fn a_saved_tokenizer_loads_again() {
        let tokenizer = train_tokenizer(texts().into_iter(), 320).unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        tokenizer.save(file.path(), false).unwrap();
        let loaded = Tokenizer::from_file(file.path()).unwrap();
        assert_eq!(json(&loaded), json(&tokenizer));
        let ids = |t: &Tokenizer| t.encode("a red circle <|im_end|> 42", false).unwrap().get_ids().to_vec();
        assert_eq!(ids(&loaded), ids(&tokenizer));
    }

    #[test]
    fn too_small_a_vocabulary_is_refused() {
        let error = train_tokenizer(texts().into_iter(), 269).unwrap_err().to_string();
        assert!(error.contains("269") && error.contains("270"), "{error}");
    }
}
