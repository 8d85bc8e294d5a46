//! Which checkpoints of a run stay.

use std::fs;
use std::path::{Path, PathBuf};

use crate::checkpoint::{entries, io};
use crate::{Checkpoint, CheckpointError, StageConfig};

/// How the name of a folder ends that is not whole.
pub(crate) const TEMPORARY: &str = ".tmp";

/// Steps that a smoothed loss looks back on, about.
const SMOOTHED_STEPS: usize = 100;

/// The smoothed loss after `step` steps, the last of which had `loss`: the mean of all at first, later a mean in which
/// older losses fade.
///
/// f32, since that comes back from `state.json` as it was.
pub(crate) fn smoothed(before: Option<f32>, step: usize, loss: f32) -> f32 {
    before.map_or(loss, |before| before + (loss - before) / step.min(SMOOTHED_STEPS) as f32)
}

/// Finishes what a killed run had begun to remove, and removes what it had begun to write.
pub(crate) fn tidy(checkpoints: &Path, step: usize, config: &StageConfig) -> Result<(), CheckpointError> {
    clear_temporary(checkpoints)?;
    drop_old(checkpoints, step, config)
}

/// Drops the complete checkpoints up to `step` that `config` does not keep. Later ones may be there when a run was
/// taken up from an earlier checkpoint; the run will come to them again.
pub(crate) fn drop_old(checkpoints: &Path, step: usize, config: &StageConfig) -> Result<(), CheckpointError> {
    if config.keep_last == 0 {
        return Ok(());
    }
    let up_to_here = list(checkpoints)?.into_iter().filter(|(other, _)| *other <= step);
    let complete: Vec<_> = up_to_here.filter_map(|(_, folder)| Checkpoint::open(&folder).ok()).collect();
    let best = if config.keep_best { best(&complete) } else { None };
    let old = &complete[..complete.len().saturating_sub(config.keep_last)];
    old.iter().filter(|old| Some(old.state.step) != best).try_for_each(|old| remove(&old.folder))
}

/// The step of the lowest smoothed loss, the last of them.
fn best(checkpoints: &[Checkpoint]) -> Option<usize> {
    let losses = checkpoints.iter().rev().filter_map(|it| Some((it.state.smoothed_loss?, it.state.step)));
    losses.min_by(|(a, _), (b, _)| a.total_cmp(b)).map(|(_, step)| step)
}

/// Removes a checkpoint such that a half-removed one never stands under its name.
pub(crate) fn remove(folder: &Path) -> Result<(), CheckpointError> {
    let doomed = with_suffix(folder, &format!(".old{TEMPORARY}"));
    fs::rename(folder, &doomed).map_err(io("rename to", &doomed))?;
    fs::remove_dir_all(&doomed).map_err(io("remove", &doomed))
}

/// Removes what a killed run left behind.
pub(crate) fn clear_temporary(checkpoints: &Path) -> Result<(), CheckpointError> {
    for (name, path) in entries(checkpoints)? {
        if name.starts_with("step_") && name.ends_with(TEMPORARY) {
            fs::remove_dir_all(&path).map_err(io("remove", &path))?;
        }
    }
    Ok(())
}

/// The folders named `step_N`, by rising step; none if `checkpoints` isn't there.
pub(crate) fn list(checkpoints: &Path) -> Result<Vec<(usize, PathBuf)>, CheckpointError> {
    if !checkpoints.exists() {
        return Ok(Vec::new());
    }
    let step = |name: &str| name.strip_prefix("step_")?.parse::<usize>().ok();
    let mut folders: Vec<_> =
        entries(checkpoints)?.into_iter().filter_map(|(name, path)| Some((step(&name)?, path))).collect();
    folders.sort();
    Ok(folders)
}

pub(crate) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_smoothed_loss_is_a_mean_whose_past_fades() {
        let mean = (1..=4).fold(None, |before, step| Some(smoothed(before, step, step as f32)));
        assert_eq!(mean, Some(2.5));
        let faded = (1..=2000)
            .fold(None, |before, step| Some(smoothed(before, step, if step <= 1000 { 8.0 } else { 1.0 })));
        assert!((faded.unwrap() - 1.0).abs() < 1e-3, "{faded:?}");
    }
}
