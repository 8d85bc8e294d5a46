//! What a launcher says in the environment of the processes that it starts.

use std::fmt;

/// A launcher that has started several processes together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Launched {
    variable: &'static str,
    value: usize,
}

impl fmt::Display for Launched {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(
            f,
            "a launcher has started several of these processes together ({}={})",
            self.variable, self.value
        )
    }
}

/// Variables that hold how many processes there are: Open MPI; MPICH and Intel MPI; srun, whose `SLURM_NTASKS` stands in
/// the environment of a batch script too, where there is one process.
const SIZES: [&str; 3] = ["OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS"];

/// Variables that hold the rank alone, as PMIx does: a rank above 0 isn't alone.
const RANKS: [&str; 1] = ["PMIX_RANK"];

/// The launcher that has started this process together with others.
pub(super) fn found(variable: impl Fn(&str) -> Option<String>) -> Option<Launched> {
    let read = |name: &'static str| Some(Launched { variable: name, value: variable(name)?.parse().ok()? });
    let several = SIZES.into_iter().filter_map(read).find(|launched| launched.value > 1);
    several.or_else(|| RANKS.into_iter().filter_map(read).find(|launched| launched.value > 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn launchers_are_known_by_their_variables() {
        let check = |set: &[(&str, &str)], expected: Option<&str>| {
            let variable =
                |name: &str| set.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
            assert_eq!(found(variable).map(|launched| launched.variable), expected, "{set:?}");
        };
        check(&[], None);
        check(&[("OMPI_COMM_WORLD_SIZE", "4")], Some("OMPI_COMM_WORLD_SIZE"));
        check(&[("OMPI_COMM_WORLD_SIZE", "1"), ("PMIX_RANK", "0")], None);
        check(&[("PMI_SIZE", "2")], Some("PMI_SIZE"));
        // A batch script, and a step of it.
        check(&[("SLURM_NTASKS", "8"), ("SLURM_PROCID", "0")], None);
        check(&[("SLURM_NTASKS", "8"), ("SLURM_STEP_NUM_TASKS", "8")], Some("SLURM_STEP_NUM_TASKS"));
        check(&[("PMIX_RANK", "3")], Some("PMIX_RANK"));
        check(&[("PMI_SIZE", "many")], None);
    }
}
