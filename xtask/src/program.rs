//! Runs a verb of the program `rzen` in release, with the features that its backend needs.

use std::process::{Command, ExitCode};

use anyhow::{Context, Result};

/// A verb of the program.
pub struct Verb {
    pub name: &'static str,
    pub about: &'static str,
    /// Whether the verb takes `--device`.
    pub device: bool,
}

/// The program's verbs; a new one is added here and nowhere else in xtask.
pub const VERBS: &[Verb] = &[
    Verb {
        name: "train",
        about: "the main job: draw a small world, train, soup, score, report",
        device: true,
    },
    Verb { name: "soup", about: "average adapters of one base model", device: false },
    Verb { name: "eval", about: "retrieval scores of a model on a corpus folder", device: true },
    Verb { name: "embed", about: "rows of text, pictures, clips and pages to vectors", device: true },
    Verb { name: "index", about: "pictures, clips and pages of folders, to be searched", device: true },
    Verb { name: "search", about: "the nearest files of an index to a query", device: true },
    Verb { name: "serve", about: "embeddings and search over HTTP", device: true },
    Verb { name: "data", about: "import, check, cut and mine training data", device: false },
    Verb { name: "report", about: "the page of a run again, or one that compares several", device: false },
    Verb { name: "inspect", about: "what a checkpoint or an adapter holds", device: false },
    Verb { name: "init", about: "random weights in the shape of a released model", device: false },
    Verb { name: "plan", about: "operations, memory and time of embedding, predicted", device: true },
    Verb { name: "doctor", about: "whether each device computes what it should", device: false },
];

/// A backend, the features of `rzen` that compile it in, and the device that it serves.
pub struct Backend {
    pub name: &'static str,
    pub feature: Option<&'static str>,
    pub device: &'static str,
}

/// Features are additive: every build has the CPU, the default.
pub const BACKENDS: &[Backend] = &[
    Backend { name: "cpu", feature: None, device: "cpu" },
    Backend { name: "wgpu", feature: Some("wgpu"), device: "wgpu" },
    Backend { name: "vulkan", feature: Some("vulkan"), device: "wgpu" },
    Backend { name: "metal", feature: Some("metal"), device: "wgpu" },
    Backend { name: "cuda", feature: Some("cuda"), device: "cuda" },
];

/// Builds and runs `rzen VERB ARGS`; the exit status is the program's.
pub fn run(verb: &str, args: &[String]) -> Result<ExitCode> {
    let mut command = crate::cargo();
    command.args(cargo_args(verb, args)?);
    become_child(command)
}

/// The arguments of the cargo command for `verb` and its `args`.
fn cargo_args(verb: &str, args: &[String]) -> Result<Vec<String>> {
    let (backends, args) = take_backends(args)?;
    let (ranks, mut args) = take_ranks(&args)?;
    let mut out: Vec<String> = ["run", "--release", "-p", "rzen", "--bin", "rzen"].map(str::to_owned).into();
    out.extend(features(&backends, ranks.is_some()));
    if let Some(ranks) = ranks {
        // What cargo has built, it starts by this command; the condition holds on every system.
        let runner = format!(r#"target."cfg(all())".runner=["mpirun","-n","{ranks}"]"#);
        out.extend(["--config".to_owned(), runner]);
    }
    if let Some(backend) = backends.first() {
        let known = VERBS.iter().find(|known| known.name == verb);
        let names_device = args.iter().any(|arg| arg == "--device" || arg.starts_with("--device="));
        if known.is_some_and(|known| known.device) && !names_device {
            args.insert(0, format!("--device={}", backend.device));
        }
    }
    out.extend(["--".to_owned(), verb.to_owned()]);
    out.append(&mut args);
    Ok(out)
}

/// The argument that compiles these backends in, and MPI, where any is needed.
pub fn features(backends: &[&Backend], mpi: bool) -> Option<String> {
    let mut features: Vec<&str> = backends.iter().filter_map(|backend| backend.feature).collect();
    features.extend(mpi.then_some("mpi"));
    (!features.is_empty()).then(|| format!("--features={}", features.join(",")))
}

/// Takes `--backend NAME,NAME` or `--backend=NAME` out of `args`; the last one counts.
pub fn take_backends(args: &[String]) -> Result<(Vec<&'static Backend>, Vec<String>)> {
    let (mut backends, mut rest) = (Vec::new(), Vec::new());
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let list = match arg.strip_prefix("--backend") {
            Some("") => args.next().with_context(|| format!("--backend needs a name: {}", names()))?,
            Some(value) if value.starts_with('=') => &value[1..],
            _ => {
                rest.push(arg.clone());
                continue;
            }
        };
        backends = list.split(',').map(named).collect::<Result<_>>()?;
    }
    Ok((backends, rest))
}

