//! Mining where every score is known by hand: a text that ends in a number is the unit vector at that angle in degrees, so
//! that a score is the cosine of the angle between.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rzen_core::{Embed, EmbedError, Part};
use rzen_data::{Loader, Sampling, TeacherFilter, train_rows};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;

/// Embeds angles, counts what it embeds, and fails after some items or at those that say `broken`.
struct Angles {
    turned: f32,
    embedded: Arc<AtomicUsize>,
    most: usize,
}

impl Embed for Angles {
    fn dim(&self) -> usize {
        2
    }

    fn embed(&self, items: &[Item]) -> Result<Vec<Vec<f32>>, EmbedError> {
        let text = |item: &Item| match &item.content[0] {
            Part::Text(text) => text.clone(),
            Part::Image(path) => std::fs::read_to_string(path).unwrap(),
            other => panic!("{other:?}"),
        };
        if let Some(index) = items.iter().position(|item| text(item).contains("broken")) {
            return Err(EmbedError::Item { index, count: items.len(), source: "it is broken".into() });
        }
        if self.embedded.fetch_add(items.len(), Ordering::Relaxed) + items.len() > self.most {
            return Err(EmbedError::Embedder("the power went".into()));
        }
        let vector = |item: &Item| {
            let text = text(item);
            let angle: f32 = text.split_whitespace().last().unwrap().parse().unwrap();
            // The first model counts from the left, the second from the right, and turns words more the longer they are.
            let angle = (angle + self.turned * text.len() as f32).to_radians();
            vec![angle.cos(), angle.sin()]
        };
        Ok(items.iter().map(vector).collect())
    }
}

/// A corpus of one dataset `d`, and what a mining of it needs.
struct Place {
    folder: TempDir,
    embedded: Arc<AtomicUsize>,
    most: usize,
    chunk: usize,
    key: Key,
    teacher: bool,
    teacher_key: Key,
    pools: Vec<PathBuf>,
    scores: bool,
    overwrite: bool,
}

impl Place {
    fn new(rows: &[Value]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("corpus/d")).unwrap();
        let lines: String = rows.iter().map(|row| format!("{row}\n")).collect();
        std::fs::write(folder.path().join("corpus/d/train.jsonl"), lines).unwrap();
        Place {
            folder,
            embedded: Arc::default(),
            most: usize::MAX,
            chunk: 3,
            key: [1; 32],
            teacher: false,
            teacher_key: [2; 32],
            pools: Vec::new(),
            scores: false,
            overwrite: true,
        }
    }

    fn corpus(&self) -> PathBuf {
        self.folder.path().join("corpus")
    }

    fn vectors(&self) -> PathBuf {
        self.folder.path().join("vectors")
    }

    /// Mines, writes and reads what was written.
    fn mine(&self, options: &MineOptions) -> Result<Vec<rzen_core::Sample>> {
        let source = Source::read(&self.corpus(), None, &self.pools)?;
        let open = |turned: f32| -> Result<Box<dyn Embed>> {
            Ok(Box::new(Angles { turned, embedded: self.embedded.clone(), most: self.most }))
        };
        let (plain, turned) = (|| open(0.0), || open(1.0));
        let model = Model::new(self.key, self.chunk, &plain);
        let teacher = Model::new(self.teacher_key, self.chunk, &turned);
        let vectors = self.vectors();
        let mined = mine(&source, &model, self.teacher.then_some(&teacher), &vectors, options)?;
        let settings = json!({ "choice": options.choice });
        let (scores, overwrite) = (self.scores, self.overwrite);
        let record = Record { corpus: self.corpus(), settings, scores, overwrite };
        let output = self.folder.path().join("mined");
        write(&output, &source, &mined, &record, &Loader::default())?;
        Ok(train_rows(&output.join("d/train.jsonl"), &output)?)
    }

    /// The hard negatives of each row.
    fn negatives(&self, options: &MineOptions) -> Vec<Vec<String>> {
        let rows = self.mine(options).unwrap();
        rows.iter().map(|row| row.hard_negatives.iter().map(text_of).collect()).collect()
    }

    /// What became of the first row.
    fn first(&self) -> Value {
        let lines = std::fs::read_to_string(self.folder.path().join("mined/d/mined.jsonl")).unwrap();
        serde_json::from_str(lines.lines().next().unwrap()).unwrap()
    }

    /// Items embedded since the last call.
    fn embedded(&self) -> usize {
        self.embedded.swap(0, Ordering::Relaxed)
    }
}

