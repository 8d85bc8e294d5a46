//! `cargo xtask check`: what CI checks before the tests, cheapest first.

use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result};

struct Step {
    name: &'static str,
    env: &'static [(&'static str, &'static str)],
    cargo: &'static str,
}

/// In release, like the tests and the programs: build scripts and procedural macros are built once for all.
const STEPS: &[Step] = &[
    Step { name: "fmt", env: &[], cargo: "fmt --all --check" },
    Step { name: "tidy", env: &[], cargo: "xtask tidy" },
    Step { name: "clippy", env: &[], cargo: "clippy --release --workspace --all-targets -- -D warnings" },
    Step {
        name: "docs",
        env: &[("RUSTDOCFLAGS", "-D warnings")],
        cargo: "doc --release --workspace --no-deps",
    },
];

/// Runs every step; stops at the first that fails and prints the command that repeats it.
pub fn run() -> Result<ExitCode> {
    for step in STEPS {
        println!("check {}: {}", step.name, step.command_line());
        let start = Instant::now();
        let passed = step.run()?;
        let seconds = start.elapsed().as_secs_f64();
        if !passed {
            println!("check {}: FAILED after {seconds:.1} s; repeat it with", step.name);
            println!("  {}", step.command_line());
            return Ok(ExitCode::FAILURE);
        }
        println!("check {}: ok, {seconds:.1} s", step.name);
    }
    Ok(ExitCode::SUCCESS)
}

impl Step {
    fn run(&self) -> Result<bool> {
        let mut command = crate::cargo();
        command.args(self.cargo.split_whitespace()).envs(self.env.iter().copied());
        let status = command.status().with_context(|| format!("cannot start {command:?}"))?;
        Ok(status.success())
    }

    fn command_line(&self) -> String {
        let env: String = self.env.iter().map(|(key, value)| format!("{key}=\"{value}\" ")).collect();
        format!("{env}cargo {}", self.cargo)
    }
}
