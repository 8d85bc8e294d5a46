//! The folder of a training run: what lies where.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};

use crate::files::{is_temporary, lock_folder, whole_file};
use crate::recipe::Recipe;
use crate::report::Measurements;

/// A training run on disk.
///
/// ```text
/// RUN/recipe.toml          the recipe as it was resolved
/// RUN/world/               the drawn corpus, where the recipe asks for one
/// RUN/start/               the model that training starts from (random weights, own tokenizer)
/// RUN/STAGE/               metrics.jsonl, events.out.tfevents.*, bad_rows.jsonl, checkpoints/, and the result,
///                          model/ or adapter/
/// RUN/soup/                adapter/ and model/ (adapter merged into its base)
/// RUN/results/NAME.json    scores of start, each stage and the soup
/// RUN/results/report.json  the same by query, and the examples: what `rzen report` shows
/// RUN/report.html
/// ```
#[derive(Clone, Debug)]
pub struct Run {
    /// The folder.
    pub folder: PathBuf,
    /// Holds the folder's lock, so that no other program trains into it.
    _lock: Option<Arc<fs::File>>,
}

const RECIPE: &str = "recipe.toml";

/// The first line of a run's recipe. A folder is a run by it: a recipe that a user wrote has it not.
const HEADER: &str = "# A run of rzen: the recipe as it was resolved. The program writes this file.\n";

/// Holds what `--overwrite` replaces until it is gone.
const REMOVED: &str = ".removed";

impl Run {
    /// Begins a run in `folder`, or goes on with the one that is there when its recipe trains the same.
    ///
    /// Keys that don't change what is trained (see [`Recipe::identity`]) may differ; the new ones count. A
    /// soup of other settings is removed, so that it is made again.
    ///
    /// # Errors
    /// If another recipe's run is there and `overwrite` is not set, or files that no run wrote.
    pub fn open(folder: &Path, recipe: &Recipe, overwrite: bool) -> Result<Self> {
        let place = || folder.display().to_string();
        ensure!(!folder.is_file(), "--output {}: a file stands there; name a folder", folder.display());
        fs::create_dir_all(folder).with_context(|| {
            format!("--output {}: can't be made; choose another folder", folder.display())
        })?;
        let run = Run { folder: folder.to_owned(), _lock: lock_folder(folder, "trains into")?.map(Arc::new) };
        run.finish_removal().with_context(place)?;
        match run.resolved()? {
            Some(_) if overwrite => run.remove().with_context(place)?,
            Some(there) => run.adopt(&there, recipe)?,
            None => run.refuse_strangers()?,
        }
        let text = HEADER.to_owned() + &toml::to_string(recipe).context("the resolved recipe")?;
        if run.resolved()?.as_ref() != Some(&text) {
            whole_file(&run.join(RECIPE), |file| Ok(file.write_all(text.as_bytes())?))?;
        }
        Ok(run)
    }

    /// Looks at a run without changing it.
    ///
    /// # Errors
    /// If no run is there, or one whose recipe this version can't read.
    pub fn look_at(folder: &Path) -> Result<(Self, Recipe)> {
        let run = Run::unlocked(folder);
        let text = run.resolved()?.with_context(|| {
            format!("{} is no run of rzen; give the --output of a `rzen train`", folder.display())
        })?;
        let recipe = Recipe::parse(&text).with_context(|| run.join(RECIPE).display().to_string())?;
        Ok((run, recipe))
    }

    /// The run in `folder` for those who write nothing, or whose lock another rank holds.
    pub fn unlocked(folder: &Path) -> Self {
        Run { folder: folder.to_owned(), _lock: None }
    }

    /// A path below the run.
    pub fn join(&self, path: impl AsRef<Path>) -> PathBuf {
        self.folder.join(path)
    }

    /// The text of the run's recipe; `None` where the folder is no run.
    fn resolved(&self) -> Result<Option<String>> {
        let path = self.join(RECIPE);
        if !path.is_file() {
            return Ok(None);
        }
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        Ok(text.starts_with(HEADER).then_some(text))
    }

