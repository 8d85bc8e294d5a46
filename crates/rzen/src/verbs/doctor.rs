//! `rzen doctor`: what there is to compute on, and whether it computes what it should.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use burn::tensor::{DType, FloatDType};
use serde_json::{Value, json};

use crate::device::{self, Found};
use crate::doctor::known_model::{self, Difference};
use crate::doctor::{child, machine};

/// Check every device with a small model whose vectors are known
///
/// Lists the CPU, WGPU adapters and CUDA devices, embeds texts, a picture and frames on each, and says how far the
/// vectors are from the known ones: in f32 at most 1e-4, with weights of 16 bits a cosine of at least 0.999, where the
/// device has such. Each device is checked in a process of its own, so that one whose driver crashes doesn't hide the
/// others. The exit status is 1 if anything fails.
#[derive(clap::Args, Debug)]
#[command(after_help = "Example:\n  cargo xtask doctor --backend wgpu,cuda")]
pub struct Args {
    /// Check this device alone: cpu, wgpu or cuda, with :N for another than the first
    #[arg(long)]
    device: Option<String>,
    /// Most seconds for a device; the first run on a GPU compiles kernels
    #[arg(long, default_value_t = 600, value_name = "SECONDS")]
    timeout: u64,
    /// Leave the model and its items in this new folder
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
    /// Print JSON instead of lines
    #[arg(long)]
    json: bool,
    /// Compute with the model in this folder, in this process, and print JSON for one device
    #[arg(long, hide = true, requires = "device", value_name = "DIR")]
    model: Option<PathBuf>,
}

/// Runs the verb.
///
/// # Errors
/// If a device gives other vectors or none, if there is none, or ffmpeg is there and can't be run.
pub fn run(args: &Args) -> Result<()> {
    if let (Some(model), Some(name)) = (&args.model, &args.device) {
        println!("{}", check(model, &Found { name: name.clone(), device: device::open(name)? })?);
        return Ok(());
    }
    let report = match &args.keep {
        Some(folder) => {
            std::fs::create_dir(folder).with_context(|| {
                format!("--keep {}: name a folder that isn't there, in one that is", folder.display())
            })?;
            Report::make(args, folder)?
        }
        None => Report::make(args, tempfile::tempdir()?.path())?,
    };
    match args.json {
        true => println!("{}", serde_json::to_string_pretty(&report.to_json())?),
        false => report.lines().iter().for_each(|line| println!("{line}")),
    }
    let failures = report.failures();
    ensure!(failures.is_empty(), "{} failed", failures.join(", "));
    Ok(())
}

/// Checks a device in this process: `about`, and for each type of weights what differed by how much.
fn check(model: &Path, found: &Found) -> Result<Value> {
    let mut checks = Vec::new();
    for (name, dtype) in [("f32", FloatDType::F32), ("bf16", FloatDType::BF16), ("f16", FloatDType::F16)] {
        if found.device.supports_dtype(DType::from(dtype)) {
            let differences = known_model::differences(model, dtype, &found.device)?;
            let items: Vec<Value> = differences.iter().map(|difference| item(difference, dtype)).collect();
            checks.push(json!({"dtype": name, "items": items}));
        }
    }
    Ok(json!({"about": machine::describe(found), "checks": checks}))
}

/// JSON has no infinity: what is no number is null.
fn item(difference: &Difference, dtype: FloatDType) -> Value {
    json!({
        "item": difference.item, "passed": difference.is_small(dtype), "largest_difference": difference.largest,
        "cosine_distance": difference.cosine_distance,
    })
}

/// What was found.
struct Report {
    devices: Vec<(String, Result<Value>)>,
    /// Kinds of devices that were compiled in and looked for, of which there is none.
    absent: Vec<&'static str>,
    ffmpeg: Result<Option<(PathBuf, String)>>,
}

impl Report {
    fn make(args: &Args, folder: &Path) -> Result<Self> {
        known_model::write(folder)?;
        let names = match &args.device {
            Some(name) => vec![name.clone()],
            None => device::found().into_iter().map(|found| found.name).collect(),
        };
        let is_there = |kind: &str| names.iter().any(|name| name.split(':').next() == Some(kind));
        let absent = match args.device {
            Some(_) => Vec::new(),
            None => device::available().into_iter().filter(|kind| !is_there(kind)).collect(),
        };
        let logs = tempfile::tempdir()?;
        let limit = Duration::from_secs(args.timeout);
        let checked = |name: String| {
            let result = check_apart(folder, &name, logs.path(), limit);
            (name, result)
        };
        Ok(Report {
            absent,
            devices: names.into_iter().map(checked).collect(),
            ffmpeg: machine::ffmpeg(logs.path()),
        })
    }

