//! Runs the program as a user does.

use std::path::{Path, PathBuf};
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

/// The files below a folder whose names end so, sorted.
pub fn files_with(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let (mut found, mut folders) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.to_string_lossy().ends_with(ending) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// The first of them.
pub fn first_with(folder: &Path, ending: &str) -> PathBuf {
    let files = files_with(folder, ending);
    files.into_iter().next().unwrap_or_else(|| panic!("no {ending} in {}", folder.display()))
}

/// The tables of a model and a processor that train in a second: a part of recipes.
macro_rules! tiny_model {
    () => {
        r#"
[model]
kind = "scratch"
vocab_size = 400
text = { hidden_size = 32, intermediate_size = 48, num_hidden_layers = 2, num_attention_heads = 2, num_key_value_heads = 1 }
vision = { depth = 1, embed_dim = 32, num_heads = 2, mlp_ratio = 2 }
[processor]
system_prompt = "Embed."
image_tokens = [4, 12]
frame_tokens = [4, 4]
num_frames = 2
pdf_dpi = 36.0
"#
    };
}
pub(crate) use tiny_model;
