//! `cargo xtask test`: all tests, and at the end what ran and what was skipped.
//!
//! A test over a file that is not there prints `skipped: …` and passes; libtest swallows what passing
//! tests print. So the tests run with `--show-output`, and that output is folded here into a list.
//!
//! `RZEN_REFERENCE` may be relative to where the command is given: cargo runs the tests of each crate in that
//! crate's folder, so they get it as an absolute path.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};

use anyhow::{Context, Result, ensure};

use crate::program::{features, take_backends};

/// Runs `cargo test --release --workspace ARGS`, the program `rzen` itself unoptimised; packages named in ARGS (`-p`) replace the whole workspace.
///
/// `--backend NAME,NAME` in ARGS runs the tests of devices instead (`crates/rzen/tests/backends`), built with these
/// backends and the profile `backends`. `--mpi` runs those of several ranks (`crates/rzen/tests/mpi`).
pub fn run(args: &[String]) -> Result<ExitCode> {
    let summarise = !args.iter().any(|arg| arg == "--" || arg == "--no-run" || arg == "--help");
    let line = cargo_args(args, summarise)?;
    let mut command = crate::cargo();
    command.args(&line);
    if std::env::var_os(AUTOTUNE).is_none() {
        // A test runs each product a few times: looking for the fastest kernel takes minutes and saves nothing.
        command.env(AUTOTUNE, "minimal");
    }
    if let Some(folder) = std::env::var_os(REFERENCE) {
        command.env(REFERENCE, absolute(Path::new(&folder))?);
    }
    if !summarise {
        let status = command.status().with_context(|| format!("cannot start {command:?}"))?;
        return Ok(exit_code(status.success()));
    }
    let mut child =
        command.stdout(Stdio::piped()).spawn().with_context(|| format!("cannot start {command:?}"))?;
    let mut summary = Summary::default();
    // Bytes, not `lines()`: a test may print anything.
    for printed in BufReader::new(child.stdout.take().expect("stdout is piped")).split(b'\n') {
        let printed = printed.context("reading the output of cargo test")?;
        let printed = String::from_utf8_lossy(&printed);
        if summary.read(&printed) {
            println!("{printed}");
        }
    }
    let status = child.wait().context("waiting for cargo test")?;
    println!("{}\nran: cargo {}", summary.text(), line.join(" "));
    Ok(exit_code(status.success()))
}

/// How hard burn looks for the fastest kernels on a GPU.
const AUTOTUNE: &str = "CUBECL_AUTOTUNE_LEVEL";

/// The program itself only holds the crates together, is compiled into several test programs, and takes most of the time of an
/// optimised build; its tests take no longer without.
const QUICK: &str = "profile.release.package.rzen.opt-level=0";

/// The arguments of cargo; with `summarise`, tests show what they print.
fn cargo_args(args: &[String], summarise: bool) -> Result<Vec<String>> {
    let (backends, mut args) = take_backends(args)?;
    let mpi = args.iter().position(|arg| arg == "--mpi").map(|at| args.remove(at)).is_some();
    let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
    let mut line = match backends.is_empty() {
        false => words(&["test", "--profile", "backends", "-p", "rzen", "--test", "backends"]),
        true if mpi => words(&["test", "--release", "--config", QUICK, "-p", "rzen", "--test", "mpi"]),
        true if args.iter().any(|arg| arg.starts_with("-p") || arg.starts_with("--package")) => {
            words(&["test", "--release", "--config", QUICK])
        }
        true => words(&["test", "--release", "--config", QUICK, "--workspace"]),
    };
    line.extend(features(&backends, mpi));
    line.extend(args);
    if summarise {
        line.extend(words(&["--", "--show-output"]));
        // Tests are named after the devices that they run on.
        let mut devices: Vec<String> =
            backends.iter().map(|backend| format!("{}::", backend.device)).collect();
        devices.dedup();
        line.extend(devices);
    }
    Ok(line)
}

/// Names the folder of golden outputs for the tests.
const REFERENCE: &str = "RZEN_REFERENCE";

/// The same folder wherever a test runs.
fn absolute(folder: &Path) -> Result<PathBuf> {
    let whole = std::fs::canonicalize(folder).with_context(|| {
        format!(
            "{REFERENCE} names {}, which is not there; give a folder that is, or unset it",
            folder.display()
        )
    })?;
    ensure!(whole.is_dir(), "{REFERENCE} names {}, which is a file; give its folder", whole.display());
    Ok(whole)
}

