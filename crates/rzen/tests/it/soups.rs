//! Soups from the command line, and adapters on their base.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::command::{refuse, rzen, succeed, text};
use crate::verbs::{embed, names, trained};

#[test]
fn methods_and_weights_of_a_soup() {
    let trained = trained();
    let [base, a, b] = ["first/model", "a/adapter", "b/adapter"].map(|name| trained.path(name));
    let place = tempfile::tempdir().unwrap();
    let folder = place.path();
    let soup = |more: &[&str]| -> Vec<&str> {
        [&["soup", "--adapter", &a, "--adapter", &b], more].concat().into_iter().map(leak).collect()
    };
    let rank = |name: &str| -> Value {
        let path = folder.join(name).join("adapter_config.json");
        serde_json::from_slice::<Value>(&std::fs::read(path).unwrap()).unwrap()["r"].clone()
    };
    succeed(folder, &soup(&["--output", "exact"]));
    succeed(folder, &soup(&["--method", "svd", "--rank", "1", "--output", "deep/down/svd"]));
    assert_eq!((rank("exact"), rank("deep/down/svd")), (json!(4), json!(1)));
    for method in [
        "mean-ab",
        "peft-linear",
        "peft-ties",
        "magnitude-prune",
        "peft-dare-linear",
        "ties",
        "dare",
        "slerp",
    ] {
        let said = succeed(folder, &soup(&["--method", method, "--output", method]));
        assert!(said.contains("relative error") && said.contains("kept energy"), "{said}");
    }
    assert_eq!((rank("ties"), rank("dare"), rank("slerp")), (json!(2), json!(2), json!(4)));
    let record: Value =
        serde_json::from_slice(&std::fs::read(folder.join("ties/soup.json")).unwrap()).unwrap();
    assert_eq!(record["method"], json!({"name": "ties", "density": 0.5}));
    assert_eq!(record["base"]["checked_by"], "hash");
    assert_eq!(record["ingredients"][1]["path"], b.as_str());
    assert_eq!(record["ingredients"][1]["base_sha256"], record["base"]["sha256"]);
    // Full rank fits a base.
    succeed(folder, &soup(&["--method", "ties", "--base", &base, "--output", "whole"]));
    succeed(folder, &soup(&["--method", "svd", "--energy", "0.9", "--output", "energy"]));
    let processor = std::fs::read(Path::new(&a).join("processor.json")).unwrap();
    assert_eq!(std::fs::read(folder.join("exact/processor.json")).unwrap(), processor);

    let negative = rzen(folder, &soup(&["--weights", "-0.2,1.2", "--output", "negative"]));
    assert!(negative.status.success() && !text(&negative.stderr).contains("add up"), "{negative:?}");
    let strong = rzen(folder, &soup(&["--weights", "1,1", "--output", "strong"]));
    assert!(strong.status.success() && text(&strong.stderr).contains("add up to 2"), "{strong:?}");

    let before = names(folder);
    for (more, words) in [
        (["--rank", "3"], "svd"),
        (["--density", "0.4"], "magnitude-prune"),
        (["--energy", "0.9"], "svd"),
        (["--seed", "3"], "dare"),
        (["--weights", "1e300,1"], "smaller weights"),
        (["--weights", "nan,1"], "expected a number"),
    ] {
        let error = refuse(folder, &soup(&[&more[..], &["--output", "wrong"]].concat()));
        assert!(error.contains(words), "{more:?}: {error}");
    }
    assert_eq!(names(folder), before, "nothing is left");
    // What options alone get wrong is told before anything is read, and no folder is made.
    let nowhere =
        ["soup", "--adapter", "no/a", "--adapter", "no/b", "--base", "no/base", "--output", "new/x"];
    let find = ["--search", "greedy", "--data", "no/data", "--tasks", "t"];
    for (more, words) in [
        (&["--method", "ties", "--weights", "-0.5,1.5"][..], "a weight is -0.5"),
        (&["--method", "slerp", "--adapter", "no/c"], "3 are given"),
        (&["--weights", "1"], "1 weights for 2 adapters"),
        (&[&find[..], &["--metric", "mad"]].concat(), "--metric"),
        (&[&find[..], &["--dtype", "f8"]].concat(), "dtype `f8`"),
        (&[&find[..], &["--load", "max_side"]].concat(), "--load max_side"),
        (&[&find[..], &["--trials", "2"]].concat(), "more --trials"),
    ] {
        let error = refuse(folder, &[&nowhere[..], more].concat());
        assert!(error.contains(words) && !error.contains("no/"), "{more:?}: {error}");
    }
    assert_eq!(names(folder), before);
    // What stands there is told before anything is read.
    let missing = ["soup", "--adapter", "nowhere", "--base", &base, "--output", "exact"];
    let error = refuse(folder, &missing);
    assert!(error.contains("exact exists") && !error.contains("nowhere"), "{error}");
}