fn text_of(item: &Item) -> String {
    match &item.content[..] {
        [Part::Text(text)] => text.clone(),
        [Part::Image(path)] => path.file_name().unwrap().to_string_lossy().into_owned(),
        other => panic!("{other:?}"),
    }
}

fn row(query: &str, positive: &str) -> Value {
    json!({ "dataset": "d", "task": "t", "query": [{ "text": query }], "positive": [{ "text": positive }] })
}

fn with(mut row: Value, key: &str, value: Value) -> Value {
    row[key] = value;
    row
}

/// The query looks along 0, its answer stands at 20; others' answers at 10, 40, 50, 60 and 120.
fn rows() -> Vec<Value> {
    let mut rows = vec![row("q 0", "p 20")];
    rows.extend([10, 40, 50, 60, 120].map(|angle| row(&format!("q {}", angle + 180), &format!("n {angle}"))));
    rows
}

fn options(count: usize) -> MineOptions {
    let choice = NegativeChoice {
        count,
        rank: [1, 100],
        below_positive: TeacherFilter::default(),
        max_score: None,
        min_score: None,
        sampling: Sampling::Top,
    };
    MineOptions { choice, keep: true, bad_row_limit: 0 }
}

fn choosing(count: usize, change: impl Fn(&mut NegativeChoice)) -> MineOptions {
    let mut options = options(count);
    change(&mut options.choice);
    options
}

#[test]
fn each_filter_takes_what_it_should() {
    let place = Place::new(&rows());
    let check = |options: MineOptions, expected: &[&str], lost: &[(&str, usize)]| {
        assert_eq!(place.negatives(&options)[0], expected, "{:?}", options.choice);
        let first = place.first();
        for (rule, count) in first["lost"].as_object().unwrap() {
            let expected = lost.iter().find(|(name, _)| name == rule).map_or(0, |(_, count)| *count);
            assert_eq!(*count, json!(expected), "{rule}: {:?}", options.choice);
        }
        // Before it stands 10 alone.
        assert_eq!(first["positive_rank"], 2);
    };
    check(options(2), &["n 10", "n 40"], &[]);
    check(options(9), &["n 10", "n 40", "n 50", "n 60", "n 120"], &[]);
    check(choosing(2, |choice| choice.rank = [2, 3]), &["n 40", "n 50"], &[("rank", 1)]);
    // cos 20° - cos 40° = 0.174.
    let margin = |margin| TeacherFilter { margin: Some(margin), percent: None };
    check(choosing(2, |choice| choice.below_positive = margin(0.17)), &["n 40", "n 50"], &[("margin", 1)]);
    check(choosing(2, |choice| choice.below_positive = margin(0.18)), &["n 50", "n 60"], &[("margin", 2)]);
    // cos 40° is 81.5 % of cos 20°.
    let percent = |percent| TeacherFilter { margin: None, percent: Some(percent) };
    check(choosing(2, |choice| choice.below_positive = percent(82.0)), &["n 40", "n 50"], &[("percent", 1)]);
    check(choosing(2, |choice| choice.below_positive = percent(81.0)), &["n 50", "n 60"], &[("percent", 2)]);
    check(choosing(2, |choice| choice.max_score = Some(0.7)), &["n 50", "n 60"], &[("max_score", 2)]);
    check(choosing(9, |choice| choice.min_score = Some(0.7)), &["n 10", "n 40"], &[("min_score", 3)]);
}

#[test]
fn what_answers_is_never_a_negative() {
    let mut rows = rows();
    // The same answer in other letters, the answer of another row that asks the same, the query as someone's answer.
    rows.push(row("q 200", " P  20 "));
    rows.push(row("Q 0", "n 15"));
    rows.push(row("q 201", "q 0"));
    // A second answer, which is lower than the first: a negative stays below it.
    rows[0].as_object_mut().unwrap().remove("positive");
    rows[0]["positives"] = json!([[{ "text": "p 20" }], [{ "text": "p 45" }]]);
    rows.push(row("q 202", "p 45"));
    let place = Place::new(&rows);
    assert_eq!(place.negatives(&options(9))[0], ["n 10", "n 40", "n 50", "n 60", "n 120"]);
    let below = choosing(9, |choice| choice.below_positive.margin = Some(0.0));
    assert_eq!(place.negatives(&below)[0], ["n 50", "n 60", "n 120"]);
    // A question with another instruction is another question.
    let mut rows = self::rows();
    rows.push(with(row("q 0", "n 15"), "instruction", json!("Find the other one.")));
    assert_eq!(Place::new(&rows).negatives(&options(2))[0], ["n 10", "n 15"]);
}

