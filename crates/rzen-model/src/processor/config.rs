//! Settings of the processor; they travel with a checkpoint as `processor.json`.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::error::ProcessError;
use super::patchify::PatchShape;
use super::positions::PositionMode;

/// How items become tokens and patches.
///
/// The defaults are those of the released inference code, apart from three that guard a vector:
/// [`frame_rule`](Self::frame_rule), [`truncation`](Self::truncation) and
/// [`special_tokens`](Self::special_tokens).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ProcessorConfig {
    /// What stands around an item.
    pub template: Template,
    /// What the system turn says; the chat template alone has one.
    pub system_prompt: String,
    /// Said after the words of an item without pictures, joined without a separator.
    pub text_prompt: String,
    /// Said after the words of an item with pictures, joined without a separator.
    pub picture_prompt: String,
    /// Least and most tokens of a picture.
    pub image_tokens: [usize; 2],
    /// Least and most tokens of a picture that belongs to a list.
    pub frame_tokens: [usize; 2],
    /// Which pictures belong to a list.
    pub frame_rule: FrameRule,
    /// Most tokens of an item.
    pub max_length: usize,
    /// What is cut from longer items.
    pub truncation: Truncation,
    /// What the names of special tokens mean inside texts.
    pub special_tokens: SpecialTokens,
    /// How tokens are numbered.
    pub positions: PositionMode,
    /// Frames taken from a clip; the loader reads this.
    pub num_frames: usize,
    /// Whether pictures are turned by their EXIF tag; the loader reads this.
    pub exif_orientation: bool,
    /// What shows through transparent pixels: red, green and blue; none drops alpha, as the published pipeline does.
    /// The loader reads this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub background: Option<[u8; 3]>,
    /// Resolution at which document pages are drawn, in dots per inch; the loader reads this.
    pub pdf_dpi: f32,
    /// Pixels on a side of a patch.
    pub patch_size: usize,
    /// Patches on a side of a token.
    pub merge_size: usize,
    /// Frames in a patch.
    pub temporal_patch_size: usize,
    /// Subtracted from red, green and blue (0 to 1).
    pub image_mean: [f64; 3],
    /// What red, green and blue are divided by afterwards.
    pub image_std: [f64; 3],
    /// Least and most tokens of a picture after the first of the two resizes, the one on reading.
    pub load_tokens: [usize; 2],
}

/// What stands around the pictures and words of an item.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Template {
    /// The chat template of the released code; each frame of a clip is a picture.
    #[default]
    Chat,
    /// Nothing: the tokens of pictures and clips, without marks around them, then the words. A clip is one video, two
    /// frames to a time step, all of the size of its first. Pictures are resized once, those with a side under a token
    /// to two tokens a side first. As VLM2Vec-V2 does it.
    Plain,
}

/// Which pictures take the limits of frames. A list is an item with frames or with several pictures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FrameRule {
    /// Those of an item that is a list: a vector never depends on its company.
    #[default]
    PerItem,
    /// Those of every item in a batch that holds a list, as in the released code.
    Batch,
}

/// What is cut from an item that is too long.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Truncation {
    /// The end of its words; pictures and the closing tokens stay.
    #[default]
    TextOnly,
    /// Whatever stands last, as in the released code: the closing tokens go first.
    Published,
}

/// What the names of special tokens mean inside texts and instructions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SpecialTokens {
    /// They are words like any other.
    #[default]
    Plain,
    /// They become the token, as in the released code. Those of pictures are refused beside pictures,
    /// where the released code fails, and are words elsewhere.
    Parse,
}

impl Default for ProcessorConfig {
    fn default() -> Self {
        ProcessorConfig {
            template: Template::default(),
            system_prompt: "You are a helpful assistant.".to_owned(),
            text_prompt: String::new(),
            picture_prompt: String::new(),
            image_tokens: [256, 1280],
            frame_tokens: [160, 180],
            frame_rule: FrameRule::default(),
            max_length: 2000,
            truncation: Truncation::default(),
            special_tokens: SpecialTokens::default(),
            positions: PositionMode::default(),
            num_frames: 8,
            exif_orientation: false,
            background: None,
            pdf_dpi: 144.0,
            patch_size: 14,
            merge_size: 2,
            temporal_patch_size: 2,
            image_mean: [0.48145466, 0.4578275, 0.40821073],
            image_std: [0.26862954, 0.26130258, 0.27577711],
            load_tokens: [4, 16384],
        }
    }
}

impl ProcessorConfig {
    /// Its name in a checkpoint.
    pub const FILE: &'static str = "processor.json";

    /// The settings of a checkpoint: its `processor.json`, or the defaults with the patch sizes and
    /// colour statistics of its `preprocessor_config.json` where it has one.
    ///
    /// # Errors
    /// If a file can't be read, or a setting of it can't be used.
    pub fn load(folder: &Path) -> Result<Self, ProcessError> {
        let file = Self::file_of(folder);
        let config: ProcessorConfig = if !file.is_file() {
            ProcessorConfig::default()
        } else if file.ends_with(Self::FILE) {
            read_json(&file)?
        } else {
            read_json::<PublishedSettings>(&file)?.into()
        };
        config.check()?;
        Ok(config)
    }

    /// The file of `folder` that [`ProcessorConfig::load`] reads, or would if it were there.
    pub(crate) fn file_of(folder: &Path) -> PathBuf {
        let own = folder.join(Self::FILE);
        if own.is_file() { own } else { folder.join("preprocessor_config.json") }
    }

    /// Writes `processor.json` into a folder that exists.
    ///
    /// # Errors
    /// If the file can't be written.
    pub fn save(&self, folder: &Path) -> Result<(), ProcessError> {
        let path = folder.join(Self::FILE);
        std::fs::write(&path, self.to_json()).map_err(ProcessError::io(&path))
    }

