use super::*;

/// A picture of one colour, as a PNG file.
fn png(red: u8) -> ReportPart {
    let picture = image::RgbImage::from_pixel(6, 4, image::Rgb([red, 90, 160]));
    let mut bytes = std::io::Cursor::new(Vec::new());
    picture.write_to(&mut bytes, image::ImageFormat::Png).unwrap();
    ReportPart::Image { bytes: bytes.into_inner(), media_type: "image/png".into() }
}

const NASTY: &str = "</p><script>alert(\"1\")</script> & 'https://example.org/x.png' \u{7}";

fn example(kind: &str, rank: usize, query: Vec<ReportPart>) -> Example {
    let found = |place: usize, part: ReportPart| Found {
        parts: vec![part, ReportPart::Text(format!("{place} {NASTY}"))],
        score: 0.9 - place as f32 * 0.1,
        relevant: place == rank,
    };
    Example {
        task: format!("toy {NASTY}"),
        kind: kind.into(),
        instruction: Some(NASTY.into()),
        query,
        found: vec![found(1, png(10)), found(2, ReportPart::Frames((0..7).map(|i| png(i * 9)).collect()))],
        answer: (rank > 2).then(|| found(rank, png(77))),
        correct: rank == 1,
        rank,
    }
}

fn run(name: &str, steps: u64) -> RunCurves {
    let step = |step: u64| StepRecord {
        step,
        loss: if step == 7 { f64::NAN } else { 3.0 / step as f64 },
        learning_rate: Some(1e-4),
        temperatures: (0..10).map(|task| (format!("task_{task}"), 0.02 + f64::from(task) * 0.01)).collect(),
        accuracy: (step > 1).then_some(0.5),
        grad_norm: Some(f64::from(step as u32 % 5)),
        seconds: Some(2.0),
        samples: Some(16.0),
        tokens: Some(100.0),
        stall_seconds: Some(0.5),
        peak_memory_bytes: Some(3e9),
    };
    RunCurves { name: name.into(), steps: (1..=steps).map(step).collect() }
}

fn row(task: &str, kind: &str, values: [f64; 3], chance: Option<f64>) -> TaskRow {
    TaskRow {
        task: task.into(),
        kind: kind.into(),
        metric: "hit_rate@1".into(),
        values: values.to_vec(),
        chance,
    }
}

fn sample() -> ReportInput {
    ReportInput {
        title: NASTY.into(),
        summary: vec![("Command".into(), NASTY.into()), ("Seed".into(), "7".into())],
        runs: vec![run("stage 1", 900), run(NASTY, 1), run("empty", 0)],
        columns: vec!["start".into(), NASTY.into(), "soup".into()],
        table: vec![
            row("t2i", "image_retrieval", [0.01, 0.40, 0.50], Some(0.02)),
            row("i2t", "image_retrieval", [0.02, 0.30, 0.20], Some(0.02)),
            row(NASTY, "image_qa", [0.25, 0.25, 0.25], Some(0.25)),
        ],
        hits: Some("soup: mean hit_rate@1 0.317 = 3.3 × chance 0.097; start 0.093".into()),
        examples: vec![
            example("image_retrieval", 1, vec![ReportPart::Text(NASTY.repeat(40))]),
            example("image_retrieval", 2, vec![png(200)]),
            example(
                "image_qa",
                9,
                vec![png(30), ReportPart::Frames(vec![png(1)]), ReportPart::Frames(vec![])],
            ),
        ],
        notes: vec![NASTY.into()],
    }
}

/// Walks through all tags and returns the text between them.
fn check_tags(page: &str) -> String {
    let mut open: Vec<&str> = Vec::new();
    let mut text = String::new();
    let (mut rest, page_end) = page.split_once("<style>").unwrap();
    let (style, after) = page_end.split_once("</style>").unwrap();
    assert_eq!(style.matches('{').count(), style.matches('}').count());
    for half in [rest, after] {
        rest = half;
        while let Some((before, tag)) = rest.split_once('<') {
            text.push_str(before);
            let (tag, next) = tag.split_once('>').unwrap();
            rest = next;
            assert_eq!(tag.matches('"').count() % 2, 0, "quotes in <{tag}>");
            let name = tag.trim_start_matches('/').split_whitespace().next().unwrap().trim_end_matches('/');
            if tag.starts_with('/') {
                assert_eq!(open.pop(), Some(name), "</{name}>");
            } else if !(tag.ends_with('/') || tag.starts_with('!') || matches!(name, "meta" | "img")) {
                open.push(name);
            }
        }
        text.push_str(rest);
    }
    assert_eq!(open, [""; 0], "tags left open");
    text
}

