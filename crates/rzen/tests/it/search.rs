//! Folders that are indexed, and what is found in them.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::command::{files_with, refuse, rzen, succeed, text};
use crate::verbs::trained;

/// A folder `home` with two pictures (one of them twice), a clip, a document of two pages, and files that are not taken.
fn home(world: &Path) -> tempfile::TempDir {
    let place = tempfile::tempdir().unwrap();
    let home = place.path().join("home");
    fs::create_dir_all(home.join("old/.cache")).unwrap();
    let pictures = files_with(world, ".png");
    fs::copy(&pictures[0], home.join("a.png")).unwrap();
    fs::copy(&pictures[1], home.join("b.png")).unwrap();
    fs::copy(&pictures[0], home.join("old/copy of a.png")).unwrap();
    fs::copy(&pictures[2], home.join("old/.cache/hidden.png")).unwrap();
    fs::copy(&files_with(world, ".gif")[0], home.join("clip.gif")).unwrap();
    fs::copy(&files_with(world, ".pdf")[0], home.join("pages.pdf")).unwrap();
    fs::write(home.join("broken.jpg"), "no picture").unwrap();
    fs::write(home.join("notes.txt"), "words").unwrap();
    place
}

fn json_lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// File names of a hit's places.
fn names(hit: &Value) -> Vec<String> {
    let places = hit["places"].as_array().unwrap();
    places
        .iter()
        .map(|place| place["path"].as_str().unwrap().rsplit('/').next().unwrap().to_owned())
        .collect()
}

#[test]
fn what_lies_in_folders_is_found_by_pictures_words_and_pages() {
    let trained = trained();
    let model = trained.path("soup/model");
    let place = home(&PathBuf::from(trained.path("world")));
    let folder = place.path();
    let index = |more: &[&str]| {
        let output =
            rzen(folder, &[&["index", "home", "--model", &model, "--output", "index"], more].concat());
        assert!(output.status.success(), "{}", text(&output.stderr));
        (text(&output.stdout), text(&output.stderr))
    };
    let (told, wrong) = index(&[]);
    let pages = {
        let catalog = fs::read_to_string(folder.join("index/index.jsonl")).unwrap();
        let entries = json_lines(&catalog);
        let document = entries.iter().find(|entry| entry["kind"] == "document").unwrap();
        document["vectors"].as_array().unwrap().len()
    };
    let items = 4 + pages;
    assert!(
        told.contains(&format!(
            "{items} pictures, clips and pages of 6 files (6 new or changed, 0 as before, 0 gone)"
        )),
        "{told}"
    );
    assert!(told.contains(&format!("{} embedded now, 1 files can't be read", items - 1)), "{told}");
    assert!(told.contains("not taken: 1 .txt"), "{told}");
    assert!(wrong.contains("not indexed: ") && wrong.contains("broken.jpg"), "{wrong}");

    let find = |more: &[&str]| json_lines(&succeed(folder, &[&["search", "index", "--json"], more].concat()));
    // A picture finds itself, under both of its names, before everything else.
    let found = &find(&["--image", "home/a.png"])[0];
    let hits = found["hits"].as_array().unwrap();
    assert_eq!(hits.len(), items - 1);
    assert_eq!(names(&hits[0]), ["a.png", "copy of a.png"]);
    assert!((hits[0]["score"].as_f64().unwrap() - 1.0).abs() < 1e-5, "{found}");
    let scores: Vec<f64> = hits.iter().map(|hit| hit["score"].as_f64().unwrap()).collect();
    assert!(scores.is_sorted_by(|a, b| a >= b), "{scores:?}");
    assert_eq!(names(&find(&["--video", "home/clip.gif"])[0]["hits"][0]), ["clip.gif"]);
    let page = &find(&["--document", &format!("home/pages.pdf:{pages}"), "--top", "1"])[0]["hits"];
    assert_eq!((page.as_array().unwrap().len(), &page[0]["places"][0]["page"]), (1, &Value::from(pages)));
    // Of some kinds and folders only.
    let clips = &find(&["--text", "a star", "--kind", "video"])[0]["hits"];
    assert_eq!(clips.as_array().unwrap().len(), 1);
    let old = &find(&["--text", "a star", "--below", "home/old"])[0]["hits"];
    assert_eq!(names(&old[0]), ["copy of a.png"]);
    // Many queries, and a page to look at.
    fs::write(
        folder.join("queries.jsonl"),
        "{\"id\": \"one\", \"content\": [{\"image\": \"home/b.png\"}]}\n{\"id\": \"two\", \"content\": [{\"text\": \"a star\"}]}\n",
    )
    .unwrap();
    let many = find(&["--queries", "queries.jsonl", "--page", "found.html"]);
    assert_eq!(
        (many.len(), &many[0]["id"], names(&many[0]["hits"][0])),
        (2, &Value::from("one"), vec!["b.png".to_owned()])
    );
    let html = fs::read_to_string(folder.join("found.html")).unwrap();
    assert!(html.contains("<img src=\"data:image/jpeg") && html.contains("copy of a.png"), "no pictures");
    let plain = succeed(folder, &["search", "index", "--image", "home/a.png", "--top", "1"]);
    let lines: Vec<&str> = plain.lines().collect();
    assert!(lines[0].starts_with("   1  1.000  ") && lines[0].ends_with("a.png"), "{plain}");
    assert!(lines[1].ends_with("copy of a.png"), "{plain}");

    // Once more: nothing is embedded, and what could not be read is tried again when that is asked for.
    for (retry, looked_at) in [(&[][..], 0), (&["--retry"], 1)] {
        let (told, wrong) = index(retry);
        let counts = format!(
            "({looked_at} new or changed, {} as before, 0 gone); 0 embedded now, 1 files can't be read",
            6 - looked_at
        );
        assert!(
            told.contains(&counts) && told.contains("--retry tries them again") == (looked_at == 0),
            "{told}"
        );
        assert!(wrong.contains("broken.jpg"), "{wrong}");
    }
    fs::copy(folder.join("home/b.png"), folder.join("home/broken.jpg")).unwrap();
    fs::remove_file(folder.join("home/clip.gif")).unwrap();
    let (told, _) = index(&[]);
    assert!(
        told.contains("(1 new or changed, 4 as before, 1 gone); 0 embedded now, 0 files can't be read"),
        "{told}"
    );
    assert!(told.contains("1 vectors of files that are gone"), "{told}");
    assert_eq!(names(&find(&["--image", "home/b.png"])[0]["hits"][0]), ["b.png", "broken.jpg"]);
    assert!(
        succeed(folder, &["search", "index", "--text", "x", "--kind", "video"])
            .contains("nothing of that kind")
    );
}

