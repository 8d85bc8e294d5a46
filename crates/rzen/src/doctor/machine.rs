//! What this machine and this program have: backends, devices with their drivers, ffmpeg.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rzen_data::{LoadOptions, find_ffmpeg};

use super::child;
use crate::device::Found;

/// Backends, as `--backend` and features name them, and whether each was compiled in.
pub const BACKENDS: [(&str, bool); 5] = [
    ("cpu", cfg!(feature = "cpu")),
    ("wgpu", cfg!(feature = "wgpu")),
    ("vulkan", cfg!(feature = "vulkan")),
    ("metal", cfg!(feature = "metal")),
    ("cuda", cfg!(feature = "cuda")),
];

/// A device's model, and its driver where that is known.
pub fn describe(found: &Found) -> String {
    match found.name.as_str() {
        "cpu" => {
            let threads = std::thread::available_parallelism().map_or(1, usize::from);
            let plural = if threads == 1 { "" } else { "s" };
            format!("{}, {threads} thread{plural}", std::env::consts::ARCH)
        }
        _ => describe_gpu(found),
    }
}

#[cfg(any(feature = "wgpu", feature = "vulkan", feature = "metal", feature = "cuda"))]
fn describe_gpu(found: &Found) -> String {
    match found.device.identity() {
        Some(identity) if found.name.starts_with("wgpu") => adapter(&identity.name).unwrap_or(identity.name),
        Some(identity) => identity.name,
        None => format!("{:?}", found.device),
    }
}

#[cfg(not(any(feature = "wgpu", feature = "vulkan", feature = "metal", feature = "cuda")))]
fn describe_gpu(found: &Found) -> String {
    format!("{:?}", found.device)
}

/// The adapter of this name, with its graphics interface, driver, and most bytes that a kernel can see as one buffer.
#[cfg(any(feature = "wgpu", feature = "vulkan", feature = "metal"))]
fn adapter(name: &str) -> Option<String> {
    use std::task::{Poll, Waker};
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
    let adapters = std::pin::pin!(instance.enumerate_adapters(wgpu::Backends::all()));
    // Outside of browsers the list is there at once.
    let Poll::Ready(adapters) = adapters.poll(&mut std::task::Context::from_waker(Waker::noop())) else {
        return None;
    };
    let adapter = adapters.into_iter().find(|adapter| adapter.get_info().name == name)?;
    let info = adapter.get_info();
    let driver = [info.driver, info.driver_info].join(" ");
    let mebibytes = adapter.limits().max_storage_buffer_binding_size >> 20;
    Some(format!("{name}, {:?}, driver {}, buffers of {mebibytes} MiB", info.backend, driver.trim()))
}

#[cfg(all(feature = "cuda", not(any(feature = "wgpu", feature = "vulkan", feature = "metal"))))]
fn adapter(_name: &str) -> Option<String> {
    None
}

/// The ffmpeg that clips are decoded with: its path and the first line that it says of itself.
///
/// # Errors
/// If one is named by `RZEN_FFMPEG` or found, and can't be run.
pub fn ffmpeg(folder: &Path) -> Result<Option<(PathBuf, String)>> {
    let Some(program) = find_ffmpeg(&LoadOptions::default()) else { return Ok(None) };
    let mut command = Command::new(&program);
    command.arg("-version");
    let ended = child::run(command, folder, Duration::from_secs(30))?;
    let version = ended.stdout.lines().next().unwrap_or_default().to_owned();
    ensure!(ended.status.success(), "{} ended with {}", program.display(), ended.status);
    ensure!(
        version.starts_with("ffmpeg"),
        "{} says `{version}`, expected a version of ffmpeg",
        program.display()
    );
    let short = version.split(" Copyright").next().context("splitting gives one part at least")?.to_owned();
    Ok(Some((program, short)))
}
