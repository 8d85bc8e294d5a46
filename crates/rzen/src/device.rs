//! The device that `--device` names.

use anyhow::{Result, bail};
use burn::tensor::Device;
use burn::tensor::FloatDType;

/// What was compiled in, as `--device` takes it.
pub fn available() -> Vec<&'static str> {
    let kinds = [
        ("cpu", cfg!(feature = "cpu")),
        ("wgpu", cfg!(any(feature = "wgpu", feature = "vulkan", feature = "metal"))),
        ("cuda", cfg!(feature = "cuda")),
    ];
    kinds.iter().filter(|(_, on)| *on).map(|(name, _)| *name).collect()
}

/// A device that this program can compute on.
#[derive(Clone, Debug)]
pub struct Found {
    /// As `--device` takes it, with its number where there may be several.
    pub name: String,
    /// The device.
    pub device: Device,
}

/// Every device of every backend that was compiled in, the CPU first.
pub fn found() -> Vec<Found> {
    let numbered = |kind: &'static str, devices: Vec<Device>| {
        devices
            .into_iter()
            .enumerate()
            .map(move |(at, device)| Found { name: format!("{kind}:{at}"), device })
    };
    let cpu = cpu().ok().map(|device| Found { name: "cpu".into(), device });
    cpu.into_iter().chain(numbered("wgpu", all_wgpu())).chain(numbered("cuda", all_cuda())).collect()
}

/// Opens `cpu`, `wgpu`, `wgpu:N`, `cuda` or `cuda:N`.
///
/// `wgpu` is the adapter that the system prefers, `wgpu:N` the N-th of all that are found, whatever their kind.
///
/// # Errors
/// If the name is unknown, its backend was not compiled in, or there is no such device; says what there is.
pub fn open(name: &str) -> Result<Device> {
    match parts(name)? {
        ("wgpu", index) => wgpu(name.contains(':').then_some(index)),
        ("cuda", index) => cuda(index),
        _ => cpu(),
    }
}

/// Looks at a device's name without looking for the device.
///
/// # Errors
/// If the name is unknown.
pub fn check_name(name: &str) -> Result<()> {
    parts(name).map(drop)
}

/// The kind of a device, and its number.
fn parts(name: &str) -> Result<(&str, usize)> {
    let (kind, index) = match name.split_once(':') {
        None => (name, 0),
        Some((kind, index)) => match index.parse() {
            Ok(index) => (kind, index),
            Err(_) => bail!("device `{name}`: `{index}` is no number; write for example `{kind}:0`"),
        },
    };
    match kind {
        "cpu" if index == 0 => Ok((kind, index)),
        "wgpu" | "cuda" => Ok((kind, index)),
        _ => bail!("device `{name}` is unknown; this program has {}", available().join(", ")),
    }
}

/// Opens the device of one of several processes on a machine: without a number in its name, each takes the next, and
/// begins again at the first where there are fewer devices than processes.
///
/// # Errors
/// As [`open`].
pub fn open_for(name: &str, local_rank: usize) -> Result<Device> {
    match devices_of(name) {
        0 => open(name),
        several => open(&format!("{name}:{}", local_rank % several)),
    }
}

/// How many devices a name without a number stands for; 0 where it is not counted.
fn devices_of(name: &str) -> usize {
    match name {
        "cuda" => all_cuda().len(),
        _ => 0,
    }
}

/// Whether a device is the CPU.
pub fn is_cpu(device: &Device) -> bool {
    #[cfg(feature = "cpu")]
    return *device == Device::flex();
    #[cfg(not(feature = "cpu"))]
    return {
        let _ = device;
        false
    };
}

/// Where the token table of a model on `device` is kept: on the CPU, which every program but those built without it has.
pub fn table_home(device: &Device) -> Device {
    cpu().unwrap_or_else(|_| device.clone())
}