#[test]
fn the_page_is_well_formed_and_shows_everything() {
    let page = render(&sample()).unwrap();
    let text = check_tags(&page);
    for expected in
        ["image retrieval", "t2i", "0.500", "stage 1", "rank 9", "Temperature of each task", "task 9"]
    {
        assert!(text.to_lowercase().contains(&expected.to_lowercase()), "{expected}");
    }
    // One picture found and four of seven frames for each example, two query pictures, a frame, an answer.
    assert_eq!(page.matches("<img ").count(), 3 * (1 + 4) + 2 + 1 + 1);
    assert_eq!(page.matches("<svg").count(), 4 + 2);
    check_tags(&render(&ReportInput::default()).unwrap());
}

#[test]
fn nothing_is_fetched_and_no_text_is_code() {
    let page = render(&sample()).unwrap();
    assert!(
        !page.contains("<script")
            && !page.contains("href=")
            && !page.contains("url(")
            && !page.contains("@import")
    );
    for (at, _) in page.match_indices("src=\"") {
        assert!(page[at..].starts_with("src=\"data:image/png;base64,"));
    }
    assert!(page.contains("default-src 'none'"));
    assert!(page.contains("&lt;script&gt;alert(&quot;1&quot;)") && !page.contains('\u{7}'));
    assert!(!page.contains("NaN") && !page.contains("inf\"") && !page.contains(",inf"));
}

#[test]
fn the_story_tells_the_good_and_the_bad() {
    let text = check_tags(&render(&sample()).unwrap());
    let mean = (0.5 + 0.2 + 0.25) / 3.0;
    assert!(text.contains(&format!("soup reaches a mean hit_rate@1 of {mean:.3} over 3 tasks")), "{text}");
    assert!(text.contains("soup: mean hit_rate@1 0.317 = 3.3 × chance 0.097; start 0.093."), "{text}");
    assert!(text.contains("3.3 times what a random order gets (0.097)"), "{text}");
    assert!(
        text.contains("Against start (+0.223 on the mean): better on 2, worse on none, equal on 1."),
        "{text}"
    );
    assert!(text.contains("(+0.000 on the mean): better on 1, worse on 1 (i2t), equal on 1."), "{text}");
    assert!(text.contains("No better than chance: &lt;/p&gt;"), "{text}");
    assert!(text.contains("the loss of 1 step is not finite"), "{text}");
    assert!(text.contains("Below are 1 query answered right and 2 answered wrong"), "{text}");
}

#[test]
fn the_best_of_a_row_is_bold() {
    let page = render(&sample()).unwrap();
    assert!(page.contains("<b>0.500</b>") && page.contains("<b>0.300</b>") && !page.contains("<b>0.200</b>"));
    assert_eq!(page.matches("<td class=\"bad\"><b>0.250</b></td>").count(), 3);
    // Kinds with several tasks have a mean, in the order of the table.
    assert!(
        page.contains("image retrieval</th><td class=\"metric\">mean</td><td class=\"chance\">0.020</td>")
    );
}

#[test]
fn absent_scores_are_dashes_and_misfits_are_refused() {
    let mut input = sample();
    input.table[0].values[1] = f64::NAN;
    let text = check_tags(&render(&input).unwrap());
    assert!(text.contains('–') && !text.contains("NaN") && text.contains("not compared on 1"), "{text}");
    input.table[0].values.pop();
    let message = format!("{:#}", render(&input).unwrap_err());
    assert!(message.contains("task `t2i` has 2 values for the 3 columns"), "{message}");
}

#[test]
fn the_file_is_whole_or_absent() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("report.html");
    write_report(&sample(), &path).unwrap();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), render(&sample()).unwrap());
    let message =
        format!("{:#}", write_report(&sample(), &folder.path().join("absent/report.html")).unwrap_err());
    assert!(message.contains("absent/report.html"), "{message}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}
