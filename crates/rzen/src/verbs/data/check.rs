//! `rzen data check`: what is wrong with a corpus, all at once.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Result, bail, ensure};
use rzen_data::{CheckOptions, Checked, Cleaned, FindingKind, LoadOptions, Loader, check, write_clean};
use serde_json::json;

use crate::files::whole_folder;
use crate::load_limits::LoadLimits;
use crate::output::{check_apart, check_folder, check_written, existing, files_below};
use crate::progress::Progress;
use crate::report::{CheckPage, write_check};

/// Say everything that is wrong with a corpus, and write one without it
///
/// Every manifest, evaluation file, text, picture, clip and page is read. With --output a folder is written that holds
/// `report.html`, `findings.jsonl`, and the corpus again without the training rows that are wrong (`left_out.jsonl` lists
/// them). Nothing in the corpus is changed, media are not copied. docs/data.md says what is looked for.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Example:\n  rzen data check corpus --output checked\n  rzen data check corpus --fail-on error   \
                  (in CI: the exit code is 1 where there are findings of kinds that leave rows out)"
)]
pub struct CheckArgs {
    /// The corpus folder
    corpus: PathBuf,
    /// The folder to write; default none, findings are told on the terminal only
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Kinds of findings of which rows are left out too, such as near-leak
    #[arg(long, value_delimiter = ',', value_name = "KIND,…")]
    drop: Vec<String>,
    /// Kinds of findings of which rows are kept that would be left out
    #[arg(long, value_delimiter = ',', value_name = "KIND,…")]
    keep: Vec<String>,
    /// Fail where there are findings of these kinds; `error` names those that leave rows out, `any` all
    #[arg(long, value_delimiter = ',', value_name = "KIND,…")]
    fail_on: Vec<String>,
    /// Replace what an earlier check wrote there
    #[arg(long)]
    overwrite: bool,
    /// Bits of 64 in which the hashes of near pictures differ at most, 0 to 7
    #[arg(long, default_value_t = CheckOptions::default().near_bits, value_name = "N",
        value_parser = clap::value_parser!(u32).range(0..=7))]
    near_bits: u32,
    /// Levels of 255 in which any part of near pictures differs at most
    #[arg(long, default_value_t = CheckOptions::default().near_levels, value_name = "N")]
    near_levels: u8,
    /// Correlation of detail that near pictures have at least
    #[arg(long, default_value_t = CheckOptions::default().near_detail, value_name = "SHARE")]
    near_detail: f32,
    /// Share of runs of three words that near texts (30 words and more) have in common
    #[arg(long, default_value_t = CheckOptions::default().near_words, value_name = "SHARE")]
    near_words: f64,
    /// Variance of the Laplacian of a picture, at most 256 pixels a side, below which it is blurry
    #[arg(long, default_value_t = CheckOptions::default().sharpness, value_name = "X")]
    sharpness: f32,
    /// Standard deviation of brightness and colour, of 255, below which a picture is blank
    #[arg(long, default_value_t = CheckOptions::default().contrast, value_name = "X")]
    contrast: f32,
    /// Pixels of the shorter side below which a picture is tiny
    #[arg(long, default_value_t = CheckOptions::default().min_side, value_name = "N")]
    min_side: u32,
    /// How often the longer side may hold the shorter one
    #[arg(long, default_value_t = CheckOptions::default().max_ratio, value_name = "X")]
    max_ratio: f32,
    /// How many times more rows than the middle one the largest label of a dataset may have
    #[arg(long, default_value_t = CheckOptions::default().label_ratio, value_name = "X")]
    label_ratio: f64,
    /// How many times more rows than the smallest the largest dataset may have
    #[arg(long, default_value_t = CheckOptions::default().dataset_ratio, value_name = "X")]
    dataset_ratio: f64,
    /// Rows that a dataset should have at least
    #[arg(long, default_value_t = CheckOptions::default().batch_size, value_name = "N")]
    batch_size: usize,
    /// Letters and digits from which on a text alone is no label, and may have leaked
    #[arg(long, default_value_t = CheckOptions::default().leak_letters, value_name = "N")]
    leak_letters: usize,
    /// Frames taken of a clip
    #[arg(long, default_value_t = LoadOptions::default().num_frames, value_name = "N")]
    num_frames: usize,
    /// What files may ask for, as KEY=VALUE; the keys are those of `[data.load]`
    #[arg(long, value_name = "KEY=VALUE")]
    load: Vec<String>,
}

