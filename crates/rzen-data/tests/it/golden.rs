//! Pictures of the reference set, decoded as Pillow does.

use std::env;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use rzen_data::LoadOptions;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::made::load_image;

fn reference() -> PathBuf {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    reference_in(&workspace, env::var_os("RZEN_REFERENCE"))
}

/// The folder that is named, counted from the workspace, which must be there; else one that may be.
fn reference_in(workspace: &Path, named: Option<OsString>) -> PathBuf {
    let shared = workspace.join("../shared/reference");
    match named {
        Some(folder) => {
            let cases = workspace.join(&folder).join("cases");
            assert!(cases.is_dir(), "RZEN_REFERENCE is {folder:?}, but {} is not there", cases.display());
            workspace.join(folder)
        }
        None if shared.is_dir() => shared,
        None => workspace.join("fixtures/reference"),
    }
}

#[test]
fn a_reference_that_is_named_must_be_there() {
    let folder = crate::made::Folder::new();
    // A folder deeper, so that what lies beside it is known.
    let workspace = folder.path().join("workspace");
    fs::create_dir_all(workspace.join("own/cases")).unwrap();
    let named = |name: &str| reference_in(&workspace, Some(name.into()));
    assert_eq!(named("own"), workspace.join("own"));
    assert_eq!(reference_in(&workspace, None), workspace.join("fixtures/reference"));
    assert!(std::panic::catch_unwind(|| named("gone")).is_err());
}

#[test]
fn golden_pictures_decode_as_in_pillow() {
    let reference = reference();
    let Ok(cases) = fs::read_dir(reference.join("cases")) else {
        return eprintln!("skipped: {} is not there", reference.join("cases").display());
    };
    for case in
        cases.map(|case| case.unwrap().path()).filter(|case| case.extension() == Some("json".as_ref()))
    {
        let case: Value = serde_json::from_str(&fs::read_to_string(&case).unwrap()).unwrap();
        for picture in case["pictures"].as_array().into_iter().flatten() {
            check(&reference.join(picture["file"].as_str().unwrap()), picture);
        }
    }
}

fn check(path: &Path, expected: &Value) {
    if !path.exists() {
        return eprintln!("skipped: {} is not there", path.display());
    }
    let picture = load_image(path, &LoadOptions::default()).unwrap();
    let size = [&expected["size_wh"][0], &expected["size_wh"][1]].map(|side| side.as_u64().unwrap());
    assert_eq!([picture.width(), picture.height()].map(u64::from), size, "{}", path.display());
    if picture_is_jpeg(path) {
        // Decoders differ by a level here and there.
        let mean =
            picture.rgb().iter().map(|channel| f64::from(*channel)).sum::<f64>() / picture.rgb().len() as f64;
        let expected = expected["decoded_rgb_mean"].as_f64().unwrap();
        assert!((mean - expected).abs() < 0.5, "{}: mean {mean}, expected {expected}", path.display());
    } else {
        assert_eq!(hex_digest(picture.rgb()), expected["decoded_rgb_sha256"], "{}", path.display());
    }
}

fn picture_is_jpeg(path: &Path) -> bool {
    fs::read(path).unwrap().starts_with(&[0xFF, 0xD8])
}

fn hex_digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a string takes all");
        text
    })
}
