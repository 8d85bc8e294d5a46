//! Files in, samples and pictures out.
//!
//! ```text
//! manifest ─train_rows─► Sample ─epoch_plan─► batches of rows ─load_samples─► LoadedSample
//! Item ─Loader::load─► LoadedItem          corpus folder ─EvalCorpus─► EvalTask, EvalQuery, Candidate
//! ```
//!
//! - [`Loader`] decodes pictures, clips and document pages to RGB in host memory, as Pillow's
//!   `convert("RGB")` would.
//! - [`train_rows`], [`embed_rows`] and [`EvalCorpus`] read JSON lines, the first Parquet too, and name file,
//!   line and key of whatever is wrong with them.
//! - [`Published`] reads published benchmarks from the files that they are published as.
//! - [`import`] writes such a manifest of what other tools train on.
//! - [`NegativeChoice`] takes hard negatives from what a model ranks high; [`train_line`] writes a row again.
//! - [`check`] reads all of a corpus, says everything that is wrong with it, and [`write_clean`] leaves it out.
//! - [`epoch_plan`] says which rows make which batch of an epoch; it is a pure function.
//! - [`load_samples_with`] reads a batch in parallel, and [`BadRows`] counts what could not be read.
#![warn(missing_docs)]

mod animation;
mod bad_rows;
mod cell;
mod check;
mod clips;
mod convert;
mod document;
mod embed_rows;
mod error;
mod eval_copy;
mod eval_corpus;
mod ffmpeg;
mod gif_frames;
mod h264;
mod import;
mod isolate;
mod jpeg;
mod keys;
mod loader;
mod manifest_error;
mod mp4_check;
mod negatives;
mod options;
mod parquet_media;
mod parquet_names;
mod parquet_pages;
mod parquet_rows;
mod picture;
mod plan;
mod process;
mod published;
mod rng;
mod row;
mod sample_frames;
mod sps;
mod teacher;
mod train_line;
mod train_rows;
mod video;
mod webp_frames;

pub use bad_rows::{BadRow, BadRows, BadRowsError, LoadedSample, load_samples, load_samples_with};
pub use check::{
    CheckError, CheckOptions, Checked, CheckedManifest, Cleaned, CleanedManifest, DatasetCount, Finding,
    FindingKind, FoundContent, Place, RowPlace, check, write_clean,
};
pub use clips::{ClipDirection, ClipOptions, cut_clips};
pub use embed_rows::{EmbedRow, embed_rows};
pub use error::LoadError;
pub use eval_copy::EvalCopy;
pub use eval_corpus::{Candidate, EvalCorpus, EvalQuery, EvalSet, EvalTask, candidates};
pub use ffmpeg::find_ffmpeg;
pub use import::{ImportBadRow, ImportError, ImportKind, ImportOptions, ImportReport, import};
pub use keys::{RowKeys, row_keys};
pub use loader::Loader;
pub use manifest_error::ManifestError;
pub use negatives::{NegativeChoice, NegativesLost, Sampling, forms_of_query};
pub use options::{IncompleteVideo, LoadOptions, VideoDecoder};
pub use parquet_media::{media_is_there, media_sha256, picture_page_bytes};
pub use plan::{DatasetSpec, PlanError, PlannedBatch, PlannedRow, epoch_plan};
pub use published::{
    Distribution, MissingMedia, Modality, Problem, Problems, Protocol, ProtocolSettings, Published,
    PublishedError, PublishedTask, Suite, UnknownName,
};
pub use sample_frames::sample_frames;
pub use teacher::TeacherFilter;
pub use train_line::train_line;
pub use train_rows::{draw_positive, each_positive, train_manifests, train_rows, train_rows_of};
