//! `cargo xtask VERB`: everything a developer or a build machine runs, in one place.
//!
//! Links none of the workspace's crates, so that it builds in seconds; it spawns cargo instead.

mod check;
mod program;
mod run_tests;
mod tidy;

use std::process::ExitCode;

/// Verbs that xtask runs itself; the program's own are in [`program::VERBS`].
const OWN_VERBS: &[(&str, &str)] = &[
    (
        "test",
        "run all tests: cargo test --release --workspace [ARGS], with target/release/rzen unoptimised; with --backend those \
         of its devices, with --mpi those of several ranks",
    ),
    ("check", "what CI checks before the tests: fmt, tidy, clippy, docs"),
    ("tidy", "crate arrows, features, licences, unused dependencies, sizes, text"),
    ("help", "this list"),
];

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let verb = args.next().unwrap_or_else(|| "help".to_owned());
    let rest: Vec<String> = args.collect();
    let outcome = match verb.as_str() {
        "test" => run_tests::run(&rest),
        "check" => check::run(),
        "tidy" => tidy::run(),
        "help" | "--help" | "-h" => {
            print!("{}", help());
            Ok(ExitCode::SUCCESS)
        }
        verb if program::VERBS.iter().any(|known| known.name == verb) => program::run(verb, &rest),
        unknown => {
            eprint!("unknown verb `{unknown}`\n\n{}", help());
            return ExitCode::from(2);
        }
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

fn help() -> String {
    let mut text =
        String::from("cargo xtask VERB [ARGS]\n\nVerbs of the program, built in release and run:\n");
    for verb in program::VERBS {
        text += &format!("  {:<9}{}\n", verb.name, verb.about);
    }
    let backends: Vec<&str> = program::BACKENDS.iter().map(|backend| backend.name).collect();
    text += &format!(
        "  --backend {} compiles that backend in and runs on it; several: wgpu,cuda\n",
        backends.join("|")
    );
    text += "  --mpi N (train) compiles MPI in and starts N ranks with mpirun\n";
    text += "  `cargo xtask VERB --help` lists the options of a verb\n\nVerbs of the workspace:\n";
    for (name, about) in OWN_VERBS {
        text += &format!("  {name:<9}{about}\n");
    }
    text
}

/// The cargo that started us, so that a toolchain override reaches the children as well.
fn cargo() -> std::process::Command {
    std::process::Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}
