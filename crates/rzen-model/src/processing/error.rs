//! Why content could not be turned into tokens.

use std::path::PathBuf;

/// Why content could not be turned into tokens.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProcessError {
    /// A file could not be read.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A JSON file does not hold what it should.
    #[error("{}: {source}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Where the parser stopped.
        #[source]
        source: serde_json::Error,
    },
    /// A setting makes no sense.
    #[error("{}: {problem}", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// The setting, what was found, what was expected.
        problem: String,
    },
    /// A tokenizer can't be used.
    #[error("{}: {problem}", path.display())]
    Tokenizer {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A text can't be encoded.
    #[error("{problem}")]
    Text {
        /// What is wrong with it.
        problem: String,
    },
    /// The pictures of an item leave no room.
    #[error(
        "the item has {pictures} pictures of {tokens} tokens in all, and with the prompt {found} where at most {limit} are \
         allowed; give fewer or smaller pictures, lower `frame_tokens`, or raise `max_length`"
    )]
    TooLong {
        /// Pictures and frames.
        pictures: usize,
        /// Their tokens.
        tokens: usize,
        /// All tokens that can't be cut.
        found: usize,
        /// `max_length`.
        limit: usize,
    },
    /// A text with picture tokens of its own was read as the released code does.
    #[error(
        "the text holds picture tokens of its own, so that {found} picture tokens stand where the pictures have {expected}; \
         take control tokens in texts as plain text (`special_tokens = \"plain\"`)"
    )]
    PictureTokens {
        /// In the sequence.
        found: usize,
        /// In the pictures.
        expected: usize,
    },
}
