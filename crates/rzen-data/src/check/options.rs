//! What a check looks for, and from where on it speaks up.

use crate::LoadOptions;

/// How files are read, and from where on something is a finding.
///
/// The defaults were chosen on drawn and photographed pictures, so that clean ones give no finding; docs/data.md says
/// what came of it.
#[derive(Clone, Debug, PartialEq)]
pub struct CheckOptions {
    /// How files are read; `root` is the corpus, whatever stands here.
    pub load: LoadOptions,
    /// Bits of 64 in which the hashes of near pictures differ at most; 0 to 7. Default 6.
    pub near_bits: u32,
    /// Levels of 255 by which brightness or colour of near pictures differ at most, in any part of them. Default 16.
    pub near_levels: u8,
    /// Correlation of detail that near pictures have at least. Default 0.9.
    pub near_detail: f32,
    /// Share of runs of three words that near texts of 30 words and more have in common. Default 0.9.
    pub near_words: f64,
    /// Variance of the Laplacian of a picture of at most 256 pixels a side, below which it is blurry. Default 4.
    pub sharpness: f32,
    /// Standard deviation of brightness and colour, in levels of 255, below which a picture is blank. Default 2.
    pub contrast: f32,
    /// Pixels of the shorter side, below which a picture is tiny. Default 28, what one token of Qwen2-VL covers.
    pub min_side: u32,
    /// How often the longer side may hold the shorter one. Default 200, where Qwen2-VL's processor cuts.
    pub max_ratio: f32,
    /// How many times more rows than the median one the largest label of a dataset may have. Default 10.
    pub label_ratio: f64,
    /// How many times more rows than the smallest dataset the largest may have. Default 100.
    pub dataset_ratio: f64,
    /// Rows that a dataset should have at least. Default 32.
    pub batch_size: usize,
    /// Letters and digits from which on a text alone is no label, and may have leaked. Default 24.
    pub leak_letters: usize,
}

impl Default for CheckOptions {
    fn default() -> Self {
        CheckOptions {
            load: LoadOptions::default(),
            near_bits: 6,
            near_levels: 16,
            near_detail: 0.9,
            near_words: 0.9,
            sharpness: 4.0,
            contrast: 2.0,
            min_side: 28,
            max_ratio: 200.0,
            label_ratio: 10.0,
            dataset_ratio: 100.0,
            batch_size: 32,
            leak_letters: 24,
        }
    }
}
