//! Limits that a user sets on what files may ask for.

use anyhow::{Context, Result};
use rzen_data::{IncompleteVideo, LoadOptions, VideoDecoder};
use serde::{Deserialize, Serialize};

/// What files may ask for before they are refused: `[data.load]` of a recipe and `--load KEY=VALUE`. The keys are
/// those of [`LoadOptions`] that the model does not decide.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LoadLimits {
    max_pixels: u64,
    max_side: u32,
    max_file_bytes: u64,
    pdf_timeout_ms: u64,
    video_timeout_ms: u64,
    video_byte_cap: u64,
    video_decoder: VideoDecoder,
    incomplete_video: IncompleteVideo,
}

impl Default for LoadLimits {
    fn default() -> Self {
        let options = LoadOptions::default();
        LoadLimits {
            max_pixels: options.max_pixels,
            max_side: options.max_side,
            max_file_bytes: options.max_file_bytes,
            pdf_timeout_ms: options.pdf_timeout_ms,
            video_timeout_ms: options.video_timeout_ms,
            video_byte_cap: options.video_byte_cap,
            video_decoder: options.video_decoder,
            incomplete_video: options.incomplete_video,
        }
    }
}

impl LoadLimits {
    /// Reads `KEY=VALUE` pairs; what they don't name stays as it is by default.
    ///
    /// # Errors
    /// Names the pair that is none, the key that is unknown or the value that does not fit.
    pub fn parse(pairs: &[String]) -> Result<Self> {
        let mut table = toml::Table::new();
        for pair in pairs {
            let (key, value) = pair
                .split_once('=')
                .with_context(|| format!("--load {pair}: expected KEY=VALUE, such as max_side=20000"))?;
            let value = match value.parse::<i64>() {
                Ok(number) => toml::Value::Integer(number),
                Err(_) => toml::Value::String(value.to_owned()),
            };
            table.insert(key.to_owned(), value);
        }
        table.try_into().with_context(|| format!("--load {}", pairs.join(" --load ")))
    }

    /// The options of a loader with these limits.
    pub fn options(&self) -> LoadOptions {
        LoadOptions {
            max_pixels: self.max_pixels,
            max_side: self.max_side,
            max_file_bytes: self.max_file_bytes,
            pdf_timeout_ms: self.pdf_timeout_ms,
            video_timeout_ms: self.video_timeout_ms,
            video_byte_cap: self.video_byte_cap,
            video_decoder: self.video_decoder,
            incomplete_video: self.incomplete_video,
            ..LoadOptions::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_can_be_set_by_key_in_a_recipe_and_on_the_command_line() {
        let expected = LoadOptions {
            max_side: 9,
            video_decoder: VideoDecoder::Native,
            incomplete_video: IncompleteVideo::Repeat,
            ..LoadOptions::default()
        };
        let text = "max_side = 9\nvideo_decoder = \"native\"\nincomplete_video = \"repeat\"";
        assert_eq!(toml::from_str::<LoadLimits>(text).unwrap().options(), expected);
        let pairs = ["max_side=9", "video_decoder=native", "incomplete_video=repeat"].map(str::to_owned);
        assert_eq!(LoadLimits::parse(&pairs).unwrap().options(), expected);
        assert_eq!(LoadLimits::parse(&[]).unwrap().options(), LoadOptions::default());
    }

    #[test]
    fn wrong_pairs_are_named() {
        let refusal = |pair: &str| format!("{:#}", LoadLimits::parse(&[pair.to_owned()]).unwrap_err());
        assert!(refusal("max_side").contains("KEY=VALUE"));
        assert!(refusal("max_sid=9").contains("max_sid"));
        assert!(refusal("max_side=wide").contains("max_side"));
        assert!(refusal("root=elsewhere").contains("root"));
    }
}
