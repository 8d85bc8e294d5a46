//! The `rzen` program.

use std::panic;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use rzen::verbs::{
    data, doctor, embed, eval, index, init, inspect, plan, report, search, serve, soup, train,
};

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
    Index(index::Args),
    Search(search::Args),
    Serve(serve::Args),
    Data(data::Args),
    Inspect(inspect::Args),
    Init(init::Args),
    Plan(plan::Args),
    Report(report::Args),
    Doctor(doctor::Args),
}

fn main() -> ExitCode {
    stop_where_nobody_reads();
    let outcome = match Program::parse().verb {
        Verb::Train(args) => train::run(&args),
        Verb::Soup(args) => soup::run(&args),
        Verb::Eval(args) => eval::run(&args),
        Verb::Embed(args) => embed::run(&args),
        Verb::Index(args) => index::run(&args),
        Verb::Search(args) => search::run(&args),
        Verb::Serve(args) => serve::run(&args),
        Verb::Data(args) => data::run(&args),
        Verb::Inspect(args) => inspect::run(&args),
        Verb::Init(args) => init::run(&args),
        Verb::Plan(args) => plan::run(&args),
        Verb::Report(args) => report::run(&args),
        Verb::Doctor(args) => doctor::run(&args),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", in_one_line(&error));
            ExitCode::FAILURE
        }
    }
}

/// Ends the program as a shell's tools end, in `rzen … | head`, instead of with a panic.
fn stop_where_nobody_reads() {
    let otherwise = panic::take_hook();
    panic::set_hook(Box::new(move |panic| {
        let message = panic.payload_as_str().unwrap_or_default();
        if message.starts_with("failed printing to std") && message.contains("Broken pipe") {
            // 128 and the number of SIGPIPE.
            std::process::exit(141);
        }
        otherwise(panic);
    }));
}

/// An error and its causes, without those that the ones before have told already.
fn in_one_line(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(|cause| cause.to_string()) {
        let cause = cause.trim();
        if text.contains(cause) {
            continue;
        }
        if !text.is_empty() {
            text += ": ";
        }
        text += cause;
    }
    text
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::*;

    #[test]
    fn a_cause_is_told_once() {
        let missing = || std::io::Error::other("no such file");
        let told: anyhow::Result<()> = Err(missing()).context("can't read `a`: no such file; check the path");
        assert_eq!(in_one_line(&told.unwrap_err()), "can't read `a`: no such file; check the path");
        let untold: anyhow::Result<()> = Err(missing()).context("model b");
        assert_eq!(in_one_line(&untold.unwrap_err()), "model b: no such file");
    }
}
