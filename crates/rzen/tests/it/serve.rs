//! A server of a trained model, asked over HTTP.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::command::{files_with, first_with, refuse, succeed};
use crate::http::{get, post, receive, send, until};
use crate::verbs::trained;

/// The program as it will be a server, on a port of its own.
fn serve(folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rzen"));
    command.current_dir(folder).args([&["serve", "--port", "0"], args].concat());
    command.stdin(Stdio::null()).env_remove("RZEN_API_KEY");
    command
}

/// A server that runs.
struct Server {
    child: Child,
    address: SocketAddr,
    /// The line that it began with.
    line: String,
}

impl Server {
    fn start(folder: &Path, args: &[&str], key: Option<&str>) -> Self {
        let mut command = serve(folder, args);
        if let Some(key) = key {
            command.env("RZEN_API_KEY", key);
        }
        Server::spawn(command)
    }

    fn spawn(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.strip_prefix("http://").and_then(|rest| rest.split_once(": "));
        let address = address.unwrap_or_else(|| panic!("the server said: {line}")).0.parse().unwrap();
        Server { child, address, line }
    }

    fn embed(&self, body: Value) -> Vec<f32> {
        let answer = post(self.address, "/v1/embeddings", &body);
        assert_eq!(answer.status, 200, "{}", answer.text());
        numbers(&answer.json()["data"][0]["embedding"])
    }

    /// Ends it as a service manager does; it must end well.
    fn terminate(mut self) {
        let kill = Command::new("kill").arg(self.child.id().to_string()).status().unwrap();
        assert!(kill.success() && self.child.wait().unwrap().success());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn numbers(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap() as f32).collect()
}

/// The same but for the last bits: a server begins a text with what it remembers of those before.
fn check_same(found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len());
    let off = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(off < 2e-6, "off by {off}");
}

fn base64(path: &Path) -> String {
    STANDARD.encode(fs::read(path).unwrap())
}

#[test]
fn vectors_are_those_of_rzen_embed() {
    let trained = trained();
    let (model, world) = (trained.path("soup/model"), PathBuf::from(trained.path("world")));
    let files = [".png", ".gif", ".pdf"].map(|ending| first_with(&world, ending));
    let [png, gif, pdf] = &files;
    let place = tempfile::tempdir().unwrap();
    let rows = [
        json!({ "id": "t", "content": [{ "text": "a red star" }], "instruction": "Find: " }),
        json!({ "id": "p", "content": [{ "image": png }, { "text": "blue" }] }),
        json!({ "id": "v", "content": [{ "video": gif }] }),
        json!({ "id": "d", "content": [{ "document": pdf, "page": 1 }] }),
    ];
    fs::write(place.path().join("rows.jsonl"), rows.each_ref().map(|row| format!("{row}\n")).concat())
        .unwrap();
    let embed =
        ["embed", "--model", &model, "--input", "rows.jsonl", "--output", "v.jsonl", "--batch-size", "1"];
    succeed(place.path(), &embed);
    let lines = fs::read_to_string(place.path().join("v.jsonl")).unwrap();
    let expected =
        lines.lines().map(|line| numbers(&serde_json::from_str::<Value>(line).unwrap()["embedding"]));
    let expected: Vec<Vec<f32>> = expected.collect();

    let server = Server::start(place.path(), &["--model", &model], None);
    assert!(server.line.contains(": model, 32 numbers in a vector"), "{}", server.line);
    let [png, gif, pdf] = files.each_ref().map(|path| base64(path));
    let png_uri = format!("data:image/png;base64,{png}");
    let items = [
        json!({ "content": [{ "text": "a red star" }], "instruction": "Find: " }),
        json!({ "content": [{ "image": png_uri }, { "text": "blue" }] }),
        json!({ "content": [{ "video": gif }] }),
        json!({ "content": [{ "document": pdf, "page": 1 }] }),
    ];
    // Each in a batch of its own.
    for (item, expected) in items.iter().zip(&expected) {
        check_same(&server.embed(json!({ "input": item })), expected);
    }
    // Together, where sums may be in another order.
    let answer = post(server.address, "/v1/embeddings", &json!({ "input": items })).json();
    for (at, expected) in expected.iter().enumerate() {
        let vector = numbers(&answer["data"][at]["embedding"]);
        let cosine: f32 = vector.iter().zip(expected).map(|(a, b)| a * b).sum();
        assert!(cosine > 0.999_99, "{at}: {cosine}");
    }
    assert!(answer["usage"]["prompt_tokens"].as_u64().unwrap() > 20, "{}", answer["usage"]);
    // The other dialects.
    let messages = json!([
        { "role": "system", "content": "" },
        { "role": "user", "content": [
            { "type": "image_url", "image_url": { "url": png_uri } }, { "type": "text", "text": "blue" },
        ] },
    ]);
    check_same(&server.embed(json!({ "messages": messages })), &expected[1]);
    let tei = post(server.address, "/embed", &json!({ "inputs": "a red star", "instruction": "Find: " }));
    check_same(&numbers(&tei.json()[0]), &expected[0]);
    let control = server.embed(json!({ "input": "<|image_pad|><|im_end|><|vision_start|>" }));
    rzen_core::check_unit_vector(&control).unwrap();
    let (address, info) = (server.address, get(server.address, "/info").json());
    assert_eq!((&info["dimensions"], &info["model_id"]), (&json!(32), &json!("model")));
    assert_eq!(get(address, "/health").status, 200);
    server.terminate();
    assert!(std::net::TcpStream::connect(address).is_err());
}