#[test]
fn rows_of_a_label_and_of_other_names_are_left_alone() {
    let label = |row: Value, label: &str| with(row, "label", json!(label));
    let mut rows = rows();
    rows[0] = label(rows[0].clone(), "a");
    rows[1] = label(rows[1].clone(), "a");
    rows[2] = label(rows[2].clone(), "b");
    // `n 50` answers a row of each label; `n 60` one of another name.
    rows.extend([label(row("q 231", "n 50"), "a"), label(row("q 232", "n 50"), "b")]);
    rows[4] = with(rows[4].clone(), "name", json!("other"));
    assert_eq!(Place::new(&rows).negatives(&options(9))[0], ["n 40", "n 120"]);
}

#[test]
fn the_same_bytes_under_another_name_are_the_same_answer() {
    let place = Place::new(&[]);
    let write = |name: &str, angle: &str| std::fs::write(place.corpus().join(name), angle).unwrap();
    for (name, angle) in [("a.png", "20"), ("copy.png", "20"), ("b.png", "30")] {
        write(name, angle);
    }
    let row = |query: &str, file: &str| with(row(query, ""), "positive", json!([{ "image": file }]));
    let rows = [row("q 0", "a.png"), row("q 180", "copy.png"), row("q 181", "b.png")];
    let lines: String = rows.iter().map(|row| format!("{row}\n")).collect();
    std::fs::write(place.corpus().join("d/train.jsonl"), lines).unwrap();
    assert_eq!(place.negatives(&options(3)), [["b.png"], ["b.png"], ["a.png"]]);
    // Three queries and two pictures.
    assert_eq!(place.embedded(), 5);
    // A file that changes is embedded again.
    write("b.png", "31");
    assert_eq!(place.negatives(&options(3))[0], ["b.png"]);
    assert_eq!(place.embedded(), 1);
    // What isn't there is found before anything is embedded.
    write("a.png", "25");
    std::fs::remove_file(place.corpus().join("copy.png")).unwrap();
    let error = place.mine(&options(3)).unwrap_err().to_string();
    assert!(
        error.contains("train.jsonl:2") && error.contains("copy.png") && place.embedded() == 0,
        "{error}"
    );
}

#[test]
fn the_pictures_of_a_query_are_none_of_its_negatives() {
    let place = Place::new(&[]);
    for (name, angle) in [("q.png", "0"), ("copy.png", "0"), ("a.png", "10"), ("b.png", "40")] {
        std::fs::write(place.corpus().join(name), angle).unwrap();
    }
    let image = |file: &str| json!([{ "image": file }]);
    let asks = |file: &str| json!([{ "image": file }, { "text": "in red" }]);
    let row = |query: Value, file: &str| json!({ "dataset": "d", "task": "t", "query": query, "positive": image(file) });
    let both = json!([{ "image": "q.png" }, { "image": "a.png" }]);
    let rows = [row(asks("q.png"), "a.png"), row(asks("b.png"), "copy.png"), row(both, "b.png")];
    let lines: String = rows.iter().map(|row| format!("{row}\n")).collect();
    std::fs::write(place.corpus().join("d/train.jsonl"), lines).unwrap();
    // Of the two pictures of the third query, each alone is another thing.
    assert_eq!(place.negatives(&options(3)), [vec!["b.png"], vec!["a.png"], vec!["copy.png", "a.png"]]);
}

#[test]
fn a_teacher_is_another_model_and_free() {
    let mut place = Place { teacher: true, teacher_key: [1; 32], ..Place::new(&rows()) };
    let error = place.mine(&options(2)).unwrap_err().to_string();
    assert!(error.contains("--teacher-model"), "{error}");
    place.teacher_key = [2; 32];
    let busy = VectorStore::open(&place.vectors(), &place.teacher_key).unwrap();
    let error = place.mine(&options(2)).unwrap_err().to_string();
    assert!(error.contains("another rzen") && place.embedded() == 0, "{error}");
    drop(busy);
    place.mine(&options(2)).unwrap();
}

