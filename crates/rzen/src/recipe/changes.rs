//! Recipes that change another: the keys `extends` and `set` of a file, and `--set`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use toml::{Table, Value};

use super::Recipe;

impl Recipe {
    /// Reads and checks a recipe, with what it extends and with `changes` put in.
    ///
    /// A file that begins with `extends = "other.toml"` (a path that counts from its own folder) is that recipe with the
    /// keys of its table `[set]` put in, and has no other keys. `changes` are KEY=VALUE, where VALUE is one of TOML, or a
    /// bare word for a string. Keys are dotted; entries of lists count from 0, and the number of entries names a new one:
    /// `stage.0.epochs`, `soup.ingredients`. Under `[set]`, tables of tables say the same as dotted keys, and a quoted
    /// dotted key whose value is a table replaces what is there.
    ///
    /// # Errors
    /// Names the file and the key.
    pub fn load(path: &Path, changes: &[String]) -> Result<Self> {
        let place = || format!("recipe {}", path.display());
        Self::changed(read(path, &mut Vec::new())?, changes).with_context(place)
    }

    /// Reads and checks the text of a recipe that extends none, with `changes` put in.
    ///
    /// # Errors
    /// Names the key.
    pub fn parse_with(text: &str, changes: &[String]) -> Result<Self> {
        Self::changed(toml::from_str(text)?, changes)
    }

    fn changed(mut table: Table, changes: &[String]) -> Result<Self> {
        for change in changes {
            let (key, value) =
                change.split_once('=').with_context(|| format!("--set {change}: write KEY=VALUE"))?;
            set(&mut table, key, parse_value(value)).with_context(|| format!("--set {change}"))?;
        }
        Self::parse(&toml::to_string(&table)?)
    }
}

/// The table of a file, with what it extends. `below` are the files that extend it.
fn read(path: &Path, below: &mut Vec<PathBuf>) -> Result<Table> {
    let place = || format!("recipe {}", path.display());
    let text = std::fs::read_to_string(path).with_context(place)?;
    let mut table: Table = toml::from_str(&text).with_context(place)?;
    let Some(extended) = table.remove("extends") else { return Ok(table) };
    let extended = extended.as_str().with_context(|| format!("{}: `extends` is no path", place()))?;
    let changes = table.remove("set").unwrap_or_else(|| Value::Table(Table::new()));
    if let Some(key) = table.keys().next() {
        bail!("{}: beside `extends` there is `{key}`; put what is to change under [set]", place());
    }
    let Value::Table(changes) = changes else { bail!("{}: `set` is no table", place()) };
    let own = path.canonicalize().with_context(place)?;
    ensure!(!below.contains(&own), "{}: it extends itself", place());
    below.push(own);
    let mut table = read(&path.parent().unwrap_or(Path::new("")).join(extended), below)
        .with_context(|| format!("{}: `extends`", place()))?;
    let mut keys = Vec::new();
    flatten(String::new(), Value::Table(changes), Some(&Value::Table(table.clone())), &mut keys);
    // In the order of their numbers, so that new entries of a list come one after another.
    keys.sort_by_cached_key(|(key, _)| {
        key.split('.').map(|part| (part.parse::<usize>().ok(), part.to_owned())).collect::<Vec<_>>()
    });
    for (key, value) in keys {
        set(&mut table, &key, value).with_context(|| format!("{}: [set] {key:?}", place()))?;
    }
    Ok(table)
}

/// Makes dotted keys of tables where a table or list is there already; a quoted dotted key is one by itself.
fn flatten(path: String, value: Value, there: Option<&Value>, keys: &mut Vec<(String, Value)>) {
    match (value, there) {
        (Value::Table(inner), Some(Value::Table(_) | Value::Array(_))) => {
            for (key, value) in inner {
                let below = match there {
                    Some(Value::Table(table)) => table.get(&key),
                    Some(Value::Array(items)) => key.parse().ok().and_then(|at: usize| items.get(at)),
                    _ => None,
                };
                let path = if path.is_empty() { key } else { format!("{path}.{key}") };
                flatten(path, value, below, keys);
            }
        }
        (value, _) => keys.push((path, value)),
    }
}

/// A TOML value, or a bare word as a string.
fn parse_value(text: &str) -> Value {
    let row: Result<Table, _> = toml::from_str(&format!("value = {text}"));
    let value = row.ok().and_then(|mut row| row.remove("value"));
    value.unwrap_or_else(|| Value::String(text.to_owned()))
}