    /// What failed, by name.
    fn failures(&self) -> Vec<String> {
        let devices = self.devices.iter().filter(|(_, result)| !passed(result)).map(|(name, _)| name.clone());
        let mut failures: Vec<String> = devices.collect();
        if self.devices.is_empty() {
            failures.push("the search for a device".to_owned());
        }
        if self.ffmpeg.is_err() {
            failures.push("ffmpeg".to_owned());
        }
        failures
    }

    fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for (name, result) in &self.devices {
            match result {
                Ok(report) => {
                    lines.push(format!("{name:<8} {}", report["about"].as_str().unwrap_or_default()));
                    lines.extend(each(&report["checks"]).map(check_line));
                }
                Err(error) => lines.push(format!("{name:<8} FAILED: {error:#}")),
            }
        }
        let none = |kind: &&str| format!("{kind:<8} no device was found; is its driver installed?");
        lines.extend(self.absent.iter().map(none));
        lines.push(match &self.ffmpeg {
            Ok(Some((path, version))) => format!("ffmpeg   {version}, {}", path.display()),
            Ok(None) => "ffmpeg   not here: of clips only MP4 with H.264 and animated GIF and WebP are read"
                .to_owned(),
            Err(error) => format!("ffmpeg   FAILED: {error:#}; correct RZEN_FFMPEG or the PATH, or unset it"),
        });
        let (on, off): (Vec<_>, Vec<_>) = machine::BACKENDS.iter().partition(|(_, on)| *on);
        let list = |backends: Vec<&(&str, bool)>| {
            backends.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
        };
        lines.push(format!("backends {}", list(on)));
        if !off.is_empty() {
            lines.push(format!(
                "         not compiled in: {}; `cargo xtask doctor --backend NAME` builds one in, or `--features NAME`",
                list(off)
            ));
        }
        lines
    }

    fn to_json(&self) -> Value {
        let devices = self.devices.iter().map(|(name, result)| match result {
            Ok(report) => json!({
                "device": name, "passed": passed(result), "about": report["about"], "checks": report["checks"],
            }),
            Err(error) => json!({"device": name, "passed": false, "error": format!("{error:#}")}),
        });
        let ffmpeg = match &self.ffmpeg {
            Ok(Some((path, version))) => json!({"path": path.to_string_lossy(), "version": version}),
            Ok(None) => Value::Null,
            Err(error) => json!({"error": format!("{error:#}")}),
        };
        let backends: serde_json::Map<String, Value> =
            machine::BACKENDS.iter().map(|(name, on)| ((*name).to_owned(), json!(on))).collect();
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "passed": self.failures().is_empty(),
            "devices": devices.collect::<Vec<_>>(),
            "absent": self.absent,
            "ffmpeg": ffmpeg,
            "backends": backends,
        })
    }
}

fn each(list: &Value) -> std::slice::Iter<'_, Value> {
    list.as_array().map(Vec::as_slice).unwrap_or_default().iter()
}

/// Whether there was a check and all items of all checks are right.
fn passed(result: &Result<Value>) -> bool {
    let Ok(report) = result else { return false };
    let mut items = each(&report["checks"]).flat_map(|check| each(&check["items"])).peekable();
    items.peek().is_some() && items.all(|item| item["passed"] == true)
}

/// A line for one type of weights.
fn check_line(check: &Value) -> String {
    let number = |value: &Value| value.as_f64().map_or("no number".to_owned(), |x| format!("{x:.1e}"));
    let items: Vec<String> = each(&check["items"])
        .map(|item| {
            let mark = if item["passed"] == true { "" } else { " FAILED" };
            let name = item["item"].as_str().unwrap_or_default();
            format!(
                "{name} {} ({}){mark}",
                number(&item["largest_difference"]),
                number(&item["cosine_distance"])
            )
        })
        .collect();
    let ok = each(&check["items"]).all(|item| item["passed"] == true);
    let dtype = check["dtype"].as_str().unwrap_or_default();
    format!("  {dtype:<5} {} {}", if ok { "ok,    " } else { "FAILED," }, items.join(", "))
}

/// Checks a device in a process of its own.
fn check_apart(model: &Path, name: &str, logs: &Path, limit: Duration) -> Result<Value> {
    let mut command = Command::new(std::env::current_exe().context("where is this program?")?);
    command.arg("doctor").arg("--device").arg(name).arg("--model").arg(model);
    let ended = child::run(command, logs, limit)?;
    if ended.status.success() {
        return serde_json::from_str(&ended.stdout)
            .with_context(|| format!("{name} printed {}", ended.stdout));
    }
    // The first panic names the cause; others follow from it.
    let mut said = ended.stderr.lines().map(str::trim).filter(|line| !line.is_empty());
    let panic = said.clone().skip_while(|line| !line.contains("panicked at")).nth(1);
    let said = panic.or_else(|| said.next_back()).unwrap_or("it said nothing");
    match said.strip_prefix("error: ") {
        Some(error) => bail!("{error}"),
        None => bail!("the process ended with {}: {said}", ended.status),
    }
}
