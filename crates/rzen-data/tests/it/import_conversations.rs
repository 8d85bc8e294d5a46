//! Imports of conversations: LLaVA and ms-swift.

use rzen_core::{Item, Part, VideoSource};
use rzen_data::ImportKind;
use serde_json::{Value, json};

use crate::imports::{Workshop, item};
use crate::made::check_message;

const LLAVA: ImportKind = ImportKind::Llava { reverse: false };

fn turns(texts: &[&str]) -> Value {
    let turn =
        |(place, text): (usize, &&str)| json!({ "from": (["human", "gpt"][place % 2]), "value": text });
    texts.iter().enumerate().map(turn).collect()
}

#[test]
fn llava_conversations() {
    let mut shop =
        Workshop::new(&["a.png", "film/f10.png", "film/f2.png", "film/f1.png", "film/f3.png", "clip.mp4"]);
    shop.options.instruction = Some("Answer: ".into());
    let rows = json!([
        { "id": "1", "image": "a.png", "conversations": turns(&["<image>\nWhat is it?", "A cat.", "And its colour?", "Red."]) },
        { "id": "2", "conversations": turns(&["Who?", "Nobody."]) },
        { "id": "3", "video": "film", "conversations": turns(&["<video>\nDescribe it.", "A film."]) },
        { "id": "4", "video": "clip.mp4", "conversations": turns(&["Describe it.\n<video>", "A clip."]) },
    ]);
    // A list in one file, as LLaVA has it.
    let input = shop.folder.write("llava.json", rows.to_string());
    let (samples, report) = shop.import(&LLAVA, std::slice::from_ref(&input)).unwrap();
    let asked = |content: Vec<Part>| Item { content, instruction: Some("Answer: ".into()) };
    let clip = Part::Video(VideoSource::File(shop.folder.path().join("media/clip.mp4")));
    // Three frames of four, in the order of their numbers.
    let frames = ["f1", "f2", "f10"].map(|name| shop.folder.path().join(format!("media/film/{name}.png")));
    let film = Part::Video(VideoSource::Frames(frames.to_vec()));
    let text = |text: &str| Part::Text(text.into());
    let expected = [
        (shop.shown("a.png", "What is it?"), "A cat."),
        // The picture belongs to the later turns too.
        (shop.shown("a.png", "And its colour?"), "Red."),
        (vec![text("Who?")], "Nobody."),
        (vec![film.clone(), text("Describe it.")], "A film."),
        (vec![clip.clone(), text("Describe it.")], "A clip."),
    ];
    assert_eq!(samples.len(), expected.len());
    for (sample, (query, positive)) in samples.iter().zip(expected) {
        assert_eq!((&sample.query, &sample.positive), (&asked(query), &Item::text(positive)));
    }
    assert_eq!((report.read, report.rows), (4, 5));
    assert_eq!(report.notes["rows from later turns of a conversation"], 1);

    // A cap in the middle of a conversation.
    shop.options.cap = Some(1);
    let (samples, report) = shop.import(&LLAVA, std::slice::from_ref(&input)).unwrap();
    assert_eq!((samples.len(), report.capped), (1, true));
    shop.options.cap = None;

    shop.options.bad_row_limit = 1;
    let (samples, report) = shop.import(&ImportKind::Llava { reverse: true }, &[input]).unwrap();
    assert_eq!(samples[0].query, asked(vec![text("A cat.")]));
    assert_eq!(samples[2].positive, item(vec![film]));
    assert_eq!(samples[3].positive, item(vec![clip]));
    check_message(&report.bad_rows[0], &["row 2", "no picture"]);
}

#[test]
fn odd_conversations_are_named() {
    let shop = Workshop::new(&["a.png"]);
    for (row, named) in [
        (
            json!({ "image": "a.png", "conversations": turns(&["<image>\n<image>\nBoth?", "Yes."]) }),
            "2 pictures",
        ),
        (json!({ "conversations": turns(&["<image>\nWhat?", "It."]) }), "names 0"),
        (json!({ "image": "a.png", "conversations": turns(&["<image>\nWhat?"]) }), "one after the other"),
        (json!({ "conversations": [] }), "`conversations` is empty"),
        (json!({ "conversations": [{ "from": "system", "value": "x" }] }), "from `system`"),
        (json!({ "video": "a.png", "start": 1.5, "conversations": turns(&["<video>", "It."]) }), "`start`"),
        (json!({ "image": "a.png" }), "`conversations` is missing"),
    ] {
        let input = shop.lines("odd.jsonl", &[row]);
        check_message(&shop.import(&LLAVA, &[input]).unwrap_err(), &["odd.jsonl, row 1", named]);
    }
}