/// Runs the verb.
///
/// # Errors
/// Names the option or folder that is wrong, or the kinds that `--fail-on` does.
pub fn run(args: &CheckArgs) -> Result<()> {
    let options = args.options()?;
    let left_out = args.left_out()?;
    let fails = kinds("--fail-on", &args.fail_on, &left_out)?;
    if let Some(output) = &args.output {
        check_folder(output, args.overwrite)?;
        check_apart(output, [&args.corpus])?;
        check_written(output, RECORD, "check")?;
    }
    let started = Instant::now();
    let progress = Progress::tasks("check", 1);
    progress.message("files");
    let checked = check(&args.corpus, &options, &|done, all| progress.part(done, all))?;
    progress.advance();
    progress.finish();
    if let Some(output) = &args.output {
        write(args, &options, &checked, &left_out, output)?;
    }
    tell(&checked, started);
    match &args.output {
        Some(output) => println!("{}", output.join("report.html").display()),
        None if checked.findings.is_empty() => {}
        None => println!("--output DIR writes a report, all findings, and a corpus without them"),
    }
    let failed: BTreeSet<&str> = checked
        .findings
        .iter()
        .map(|f| f.kind)
        .filter(|kind| fails.contains(kind))
        .map(|kind| kind.name())
        .collect();
    ensure!(
        failed.is_empty(),
        "there are findings of kinds that --fail-on names: {}",
        failed.into_iter().collect::<Vec<_>>().join(", ")
    );
    Ok(())
}

impl CheckArgs {
    fn options(&self) -> Result<CheckOptions> {
        ensure!(self.num_frames >= 1, "--num-frames is 0, expected 1 or more");
        ensure!(
            self.near_words > 0.0 && self.near_words <= 1.0,
            "--near-words is {}, expected more than 0 and at most 1",
            self.near_words
        );
        Ok(CheckOptions {
            load: LoadOptions { num_frames: self.num_frames, ..LoadLimits::parse(&self.load)?.options() },
            near_bits: self.near_bits,
            near_levels: self.near_levels,
            near_detail: self.near_detail,
            near_words: self.near_words,
            sharpness: self.sharpness,
            contrast: self.contrast,
            min_side: self.min_side,
            max_ratio: self.max_ratio,
            label_ratio: self.label_ratio,
            dataset_ratio: self.dataset_ratio,
            batch_size: self.batch_size,
            leak_letters: self.leak_letters,
        })
    }

    /// The kinds of which rows are left out.
    fn left_out(&self) -> Result<BTreeSet<FindingKind>> {
        let mut left_out: BTreeSet<FindingKind> =
            FindingKind::ALL.into_iter().filter(|kind| kind.is_error()).collect();
        let keep = kinds("--keep", &self.keep, &left_out)?;
        ensure!(
            !keep.contains(&FindingKind::UnreadableRow),
            "--keep unreadable-row: a row that can't be read can't be written; mend it"
        );
        left_out.extend(kinds("--drop", &self.drop, &left_out)?);
        left_out.retain(|kind| !keep.contains(kind));
        Ok(left_out)
    }
}

/// The kinds that an option names; `error` stands for `errors`, `any` for all.
fn kinds(option: &str, names: &[String], errors: &BTreeSet<FindingKind>) -> Result<BTreeSet<FindingKind>> {
    let mut kinds = BTreeSet::new();
    for name in names {
        match (name.as_str(), FindingKind::named(name)) {
            (_, Some(kind)) => drop(kinds.insert(kind)),
            ("error", _) => kinds.extend(errors),
            ("any", _) => kinds.extend(FindingKind::ALL),
            _ => {
                let known = FindingKind::ALL.map(FindingKind::name).join(", ");
                bail!("{option} `{name}` is no kind of finding; there are error, any, {known}")
            }
        }
    }
    Ok(kinds)
}