#[test]
fn what_is_wrong_with_tasks_is_found_before_anything_is_embedded() {
    let place = Place::new(&rows());
    std::fs::write(place.corpus().join("tasks.jsonl"), "\nno task\n").unwrap();
    let error = format!("{:#}", place.mine(&options(2)).unwrap_err());
    assert!(error.contains("tasks.jsonl:2") && !error.contains("room on the disk"), "{error}");
    assert_eq!(place.embedded(), 0);
}

#[test]
fn what_an_import_left_unfinished_is_no_dataset() {
    let place = Place::new(&rows());
    std::fs::create_dir(place.corpus().join(".e.part")).unwrap();
    std::fs::write(place.corpus().join(".e.part/train.jsonl"), "half a r").unwrap();
    assert_eq!(place.negatives(&options(2))[0], ["n 10", "n 40"]);
    assert!(!place.folder.path().join("mined/.e.part").exists());
}

#[test]
fn vectors_are_embedded_once_for_a_model() {
    let place = Place::new(&rows());
    let negatives = place.negatives(&options(2));
    assert_eq!(place.embedded(), 12);
    assert_eq!((place.negatives(&options(2)), place.embedded()), (negatives, 0));
    let changed = choosing(2, |choice| choice.rank = [2, 3]);
    assert_eq!(
        (place.negatives(&changed)[0].clone(), place.embedded()),
        (vec!["n 40".into(), "n 50".into()], 0)
    );
    let other = Place { key: [3; 32], ..place };
    other.negatives(&options(2));
    assert_eq!(other.embedded(), 12);
}

#[test]
fn a_mining_that_was_killed_goes_on() {
    let killed = Place { most: 7, ..Place::new(&rows()) };
    let error = format!("{:#}", killed.mine(&options(2)).unwrap_err());
    assert!(error.contains("the power went") && !killed.folder.path().join("mined").exists(), "{error}");
    killed.embedded();
    let place = Place { most: usize::MAX, ..killed };
    assert_eq!(place.negatives(&options(2)), Place::new(&rows()).negatives(&options(2)));
    // Two threes were kept.
    assert_eq!(place.embedded(), 6);
}

#[test]
fn pieces_and_threads_change_nothing() {
    let rows: Vec<Value> = (0..90).map(|i| row(&format!("q {}", i * 4), &format!("n {}", i * 7))).collect();
    let random =
        choosing(4, |choice| (choice.rank, choice.sampling) = ([5, 60], Sampling::Random { seed: 3 }));
    let one = Place { chunk: 1, ..Place::new(&rows) }.negatives(&random);
    let threads = rayon::ThreadPoolBuilder::new().num_threads(5).build().unwrap();
    let many = threads.install(|| Place { chunk: 100, ..Place::new(&rows) }.negatives(&random));
    assert!(one == many && one.iter().all(|negatives| negatives.len() == 4));
    let seed = choosing(4, |choice| (choice.rank, choice.sampling) = ([5, 60], Sampling::Random { seed: 4 }));
    assert!(Place::new(&rows).negatives(&seed) != one);
}

#[test]
fn rows_keep_or_lose_the_negatives_they_had() {
    let mut rows = rows();
    rows[0] = with(rows[0].clone(), "negatives", json!([[{ "text": "had 70" }], [{ "text": "N 40" }]]));
    rows[0] = with(rows[0].clone(), "positive_scores", json!([5.0]));
    rows[0] = with(rows[0].clone(), "negative_scores", json!([4.0, 3.0]));
    let place = Place::new(&rows);
    // One that the row has is not taken again, and others may have it.
    assert_eq!(place.negatives(&options(2))[0], ["had 70", "N 40", "n 10", "n 50"]);
    assert_eq!(place.negatives(&options(9))[5], ["n 10", "p 20", "N 40", "n 50", "n 60", "had 70"]);
    let replaced = MineOptions { keep: false, ..options(2) };
    // Of those that show the same, the one met first.
    assert_eq!(place.negatives(&replaced)[0], ["n 10", "N 40"]);
    // Scores of another scale go.
    assert_eq!(place.mine(&options(2)).unwrap()[0].teacher, None);
    let scored = Place { scores: true, ..place };
    let teacher = scored.mine(&options(2)).unwrap().remove(0).teacher.unwrap();
    let cosines = |angles: &[f64]| angles.iter().map(|angle| angle.to_radians().cos()).collect::<Vec<_>>();
    for (scores, expected) in
        [(teacher.positives, cosines(&[20.0])), (teacher.negatives, cosines(&[70.0, 40.0, 10.0, 50.0]))]
    {
        assert_eq!(scores.len(), expected.len());
        assert!(scores.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-6), "{scores:?}");
    }
}