#[test]
fn adapters_stay_with_their_base() {
    let trained = trained();
    let [base, start, a, b] =
        ["first/model", "start", "a/adapter", "b/adapter"].map(|name| trained.path(name));
    let place = tempfile::tempdir().unwrap();
    let folder = place.path();
    let read =
        |path: &str| -> Value { serde_json::from_slice(&std::fs::read(folder.join(path)).unwrap()).unwrap() };
    assert_eq!(read(&format!("{a}/base.json")), read(&format!("{b}/base.json")));
    let soup = ["soup", "--adapter", &a, "--adapter", &b];
    let error = refuse(folder, &[&soup[..], &["--base", &start, "--output", "wrong"]].concat());
    assert!(error.contains("SHA-256") && error.contains("any base") && error.contains("start"), "{error}");
    succeed(folder, &[&soup[..], &["--base", &start, "--any-base", "--output", "any"]].concat());
    std::fs::write(folder.join("rows.jsonl"), "{\"id\": \"1\", \"content\": [{\"text\": \"a\"}]}\n").unwrap();
    let embed = ["embed", "--input", "rows.jsonl", "--output", "a.jsonl", "--adapter", &a, "--model"];
    let error = refuse(folder, &[&embed[..], &[&start]].concat());
    assert!(error.contains("was trained on weights") && error.contains("--any-base"), "{error}");
    succeed(folder, &[&embed[..], &[&start, "--any-base"]].concat());
    succeed(folder, &[&embed[..], &[&base]].concat());
    succeed(folder, &[&soup[..], &["--base", &base, "--output", "right"]].concat());
    let records =
        ["right/soup.json", &trained.path("soup/adapter/soup.json"), &trained.path("soup/model/soup.json")]
            .map(read);
    assert_eq!(records[0]["base"]["checked_by"], "hash");
    for record in &records[1..] {
        assert_eq!(record["scores"]["ingredients"].as_array().unwrap().len(), 2, "{record}");
        assert!(record["scores"]["soup"].is_number() && record["base"]["sha256"].is_string());
    }
}

#[test]
fn models_are_averaged() {
    let trained = trained();
    let [base, start] = ["first/model", "start"].map(|name| trained.path(name));
    let place = tempfile::tempdir().unwrap();
    let folder = place.path();
    let models = ["soup", "--model", &start, "--model", &base];
    succeed(folder, &[&models[..], &["--weights", "0,1", "--output", "second"]].concat());
    let second = folder.join("second");
    assert_eq!(
        embed(&["--model", second.to_str().unwrap()]),
        embed(&["--model", &base]),
        "all of the weight on the second"
    );
    let record: Value = serde_json::from_slice(&std::fs::read(second.join("soup.json")).unwrap()).unwrap();
    assert_eq!((&record["of"], &record["ingredients"][0]["weight"]), (&json!("model"), &json!(0.0)));
    let error = refuse(folder, &[&models[..], &["--weights", "1,1", "--output", "wrong"]].concat());
    assert!(error.contains("add up to 2"), "{error}");
    let error = refuse(folder, &[&models[..], &["--method", "ties", "--output", "wrong"]].concat());
    assert!(error.contains("averaged by their weights alone"), "{error}");

    // Models that turn items into other input are refused without a search too.
    let other = folder.join("other");
    std::fs::create_dir(&other).unwrap();
    for name in names(Path::new(&start)) {
        std::fs::copy(Path::new(&start).join(&name), other.join(&name)).unwrap();
    }
    let processor = std::fs::read_to_string(other.join("processor.json")).unwrap();
    let mut processor: Value = serde_json::from_str(&processor).unwrap();
    processor["system_prompt"] = json!("Another.");
    std::fs::write(other.join("processor.json"), processor.to_string()).unwrap();
    let error = refuse(folder, &["soup", "--model", &start, "--model", "other", "--output", "wrong"]);
    assert!(error.contains("processor.json of ") && error.contains("`system_prompt` is"), "{error}");
    assert!(error.contains("\"Another.\"") && !folder.join("wrong").exists(), "{error}");
}

