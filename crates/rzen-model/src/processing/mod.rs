//! From decoded content to token ids and patches, on the host.
//!
//! The layout of the released code: system message, pictures, instruction and text joined without a
//! separator, an empty answer, `<|endoftext|>`, whose state becomes the embedding.

mod bicubic;
mod config;
mod error;
mod patchify;
mod positions;
mod smart_resize;
mod tokenizer;
mod train_tokenizer;

use std::path::Path;

use rayon::prelude::*;
use rzen_core::{LoadedItem, Media, Picture};
use tokenizers::Tokenizer;

pub use bicubic::resize;
pub use config::{FrameRule, PositionMode, ProcessorConfig, SpecialTokens, Truncation};
pub use error::ProcessError;
pub use positions::position_ids;
pub use smart_resize::{load_size, smart_resize};
pub use tokenizer::SpecialIds;
use tokenizer::TextEncoder;
pub use train_tokenizer::{SPECIAL_TOKENS, train_tokenizer};

/// An item as the encoder takes it, still on the host.
#[derive(Clone, Debug, PartialEq)]
pub struct Encoded {
    /// Token ids; each picture has one `<|image_pad|>` for each of its tokens.
    pub input_ids: Vec<u32>,
    /// The pictures, in the order of their tokens.
    pub pictures: Vec<Patches>,
}

/// A picture cut into patches.
#[derive(Clone, Debug, PartialEq)]
pub struct Patches {
    /// Time, height and width in patches.
    pub grid_thw: [usize; 3],
    /// `[patches, channels · frames · patch · patch]`, normalised.
    pub rows: Vec<f32>,
}

impl Patches {
    /// Whether all frames of a patch are equal, as they are in pictures.
    ///
    /// Frames of a clip are pictures of their own here, so this holds for everything that
    /// [`Processor`] makes.
    pub fn is_still(&self) -> bool {
        self.grid_thw[0] == 1
    }
}

/// Turns decoded items into token ids and patches.
pub struct Processor {
    config: ProcessorConfig,
    text: TextEncoder,
    normalisation: [[f32; 256]; 3],
}

impl Processor {
    /// Opens the tokenizer and the settings of a checkpoint folder.
    ///
    /// # Errors
    /// If `tokenizer.json` is missing or not Qwen2-VL's, or a setting makes no sense.
    pub fn load(folder: &Path) -> Result<Self, ProcessError> {
        Self::load_with(folder, ProcessorConfig::load(folder)?)
    }

    /// Opens the tokenizer of a checkpoint folder, with other settings than the folder's.
    ///
    /// # Errors
    /// If `tokenizer.json` is missing or not Qwen2-VL's, or a setting makes no sense.
    pub fn load_with(folder: &Path, config: ProcessorConfig) -> Result<Self, ProcessError> {
        Self::build(config, TextEncoder::load(&folder.join("tokenizer.json"))?)
    }

    /// A processor with a tokenizer in memory.
    ///
    /// # Errors
    /// If a control token is missing or a setting makes no sense.
    pub fn new(config: ProcessorConfig, tokenizer: &Tokenizer) -> Result<Self, ProcessError> {
        let text = |problem: String| ProcessError::Text { problem };
        let json = tokenizer.to_string(false).map_err(|error| text(error.to_string()))?;
        Self::build(config, TextEncoder::from_json(&json).map_err(text)?)
    }

    fn build(config: ProcessorConfig, text: TextEncoder) -> Result<Self, ProcessError> {
        config.check().map_err(|problem| ProcessError::Text { problem })?;
        let normalisation = patchify::normalisation(&config);
        Ok(Processor { config, text, normalisation })
    }

    /// The settings.
    pub fn config(&self) -> &ProcessorConfig {
        &self.config
    }

    /// Ids of the control tokens.
    pub fn special(&self) -> &SpecialIds {
        &self.text.special
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        self.text.tokenizer()
    }

    /// Encodes one item by itself: frames of clips take the limits of frames.
    ///
    /// # Errors
    /// If the item's pictures are more than `max_length` allows.
    pub fn process(&self, item: &LoadedItem) -> Result<Encoded, ProcessError> {
        self.encode(item, false)
    }

    /// Encodes the items of a batch, under the batch's frame rule.
    ///
    /// # Errors
    /// The first item's that can't be encoded.
    pub fn process_batch(&self, items: &[LoadedItem]) -> Result<Vec<Encoded>, ProcessError> {
        let is_clip = |item: &LoadedItem| item.parts.iter().any(|part| matches!(part, Media::Frames(_)));
        let all_frames = self.config.frame_rule == FrameRule::Batch && items.iter().any(is_clip);
        items.par_iter().map(|item| self.encode(item, all_frames)).collect()
    }

    fn encode(&self, item: &LoadedItem, all_frames: bool) -> Result<Encoded, ProcessError> {
        let (image, frame) = (self.config.image_tokens, self.config.frame_tokens);
        let mut pictures = Vec::new();
        let mut text = item.instruction.clone().unwrap_or_default();
        for part in &item.parts {
            match part {
                Media::Text(words) => text.push_str(words),
                Media::Image(picture) => pictures.push((picture, if all_frames { frame } else { image })),
                Media::Frames(frames) => pictures.extend(frames.iter().map(|picture| (picture, frame))),
            }
        }
        let pictures: Vec<Patches> =
            pictures.into_iter().map(|(picture, tokens)| self.patches(picture, tokens)).collect();
        let input_ids = match self.config.special_tokens {
            SpecialTokens::Plain => self.plain_ids(&text, &pictures)?,
            SpecialTokens::Parse => self.parsed_ids(&text, &pictures)?,
        };
        Ok(Encoded { input_ids, pictures })
    }

