//! The sets of visual documents.

use std::path::Path;

use serde_json::{Value, json};

use super::{Expected, ExpectedQuery, Meant, annotate, drawn};

/// A set: its repository, the folder of its pages, and what is particular about it.
#[derive(Clone, Copy)]
pub struct Set {
    pub name: &'static str,
    repository: &'static str,
    folder: &'static str,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    /// Numbers are ids.
    Numbers,
    /// Texts are ids, grades differ.
    Graded,
    /// Numbers are ids, and queries have languages.
    Languages { english_alone: bool },
    /// File names are ids.
    Files,
}

use Kind::{Files, Graded, Languages, Numbers};

const fn set(name: &'static str, repository: &'static str, folder: &'static str, kind: Kind) -> Set {
    Set { name, repository, folder, kind }
}

const ALL: Kind = Languages { english_alone: false };
const ONE: Kind = Languages { english_alone: true };

#[rustfmt::skip]
pub const DOCUMENTS: [Set; 24] = [
    set("ViDoRe_arxivqa", "vidore/arxivqa_test_subsampled_beir", "ViDoRe_arxivqa", Numbers),
    set("ViDoRe_docvqa", "vidore/docvqa_test_subsampled_beir", "ViDoRe_docvqa", Numbers),
    set("ViDoRe_infovqa", "vidore/infovqa_test_subsampled_beir", "ViDoRe_infovqa", Numbers),
    set("ViDoRe_tabfquad", "vidore/tabfquad_test_subsampled_beir", "ViDoRe_tabfquad", Numbers),
    set("ViDoRe_tatdqa", "vidore/tatdqa_test_beir", "ViDoRe_tatdqa", Numbers),
    set("ViDoRe_shiftproject", "vidore/shiftproject_test_beir", "ViDoRe_shiftproject", Numbers),
    set("ViDoRe_syntheticDocQA_artificial_intelligence", "vidore/syntheticDocQA_artificial_intelligence_test_beir", "ViDoRe_syntheticDocQA_artificial_intelligence", Numbers),
    set("ViDoRe_syntheticDocQA_energy", "vidore/syntheticDocQA_energy_test_beir", "ViDoRe_syntheticDocQA_energy", Numbers),
    set("ViDoRe_syntheticDocQA_government_reports", "vidore/syntheticDocQA_government_reports_test_beir", "ViDoRe_syntheticDocQA_government_reports", Numbers),
    set("ViDoRe_syntheticDocQA_healthcare_industry", "vidore/syntheticDocQA_healthcare_industry_test_beir", "ViDoRe_syntheticDocQA_healthcare_industry", Numbers),
    set("ViDoRe_esg_reports_human_labeled_v2", "vidore/esg_reports_human_labeled_v2", "esg_reports_human_labeled_v2", Graded),
    set("ViDoRe_biomedical_lectures_v2_multilingual", "vidore/biomedical_lectures_v2", "biomedical_lectures_v2_multilingual", ALL),
    set("ViDoRe_economics_reports_v2_multilingual", "vidore/economics_reports_v2", "economics_reports_v2_multilingual", ALL),
    set("ViDoRe_esg_reports_v2_multilingual", "vidore/esg_reports_v2", "esg_reports_v2_multilingual", ALL),
    set("VisRAG_ArxivQA", "openbmb/VisRAG-Ret-Test-ArxivQA", "VisRAG_ArxivQA", Files),
    set("VisRAG_ChartQA", "openbmb/VisRAG-Ret-Test-ChartQA", "VisRAG_ChartQA", Files),
    set("VisRAG_MP-DocVQA", "openbmb/VisRAG-Ret-Test-MP-DocVQA", "VisRAG_MP-DocVQA", Files),
    set("VisRAG_SlideVQA", "openbmb/VisRAG-Ret-Test-SlideVQA", "VisRAG_SlideVQA", Files),
    set("VisRAG_InfoVQA", "openbmb/VisRAG-Ret-Test-InfoVQA", "VisRAG_InfoVQA", Files),
    set("VisRAG_PlotQA", "openbmb/VisRAG-Ret-Test-PlotQA", "VisRAG_PlotQA", Files),
    set("ViDoSeek-page", "VLM2Vec/ViDoSeek-page-fixed", "ViDoSeek-page", Graded),
    set("ViDoSeek-doc", "VLM2Vec/ViDoSeek", "ViDoSeek-doc", Graded),
    set("MMLongBench-page", "VLM2Vec/MMLongBench-page-fixed", "MMLongBench-page", Graded),
    set("MMLongBench-doc", "VLM2Vec/MMLongBench-doc", "MMLongBench-doc", Graded),
];

