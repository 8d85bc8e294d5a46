//! Films cut into clips.

use std::fs;
use std::path::{Path, PathBuf};

use rzen_core::{Part, Sample, VideoSource};
use rzen_data::{ClipDirection, ClipOptions, ImportError, ImportReport, LoadOptions, cut_clips, train_rows};
use serde_json::{Value, json};

use crate::ffmpeg::ffmpeg_is_there;
use crate::made::{Folder, check_message, load_image};
use crate::mp4::flat_clip;

/// A folder with a film of 60 frames, each lighter than the one before, and the seconds that a frame lasts.
struct Films {
    folder: Folder,
    frame: f64,
}

impl Films {
    /// Nothing where there is no ffmpeg.
    fn new() -> Option<Self> {
        if !ffmpeg_is_there() {
            eprintln!("skipped: ffmpeg is not there");
            return None;
        }
        let folder = Folder::new();
        let lumas: Vec<u8> = (0..60).map(|frame| 20 + frame * 3).collect();
        folder.write("film.mp4", flat_clip(64, 48, &lumas));
        Some(Films { folder, frame: 0.04 })
    }

    fn cut(
        &self,
        name: &str,
        text: &str,
        options: ClipOptions,
    ) -> Result<(ImportReport, Vec<Sample>), ImportError> {
        self.cut_all(&[(name, text)], options)
    }

    fn cut_all(
        &self,
        inputs: &[(&str, &str)],
        options: ClipOptions,
    ) -> Result<(ImportReport, Vec<Sample>), ImportError> {
        let inputs: Vec<PathBuf> = inputs.iter().map(|(name, text)| self.folder.write(name, text)).collect();
        let output = self.folder.path().join("corpus/films");
        let _ = fs::remove_dir_all(&output);
        fs::create_dir_all(&output).unwrap();
        let report = cut_clips(&inputs, &options, &output, &|_, _| {})?;
        let rows = train_rows(&output.join("train.jsonl"), &self.folder.path().join("corpus")).unwrap();
        Ok((report, rows))
    }

    /// The number of the frame that a picture shows.
    fn frame(&self, path: &Path) -> f64 {
        let picture = load_image(path, &LoadOptions::default()).unwrap();
        let grey = f64::from(picture.rgb()[picture.rgb().len() / 2]);
        // From the range of video to that of pictures.
        ((grey * 219.0 / 255.0 + 16.0) - 20.0) / 3.0
    }
}

fn options() -> ClipOptions {
    ClipOptions {
        dataset: "films".into(),
        task: "video_retrieval".into(),
        name: None,
        instruction: None,
        reverse_instruction: None,
        media: None,
        direction: ClipDirection::TextToVideo,
        long_form: false,
        min_seconds: 0.1,
        max_overlap: 0.5,
        bad_row_limit: 0,
        load: LoadOptions { num_frames: 3, ..LoadOptions::default() },
    }
}

fn frames(item: &rzen_core::Item) -> &[PathBuf] {
    match &item.content[..] {
        [Part::Video(VideoSource::Frames(frames))] => frames,
        other => panic!("{other:?} is no clip of frames"),
    }
}

fn text(item: &rzen_core::Item) -> &str {
    match &item.content[..] {
        [Part::Text(text)] => text,
        other => panic!("{other:?} is no text"),
    }
}

#[test]
fn pieces_become_clips_of_one_group_and_the_film_a_row_of_its_own() {
    let Some(films) = Films::new() else { return };
    let at = |frame: usize| frame as f64 * films.frame;
    let film = json!({ "video": "film.mp4", "segments": [
        { "start": at(10), "end": at(20), "caption": "dark " }, { "start": at(30), "end": at(50), "caption": "light" },
    ] });
    let wanted = ClipOptions {
        direction: ClipDirection::Both,
        long_form: true,
        instruction: Some("Find the clip: ".into()),
        ..options()
    };
    let (report, rows) = films.cut("films.jsonl", &film.to_string(), wanted).unwrap();
    assert_eq!((report.read, report.rows, report.media_files), (1, 6, 9));
    let names: Vec<&str> = rows.iter().map(|row| row.name.as_str()).collect();
    let of_clips = ["films_t2v", "films_v2t"];
    assert_eq!(names, [&of_clips[..], &of_clips, &["films_long_t2v", "films_long_v2t"]].concat());
    assert!(rows[0].group.is_some() && rows[..4].iter().all(|row| row.group == rows[0].group));
    assert!(rows[4].group.is_none() && rows[5].group.is_none());
    assert_eq!(
        (text(&rows[0].query), text(&rows[3].positive), text(&rows[4].query)),
        ("dark", "light", "dark light")
    );
    assert_eq!(rows[0].query.instruction.as_deref(), Some("Find the clip: "));
    assert_eq!(rows[1].query.instruction, None);
    for (row, expected) in [(0, [10.0, 14.0, 19.0]), (2, [30.0, 39.0, 49.0]), (4, [0.0, 29.0, 59.0])] {
        let shown: Vec<f64> = frames(&rows[row].positive).iter().map(|path| films.frame(path)).collect();
        let near = |(found, expected): (&f64, f64)| (found - expected).abs() < 1.1;
        assert!(shown.len() == 3 && shown.iter().zip(expected).all(near), "{row}: {shown:?}");
    }
}

