//! Real files, where the folder with them is there.

use std::fs;
use std::path::{Path, PathBuf};

use rzen_core::{Item, Media, Part, Picture};
use rzen_data::{EvalCorpus, LoadOptions, Loader, VideoDecoder, train_rows};

use crate::ffmpeg::ffmpeg_is_there;
use crate::made::load_video;

fn corpus() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/corpus");
    if !folder.is_dir() {
        eprintln!("skipped: {} is not there", folder.display());
        return None;
    }
    Some(folder)
}

/// A few files of a folder, spread over it.
fn some_files(folder: &Path, count: usize) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else {
        eprintln!("skipped: {} is not there", folder.display());
        return Vec::new();
    };
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let step = files.len().div_ceil(count).max(1);
    files.into_iter().step_by(step).collect()
}

fn check_frames(path: &Path, frames: &[Picture]) {
    assert!((1..=8).contains(&frames.len()), "{}: {} frames", path.display(), frames.len());
    let differ = frames.windows(2).any(|pair| pair[0] != pair[1]);
    assert!(frames.len() == 1 || differ, "{}: all frames are the same", path.display());
}

#[test]
fn real_clips_load() {
    let Some(corpus) = corpus() else { return };
    for folder in ["animated_emoji/clips", "weather_clips/clips"] {
        for path in some_files(&corpus.join(folder), 6) {
            check_frames(&path, &load_video(&path, &LoadOptions::default()).unwrap());
        }
    }
    let native = LoadOptions { video_decoder: VideoDecoder::Native, ..Default::default() };
    for path in some_files(&corpus.join("animated_emoji/mp4"), 3) {
        let frames = load_video(&path, &native).unwrap();
        check_frames(&path, &frames);
        if !ffmpeg_is_there() {
            eprintln!("skipped: ffmpeg is not there");
            continue;
        }
        let other = load_video(&path, &LoadOptions::default()).unwrap();
        assert_eq!(frames.len(), other.len());
        for (own, other) in frames.iter().zip(&other) {
            let difference = own.rgb().iter().zip(other.rgb()).map(|(a, b)| a.abs_diff(*b)).max();
            assert!(difference <= Some(4), "{}: {difference:?}", path.display());
        }
    }
}

#[test]
fn real_pages_load() {
    let Some(corpus) = corpus() else { return };
    let loader = Loader::default();
    for path in some_files(&corpus.join("papers/pdf"), 15) {
        let page = loader.load_part(&Part::Document { path: path.clone(), page: 1 }).unwrap();
        let Media::Image(page) = page else { panic!("{page:?} is no page") };
        let white = page.rgb().iter().filter(|channel| **channel == 255).count();
        let share = white as f64 / page.rgb().len() as f64;
        assert!((0.3..0.999).contains(&share), "{}: {share} of the page is white", path.display());
    }
}

#[test]
fn real_manifests_are_read() {
    let Some(corpus) = corpus() else { return };
    let eval = EvalCorpus::open(&corpus).unwrap();
    assert!(!eval.tasks.is_empty());
    for task in &eval.tasks {
        let set = eval.load(task).unwrap_or_else(|error| panic!("{error}"));
        assert!(!set.queries.is_empty() && !set.pool.is_empty());
    }
    let loader = Loader::default();
    for folder in some_files(&corpus, 100).into_iter().filter(|folder| folder.join("train.jsonl").exists()) {
        let samples =
            train_rows(&folder.join("train.jsonl"), &corpus).unwrap_or_else(|error| panic!("{error}"));
        let load = |item: &Item| drop(loader.load(item).unwrap_or_else(|error| panic!("{error}")));
        load(&samples[0].query);
        load(&samples[0].positive);
        samples[0].hard_negatives.iter().for_each(load);
    }
}
