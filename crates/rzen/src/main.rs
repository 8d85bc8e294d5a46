//! The `rzen` program.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use rzen::verbs::{embed, eval, inspect, soup, train};

/// Train, soup, evaluate and use a multimodal embedder (RzenEmbed on Qwen2-VL).
#[derive(Parser)]
#[command(version, propagate_version = true)]
struct Program {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    Train(train::Args),
    Soup(soup::Args),
    Eval(eval::Args),
    Embed(embed::Args),
    Inspect(inspect::Args),
}

fn main() -> ExitCode {
    let outcome = match Program::parse().verb {
        Verb::Train(args) => train::run(&args),
        Verb::Soup(args) => soup::run(&args),
        Verb::Eval(args) => eval::run(&args),
        Verb::Embed(args) => embed::run(&args),
        Verb::Inspect(args) => inspect::run(&args),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
