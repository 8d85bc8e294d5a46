//! Evaluations: what they write, what a second one costs, and which differences are real.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::Path;

use rzen_data::Suite;
use serde_json::{Value, json};

use crate::command::{refuse, succeed};
use crate::miniature::{Expected, Meant, write};
use crate::verbs::{names, trained};

fn json_of(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

#[test]
fn a_second_evaluation_embeds_nothing_and_scores_the_same() {
    let trained = trained();
    let [model, world] = ["soup/model", "world"].map(|name| trained.path(name));
    let place = tempfile::tempdir().unwrap();
    let folder = place.path();
    let eval = |more: &[&str]| {
        succeed(folder, &[&["eval", "--model", &model, "--data", &world, "--output"], more].concat())
    };
    let first = eval(&["one"]);
    assert!(first.contains(" items, 0 of them embedded before; vectors in one.vectors"), "{first}");
    assert_eq!(names(&folder.join("one")), ["eval.json", "queries.jsonl", "report.html", "results.json"]);
    let forms = ["--dims", "8,16", "--quantize", "int8,binary"];
    let second = eval(&[&["two", "--vectors", "one.vectors"], &forms[..]].concat());
    let line = second.lines().find(|line| line.contains("embedded before")).unwrap();
    let numbers: Vec<&str> =
        line.split(|c: char| !c.is_ascii_digit()).filter(|part| !part.is_empty()).collect();
    assert!(numbers[0] == numbers[1] && numbers[0] != "0", "{line}");
    assert_eq!(names(folder), ["one", "one.vectors", "two"]);
    // In one file: the same numbers.
    eval(&["three.json"]);
    let scores = fs::read_to_string(folder.join("one/results.json")).unwrap();
    for other in ["two/results.json", "three.json"] {
        assert_eq!(fs::read_to_string(folder.join(other)).unwrap(), scores, "{other}");
    }

    let (one, two) = (json_of(&folder.join("one/eval.json")), json_of(&folder.join("two/eval.json")));
    assert_eq!(one["tasks"]["pictures"]["score"], two["tasks"]["pictures"]["score"]);
    let score = &one["score"];
    let number = |value: &Value| value.as_f64().unwrap();
    assert!(
        number(&score["low"]) <= number(&score["mean"]) && number(&score["mean"]) <= number(&score["high"])
    );
    let forms: Vec<&String> = two["compressed"].as_object().unwrap().keys().collect();
    assert_eq!(forms, ["int8", "binary", "8", "8+int8", "8+binary", "16", "16+int8", "16+binary"]);
    assert_eq!(two["compressed"]["16+int8"]["bytes"], 20);
    assert!(one["compressed"].as_object().unwrap().is_empty());
    let lines = fs::read_to_string(folder.join("one/queries.jsonl")).unwrap();
    let tasks = one["tasks"].as_object().unwrap();
    assert_eq!(
        lines.lines().count() as u64,
        tasks.values().map(|task| task["queries"].as_u64().unwrap()).sum::<u64>()
    );
    let page = fs::read_to_string(folder.join("two/report.html")).unwrap();
    for words in ["Worst queries", "Smaller vectors", "95 % interval", "16+binary", "pictures"] {
        assert!(page.contains(words), "{words}");
    }

    let error = refuse(folder, &["eval", "--model", &model, "--data", &world, "--output", "one"]);
    assert!(error.contains("--overwrite"), "{error}");
    let before = fs::read(folder.join("one/eval.json")).unwrap();
    eval(&["one", "--overwrite"]);
    assert_eq!(fs::read(folder.join("one/eval.json")).unwrap(), before);
}

#[test]
fn what_can_not_be_read_is_told_of_all_tasks_at_once_and_nothing_is_written() {
    let trained = trained();
    let model = trained.path("soup/model");
    let place = tempfile::tempdir().unwrap();
    let folder = place.path();
    let task = |name: &str| {
        format!(
            "{}\n",
            json!({"name": name, "dataset": "d", "task": "image_retrieval", "metric": "hit_rate@1",
            "queries": format!("{name}.jsonl"), "pool": format!("pool_{name}.jsonl")})
        )
    };
    fs::write(folder.join("tasks.jsonl"), ["a", "b", "c"].map(task).concat()).unwrap();
    for name in ["a", "b", "c"] {
        let query = json!({"id": "q", "query": [{"text": "x"}], "pool": name, "relevant": {"1": 1}});
        fs::write(folder.join(format!("{name}.jsonl")), format!("{query}\n")).unwrap();
        let image = |id: u32, file: &str| {
            format!("{}\n", json!({"id": id.to_string(), "content": [{"image": file}]}))
        };
        let file = if name == "b" { "good.png" } else { "bad.png" };
        fs::write(folder.join(format!("pool_{name}.jsonl")), image(1, "good.png") + &image(2, file)).unwrap();
    }
    fs::copy(crate::verbs::picture(), folder.join("good.png")).unwrap();
    fs::write(folder.join("bad.png"), "no picture").unwrap();
    let error = refuse(folder, &["eval", "--model", &model, "--data", ".", "--output", "out"]);
    assert!(error.contains("2 items can't be embedded"), "{error}");
    for words in ["task `a`, candidate `2`", "task `c`, candidate `2`", "bad.png"] {
        assert!(error.contains(words), "{words}: {error}");
    }
    assert!(!error.contains("task `b`") && !folder.join("out").exists(), "{error}");
    // Mended, it goes on from there.
    fs::copy(crate::verbs::picture(), folder.join("bad.png")).unwrap();
    let said = succeed(folder, &["eval", "--model", &model, "--data", ".", "--output", "out"]);
    assert!(said.contains("2 items, 2 of them embedded before"), "{said}");
}

#[test]
fn comparisons_name_tasks_and_refuse_what_is_no_evaluation() {
    let trained = trained();
    let [world, run] = ["world", ""].map(|name| trained.path(name));
    let place = tempfile::tempdir().unwrap();
    let folder = place.path();
    for (name, model) in [("start", "start"), ("soup", "soup/model")] {
        let model = trained.path(model);
        succeed(folder, &["eval", "--model", &model, "--data", &world, "--output", name]);
    }
    let said = succeed(folder, &["eval", "compare", "start", "soup", "--output", "found.json"]);
    assert!(said.contains("pictures") && said.contains("mean of all (12)"), "{said}");
    let found = json_of(&folder.join("found.json"));
    let mean = |name: &str| json_of(&folder.join(name).join("eval.json"))["score"]["mean"].as_f64().unwrap();
    let difference = found["overall"]["mean_difference"].as_f64().unwrap();
    assert!((difference - (mean("soup") - mean("start"))).abs() < 1e-9, "{found}");
    // The run's own last model is the soup.
    let same = succeed(folder, &["eval", "compare", &run, "soup"]);
    let all = same.lines().find(|line| line.starts_with("mean of all")).unwrap();
    assert!(all.contains("+0.000 to +0.000") && !all.contains("better"), "{same}");
    let error = refuse(folder, &["eval", "compare", "start", "soup", "--output", "soup/eval.json"]);
    assert!(error.contains("lies in soup") && error.contains("elsewhere"), "{error}");
    let error = refuse(folder, &["eval", "compare", "start", &world]);
    assert!(error.contains("eval.json") && error.contains("results/report.json"), "{error}");
    let usage = refuse(folder, &["eval", "--data", &world]);
    assert!(usage.contains("--model"), "{usage}");
}

/// Embeds what data sets mean, by the verb that embeds rows, whatever evaluates them.
fn vectors(folder: &Path, data: &str, model: &str, meant: &[(&Meant, &str)]) -> Vec<Vec<f64>> {
    let row = |(i, (meant, words)): (usize, &(&Meant, &str))| {
        let file = |name: &String| format!("{data}/{name}");
        let media = match &meant.media[..] {
            [] => None,
            [one] if one.ends_with(".jpg") || one.ends_with(".png") => Some(json!({"image": file(one)})),
            frames => Some(json!({"video": frames.iter().map(file).collect::<Vec<_>>()})),
        };
        let text = (!words.is_empty()).then(|| json!({ "text": words }));
        let content: Vec<Value> = media.into_iter().chain(text).collect();
        format!("{}\n", json!({"id": i.to_string(), "content": content}))
    };
    fs::write(folder.join("meant.jsonl"), meant.iter().enumerate().map(row).collect::<String>()).unwrap();
    succeed(
        folder,
        &["embed", "--model", model, "--input", "meant.jsonl", "--output", "meant-vectors.jsonl"],
    );
    let lines = fs::read_to_string(folder.join("meant-vectors.jsonl")).unwrap();
    let vector = |line: &str| -> Vec<f64> {
        let line: Value = serde_json::from_str(line).unwrap();
        line["embedding"].as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
    };
    lines.lines().map(vector).collect()
}

/// The least and the most that a data set may score, where scores nearer than this can't be told apart.
const NEAR: f64 = 1e-5;

fn bounds(
    expected: &Expected,
    metric: &str,
    vector: &dyn Fn(&Meant) -> Vec<f64>,
    labels: &[String],
) -> [f64; 2] {
    let label = |label: &String| (label.clone(), Meant::new(&[], label));
    let mut pool: BTreeMap<String, Meant> = labels.iter().map(label).collect();
    pool.extend(expected.candidates.clone());
    let pool: BTreeMap<&String, Vec<f64>> = pool.iter().map(|(id, meant)| (id, vector(meant))).collect();
    let mut sums = [0.0; 2];
    for query in &expected.queries {
        let of_query = vector(&query.meant);
        let all: Vec<&String> = pool.keys().copied().collect();
        let listed: Vec<&String> = query.candidates.iter().flatten().collect();
        let ranked = if query.candidates.is_some() { listed } else { all };
        let score = |id: &String| -> f64 { of_query.iter().zip(&pool[id]).map(|(a, b)| a * b).sum() };
        let scores: HashMap<&String, f64> = ranked.iter().map(|id| (*id, score(id))).collect();
        let relevant: Vec<(&String, f64)> =
            query.relevant.iter().filter(|(_, grade)| *grade > 0.0).map(|(id, grade)| (id, *grade)).collect();
        for (bound, near) in [(0, -NEAR), (1, NEAR)] {
            // The place of an answer if everything near it is ahead, or behind.
            let place = |id: &String| {
                let own = scores[id] + near;
                scores.iter().filter(|(other, score)| **other != id && **score > own).count()
            };
            sums[bound] += match metric {
                "hit_rate@1" => f64::from(u8::from(relevant.iter().any(|(id, _)| place(id) == 0))),
                "ndcg@5" => {
                    let discount =
                        |place: usize| if place < 5 { 1.0 / (place as f64 + 2.0).log2() } else { 0.0 };
                    let mut grades: Vec<f64> = relevant.iter().map(|(_, grade)| *grade).collect();
                    grades.sort_by(|a, b| b.total_cmp(a));
                    let ideal: f64 = grades.iter().enumerate().map(|(at, grade)| grade * discount(at)).sum();
                    relevant.iter().map(|(id, grade)| grade * discount(place(id))).sum::<f64>() / ideal
                }
                other => panic!("no data set is measured by {other}"),
            };
        }
    }
    sums.map(|sum| sum / expected.queries.len() as f64)
}

/// Labels of data sets whose pools are whole lists of labels.
fn labels(task: &str) -> Vec<String> {
    let text = match task {
        "K700" => include_str!("../../../rzen-data/src/published/labels/kinetics-700.txt"),
        "HMDB51" => include_str!("../../../rzen-data/src/published/labels/hmdb51.txt"),
        "UCF101" => include_str!("../../../rzen-data/src/published/labels/ucf101.txt"),
        "Breakfast" => include_str!("../../../rzen-data/src/published/labels/breakfast.txt"),
        _ => "",
    };
    text.lines().map(str::to_owned).collect()
}

/// A model's copy with the settings of VLM2Vec's runner in its `processor.json`.
fn plain_copy(model: &str, copy: &Path) -> String {
    fs::create_dir(copy).unwrap();
    for name in names(Path::new(model)) {
        fs::copy(Path::new(model).join(&name), copy.join(&name)).unwrap();
    }
    let mut processor = json_of(&copy.join("processor.json"));
    processor["template"] = json!("plain");
    (processor["image_tokens"], processor["frame_tokens"]) = (json!([4, 1280]), json!([4, 1280]));
    (processor["num_frames"], processor["max_length"]) = (json!(8), json!(32768));
    fs::write(copy.join("processor.json"), processor.to_string()).unwrap();
    copy.to_str().unwrap().to_owned()
}

#[test]
fn all_78_sets_of_mmeb_score_as_computed_by_hand() {
    let trained = trained();
    let model = trained.path("soup/model");
    let place = tempfile::tempdir().unwrap();
    let folder = place.path();
    let data = folder.join("benchmark");
    fs::create_dir(&data).unwrap();
    let expected = write(Suite::MmebV2, &data);
    let eval = ["eval", "--benchmark", "mmeb-v2", "--model", &model, "--data", "benchmark", "--output"];
    // In miniature no set has its published size.
    let error = refuse(folder, &[&eval[..], &["mmeb"]].concat());
    assert!(error.contains("ImageNet-1K") && error.contains("--allow-other-counts"), "{error}");
    let more = ["mmeb", "--allow-other-counts", "--num-frames", "8"];
    let said = succeed(folder, &[&eval[..], &more].concat());
    assert!(said.contains("mean of 78 tasks"), "{said}");
    check_scores(&expected, folder, "mmeb", &model, |meant| &meant.rzen);
    check_files(&folder.join("mmeb"));

    let more = ["plain", "--allow-other-counts", "--protocol", "vlm2vec"];
    succeed(folder, &[&eval[..], &more].concat());
    let copy = plain_copy(&model, &folder.join("copy"));
    check_scores(&expected, folder, "plain", &copy, |meant| &meant.vlm2vec);
    let settings = &json_of(&folder.join("plain/eval.json"))["settings"];
    assert_eq!(
        (&settings["protocol"], &settings["processor"]["template"]),
        (&json!("vlm2vec"), &json!("plain"))
    );
}

#[test]
fn sets_of_beir_may_lie_a_folder_deeper() {
    let trained = trained();
    let model = trained.path("soup/model");
    let place = tempfile::tempdir().unwrap();
    let folder = place.path();
    fs::create_dir(folder.join("beir")).unwrap();
    write(Suite::Beir, &folder.join("beir"));
    let eval = ["eval", "--benchmark", "beir", "--model", &model, "--data", "beir", "--output"];
    succeed(folder, &[&eval[..], &["out"]].concat());
    assert_eq!(names(&folder.join("out/text/forums")), ["cats_score.json"]);
    let scores = json_of(&folder.join("out/results.json"));
    assert!(scores["forums/cats"]["ndcg@10"].is_number() && scores["fever"]["queries"] == 2, "{scores}");
}

#[test]
fn what_is_asked_for_wrongly_is_told_before_any_table_is_read() {
    let trained = trained();
    let model = trained.path("soup/model");
    let place = tempfile::tempdir().unwrap();
    let folder = place.path();
    fs::write(folder.join("notes.txt"), "mine").unwrap();
    // There is nothing to read.
    let eval = ["eval", "--model", &model, "--data", "nowhere", "--output", "out"];
    let cases: [(&[&str], &[&str]); 11] = [
        (&["--num-frames", "0"], &["`num_frames` is 0"]),
        (&["--image-tokens", "1..99999999"], &["`image_tokens`", "16777216"]),
        (&["--adapter", "nowhere"], &["--adapter nowhere", "adapter_config.json"]),
        (&["--device", "cuda:x"], &["`x` is no number"]),
        (&["--tasks", "pictures,labels,pictures"], &["--tasks", "`pictures` twice"]),
        (&["--dims", "16,33"], &["--dims 33", "32 numbers"]),
        (&["--dtype", "f8"], &["f8", "bf16"]),
        (&["--device", "abacus"], &["abacus", "cpu"]),
        (&["--batch-tokens", "0"], &["--batch-tokens is 0"]),
        (&["--load", "max_pixels=many"], &["max_pixels"]),
        (&["--vectors", "notes.txt"], &["--vectors notes.txt", "a file stands there"]),
    ];
    for (options, expected) in cases {
        let error = refuse(folder, &[&eval[..], options].concat());
        assert!(expected.iter().all(|words| error.contains(words)), "{options:?}: {error}");
        assert_eq!(names(folder), ["notes.txt"], "{options:?}");
    }
    let about = ["--benchmark", "beir", "--about", "url=a", "--about", "url=b"];
    let error = refuse(folder, &[&eval[..], &about].concat());
    assert!(error.contains("--about names `url` twice"), "{error}");
}

/// Compares an evaluation with scores of the vectors that `model` gives to what the sets mean, in these words.
fn check_scores(expected: &[Expected], folder: &Path, output: &str, model: &str, words: fn(&Meant) -> &str) {
    let found = json_of(&folder.join(output).join("eval.json"));
    assert_eq!(found["tasks"].as_object().unwrap().len(), 78);
    let labelled: Vec<Meant> = ["K700", "HMDB51", "UCF101", "Breakfast"]
        .into_iter()
        .flat_map(labels)
        .map(|label| Meant::new(&[], &label))
        .collect();
    let sets = expected
        .iter()
        .flat_map(|set| set.queries.iter().map(|query| &query.meant).chain(set.candidates.values()));
    let meant: Vec<(&Meant, &str)> = sets.chain(&labelled).map(|meant| (meant, words(meant))).collect();
    let data = folder.join("benchmark");
    let embedded = vectors(folder, data.to_str().unwrap(), model, &meant);
    let key = |meant: &Meant| (meant.media.clone(), words(meant).to_owned());
    let by_content: HashMap<_, _> = meant.iter().map(|(one, _)| key(one)).zip(embedded).collect();
    let vector = |meant: &Meant| by_content[&key(meant)].clone();
    let mut open = 0;
    for set in expected {
        let metric = found["tasks"][&set.task]["metric"].as_str().unwrap();
        let [low, high] = bounds(set, metric, &vector, &labels(&set.task));
        let score = found["tasks"][&set.task]["score"]["mean"].as_f64().unwrap();
        let fits = low - 1e-9 <= score && score <= high + 1e-9;
        assert!(fits, "{output}, {}: {score}, expected {low} to {high}", set.task);
        open += usize::from(high - low > 1e-9);
    }
    assert!(open < 20, "{output}: {open} data sets are too near to call");
    let scores = found["tasks"].as_object().unwrap().values();
    let mean = scores.map(|task| task["score"]["mean"].as_f64().unwrap()).sum::<f64>() / 78.0;
    assert!((found["score"]["mean"].as_f64().unwrap() - mean).abs() < 1e-9);
}

/// Groups, and the files of VLM2Vec.
fn check_files(output: &Path) {
    let groups = &json_of(&output.join("eval.json"))["groups"];
    let counts = [
        ("image", 36),
        ("video", 18),
        ("visdoc", 24),
        ("in-distribution", 20),
        ("out-of-distribution", 16),
        ("V-MRET", 3),
    ];
    for (name, count) in counts {
        assert_eq!(groups[name]["tasks"], count, "{name}");
    }
    // Of other sizes than the published ones there is nothing to submit.
    assert!(!output.join("submission.json").exists());
    let notes = json_of(&output.join("eval.json"))["notes"].to_string();
    assert!(notes.contains("neither a submission.json nor a comparison"), "{notes}");
    for (modality, count) in &counts[..3] {
        let files = names(&output.join(modality));
        assert_eq!(files.len(), *count);
        for file in files {
            assert_eq!(json_of(&output.join(modality).join(&file)).as_object().unwrap().len(), 26, "{file}");
        }
    }
}
