//! Batches with rows that can't be loaded.

use std::fs;

use image::ImageFormat;
use rzen_core::{Item, Origin, Sample, Task};
use rzen_data::{BadRows, BadRowsError, LoadOptions, Loader, load_samples, load_samples_with};

use crate::made::{Folder, check_message, encode, gradient};

fn sample(folder: &Folder, line: usize, picture: &str) -> Sample {
    let origin = Origin { file: folder.path().join("train.jsonl").into(), line };
    let positive = Item::image(folder.path().join(picture));
    let sample = Sample::new("d", Task("t".into()), Item::text("q"), positive, origin);
    Sample { hard_negatives: vec![Item::text("n")], ..sample }
}

fn folder_with_a_picture() -> Folder {
    let folder = Folder::new();
    folder.write("good.png", encode(&gradient(4, 4).into(), ImageFormat::Png));
    folder
}

#[test]
fn bad_rows_are_left_out_and_named() {
    let folder = folder_with_a_picture();
    let mut negative = sample(&folder, 4, "good.png");
    negative.hard_negatives[0] = Item::image(folder.path().join("gone too.png"));
    let samples = [
        sample(&folder, 1, "good.png"),
        sample(&folder, 2, "gone.png"),
        sample(&folder, 3, "good.png"),
        negative,
    ];
    let (loaded, bad) =
        load_samples(&Loader::new(LoadOptions::default()), &samples.iter().collect::<Vec<_>>());
    assert_eq!(loaded.iter().map(|sample| sample.place).collect::<Vec<_>>(), [0, 2]);
    assert_eq!(loaded[1].origin, samples[2].origin);
    assert_eq!(bad.iter().map(|row| row.origin.line).collect::<Vec<_>>(), [2, 4]);
    assert_eq!(bad[0].file, Some(folder.path().join("gone.png")));
    check_message(&bad[1].message, &["gone too.png"]);
}

#[test]
fn the_run_stops_past_the_limit_and_goes_on_counting_after_a_restart() {
    let folder = folder_with_a_picture();
    let samples: Vec<_> = (1..=3).map(|line| sample(&folder, line, "gone.png")).collect();
    let loader = Loader::new(LoadOptions::default());
    let bad = |index: usize| load_samples(&loader, &[&samples[index]]).1;

    let mut rows = BadRows::open(folder.path(), 1).unwrap();
    assert!(!rows.path().exists());
    rows.record(&bad(0)).unwrap();
    // The same row comes up again in the next epoch.
    rows.record(&bad(0)).unwrap();
    assert_eq!(rows.count(), 1);
    let error = rows.record(&bad(1)).unwrap_err();
    check_message(
        &error,
        &["2 rows", "the 1 allowed", "train.jsonl:2", "gone.png", "bad_rows.jsonl", "limit"],
    );

    let list = fs::read_to_string(rows.path()).unwrap();
    assert_eq!(list.lines().count(), 2);
    let line: serde_json::Value = serde_json::from_str(list.lines().next().unwrap()).unwrap();
    assert_eq!(line["line"], 1);
    assert!(line["manifest"].as_str().unwrap().ends_with("train.jsonl"));
    assert!(line["file"].as_str().unwrap().ends_with("gone.png"));
    assert!(line["message"].as_str().unwrap().contains("gone.png"));

    // A run that died while writing leaves half a line.
    fs::write(rows.path(), format!("{list}{{\"manif")).unwrap();
    let mut rows = BadRows::open(folder.path(), 2).unwrap();
    assert_eq!(rows.count(), 2);
    rows.record(&bad(1)).unwrap();
    assert!(matches!(rows.record(&bad(2)), Err(BadRowsError::TooMany { count: 3, limit: 2, .. })));
    assert_eq!(BadRows::open(folder.path(), 9).unwrap().count(), 3);
}

#[test]
fn the_limit_holds_after_a_restart() {
    let folder = folder_with_a_picture();
    let samples: Vec<_> = (1..=3).map(|line| sample(&folder, line, "gone.png")).collect();
    let bad = load_samples(&Loader::default(), &samples.iter().collect::<Vec<_>>()).1;
    BadRows::open(folder.path(), 2).unwrap().record(&bad).unwrap_err();
    let mut rows = BadRows::open(folder.path(), 2).unwrap();
    // Every row is known, and still there is one too many.
    let error = rows.record(&bad[..1]).unwrap_err();
    check_message(
        &error,
        &["3 rows", "the 2 allowed", "train.jsonl:1", "manifest", "`bad_row_limit`", "command again"],
    );
    // A batch without a bad row is no reason to stop.
    rows.record(&[]).unwrap();
    BadRows::open(folder.path(), 3).unwrap().record(&bad[..1]).unwrap();
}

#[test]
fn mended_rows_count_no_more() {
    let folder = folder_with_a_picture();
    let samples: Vec<_> = (1..=3).map(|line| sample(&folder, line, "gone.png")).collect();
    let bad = load_samples(&Loader::default(), &samples.iter().collect::<Vec<_>>()).1;
    BadRows::open(folder.path(), 2).unwrap().record(&bad).unwrap_err();
    let mut rows = BadRows::open(folder.path(), 2).unwrap();
    rows.keep(|manifest, line| manifest.ends_with("train.jsonl") && line != 2).unwrap();
    assert_eq!(rows.count(), 2);
    rows.record(&bad[..1]).unwrap();
    // It is off the list as well, and counts anew if it breaks anew.
    let mut rows = BadRows::open(folder.path(), 2).unwrap();
    assert_eq!(rows.count(), 2);
    assert!(matches!(rows.record(&bad[1..2]), Err(BadRowsError::TooMany { count: 3, .. })));
}

#[test]
fn each_sample_is_finished_before_more_are_loaded_than_there_are_threads() {
    let folder = folder_with_a_picture();
    let samples =
        [sample(&folder, 1, "good.png"), sample(&folder, 2, "late.png"), sample(&folder, 3, "good.png")];
    // The file of the second sample is there only once the first is finished.
    let finish = |loaded: rzen_data::LoadedSample| {
        match loaded.place {
            0 => drop(folder.write("late.png", encode(&gradient(4, 4).into(), ImageFormat::Png))),
            2 => return Err("no use".to_owned()),
            _ => {}
        }
        Ok(loaded.place)
    };
    let threads = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    let (finished, bad) = threads
        .install(|| load_samples_with(&Loader::default(), &samples.iter().collect::<Vec<_>>(), finish));
    assert_eq!(finished, [0, 1]);
    assert_eq!((bad.len(), bad[0].origin.line, bad[0].message.as_str()), (1, 3, "no use"));
}

#[test]
fn a_list_that_cannot_be_written_is_named() {
    let folder = folder_with_a_picture();
    let mut rows = BadRows::open(&folder.path().join("no folder"), 5).unwrap();
    let bad = load_samples(&Loader::new(LoadOptions::default()), &[&sample(&folder, 1, "gone.png")]).1;
    check_message(&rows.record(&bad).unwrap_err(), &["no folder", "bad_rows.jsonl", "disk"]);
}
