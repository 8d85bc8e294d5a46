//! The tokenizer: byte-level BPE with control tokens, and the same without them.

use std::path::Path;

use serde_json::Value;
use tokenizers::Tokenizer;

use super::ProcessError;

/// Ids of the control tokens that the processor writes itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpecialIds {
    /// `<|endoftext|>`: the last token, and padding.
    pub endoftext: u32,
    /// `<|im_start|>`
    pub im_start: u32,
    /// `<|im_end|>`
    pub im_end: u32,
    /// `<|vision_start|>`
    pub vision_start: u32,
    /// `<|vision_end|>`
    pub vision_end: u32,
    /// `<|image_pad|>`: stands for a token of a picture.
    pub image_pad: u32,
    /// `<|video_pad|>`: stands for a token of a video.
    pub video_pad: u32,
}

impl SpecialIds {
    /// Whether a token stands for a part of a picture or video.
    pub fn is_picture(&self, id: u32) -> bool {
        id == self.image_pad || id == self.video_pad
    }
}

/// Encodes text with or without control tokens in it.
pub(super) struct TextEncoder {
    /// As published: control tokens are recognised anywhere.
    parsing: Tokenizer,
    /// Knows no control tokens: whatever looks like one is text.
    plain: Tokenizer,
    pub(super) special: SpecialIds,
}

impl TextEncoder {
    pub(super) fn load(path: &Path) -> Result<Self, ProcessError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ProcessError::Io { path: path.to_owned(), source })?;
        Self::from_json(&text).map_err(|problem| ProcessError::Tokenizer { path: path.to_owned(), problem })
    }

    pub(super) fn from_json(text: &str) -> Result<Self, String> {
        let mut json: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
        let parsing: Tokenizer = text.parse().map_err(|error| format!("{error}"))?;
        json["added_tokens"] = Value::Array(Vec::new());
        let plain: Tokenizer = json.to_string().parse().map_err(|error| format!("{error}"))?;
        let id = |token: &str| parsing.token_to_id(token).ok_or_else(|| format!("the token {token} is missing; is this a tokenizer of Qwen2-VL?"));
        let special = SpecialIds {
            endoftext: id("<|endoftext|>")?,
            im_start: id("<|im_start|>")?,
            im_end: id("<|im_end|>")?,
            vision_start: id("<|vision_start|>")?,
            vision_end: id("<|vision_end|>")?,
            image_pad: id("<|image_pad|>")?,
            video_pad: id("<|video_pad|>")?,
        };
        Ok(TextEncoder { parsing, plain, special })
    }

    pub(super) fn tokenizer(&self) -> &Tokenizer {
        &self.parsing
    }

    /// The ids of `text`; control tokens in it are read where `parse` says so.
    pub(super) fn encode(&self, text: &str, parse: bool) -> Result<Vec<u32>, ProcessError> {
        let tokenizer = if parse { &self.parsing } else { &self.plain };
        let encoding = tokenizer.encode(text, false).map_err(|error| ProcessError::Text { problem: error.to_string() })?;
        Ok(encoding.get_ids().to_vec())
    }
}
