//! A run that is killed at any moment, again and again.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rzen_train::latest;

use crate::child::{READY, check_same_files, child, files, succeeded, train_if_asked};

const NAME: &str = "killed::a_run_killed_at_random_moments_ends_in_the_same_bytes";
const KILLS: usize = 60;
/// A life is at most this part of the time that a run takes that is never killed.
const LIVES: u32 = 6;
const SIGKILL: i32 = 9;

#[test]
fn a_run_killed_at_random_moments_ends_in_the_same_bytes() {
    train_if_asked();
    let place = tempfile::tempdir().unwrap();
    let whole = place.path().join("whole");
    let started = Instant::now();
    succeeded(&child(NAME, &whole).output().unwrap());
    let longest = started.elapsed() / LIVES;
    let expected = files(&whole);

    let (mut random, mut kills, mut torn, mut rounds) = (7_u64, 0, 0, 0);
    let mut reached = BTreeSet::new();
    while kills < KILLS {
        rounds += 1;
        let folder = place.path().join(format!("round-{rounds}"));
        loop {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let life = longest.mul_f64((random >> 33) as f64 / f64::from(1_u32 << 31));
            let status = live(&folder, (kills < KILLS).then_some(life));
            if status.success() {
                break;
            }
            assert_eq!(status.signal(), Some(SIGKILL), "it failed by itself, see above");
            kills += 1;
            torn += usize::from(holds_temporary(&folder));
            reached.insert(latest(&folder).unwrap().checkpoint.map_or(0, |checkpoint| checkpoint.state.step));
        }
        check_same_files(&folder, &expected, &format!("round {rounds}"));
    }
    println!(
        "{kills} kills in {rounds} runs, {torn} of them while a checkpoint was written or removed; taken up from {reached:?}"
    );
    assert!(torn > 0, "no kill met a checkpoint being written");
    assert!(reached.len() > 3, "the kills were nearly all at the same place");
}

/// Goes on with the training in `folder`, for `life` or to its end.
fn live(folder: &Path, life: Option<Duration>) -> ExitStatus {
    let mut child = child(NAME, folder).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    assert_eq!(lines.next().as_deref(), Some(READY));
    if let Some(life) = life {
        sleep(life);
        child.kill().unwrap();
    }
    lines.for_each(|line| eprintln!("{line}"));
    child.wait().unwrap()
}

fn holds_temporary(folder: &Path) -> bool {
    let Ok(entries) = fs::read_dir(folder.join("checkpoints")) else { return false };
    entries.map(|entry| entry.unwrap().file_name()).any(|name| name.to_string_lossy().ends_with(".tmp"))
}
