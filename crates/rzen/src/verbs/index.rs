//! `rzen index`: folders of pictures, clips and documents, to be searched.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};

use crate::files::{lock_folder, resolved};
use crate::index::{CATALOG, Catalog, Found, Header, How, Outcome, Stamp, find, update};
use crate::load_limits::LoadLimits;
use crate::models;
use crate::output::check_folder;
use crate::vectors::{Key, Model};
use crate::verbs::model_options::ModelOptions;

/// Embed what lies in folders, to be searched with `rzen search`
///
/// Taken are pictures (PNG, JPEG, WebP, BMP, TIFF), clips (GIF, moving WebP, MP4 and what ffmpeg reads) and PDF files, page by page, by the
/// endings of their names; hidden files and folders are passed over. The same command again embeds what is new or has changed,
/// forgets what is gone, and goes on where it was stopped. A file that can't be read is named and left out.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Example:\n  rzen index ~/Pictures ~/Documents --model Qwen2-VL-2B-RzenEmbed --dtype bf16 --output home.index"
)]
pub struct Args {
    /// Folders, with all below them, and files
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Where the index lies: a folder of its own
    #[arg(long, value_name = "DIR")]
    output: PathBuf,
    /// What files are embedded with, such as "Represent the given image."
    #[arg(long, value_name = "TEXT")]
    instruction: Option<String>,
    /// Try files again that could not be read before and have not changed since
    #[arg(long)]
    retry: bool,
    /// Go on with another model or instruction, or without folders that the index holds; vectors of another model stay beside
    #[arg(long)]
    overwrite: bool,
    #[command(flatten)]
    model: ModelOptions,
}

/// Runs the verb.
///
/// # Errors
/// Names the option that is wrong, or the file of the model or the index. Vectors that were computed stay for the next run.
pub fn run(args: &Args) -> Result<()> {
    check_folder(&args.output, true)?;
    ensure!(
        !args.output.exists() || args.output.join(CATALOG).is_file() || is_empty(&args.output)?,
        "--output {} holds no {CATALOG} and is no index; name a folder of its own",
        args.output.display()
    );
    let options = ModelOptions {
        model: resolved(&args.model.model)?,
        adapter: args.model.adapter.as_deref().map(resolved).transpose()?,
        ..args.model.clone()
    };
    let folders: Vec<PathBuf> = args.paths.iter().map(|path| Ok(resolved(path)?)).collect::<Result<_>>()?;
    options.check()?;
    let found = find(&folders, &resolved(&args.output)?)?;
    std::fs::create_dir_all(&args.output).with_context(|| args.output.display().to_string())?;
    let _lock = lock_folder(&args.output, "writes")?;
    let earlier = match Catalog::read(&args.output) {
        Err(_) if args.overwrite => None,
        read => read?,
    };
    let (known, stamps) =
        (earlier.as_ref().map_or(&[][..], |earlier| &earlier.header.stamps), RefCell::default());
    let key = options.key_by(&|path| Stamp::hash(path, known, &stamps))?;
    if let Some(earlier) = earlier.as_ref().filter(|_| !args.overwrite) {
        args.check_earlier(&earlier.header, &key, &options, &folders)?;
    }
    let earlier = earlier.filter(|earlier| earlier.header.key == key);
    if earlier.is_none() {
        options.check_base()?;
    }
    let mut header = Header::new(key, options.clone(), stamps.into_inner());
    (header.instruction, header.folders) = (args.instruction.clone(), folders);
    let limits = LoadLimits::parse(&options.load)?;
    let loader = models::loader(&options.processor_config()?, PathBuf::new(), limits.options());
    let open = || options.boxed();
    let model = Model::new(key, options.chunk(), &open);
    let how = How { loader: &loader, model: &model, retry: args.retry };
    let outcome = update(&args.output, header, earlier, &found, &how)?;
    tell(args, &found, &outcome);
    Ok(())
}

impl Args {
    /// Refuses to go on with an index in another way than it was begun, or without some of what it holds.
    fn check_earlier(
        &self,
        earlier: &Header,
        key: &Key,
        options: &ModelOptions,
        folders: &[PathBuf],
    ) -> Result<()> {
        let index = self.output.display();
        ensure!(
            earlier.key == *key,
            "{index} was made with {} and other vectors than {} would give (another model, settings or version); give --overwrite to \
             make it anew, or --output for another index",
            earlier.model.model.display(),
            options.model.display()
        );
        ensure!(
            earlier.instruction == self.instruction,
            "{index} was made with --instruction {:?}; give the same, or --overwrite to embed all anew",
            earlier.instruction.as_deref().unwrap_or_default()
        );
        let lost =
            earlier.folders.iter().find(|earlier| !folders.iter().any(|folder| earlier.starts_with(folder)));
        if let Some(lost) = lost {
            bail!(
                "{index} also holds {}, which is not named; name it too, or give --overwrite to forget it",
                lost.display()
            );
        }
        Ok(())
    }
}

fn is_empty(folder: &std::path::Path) -> Result<bool> {
    let mut entries = std::fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    // What a stopped update left: its vectors and no catalog yet.
    Ok(entries.all(|entry| {
        entry.is_ok_and(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            name.ends_with(".vectors") || crate::files::is_temporary(&name)
        })
    }))
}

/// Files that can't be read and are named; all of them are in the catalog.
const MOST_TOLD: usize = 20;

fn tell(args: &Args, found: &Found, outcome: &Outcome) {
    for trouble in &found.troubles {
        eprintln!("passed over: {}", trouble.message);
    }
    for wrong in outcome.wrong.iter().take(MOST_TOLD) {
        eprintln!("not indexed: {}", wrong.message);
    }
    if let Some(more) = outcome.wrong.len().checked_sub(MOST_TOLD + 1) {
        eprintln!("and {} more, see `wrong` in {}", more + 1, args.output.join(CATALOG).display());
    }
    let Outcome { same, looked_at, gone, items, embedded, unused, wrong, left_alone } = outcome;
    println!(
        "{}: {items} pictures, clips and pages of {} files ({looked_at} new or changed, {same} as before, {gone} gone); {embedded} \
         embedded now, {} files can't be read",
        args.output.display(),
        same + looked_at,
        wrong.len()
    );
    if !found.others.is_empty() {
        println!("of other kinds and not taken: {}", kinds(&found.others));
    }
    if *left_alone > 0 {
        println!(
            "{left_alone} files that could not be read before have not changed; --retry tries them again"
        );
    }
    if *unused > 0 {
        println!("{unused} vectors of files that are gone or were others are kept, should they come back");
    }
}

/// The commonest endings, with how many there are.
fn kinds(others: &BTreeMap<String, usize>) -> String {
    const MOST: usize = 8;
    let mut kinds: Vec<(&String, &usize)> = others.iter().collect();
    kinds.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    let named = kinds.iter().take(MOST).map(|(ending, count)| match ending.is_empty() {
        true => format!("{count} without an ending"),
        false => format!("{count} .{ending}"),
    });
    let rest: usize = kinds.iter().skip(MOST).map(|(_, count)| **count).sum();
    let rest = (rest > 0).then(|| format!("{rest} others"));
    named.chain(rest).collect::<Vec<_>>().join(", ")
}