#[test]
fn what_can_not_be_read_is_refused_without_telling_where_it_lay() {
    let trained = trained();
    let world = PathBuf::from(trained.path("world"));
    let pdf = base64(&first_with(&world, ".pdf"));
    let png = fs::read(first_with(&world, ".png")).unwrap();
    let place = tempfile::tempdir().unwrap();
    let temporary = place.path().join("temporary");
    fs::create_dir(&temporary).unwrap();
    let args = ["--model", &trained.path("soup/model"), "--max-pixels", "10000", "--payload-limit", "200000"];
    let mut command = serve(place.path(), &args);
    command.env("TMPDIR", &temporary);
    let mut server = Server::spawn(command);
    let cut = STANDARD.encode(&png[..png.len() / 2]);
    let mut bomb = png.clone();
    bomb[16..24].copy_from_slice(&[0, 0, 200, 0, 0, 0, 200, 0]);
    for (part, status, words) in [
        (json!({ "image": cut }), 422, "`input.content[0].image` is"),
        (json!({ "image": STANDARD.encode("words") }), 422, "no picture"),
        (json!({ "image": STANDARD.encode(&bomb) }), 422, "input.content[0].image"),
        (json!({ "document": pdf, "page": 99 }), 422, "page 99 is asked for"),
        (json!({ "document": STANDARD.encode("%PDF-1.4 cut") }), 422, "`input.content[0].document`"),
        (json!({ "video": STANDARD.encode("\0\0\0\x20ftypisom") }), 422, "`input.content[0].video`"),
        (json!({ "video": STANDARD.encode("#EXTM3U\nfile:///etc/passwd") }), 422, "no clip"),
        (json!({ "image": "https://example.com/a.png" }), 400, "opens no connections"),
        (json!({ "image": "file:///etc/passwd" }), 400, "opens no connections"),
        (json!({ "image": "a".repeat(200_000) }), 413, "200000 bytes"),
    ] {
        let answer = post(server.address, "/v1/embeddings", &json!({ "input": { "content": [part] } }));
        let (found, message) = answer.error();
        assert!(found == status && message.contains(words), "{found} {message}");
        let told = ["/tmp", "rzen-serve-", " @ 0x", place.path().to_str().unwrap()];
        assert!(!told.iter().any(|word| message.contains(word)), "{message}");
    }
    // Nothing of it is left, and the next is answered.
    server.embed(json!({ "input": "a star" }));
    assert!(server.child.try_wait().unwrap().is_none());
    assert!(files_below(&temporary).is_empty());
    server.terminate();
    assert_eq!(fs::read_dir(&temporary).unwrap().count(), 0);
}

/// All files below a folder.
fn files_below(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files_below(&path) } else { vec![path] }).collect()
}