    fn patches(&self, picture: &Picture, tokens: [usize; 2]) -> Patches {
        patchify::patchify(&fit_picture(&self.config, picture, tokens), &self.normalisation, &self.config)
    }

    fn tokens_of(&self, picture: &Patches) -> usize {
        picture.grid_thw.iter().product::<usize>() / (self.config.merge_size * self.config.merge_size)
    }

    fn closing_prompt(&self, pictures: &[Patches]) -> &str {
        if pictures.is_empty() { &self.config.text_prompt } else { &self.config.picture_prompt }
    }

    /// Control tokens by id, every run of text between two of them encoded as plain text.
    fn plain_ids(&self, text: &str, pictures: &[Patches]) -> Result<Vec<u32>, ProcessError> {
        let special = &self.text.special;
        let encode = |text: &str| self.text.encode(text, false);
        let mut head = vec![special.im_start];
        head.extend(encode(&format!("system\n{}", self.config.system_prompt))?);
        head.push(special.im_end);
        head.extend(encode("\n")?);
        head.push(special.im_start);
        // Text between two control tokens is one run to the tokenizer, also where the template begins it.
        let body = match pictures.is_empty() {
            true => encode(&format!("user\n{text}"))?,
            false => {
                head.extend(encode("user\n")?);
                for picture in pictures {
                    head.push(special.vision_start);
                    head.extend(std::iter::repeat_n(special.image_pad, self.tokens_of(picture)));
                    head.push(special.vision_end);
                }
                encode(text)?
            }
        };
        let mut tail = encode(self.closing_prompt(pictures))?;
        tail.push(special.im_end);
        tail.extend(encode("\n")?);
        tail.push(special.im_start);
        tail.extend(encode("assistant\n")?);
        tail.push(special.endoftext);
        self.join(head, body, tail, pictures)
    }

    /// The whole prompt as one string, control tokens read wherever they stand, as published.
    fn parsed_ids(&self, text: &str, pictures: &[Patches]) -> Result<Vec<u32>, ProcessError> {
        let pads: String = pictures
            .iter()
            .map(|picture| format!("<|vision_start|>{}<|vision_end|>", "<|image_pad|>".repeat(self.tokens_of(picture))))
            .collect();
        let head = format!("<|im_start|>system\n{}<|im_end|>\n<|im_start|>user\n{pads}", self.config.system_prompt);
        let tail = format!("{}<|im_end|>\n<|im_start|>assistant\n<|endoftext|>", self.closing_prompt(pictures));
        let whole = self.text.encode(&format!("{head}{text}{tail}"), true)?;
        let found = whole.iter().filter(|id| self.text.special.is_picture(**id)).count();
        let expected = pictures.iter().map(|picture| self.tokens_of(picture)).sum();
        if found != expected {
            return Err(ProcessError::PictureTokens { found, expected });
        }
        if self.config.truncation == Truncation::TextOnly && whole.len() > self.config.max_length {
            let encode = |text: &str| self.text.encode(text, true);
            return self.join(encode(&head)?, encode(text)?, encode(&tail)?, pictures);
        }
        self.join(whole, Vec::new(), Vec::new(), pictures)
    }

    /// Joins the parts and cuts what is too long.
    fn join(
        &self,
        mut head: Vec<u32>,
        mut body: Vec<u32>,
        tail: Vec<u32>,
        pictures: &[Patches],
    ) -> Result<Vec<u32>, ProcessError> {
        let limit = self.config.max_length;
        let too_long = |found| ProcessError::TooLong {
            pictures: pictures.len(),
            tokens: pictures.iter().map(|picture| self.tokens_of(picture)).sum(),
            found,
            limit,
        };
        if self.config.truncation == Truncation::TextOnly {
            let fixed = head.len() + tail.len();
            if fixed > limit {
                return Err(too_long(fixed));
            }
            body.truncate(limit - fixed);
        }
        head.extend(body);
        head.extend(tail);
        if head[limit.min(head.len())..].iter().any(|id| self.text.special.is_picture(*id)) {
            return Err(too_long(head.len()));
        }
        head.truncate(limit);
        Ok(head)
    }
}

/// Brings a picture to its final size by the two resizes of the published pipeline: once when it is loaded, once
/// to the limits of `tokens`.
pub fn fit_picture(config: &ProcessorConfig, picture: &Picture, tokens: [usize; 2]) -> Picture {
    let factor = config.factor();
    let (height, width) = load_size(picture.height(), picture.width(), factor, config.load_tokens);
    let loaded = resize(picture, width, height);
    let (height, width) = smart_resize(height, width, factor, tokens);
    resize(&loaded, width, height)
}

/// The patches of a picture within the limits of `tokens`, without a tokenizer.
pub fn picture_patches(config: &ProcessorConfig, picture: &Picture, tokens: [usize; 2]) -> Patches {
    patchify::patchify(&fit_picture(config, picture, tokens), &patchify::normalisation(config), config)
}
