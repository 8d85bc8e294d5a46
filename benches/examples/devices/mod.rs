//! Devices by the names of their backends, and whether they compute what they should.

use anyhow::{Result, bail, ensure};
use burn::tensor::{DType, FloatDType};
use rzen::device::{self, Found};
use rzen::doctor::{known_model, machine};

/// Opens a device by the name of its backend: `vulkan` and `metal` are ways to a WGPU device.
pub fn open(name: &str) -> Result<Found> {
    let (kind, number) = name.split_at(name.find(':').unwrap_or(name.len()));
    let is_in = |kind: &str| machine::BACKENDS.contains(&(kind, true));
    let device_kind = match kind {
        "vulkan" | "metal" => {
            ensure!(is_in(kind), "`{kind}` is not compiled in: build with `--features {kind}`");
            "wgpu"
        }
        // With one of these in, shaders of WGPU go its way.
        "wgpu" if is_in("vulkan") || is_in("metal") => {
            bail!("this program was built with `vulkan` or `metal`: name that as the device")
        }
        other => other,
    };
    let name = format!("{device_kind}{number}");
    Ok(Found { device: device::open(&name)?, name })
}

/// Refuses a type that a device doesn't have, and a device that computes wrong vectors.
pub fn check(found: &Found, dtype: FloatDType) -> Result<()> {
    ensure!(found.device.supports_dtype(DType::from(dtype)), "{} has no {dtype:?}", found.name);
    let folder = tempfile::tempdir()?;
    known_model::write(folder.path())?;
    for difference in known_model::differences(folder.path(), dtype, &found.device)? {
        let known_model::Difference { item, largest, cosine_distance } = difference;
        ensure!(
            difference.is_small(dtype),
            "{} computes wrong vectors in {dtype:?}: `{item}` of the known model is off by {largest:.1e}, in cosine by \
             {cosine_distance:.1e}; see `rzen doctor`",
            found.name
        );
    }
    Ok(())
}
