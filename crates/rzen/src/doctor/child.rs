//! Programs that may crash or hang, with what they print kept in files.

use std::fs::File;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// How a program ended and what it printed.
pub struct Ended {
    /// Its exit status; a signal where it crashed.
    pub status: ExitStatus,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

/// Runs a program; what it prints goes through files in `folder`, so that a full pipe can't hold it up.
///
/// # Errors
/// If it can't be started, or is not done after `limit`; it is ended then.
pub fn run(mut command: Command, folder: &Path, limit: Duration) -> Result<Ended> {
    let place = |name: &str| folder.join(name);
    let file =
        |name: &str| File::create(place(name)).with_context(|| format!("writing {}", place(name).display()));
    command.stdin(Stdio::null()).stdout(file("stdout")?).stderr(file("stderr")?);
    let name = command.get_program().to_string_lossy().into_owned();
    let mut child = command.spawn().with_context(|| format!("can't start {name}"))?;
    let start = Instant::now();
    let status = loop {
        match child.try_wait().with_context(|| format!("waiting for {name}"))? {
            Some(status) => break status,
            None if start.elapsed() > limit => {
                drop(child.kill());
                drop(child.wait());
                bail!("not done after {} s, and ended", limit.as_secs());
            }
            None => std::thread::sleep(Duration::from_millis(10)),
        }
    };
    let text = |name: &str| -> Result<String> {
        let bytes =
            std::fs::read(place(name)).with_context(|| format!("reading {}", place(name).display()))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    Ok(Ended { status, stdout: text("stdout")?, stderr: text("stderr")? })
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    fn sh(script: &str, limit: Duration) -> Result<Ended> {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        run(command, folder.path(), limit)
    }

    #[test]
    fn what_is_printed_comes_back() {
        let ended = sh("echo a; echo b >&2; exit 3", Duration::from_secs(60)).unwrap();
        assert_eq!((ended.stdout.as_str(), ended.stderr.as_str()), ("a\n", "b\n"));
        assert_eq!(ended.status.code(), Some(3));
        assert!(sh("kill -SEGV $$", Duration::from_secs(60)).unwrap().status.to_string().contains("signal"));
    }

    #[test]
    fn what_hangs_is_ended() {
        let start = Instant::now();
        let error = sh("exec sleep 60", Duration::from_millis(50)).err().unwrap().to_string();
        assert!(error.contains("not done"), "{error}");
        assert!(start.elapsed() < Duration::from_secs(30));
    }
}
