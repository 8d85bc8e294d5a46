//! Progress: bars on a terminal, plain lines elsewhere.

use std::io::IsTerminal;
use std::path::Path;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use rzen_train::{Observer, StepRecord};

/// Time between two plain lines.
const LINE_EVERY: Duration = Duration::from_secs(15);

/// How far a long piece of work has come.
pub struct Progress {
    bar: Option<ProgressBar>,
    label: String,
}

impl Progress {
    /// Progress over a number of tasks.
    pub fn tasks(label: &str, count: usize) -> Self {
        let bar = terminal().then(|| bar(label, count, "{prefix} {bar:30} {pos}/{len} {msg}"));
        Progress { bar, label: label.to_owned() }
    }

    /// Says what is being worked on.
    pub fn message(&self, name: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(name.to_owned());
        }
    }

    /// Says how much of the present task is done.
    pub fn part(&self, done: usize, all: usize) {
        if let Some(bar) = &self.bar {
            let name = bar.message();
            let name = name.split(' ').next().unwrap_or_default();
            bar.set_message(format!("{name} {done}/{all}"));
        }
    }

    /// One task is done.
    pub fn advance(&self) {
        if let Some(bar) = &self.bar {
            bar.inc(1);
        }
    }

    /// All is done.
    pub fn finish(&self) {
        match &self.bar {
            Some(bar) => bar.finish_and_clear(),
            None => eprintln!("{}: done", self.label),
        }
    }
}

fn terminal() -> bool {
    std::io::stderr().is_terminal()
}

fn bar(label: &str, count: usize, template: &str) -> ProgressBar {
    let style = ProgressStyle::with_template(template).expect("the template is valid");
    ProgressBar::new(count as u64).with_style(style).with_prefix(label.to_owned())
}

/// Watches a stage of training.
pub struct StageProgress {
    bar: Option<ProgressBar>,
    started: Instant,
    last_line: Option<Instant>,
    first_step: usize,
}

impl StageProgress {
    /// Watches from `first_step` to `steps`.
    pub fn new(stage: &str, first_step: usize, steps: usize) -> Self {
        let bar = terminal().then(|| {
            let bar = bar(stage, steps, "{prefix} {bar:30} {pos}/{len} {msg} eta {eta}");
            bar.set_position(first_step as u64);
            bar.reset_eta();
            bar
        });
        StageProgress { bar, started: Instant::now(), last_line: None, first_step }
    }

    /// The stage is over.
    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    fn eta(&self, record: &StepRecord) -> Duration {
        let done = record.step.saturating_sub(self.first_step).max(1);
        self.started.elapsed().mul_f64((record.steps - record.step) as f64 / done as f64)
    }
}

impl Observer for StageProgress {
    fn step(&mut self, record: &StepRecord) {
        let accuracy = record.stats.get("accuracy").copied().unwrap_or(f32::NAN);
        let text = format!(
            "loss {:.3} accuracy {:.2} {:.1} samples/s",
            record.loss, accuracy, record.samples_per_second
        );
        if let Some(bar) = &self.bar {
            bar.set_position(record.step as u64);
            bar.set_message(text);
            return;
        }
        let due = self.last_line.is_none_or(|last| last.elapsed() >= LINE_EVERY);
        if due || record.step == record.steps {
            self.last_line = Some(Instant::now());
            let eta = self.eta(record).as_secs();
            eprintln!(
                "{} {}/{} {text} eta {}:{:02}",
                record.stage,
                record.step,
                record.steps,
                eta / 60,
                eta % 60
            );
        }
    }

    fn checkpoint(&mut self, _step: usize, folder: &Path) {
        if let Some(bar) = &self.bar {
            bar.suspend(|| eprintln!("checkpoint {}", folder.display()));
        }
    }
}