#[test]
fn layouts_of_known_datasets_are_told_apart() {
    let Some(films) = Films::new() else { return };
    let at = |frame: usize| frame as f64 * films.frame;
    let share = json!({ "video_id": "film", "video_path": "film.mp4", "timestamp": ["00:00:00.000", "00:00:01.2"],
        "captions": [{ "idx": "-1", "content": "all" }, { "idx": "1", "content": "b" }, { "idx": "0", "content": "a" }] });
    let activity = json!({ "film": { "duration": 2.4, "timestamps": [[0.0, at(20)], [at(30), at(60)]], "sentences": ["a", " b"] } });
    let chat = |start: f64, end: f64, words: &str| {
        json!({ "video": "film.mp4", "start": start, "end": end, "conversations": [
            { "from": "human", "value": "<video>\nWhat is seen?" }, { "from": "gpt", "value": words }] })
    };
    let chats = format!("{}\n{}\n", chat(0.0, at(20), "a"), chat(at(30), at(60), "b"));
    let charades = format!("film 0.0 {}##a\nfilm {} {}##b\n", at(20), at(30), at(60));
    for (name, input) in [
        ("share.jsonl", share.to_string()),
        ("activity.json", format!("{activity:#}")),
        ("chat.jsonl", chats),
        ("charades.txt", charades),
    ] {
        let (_, rows) = films.cut(name, &input, options()).unwrap();
        let captions: Vec<&str> = rows.iter().map(|row| text(&row.query)).collect();
        assert_eq!(captions, ["a", "b"], "{name}");
        assert_eq!(rows[0].group, rows[1].group, "{name}");
        let first = films.frame(&frames(&rows[1].positive)[0]);
        assert!((first - 30.0).abs() < 1.1, "{name}: {first}");
    }
    let (_, rows) =
        films.cut("share.jsonl", &share.to_string(), ClipOptions { long_form: true, ..options() }).unwrap();
    assert_eq!((rows.len(), text(&rows[2].query)), (3, "all"));
    // What rows say of a whole film is put together, equal texts once.
    let more = json!({ "video": "film.mp4", "segments": [], "caption": "more" });
    let input = format!("{share}\n{share}\n{more}\n");
    let (_, rows) = films.cut("share.jsonl", &input, ClipOptions { long_form: true, ..options() }).unwrap();
    assert_eq!((rows.len(), text(&rows[2].query)), (3, "all more"));
}

#[test]
fn rows_of_one_film_are_gathered_wherever_they_stand() {
    let Some(films) = Films::new() else { return };
    films.folder.write("other.mp4", flat_clip(64, 48, &[90; 60]));
    let at = |frame: usize| frame as f64 * films.frame;
    // The second of the film's lines shows what the third one does, from one frame later on.
    let charades = format!(
        "film {} {}##light\nother 0.0 2.0##grey\nfilm {} {}##light again\n",
        at(30),
        at(50),
        at(31),
        at(50)
    );
    let row = |video: &str, start: f64, end: f64, caption: &str| json!({ "video": video, "start": start, "end": end, "caption": caption });
    let rows = [
        row("corpus/../film.mp4", at(10), at(20), "dark"),
        row("film.mp4", 9.0, 10.0, "outside"),
        row("gone.mp4", 0.0, 1.0, "gone"),
    ];
    let rows: String = rows.iter().map(|row| format!("{row}\n")).collect();
    let inputs = [("charades.txt", charades.as_str()), ("rows.jsonl", &rows)];
    let wanted = ClipOptions { long_form: true, bad_row_limit: 2, ..options() };
    let (report, rows) = films.cut_all(&inputs, wanted).unwrap();

    // Films in the order they come, pieces likewise; what is said of a whole film in the order of its pieces' times.
    let told: Vec<_> = rows.iter().map(|row| (row.name.as_str(), text(&row.query))).collect();
    let expected = [
        ("films", "light"),
        ("films", "dark"),
        ("films_long", "dark light"),
        ("films", "grey"),
        ("films_long", "grey"),
    ];
    assert_eq!(told, expected);
    assert!(rows[0].group.is_some() && rows[0].group == rows[1].group && rows[0].group != rows[3].group);
    // A film is decoded once, and no clip lies where another one does.
    let written: std::collections::HashSet<_> = rows.iter().flat_map(|row| frames(&row.positive)).collect();
    assert_eq!((written.len(), report.media_files), (15, 15));
    assert_eq!(report.notes["pieces left out that overlap an earlier one"], 1);
    assert_eq!((report.read, report.notes["films named by the rows"]), (6, 2));
    let mut refused: Vec<_> = report.bad_rows.iter().map(ToString::to_string).collect();
    refused.sort();
    check_message(&refused[0], &["rows.jsonl, row 2: piece 1: begins at 9 s"]);
    check_message(&refused[1], &["rows.jsonl, row 3: ", "gone.mp4"]);
}

