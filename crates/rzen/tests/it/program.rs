//! The program as a user runs it: what it writes, what it refuses, what it survives.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use safetensors::SafeTensors;
use serde_json::Value;

use crate::command::{refuse, succeed, tiny_model};

pub const RECIPE: &str = concat!(
    "seed = 3\n",
    tiny_model!(),
    r#"
[data.world]
captions = 40
edits = 8
pages = 8
clips = 12
texts = 12
instructed = 12
labels = 8
queries = 4
[[stage]]
name = "first"
batch_size = 8
micro_batch_size = 4
epochs = 1
instructions = false
datasets = [{ dataset = "stage1_captions" }, { dataset = "stage1_clips" }, { dataset = "stage1_texts" }]
objective = { alpha = 0.0, delta = 2.0 }
training = { learning_rate = 1e-3, recompute = false, checkpoint_every = 1, keep_last = 0 }
[[stage]]
name = "a"
from = "first"
train = { kind = "lora", rank = 2, alpha = 4 }
batch_size = 6
micro_batch_size = 3
epochs = 1
hard_negatives = 1
datasets = [{ dataset = "pictures" }, { dataset = "shapes", group = "labels" }, { dataset = "colours", group = "labels" }]
training = { checkpointing = "blocks", checkpoint_every = 1, keep_last = 0 }
[[stage]]
name = "b"
from = "first"
train = { kind = "lora", rank = 2, alpha = 4 }
batch_size = 6
micro_batch_size = 3
epochs = 1
datasets = [{ dataset = "page_lists" }, { dataset = "clips" }]
[soup]
ingredients = ["a", "b"]
"#
);

/// A run of the tiny recipe, made once for all tests.
pub fn run() -> &'static Path {
    static RUN: OnceLock<PathBuf> = OnceLock::new();
    RUN.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap().keep();
        std::fs::write(folder.join("tiny.toml"), RECIPE).unwrap();
        let table = succeed(&folder, &["train", "--config", "tiny.toml"]);
        for column in ["start", "first", "soup"] {
            assert!(table.lines().next().unwrap().contains(column), "{table}");
        }
        folder
    })
}

