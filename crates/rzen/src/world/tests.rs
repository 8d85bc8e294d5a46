//! What holds for a whole world: nothing leaks, nothing is ambiguous, nothing is left to chance.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use rzen_core::{Media, Part, VideoSource};

use super::album::Drawing;
use super::held_out::{HeldOut, Kind};
use super::words::{Colour, Motion, NUMBERS, Shape, Town};
use super::*;

fn small(seed: u64) -> WorldConfig {
    WorldConfig {
        seed,
        captions: 30,
        edits: 20,
        pages: 12,
        clips: 12,
        texts: 30,
        instructed: 12,
        labels: 10,
        queries: 12,
    }
}

/// The combinations that a text speaks of, found by reading it.
#[derive(Default)]
struct Spoken {
    kinds: BTreeSet<Kind>,
    counts: BTreeSet<(Kind, u8)>,
    motions: BTreeSet<(Shape, Motion)>,
    titles: BTreeSet<String>,
}

fn read(text: &str) -> Spoken {
    let words: Vec<&str> =
        text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).collect();
    let colour = |word: &str| Colour::ALL.iter().copied().find(|colour| colour.names().contains(&word));
    let names_shape = |shape: &Shape, word: &str| shape.names().contains(&word) || shape.plural() == word;
    let shape = |word: &str| Shape::ALL.iter().copied().find(|shape| names_shape(shape, word));
    let number = |word: &str| {
        let written = NUMBERS.iter().position(|number| *number == word).map(|number| number as u8);
        word.parse().ok().or(written)
    };
    let mut spoken = Spoken::default();
    for (at, pair) in words.windows(2).enumerate() {
        if let (Some(colour), Some(shape)) = (colour(pair[0]), shape(pair[1])) {
            spoken.kinds.insert((colour, shape));
            let count = at.checked_sub(1).and_then(|before| number(words[before]));
            spoken.counts.extend(count.map(|count| ((colour, shape), count)));
        }
        if Town::ALL.iter().any(|town| town.word() == pair[0]) {
            spoken.titles.insert(pair.join(" "));
        }
    }
    let motions = Motion::ALL.iter().filter(|motion| motion.names().iter().any(|name| text.contains(name)));
    for &motion in motions {
        spoken.motions.extend(words.iter().filter_map(|word| shape(word)).map(|shape| (shape, motion)));
    }
    spoken
}

/// Says which held-out combination the text speaks of.
fn leak(held: &HeldOut, text: &str) -> Option<String> {
    let spoken = read(text);
    let titles = held.titles.iter().map(|title| page::title_words(*title)).collect::<BTreeSet<_>>();
    let found = [
        spoken.kinds.intersection(&held.kinds).next().map(|x| format!("{x:?}")),
        spoken.counts.intersection(&held.counts).next().map(|x| format!("{x:?}")),
        spoken.motions.intersection(&held.motions).next().map(|x| format!("{x:?}")),
        spoken.titles.intersection(&titles).next().cloned(),
    ];
    found.into_iter().flatten().next()
}

fn words_of(parts: &[Part]) -> impl Iterator<Item = &str> {
    parts.iter().filter_map(|part| if let Part::Text(words) = part { Some(words.as_str()) } else { None })
}

#[test]
fn the_reader_of_texts_finds_combinations() {
    let spoken = read("which list has 4 red stars and seven violet crosses?");
    assert_eq!(spoken.kinds, BTreeSet::from([(Colour::Red, Shape::Star), (Colour::Purple, Shape::Cross)]));
    assert!(spoken.counts.contains(&((Colour::Purple, Shape::Cross), 7)));
    let spoken = read("a big orange hoop is getting smaller on grey");
    assert!(spoken.motions.contains(&(Shape::Ring, Motion::Shrinking)));
    assert!(read("page of the harbour shop").titles.contains("harbour shop"));
}