#[test]
fn an_index_belongs_to_one_model() {
    let trained = trained();
    let model = trained.path("soup/model");
    let place = home(&PathBuf::from(trained.path("world")));
    let folder = place.path();
    assert!(
        std::process::Command::new("cp")
            .args(["-r", &model, "model"])
            .current_dir(folder)
            .status()
            .unwrap()
            .success()
    );
    let index = ["index", "home/a.png", "--model", "model", "--output", "index"];
    succeed(folder, &index);
    // The same model elsewhere.
    fs::rename(folder.join("model"), folder.join("moved")).unwrap();
    let search = ["search", "index", "--text", "a star"];
    let gone = refuse(folder, &search);
    assert!(gone.contains("config.json"), "{gone}");
    let with = |more: &[&'static str]| [&search[..], more].concat();
    succeed(folder, &with(&["--model", "moved"]));
    // Another one.
    let weights = folder.join("moved/model.safetensors");
    let mut bytes = fs::read(&weights).unwrap();
    let last = bytes.len() - 2;
    bytes[last] ^= 1;
    fs::write(&weights, bytes).unwrap();
    let other = refuse(folder, &with(&["--model", "moved"]));
    assert!(other.contains("gives other vectors") && other.contains("moved"), "{other}");
    let again = ["index", "home/a.png", "--model", "moved", "--output", "index"];
    let refused = refuse(folder, &again);
    assert!(refused.contains("--overwrite"), "{refused}");
    succeed(folder, &[&again[..], &["--overwrite"]].concat());
    succeed(folder, &search);

    let wrong = |args: &[&str], named: &str| {
        let error = refuse(folder, args);
        assert!(error.contains(named), "{error}");
    };
    wrong(&["search", "index"], "--text");
    wrong(&["search", "home", "--text", "x"], "is no index");
    wrong(&with(&["--top", "0"]), "--top");
    wrong(&["search", "index", "--document", "home/pages.pdf:0"], "counted from 1");
    wrong(&["search", "index", "--image", "home/gone.png"], "gone.png");
    wrong(&["index", "nowhere", "--model", "moved", "--output", "other"], "nowhere");
    // Nothing is forgotten that was not meant to be.
    let other = ["index", "home/b.png", "--model", "moved", "--output", "index"];
    wrong(&other, "also holds");
    wrong(&[&again[..], &["--instruction", "Look: "]].concat(), "--instruction");
    let both = ["index", "home/b.png", "home/a.png", "--model", "moved", "--output", "index"];
    assert!(
        succeed(folder, &both)
            .contains("2 pictures, clips and pages of 2 files (1 new or changed, 1 as before")
    );
    assert!(succeed(folder, &[&other[..], &["--overwrite"]].concat()).contains("1 gone"));
    succeed(folder, &[&again[..], &["--overwrite"]].concat());
    // The same weights read in another way.
    let catalog = folder.join("index/index.jsonl");
    let lines = fs::read_to_string(&catalog).unwrap();
    fs::write(&catalog, lines.replacen("\"positions\":null", "\"positions\":\"mrope\"", 1)).unwrap();
    wrong(&search, "gives other vectors");
    fs::write(&catalog, lines).unwrap();
    wrong(&with(&["--page", "index/index.jsonl"]), "ends in .html");
    // Somebody's folder is never taken for an index.
    wrong(&["index", "home", "--model", "moved", "--output", "home"], "is no index");
    // A line that is not one.
    let mut lines = fs::read_to_string(&catalog).unwrap();
    lines.push_str("{\"path\": 1}\n");
    fs::write(&catalog, lines).unwrap();
    wrong(&search, "index.jsonl, line 3");
    succeed(folder, &[&again[..], &["--overwrite"]].concat());
    succeed(folder, &search);
}
