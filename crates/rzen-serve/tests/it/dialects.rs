//! What is asked in which form, and what is answered.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rzen_serve::Settings;
use serde_json::{Value, json};

use crate::client::{get, post, receive, send};
use crate::running::{OneItem, Running, settings};
use crate::stub::{Stub, vector};

fn numbers(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap() as f32).collect()
}

#[test]
fn texts_in_the_form_of_openai() {
    let server = Running::start(Stub::free(), settings());
    assert_eq!((server.ready.dim, server.ready.name.as_str(), server.ready.items), (2, "stub", None));
    let ask = |body: Value| post(server.address, "/v1/embeddings", &body);
    let answer = ask(json!({ "model": "any", "input": ["one", "two"], "user": "u", "dimensions": 2 })).json();
    assert_eq!((&answer["object"], &answer["model"]), (&json!("list"), &json!("stub")));
    assert_eq!(answer["usage"], json!({ "prompt_tokens": 6, "total_tokens": 6 }));
    for (at, text) in ["one", "two"].iter().enumerate() {
        let entry = &answer["data"][at];
        assert_eq!((&entry["object"], &entry["index"]), (&json!("embedding"), &json!(at)));
        assert_eq!(numbers(&entry["embedding"]), vector(text));
    }
    // Of a text that is far too long no more is read than may be its tokens.
    let answer = ask(json!({ "input": "a".repeat(9_900) })).json();
    assert_eq!(answer["usage"]["prompt_tokens"], json!(77 * 128));
    assert!(answer["id"].as_str().unwrap().starts_with("embd-") && answer["created"].is_u64(), "{answer}");
    // What changes nothing may be said.
    let nothing = json!({ "input": "one", "priority": 0, "truncate_prompt_tokens": -1, "add_special_tokens": true,
        "continue_final_message": false, "mm_processor_kwargs": null });
    assert_eq!(ask(nothing).status, 200);
    // One text, and base64.
    let answer = ask(json!({ "input": "one", "encoding_format": "base64", "instruction": "Find: " })).json();
    let bytes = STANDARD.decode(answer["data"][0]["embedding"].as_str().unwrap()).unwrap();
    let expected: Vec<u8> = vector("Find: one").iter().flat_map(|number| number.to_le_bytes()).collect();
    assert_eq!(bytes, expected);
    server.end();
}

#[test]
fn pictures_in_all_forms_are_the_same() {
    let server = Running::start(Stub::free(), settings());
    let data = "data:image/png;base64,aGVsbG8=";
    let expected = vector("Ask.5 bytes, 532");
    let parts = [json!({ "image": data }), json!({ "type": "image_url", "image_url": { "url": data } })];
    for part in parts {
        let bodies = [
            json!({ "input": [{ "content": [part.clone()], "instruction": "Ask." }] }),
            json!({ "input": part.clone(), "instruction": "Ask." }),
            json!({ "messages": [
                { "role": "system", "content": "Ask." }, { "role": "user", "content": [part.clone()] },
            ] }),
        ];
        for body in bodies {
            let answer = post(server.address, "/v1/embeddings", &body);
            assert_eq!(numbers(&answer.json()["data"][0]["embedding"]), expected, "{body}");
        }
    }
    server.end();
}

#[test]
fn the_paths_of_tei() {
    let server = Running::start(Stub::free(), settings());
    let answer = post(server.address, "/embed", &json!({ "inputs": ["one", "two"], "normalize": true }));
    let vectors: Vec<Vec<f32>> = answer.json().as_array().unwrap().iter().map(numbers).collect();
    assert_eq!(vectors, [vector("one"), vector("two")]);
    assert_eq!(
        numbers(&post(server.address, "/embed", &json!({ "inputs": "one" })).json()[0]),
        vector("one")
    );
    let refused = [
        json!({ "normalize": false }),
        json!({ "truncation_direction": "Left" }),
        json!({ "dimensions": 3 }),
    ];
    for mut body in refused {
        body["inputs"] = json!("one");
        assert_eq!(post(server.address, "/embed", &body).status, 400, "{body}");
    }
    // At the root as well, and whole or not at all.
    for text in ["a".repeat(76), "a".repeat(77)] {
        let answer = post(server.address, "/", &json!({ "inputs": [text], "truncate": false }));
        assert_eq!(answer.status == 200, text.len() < 77, "{}", answer.text());
    }
    let info = get(server.address, "/info").json();
    assert_eq!((&info["model_id"], &info["max_client_batch_size"]), (&json!("stub"), &json!(4)));
    assert_eq!((&info["dimensions"], &info["max_input_length"]), (&json!(2), &json!(77)));
    let model = &get(server.address, "/v1/models").json()["data"][0];
    assert!(model["id"] == "stub" && model["created"].as_u64() > Some(1_700_000_000), "{model}");
    assert_eq!(get(server.address, "/v1/models/stub").json(), *model);
    assert_eq!(get(server.address, "/v1/models/else/where").error().0, 404);
    assert_eq!(get(server.address, "/health").status, 200);
    let metrics = get(server.address, "/metrics").text();
    for line in [
        "rzen_requests_total{path=\"/embed\",status=\"200\"} 2",
        "rzen_requests_total{path=\"/embed\",status=\"400\"} 3",
        // The probe of the start, and five texts.
        "rzen_items_total 8",
        "rzen_queue_items 0",
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line} is not in\n{metrics}");
    }
    server.end();
}