    fn refuse_strangers(&self) -> Result<()> {
        for entry in fs::read_dir(&self.folder).with_context(|| self.folder.display().to_string())? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            ensure!(
                is_temporary(&name),
                "{} holds `{name}` and is no run of rzen; give --output with a new or empty folder",
                self.folder.display()
            );
        }
        Ok(())
    }

    /// Goes on with the run, whose recipe is `there`.
    fn adopt(&self, there: &str, recipe: &Recipe) -> Result<()> {
        let advice = "give --overwrite to replace it or --output for another folder";
        let there = Recipe::parse(there).with_context(|| {
            format!("{}: its recipe can't be read by this version; {advice}", self.join(RECIPE).display())
        })?;
        let differences = differences(&there.identity(), &recipe.identity())?;
        if !differences.is_empty() && !self.has_trained(&there)? {
            eprintln!(
                "{}: the run there had trained nothing yet, and takes this recipe",
                self.folder.display()
            );
            return self.remove().with_context(|| self.folder.display().to_string());
        }
        if !differences.is_empty() {
            bail!(
                "{}: a run of another recipe is there: {}; {advice}",
                self.folder.display(),
                differences.join("; ")
            );
        }
        if there.soup != recipe.soup {
            for name in ["soup", "results/soup.json", Measurements::FILE] {
                self.set_aside(name)?;
            }
            self.empty_removed()?;
        }
        Ok(())
    }

    /// Whether there is more than a run of `recipe` makes before its first step: a world, first weights, logs without a line.
    fn has_trained(&self, recipe: &Recipe) -> Result<bool> {
        for name in ["soup", "results", "report.html"] {
            if self.join(name).exists() {
                return Ok(true);
            }
        }
        for stage in &recipe.stages {
            let folder = self.join(&stage.name);
            let entries = match fs::read_dir(&folder) {
                Ok(entries) => entries,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error).with_context(|| folder.display().to_string()),
            };
            for entry in entries {
                let path = entry.with_context(|| folder.display().to_string())?.path();
                if !is_of_the_beginning(&path)? {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// Removes everything that a run writes, and nothing else. Where this is cut short, the next
    /// [`open`](Self::open) finishes it before anything is taken for done.
    fn remove(&self) -> Result<()> {
        self.set_aside(RECIPE)?;
        self.finish_removal()
    }

    /// Removes the rest of a run whose recipe has been set aside.
    fn finish_removal(&self) -> Result<()> {
        let recipe = self.join(REMOVED).join(RECIPE);
        if recipe.is_file() {
            let text = fs::read_to_string(&recipe)?;
            for name in stage_names(&text)?.iter().map(String::as_str).chain(WRITTEN) {
                self.set_aside(name)?;
            }
        }
        self.empty_removed()
    }

    /// Takes a file or folder out of the run.
    fn set_aside(&self, name: &str) -> Result<()> {
        let (from, to) = (self.join(name), self.join(REMOVED).join(name.replace('/', "_")));
        if from.exists() {
            fs::create_dir_all(self.join(REMOVED))?;
            fs::rename(&from, &to).with_context(|| format!("removing {}", from.display()))?;
        }
        Ok(())
    }

    fn empty_removed(&self) -> Result<()> {
        let removed = self.join(REMOVED);
        if removed.is_dir() {
            fs::remove_dir_all(&removed).with_context(|| format!("removing {}", removed.display()))?;
        }
        Ok(())
    }
}

/// Whether a stage leaves this before its first step is done.
fn is_of_the_beginning(path: &Path) -> Result<bool> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let place = || path.display().to_string();
    Ok(match &*name {
        "checkpoints" => fs::read_dir(path).with_context(place)?.next().is_none(),
        "metrics.jsonl" => fs::metadata(path).with_context(place)?.len() == 0,
        name => name == "bad_rows.jsonl" || name.starts_with("events.out.tfevents."),
    })
}

/// What a run writes besides its recipe and the folders of its stages.
const WRITTEN: [&str; 5] = ["world", "start", "soup", "results", "report.html"];

/// The names of a recipe's stages, which may be of another version.
fn stage_names(text: &str) -> Result<Vec<String>> {
    let table: toml::Table = toml::from_str(text)
        .context("the recipe of the run that is to be removed can't be read; remove the folder by hand")?;
    let stages = table.get("stage").and_then(toml::Value::as_array);
    let names = stages.into_iter().flatten().filter_map(|stage| stage.get("name")?.as_str());
    Ok(names.filter(|name| crate::recipe::is_stage_name(name)).map(str::to_owned).collect())
}

/// Says in a clause each what two recipes disagree on.
fn differences(there: &Recipe, here: &Recipe) -> Result<Vec<String>> {
    let table = |recipe| toml::Table::try_from(recipe).map(toml::Value::Table).context("the recipe");
    let mut found = Vec::new();
    compare("", Some(&table(there)?), Some(&table(here)?), &mut found);
    Ok(found)
}

fn compare(path: &str, there: Option<&toml::Value>, here: Option<&toml::Value>, found: &mut Vec<String>) {
    use toml::Value::{Array, Table};
    let join = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
    match (there, here) {
        (Some(Table(a)), Some(Table(b))) => {
            let keys = a.keys().chain(b.keys().filter(|key| !a.contains_key(*key)));
            keys.for_each(|key| compare(&join(key), a.get(key), b.get(key), found));
        }
        (Some(Array(a)), Some(Array(b))) if a.len() == b.len() => {
            let pairs = a.iter().zip(b).enumerate();
            pairs.for_each(|(i, (a, b))| compare(&join(&i.to_string()), Some(a), Some(b), found));
        }
        _ if there == here => {}
        _ => {
            let text = |value: Option<&toml::Value>| value.map_or("not set".to_owned(), short);
            found.push(format!("`{path}` was {} and is {}", text(there), text(here)));
        }
    }
}

/// Tables and lists can be long; their first words tell which they are.
fn short(value: &toml::Value) -> String {
    let text = value.to_string().replace('\n', " ");
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{} …", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"
        seed = 1
        [model]
        kind = "checkpoint"
        folder = "base"
        [[stage]]
        name = "one"
        train = { kind = "lora", rank = 4, alpha = 8 }
        batch_size = 8
        micro_batch_size = 4
        epochs = 1
        datasets = [{ dataset = "emoji" }]
        [[stage]]
        name = "two"
        from = "one"
        train = { kind = "lora", rank = 4, alpha = 8 }
        batch_size = 8
        micro_batch_size = 4
        epochs = 1
        datasets = [{ dataset = "emoji" }]
        [[stage]]
        name = "three"
        from = "one"
        train = { kind = "lora", rank = 4, alpha = 8 }
        batch_size = 8
        micro_batch_size = 4
        epochs = 1
        datasets = [{ dataset = "emoji" }]
        [soup]
        ingredients = ["two", "three"]
    "#;

    fn recipe(from: &str, to: &str) -> Recipe {
        assert!(TEXT.contains(from));
        Recipe::parse(&TEXT.replace(from, to)).unwrap()
    }

    fn unchanged() -> Recipe {
        Recipe::parse(TEXT).unwrap()
    }

    /// A run with something in each of its folders.
    fn run(folder: &Path) {
        Run::open(folder, &unchanged(), false).unwrap();
        for file in ["one/model", "two/adapter", "soup/model", "results/soup.json", "report.html"] {
            fs::create_dir_all(folder.join(file).parent().unwrap()).unwrap();
            fs::write(folder.join(file), "x").unwrap();
        }
    }

    fn refused(folder: &Path, recipe: &Recipe, overwrite: bool) -> String {
        format!("{:#}", Run::open(folder, recipe, overwrite).unwrap_err())
    }

    #[test]
    fn settings_that_train_the_same_may_change() {
        let place = tempfile::tempdir().unwrap();
        run(place.path());
        let changed = [
            ("seed = 1", "seed = 1\ndata = { bad_row_limit = 9, prefetch = 7 }"),
            ("seed = 1", "seed = 1\nevaluation = { tasks = [\"x\"], batch_size = 3 }"),
            ("epochs = 1\n", "epochs = 1\ntraining = { threads = 3, recompute = false, keep_last = 9 }\n"),
            ("epochs = 1\n", "epochs = 1\ntraining = { checkpointing = \"blocks\" }\n"),
            ("epochs = 1\n", "epochs = 1\ntraining = { checkpoint_every = 3, keep_best = false }\n"),
        ];
        for (from, to) in changed {
            Run::open(place.path(), &recipe(from, to), false).unwrap();
            let text = fs::read_to_string(place.path().join("recipe.toml")).unwrap();
            let kept = Recipe::parse(&text).unwrap();
            let written = toml::to_string(&kept).unwrap();
            assert_eq!(written, toml::to_string(&recipe(from, to)).unwrap(), "the new settings stand there");
            assert!(place.path().join("soup/model").is_file(), "the soup is the same");
        }
        for (from, to, named) in [
            ("seed = 1", "seed = 2", "`seed` was 1 and is 2"),
            ("\"base\"", "\"other\"", "`model.folder` was \"base\" and is \"other\""),
            ("seed = 1", "seed = 1\ndata = { folder = \"x\" }", "`data.folder` was not set"),
            ("seed = 1", "seed = 1\nprocessor = { num_frames = 2 }", "`processor` was not set"),
            ("rank = 4", "rank = 5", "`stage.0.train.rank` was 4 and is 5"),
            ("epochs = 1\n", "epochs = 1\ntraining = { eps = 1e-7 }\n", "`stage.0.training.eps`"),
        ] {
            let message = refused(place.path(), &recipe(from, to), false);
            assert!(message.contains(named) && message.contains("--overwrite"), "{message}");
        }
    }

    #[test]
    fn a_run_that_has_trained_nothing_takes_another_recipe() {
        let place = tempfile::tempdir().unwrap();
        Run::open(place.path(), &unchanged(), false).unwrap();
        // As far as it came: the drawn world, and an empty folder of the first stage.
        for folder in ["world", "one/checkpoints"] {
            fs::create_dir_all(place.path().join(folder)).unwrap();
        }
        fs::write(place.path().join("one/metrics.jsonl"), "").unwrap();
        // Whatever else is there may be missed.
        for more in ["report.html", "results", "one/notes.txt"] {
            fs::write(place.path().join(more), "x").unwrap();
            assert!(
                refused(place.path(), &recipe("seed = 1", "seed = 3"), false).contains("--overwrite"),
                "{more}"
            );
            fs::remove_file(place.path().join(more)).unwrap();
        }
        let other = recipe("seed = 1", "seed = 2");
        Run::open(place.path(), &other, false).unwrap();
        assert!(!place.path().join("world").exists(), "it was drawn by the other recipe");
        assert!(fs::read_to_string(place.path().join("recipe.toml")).unwrap().contains("seed = 2"));
        fs::create_dir_all(place.path().join("one/checkpoints/step_000001")).unwrap();
        assert!(refused(place.path(), &unchanged(), false).contains("`seed` was 2 and is 1"));
    }

    #[cfg(unix)]
    #[test]
    fn a_folder_is_trained_into_by_one_program_at_a_time() {
        let place = tempfile::tempdir().unwrap();
        let run = Run::open(place.path(), &unchanged(), false).unwrap();
        let clone = run.clone();
        drop(run);
        for overwrite in [false, true] {
            let message = refused(place.path(), &unchanged(), overwrite);
            assert!(message.contains("another rzen") && message.contains("--output"), "{message}");
        }
        assert!(Run::look_at(place.path()).is_ok());
        drop(clone);
        Run::open(place.path(), &unchanged(), false).unwrap();
    }

    #[test]
    fn another_soup_is_made_anew() {
        let place = tempfile::tempdir().unwrap();
        run(place.path());
        let other = recipe("[soup]", "[soup]\nweights = [0.3, 0.7]");
        Run::open(place.path(), &other, false).unwrap();
        assert!(!place.path().join("soup").exists() && !place.path().join("results/soup.json").exists());
        assert!(place.path().join("two/adapter").exists());
        fs::create_dir(place.path().join("soup")).unwrap();
        Run::open(place.path(), &other, false).unwrap();
        assert!(place.path().join("soup").exists());
    }

    #[test]
    fn overwriting_removes_the_run_alone() {
        let place = tempfile::tempdir().unwrap();
        run(place.path());
        fs::write(place.path().join("notes.txt"), "mine").unwrap();
        let only_one = TEXT.split("[[stage]]\n        name = \"two\"").next().unwrap();
        Run::open(place.path(), &Recipe::parse(only_one).unwrap(), true).unwrap();
        let mut left: Vec<_> = fs::read_dir(place.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["notes.txt", "recipe.toml"]);
    }

    #[test]
    fn a_removal_that_was_cut_short_is_finished() {
        let place = tempfile::tempdir().unwrap();
        run(place.path());
        let removed = place.path().join(".removed");
        fs::create_dir(&removed).unwrap();
        fs::rename(place.path().join("recipe.toml"), removed.join("recipe.toml")).unwrap();
        fs::rename(place.path().join("one"), removed.join("one")).unwrap();
        Run::open(place.path(), &unchanged(), false).unwrap();
        let left: Vec<_> = fs::read_dir(place.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(left, ["recipe.toml"], "no stage is left that could be taken for done");
    }

    #[test]
    fn a_folder_that_is_no_run_is_left_alone() {
        let place = tempfile::tempdir().unwrap();
        fs::write(place.path().join("recipe.toml"), TEXT).unwrap();
        fs::create_dir(place.path().join("one")).unwrap();
        for overwrite in [false, true] {
            let message = refused(place.path(), &unchanged(), overwrite);
            assert!(message.contains("is no run of rzen") && message.contains("--output"), "{message}");
        }
        assert_eq!(fs::read_to_string(place.path().join("recipe.toml")).unwrap(), TEXT);
        assert!(place.path().join("one").is_dir());
    }
}