pub fn bytes(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The bias of the merger's last layer with which training starts.
fn first_merger_bias(weights: &str) -> Vec<f32> {
    let folder = tempfile::tempdir().unwrap();
    let first = RECIPE.split("[[stage]]\nname = \"a\"").next().unwrap();
    let scratch = format!("kind = \"scratch\"\nweights = \"{weights}\"");
    let recipe = first.replace("kind = \"scratch\"", &scratch);
    std::fs::write(folder.path().join("tiny.toml"), recipe).unwrap();
    let table = succeed(folder.path(), &["train", "--config", "tiny.toml"]);
    assert!(table.contains("start") && table.contains("first"), "{table}");
    let file = bytes(&folder.path().join("runs/tiny/start/model.safetensors"));
    let tensors = SafeTensors::deserialize(&file).unwrap();
    let bias = tensors.tensor("visual.merger.mlp.2.bias").unwrap();
    let (numbers, _) = bias.data().as_chunks::<4>();
    numbers.iter().map(|number| f32::from_le_bytes(*number)).collect()
}

#[test]
fn structured_first_weights_are_fitted_to_the_pictures_of_the_rows() {
    assert!(first_merger_bias("random").iter().all(|x| *x == 0.0));
    let fitted = first_merger_bias("structured");
    // The mean picture is taken off; that is another number in every coordinate of the content.
    assert!(fitted[2..].iter().all(|x| *x != 0.0), "{fitted:?}");
    assert_eq!(fitted, first_merger_bias("structured"));
}

#[test]
fn a_run_leaves_models_scores_and_a_report() {
    let run = run().join("runs/tiny");
    for file in [
        "recipe.toml",
        "world/tasks.jsonl",
        "start/model.safetensors",
        "first/model/config.json",
        "first/model/tokenizer.json",
        "first/model/processor.json",
        "first/metrics.jsonl",
        "first/temperatures.json",
        "a/adapter/adapter_config.json",
        "b/adapter/adapter_model.safetensors",
        "a/adapter/processor.json",
        "soup/adapter/adapter_model.safetensors",
        "soup/adapter/processor.json",
        "soup/model/model.safetensors",
        "results/soup.json",
        "report.html",
    ] {
        assert!(run.join(file).is_file(), "{file} is missing");
    }
    let results: Value = serde_json::from_slice(&bytes(&run.join("results/soup.json"))).unwrap();
    for (task, scores) in results.as_object().unwrap() {
        assert!(scores["queries"].as_u64().unwrap() > 0, "{task}");
        assert!(scores["hit_rate@1"].as_f64().is_some(), "{task}");
    }
    for (folder, parts) in [
        (
            "first/model",
            &["library_name: transformers", "| stage1_captions | 40 |", "drawn by rzen itself"][..],
        ),
        (
            "a/adapter",
            &[
                "library_name: peft",
                "## Stage `first`",
                "## Stage `a`",
                "| pictures |",
                "the model of stage `first`",
            ],
        ),
        ("soup/adapter", &["library_name: peft", "| a | 0.5 |", "## Stage `b`"]),
        ("soup/model", &["library_name: transformers", "| b | 0.5 |", "```toml\nseed = 3"]),
    ] {
        let card = String::from_utf8(bytes(&run.join(folder).join("README.md"))).unwrap();
        let all =
            [parts, &["| task | metric | score | chance | queries |", "temperature at the end", "| 0.05"]]
                .concat();
        all.iter().for_each(|part| assert!(card.contains(part), "{folder} lacks `{part}`: {card}"));
    }
    let page = String::from_utf8(bytes(&run.join("report.html"))).unwrap();
    assert!(page.contains("</html>") && !page.contains("http://") && !page.contains("https://"));
}

pub fn copy_folder(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-r").arg(from).arg(to).status().unwrap().success());
}

pub fn remove(path: &Path) {
    if path.is_dir() {
        std::fs::remove_dir_all(path).unwrap()
    } else if path.exists() {
        std::fs::remove_file(path).unwrap()
    }
}

#[test]
fn mistakes_in_the_last_stage_show_before_the_first_trains() {
    let place = tempfile::tempdir().unwrap();
    let world = run().join("runs/tiny/world").to_str().unwrap().to_owned();
    for (from, to, named) in [
        ("{ dataset = \"clips\" }", "{ dataset = \"clops\" }", "clops"),
        ("{ dataset = \"clips\" }", "{ dataset = \"clips\", rows = [\"none\"] }", "`none`"),
        ("{ dataset = \"clips\" }", "{ dataset = \"clips\", weight = -1 }", "`weight` is -1"),
        ("{ dataset = \"clips\" }", "{ dataset = \"clips\", cap = 1 }", "gives 1 rows"),
        ("ingredients", "method = \"magic\"\ningredients", "magic"),
    ] {
        assert!(RECIPE.contains(from));
        std::fs::write(place.path().join("wrong.toml"), RECIPE.replace(from, to)).unwrap();
        let error = refuse(place.path(), &["train", "--config", "wrong.toml", "--data", &world]);
        assert!(error.contains(named), "{error}");
        assert!(!place.path().join("runs/wrong/start").exists(), "{error}");
        remove(&place.path().join("runs"));
    }
}

#[test]
#[cfg(not(feature = "mpi"))]
fn one_of_several_processes_is_refused_by_a_program_without_mpi() {
    let place = tempfile::tempdir().unwrap();
    std::fs::write(place.path().join("tiny.toml"), RECIPE).unwrap();
    let said = |variables: &[(&str, &str)], more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rzen"));
        command.current_dir(place.path()).args(["train", "--config", "tiny.toml"]).args(more);
        let output =
            command.envs(variables.iter().copied()).stdin(std::process::Stdio::null()).output().unwrap();
        assert!(!output.status.success(), "{variables:?} {more:?}");
        assert!(!place.path().join("runs").exists(), "nothing was begun");
        String::from_utf8(output.stderr).unwrap()
    };
    let launched = said(&[("OMPI_COMM_WORLD_SIZE", "2"), ("OMPI_COMM_WORLD_RANK", "1")], &[]);
    assert!(launched.contains("OMPI_COMM_WORLD_SIZE=2") && launched.contains("--features mpi"), "{launched}");
    assert!(launched.contains("--ranks solo"), "{launched}");
    assert!(said(&[], &["--ranks", "mpi"]).contains("built without MPI"));
}

#[test]
fn another_recipe_does_not_overwrite_a_run() {
    let error = refuse(run(), &["train", "--config", "tiny.toml", "--set", "seed=4"]);
    assert!(error.contains("--overwrite") && error.contains("runs/tiny"), "{error}");
    assert!(error.contains("`seed` was 3 and is 4"), "{error}");
}

