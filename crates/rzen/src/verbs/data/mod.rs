//! `rzen data`: corpora, before anything is trained on them.

mod check;
mod clips;
mod import;
mod mine;

use anyhow::Result;
use clap::Subcommand;

/// Bring training data into the form that rzen trains on, look what is wrong with it, mine hard negatives
#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand, Debug)]
enum Verb {
    /// Write a dataset from files that were made for another tool
    ///
    /// The dataset is a folder of the corpus with `train.jsonl`, `import.json` (what became of the rows) and, where the
    /// input holds pictures, `media`. Other media stay where they are. docs/data.md says what each kind reads.
    #[command(
        after_help = "Example:\n  rzen data import mmeb --input MMEB-train/DocVQA/*.parquet --media MMEB-train \
                      --output corpus --dataset docvqa --task image_qa --cap 40000"
    )]
    Import {
        #[command(subcommand)]
        kind: import::Kind,
    },
    Clips(clips::ClipArgs),
    Check(check::CheckArgs),
    Mine(Box<mine::Args>),
}

/// Runs the verb.
///
/// # Errors
/// Names the option, file or row that is wrong. No output is left then.
pub fn run(args: &Args) -> Result<()> {
    match &args.verb {
        Verb::Import { kind } => import::run(kind),
        Verb::Clips(args) => clips::run(args),
        Verb::Check(args) => check::run(args),
        Verb::Mine(args) => mine::run(args),
    }
}
