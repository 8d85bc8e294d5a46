//! A rank that fails where the others can't know of it ends them.

use anyhow::anyhow;
use rzen::ranks::{Company, end, join};

use crate::launch::{mpirun, refuse};

/// How rank 1 of [`a_rank`] fails.
const HOW: &str = "RZEN_TEST_HOW";

/// What `mpirun` starts; by itself it has nothing to do.
#[test]
fn a_rank() {
    let Ok(how) = std::env::var(HOW) else { return };
    let ranks = join(Company::Auto).unwrap();
    if ranks.rank() == 1 {
        assert_ne!(how, "panic", "rank 1 has lost its mind");
        let _ = end(ranks, Err(anyhow!("rank 1 alone has a problem")));
        unreachable!("the others did not come");
    }
    // In vain, unless rank 1 ends this one.
    ranks.all_gather_bytes(&[1]);
}

#[test]
fn others_do_not_wait_for_a_rank_that_fails_alone() {
    for (how, message) in
        [("error", "error: rank 1 of 2: rank 1 alone has a problem"), ("panic", "lost its mind")]
    {
        let folder = tempfile::tempdir().unwrap();
        let Some(mut command) = mpirun(2, folder.path()) else { return };
        let this = std::env::current_exe().unwrap();
        let said = refuse(command.env(HOW, how).arg(this).args(["--exact", "ending::a_rank", "--nocapture"]));
        assert!(said.contains(message), "{how}: {said}");
    }
}
