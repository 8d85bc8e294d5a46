//! How content becomes tokens: prompts, limits, positions.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::ProcessError;

/// The settings that turn content into tokens. They travel with every checkpoint as `processor.json`.
///
/// The defaults are those of the released code, but for three that protect: `frame_rule`,
/// `truncation` and `special_tokens`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ProcessorConfig {
    /// The system message.
    pub system_prompt: String,
    /// Stands after the content of items without pictures (paper §3.4.4; the released code has none).
    pub text_prompt: String,
    /// Stands after the content of items with pictures.
    pub picture_prompt: String,
    /// Least and most tokens of a picture.
    pub image_tokens: [usize; 2],
    /// Least and most tokens of a frame of a clip.
    pub frame_tokens: [usize; 2],
    /// Which pictures take the limits of frames.
    pub frame_rule: FrameRule,
    /// Frames taken from a clip.
    pub num_frames: usize,
    /// Most tokens of an item.
    pub max_length: usize,
    /// What is cut where an item is longer.
    pub truncation: Truncation,
    /// What control tokens inside a user's text are.
    pub special_tokens: SpecialTokens,
    /// Positions of picture tokens.
    pub positions: PositionMode,
    /// Whether pictures are turned upright by their EXIF tag.
    pub exif_orientation: bool,
    /// Least and most tokens that a picture is brought to when it is loaded, before the limits above.
    pub load_tokens: [usize; 2],
    /// Side of a patch in pixels.
    pub patch_size: usize,
    /// Patches on a side of a token.
    pub merge_size: usize,
    /// Frames in a patch.
    pub temporal_patch_size: usize,
    /// Mean of each channel, 0 to 1.
    pub image_mean: [f64; 3],
    /// Standard deviation of each channel.
    pub image_std: [f64; 3],
}

/// Which pictures take the limits of frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FrameRule {
    /// The frames of clips alone, so that a vector does not depend on what else is in the batch.
    PerItem,
    /// All pictures of a batch in which any item has a clip, as the released code does.
    Batch,
}

/// What is cut where an item has more than `max_length` tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Truncation {
    /// The end of the text; the closing tokens stay. An item whose pictures alone are too long is refused.
    TextOnly,
    /// Everything on the right, closing tokens first, as the released code does.
    Published,
}

/// What control tokens such as `<|im_end|>` inside a user's text are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SpecialTokens {
    /// Plain text.
    Plain,
    /// Control tokens, as in the released code.
    Parse,
}

/// Positions of picture tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PositionMode {
    /// Every token counts on by one, as in the released code.
    Sequential,
    /// Time, height and width of pictures (M-RoPE), as in the model that it was made from.
    Mrope,
}

impl Default for ProcessorConfig {
    fn default() -> Self {
        ProcessorConfig {
            system_prompt: "You are a helpful assistant.".into(),
            text_prompt: String::new(),
            picture_prompt: String::new(),
            image_tokens: [256, 1280],
            frame_tokens: [160, 180],
            frame_rule: FrameRule::PerItem,
            num_frames: 8,
            max_length: 2000,
            truncation: Truncation::TextOnly,
            special_tokens: SpecialTokens::Plain,
            positions: PositionMode::Sequential,
            exif_orientation: false,
            load_tokens: [4, 16384],
            patch_size: 14,
            merge_size: 2,
            temporal_patch_size: 2,
            image_mean: [0.481_454_66, 0.457_827_5, 0.408_210_73],
            image_std: [0.268_629_54, 0.261_302_58, 0.275_777_11],
        }
    }
}

impl ProcessorConfig {
    /// The name of the file that the settings travel in.
    pub const FILE: &'static str = "processor.json";

    /// Reads `folder/processor.json`; without it the defaults, with patch sizes, mean and deviation
    /// of `preprocessor_config.json` where that is there.
    ///
    /// # Errors
    /// If a file is there and can't be read, or a setting makes no sense.
    pub fn load(folder: &Path) -> Result<Self, ProcessError> {
        let path = folder.join(Self::FILE);
        let config = if path.is_file() {
            read_json(&path)?
        } else {
            Self::from_preprocessor(&folder.join("preprocessor_config.json"))?
        };
        config.check().map_err(|problem| ProcessError::Config { path, problem })?;
        Ok(config)
    }

    fn from_preprocessor(path: &Path) -> Result<Self, ProcessError> {
        #[derive(Deserialize)]
        struct Preprocessor {
            patch_size: Option<usize>,
            merge_size: Option<usize>,
            temporal_patch_size: Option<usize>,
            image_mean: Option<[f64; 3]>,
            image_std: Option<[f64; 3]>,
        }
        let config = Self::default();
        if !path.is_file() {
            return Ok(config);
        }
        let file: Preprocessor = read_json(path)?;
        Ok(ProcessorConfig {
            patch_size: file.patch_size.unwrap_or(config.patch_size),
            merge_size: file.merge_size.unwrap_or(config.merge_size),
            temporal_patch_size: file.temporal_patch_size.unwrap_or(config.temporal_patch_size),
            image_mean: file.image_mean.unwrap_or(config.image_mean),
            image_std: file.image_std.unwrap_or(config.image_std),
            ..config
        })
    }

    /// The content of a `processor.json`.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("settings are plain data") + "\n"
    }

    /// Says which setting makes no sense, if any.
    ///
    /// # Errors
    /// The setting, what was found, what was expected.
    pub fn check(&self) -> Result<(), String> {
        for (name, [low, high]) in
            [("image_tokens", self.image_tokens), ("frame_tokens", self.frame_tokens), ("load_tokens", self.load_tokens)]
        {
            if low == 0 || low > high {
                return Err(format!("`{name}` is [{low}, {high}], expected two numbers above 0, the smaller first"));
            }
        }
        let sizes = [
            ("num_frames", self.num_frames),
            ("max_length", self.max_length),
            ("patch_size", self.patch_size),
            ("merge_size", self.merge_size),
            ("temporal_patch_size", self.temporal_patch_size),
        ];
        if let Some((name, _)) = sizes.iter().find(|(_, size)| *size == 0) {
            return Err(format!("`{name}` is 0, expected 1 or more"));
        }
        if self.image_std.iter().any(|x| !x.is_finite() || *x <= 0.0) {
            return Err(format!("`image_std` is {:?}, expected numbers above 0", self.image_std));
        }
        Ok(())
    }

    /// Side of a token in pixels.
    pub fn factor(&self) -> u32 {
        (self.patch_size * self.merge_size) as u32
    }
}

fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T, ProcessError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| ProcessError::Io { path: path.to_owned(), source })?;
    serde_json::from_str(&text).map_err(|source| ProcessError::Json { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_travel_and_mistakes_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let config = ProcessorConfig { max_length: 77, ..ProcessorConfig::default() };
        std::fs::write(folder.path().join(ProcessorConfig::FILE), config.to_json()).unwrap();
        assert_eq!(ProcessorConfig::load(folder.path()).unwrap(), config);
        for (text, named) in [
            (r#"{"max_lenght": 1}"#, "max_lenght"),
            (r#"{"image_tokens": [9, 4]}"#, "image_tokens"),
            (r#"{"num_frames": 0}"#, "num_frames"),
        ] {
            std::fs::write(folder.path().join(ProcessorConfig::FILE), text).unwrap();
            let error = ProcessorConfig::load(folder.path()).unwrap_err().to_string();
            assert!(error.contains(named) && error.contains("processor.json"), "{error}");
        }
    }
}
