//! rzen's side of `benches/speed/compare.py`: runs a work several times and prints one line of JSON.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use burn::tensor::{Device, FloatDType};
use cpu_time::ProcessTime;
use rzen_core::{LoadedItem, Media, Part, Picture};
use rzen_data::{LoadOptions, Loader};
use rzen_model::{Collator, Encoded, EncoderInput, Processor, ProcessorConfig, Qwen2Vl, picture_patches};
use serde_json::json;

const USAGE: &str = "speed REPEAT forward MODEL f32|bf16 text:8x128|picture:980x980|frames:8x280x476
speed REPEAT patches FILE";
/// No further run begins once all took so many seconds.
const SECONDS: f64 = 60.0;

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [repeat, "patches", file] => {
            let (loader, config) = (Loader::new(LoadOptions::default()), ProcessorConfig::default());
            let part = Part::Image(file.into());
            time(repeat.parse()?, || {
                let Media::Image(picture) = loader.load_part(&part)? else { bail!("not a picture") };
                let patches = picture_patches(&config, &picture, config.image_tokens);
                Ok(patches.grid_thw.iter().product::<usize>() / 4)
            })
        }
        [repeat, "forward", folder, dtype, work] => {
            let (folder, device) = (Path::new(folder), Device::flex());
            let dtype = match dtype {
                "f32" => FloatDType::F32,
                "bf16" => FloatDType::BF16,
                other => bail!("`{other}` is neither f32 nor bf16"),
            };
            let model = Qwen2Vl::load_to_embed(&device, folder, dtype, &device)?;
            let (input, tokens) = prepare(work, &model, &Processor::load(folder)?, &device)?;
            time(repeat.parse()?, || {
                model.embed(&input).into_data();
                Ok(tokens)
            })
        }
        _ => bail!("{USAGE}"),
    }
}

/// The micro-batch of a work, and its tokens.
fn prepare(
    work: &str,
    model: &Qwen2Vl,
    processor: &Processor,
    device: &Device,
) -> Result<(EncoderInput, usize)> {
    let (kind, sizes) = work.split_once(':').context("a work is a kind, a colon and sizes")?;
    let sizes: Vec<u32> = sizes.split('x').map(str::parse).collect::<Result<_, _>>()?;
    let items = match (kind, &sizes[..]) {
        ("text", &[count, length]) => (0..count).map(|text| words(text, length)).collect(),
        ("picture", &[height, width]) => vec![process(processor, Media::Image(picture(height, width, 0)))?],
        ("frames", &[count, height, width]) => {
            let frames = (0..count).map(|i| picture(height, width, i)).collect();
            vec![process(processor, Media::Frames(frames))?]
        }
        _ => bail!("`{work}` is no work"),
    };
    let positions = processor.config().positions;
    let collator = Collator::new(model.config(), processor.special(), positions, device);
    let tokens = items.iter().map(|item| item.input_ids.len()).sum();
    Ok((collator.collate(&items.iter().collect::<Vec<_>>()), tokens))
}

/// Different tokens from the first on, so that the texts share no beginning.
fn words(text: u32, length: u32) -> Encoded {
    let input_ids = (0..length).map(|i| (i * 7 + text * 13) % 256).collect();
    Encoded { input_ids, pictures: Vec::new() }
}

fn process(processor: &Processor, media: Media) -> Result<Encoded> {
    Ok(processor.process(&LoadedItem { parts: vec![media], instruction: None })?)
}

/// Grain, another one for each seed.
fn picture(height: u32, width: u32, seed: u32) -> Picture {
    let byte = |i: u32| (i.wrapping_add(seed << 24).wrapping_mul(2_654_435_761) >> 24) as u8;
    Picture::new(width, height, (0..width * height * 3).map(byte).collect())
}

/// Prints the wall and CPU seconds of each run after one that warms up, and the tokens that `run` returns.
fn time(repeat: usize, run: impl Fn() -> Result<usize>) -> Result<()> {
    let tokens = run()?;
    let (mut wall_s, mut cpu_s) = (Vec::new(), Vec::new());
    while wall_s.len() < repeat && wall_s.iter().sum::<f64>() < SECONDS {
        let (start, start_cpu) = (Instant::now(), ProcessTime::now());
        run()?;
        cpu_s.push(start_cpu.elapsed().as_secs_f64());
        wall_s.push(start.elapsed().as_secs_f64());
    }
    println!("{}", json!({ "wall_s": wall_s, "cpu_s": cpu_s, "tokens": tokens }));
    Ok(())
}