fn set(table: &mut Table, key: &str, value: Value) -> Result<()> {
    let Some((head, rest)) = key.split_once('.') else {
        table.insert(key.to_owned(), value);
        return Ok(());
    };
    match table.entry(head).or_insert_with(|| Value::Table(Table::new())) {
        Value::Table(inner) => set(inner, rest, value),
        Value::Array(items) => {
            let (index, rest) =
                rest.split_once('.').map_or((rest, None), |(index, rest)| (index, Some(rest)));
            let place: usize =
                index.parse().with_context(|| format!("`{head}` is a list; write {head}.0.KEY"))?;
            let count = items.len();
            match (items.get_mut(place), rest) {
                (Some(Value::Table(inner)), Some(rest)) => set(inner, rest, value),
                (Some(item), None) => {
                    *item = value;
                    Ok(())
                }
                (None, None) if place == count => {
                    items.push(value);
                    Ok(())
                }
                (Some(_), Some(_)) => bail!("`{head}.{index}` is no table"),
                (None, _) => bail!("`{head}` has {count} entries, counted from 0"),
            }
        }
        _ => bail!("`{head}` is no table"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: &str = r#"
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
    "#;

    /// A folder with these files.
    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        folder
    }

    fn refusal(files: &[(&str, &str)], changes: &[&str]) -> String {
        let folder = folder(files);
        let changes: Vec<String> = changes.iter().map(|change| change.to_string()).collect();
        let path = folder.path().join(files.last().unwrap().0);
        format!("{:#}", Recipe::load(&path, &changes).unwrap_err())
    }

    #[test]
    fn keys_can_be_set() {
        let changes =
            ["seed=7", "stage.0.epochs=0.5", "stage.0.datasets.1={ dataset = \"flags\" }"].map(String::from);
        let recipe = Recipe::parse_with(BASE, &changes).unwrap();
        assert_eq!((recipe.seed, recipe.stages[0].epochs), (7, 0.5));
        assert_eq!(recipe.stages[0].datasets[1].dataset, "flags");
        for (change, named) in [
            ("stage.9.epochs=1", "1 entries, counted from 0"),
            ("stage.2={ name = \"x\" }", "1 entries, counted from 0"),
            ("stage.x=1", "`stage` is a list"),
            ("stage.0.datasets.0.dataset.x=1", "`dataset` is no table"),
            ("seeed=1", "seeed"),
            ("seed", "KEY=VALUE"),
        ] {
            let message = refusal(&[("base.toml", BASE)], &[change]);
            assert!(message.contains(named) && message.contains("base.toml"), "{change}: {message}");
        }
    }

    #[test]
    fn a_recipe_extends_another() {
        let middle = r#"
            extends = "../base.toml"
            [set]
            "stage.0.epochs" = 3
            [set."stage.1"]
            name = "two"
            batch_size = 8
            micro_batch_size = 4
            epochs = 1
            datasets = [{ dataset = "flags" }]
        "#;
        let top = "extends = \"middle.toml\"\n[set]\nseed = 5\n\"stage.1.epochs\" = 2";
        let files = [("base.toml", BASE), ("more/middle.toml", middle), ("more/top.toml", top)];
        let folder = folder(&files);
        let recipe = Recipe::load(&folder.path().join("more/top.toml"), &["seed=6".to_owned()]).unwrap();
        let epochs: Vec<f64> = recipe.stages.iter().map(|stage| stage.epochs).collect();
        assert_eq!((recipe.seed, epochs), (6, vec![3.0, 2.0]));
    }

    #[test]
    fn keys_need_no_quotes_and_numbers_have_their_order() {
        let base = format!("{BASE}\n[stage.objective]\nalpha = 2.0\ndelta = 0.9");
        let rows: String = (1..=10)
            .rev()
            .map(|i| format!("\"stage.0.datasets.{i}\" = {{ dataset = \"d{i}\" }}\n"))
            .collect();
        let top = format!(
            "extends = \"base.toml\"\n[set]\nstage.0.epochs = 7\nstage.0.objective.alpha = 9.0\n{rows}"
        );
        let folder = folder(&[("base.toml", base.as_str()), ("top.toml", top.as_str())]);
        let recipe = Recipe::load(&folder.path().join("top.toml"), &[]).unwrap();
        let stage = &recipe.stages[0];
        let datasets: Vec<&str> = stage.datasets.iter().map(|row| row.dataset.as_str()).collect();
        assert_eq!(datasets, ["emoji", "d1", "d2", "d3", "d4", "d5", "d6", "d7", "d8", "d9", "d10"]);
        let objective = stage.objective.config(Vec::new());
        // What isn't named stays.
        assert_eq!((stage.epochs, objective.alpha, objective.delta), (7.0, 9.0, Some(0.9)));
        // A quoted key replaces the whole table.
        let whole = "extends = \"base.toml\"\n[set]\n\"stage.0.objective\" = { alpha = 9.0 }";
        std::fs::write(folder.path().join("whole.toml"), whole).unwrap();
        let recipe = Recipe::load(&folder.path().join("whole.toml"), &[]).unwrap();
        let objective = recipe.stages[0].objective.config(Vec::new());
        assert_eq!((objective.alpha, objective.delta), (9.0, Some(0.95)));
    }

    /// `all.toml` is the baseline with what each of the others changes, but for the soup's stages.
    #[test]
    fn the_last_recipe_of_the_ablation_has_all_ingredients() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../recipes/ablation");
        let set = |name: &str| -> Table {
            let text = std::fs::read_to_string(folder.join(name).with_extension("toml")).unwrap();
            let mut table: Table = toml::from_str(&text).unwrap();
            table.remove("set").unwrap().as_table().unwrap().clone()
        };
        let mut union = Table::new();
        for name in ["mask", "hardness", "temperatures", "classes", "prompts", "resampling"] {
            union.extend(set(name));
        }
        assert_eq!(set("all"), union);
    }

    #[test]
    fn what_cannot_be_extended_is_named() {
        let cases = [
            (vec![("a.toml", "extends = \"b.toml\"")], vec!["a.toml", "`extends`", "b.toml"]),
            (vec![("a.toml", "extends = \"a.toml\"")], vec!["a.toml", "itself"]),
            (vec![("a.toml", "extends = \"b.toml\"\nseed = 1")], vec!["a.toml", "`seed`", "[set]"]),
            (vec![("a.toml", "extends = 1")], vec!["a.toml", "`extends` is no path"]),
            (
                vec![("b.toml", BASE), ("a.toml", "extends = \"b.toml\"\n[set]\n\"stage.4.x\" = 1")],
                vec!["a.toml", "stage.4.x", "1 entries"],
            ),
            (vec![("a.toml", "seed = 1\nset = { x = 1 }")], vec!["a.toml", "`set`"]),
        ];
        for (files, named) in cases {
            let message = refusal(&files, &[]);
            assert!(named.iter().all(|named| message.contains(named)), "{named:?}: {message}");
        }
    }
}
