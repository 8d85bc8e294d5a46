//! `cargo xtask tidy`: what neither the compiler nor clippy checks. Every finding says what to do.

mod arrows;
mod burn_features;
mod crates;
mod files;
mod licences;
mod one_burn;
mod spdx;
mod unused;
mod workspace;

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};

use workspace::Workspace;

/// Runs all checks, prints every finding, fails if there is one.
pub fn run() -> Result<ExitCode> {
    let workspace = Workspace::load()?;
    let files = files::tracked(&workspace.root)?;
    let checks: [(&str, Result<Vec<String>>); 8] = [
        ("crate arrows", Ok(arrows::check(&workspace))),
        ("backends", Ok(burn_features::check(&workspace))),
        ("crate manifests", crates::check(&workspace)),
        ("unused dependencies", unused::check(&workspace)),
        ("licences", licences::check()),
        ("one burn", one_burn::check()),
        ("file sizes", files::check_sizes(&workspace.root, &files)),
        ("text", files::check_text(&workspace.root, &files)),
    ];
    let mut count = 0;
    for (name, findings) in checks {
        let findings = findings.with_context(|| format!("tidy: {name}"))?;
        println!("tidy {name}: {}", if findings.is_empty() { "ok" } else { "FAILED" });
        for finding in &findings {
            println!("  {finding}");
        }
        count += findings.len();
    }
    if count == 0 {
        return Ok(ExitCode::SUCCESS);
    }
    println!("tidy: {count} findings");
    Ok(ExitCode::FAILURE)
}

/// Runs cargo and returns what it printed.
fn cargo_output(args: &[&str]) -> Result<String> {
    let mut command = crate::cargo();
    command.args(args);
    output_of(command)
}

/// Runs git in `root` and returns what it printed.
fn git_output(root: &Path, args: &[&str]) -> Result<String> {
    let mut command = std::process::Command::new("git");
    command.arg("-C").arg(root).args(args);
    output_of(command)
}

fn output_of(mut command: std::process::Command) -> Result<String> {
    let output = command.output().with_context(|| format!("cannot start {command:?}"))?;
    ensure!(
        output.status.success(),
        "{command:?} failed ({}):\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout)
        .with_context(|| format!("{command:?} printed something that is not UTF-8"))
}