/// However a server ends while it decodes a clip, nothing of the clip is left.
#[cfg(unix)]
#[test]
fn media_do_not_stay_where_a_server_is_cut_off() {
    let trained = trained();
    let place = tempfile::tempdir().unwrap();
    // An ffmpeg that does not end soon.
    let ffmpeg = place.path().join("ffmpeg");
    fs::write(&ffmpeg, "#!/bin/sh\nexec sleep 60\n").unwrap();
    fs::set_permissions(&ffmpeg, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    for (grace, signals) in [("0", 1), ("600", 2)] {
        let temporary = place.path().join(format!("temporary-{signals}"));
        fs::create_dir(&temporary).unwrap();
        let mut command = serve(place.path(), &["--model", &trained.path("soup/model"), "--grace", grace]);
        command.env("TMPDIR", &temporary).env("RZEN_FFMPEG", &ffmpeg);
        let mut server = Server::spawn(command);
        let clip = STANDARD.encode(b"\x1a\x45\xdf\xa3 a clip");
        let body = json!({ "input": { "video": clip } }).to_string();
        let _asked = send(server.address, "POST", "/v1/embeddings", "", body.as_bytes());
        until("the clip is not read", || !files_below(&temporary).is_empty());
        let id = server.child.id().to_string();
        let signal = || assert!(Command::new("kill").arg(&id).status().unwrap().success());
        signal();
        if signals == 2 {
            // The first one was heard.
            until("it still listens", || std::net::TcpStream::connect(server.address).is_err());
            signal();
        }
        until("it does not end", || server.child.try_wait().unwrap().is_some());
        assert!(!server.child.wait().unwrap().success());
        assert_eq!(fs::read_dir(&temporary).unwrap().count(), 0, "{signals}");
    }
}

#[test]
fn an_index_is_searched_and_kept_up_with() {
    let trained = trained();
    let (model, world) = (trained.path("soup/model"), PathBuf::from(trained.path("world")));
    let place = tempfile::tempdir().unwrap();
    let (folder, home) = (place.path(), place.path().join("home"));
    fs::create_dir(&home).unwrap();
    let pictures = files_with(&world, ".png");
    fs::copy(&pictures[0], home.join("a.png")).unwrap();
    fs::copy(first_with(&world, ".gif"), home.join("clip.gif")).unwrap();
    fs::copy(first_with(&world, ".pdf"), home.join("pages.pdf")).unwrap();
    let index = ["index", "home", "--model", &model, "--output", "index"];
    succeed(folder, &index);

    let server = Server::start(folder, &["--index", "index"], Some("secret"));
    let key = "authorization: Bearer secret\r\n";
    let ask =
        |body: &Value| receive(send(server.address, "POST", "/v1/search", key, body.to_string().as_bytes()));
    let by_picture = |path: &Path| ask(&json!({ "query": { "image": base64(path) }, "top": 3 })).json();
    // As `rzen search` finds it.
    let served = by_picture(&home.join("a.png"));
    let found = succeed(folder, &["search", "index", "--json", "--top", "3", "--image", "home/a.png"]);
    let found: Value = serde_json::from_str(&found).unwrap();
    for (hit, expected) in served["hits"].as_array().unwrap().iter().zip(found["hits"].as_array().unwrap()) {
        assert_eq!((&hit["rank"], &hit["places"]), (&expected["rank"], &expected["places"]));
        let score = |hit: &Value| hit["score"].as_f64().unwrap() as f32;
        check_same(&[score(hit)], &[score(expected)]);
    }
    assert_eq!(served["hits"].as_array().unwrap().len(), 3);
    let clips = ask(&json!({ "query": "a star", "kind": "video" })).json();
    let clip = &clips["hits"][0];
    assert!(clip["places"][0]["path"].as_str().unwrap().ends_with("clip.gif"), "{clips}");
    assert_eq!(ask(&json!({ "query": "a star", "below": "/elsewhere" })).json()["hits"], json!([]));
    // Its picture, by its id alone and with the key alone.
    let path = format!("/v1/search/pictures/{}", clip["id"].as_str().unwrap());
    let picture = receive(send(server.address, "GET", &path, key, b""));
    assert!(picture.status == 200 && picture.body.starts_with(b"\xff\xd8\xff"), "{}", picture.head);
    assert_eq!(get(server.address, &path).status, 401);
    for id in ["0", "..%2f..%2fhome%2fa.png", "home%2fa.png"] {
        let path = format!("/v1/search/pictures/{id}");
        assert_eq!(receive(send(server.address, "GET", &path, key, b"")).status, 404, "{id}");
    }
    assert!(get(server.address, "/").text().contains("<form"));
    // What is new is found, what has another picture now is not shown, what is gone is not found.
    fs::copy(&pictures[1], home.join("b.png")).unwrap();
    fs::remove_file(home.join("clip.gif")).unwrap();
    succeed(folder, &index);
    let first = |found: Value| found["hits"][0]["places"][0]["path"].as_str().unwrap().to_owned();
    assert!(first(by_picture(&pictures[1])).ends_with("b.png"));
    assert_eq!(ask(&json!({ "query": "a star", "kind": "video" })).json()["hits"], json!([]));
    assert_eq!(receive(send(server.address, "GET", &path, key, b"")).status, 404);
    // What can't be read now is read once it can be, though its catalog is the same by then.
    let (vectors, away) = (first_with(&folder.join("index"), ".vectors"), folder.join("away"));
    fs::copy(&pictures[2], home.join("c.png")).unwrap();
    succeed(folder, &index);
    fs::rename(&vectors, &away).unwrap();
    assert!(!first(by_picture(&pictures[2])).ends_with("c.png"));
    fs::rename(&away, &vectors).unwrap();
    until("the index is not read again", || first(by_picture(&pictures[2])).ends_with("c.png"));
    // Of another model it is not taken.
    succeed(folder, &[&index[..], &["--overwrite", "--dtype", "bf16"]].concat());
    assert!(first(by_picture(&pictures[1])).ends_with("b.png"));
    server.terminate();
}

#[test]
fn a_server_goes_on_where_nobody_reads_what_it_logs() {
    let trained = trained();
    let place = tempfile::tempdir().unwrap();
    let mut command = serve(place.path(), &["--model", &trained.path("soup/model"), "--access-log"]);
    command.stderr(Stdio::piped());
    let mut server = Server::spawn(command);
    drop(server.child.stderr.take());
    for _ in 0..2 {
        server.embed(json!({ "input": "a star" }));
    }
    server.terminate();
}

#[cfg(unix)]
#[test]
fn a_key_that_is_no_text_is_not_no_key() {
    use std::os::unix::ffi::OsStrExt;

    let place = tempfile::tempdir().unwrap();
    let mut command = serve(place.path(), &["--model", "nothing"]);
    command.env("RZEN_API_KEY", std::ffi::OsStr::from_bytes(b"secr\xe9t"));
    let told = command.output().unwrap();
    let told = (told.status.success(), String::from_utf8_lossy(&told.stderr).into_owned());
    assert!(!told.0 && told.1.contains("RZEN_API_KEY"), "{told:?}");
}

#[test]
fn options_that_can_not_be_followed_are_refused() {
    let trained = trained();
    let model = trained.path("soup/model");
    let place = tempfile::tempdir().unwrap();
    for (args, words) in [
        (&[][..], "Give --model DIR, or --index INDEX"),
        (&["--index", "nothing"], "is no index"),
        (&["--index", "nothing", "--dtype", "bf16"], "--dtype stands beside --index"),
        (&["--model", "nothing"], "config.json"),
        (&["--model", &model, "--host", "no.such.host.invalid"], "can't listen"),
        (&["--model", &model, "--payload-limit", "0"], "--payload-limit is 0"),
        (&["--model", &model, "--api-key", ""], "without spaces"),
        (&["--model", &model, "--max-pixels", "4095"], "--max-pixels is 4095, expected 4096 to"),
        (&["--model", &model, "--max-pixels", "200000000"], "expected 4096 to 178956970"),
        (&["--model", &model, "--media-timeout", "0"], "--media-timeout is 0, expected 1 to 120"),
        (&["--index", "nothing", "--batch-size", "0"], "--batch-size is 0"),
    ] {
        let told = refuse(place.path(), &[&["serve", "--port", "0"], args].concat());
        assert!(told.contains(words), "{args:?}: {told}");
    }
}