    /// The same settings with the prompts of RzenEmbed §3.4.4. Its system prompt and representation
    /// prompts stand in the paper alone; the released code says "You are a helpful assistant."
    pub fn with_paper_prompts(self) -> Self {
        let system = "Given an image, summarize the provided image in one word. Given only text, describe the text in one word.";
        ProcessorConfig {
            system_prompt: system.to_owned(),
            text_prompt: "\nRepresent the given text in one word.".to_owned(),
            picture_prompt: "\nRepresent the given image in one word.".to_owned(),
            ..self
        }
    }

    /// What `processor.json` holds.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("plain settings have a JSON form") + "\n"
    }

    /// Pixels on a side of a token.
    pub fn factor(&self) -> u32 {
        (self.patch_size * self.merge_size) as u32
    }

    /// Looks at every setting.
    ///
    /// # Errors
    /// Names the first that can't be used, with what is found and expected.
    pub fn check(&self) -> Result<(), ProcessError> {
        let setting = |fine: bool, setting, found: String, expected| match fine {
            true => Ok(()),
            false => Err(ProcessError::Setting { setting, found, expected }),
        };
        for (name, range) in [
            ("image_tokens", self.image_tokens),
            ("frame_tokens", self.frame_tokens),
            ("load_tokens", self.load_tokens),
        ] {
            let fine = 0 < range[0] && range[0] <= range[1] && range[1] <= 1 << 24;
            setting(fine, name, format!("{range:?}"), "[least, most], from 1 to 16777216")?;
        }
        for (name, count) in [
            ("max_length", self.max_length),
            ("num_frames", self.num_frames),
            ("temporal_patch_size", self.temporal_patch_size),
        ] {
            setting((1..=1 << 24).contains(&count), name, count.to_string(), "1 to 16777216")?;
        }
        for (name, side) in [("patch_size", self.patch_size), ("merge_size", self.merge_size)] {
            setting((1..=1024).contains(&side), name, side.to_string(), "1 to 1024")?;
        }
        setting((1.0..=2400.0).contains(&self.pdf_dpi), "pdf_dpi", self.pdf_dpi.to_string(), "1 to 2400")?;
        let mean = self.image_mean.iter().all(|x| x.is_finite());
        setting(mean, "image_mean", format!("{:?}", self.image_mean), "three numbers")?;
        let std = self.image_std.iter().all(|x| x.is_finite() && *x > 0.0);
        setting(std, "image_std", format!("{:?}", self.image_std), "three numbers above 0")
    }

    pub(super) fn patch_shape(&self) -> PatchShape {
        PatchShape {
            patch_size: self.patch_size,
            merge_size: self.merge_size,
            temporal_patch_size: self.temporal_patch_size,
        }
    }
}

/// What of `preprocessor_config.json` is taken over. Its limits are not: the released code sets its own.
#[derive(Deserialize)]
struct PublishedSettings {
    patch_size: Option<usize>,
    merge_size: Option<usize>,
    temporal_patch_size: Option<usize>,
    image_mean: Option<[f64; 3]>,
    image_std: Option<[f64; 3]>,
}

impl From<PublishedSettings> for ProcessorConfig {
    fn from(published: PublishedSettings) -> Self {
        let default = ProcessorConfig::default();
        ProcessorConfig {
            patch_size: published.patch_size.unwrap_or(default.patch_size),
            merge_size: published.merge_size.unwrap_or(default.merge_size),
            temporal_patch_size: published.temporal_patch_size.unwrap_or(default.temporal_patch_size),
            image_mean: published.image_mean.unwrap_or(default.image_mean),
            image_std: published.image_std.unwrap_or(default.image_std),
            ..default
        }
    }
}

fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T, ProcessError> {
    let bytes = std::fs::read(path).map_err(ProcessError::io(path))?;
    serde_json::from_slice(&bytes).map_err(ProcessError::json(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_come_back_from_their_folder() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(ProcessorConfig::load(folder.path()).unwrap(), ProcessorConfig::default());

        std::fs::write(
            folder.path().join("preprocessor_config.json"),
            r#"{"patch_size": 16, "image_mean": [0.5, 0.5, 0.5], "min_pixels": 3136}"#,
        )
        .unwrap();
        let published = ProcessorConfig::load(folder.path()).unwrap();
        assert_eq!(
            (published.patch_size, published.image_mean[0], published.image_tokens),
            (16, 0.5, [256, 1280])
        );

        let own = ProcessorConfig {
            frame_rule: FrameRule::Batch,
            positions: PositionMode::Mrope,
            ..ProcessorConfig::default().with_paper_prompts()
        };
        own.save(folder.path()).unwrap();
        assert_eq!(ProcessorConfig::load(folder.path()).unwrap(), own);
    }

    #[test]
    fn wrong_settings_are_named() {
        let load = |json: &str| {
            let folder = tempfile::tempdir().unwrap();
            std::fs::write(folder.path().join("processor.json"), json).unwrap();
            ProcessorConfig::load(folder.path()).unwrap_err().to_string()
        };
        for (json, named) in [
            (r#"{"image_token": [1, 2]}"#, "image_token"),
            (r#"{"image_tokens": [9, 4]}"#, "`image_tokens` is [9, 4]"),
            (r#"{"image_std": [1, 0, 1]}"#, "`image_std` is [1.0, 0.0, 1.0]"),
            (r#"{"merge_size": 0}"#, "`merge_size` is 0"),
            (r#"{"positions": "spiral"}"#, "spiral"),
        ] {
            let message = load(json);
            assert!(message.contains(named), "{message}");
        }
    }
}
