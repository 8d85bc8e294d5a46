//! Starts ranks with `mpirun`.

use std::path::Path;
use std::process::{Command, Output, Stdio};

/// `mpirun` of so many ranks in `folder`, whatever user, machine and number of cores; to be given a program. `None`, which is
/// told, where there is no `mpirun`.
pub fn mpirun(ranks: usize, folder: &Path) -> Option<Command> {
    let there = Command::new("mpirun").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if there.is_err() {
        eprintln!("skipped: there is no mpirun");
        return None;
    }
    let mut command = Command::new("mpirun");
    command.current_dir(folder).args(["-n", &ranks.to_string()]).stdin(Stdio::null());
    // Open MPI 4 and 5; others need none of these.
    let settings = [
        ("OMPI_ALLOW_RUN_AS_ROOT", "1"),
        ("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1"),
        ("OMPI_MCA_rmaps_base_oversubscribe", "1"),
        ("OMPI_MCA_hwloc_base_binding_policy", "none"),
        ("PRTE_ALLOW_RUN_AS_ROOT", "1"),
        ("PRTE_ALLOW_RUN_AS_ROOT_CONFIRM", "1"),
        ("PRTE_MCA_rmaps_default_mapping_policy", ":oversubscribe"),
        ("PRTE_MCA_hwloc_default_binding_policy", "none"),
        // The ranks share few cores.
        ("RAYON_NUM_THREADS", "1"),
    ];
    command.envs(settings);
    Some(command)
}

/// Starts `rzen train ARGS` on so many ranks; each leaves its process number in `pid.RANK`.
pub fn train(ranks: usize, folder: &Path, args: &[&str]) -> Option<Command> {
    let mut command = mpirun(ranks, folder)?;
    let script = "echo $$ >pid.${OMPI_COMM_WORLD_RANK:-$PMI_RANK}; exec \"$0\" train \"$@\"";
    command.args(["sh", "-c", script, env!("CARGO_BIN_EXE_rzen")]).args(args);
    Some(command)
}

/// What the ranks say; they must succeed.
pub fn succeed(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let said = [stdout, stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    assert!(status.success(), "{command:?}: {said}");
    said
}

/// What the ranks say is wrong; they must fail.
pub fn refuse(command: &mut Command) -> String {
    let Output { status, stderr, .. } = command.output().unwrap();
    let said = String::from_utf8_lossy(&stderr).into_owned();
    assert!(!status.success(), "{command:?} succeeded: {said}");
    said
}