/// What a check writes first; shows that it did, and what else it wrote.
const RECORD: &str = "check.json";

fn write(
    args: &CheckArgs,
    options: &CheckOptions,
    checked: &Checked,
    left_out: &BTreeSet<FindingKind>,
    output: &Path,
) -> Result<()> {
    whole_folder(output, existing(args.overwrite), |part| {
        let cleaned = write_clean(checked, left_out, part)?;
        let mut findings = BufWriter::new(fs::File::create(part.join("findings.jsonl"))?);
        for finding in &checked.findings {
            writeln!(findings, "{}", serde_json::to_string(finding)?)?;
        }
        findings.flush()?;
        let left_out: Vec<FindingKind> = left_out.iter().copied().collect();
        let loader = Loader::new(LoadOptions { root: checked.corpus.clone(), ..options.load.clone() });
        let page = CheckPage {
            checked,
            cleaned: &cleaned,
            left_out: &left_out,
            loader: &loader,
            facts: &facts(args, options, &left_out),
        };
        write_check(&page, &part.join("report.html"))?;
        write_record(checked, &cleaned, &left_out, part)?;
        Ok(())
    })
}

fn facts(args: &CheckArgs, options: &CheckOptions, left_out: &[FindingKind]) -> Vec<(String, String)> {
    let fact = |key: &str, value: String| (key.to_owned(), value);
    vec![
        fact("Command", format!("rzen data check {}", args.corpus.display())),
        fact("Rows left out for", left_out.iter().map(|kind| kind.name()).collect::<Vec<_>>().join(", ")),
        fact(
            "Near pictures",
            format!(
                "hashes within {} bits of 64, levels within {}, detail alike to {}",
                options.near_bits, options.near_levels, options.near_detail
            ),
        ),
        fact("Near texts", format!("equal words, or {} of runs of three in long ones", options.near_words)),
        fact(
            "Pictures",
            format!(
                "sharpness from {}, contrast from {}, sides from {} pixels, ratio to {}",
                options.sharpness, options.contrast, options.min_side, options.max_ratio
            ),
        ),
    ]
}

fn write_record(checked: &Checked, cleaned: &Cleaned, left_out: &[FindingKind], part: &Path) -> Result<()> {
    let mut files = files_below(part)?;
    files.push(RECORD.into());
    files.sort();
    let mut findings = serde_json::Map::new();
    for finding in &checked.findings {
        let count = findings.entry(finding.kind.name()).or_insert(json!(0));
        *count = json!(count.as_u64().unwrap_or(0) + 1);
    }
    let datasets = &checked.datasets;
    let record = json!({
        "corpus": checked.corpus, "findings": findings, "left_out_for": left_out, "cleaned": cleaned,
        "datasets": datasets, "files": files,
    });
    Ok(fs::write(part.join(RECORD), format!("{record:#}\n"))?)
}

/// Findings of a kind that are told on the terminal.
const MOST_TOLD: usize = 3;

fn tell(checked: &Checked, started: Instant) {
    for kind in FindingKind::ALL {
        let findings = || checked.findings.iter().filter(|finding| finding.kind == kind);
        let count = findings().count();
        if count == 0 {
            continue;
        }
        println!("{count} {}: {}; {}", kind.name(), kind.title().to_lowercase(), kind.advice());
        for finding in findings().take(MOST_TOLD) {
            let place = finding.contents.iter().flat_map(|content| &content.places).next();
            let place = place.map_or(String::new(), |place| format!("{place}: "));
            println!("    {place}{}", finding.message);
        }
        if count > MOST_TOLD {
            println!("    and {} more", count - MOST_TOLD);
        }
    }
    let rows: usize = checked.manifests.iter().filter(|manifest| manifest.trains).map(|m| m.rows).sum();
    println!(
        "{rows} training rows of {} datasets, {} files and {} texts checked in {:.1} s: {} findings",
        checked.datasets.len(),
        checked.media,
        checked.texts,
        started.elapsed().as_secs_f64(),
        checked.findings.len()
    );
}