#[test]
fn a_folder_that_is_no_run_is_never_emptied() {
    let place = tempfile::tempdir().unwrap();
    std::fs::write(place.path().join("recipe.toml"), RECIPE).unwrap();
    std::fs::create_dir(place.path().join("first")).unwrap();
    let error = refuse(place.path(), &["train", "--config", "recipe.toml", "--output", ".", "--overwrite"]);
    assert!(error.contains("no run of rzen"), "{error}");
    assert_eq!(bytes(&place.path().join("recipe.toml")), RECIPE.as_bytes());
    assert!(place.path().join("first").is_dir());
}

#[test]
fn wrong_options_are_named() {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path();
    std::fs::write(folder.join("rows.jsonl"), r#"{"id": "x", "content": [{"text": "a"}]}"#).unwrap();
    let model = run().join("runs/tiny/soup/model");
    let model = model.to_str().unwrap();
    let with = |more: &[&str]| {
        let mut args = vec!["embed", "--model", model, "--input", "rows.jsonl", "--output", "o.jsonl"];
        args.extend(more);
        refuse(folder, &args)
    };
    assert!(with(&["--device", "tpu"]).contains("cpu"));
    assert!(with(&["--dtype", "int8"]).contains("bf16"));
    assert!(with(&["--positions", "spiral"]).contains("mrope"));
    assert!(with(&["--image-tokens", "9..4"]).contains("9..4"));
    assert!(with(&["--batch-size", "0"]).contains("--batch-size"));
    assert!(
        refuse(folder, &["embed", "--model", "nowhere", "--input", "rows.jsonl", "--output", "o.jsonl"])
            .contains("nowhere")
    );
    assert!(
        refuse(folder, &["embed", "--model", model, "--input", "rows.jsonl", "--output", "o.txt"])
            .contains(".safetensors")
    );
    assert!(refuse(folder, &["inspect", "."]).contains("adapter_config.json"));
    assert!(refuse(folder, &["train", "--config", "no.toml"]).contains("no.toml"));
}

#[test]
fn soups_and_scores_from_the_command_line() {
    let run = run().join("runs/tiny");
    let place = tempfile::tempdir().unwrap();
    let path = |name: &str| run.join(name).to_str().unwrap().to_owned();
    let (a, b, base) = (path("a/adapter"), path("b/adapter"), path("first/model"));
    let adapters = ["soup", "--adapter", &a, "--adapter", &b];
    let said = succeed(place.path(), &[&adapters[..], &["--base", &base, "--output", "model"]].concat());
    assert!(said.contains("relative error 0"), "{said}");
    let (merged, ours) =
        (place.path().join("model/model.safetensors"), run.join("soup/model/model.safetensors"));
    let (merged, ours) = (bytes(&merged), bytes(&ours));
    let (merged, ours) =
        (SafeTensors::deserialize(&merged).unwrap(), SafeTensors::deserialize(&ours).unwrap());
    for (name, view) in ours.iter() {
        let floats = |bytes: &[u8]| -> Vec<f32> {
            bytes.chunks(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
        };
        let (left, right) = (floats(view.data()), floats(merged.tensor(name).unwrap().data()));
        assert!(left.iter().zip(&right).all(|(a, b)| (a - b).abs() <= 1e-5), "{name}");
    }
    let said =
        succeed(place.path(), &[&adapters[..], &["--method", "mean-ab", "--output", "naive"]].concat());
    assert!(said.contains("all modules"), "{said}");
    assert!(refuse(place.path(), &[&adapters[..], &["--output", "naive"]].concat()).contains("naive"));
    assert!(
        refuse(place.path(), &[&adapters[..], &["--weights", "1", "--output", "w"]].concat())
            .contains("2 adapters")
    );
    assert!(
        refuse(place.path(), &[&adapters[..], &["--method", "magic", "--output", "w"]].concat())
            .contains("svd")
    );
    let said = succeed(place.path(), &["inspect", &a]);
    assert!(said.contains("LoRA") && said.contains("rank"), "{said}");
    let world = path("world");
    let soup = path("soup/model");
    let eval = ["eval", "--model", &soup, "--data", &world, "--tasks", "pictures", "--output", "scores.json"];
    let table = succeed(place.path(), &eval);
    assert!(table.contains("pictures"), "{table}");
    let ours: Value = serde_json::from_slice(&bytes(&place.path().join("scores.json"))).unwrap();
    let before: Value = serde_json::from_slice(&bytes(&run.join("results/soup.json"))).unwrap();
    assert_eq!(ours["pictures"], before["pictures"]);
    assert!(
        refuse(place.path(), &["eval", "--model", &soup, "--data", &world, "--tasks", "nothing"])
            .contains("pictures")
    );
}

#[test]
fn reports_are_written_again_and_compare_runs() {
    let place = tempfile::tempdir().unwrap();
    let one = run().join("runs/tiny");
    let two = place.path().join("other");
    copy_folder(&one, &two);
    let text = String::from_utf8(bytes(&two.join("recipe.toml"))).unwrap();
    std::fs::write(two.join("recipe.toml"), text.replace("seed = 3", "seed = 4")).unwrap();
    let (one, two) = (one.to_str().unwrap(), two.to_str().unwrap());
    succeed(place.path(), &["report", one, "--output", "again.html"]);
    assert_eq!(bytes(&place.path().join("again.html")), bytes(&run().join("runs/tiny/report.html")));
    let table = succeed(place.path(), &["report", one, two]);
    assert!(table.contains("| tiny | 2 | ") && table.contains("| things | "), "{table}");
    let page = String::from_utf8(bytes(&place.path().join("comparison.html"))).unwrap();
    assert!(page.contains("other − tiny") && page.contains("+0.000 <small>(+0.000 to +0.000)"), "{page}");
    let keys: Vec<&str> = page.split("<code>").skip(1).map(|rest| rest.split('<').next().unwrap()).collect();
    assert_eq!(keys, ["seed", "3", "4"]);
    assert!(page.contains("Recipes over seeds"), "{page}");
    // Before it is measured, a run has curves alone.
    remove(&place.path().join("other/results"));
    succeed(place.path(), &["report", two, one]);
    let page = String::from_utf8(bytes(&place.path().join("comparison.html"))).unwrap();
    assert!(page.contains("Not scored yet: other.") && page.contains("<polyline"), "{page}");
    assert!(refuse(place.path(), &["report", "nowhere"]).contains("nowhere is no run"));
    assert!(refuse(place.path(), &["report", one, one]).contains("given twice"));
}

#[test]
fn a_training_is_planned_as_it_goes() {
    let place = tempfile::tempdir().unwrap();
    std::fs::write(place.path().join("tiny.toml"), RECIPE).unwrap();
    let longer = "extends = \"tiny.toml\"\n[set]\n\"stage.0.epochs\" = 4";
    std::fs::write(place.path().join("longer.toml"), longer).unwrap();
    let world = run().join("runs/tiny/world");
    let plan = |recipe: &str, more: &[&str]| -> Value {
        let options =
            ["plan", "--json", "--config", recipe, "--gflops", "1", "--data", world.to_str().unwrap()];
        serde_json::from_str(&succeed(place.path(), &[&options, more].concat())).unwrap()
    };
    let planned = plan("tiny.toml", &[]);
    for stage in planned["stages"].as_array().unwrap() {
        let name = stage["stage"].as_str().unwrap();
        let metrics = run().join("runs/tiny").join(name).join("metrics.jsonl");
        let text = String::from_utf8(bytes(&metrics)).unwrap();
        let last: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
        assert_eq!(stage["steps"], last["steps"], "{name}");
        let operations = &stage["operations"];
        assert!(operations["graph"].as_f64().unwrap() > operations["plain"].as_f64().unwrap(), "{stage}");
    }
    let longer = plan("longer.toml", &[]);
    let first = |plan: &Value, key: &str| plan["stages"][0][key].as_f64().unwrap();
    let times = first(&longer, "steps") / first(&planned, "steps");
    assert!(times > 1.0 && (first(&longer, "rows") / first(&planned, "rows") / times - 1.0).abs() < 0.1);
    let shared = plan("tiny.toml", &["--devices", "4"]);
    let seconds = |plan: &Value| plan["seconds"].as_f64().unwrap();
    assert!((4.0 * seconds(&shared) / seconds(&planned) - 1.0).abs() < 1e-9);
    let without = refuse(
        place.path(),
        &[
            "plan",
            "--config",
            "tiny.toml",
            "--gflops",
            "1",
            "--set",
            "data.world.seed=1",
            "--rows",
            "9",
            "--mix",
            "text:9",
        ],
    );
    assert!(without.contains("--data"), "{without}");
}
