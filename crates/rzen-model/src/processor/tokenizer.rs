//! The tokenizer: control tokens by name, and texts that can't name them by accident.

use std::path::Path;

use tokenizers::{AddedToken, Tokenizer};

use super::config::SpecialTokens;
use super::error::ProcessError;

/// Ids of the tokens that the template is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpecialIds {
    /// `<|endoftext|>`: the pooled token, and padding.
    pub endoftext: u32,
    /// `<|im_start|>`: begins a turn.
    pub im_start: u32,
    /// `<|im_end|>`: ends a turn.
    pub im_end: u32,
    /// `<|vision_start|>`: stands before a picture.
    pub vision_start: u32,
    /// `<|vision_end|>`: stands after a picture.
    pub vision_end: u32,
    /// `<|image_pad|>`: replaced by a token of a picture.
    pub image_pad: u32,
    /// `<|video_pad|>`: replaced by a token of a video.
    pub video_pad: u32,
}

pub(super) const ENDOFTEXT: &str = "<|endoftext|>";
pub(super) const IM_START: &str = "<|im_start|>";
pub(super) const IM_END: &str = "<|im_end|>";
pub(super) const VISION_START: &str = "<|vision_start|>";
pub(super) const VISION_END: &str = "<|vision_end|>";
pub(super) const IMAGE_PAD: &str = "<|image_pad|>";
pub(super) const VIDEO_PAD: &str = "<|video_pad|>";

impl SpecialIds {
    /// True if a token stands for a part of a picture or video.
    pub fn is_picture(&self, id: u32) -> bool {
        id == self.image_pad || id == self.video_pad
    }

    /// Finds the control tokens by name.
    ///
    /// # Errors
    /// Names the first token that `tokenizer` lacks.
    pub fn of(tokenizer: &Tokenizer) -> Result<Self, ProcessError> {
        let id = |token| tokenizer.token_to_id(token).ok_or(ProcessError::MissingToken { token });
        Ok(SpecialIds {
            endoftext: id(ENDOFTEXT)?,
            im_start: id(IM_START)?,
            im_end: id(IM_END)?,
            vision_start: id(VISION_START)?,
            vision_end: id(VISION_END)?,
            image_pad: id(IMAGE_PAD)?,
            video_pad: id(VIDEO_PAD)?,
        })
    }
}

/// Encodes runs of text between control tokens.
#[derive(Clone, Debug)]
pub(super) struct TextEncoder {
    tokenizer: Tokenizer,
    special: SpecialIds,
}

impl TextEncoder {
    pub(super) fn load(path: &Path, mode: SpecialTokens) -> Result<Self, ProcessError> {
        let bytes = std::fs::read(path).map_err(ProcessError::io(path))?;
        let tokenizer = Tokenizer::from_bytes(bytes)
            .map_err(|source| ProcessError::TokenizerFile { path: path.to_owned(), source })?;
        TextEncoder::new(tokenizer, mode)
    }

    pub(super) fn new(mut tokenizer: Tokenizer, mode: SpecialTokens) -> Result<Self, ProcessError> {
        let special = SpecialIds::of(&tokenizer)?;
        // Cutting and padding are done by the processor, which knows what may be cut.
        tokenizer.with_truncation(None).map_err(ProcessError::Tokenize)?.with_padding(None);
        if mode == SpecialTokens::Plain {
            // The switch below passes over tokens marked as special, so all added ones must be.
            let mut added: Vec<(u32, AddedToken)> =
                tokenizer.get_added_tokens_decoder().into_iter().collect();
            added.sort_by_key(|(id, _)| *id);
            let added: Vec<AddedToken> =
                added.into_iter().map(|(_, token)| AddedToken { special: true, ..token }).collect();
            tokenizer.add_special_tokens(&added);
        }
        tokenizer.set_encode_special_tokens(mode == SpecialTokens::Plain);
        Ok(TextEncoder { tokenizer, special })
    }

    pub(super) fn special(&self) -> &SpecialIds {
        &self.special
    }

    pub(super) fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// Encodes a run of text.
    pub(super) fn encode(&self, text: &str) -> Result<Vec<u32>, ProcessError> {
        let encoding = self.tokenizer.encode_fast(text, false).map_err(ProcessError::Tokenize)?;
        Ok(encoding.get_ids().to_vec())
    }

    /// Encodes a run of text that stands beside pictures; fails if a picture token is recognised in it.
    pub(super) fn encode_beside_pictures(&self, text: &str) -> Result<Vec<u32>, ProcessError> {
        let ids = self.encode(text)?;
        for (id, token) in [(self.special.image_pad, IMAGE_PAD), (self.special.video_pad, VIDEO_PAD)] {
            if ids.contains(&id) {
                return Err(ProcessError::PictureToken { token });
            }
        }
        Ok(ids)
    }
}
