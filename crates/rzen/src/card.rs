//! The model card: `README.md` of a folder that is to be published, with the head that the Hugging Face hub reads.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use anyhow::Result;
use serde_json::Value;

use crate::files::whole_file;
use crate::report::ModelScores;

/// What a card says of a folder.
#[derive(Clone, Debug, Default)]
pub struct Card {
    /// The headline.
    pub name: String,
    /// Whether the folder holds an adapter and no model.
    pub adapter: bool,
    /// What was trained, or what the adapter belongs on, in words.
    pub base: String,
    /// Name and licence of the checkpoint that all of it began with.
    pub origin: Origin,
    /// Stages that led here, in order.
    pub stages: Vec<StageCard>,
    /// How adapters were combined, where this is a soup.
    pub soup: Option<SoupCard>,
    /// The recipe as TOML.
    pub recipe: Option<String>,
    /// Once they are measured.
    pub scores: Option<ModelScores>,
}

/// A checkpoint as the hub knows it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Origin {
    /// `ORGANISATION/NAME`.
    pub id: Option<String>,
    /// As its own card says.
    pub license: Option<String>,
}

/// The data and the temperatures of a stage.
#[derive(Clone, Debug, Default)]
pub struct StageCard {
    /// Its name.
    pub name: String,
    /// What it drew from.
    pub data: Vec<DataUse>,
    /// The temperature of each task at its end.
    pub temperatures: Vec<(String, f64)>,
}

/// What a stage took from a dataset.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DataUse {
    /// The dataset's name.
    pub dataset: String,
    /// Rows in the manifest.
    pub rows: usize,
    /// Different rows that the stage planned to draw.
    pub drawn: usize,
    /// As `LICENSES.md` of the corpus says.
    pub licence: Option<String>,
}

/// How adapters were combined.
#[derive(Clone, Debug, Default)]
pub struct SoupCard {
    /// The method's name.
    pub method: String,
    /// Each adapter with its weight.
    pub ingredients: Vec<(String, f64)>,
}

impl Card {
    /// The name of the file.
    pub const FILE: &str = "README.md";

    /// Writes the card into `folder`, whole or not at all.
    ///
    /// # Errors
    /// If it can't be written.
    pub fn write(&self, folder: &Path) -> Result<()> {
        let text = self.render();
        whole_file(&folder.join(Self::FILE), |file| Ok(std::io::Write::write_all(file, text.as_bytes())?))
    }

    fn render(&self) -> String {
        let mut text = self.head();
        let what = if self.adapter { "A LoRA adapter" } else { "A model" };
        let _ = write!(
            text,
            "# {}\n\n{what} that turns texts, pictures, clips and document pages into vectors of one space \
             ([RzenEmbed](https://arxiv.org/abs/2510.27350) on Qwen2-VL), trained by rzen {}.\n\nBase: {}.\n\n",
            self.name,
            env!("CARGO_PKG_VERSION"),
            self.base
        );
        text += &self.loading();
        text += &self.scored();
        for stage in &self.stages {
            text += &stage.render();
        }
        if let Some(soup) = &self.soup {
            let rows = soup.ingredients.iter().map(|(name, weight)| vec![cell(name), format!("{weight}")]);
            let _ = write!(
                text,
                "## Soup\n\nMethod `{}`.\n\n{}\n",
                soup.method,
                table(&["adapter", "weight"], rows)
            );
        }
        if let Some(recipe) = &self.recipe {
            let _ = write!(text, "## Recipe\n\n```toml\n{}\n```\n", recipe.trim_end());
        }
        text
    }