#[test]
fn weights_are_searched_on_held_out_tasks() {
    let trained = trained();
    let [base, a, b, world] =
        ["first/model", "a/adapter", "b/adapter", "world"].map(|name| trained.path(name));
    let place = tempfile::tempdir().unwrap();
    let folder = place.path();
    let soup = |more: &[&str]| -> Vec<&'static str> {
        let common = [
            "soup",
            "--adapter",
            &a,
            "--adapter",
            &b,
            "--base",
            &base,
            "--data",
            &world,
            "--tasks",
            "pictures",
        ];
        [&common[..], more].concat().into_iter().map(leak).collect()
    };
    let read = |path: &str| std::fs::read(folder.join(path)).unwrap();
    let find = ["--search", "weights", "--metric", "mrr", "--trials", "6"];
    // What appears under the output's name is whole.
    let output = folder.join("one");
    let whole = || (names(&output), String::from_utf8(read("one/soup.json")).unwrap());
    let appeared = std::thread::scope(|scope| {
        let args = soup(&[&find[..], &["--keep-adapter", "--output", "one"]].concat());
        let searching = scope.spawn(move || succeed(folder, &args));
        while !output.exists() && !searching.is_finished() {
            std::thread::sleep(Duration::from_micros(100));
        }
        output.exists().then(whole)
    });
    assert_eq!(appeared, Some(whole()));
    let log = read("one.search/trials.jsonl");
    let lines = log.iter().filter(|byte| **byte == b'\n').count();
    assert!((3..=6).contains(&lines), "{lines}");
    let record: Value = serde_json::from_slice(&read("one/soup.json")).unwrap();
    assert_eq!(
        (&record["search"]["tasks"], &record["search"]["metric"]),
        (&json!(["pictures"]), &json!("mrr"))
    );
    assert_eq!(record["scores"]["ingredients"].as_array().unwrap().len(), 2);
    let best = record["scores"]["soup"].as_f64().unwrap();
    for other in ["/scores/uniform", "/scores/ingredients/0/score", "/scores/ingredients/1/score"] {
        assert!(record.pointer(other).unwrap().as_f64().unwrap() <= best, "{record}");
    }
    // Killed within its third line, it goes on and ends the same.
    let cut = log.iter().enumerate().filter(|(_, byte)| **byte == b'\n').nth(1).unwrap().0 + 20;
    std::fs::create_dir(folder.join("two.search")).unwrap();
    std::fs::write(folder.join("two.search/trials.jsonl"), &log[..cut]).unwrap();
    let again = rzen(folder, &soup(&[&find[..], &["--keep-adapter", "--output", "two"]].concat()));
    assert!(again.status.success() && text(&again.stderr).matches("(known)").count() >= 2, "{again:?}");
    assert_eq!(read("two.search/trials.jsonl"), log);
    assert_eq!(read("two/adapter_model.safetensors"), read("one/adapter_model.safetensors"));

    // The rank that was asked for is that of an ingredient alone, too.
    let cut = ["--search", "weights", "--metric", "mrr", "--trials", "3", "--method", "svd", "--rank", "1"];
    succeed(folder, &soup(&[&cut[..], &["--keep-adapter", "--output", "cut"]].concat()));
    let record: Value = serde_json::from_slice(&read("cut/soup.json")).unwrap();
    assert_eq!((&record["rank"], &record["cut"]), (&json!(1), &json!({"rank": 1})), "{record}");

    succeed(folder, &soup(&["--search", "greedy", "--method", "ties", "--output", "model"]));
    let eval =
        ["eval", "--model", "model", "--data", &world, "--tasks", "pictures", "--output", "scores.json"];
    let warned = rzen(folder, &eval);
    assert!(text(&warned.stderr).contains("searched on pictures"), "{warned:?}");
    let error =
        refuse(folder, &["soup", "--adapter", &a, "--adapter", &b, "--search", "greedy", "--output", "x"]);
    assert!(error.contains("--data") && error.contains("--tasks"), "{error}");
    let error = refuse(folder, &soup(&["--search", "greedy", "--trials", "2", "--output", "x"]));
    assert!(error.contains("more --trials"), "{error}");
    assert!(!folder.join("x").exists());
}

/// Arguments that live as long as the test program.
fn leak(text: &str) -> &'static str {
    String::leak(text.to_owned())
}
