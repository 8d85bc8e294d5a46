//! What the program does, one module for each verb.

pub mod data;
pub mod doctor;
pub mod embed;
pub mod eval;
pub mod index;
pub mod init;
pub mod inspect;
pub mod model_options;
pub mod plan;
pub mod report;
pub mod search;
pub mod serve;
pub mod soup;
pub mod train;