    /// The YAML that the hub reads.
    fn head(&self) -> String {
        let mut lines = vec!["---".to_owned()];
        lines.extend(self.origin.id.as_ref().map(|id| format!("base_model: {id}")));
        lines.extend(self.origin.license.as_ref().map(|license| format!("license: {license}")));
        lines.push(format!("library_name: {}", if self.adapter { "peft" } else { "transformers" }));
        lines.push("pipeline_tag: feature-extraction".to_owned());
        lines.push("tags:".to_owned());
        let tags = ["sentence-similarity", "feature-extraction", "multimodal-embedding", "qwen2_vl", "rzen"];
        lines.extend(tags.iter().map(|tag| format!("- {tag}")));
        lines.extend(self.adapter.then(|| "- lora".to_owned()));
        lines.join("\n") + "\n---\n\n"
    }

    fn loading(&self) -> String {
        let (command, python) = match self.adapter {
            true => (
                "rzen embed --model BASE --adapter THIS_FOLDER --input rows.jsonl --output vectors.safetensors",
                "model = PeftModel.from_pretrained(Qwen2VLForConditionalGeneration.from_pretrained(\"BASE\"), \"THIS_FOLDER\")",
            ),
            false => (
                "rzen embed --model THIS_FOLDER --input rows.jsonl --output vectors.safetensors",
                "model = Qwen2VLForConditionalGeneration.from_pretrained(\"THIS_FOLDER\")",
            ),
        };
        format!(
            "## How to load it\n\n```console\n{command}\n```\n\nWith transformers{}:\n\n```python\n{python}\n```\n\nA vector is the \
             last token's state after the last norm, of unit length. Prompt, limits of tokens and frames stand in \
             `processor.json`.\n\n",
            if self.adapter { " and peft" } else { "" }
        )
    }

    fn scored(&self) -> String {
        let Some(scores) = self.scores.as_ref().filter(|scores| !scores.tasks.is_empty()) else {
            return "## Scores\n\nNot measured yet.\n\n".to_owned();
        };
        let rows = scores.tasks.iter().map(|task| {
            let numbers = [task.value, task.chance].map(|x| format!("{x:.3}"));
            vec![
                cell(&task.task),
                cell(&task.metric),
                numbers[0].clone(),
                numbers[1].clone(),
                task.queries.len().to_string(),
            ]
        });
        let hits = scores.hits().map_or(String::new(), |(hits, chance)| {
            format!(", of hit_rate@1 {hits:.3} (chance {chance:.3})")
        });
        format!(
            "## Scores\n\n{}\nMean {:.3}{hits}. Chance is what a random order scores.\n\n",
            table(&["task", "metric", "score", "chance", "queries"], rows),
            scores.mean()
        )
    }
}

impl StageCard {
    fn render(&self) -> String {
        let data = self.data.iter().map(|data| {
            let licence = data.licence.as_deref().unwrap_or("not stated");
            vec![cell(&data.dataset), data.rows.to_string(), data.drawn.to_string(), cell(licence)]
        });
        let taus = self.temperatures.iter().map(|(task, tau)| vec![cell(task), format!("{tau:.4}")]);
        format!(
            "## Stage `{}`\n\n{}\n{}\n",
            self.name,
            table(&["dataset", "rows", "rows drawn", "licence"], data),
            table(&["task", "temperature at the end"], taus)
        )
    }
}

fn table(heads: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let line = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
    let head = line(heads.iter().map(|head| (*head).to_owned()).collect());
    let rule = "|---".repeat(heads.len()) + "|\n";
    head + &rule + &rows.map(line).collect::<String>()
}

/// Text that neither ends a cell nor begins a line.
fn cell(text: &str) -> String {
    text.replace(['\n', '\r'], " ").replace('|', "\\|")
}