#[test]
fn items_in_the_form_of_cohere() {
    let server = Running::start(Stub::free(), settings());
    let ask = |body: Value| post(server.address, "/v2/embed", &body);
    let types = ["float", "base64"];
    let answer =
        ask(json!({ "model": "m", "input_type": "search_query", "texts": ["one"], "embedding_types": types,
        "truncate": "END", "output_dimension": 2 }))
        .json();
    assert_eq!(numbers(&answer["embeddings"]["float"][0]), vector("one"));
    let bytes: Vec<u8> = vector("one").iter().flat_map(|number| number.to_le_bytes()).collect();
    assert_eq!(answer["embeddings"]["base64"], json!([STANDARD.encode(bytes)]));
    assert_eq!(
        (&answer["texts"], &answer["meta"]["billed_units"]["input_tokens"]),
        (&json!(["one"]), &json!(3))
    );
    let data = "data:image/png;base64,aGVsbG8=";
    let input = json!({ "content": [{ "type": "image_url", "image_url": { "url": data } }] });
    for body in [json!({ "images": [data] }), json!({ "inputs": [input] })] {
        let answer = ask(body.clone()).json();
        assert_eq!(numbers(&answer["embeddings"]["float"][0]), vector("5 bytes, 532"), "{body}");
    }
    for (body, field) in [
        (json!({}), "texts"),
        (json!({ "texts": ["a"], "images": [data] }), "texts"),
        (json!({ "texts": [{ "text": "a" }] }), "texts[0]"),
        (json!({ "images": ["a", "https://example.com/a.png"] }), "images[0]"),
        (json!({ "texts": ["a"], "embedding_types": ["int8"] }), "embedding_types[0]"),
        (json!({ "texts": ["a"], "truncate": "START" }), "truncate"),
        (json!({ "texts": ["a", "a".repeat(77)], "truncate": "NONE" }), "texts[1]"),
        (json!({ "texts": ["a"], "output_dimension": 3 }), "output_dimension"),
        (json!({ "texts": ["a", "a", "a", "a", "a"] }), "texts"),
    ] {
        let answer = ask(body.clone());
        assert_eq!((answer.status, answer.json()["error"]["param"].as_str()), (400, Some(field)), "{body}");
    }
    server.end();
}

#[test]
fn what_is_wrong_is_told_with_its_field() {
    let server = Running::start(Stub::free(), settings());
    let broken = STANDARD.encode("broken");
    for (body, status, field, words) in [
        (json!({}), 400, "input", "missing"),
        (json!({ "input": [] }), 400, "input", "empty list"),
        (json!({ "input": ["a", 7] }), 400, "input[1]", "send texts"),
        (json!({ "input": [[1, 2]] }), 400, "input[0]", "send texts"),
        (json!({ "input": vec!["a"; 5] }), 400, "input", "at most 4"),
        (json!({ "input": "a", "dimensions": 3 }), 400, "dimensions", "have 2 numbers"),
        (json!({ "input": "a", "encoding_format": "int8" }), 400, "encoding_format", "float and base64"),
        (json!({ "input": "a", "messages": [] }), 400, "input", "beside `messages`"),
        (json!({ "input": "a", "truncate_prompt_tokens": 5 }), 400, "truncate_prompt_tokens", "must be -1"),
        (json!({ "input": { "image": "http://[::1]/a.png" } }), 400, "input.image", "opens no connections"),
        (
            json!({ "input": ["a", { "content": [{ "image": "/etc/passwd" }] }] }),
            400,
            "input[1].content[0].image",
            "neither",
        ),
        (json!({ "input": [{ "image": broken }] }), 422, "input[0]", "`input[0].image` is broken [mov]"),
        (json!({ "input": [{ "video": "I0VYVE0zVQ==" }] }), 422, "input[0].video", "no clip"),
        (json!({ "input": ["a", "bad"] }), 400, "input[1]", "can't be read"),
    ] {
        let answer = post(server.address, "/v1/embeddings", &body);
        let error = &answer.json()["error"];
        assert_eq!((answer.status, error["param"].as_str()), (status, Some(field)), "{body}: {error}");
        assert!(error["message"].as_str().unwrap().contains(words), "{body}: {error}");
        assert_eq!(error["type"], "invalid_request_error");
    }
    // Faults of the server are told to nobody but its owner, and vectors that are none do not leave.
    for text in ["disk", "nan", "long", "short", "fail", "panic"] {
        let answer = post(server.address, "/v1/embeddings", &json!({ "input": text }));
        let (status, message) = answer.error();
        assert!(status == 500 && message.contains("its own log"), "{text}: {message}");
    }
    let raw = |method: &str, path: &str, body: &[u8]| receive(send(server.address, method, path, "", body));
    assert_eq!(raw("POST", "/v1/embeddings", b"{\"input\": ").error().0, 400);
    assert_eq!(raw("POST", "/v1/embeddings", &b"[".repeat(9_000)).error().0, 400);
    assert_eq!(raw("POST", "/v1/embeddings", b"\xff\xfe").error().0, 400);
    assert_eq!(raw("GET", "/v1/embeddings", b"").error().0, 405);
    assert_eq!(raw("GET", "/../../etc/passwd", b"").error().0, 404);
    let (status, message) = raw("POST", "/embed", &[b' '; 10_001]).error();
    assert!(status == 413 && message.contains("10000 bytes"), "{message}");
    // And it goes on.
    assert_eq!(post(server.address, "/embed", &json!({ "inputs": "one" })).status, 200);
    server.end();
}