#[test]
fn training_never_shows_a_held_out_combination() {
    for seed in [7, 8] {
        let world = World::compose(&small(seed));
        let held = HeldOut::draw(seed);
        let mut texts = 0;
        for row in world.datasets.iter().flat_map(|set| &set.rows) {
            let negatives = row.negatives.iter().flat_map(|parts| words_of(parts));
            for words in words_of(&row.query).chain(words_of(&row.positive)).chain(negatives) {
                assert_eq!(leak(&held, words), None, "{}: {words}", row.dataset);
                texts += 1;
            }
        }
        assert!(texts > 100);
        for media in world.album.shows.iter().filter(|media| media.split == "train") {
            assert_eq!(leak(&held, &media.shows), None, "{}", media.file);
        }
    }
}

#[test]
fn training_and_evaluation_share_no_file() {
    let world = World::compose(&small(7));
    let split: BTreeMap<&str, &str> =
        world.album.shows.iter().map(|media| (media.file.as_str(), media.split)).collect();
    let check = |parts: &[Part], expected: &str| {
        for path in parts.iter().flat_map(|part| part.files(Path::new(""))) {
            assert_eq!(split[path.to_str().unwrap()], expected, "{}", path.display());
        }
    };
    for row in world.datasets.iter().flat_map(|set| &set.rows) {
        for parts in [&row.query, &row.positive].into_iter().chain(&row.negatives) {
            check(parts, "train");
        }
    }
    for exam in &world.exams {
        exam.queries.iter().for_each(|row| check(&row.query, "eval"));
        exam.candidates.iter().for_each(|row| check(&row.content, "eval"));
    }
}

/// A part's meaning, written out; equal parts of a pool are equally right.
fn meaning(world: &World, parts: &[Part], ignores_background: bool) -> String {
    let [part] = parts else { panic!("candidates have one part") };
    let (path, page) = match part {
        Part::Text(words) => return words.clone(),
        Part::Image(path) | Part::Video(VideoSource::File(path)) => (path, 1),
        Part::Document { path, page } => (path, *page as usize),
        Part::Video(VideoSource::Frames(_)) => unreachable!("clips are files"),
    };
    let drawing = world.album.files.iter().find(|file| Path::new(&file.0) == path).unwrap();
    match &drawing.1 {
        Drawing::Scene { scene, .. } if ignores_background => format!("{:?}", scene.without_background()),
        Drawing::Scene { scene, .. } => format!("{scene:?}"),
        Drawing::Crop { scene, at, .. } => format!("{:?}", scene.things[*at]),
        Drawing::Clip { clip, .. } => format!("{:?} {:?}", clip.kind, clip.motion),
        Drawing::Pages(pages) => format!("{:?}", pages[page - 1]),
    }
}

#[test]
fn no_two_candidates_of_a_query_mean_the_same() {
    for seed in 1..5 {
        let world = World::compose(&WorldConfig { queries: 64, ..small(seed) });
        for exam in &world.exams {
            let row = exam.task_row();
            assert_eq!(exam.queries.len(), 64, "{}", row.name);
            let meanings: BTreeMap<&str, String> = exam
                .candidates
                .iter()
                .map(|candidate| {
                    (candidate.id.as_str(), meaning(&world, &candidate.content, row.name != "edits"))
                })
                .collect();
            assert_eq!(meanings.len(), exam.candidates.len(), "ids of {} differ", row.name);
            for query in &exam.queries {
                let among: Vec<&str> = match &query.candidates {
                    Some(ids) => ids.iter().map(String::as_str).collect(),
                    None => meanings.keys().copied().collect(),
                };
                let distinct: BTreeSet<&String> = among.iter().map(|id| &meanings[id]).collect();
                assert_eq!(distinct.len(), among.len(), "{} of {}", query.id, row.name);
                assert!(query.relevant.keys().all(|id| among.contains(&id.as_str())));
            }
        }
    }
}

