//! rzen's side of `benches/speed/compare.py`: runs a work several times and prints one line of JSON.

use std::path::Path;
use std::time::Instant;

use anyhow::{Result, anyhow, bail, ensure};
use cpu_time::ProcessTime;
use devices::{check, open};
use rzen::device;
use rzen::doctor::machine;
use rzen::models::{self, Opened};
use rzen_core::{LoadedItem, Media, Part, Picture, check_unit_vector};
use rzen_data::{LoadOptions, Loader};
use rzen_model::{Encoded, EncoderInput, ItemShape, Operations, Processor, ProcessorConfig, picture_patches};
use serde_json::{Value, json};
use works::{shape, split, words};

mod devices;
mod works;

const USAGE: &str =
    "speed REPEAT forward MODEL f32|bf16|f16 WORK [cpu|cuda[:N]|wgpu[:N]|vulkan[:N]|metal[:N]]
    WORK: text:COUNTxTOKENS, picture:COUNTxHEIGHTxWIDTH or frames:COUNTxFRAMESxHEIGHTxWIDTH
speed REPEAT patches FILE";
/// No further run begins once all took so many seconds.
const SECONDS: f64 = 60.0;
/// Runs before those that count: a GPU's kernels are compiled and chosen in the first.
const WARM_UP_GPU: usize = 3;

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let printed = match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [repeat, "patches", file] => patches(repeat.parse()?, file)?,
        [repeat, "forward", folder, dtype, work] => {
            forward(repeat.parse()?, Path::new(folder), dtype, work, "cpu")?
        }
        [repeat, "forward", folder, dtype, work, device] => {
            forward(repeat.parse()?, Path::new(folder), dtype, work, device)?
        }
        _ => bail!("{USAGE}"),
    };
    println!("{printed}");
    Ok(())
}

fn patches(repeat: usize, file: &str) -> Result<Value> {
    let (loader, config) = (Loader::new(LoadOptions::default()), ProcessorConfig::default());
    let part = Part::Image(file.into());
    let mut tokens = 0;
    let mut printed = time(repeat, 1, || {
        let Media::Image(picture) = loader.load_part(&part)? else { bail!("not a picture") };
        let patches = picture_patches(&config, &picture, config.image_tokens);
        tokens = patches.grid_thw.iter().product::<usize>() / 4;
        Ok(())
    })?;
    printed["tokens"] = json!(tokens);
    Ok(printed)
}

/// Batches of a work on a device, which must give right vectors with a model of known ones first.
fn forward(repeat: usize, folder: &Path, dtype: &str, work: &str, name: &str) -> Result<Value> {
    let found = open(name)?;
    let dtype = device::dtype(dtype)?;
    check(&found, dtype)?;
    let opened = models::open_to_embed(folder, None, dtype, &found.device)?;
    let items = items(work, &opened.processor)?;
    let (input, dim) = (collate(&opened, &items)?, opened.model.config().text.hidden_size);
    let warm_up = if device::is_cpu(&found.device) { 1 } else { WARM_UP_GPU };
    let mut vectors = Vec::new();
    let mut printed = time(repeat, warm_up, || {
        // Burn computes when numbers are asked for.
        vectors = opened.model.embed(&input).into_data().convert::<f32>().try_to_vec()?;
        Ok(())
    })?;
    ensure!(vectors.len() == items.len() * dim, "{} numbers for {} vectors", vectors.len(), items.len());
    for vector in vectors.chunks(dim) {
        check_unit_vector(vector).map_err(|wrong| anyhow!("a vector {wrong}"))?;
    }
    let sum = |of: fn(&ItemShape) -> usize| items.iter().map(|item| of(&shape(item))).sum::<usize>();
    let operations = items.iter().map(|item| opened.model.config().operations(&shape(item)));
    printed["items"] = json!(items.len());
    printed["tokens"] = json!(sum(ItemShape::tokens));
    printed["operations"] = json!(operations.fold(Operations::default(), |sum, one| sum + one).total());
    printed["device"] = json!(machine::describe(&found));
    Ok(printed)
}

/// The items of a work, none like another.
fn items(work: &str, processor: &Processor) -> Result<Vec<Encoded>> {
    let (kind, sizes) = split(work)?;
    match (kind, &sizes[..]) {
        ("text", &[count, length]) => Ok((0..count).map(|text| words(text, length)).collect()),
        ("picture", &[count, height, width]) => {
            (0..count).map(|i| process(processor, Media::Image(picture(height, width, i)))).collect()
        }
        ("frames", &[count, frames, height, width]) => {
            let clip = |i: u32| (i * frames..(i + 1) * frames).map(|i| picture(height, width, i)).collect();
            (0..count).map(|i| process(processor, Media::Frames(clip(i)))).collect()
        }
        _ => bail!("`{work}` is no work\n{USAGE}"),
    }
}

fn process(processor: &Processor, media: Media) -> Result<Encoded> {
    Ok(processor.process(&LoadedItem { parts: vec![media], instruction: None })?)
}

/// Grain, another one for each seed.
fn picture(height: u32, width: u32, seed: u32) -> Picture {
    let start = seed.wrapping_mul((1 << 24) + 1);
    let byte = |i: u32| (i.wrapping_add(start).wrapping_mul(2_654_435_761) >> 24) as u8;
    Picture::new(width, height, (0..width * height * 3).map(byte).collect())
}

/// One micro-batch of all items. A collator encodes equal pictures once, so that there must be none.
fn collate(opened: &Opened, items: &[Encoded]) -> Result<EncoderInput> {
    let pictures: Vec<_> = items.iter().flat_map(|item| &item.pictures).collect();
    let repeats = |at: usize| pictures[..at].contains(&pictures[at]);
    ensure!(!(0..pictures.len()).any(repeats), "two pictures are equal");
    Ok(opened.collator().collate(&items.iter().collect::<Vec<_>>()))
}

/// The wall and CPU seconds of each run after some that warm up.
fn time(repeat: usize, warm_up: usize, mut run: impl FnMut() -> Result<()>) -> Result<Value> {
    for _ in 0..warm_up {
        run()?;
    }
    let (mut wall_s, mut cpu_s) = (Vec::new(), Vec::new());
    while wall_s.len() < repeat && wall_s.iter().sum::<f64>() < SECONDS {
        let (start, start_cpu) = (Instant::now(), ProcessTime::now());
        run()?;
        cpu_s.push(start_cpu.elapsed().as_secs_f64());
        wall_s.push(start.elapsed().as_secs_f64());
    }
    Ok(json!({ "wall_s": wall_s, "cpu_s": cpu_s }))
}
