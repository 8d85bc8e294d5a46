//! What the crate promises, on files made here.

mod bad_rows;
mod check;
mod clips;
mod corpus;
mod cut_clips;
mod documents;
mod eval_corpus;
mod ffmpeg;
mod golden;
mod import_conversations;
mod import_corpora;
mod import_tables;
mod imports;
mod made;
mod manifests;
#[path = "../miniature/mod.rs"]
mod miniature;
mod mp4;
mod parquet_media;
mod pictures;
mod plan;
mod published;
mod published_damage;

use miniature::made_parquet;
