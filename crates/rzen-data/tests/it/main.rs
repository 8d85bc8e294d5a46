//! What the crate promises, on files made here.

mod bad_rows;
mod clips;
mod corpus;
mod documents;
mod eval_corpus;
mod ffmpeg;
mod golden;
mod made;
mod manifests;
mod mp4;
mod pictures;
mod plan;