#[test]
fn a_page_that_answers_a_question_is_relevant() {
    let world = World::compose(&WorldConfig { queries: 64, ..small(3) });
    let exam = world.exams.iter().find(|exam| exam.task_row().name == "page_lists").unwrap();
    let described: Vec<Spoken> = exam
        .candidates
        .iter()
        .map(|row| {
            let Part::Document { path, page } = &row.content[0] else { panic!("pages are documents") };
            let shows =
                world.album.shows.iter().find(|m| Path::new(&m.file) == path && m.page == Some(*page));
            read(&shows.unwrap().shows)
        })
        .collect();
    for query in &exam.queries {
        let words = words_of(&query.query).next().unwrap();
        let asked = read(words);
        let has_style = ["list", "table", "chart"].iter().any(|style| words.contains(style));
        for (row, page) in exam.candidates.iter().zip(&described) {
            let answers = asked.counts.is_subset(&page.counts);
            let relevant = query.relevant.contains_key(&row.id);
            assert!(answers || !relevant, "{words}");
            assert!(!answers || relevant || has_style, "{words}");
        }
    }
}

#[test]
fn every_evaluated_thing_is_unseen() {
    let world = World::compose(&small(7));
    let held = HeldOut::draw(7);
    for media in world.album.shows.iter().filter(|media| media.split == "eval") {
        // The other shapes of a picture may be known, and so may a crop of one of them.
        if !media.file.contains("/crops/") {
            assert!(leak(&held, &media.shows).is_some(), "{}: {}", media.file, media.shows);
        }
    }
}

#[test]
fn every_kind_of_task_is_trained_and_evaluated() {
    let world = World::compose(&small(7));
    let trained: BTreeSet<&str> =
        world.datasets.iter().filter(|set| set.stage == 2).map(|set| set.rows[0].task).collect();
    let evaluated: BTreeSet<&str> = world.exams.iter().map(|exam| exam.task_row().task).collect();
    let all: BTreeSet<&str> = rzen_core::Task::PAPER.into_iter().chain(["text_retrieval"]).collect();
    assert_eq!((&trained, &evaluated), (&all, &all));
    for row in world.exams.iter().map(Exam::task_row) {
        let chance = 0.0..=0.26;
        assert!(chance.contains(&row.chance_hit_at_1) && row.chance_hit_at_1 > 0.0, "{}", row.name);
        let trains = |set: &&Dataset| set.stage == 2 && set.rows[0].name == row.name;
        let set = world.datasets.iter().find(trains).expect("every evaluated task is trained");
        assert_eq!(set.rows[0].instruction, row.instruction);
    }
    for set in world.datasets.iter() {
        assert!(set.rows.iter().all(|row| row.instruction.is_empty() == (set.stage == 1)), "{}", set.name);
    }
}

#[test]
fn hard_negatives_are_never_the_positive() {
    let world = World::compose(&small(7));
    let mut count = 0;
    for row in world.datasets.iter().flat_map(|set| &set.rows) {
        for negative in &row.negatives {
            assert_ne!(
                meaning(&world, negative, false),
                meaning(&world, &row.positive, false),
                "{}",
                row.dataset
            );
            count += 1;
        }
    }
    assert!(count > 50);
}

/// Path and contents of every file under `folder`, in order.
fn contents(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(folder).unwrap().to_str().unwrap().to_owned();
                files.insert(name, fs::read(path).unwrap());
            }
        }
    }
    files
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    let home = tempfile::tempdir().unwrap();
    let (a, b, c) = (home.path().join("a"), home.path().join("b"), home.path().join("c"));
    let summary = draw_world(&small(7), &a).unwrap();
    assert_eq!(draw_world(&small(7), &b).unwrap(), summary);
    draw_world(&small(8), &c).unwrap();
    let (a, b, c) = (contents(&a), contents(&b), contents(&c));
    assert!(a.len() > 200);
    assert!(a == b, "two worlds of one seed differ");
    assert!(a != c, "two seeds gave one world");
    assert_eq!(fs::read_dir(home.path()).unwrap().count(), 3, "no partial folder is left");
}