#[test]
fn a_teacher_scores_what_the_model_ranks() {
    let place = Place { teacher: true, scores: true, ..Place::new(&rows()) };
    // By the teacher, which turns each text by its letters, the answer is at 24 from the query at 3, `n 40` at 44.
    let margin = (21.0f64).to_radians().cos() - (41.0f64).to_radians().cos();
    let filter = |margin| choosing(2, |choice| choice.below_positive.margin = Some(margin));
    assert_eq!(place.negatives(&filter(margin - 1e-4))[0], ["n 40", "n 50"]);
    assert_eq!(place.negatives(&filter(margin + 1e-4))[0], ["n 50", "n 60"]);
    let teacher = place.mine(&options(1)).unwrap().remove(0).teacher.unwrap();
    assert!((teacher.positives[0] - (21.0f64).to_radians().cos()).abs() < 1e-6, "{teacher:?}");
    assert!((teacher.negatives[0] - (11.0f64).to_radians().cos()).abs() < 1e-6, "{teacher:?}");
}

#[test]
fn what_can_not_be_embedded_costs_its_row() {
    let mut rows = rows();
    rows.insert(3, row("q 7", "broken"));
    let pool = json!({ "id": "c", "content": [{ "text": "c 41" }], "note": "x" });
    let broken = json!({ "id": "b", "content": [{ "text": "broken too" }] });
    let mut place = Place::new(&rows);
    place.chunk = 100;
    let file = place.corpus().join("pool_more.jsonl");
    std::fs::write(&file, format!("{pool}\n{broken}\n")).unwrap();
    place.pools = vec![file];
    let error = place.mine(&MineOptions { bad_row_limit: 1, ..options(3) }).unwrap_err().to_string();
    assert!(error.contains("2 rows") && error.contains("train.jsonl:4: it is broken"), "{error}");
    assert!(error.contains("pool_more.jsonl:2") && error.contains("--bad-row-limit"), "{error}");
    assert_eq!(place.embedded(), 14);
    let negatives = place.negatives(&MineOptions { bad_row_limit: 2, ..options(3) });
    assert_eq!((negatives.len(), &negatives[0][..]), (6, &["n 10", "n 40", "c 41"].map(String::from)[..]));
    let record = std::fs::read_to_string(place.folder.path().join("mined/mine.json")).unwrap();
    let record: Value = serde_json::from_str(&record).unwrap();
    assert_eq!(record["bad_rows"].as_array().unwrap().len(), 2);
    let unit = &record["datasets"][0];
    assert_eq!((&unit["rows"], &unit["candidates"], &unit["taken"]), (&json!(6), &json!(7), &json!(18)));
    assert_eq!(unit["positive_ranks"]["2-3"], 1, "{unit}");
}

#[test]
fn what_came_into_the_output_meanwhile_stays() {
    let place = Place { overwrite: false, ..Place::new(&rows()) };
    let output = place.folder.path().join("mined");
    std::fs::create_dir(&output).unwrap();
    std::fs::write(output.join("notes.txt"), "mine").unwrap();
    let error = format!("{:#}", place.mine(&options(2)).unwrap_err());
    assert!(error.contains("mined exists; choose another") && !error.contains("room on the disk"), "{error}");
    let place = Place { overwrite: true, ..place };
    let error = place.mine(&options(2)).unwrap_err().to_string();
    assert!(error.contains("no such folder"), "{error}");
    assert_eq!(std::fs::read_to_string(output.join("notes.txt")).unwrap(), "mine");
}

#[test]
fn nothing_but_a_mining_is_replaced() {
    let place = Place::new(&rows());
    place.mine(&options(2)).unwrap();
    let output = place.folder.path().join("mined");
    let refusal = |overwrite| check_output(&output, &place.corpus(), overwrite).unwrap_err();
    assert!(refusal(false).to_string().contains("--overwrite"));
    std::fs::write(output.join("d/notes.txt"), "mine").unwrap();
    assert!(refusal(true).to_string().contains("notes.txt"));
    std::fs::remove_file(output.join("mine.json")).unwrap();
    assert!(refusal(true).to_string().contains("no such folder"));
    for above in [place.folder.path().to_owned(), place.corpus()] {
        let error = check_output(&above, &place.corpus(), true).unwrap_err().to_string();
        assert!(error.contains("which is read"), "{error}");
    }
}
