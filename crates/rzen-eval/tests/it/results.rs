//! Results as file and table.

use std::fs;

use rzen_core::{Item, Task};
use rzen_eval::{Metric, Results, TaskScore};

use crate::embedders::{Toy, direction, text};
use crate::run::{pairs, run};

fn score(name: &str, kind: &str, metric: &str, count: usize) -> TaskScore {
    // Right for even queries only.
    let toy = Toy::new(|item: &Item| {
        let odd = text(item).parse::<usize>().unwrap() % 2 == 1;
        direction((text(item), odd && item.instruction.is_some()), 64)
    });
    let mut task = pairs(name, count, |_| None);
    task.kind = Task(kind.into());
    task.metric = metric.parse().unwrap();
    run(&toy, &task).unwrap()
}

fn results() -> Results {
    let mut results = Results::new();
    for (name, kind, metric) in [
        ("pets_t2i", "image_retrieval", "hit_rate@1"),
        ("pages", "document_retrieval", "precision@5"),
        ("pets_i2t", "image_retrieval", "mrr@10"),
    ] {
        results.push(&score(name, kind, metric, 20)).unwrap();
    }
    results
}

#[test]
fn the_file_has_the_documented_form() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("results.json");
    fs::write(&path, "old").unwrap();
    results().save(&path).unwrap();
    let json: serde_json::Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    let tasks: Vec<&String> = json.as_object().unwrap().keys().collect();
    assert_eq!(tasks, ["pets_t2i", "pages", "pets_i2t"]);
    let pages = json["pages"].as_object().unwrap();
    assert_eq!(pages.keys().next().unwrap(), "precision@5");
    assert!(pages.values().all(serde_json::Value::is_number));
    for (key, value) in pages {
        let metric = key.parse::<Metric>().is_ok();
        assert!(metric || (key == "queries" && *value == 20), "{key}: {value}");
    }
    for metric in Metric::STANDARD {
        assert!(json["pets_t2i"][metric.to_string()].is_f64(), "{metric}");
    }
    let hit = json["pets_t2i"]["hit_rate@1"].as_f64().unwrap();
    assert!((0.5..0.75).contains(&hit), "{hit}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no temporary file is left");
}

#[test]
fn a_failed_write_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("results.json");
    fs::create_dir(&path).unwrap();
    fs::write(path.join("inside"), "").unwrap();
    let message = results().save(&path).unwrap_err().to_string();
    assert!(message.contains("results.json") && message.contains("is there room"), "{message}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    assert!(results().save(&folder.path().join("absent/results.json")).is_err());
}

#[test]
fn means_are_over_tasks_and_their_own_metrics() {
    let results = results();
    let [t2i, pages, i2t] =
        ["pets_t2i", "pages", "pets_i2t"].map(|task| results.get(task).unwrap().headline());
    let kinds = results.kind_means();
    assert_eq!(
        kinds.iter().map(|kind| (kind.kind.0.as_str(), kind.tasks)).collect::<Vec<_>>(),
        [("image_retrieval", 2), ("document_retrieval", 1)]
    );
    assert!((kinds[0].mean - (t2i + i2t) / 2.0).abs() < 1e-12);
    assert!((results.mean().unwrap() - (t2i + pages + i2t) / 3.0).abs() < 1e-12);
    assert_eq!(results.mean_of("precision@5".parse().unwrap()), None);
    assert!(results.mean_of(Metric::HIT_AT_1).is_some());
    // One answer among 20 candidates in every task.
    assert!((results.mean_hit_chance().unwrap() - 0.05).abs() < 1e-12);
    assert_eq!(Results::new().mean_hit_chance(), None);
    assert_eq!((Results::new().mean(), Results::new().mean_of(Metric::HIT_AT_1)), (None, None));
}

#[test]
fn a_task_is_added_once() {
    let mut results = results();
    let error = results.push(&score("pages", "image_qa", "map", 4)).unwrap_err().to_string();
    assert!(error.contains("`pages`"), "{error}");
}

#[test]
fn the_table_is_aligned_and_complete() {
    let table = results().table();
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines.len(), 2 + 3 + 1 + 2 + 1, "{table}");
    let column = |line: &str| line.find("image_retrieval");
    assert_eq!(column(lines[2]), column(lines[4]));
    assert_eq!(column(lines[2]), column(lines[6]));
    for (line, words) in
        [(2, ["pets_t2i", "hit_rate@1"]), (4, ["pets_i2t", "mrr@10"]), (8, ["mean of 3 tasks", "all"])]
    {
        assert!(words.iter().all(|word| lines[line].contains(word)), "{table}");
    }
    assert!(lines[2].ends_with("20          20     0"), "{table}");
    assert!(lines.iter().all(|line| line.trim_end() == *line));
}
