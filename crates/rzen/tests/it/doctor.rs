//! What the doctor says and how it ends.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::command::{refuse, succeed, text};

#[test]
fn a_sound_machine_passes_and_says_what_was_checked() {
    let folder = tempfile::tempdir().unwrap();
    let lines = succeed(folder.path(), &["doctor", "--device", "cpu"]);
    for words in ["cpu ", "f32   ok", "bf16  ok", "picture", "clip", "backends cpu"] {
        assert!(lines.contains(words), "{words}: {lines}");
    }
    let report = succeed(folder.path(), &["doctor", "--device", "cpu", "--json"]);
    let report: Value = serde_json::from_str(&report).unwrap();
    assert_eq!((&report["passed"], &report["devices"][0]["device"]), (&true.into(), &"cpu".into()));
    let items = report["devices"][0]["checks"][0]["items"].as_array().unwrap();
    assert_eq!(items.len(), 4);
    assert!(items.iter().all(|item| item["largest_difference"].as_f64().unwrap() < 1e-5), "{items:?}");
}

#[test]
fn what_is_not_there_fails_by_name() {
    let here = Path::new(".");
    let error = refuse(here, &["doctor", "--device", "tpu"]);
    assert!(error.contains("tpu failed"), "{error}");
    let folder = tempfile::tempdir().unwrap();
    let kept = refuse(here, &["doctor", "--keep", folder.path().to_str().unwrap()]);
    assert!(kept.contains("--keep") && kept.contains("name a folder that isn't there"), "{kept}");
}

#[test]
fn a_named_ffmpeg_that_can_not_be_run_fails() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rzen"));
    let output =
        command.args(["doctor", "--device", "cpu"]).env("RZEN_FFMPEG", "/nowhere/ffmpeg").output().unwrap();
    assert!(!output.status.success());
    let (said, error) = (text(&output.stdout), text(&output.stderr));
    assert!(said.contains("FAILED: can't start /nowhere/ffmpeg") && said.contains("RZEN_FFMPEG"), "{said}");
    assert!(error.contains("ffmpeg failed"), "{error}");
}
