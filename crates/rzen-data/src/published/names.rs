//! What a benchmark's parts are called.

use std::fmt;
use std::str::FromStr;

/// Gives an enum the names it is written and read with.
macro_rules! named {
    ($(#[$docs:meta])* $name:ident, $what:literal { $($(#[$doc:meta])* $variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$docs])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $name { $($(#[$doc])* $variant),+ }

        impl $name {
            /// All of them, in order.
            pub const ALL: &[$name] = &[$($name::$variant),+];

            /// How it is written.
            pub fn name(self) -> &'static str {
                match self { $($name::$variant => $text),+ }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.name())
            }
        }

        impl FromStr for $name {
            type Err = UnknownName;

            fn from_str(text: &str) -> Result<Self, UnknownName> {
                let found = $name::ALL.iter().find(|name| name.name() == text);
                found.copied().ok_or_else(|| UnknownName {
                    what: $what,
                    found: text.to_owned(),
                    expected: $name::ALL.iter().map(|name| name.name()).collect::<Vec<_>>().join(", "),
                })
            }
        }
    };
}

/// A name that nothing has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{found}` is no {what}; there are {expected}")]
pub struct UnknownName {
    what: &'static str,
    found: String,
    expected: String,
}

named!(
    /// A published benchmark.
    Suite, "benchmark" {
        /// The 36 image sets of MMEB-V2.
        MmebV1 = "mmeb-v1",
        /// All 78 sets: 36 of images, 18 of videos, 24 of visual documents.
        MmebV2 = "mmeb-v2",
        /// ViDoRe V1 (10 sets) and V2 (4 sets in all their languages).
        Vidore = "vidore",
        /// ViDoRe V2 with its English queries alone (4 sets).
        VidoreV2English = "vidore-v2-english",
        /// Every folder in BEIR's layout.
        Beir = "beir",
    }
);

named!(
    /// Whose texts and picture sizes are used.
    Protocol, "protocol" {
        /// Those of VLM2Vec-V2's runner, MMEB's reference: plain texts without a chat template.
        Vlm2vec = "vlm2vec",
        /// Those of RzenEmbed: instruction and text in its chat template.
        Rzen = "rzen",
    }
);

named!(
    /// What is searched.
    Modality, "modality" {
        /// Pictures.
        Image = "image",
        /// Clips.
        Video = "video",
        /// Pages.
        VisualDocument = "visdoc",
        /// Words alone.
        Text = "text",
    }
);

named!(
    /// Whether MMEB's training set has data of the same source.
    Distribution, "distribution" {
        /// It has: IND.
        In = "in",
        /// It has not: OOD.
        Out = "out",
    }
);

/// What a protocol asks of the processor, as plain numbers.
///
/// Both count positions from 0, pictures included: RzenEmbed's code does so, and VLM2Vec's prompts lack the mark
/// `<|vision_start|>` by which transformers would find pictures to count in three rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProtocolSettings {
    /// Whether texts stand alone, without a chat template.
    pub plain: bool,
    /// Whether positions are M-RoPE's; else they count from 0.
    pub mrope: bool,
    /// Least and most tokens (28 x 28 pixels) of a picture.
    pub image_tokens: [usize; 2],
    /// Least and most tokens of a frame.
    pub frame_tokens: [usize; 2],
    /// Frames of a clip.
    pub num_frames: usize,
    /// Most tokens of an item.
    pub max_length: usize,
}

impl Protocol {
    /// The settings of its published runner.
    pub fn settings(self) -> ProtocolSettings {
        match self {
            // No limit of length: eight frames of 1280 tokens, two to a time step, and their text.
            Protocol::Vlm2vec => ProtocolSettings {
                plain: true,
                mrope: false,
                image_tokens: [4, 1280],
                frame_tokens: [4, 1280],
                num_frames: 8,
                max_length: 32768,
            },
            Protocol::Rzen => ProtocolSettings {
                plain: false,
                mrope: false,
                image_tokens: [256, 1280],
                frame_tokens: [160, 180],
                num_frames: 8,
                max_length: 2000,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        for suite in Suite::ALL {
            assert_eq!(suite.to_string().parse(), Ok(*suite));
        }
        assert_eq!("visdoc".parse(), Ok(Modality::VisualDocument));
        let error = "mmeb".parse::<Suite>().unwrap_err().to_string();
        assert_eq!(
            error,
            "`mmeb` is no benchmark; there are mmeb-v1, mmeb-v2, vidore, vidore-v2-english, beir"
        );
    }
}
