//! Why a file could not be loaded.

use std::path::{Path, PathBuf};

/// Why a file could not be loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The file can't be read.
    #[error("can't read `{}`: {source}; check the path in the row and the data folder before it", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// The path leads to something else.
    #[error("`{}` is {found}, expected a file", path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
        /// What stands there.
        found: &'static str,
    },
    /// The file holds nothing.
    #[error("`{}` is empty (0 bytes); fetch or write it again", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// The file or what it decodes to is larger than allowed.
    #[error("`{}` {found}, more than {limit}; shrink it or raise `{option}`", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The size, as a clause.
        found: String,
        /// The limit, with its unit.
        limit: String,
        /// The option that sets the limit.
        option: &'static str,
    },
    /// The first bytes are of no known picture format.
    #[error(
        "`{}` is no picture that can be read: it begins with {found}; \
         expected PNG, JPEG, WebP, GIF, BMP or TIFF", path.display()
    )]
    UnknownPicture {
        /// The file.
        path: PathBuf,
        /// Its first bytes.
        found: String,
    },
    /// The picture is damaged.
    #[error("`{}` is a damaged {format} picture: {source}; fetch or write it again", path.display())]
    Picture {
        /// The file.
        path: PathBuf,
        /// Its format.
        format: &'static str,
        /// What the decoder says.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The picture is of a kind that its decoder doesn't know.
    #[error("`{}` is a {format} picture of a kind that can't be read: {source}; save it as PNG", path.display())]
    UnsupportedPicture {
        /// The file.
        path: PathBuf,
        /// Its format.
        format: &'static str,
        /// What the decoder says.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The data stops early.
    #[error("`{}` is a truncated {format} file: {found}; fetch or write it again", path.display())]
    Truncated {
        /// The file.
        path: PathBuf,
        /// Its format.
        format: &'static str,
        /// Where it stops.
        found: String,
    },
    /// A decoder failed in a way that it should not; other files are not affected.
    #[error("the {decoder} decoder broke on `{}`: {found}; convert the file with another program", path.display())]
    Decoder {
        /// The file.
        path: PathBuf,
        /// Which decoder.
        decoder: &'static str,
        /// Its last words.
        found: String,
    },
    /// Decoding took too long and was stopped.
    #[error("`{}` was not decoded within {timeout_ms} ms; shorten it or raise `{option}`", path.display())]
    Timeout {
        /// The file.
        path: PathBuf,
        /// The limit in milliseconds.
        timeout_ms: u64,
        /// The option that sets the limit.
        option: &'static str,
    },
    /// The clip is damaged or holds no video.
    #[error("`{}` gives no frame: {found}; expected a file with a video stream", path.display())]
    Video {
        /// The file.
        path: PathBuf,
        /// What the decoder says.
        found: String,
    },
    /// The clip gives some of its frames only.
    #[error(
        "`{}` is cut off or damaged: it {found}; fetch or write it again, \
         or set `incomplete_video` to `repeat` or `accept`", path.display()
    )]
    Incomplete {
        /// The file.
        path: PathBuf,
        /// What came of it, as a clause.
        found: String,
    },
    /// Nothing on this machine decodes the clip.
    #[error(
        "`{}` can't be decoded here: {found}; install ffmpeg (Debian and Ubuntu: `apt install ffmpeg`, \
         macOS: `brew install ffmpeg`), or name the program in RZEN_FFMPEG, \
         or convert the clip to H.264 in MP4, GIF or WebP", path.display()
    )]
    NoVideoDecoder {
        /// The file.
        path: PathBuf,
        /// What was tried.
        found: String,
    },
    /// ffmpeg can't be started.
    #[error("can't run ffmpeg as `{}` for `{}`: {source}; check `ffmpeg` and RZEN_FFMPEG", program.display(), path.display())]
    Ffmpeg {
        /// The clip.
        path: PathBuf,
        /// The program.
        program: PathBuf,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// The Parquet file that holds the picture is damaged, or not the one that the path was made for.
    #[error("can't read `{}`: {source}; fetch or write the Parquet file again, and read its rows again", path.display())]
    Parquet {
        /// The file, and the place in it.
        path: PathBuf,
        /// What the reader says.
        #[source]
        source: std::io::Error,
    },
    /// The file is no PDF or too damaged.
    #[error("`{}` is no PDF that can be read: {found}; fetch or write it again", path.display())]
    Document {
        /// The file.
        path: PathBuf,
        /// What the parser says.
        found: String,
    },
    /// The PDF is locked.
    #[error("`{}` is encrypted ({found}); save it without a password", path.display())]
    Encrypted {
        /// The file.
        path: PathBuf,
        /// How.
        found: String,
    },
    /// The page does not exist.
    #[error("`{}` has {pages} pages, but page {page} is asked for (pages are counted from 1)", path.display())]
    NoSuchPage {
        /// The file.
        path: PathBuf,
        /// The page asked for, counted from 1.
        page: u32,
        /// How many there are.
        pages: usize,
    },
    /// The page can't be drawn at this size.
    #[error("page {page} of `{}` would be {width} x {height} pixels at {dpi} dpi; {expected}", path.display())]
    PageSize {
        /// The file.
        path: PathBuf,
        /// The page, counted from 1.
        page: u32,
        /// Pixels in a row.
        width: f32,
        /// Rows of pixels.
        height: f32,
        /// Dots per inch.
        dpi: f32,
        /// What would do.
        expected: String,
    },
    /// A clip is an empty list of frames.
    #[error("a clip is an empty list of frames; name at least one picture")]
    NoFrames,
}

impl LoadError {
    /// The file that is at fault.
    pub fn path(&self) -> Option<&Path> {
        match self {
            LoadError::Read { path, .. }
            | LoadError::NotAFile { path, .. }
            | LoadError::Empty { path }
            | LoadError::TooLarge { path, .. }
            | LoadError::UnknownPicture { path, .. }
            | LoadError::Picture { path, .. }
            | LoadError::UnsupportedPicture { path, .. }
            | LoadError::Truncated { path, .. }
            | LoadError::Decoder { path, .. }
            | LoadError::Timeout { path, .. }
            | LoadError::Video { path, .. }
            | LoadError::Incomplete { path, .. }
            | LoadError::NoVideoDecoder { path, .. }
            | LoadError::Ffmpeg { path, .. }
            | LoadError::Parquet { path, .. }
            | LoadError::Document { path, .. }
            | LoadError::Encrypted { path, .. }
            | LoadError::NoSuchPage { path, .. }
            | LoadError::PageSize { path, .. } => Some(path),
            LoadError::NoFrames => None,
        }
    }
}