fn exit_code(success: bool) -> ExitCode {
    if success { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// What the `test result:` lines of all test programs add up to.
#[derive(Default)]
struct Summary {
    programs: usize,
    passed: usize,
    failed: usize,
    skips: Vec<String>,
    /// Inside the section that holds what passing tests printed.
    in_successes: bool,
}

impl Summary {
    /// Takes in one line of output; returns whether to show it.
    fn read(&mut self, line: &str) -> bool {
        if line == "successes:" {
            self.in_successes = true;
        } else if line == "failures:" {
            self.in_successes = false;
        } else if let Some(result) = line.strip_prefix("test result: ") {
            self.in_successes = false;
            self.programs += 1;
            self.passed += number_before(result, " passed");
            self.failed += number_before(result, " failed");
        } else if line.starts_with("skipped") {
            self.skips.push(line.to_owned());
        }
        !self.in_successes
    }

    fn text(&self) -> String {
        let mut skips = self.skips.clone();
        skips.sort();
        skips.dedup();
        let mut text: String = skips.iter().map(|skip| format!("  {skip}\n")).collect();
        if !skips.is_empty() {
            text.insert_str(0, "\nskipped, because a file or a program is not here:\n");
        }
        text += &format!(
            "\nsummary: {} test program(s), {} passed, {} failed, {} skips",
            self.programs,
            self.passed,
            self.failed,
            skips.len()
        );
        text
    }
}

/// The number that stands directly before `word` in `text`; 0 where there is none.
fn number_before(text: &str, word: &str) -> usize {
    let before = text.split(word).next().unwrap_or_default();
    let digits = before.rsplit(|c: char| !c.is_ascii_digit()).next().unwrap_or_default();
    digits.parse().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backend_replaces_the_workspace_by_the_tests_of_devices() {
        let line = |args: &str, summarise| {
            let args: Vec<String> = args.split_whitespace().map(str::to_owned).collect();
            cargo_args(&args, summarise).map_or_else(|error| format!("{error:#}"), |args| args.join(" "))
        };
        let quick = format!("test --release --config {QUICK}");
        assert_eq!(line("", true), format!("{quick} --workspace -- --show-output"));
        assert_eq!(line("-p rzen-core item", true), format!("{quick} -p rzen-core item -- --show-output"));
        let suite = "test --profile backends -p rzen --test backends --features=wgpu,cuda";
        assert_eq!(line("--backend wgpu,cuda", true), format!("{suite} -- --show-output wgpu:: cuda::"));
        assert_eq!(line("--backend wgpu,cuda --no-run", false), format!("{suite} --no-run"));
        let ranks = format!("{quick} -p rzen --test mpi --features=mpi killed -- --show-output");
        assert_eq!(line("killed --mpi", true), ranks);
        assert!(line("--backend tpu", true).contains("`tpu` is not one of"));
    }

    #[test]
    fn the_reference_folder_is_absolute_or_refused() {
        let here = std::env::current_dir().unwrap();
        assert_eq!(absolute(Path::new("src")).unwrap(), here.join("src").canonicalize().unwrap());
        let missing = absolute(Path::new("nowhere/at/all")).unwrap_err().to_string();
        assert!(missing.contains("RZEN_REFERENCE") && missing.contains("nowhere/at/all"), "{missing}");
        assert!(absolute(Path::new("Cargo.toml")).unwrap_err().to_string().contains("a file"));
    }

    const OUTPUT: &str = "\
running 3 tests
test a ... ok
test b ... ok
test c ... FAILED

successes:

---- a stdout ----
skipped: x.bin is not there
noise

successes:
    a
    b

failures:

---- c stdout ----
boom

failures:
    c

test result: FAILED. 2 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s
   Doc-tests x
test result: ok. 14 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s";

    #[test]
    fn results_add_up_and_the_output_of_passing_tests_is_folded() {
        let mut summary = Summary::default();
        let shown: Vec<&str> = OUTPUT.lines().filter(|line| summary.read(line)).collect();
        assert_eq!((summary.programs, summary.passed, summary.failed), (2, 16, 1));
        assert_eq!(summary.skips, ["skipped: x.bin is not there"]);
        assert!(shown.contains(&"boom"));
        assert!(shown.contains(&"test a ... ok"));
        assert!(!shown.contains(&"noise"));
        assert_eq!(shown.iter().filter(|line| line.starts_with("test result: ")).count(), 2);
    }
}
