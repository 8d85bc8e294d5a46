//! A picture of 12 megapixels from its file to patches.

use std::hint::black_box;
use std::path::PathBuf;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use libjpeg_turbo_rs::{PixelFormat, Subsampling, compress};
use rzen_core::{Media, Part};
use rzen_data::{LoadOptions, Loader};
use rzen_model::{ProcessorConfig, picture_patches, resize};

const WIDTH: u32 = 4032;
const HEIGHT: u32 = 3024;

fn pictures(criterion: &mut Criterion) {
    let (loader, config) = (Loader::new(LoadOptions::default()), ProcessorConfig::default());
    let tokens = config.image_tokens;
    let folder = tempfile::tempdir().expect("a folder for the file");
    let part = Part::Image(write_jpeg(folder.path().join("waves.jpg")));
    let load = || match loader.load_part(&part) {
        Ok(Media::Image(picture)) => picture,
        other => panic!("no picture: {other:?}"),
    };
    let large = load();
    let small = resize(&large, 1148, 840);

    let mut group = criterion.benchmark_group("pictures");
    group.sample_size(10).throughput(Throughput::Elements(u64::from(WIDTH * HEIGHT)));
    group.bench_function("decode_jpeg/12_megapixels", |b| b.iter(load));
    group.bench_function("resize/12_megapixels", |b| b.iter(|| resize(black_box(&large), 1148, 840)));
    group.bench_function("jpeg_to_patches/12_megapixels", |b| {
        b.iter(|| picture_patches(&config, &load(), tokens))
    });
    group.throughput(Throughput::Elements(1148 * 840));
    group.bench_function("patchify/1148x840", |b| {
        b.iter(|| picture_patches(&config, black_box(&small), tokens))
    });
    group.finish();
}

/// Waves in three directions with a little grain.
fn write_jpeg(path: PathBuf) -> PathBuf {
    let pixel = |i: u32| {
        let (x, y) = ((i % WIDTH) as f32, (i / WIDTH) as f32);
        let grain = (i.wrapping_mul(2_654_435_761) >> 28) as f32;
        [(0.013, 0.002), (0.004, 0.021), (0.1, 0.09)]
            .map(|(across, down)| (120.0 + 100.0 * (x * across + y * down).sin() + grain) as u8)
    };
    let rgb: Vec<u8> = (0..WIDTH * HEIGHT).flat_map(pixel).collect();
    // As cameras do, colours have half the resolution.
    let (width, height) = (WIDTH as usize, HEIGHT as usize);
    let jpeg =
        compress(&rgb, width, height, PixelFormat::Rgb, 90, Subsampling::S420).expect("a whole picture");
    std::fs::write(&path, jpeg).expect("a new file");
    path
}

criterion_group!(benches, pictures);
criterion_main!(benches);