#[test]
fn a_film_that_can_not_be_read_is_named_once() {
    let Some(films) = Films::new() else { return };
    films.folder.write("broken.mp4", "no film");
    let lines = "broken 0 1##a\nfilm 0 1##b\nbroken 1 2##c\nbroken 2 3##d\n";
    let (report, rows) =
        films.cut("lines.txt", lines, ClipOptions { bad_row_limit: 1, ..options() }).unwrap();
    assert_eq!((rows.len(), report.bad_rows.len()), (1, 1));
    check_message(&report.bad_rows[0], &["lines.txt, row 1", "broken.mp4", "2 more rows name this film"]);
}

#[test]
fn captions_of_key_frames_have_the_times_of_their_idx() {
    let Some(films) = Films::new() else { return };
    let at = |frame: usize| frame as f64 * films.frame;
    let film = |captions: &[(i64, &str)]| {
        let captions: Vec<Value> = captions
            .iter()
            .map(|(idx, content)| json!({ "idx": idx.to_string(), "content": content }))
            .collect();
        json!({ "video_path": "film.mp4", "timestamp": [0.0, at(20), at(40)], "captions": captions })
            .to_string()
    };
    let (_, rows) = films.cut("share.jsonl", &film(&[(2, "two"), (0, "zero")]), options()).unwrap();
    for (row, (caption, first, last)) in rows.iter().zip([("zero", 0.0, 19.0), ("two", 40.0, 59.0)]) {
        let shown: Vec<f64> = frames(&row.positive).iter().map(|path| films.frame(path)).collect();
        let near = |found: f64, expected: f64| (found - expected).abs() < 1.1;
        assert!(text(&row.query) == caption && near(shown[0], first) && near(shown[2], last), "{shown:?}");
    }
    for (captions, named) in [
        (
            &[(0, "a"), (3, "b")][..],
            "the caption of `idx` 3 has no time; `timestamp` holds 3, counted from 0",
        ),
        (&[(1, "a"), (1, "b")], "two captions have `idx` 1"),
        (&[(-1, "a"), (-1, "b")], "two captions have `idx` -1"),
        (&[(-2, "a")], "`idx` -2"),
    ] {
        let refusal = films.cut("share.jsonl", &film(captions), options()).unwrap_err();
        check_message(&refusal, &["share.jsonl, row 1", named]);
    }
}

#[test]
fn pieces_that_can_not_be_are_refused_and_overlapping_ones_left_out() {
    let Some(films) = Films::new() else { return };
    let segments: Vec<Value> = [
        (0.0, 1.0),
        (0.5, 0.5),
        (9.0, 10.0),
        (1.0, 9.0),
        (1.5, 3.0),
        (0.2, 0.9),
        (1.0, 1.04),
    ]
    .iter()
    .enumerate()
    .map(|(number, (start, end))| json!({ "start": start, "end": end, "caption": format!("{number}") }))
    .collect();
    let film = json!({ "video": "film.mp4", "segments": segments });
    let gone = json!({ "video": "gone.mp4", "segments": [] });
    let input = format!("{film}\n{gone}\n");
    let (report, rows) =
        films.cut("films.jsonl", &input, ClipOptions { bad_row_limit: 4, ..options() }).unwrap();
    let captions: Vec<&str> = rows.iter().map(|row| text(&row.query)).collect();
    assert_eq!(captions, ["0", "4"]);
    let told: Vec<_> = report.bad_rows.iter().map(|bad| (bad.row, bad.message.as_str())).collect();
    for (told, (row, words)) in told.iter().zip([
        (2, "gone.mp4"),
        (1, "piece 2: runs from 0.5 s to 0.5 s"),
        (1, "piece 3: begins at 9 s, and the film ends at 2."),
        (1, "piece 4: ends at 9 s"),
    ]) {
        assert!(told.0 == row && told.1.contains(words), "{told:?}");
    }
    let notes: Vec<_> = report.notes.iter().map(|(note, count)| (note.as_str(), *count)).collect();
    assert_eq!(
        notes,
        [
            ("films named by the rows", 1),
            ("pieces cut at the end of their film", 1),
            ("pieces left out that are too short", 1),
            ("pieces left out that overlap an earlier one", 1),
        ]
    );
    let refusal =
        films.cut("films.jsonl", &input, ClipOptions { bad_row_limit: 3, ..options() }).unwrap_err();
    assert!(refusal.to_string().contains("more than the 3 allowed"), "{refusal}");
}

#[test]
fn without_ffmpeg_the_way_to_it_is_told() {
    let folder = Folder::new();
    let input = folder.write("films.jsonl", json!({ "video": "film.mp4", "segments": [] }).to_string());
    let load = LoadOptions { ffmpeg: Some(folder.path().join("no-ffmpeg")), ..LoadOptions::default() };
    folder.write("film.mp4", flat_clip(64, 48, &[20, 30]));
    let refusal =
        cut_clips(&[input], &ClipOptions { load, ..options() }, folder.path(), &|_, _| {}).unwrap_err();
    assert!(refusal.to_string().contains("no-ffmpeg"), "{refusal}");
}