#[test]
fn the_folder_holds_what_the_summary_says() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join("world");
    let summary = draw_world(&small(7), &folder).unwrap();
    let mut endings: BTreeMap<String, usize> = BTreeMap::new();
    for (name, bytes) in contents(&folder) {
        let ending = name.rsplit('.').next().unwrap().to_owned();
        match ending.as_str() {
            "png" | "jpg" | "gif" => {
                let picture = image::load_from_memory(&bytes).unwrap();
                assert!(picture.width() >= 28 && picture.height() <= 140, "{name}");
            }
            "pdf" => assert!(bytes.starts_with(b"%PDF")),
            "jsonl" => {
                for line in String::from_utf8(bytes).unwrap().lines() {
                    let _: serde_json::Value = serde_json::from_str(line).unwrap();
                }
            }
            _ => assert_eq!(name, "world.json"),
        }
        *endings.entry(ending).or_default() += 1;
    }
    assert_eq!(endings["png"] + endings["jpg"], summary.pictures);
    assert_eq!((endings["gif"], endings["pdf"]), (summary.clips, summary.documents));
    let texts = training_texts(&folder).unwrap();
    assert!(texts.iter().any(|words| words == "Find the picture that matches the caption: "));
    assert!(texts.len() > 300);
    assert_eq!(small(7).texts().unwrap(), texts);
}

#[test]
fn the_loader_reads_every_row_and_every_file() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join("world");
    let summary = draw_world(&small(7), &folder).unwrap();
    let loader = rzen_data::Loader::default();
    let mut items = Vec::new();
    for name in summary.stage1.keys().chain(summary.stage2.keys()) {
        let samples = rzen_data::train_rows(&folder.join(name).join("train.jsonl"), &folder).unwrap();
        let in_stage1 = summary.stage1.contains_key(name);
        assert!(samples.iter().all(|sample| sample.query.instruction.is_none() == in_stage1), "{name}");
        items.extend(
            samples.into_iter().flat_map(|s| [s.query, s.positive].into_iter().chain(s.hard_negatives)),
        );
    }
    let corpus = rzen_data::EvalCorpus::open(&folder).unwrap();
    assert_eq!(corpus.tasks.len(), summary.queries.len());
    for task in &corpus.tasks {
        let set = corpus.load(task).unwrap();
        assert_eq!(set.queries.len(), summary.queries[&task.name]);
        items.extend(set.queries.into_iter().map(|query| query.item));
        items.extend(set.pool.into_iter().map(|candidate| candidate.item));
    }
    for item in &items {
        let loaded = loader.load(item).unwrap();
        for media in loaded.parts {
            match media {
                Media::Text(words) => assert!(!words.is_empty()),
                Media::Image(picture) => assert!(picture.width() >= 28),
                Media::Frames(frames) => assert_eq!(frames.len(), clip::FRAMES),
            }
        }
    }
}

#[test]
fn a_standing_world_is_reused_and_another_is_replaced() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join("world");
    let first = draw_world(&small(7), &folder).unwrap();
    assert!(!first.reused);
    fs::write(folder.join("mark"), "").unwrap();
    let second = draw_world(&small(7), &folder).unwrap();
    assert!(second.reused && folder.join("mark").exists());
    assert_eq!(WorldSummary { reused: false, ..second }, first);
    let third = draw_world(&small(8), &folder).unwrap();
    assert!(!third.reused && !folder.join("mark").exists());
    assert_eq!(fs::read_dir(home.path()).unwrap().count(), 1, "nothing is left beside the world");
}

#[test]
fn a_folder_of_something_else_is_left_alone() {
    let home = tempfile::tempdir().unwrap();
    fs::write(home.path().join("thesis.txt"), "years of work").unwrap();
    let error = draw_world(&small(7), home.path()).unwrap_err();
    assert!(matches!(error, WorldError::Occupied { .. }), "{error}");
    assert_eq!(fs::read_dir(home.path()).unwrap().count(), 1);
}

#[test]
fn numbers_that_make_no_world_are_refused() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join("world");
    for config in [WorldConfig { queries: 65, ..small(1) }, WorldConfig { clips: 0, ..small(1) }] {
        let error = draw_world(&config, &folder).unwrap_err();
        assert!(matches!(error, WorldError::Config { .. }), "{error}");
    }
    assert!(!folder.exists());
    let unknown = serde_json::from_str::<WorldConfig>(r#"{"sed": 1}"#).unwrap_err().to_string();
    assert!(unknown.contains("sed"), "{unknown}");
}