/// Takes `--mpi N` or `--mpi=N` out of `args`: how many ranks `mpirun` starts.
fn take_ranks(args: &[String]) -> Result<(Option<usize>, Vec<String>)> {
    let (mut ranks, mut rest) = (None, Vec::new());
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let number = match arg.strip_prefix("--mpi") {
            Some("") => args.next().map(String::as_str),
            Some(value) if value.starts_with('=') => Some(&value[1..]),
            _ => {
                rest.push(arg.clone());
                continue;
            }
        };
        let number = number.and_then(|number| number.parse().ok()).filter(|number| *number > 0);
        ranks = Some(number.context("--mpi needs a number of ranks: --mpi 4")?);
    }
    Ok((ranks, rest))
}

fn named(name: &str) -> Result<&'static Backend> {
    let found = BACKENDS.iter().find(|backend| backend.name == name);
    found.with_context(|| format!("--backend `{name}` is not one of: {}", names()))
}

fn names() -> String {
    BACKENDS.iter().map(|backend| backend.name).collect::<Vec<_>>().join(", ")
}

/// Replaces this process, so that Ctrl-C and the exit status are the program's own.
#[cfg(unix)]
fn become_child(mut command: Command) -> Result<ExitCode> {
    use std::os::unix::process::CommandExt;
    Err(command.exec()).with_context(|| format!("cannot start {command:?}"))
}

#[cfg(not(unix))]
fn become_child(mut command: Command) -> Result<ExitCode> {
    let status = command.status().with_context(|| format!("cannot start {command:?}"))?;
    std::process::exit(status.code().unwrap_or(1));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(verb: &str, args: &str) -> String {
        let args: Vec<String> = args.split_whitespace().map(str::to_owned).collect();
        cargo_args(verb, &args).map_or_else(|error| format!("{error:#}"), |args| args.join(" "))
    }

    #[test]
    fn arguments_pass_through_untouched() {
        let expected = "run --release -p rzen --bin rzen -- eval --model m -- x";
        assert_eq!(line("eval", "--model m -- x"), expected);
    }

    #[test]
    fn a_backend_becomes_a_feature_and_a_device() {
        let expected = "run --release -p rzen --bin rzen --features=vulkan -- train --device=wgpu --set a=1";
        assert_eq!(line("train", "--set a=1 --backend vulkan"), expected);
        assert_eq!(line("train", "--backend=vulkan --set a=1"), expected);
    }

    #[test]
    fn several_backends_are_compiled_in_together() {
        let expected = "run --release -p rzen --bin rzen --features=wgpu,cuda -- doctor --json";
        assert_eq!(line("doctor", "--backend cpu,wgpu,cuda --json"), expected);
        let expected = "run --release -p rzen --bin rzen --features=cuda,wgpu -- embed --device=cuda";
        assert_eq!(line("embed", "--backend cuda,wgpu"), expected);
    }

    #[test]
    fn ranks_are_started_by_mpirun() {
        let expected = r#"run --release -p rzen --bin rzen --features=cuda,mpi --config target."cfg(all())".runner=["mpirun","-n","4"] -- train --device=cuda --set a=1"#;
        assert_eq!(line("train", "--mpi 4 --backend cuda --set a=1"), expected);
        assert_eq!(line("train", "--backend=cuda --set a=1 --mpi=4"), expected);
        for wrong in ["--mpi", "--mpi 0", "--mpi x"] {
            assert!(line("train", wrong).contains("--mpi needs a number"), "{wrong}");
        }
    }

    #[test]
    fn the_users_device_wins() {
        let expected = "run --release -p rzen --bin rzen --features=cuda -- embed --device cuda:1";
        assert_eq!(line("embed", "--backend cuda --device cuda:1"), expected);
    }

    #[test]
    fn a_verb_without_devices_gets_none() {
        assert_eq!(line("inspect", "--backend cpu d"), "run --release -p rzen --bin rzen -- inspect d");
    }

    #[test]
    fn a_wrong_backend_is_named() {
        assert_eq!(
            line("train", "--backend tpu"),
            "--backend `tpu` is not one of: cpu, wgpu, vulkan, metal, cuda"
        );
        assert!(line("train", "--backend").starts_with("--backend needs a name"));
    }
}