#[test]
fn a_body_of_very_many_values_is_refused() {
    let server = Running::start(Stub::free(), Settings { payload_limit: 1_000_000, ..settings() });
    let zeros = vec![0; 200_000];
    for path in ["/v1/embeddings", "/embed", "/v2/embed"] {
        let (status, message) = post(server.address, path, &json!({ "input": zeros })).error();
        assert!(status == 400 && message.contains("at most 100000 are taken"), "{path}: {message}");
    }
    server.end();
}

#[test]
fn an_index_is_searched() {
    let server = Running::start_with(Stub::free(), Some(Box::new(OneItem)), settings());
    assert_eq!(server.ready.items, Some(1));
    let ask = |body: Value| post(server.address, "/v1/search", &body);
    let answer = ask(json!({ "query": "one", "top": 3, "kind": "image" })).json();
    let score = answer["hits"][0]["score"].as_f64().unwrap() as f32;
    assert_eq!(score, vector("one")[0]);
    let expected = json!({ "rank": 1, "id": "1", "score": answer["hits"][0]["score"],
        "places": [{ "path": "/home/<a>.png", "kind": "image" }] });
    assert_eq!(answer["hits"], json!([expected]));
    let empty = ask(json!({ "query": { "content": [{ "text": "one" }] }, "kind": ["video", "document"] }));
    assert_eq!(empty.json()["hits"], json!([]));
    for (body, field) in [
        (json!({ "top": 1 }), "query"),
        (json!({ "query": "a", "top": 0 }), "top"),
        (json!({ "query": "a", "top": 6 }), "top"),
        (json!({ "query": "a", "kind": ["text"] }), "kind[0]"),
        (json!({ "query": ["a"], "below": 1 }), "below"),
        (json!({ "query": "a", "path": "/etc" }), "path"),
    ] {
        let answer = ask(body.clone());
        assert_eq!((answer.status, answer.json()["error"]["param"].as_str()), (400, Some(field)), "{body}");
    }
    let (status, message) = ask(json!({ "query": "a", "below": "/broken" })).error();
    assert!(status == 500 && !message.contains("fire"), "{message}");
    let picture = get(server.address, "/v1/search/pictures/1");
    assert_eq!(
        (picture.status, picture.header("content-type"), picture.text().as_str()),
        (200, Some("image/jpeg"), "JPEG")
    );
    for id in ["2", "..%2f..%2fetc%2fpasswd", "%2fetc%2fpasswd"] {
        assert_eq!(get(server.address, &format!("/v1/search/pictures/{id}")).status, 404, "{id}");
    }
    let page = get(server.address, "/");
    assert!(page.text().contains("<title>rzen: search</title>"), "{}", page.text());
    let policy = page.header("content-security-policy").unwrap();
    assert!(policy.contains("default-src 'none'") && policy.contains("script-src 'sha256-"), "{policy}");
    server.end();
    let without = Running::start(Stub::free(), settings());
    for answer in [get(without.address, "/"), post(without.address, "/v1/search", &json!({ "query": "a" }))] {
        assert_eq!(answer.status, 404);
        assert!(answer.error().1.contains("--index"), "{}", answer.text());
    }
    without.end();
}