fn user(text: &str) -> Value {
    json!([{ "role": "user", "content": text }])
}

#[test]
fn swift_messages() {
    let shop = Workshop::new(&["a.png", "b.png", "c.png", "clip.mp4"]);
    let rows = [
        json!({
            "messages": [{ "role": "system", "content": "Find it. " }, { "role": "user", "content": "<image>like this" }],
            "images": ["a.png"],
            "positive_messages": [user("<image>one"), user("two")], "positive_images": [["b.png"], []],
            "negative_messages": [user("<image>three<video>"), user("four")],
            "negative_images": [["c.png"], []], "negative_videos": [["clip.mp4"]],
        }),
        json!({ "messages": user("q"), "positive_messages": user("p"), "negative_messages": [user("n")] }),
        json!({ "messages": [user("q")[0], { "role": "assistant", "content": "p" }], "rejected_response": ["n"] }),
    ];
    let input = shop.lines("swift.jsonl", &rows);
    let (samples, report) = shop.import(&ImportKind::Swift, &[input]).unwrap();
    let sample = &samples[0];
    assert_eq!(
        sample.query,
        Item { content: shop.shown("a.png", "like this"), instruction: Some("Find it. ".into()) }
    );
    assert_eq!(sample.positive, item(shop.shown("b.png", "one")));
    assert_eq!(sample.other_positives, [Item::text("two")]);
    let clip = Part::Video(VideoSource::File(shop.folder.path().join("media/clip.mp4")));
    let third = vec![shop.picture("c.png"), clip, Part::Text("three".into())];
    assert_eq!(sample.hard_negatives, [item(third), Item::text("four")]);
    for sample in &samples[1..] {
        assert_eq!((&sample.query, &sample.positive), (&Item::text("q"), &Item::text("p")));
        assert_eq!(sample.hard_negatives, [Item::text("n")]);
    }
    assert!(report.unused.is_empty());
}

#[test]
fn swift_responses() {
    let shop = Workshop::new(&["a.png", "b.png", "c.png"]);
    // One list of pictures for the marks of all texts, in order.
    let row = json!({
        "query": "<image>", "response": "<image>of it", "rejected_response": ["n", "<image>"],
        "images": ["a.png", "b.png", "c.png"], "label": 1.0,
    });
    let input = shop.lines("swift.jsonl", &[row]);
    let (samples, _) = shop.import(&ImportKind::Swift, &[input]).unwrap();
    assert_eq!(samples[0].query, item(vec![shop.picture("a.png")]));
    assert_eq!(samples[0].positive, item(shop.shown("b.png", "of it")));
    assert_eq!(samples[0].hard_negatives, [Item::text("n"), item(vec![shop.picture("c.png")])]);

    let positive = || json!([user("p")]);
    for (row, named) in [
        (json!({ "query": "q", "response": "p", "label": 0.7 }), "`label` is 0.7"),
        (json!({ "query": "<image>", "response": "p" }), "more marks for pictures"),
        (
            json!({ "query": "q", "response": "p", "images": ["a.png"] }),
            "1 pictures and clips without a mark",
        ),
        (
            json!({ "messages": user("q"), "positive_messages": positive(), "positive_images": [["a.png"]] }),
            "without a mark",
        ),
        (
            json!({ "messages": user("q"), "positive_messages": positive(), "positive_images": [[], ["a.png"]] }),
            "2 items for 1",
        ),
        (json!({ "messages": user("q") }), "the positive is empty"),
        (json!({ "messages": [{ "role": "tool", "content": "q" }] }), "`tool`"),
        (
            json!({ "messages": [user("q")[0], user("r")[0]], "positive_messages": positive() }),
            "two messages of `user`",
        ),
    ] {
        let input = shop.lines("odd.jsonl", &[row]);
        check_message(&shop.import(&ImportKind::Swift, &[input]).unwrap_err(), &["odd.jsonl, row 1", named]);
    }
}
