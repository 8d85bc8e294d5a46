//! Another program, run so that it can neither outlive its time nor hold this one up.

use std::io::{self, Read};
use std::process::{Child, ChildStderr, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use crate::LoadError;

/// What a program left that ended by itself.
pub(crate) struct Output<T> {
    /// What was made of its standard output.
    pub value: T,
    /// How it ended.
    pub status: ExitStatus,
    /// The first few kilobytes of its standard error.
    pub complaint: String,
}

/// Why a program left nothing.
pub(crate) enum Failure {
    /// It can't be started.
    Start(io::Error),
    /// What it writes is refused; it was ended.
    Refused(LoadError),
    /// It was not done in time; it was ended.
    Timeout,
}

/// Runs `command`, hands its output to `read`, and ends it at `deadline` with all that it has started.
///
/// It runs in a process group of its own: Ctrl-C in a terminal is for this program to act on, and a
/// decoder that dies of it would only look like the end of its file.
pub(crate) fn run<T: Send + 'static>(
    mut command: Command,
    deadline: Option<Instant>,
    read: impl FnOnce(ChildStdout) -> Result<T, LoadError> + Send + 'static,
) -> Result<Output<T>, Failure> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    own_group(&mut command);
    let mut running = Running { child: Some(command.spawn().map_err(Failure::Start)?) };
    let (stdout, stderr) = running.pipes();
    // Threads that are left to themselves: something that the program started may hold a pipe for ever.
    let complaint = in_thread(move || first_words(stderr)).map_err(Failure::Start)?;
    let value = in_thread(move || read(stdout)).map_err(Failure::Start)?;
    let value = receive(&value, deadline)?.map_err(Failure::Refused)?;
    let complaint = receive(&complaint, deadline)?;
    let status = running.wait(deadline)?;
    Ok(Output { value, status, complaint })
}

/// A program that is ended when this is dropped before it has ended by itself.
struct Running {
    child: Option<Child>,
}

impl Running {
    fn pipes(&mut self) -> (ChildStdout, ChildStderr) {
        let child = self.child.as_mut().expect("it has just been started");
        let stdout = child.stdout.take().expect("stdout was asked for as a pipe");
        (stdout, child.stderr.take().expect("stderr was asked for as a pipe"))
    }

    /// Waits for an end that is near: the pipes are closed already.
    fn wait(&mut self, deadline: Option<Instant>) -> Result<ExitStatus, Failure> {
        const LONGEST_NAP: Duration = Duration::from_millis(20);
        let mut nap = Duration::from_millis(1);
        let child = self.child.as_mut().expect("only this takes it");
        loop {
            if let Some(status) = child.try_wait().map_err(Failure::Start)? {
                self.child = None;
                return Ok(status);
            }
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return Err(Failure::Timeout);
            }
            thread::sleep(nap);
            nap = (nap * 2).min(LONGEST_NAP);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        kill(&mut child);
        // Not waited for here: a program that is stuck in the kernel doesn't even die of this.
        let _ = in_thread(move || child.wait());
    }
}

#[cfg(unix)]
fn own_group(command: &mut Command) {
    use std::os::unix::process::CommandExt;
    command.process_group(0);
}

#[cfg(not(unix))]
fn own_group(_: &mut Command) {}

/// Ends the program and all of its group.
#[cfg(unix)]
fn kill(child: &mut Child) {
    use rustix::process::{Pid, Signal, kill_process_group};
    // The group has the number of its first process.
    if let Some(group) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        let _ = kill_process_group(group, Signal::KILL);
    }
}

#[cfg(not(unix))]
fn kill(child: &mut Child) {
    let _ = child.kill();
}

fn in_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> io::Result<Receiver<T>> {
    let (sender, receiver) = channel();
    // Nobody listens any more after a timeout.
    thread::Builder::new().spawn(move || sender.send(work()).is_ok())?;
    Ok(receiver)
}

fn receive<T>(receiver: &Receiver<T>, deadline: Option<Instant>) -> Result<T, Failure> {
    let left = deadline.map_or(Duration::MAX, |deadline| deadline.saturating_duration_since(Instant::now()));
    receiver.recv_timeout(left).map_err(|error| match error {
        RecvTimeoutError::Timeout => Failure::Timeout,
        RecvTimeoutError::Disconnected => Failure::Start(io::Error::other("the thread that reads it died")),
    })
}

/// Drains a stream of complaints and keeps its beginning.
fn first_words(mut stderr: ChildStderr) -> String {
    let mut kept = Vec::new();
    // Draining to the end keeps the program from blocking on a full pipe.
    let _ = stderr.by_ref().take(4096).read_to_end(&mut kept);
    let _ = io::copy(&mut stderr, &mut io::sink());
    String::from_utf8_lossy(&kept).into_owned()
}