/// The element type that `--dtype` names.
///
/// # Errors
/// If it is none of `f32`, `bf16`, `f16`.
pub fn dtype(name: &str) -> Result<FloatDType> {
    match name {
        "f32" => Ok(FloatDType::F32),
        "bf16" => Ok(FloatDType::BF16),
        "f16" => Ok(FloatDType::F16),
        _ => bail!("dtype `{name}` is unknown; give f32, bf16 or f16"),
    }
}

#[allow(dead_code, reason = "only programs that lack a backend refuse it")]
fn missing(kind: &str) -> Result<Device> {
    bail!(
        "this program was built without `{kind}` and has {}; build it with `--features {kind}`, or run \
         `cargo xtask VERB --backend {kind}`",
        available().join(", ")
    )
}

/// Refuses a place past the devices that were found, and lists them.
#[allow(dead_code, reason = "only programs with a GPU backend look for devices")]
fn check_index<T: std::fmt::Debug>(kind: &str, index: usize, found: &[T]) -> Result<()> {
    if found.is_empty() {
        bail!("device `{kind}:{index}`: no {kind} device was found; is its driver installed?");
    }
    if index >= found.len() {
        let list: Vec<String> =
            found.iter().enumerate().map(|(at, device)| format!("{kind}:{at} = {device:?}")).collect();
        bail!("device `{kind}:{index}` isn't there; found: {}", list.join(", "));
    }
    Ok(())
}

#[cfg(feature = "cpu")]
fn cpu() -> Result<Device> {
    Ok(Device::flex())
}

#[cfg(not(feature = "cpu"))]
fn cpu() -> Result<Device> {
    missing("cpu")
}

#[cfg(any(feature = "wgpu", feature = "vulkan", feature = "metal"))]
fn all_wgpu() -> Vec<Device> {
    Device::enumerate(burn::tensor::DeviceType::Wgpu).into_vec()
}

#[cfg(not(any(feature = "wgpu", feature = "vulkan", feature = "metal")))]
fn all_wgpu() -> Vec<Device> {
    Vec::new()
}

#[cfg(any(feature = "wgpu", feature = "vulkan", feature = "metal"))]
fn wgpu(index: Option<usize>) -> Result<Device> {
    let mut found = all_wgpu();
    check_index("wgpu", index.unwrap_or(0), &found)?;
    match index {
        Some(index) => Ok(found.swap_remove(index)),
        None => Ok(Device::wgpu(burn::tensor::DeviceKind::DefaultDevice)),
    }
}

#[cfg(not(any(feature = "wgpu", feature = "vulkan", feature = "metal")))]
fn wgpu(_index: Option<usize>) -> Result<Device> {
    missing("wgpu")
}

#[cfg(feature = "cuda")]
fn all_cuda() -> Vec<Device> {
    Device::enumerate(burn::tensor::DeviceType::Cuda).into_vec()
}

#[cfg(not(feature = "cuda"))]
fn all_cuda() -> Vec<Device> {
    Vec::new()
}

#[cfg(feature = "cuda")]
fn cuda(index: usize) -> Result<Device> {
    check_index("cuda", index, &all_cuda())?;
    Ok(Device::cuda(index))
}

#[cfg(not(feature = "cuda"))]
fn cuda(_index: usize) -> Result<Device> {
    missing("cuda")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_that_are_not_there_are_refused() {
        let none = check_index::<&str>("wgpu", 0, &[]).unwrap_err().to_string();
        assert!(none.contains("no wgpu device was found") && none.contains("driver"), "{none}");
        let past = check_index("wgpu", 2, &["A", "B"]).unwrap_err().to_string();
        assert!(past.contains("`wgpu:2`") && past.contains("wgpu:1 = \"B\""), "{past}");
        check_index("wgpu", 1, &["A", "B"]).unwrap();
    }

    #[test]
    fn unknown_devices_list_what_there_is() {
        let error = open("tpu").unwrap_err().to_string();
        assert!(error.contains("`tpu`") && error.contains("cpu"), "{error}");
        assert!(open("cuda:x").unwrap_err().to_string().contains("`x`"));
        assert!(dtype("int8").unwrap_err().to_string().contains("bf16"));
    }
}
