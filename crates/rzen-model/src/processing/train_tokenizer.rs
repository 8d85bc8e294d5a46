//! A tokenizer of one's own, in the layout of Qwen2-VL's.

use std::collections::BTreeMap;

use tokenizers::models::bpe::{BPE, BpeTrainerBuilder};
use tokenizers::normalizers::NFC;
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::tokenizer::SplitDelimiterBehavior;
use tokenizers::{AddedToken, Tokenizer, Trainer};

use super::ProcessError;

/// Qwen2's split into words, single digits, punctuation and spaces.
const SPLIT: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// Qwen2-VL's control tokens, in the order of their ids.
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

/// Trains a byte-level BPE tokenizer on `texts`, with at most `vocab_size` tokens, control tokens included.
///
/// It depends on the texts alone, not on their order.
///
/// # Errors
/// If `vocab_size` has no room for the 256 bytes and the control tokens.
pub fn train_tokenizer(texts: impl Iterator<Item = String>, vocab_size: usize) -> Result<Tokenizer, ProcessError> {
    let least = 256 + SPECIAL_TOKENS.len();
    let fail = |problem: String| ProcessError::Text { problem };
    if vocab_size < least {
        return Err(fail(format!("a vocabulary of {vocab_size} tokens is too small, bytes and control tokens are {least}")));
    }
    let mut shell = Tokenizer::new(BPE::default());
    shell.with_normalizer(Some(NFC));
    shell.with_pre_tokenizer(Some(pre_tokenizer().map_err(fail)?));
    let counts = count_words(&shell, texts).map_err(fail)?;
    let mut trainer = BpeTrainerBuilder::new()
        .vocab_size(vocab_size - SPECIAL_TOKENS.len())
        .min_frequency(2)
        .show_progress(false)
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .build();
    let words: Vec<&str> =
        counts.iter().flat_map(|(word, count)| std::iter::repeat_n(word.as_str(), *count)).collect();
    trainer.feed(words.iter(), |word| Ok(vec![word.to_owned()])).map_err(|error| fail(error.to_string()))?;
    let mut model = BPE::default();
    trainer.train(&mut model).map_err(|error| fail(error.to_string()))?;
    let mut tokenizer = Tokenizer::new(model);
    tokenizer.with_normalizer(Some(NFC));
    tokenizer.with_pre_tokenizer(Some(pre_tokenizer().map_err(fail)?));
    tokenizer.with_decoder(Some(ByteLevel::new(false, false, false)));
    let special: Vec<AddedToken> =
        SPECIAL_TOKENS.iter().map(|token| AddedToken::from(*token, true).normalized(false)).collect();
    tokenizer.add_special_tokens(&special);
    Ok(tokenizer)
}

fn pre_tokenizer() -> Result<PreTokenizerWrapper, String> {
    let split = Split::new(SplitPattern::Regex(SPLIT.into()), SplitDelimiterBehavior::Isolated, false)
        .map_err(|error| error.to_string())?;
    Ok(Sequence::new(vec![split.into(), ByteLevel::new(false, false, false).into()]).into())
}

/// How often each word occurs, sorted by word: the trainer must not see the order of the texts.
fn count_words(shell: &Tokenizer, texts: impl Iterator<Item = String>) -> Result<BTreeMap<String, usize>, String> {
    use tokenizers::{NormalizedString, Normalizer, OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer};
    let mut counts = BTreeMap::new();
    for text in texts {
        let mut text = NormalizedString::from(text);
        shell.get_normalizer().expect("it was set").normalize(&mut text).map_err(|error| error.to_string())?;
        let mut pieces = PreTokenizedString::from(text);
        let splitter = shell.get_pre_tokenizer().expect("it was set");
        splitter.pre_tokenize(&mut pieces).map_err(|error| error.to_string())?;
        for (piece, _, _) in pieces.get_splits(OffsetReferential::Normalized, OffsetType::Byte) {
            *counts.entry(piece.to_owned()).or_insert(0) += 1;
        }
    }
    Ok(counts)
}
