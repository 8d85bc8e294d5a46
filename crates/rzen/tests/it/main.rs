//! The program from outside, and what needs several crates at once.

#[path = "../../../rzen-model/tests/encoder/case.rs"]
#[allow(dead_code)]
mod case;
mod command;
mod data;
mod doctor;
mod embed;
mod eval;
mod from_checkpoint;
#[path = "../../../rzen-serve/tests/it/client.rs"]
mod http;
mod mine;
#[path = "../../../rzen-data/tests/miniature/mod.rs"]
mod miniature;
mod parquet;
mod program;
#[path = "../../../rzen-model/tests/encoder/reference.rs"]
#[allow(dead_code)]
mod reference;
mod resume;
mod search;
mod serve;
mod soups;
mod train_golden;
mod verbs;