impl Origin {
    /// What the folder of a checkpoint tells of its origin: `_name_or_path` of `config.json` or the name of a hub's cache,
    /// and `license` at the head of its card.
    pub fn of(folder: &Path) -> Self {
        let config = fs::read(folder.join("config.json")).unwrap_or_default();
        let config: Value = serde_json::from_slice(&config).unwrap_or_default();
        let named = config["_name_or_path"].as_str().filter(|name| is_hub_name(name)).map(str::to_owned);
        let cached = || {
            let parts = folder.iter().filter_map(|part| part.to_str()?.strip_prefix("models--"));
            parts.map(|name| name.replacen("--", "/", 1)).find(|name| is_hub_name(name))
        };
        let card = fs::read_to_string(folder.join(Card::FILE)).unwrap_or_default();
        let mut head =
            card.strip_prefix("---\n").and_then(|card| card.split("\n---").next()).unwrap_or("").lines();
        let license = head.find_map(|line| line.strip_prefix("license:"));
        Origin { id: named.or_else(cached), license: license.map(|license| license.trim().to_owned()) }
    }
}

fn is_hub_name(name: &str) -> bool {
    let fits = |part: &str| {
        part.starts_with(|c: char| c.is_ascii_alphanumeric())
            && part.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
    };
    name.split_once('/').is_some_and(|(organisation, name)| fits(organisation) && fits(name))
}

/// The licence of `dataset`: the line `- Licence: …` below `## DATASET` in `LICENSES.md` of the corpus.
pub fn licence_of(corpus: &Path, dataset: &str) -> Option<String> {
    let text = fs::read_to_string(corpus.join("LICENSES.md")).ok()?;
    let mut lines =
        text.lines().skip_while(|line| line.strip_prefix("## ").is_none_or(|head| head.trim() != dataset));
    let found = lines.by_ref().skip(1).take_while(|line| !line.starts_with("## "));
    let mut licences = found.filter_map(|line| {
        let line = line.trim_start_matches(['-', '*', ' ']);
        line.strip_prefix("Licence:").or_else(|| line.strip_prefix("License:"))
    });
    licences.next().map(|licence| licence.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn licences_are_found_by_dataset() {
        let corpus = tempfile::tempdir().unwrap();
        assert_eq!(licence_of(corpus.path(), "cats"), None);
        let text = "# Licences\n\n## cats\n\n- Licence: CC-BY-4.0\n- Credit: x\n\n## dogs\n\n- Credit: y\n\n## cows\nLicense: MIT\n";
        fs::write(corpus.path().join("LICENSES.md"), text).unwrap();
        let found = ["cats", "dogs", "cows", "pigs"].map(|name| licence_of(corpus.path(), name));
        assert_eq!(found, [Some("CC-BY-4.0".to_owned()), None, Some("MIT".to_owned()), None]);
    }

    #[test]
    fn origins_are_named_as_the_hub_does() {
        let place = tempfile::tempdir().unwrap();
        let folder = place.path().join("models--Qwen--Qwen2-VL-2B-Instruct/snapshots/1");
        fs::create_dir_all(&folder).unwrap();
        let id = || Origin::of(&folder).id;
        assert_eq!(id().as_deref(), Some("Qwen/Qwen2-VL-2B-Instruct"));
        fs::write(folder.join("config.json"), r#"{"_name_or_path": "a/b"}"#).unwrap();
        fs::write(folder.join("README.md"), "---\nlicense: apache-2.0\ntags: []\n---\nlicense: no\n")
            .unwrap();
        assert_eq!(
            Origin::of(&folder),
            Origin { id: Some("a/b".into()), license: Some("apache-2.0".into()) }
        );
        assert!(!is_hub_name("/models/qwen") && !is_hub_name("../start") && !is_hub_name("a/b/c"));
    }

    #[test]
    fn a_card_leaves_out_what_is_not_known() {
        let data = vec![DataUse { dataset: "a|b".into(), rows: 9, drawn: 4, licence: None }];
        let stage = StageCard { name: "one".into(), data, temperatures: vec![("qa".into(), 0.02)] };
        let text = Card { name: "x".into(), adapter: true, stages: vec![stage], ..Card::default() }.render();
        assert!(text.starts_with("---\nlibrary_name: peft\n") && text.contains("Not measured yet"), "{text}");
        assert!(
            text.contains("| a\\|b | 9 | 4 | not stated |\n") && text.contains("| qa | 0.0200 |"),
            "{text}"
        );
    }
}
