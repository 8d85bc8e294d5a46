//! Runs the program as a user does.

use std::path::Path;
use std::process::{Command, Output, Stdio};

/// Runs `rzen ARGS` in `folder`.
pub fn rzen(folder: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rzen"));
    command.current_dir(folder).args(args).stdin(Stdio::null()).output().unwrap()
}

/// What `rzen ARGS` prints; it must succeed.
pub fn succeed(folder: &Path, args: &[&str]) -> String {
    let output = rzen(folder, args);
    assert!(output.status.success(), "rzen {args:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

/// What `rzen ARGS` says is wrong; it must fail.
pub fn refuse(folder: &Path, args: &[&str]) -> String {
    let output = rzen(folder, args);
    assert!(!output.status.success(), "rzen {args:?} succeeded");
    text(&output.stderr)
}

/// Output as text.
pub fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}
