//! What can go wrong between an item and its tokens.

use std::path::{Path, PathBuf};

use crate::error::advice;

/// Whatever the `tokenizers` crate reports.
pub(super) type TokenizerError = Box<dyn std::error::Error + Send + Sync>;

/// Why a processor could not be made, or an item could not be encoded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProcessError {
    /// A file could not be read or written.
    #[error("{}: {source}{}", path.display(), advice(source))]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A settings file does not hold what it should.
    #[error("{}: not the JSON that it should be ({source}); fetch or write it again", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Where the parser stopped.
        #[source]
        source: serde_json::Error,
    },
    /// A tokenizer file could not be read.
    #[error("{}: not a tokenizer that can be loaded ({source}); give the `tokenizer.json` of a Qwen2-VL checkpoint", path.display())]
    TokenizerFile {
        /// The file.
        path: PathBuf,
        /// What the `tokenizers` crate said.
        #[source]
        source: TokenizerError,
    },
    /// A tokenizer lacks a control token.
    #[error("the tokenizer has no token `{token}`; use the tokenizer of a Qwen2-VL checkpoint")]
    MissingToken {
        /// The token.
        token: &'static str,
    },
    /// A setting has a value that can't be used.
    #[error("processor setting `{setting}` is {found}, expected {expected}")]
    Setting {
        /// The setting, as in `processor.json`.
        setting: &'static str,
        /// Its value.
        found: String,
        /// Which values would do.
        expected: &'static str,
    },
    /// The tokenizer failed on a text.
    #[error("the text could not be tokenized: {0}")]
    Tokenize(#[source] TokenizerError),
    /// A text beside pictures holds a picture token, and special tokens in texts are recognised.
    #[error(
        "the text holds `{token}` beside pictures, and picture tokens in a text belong to no picture; take it out or set `special_tokens` to \"plain\""
    )]
    PictureToken {
        /// The token.
        token: &'static str,
    },
    /// What may not be cut is longer than the limit.
    #[error(
        "an item has {pictures} pictures of {tokens} tokens in all, and with the template {found}, but `max_length` is {max_length}; raise it, lower `image_tokens` and `frame_tokens`, or give fewer pictures"
    )]
    TooLong {
        /// Pictures of the item.
        pictures: usize,
        /// Their tokens.
        tokens: usize,
        /// Tokens that must stay.
        found: usize,
        /// The limit.
        max_length: usize,
    },
    /// An item has no tokens.
    #[error("an item has neither pictures nor words, and the plain template adds none; give it some")]
    Nothing,
    /// An item of a batch could not be encoded.
    #[error("item {index} of {count}: {source}")]
    Item {
        /// Its place, counted from 0.
        index: usize,
        /// Items in the batch.
        count: usize,
        /// What is wrong with it.
        #[source]
        source: Box<ProcessError>,
    },
    /// A vocabulary is too small to hold every byte and the special tokens.
    #[error(
        "a vocabulary of {found} tokens is too small, expected {least} or more (each byte and the special tokens)"
    )]
    Vocabulary {
        /// The size that was asked for.
        found: usize,
        /// The least that can be made.
        least: usize,
    },
}

impl ProcessError {
    pub(super) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> ProcessError + '_ {
        move |source| ProcessError::Io { path: path.to_owned(), source }
    }

    pub(super) fn json(path: &Path) -> impl FnOnce(serde_json::Error) -> ProcessError + '_ {
        move |source| ProcessError::Json { path: path.to_owned(), source }
    }
}