pub const ENGLISH: [Set; 3] = [
    set("ViDoRe_biomedical_lectures_v2", "vidore/biomedical_lectures_v2", "biomedical_lectures_v2", ONE),
    set("ViDoRe_economics_reports_v2", "vidore/economics_reports_v2", "economics_reports_v2", ONE),
    set("ViDoRe_esg_reports_v2", "vidore/esg_reports_v2", "esg_reports_v2", ONE),
];

pub fn write(dir: &Path, sets: &[Set]) -> Vec<Expected> {
    sets.iter().map(|set| write_set(dir, set)).collect()
}

/// Pages of file names, and how the files are called: the id's first 50 characters and the beginning of its MD5.
const FILES: [(&str, &str); 4] = [
    ("page_1.jpg", "page_1_b8196cea.jpg"),
    ("page_2.jpg", "page_2_cb66b276.jpg"),
    ("page_3.jpg", "page_3_e40a5eba.jpg"),
    (
        "a_name_that_is_much_longer_than_fifty_characters_and_goes_on.jpg",
        "a_name_that_is_much_longer_than_fifty_characters_a_257efc4b.jpg",
    ),
];

fn write_set(dir: &Path, set: &Set) -> Expected {
    let Set { name, repository, folder, kind } = *set;
    let is_number = matches!(kind, Numbers | Languages { .. });
    let pages: Vec<(String, String)> = match kind {
        Files => FILES.map(|(id, file)| (id.to_owned(), file.to_owned())).to_vec(),
        Graded => (1..=4).map(|page| (format!("report_{page}"), format!("report_{page}.png"))).collect(),
        _ => (1..=4).map(|page| (page.to_string(), format!("{page}.png"))).collect(),
    };
    let mut expected =
        Expected { task: name.into(), queries: Vec::new(), candidates: Default::default(), pool: 4 };
    let id =
        |text: &str| if is_number { Value::from(text.parse::<i64>().unwrap()) } else { Value::from(text) };
    let mut corpus = Vec::new();
    for (page, file) in &pages {
        let path = format!("visdoc-tasks/{folder}/{file}");
        let shown = "<> Understand the content of the provided document image.";
        expected.candidates.insert(page.clone(), Meant::new(std::slice::from_ref(&path), shown));
        corpus.push(json!({ "corpus-id": id(page), "image": { "bytes": drawn(&format!("{repository}{file}")), "path": file } }));
    }
    let (mut queries, mut qrels) = (Vec::new(), Vec::new());
    for row in 0..3 {
        let query = if is_number { row.to_string() } else { format!("q{row}") };
        let text = format!("what stands on sheet {row}?");
        let language = ["english", "french", "english"][row];
        let mut judge = |page: &str, score: i64| {
            qrels.push(json!({ "query-id": id(&query), "corpus-id": id(page), "score": score }));
        };
        let page = |place: usize| pages[place].0.clone();
        let mut relevant = vec![(page(row), 1.0)];
        judge(&page(row), 1);
        // No answer.
        judge(&page(3 - row), 0);
        if kind == Graded {
            // The higher of two grades counts.
            judge(&page(row), 3);
            judge(&page(row + 1), 2);
            relevant = vec![(page(row), 3.0), (page(row + 1), 2.0)];
        }
        let meant = Meant::new(&[], &format!("Find a document image that matches the given query: {text}"));
        if kind != ONE || language == "english" {
            expected.queries.push(ExpectedQuery { id: query.clone(), meant, candidates: None, relevant });
        }
        queries.push(json!({ "query-id": id(&query), "query": text, "language": language }));
    }
    let split = if kind == Files { "train" } else { "test" };
    let file = |part: &str| format!("{repository}/{part}/{split}-00000-of-00001.parquet");
    let number = if is_number { ":int" } else { "" };
    annotate(dir, &file("corpus"), &format!("corpus-id{number} image:picture"), &corpus);
    annotate(dir, &file("queries"), &format!("query-id{number} query language"), &queries);
    annotate(dir, &file("qrels"), &format!("query-id{number} corpus-id{number} score:int"), &qrels);
    expected
}
