//! Recipes that read and recipes that are refused.

use std::path::Path;

use super::*;

const RECIPE: &str = r#"
    seed = 1
    [model]
    kind = "checkpoint"
    folder = "base"
    [[stage]]
    name = "one"
    batch_size = 8
    micro_batch_size = 4
    epochs = 1
    datasets = [{ dataset = "emoji" }]
    [[stage]]
    name = "two"
    train = { kind = "lora", rank = 4, alpha = 8 }
    batch_size = 8
    micro_batch_size = 4
    epochs = 0.5
    datasets = [{ dataset = "emoji", rows = ["emoji_t2i"], weight = 2, cap = 10, group = "labels" }]
"#;

fn refusal(from: &str, to: &str) -> String {
    format!("{:#}", Recipe::parse(&RECIPE.replace(from, to)).unwrap_err())
}

#[test]
fn stages_start_from_the_one_before() {
    let recipe = Recipe::parse(RECIPE).unwrap();
    assert!(recipe.base_of(&recipe.stages[0]).unwrap().is_none());
    assert_eq!(recipe.base_of(&recipe.stages[1]).unwrap().unwrap().name, "one");
}

#[test]
fn a_resolved_recipe_reads_back() {
    let recipe = Recipe::parse(RECIPE).unwrap();
    let text = toml::to_string(&recipe).unwrap();
    assert_eq!(toml::to_string(&Recipe::parse(&text).unwrap()).unwrap(), text);
}

/// Every recipe that is shipped can be read, and those of the paper have its numbers (§4.2).
#[test]
fn shipped_recipes_are_right() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../recipes");
    let folders = [folder.clone(), folder.join("ablation")];
    let entries = folders.iter().flat_map(|folder| std::fs::read_dir(folder).unwrap());
    let names = entries.map(|entry| entry.unwrap().path());
    let names: Vec<_> = names.filter(|path| path.extension().is_some_and(|end| end == "toml")).collect();
    assert!(names.len() >= 13, "{names:?}");
    for path in names {
        let recipe = Recipe::load(&path, &[]).unwrap();
        if !path.file_stem().unwrap().to_string_lossy().starts_with("rzenembed-") {
            continue;
        }
        assert!(!recipe.stages[0].instructions && recipe.soup.unwrap().ingredients.len() == 3);
        assert_eq!(recipe.model.base_type(), BaseType::Bf16);
        // Data sets that are imported bring no tasks.
        assert_eq!(recipe.evaluation.tasks.as_deref(), Some(&[][..]));
        for stage in &recipe.stages {
            let Train::Lora(adapter) = &stage.train else { panic!("{} trains an adapter", stage.name) };
            assert_eq!((adapter.rank, &adapter.targets), (64, &rzen_model::all_linear()));
            assert_eq!((stage.batch_size, stage.epochs), (768, 1.0));
            let training = &stage.training;
            assert_eq!((training.learning_rate, training.weight_decay), (2e-4, 0.05));
            assert_eq!(training.checkpointing, rzen_train::Checkpointing::Blocks);
            let loss = stage.objective.config(vec!["image_qa".into()]);
            assert_eq!((loss.alpha, loss.delta, loss.learn_temperature), (9.0, Some(0.95), true));
        }
    }
}

/// Refuses each change of a recipe, and names what is wrong.
fn check_refused(cases: &[(&str, &str, &str)]) {
    for (from, to, named) in cases {
        assert!(RECIPE.contains(from), "{from}");
        let message = refusal(from, to);
        assert!(message.contains(named), "{to}: {message}");
    }
}

