//! `rzen data clips`: films with captioned pieces to rows of clips.

use std::path::PathBuf;

use anyhow::{Result, ensure};
use rzen_data::{ClipDirection, ClipOptions, LoadOptions, cut_clips};
use serde_json::json;

use super::import::{check_name, check_replaceable, tell, write_dataset};
use crate::load_limits::LoadLimits;
use crate::output::{check_apart, check_folder};
use crate::progress::Progress;

/// Cut films into clips with their captions, the clips of a film as one group
///
/// The dataset is a folder of the corpus with `train.jsonl`, `clips.json` (what became of the pieces) and `media`, the
/// frames of each clip as JPEG. Films are cut with ffmpeg and stay as they are. docs/data.md says what is read.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Example:\n  rzen data clips --input activitynet/train.json --media activitynet/videos --output corpus \
                  --dataset activitynet --both --long-form"
)]
pub struct ClipArgs {
    /// Files of films and captions (.jsonl, .ndjson, .json, .parquet, Charades-STA's .txt)
    #[arg(long, required = true, num_args = 1.., value_name = "FILE")]
    input: Vec<PathBuf>,
    /// The corpus folder that the dataset's folder goes into
    #[arg(long, value_name = "DIR")]
    output: PathBuf,
    /// The dataset's name, and its folder's
    #[arg(long, value_name = "NAME")]
    dataset: String,
    /// The rows' task; decides the temperature
    #[arg(long, default_value = "video_retrieval", value_name = "TASK")]
    task: String,
    /// The rows' `name`; default the dataset's. With --both it ends in _t2v and _v2t, of whole films in _long
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// The instruction of captions that look for clips
    #[arg(long, value_name = "TEXT")]
    instruction: Option<String>,
    /// The instruction of clips that look for captions
    #[arg(long, value_name = "TEXT")]
    reverse_instruction: Option<String>,
    /// Folder that paths of films count from; default the folder of the file that names them
    #[arg(long, value_name = "DIR")]
    media: Option<PathBuf>,
    /// The clip looks for its caption
    #[arg(long)]
    reverse: bool,
    /// Captions look for clips, and clips for captions
    #[arg(long, conflicts_with = "reverse")]
    both: bool,
    /// Rows of whole films too, with all that is said of them
    #[arg(long)]
    long_form: bool,
    /// Frames taken of a clip, and of a whole film
    #[arg(long, default_value_t = 8, value_name = "N")]
    num_frames: usize,
    /// Seconds that a piece lasts at least; shorter ones are left out
    #[arg(long, default_value_t = 0.5, value_name = "SECONDS")]
    min_seconds: f64,
    /// Share of the shorter of two pieces of a film in which they overlap at most; the later one is left out
    #[arg(long, default_value_t = 0.5, value_name = "SHARE")]
    max_overlap: f64,
    /// Films and pieces that may be refused before the cutting stops
    #[arg(long, default_value_t = 0, value_name = "N")]
    bad_row_limit: usize,
    /// What files may ask for, as KEY=VALUE; the keys are those of `[data.load]`
    #[arg(long, value_name = "KEY=VALUE")]
    load: Vec<String>,
    /// Replace what an earlier cutting wrote there
    #[arg(long)]
    overwrite: bool,
}

/// What a cutting writes; the first shows that it did.
const WRITTEN: [&str; 3] = ["clips.json", "train.jsonl", "media"];

/// Runs the verb.
///
/// # Errors
/// Names the option, film or piece that is wrong. No output is left then.
pub fn run(args: &ClipArgs) -> Result<()> {
    let options = args.options()?;
    let folder = args.output.join(&args.dataset);
    check_folder(&folder, args.overwrite)?;
    check_apart(&folder, args.input.iter().chain(&args.media))?;
    check_replaceable(&folder, &WRITTEN)?;
    let progress = Progress::tasks("clips", 1);
    progress.message("films");
    let report = write_dataset(&folder, args.overwrite, WRITTEN[0], |part| {
        let report = cut_clips(&args.input, &options, part, &|done, all| progress.part(done, all))?;
        let record = json!({ "input": args.input, "report": report });
        Ok((report, record))
    })?;
    progress.finish();
    tell(&report, &folder);
    Ok(())
}

impl ClipArgs {
    fn options(&self) -> Result<ClipOptions> {
        check_name(&self.dataset, &self.task)?;
        ensure!(self.num_frames >= 1, "--num-frames is 0, expected 1 or more");
        ensure!(
            (0.0..=1.0).contains(&self.max_overlap),
            "--max-overlap is {}, expected a share from 0 to 1",
            self.max_overlap
        );
        ensure!(self.min_seconds >= 0.0, "--min-seconds is {}, expected 0 or more", self.min_seconds);
        let direction = match (self.both, self.reverse) {
            (true, _) => ClipDirection::Both,
            (false, true) => ClipDirection::VideoToText,
            (false, false) => ClipDirection::TextToVideo,
        };
        Ok(ClipOptions {
            dataset: self.dataset.clone(),
            task: self.task.clone(),
            name: self.name.clone(),
            instruction: self.instruction.clone(),
            reverse_instruction: self.reverse_instruction.clone(),
            media: self.media.clone(),
            direction,
            long_form: self.long_form,
            min_seconds: self.min_seconds,
            max_overlap: self.max_overlap,
            bad_row_limit: self.bad_row_limit,
            load: LoadOptions { num_frames: self.num_frames, ..LoadLimits::parse(&self.load)?.options() },
        })
    }
}