#[test]
fn mistakes_are_named() {
    let stage = "epochs = 0.5";
    let soup = "name = \"three\"\nfrom = \"one\"\ntrain = { kind = \"lora\", rank = 4, alpha = 8 }\n\
                batch_size = 8\nmicro_batch_size = 4\nepochs = 1\ndatasets = [{ dataset = \"x\" }]\n[soup]";
    let recipe = format!("{RECIPE}\n[[stage]]\n{soup}\ningredients = [\"two\", \"three\"]\n");
    Recipe::parse(&recipe).unwrap();
    for (more, named) in [
        ("method = \"magic\"", "magnitude-prune"),
        ("weights = [1.0]", "`weights` has 1 entries for 2"),
        ("weights = [nan, 1.0]", "the weight of ingredient 1 is NaN"),
        ("weights = [-0.5, 1.0]\nmethod = \"slerp\"", "a weight is -0.5"),
        ("weights = [-0.5, 1.0]\nmethod = \"peft-ties\"", "a weight is -0.5"),
        ("method = \"svd\"\nrank = 0", "rank of the soup is 0"),
        ("method = \"ties\"\ndensity = 0.0", "density of the soup is 0"),
        ("method = \"svd\"\nenergy = 1.5", "energy to keep is 1.5"),
        ("rank = 4", "rank 4 is given"),
    ] {
        let message = format!("{:#}", Recipe::parse(&format!("{recipe}{more}")).unwrap_err());
        assert!(message.contains(named), "{more}: {message}");
    }
    let one = recipe.replace(", \"three\"]", "]");
    assert!(format!("{:#}", Recipe::parse(&one).unwrap_err()).contains("`ingredients` has 1"));

    let with = |text: &str| format!("{stage}\n{text}");
    check_refused(&[
        ("name = \"two\"", "name = \"one\"", "occurs twice"),
        ("name = \"two\"", "name = \"results\"", "`results` is taken"),
        ("name = \"two\"", "name = \"../two\"", "letters, digits"),
        ("name = \"two\"", "name = \"two\"\nfrom = \"three\"", "`three`"),
        (stage, "epochs = 0", "`epochs` is 0"),
        (stage, "epochs = inf", "`epochs` is inf"),
        ("batch_size = 8\n    micro", "batch_size = 1\n    micro", "`batch_size` is 1"),
        (
            "micro_batch_size = 4\n    epochs = 1",
            "micro_batch_size = 0\nepochs = 1",
            "`micro_batch_size` is 0",
        ),
        ("kind = \"lora\"", "kind = \"dora\"", "dora"),
        ("rank = 4", "rank = 0", "`train.rank` is 0"),
        ("alpha = 8", "alpha = nan", "`train.alpha` is NaN"),
        ("alpha = 8", "alpha = 8, targets = [\"q_prog\"]", "`q_prog`"),
        ("alpha = 8", "alpha = 8, targets = []", "`train.targets` is empty"),
        ("weight = 2", "weight = -1", "`weight` is -1"),
        ("weight = 2", "weight = nan", "`weight` is NaN"),
        ("weight = 2", "share = -1", "`share` is -1"),
        ("weight = 2", "weight = 2, share = 1", "exclude each other"),
        ("weight = 2", "share = 0", "above 0"),
        (
            "group = \"labels\" }",
            "group = \"labels\" }, { dataset = \"two\", share = 1 }",
            "`emoji` has no `share`",
        ),
        ("cap = 10", "cap = 0", "`cap` is 0"),
        ("weight = 2", "teacher = {}", "`teacher` is empty"),
        ("weight = 2", "teacher = { percent = 0 }", "`teacher.percent` is 0"),
        (stage, &with("objective = { alpha = nan }"), "`alpha`"),
        (stage, &with("objective = { initial_temperature = 0 }"), "`initial_temperature`"),
        (stage, &with("training = { learning_rate = -1 }"), "`learning_rate`"),
        (stage, &with("training = { steps = 5 }"), "set `epochs`"),
        ("seed = 1", "seed = 1\nevaluation = { batch_size = 0 }", "`batch_size` is 0"),
    ]);
}

#[test]
fn unknown_keys_are_refused_everywhere() {
    let scratch = |more: &str| {
        format!(
            "kind = \"scratch\"\nvocab_size = 400\nvision = {{ depth = 1, embed_dim = 32, num_heads = 2 }}\n\
             text = {{ hidden_size = 32, intermediate_size = 48, num_hidden_layers = 2, \
             num_attention_heads = 2, num_key_value_heads = 1{more} }}\n"
        )
    };
    let checkpoint = "kind = \"checkpoint\"\n    folder = \"base\"";
    Recipe::parse(&RECIPE.replace(checkpoint, &scratch(""))).unwrap();
    let at_stage = |text: &str| format!("epochs = 0.5\n{text}");
    let at_root = |text: &str| format!("seed = 1\n{text}");
    let root = "seed = 1";
    let stage = "epochs = 0.5";
    check_refused(&[
        (root, &at_root("wrong = 1"), "wrong"),
        (root, &at_root("data = { wrong = 1 }"), "wrong"),
        (root, &at_root("data = { world = { wrong = 1 } }"), "wrong"),
        (root, &at_root("data = { load = { wrong = 1 } }"), "wrong"),
        (root, &at_root("processor = { wrong = 1 }"), "wrong"),
        (root, &at_root("evaluation = { wrong = 1 }"), "wrong"),
        (root, &at_root("soup = { ingredients = [], wrong = 1 }"), "wrong"),
        (checkpoint, "kind = \"checkpoint\"\nfolder = \"base\"\nwrong = 1", "wrong"),
        (checkpoint, "kind = \"checkpoint\"\nfolder = \"base\"\ndtype = \"int8\"", "int8"),
        (checkpoint, "kind = \"checkpoint\"\nfolder = \"base\"\ndtype = \"bf16\"", "leave `model.dtype` out"),
        (checkpoint, &(scratch("") + "weights = \"strutured\"\n"), "structured"),
        (checkpoint, &scratch(", wrong = 1"), "wrong"),
        (checkpoint, &(scratch("") + "wrong = 1\n"), "wrong"),
        (stage, &at_stage("wrong = 1"), "wrong"),
        (stage, &at_stage("objective = { wrong = 1 }"), "wrong"),
        (stage, &at_stage("training = { wrong = 1 }"), "wrong"),
        ("kind = \"lora\"", "wrong = 1, kind = \"lora\"", "wrong"),
        ("name = \"one\"", "name = \"one\"\ntrain = { kind = \"full\", rank = 64 }", "rank"),
        ("weight = 2", "wait = 2", "wait"),
        ("weight = 2", "augment = { wrong = 1 }", "wrong"),
        ("weight = 2", "teacher = { wrong = 1 }", "wrong"),
    ]);
}

#[test]
fn no_number_of_steps_stands_in_a_resolved_recipe() {
    let text = RECIPE.replace("epochs = 0.5", "epochs = 0.5\ntraining = { warmup = 7, eps = 1e-7 }");
    let text = toml::to_string(&Recipe::parse(&text).unwrap()).unwrap();
    assert!(!text.contains("steps") && text.contains("warmup = 7"), "{text}");
    let training = &Recipe::parse(&text).unwrap().stages[1].training;
    assert_eq!((training.warmup, training.eps), (rzen_train::Warmup::Steps(7), 1e-7));
}
