//! Progress: bars on a terminal, plain lines elsewhere.

use std::cell::{Cell, RefCell};
use std::io::IsTerminal;
use std::path::Path;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use rzen_train::{Observer, StepRecord};

use crate::tensorboard::EventFile;

/// Time between two plain lines.
const LINE_EVERY: Duration = Duration::from_secs(15);

/// How far a long piece of work has come.
pub struct Progress {
    bar: Option<ProgressBar>,
    work: Work,
    last_line: Cell<Instant>,
}

/// What a plain line is made from.
struct Work {
    label: String,
    count: usize,
    done: Cell<usize>,
    name: RefCell<String>,
}

impl Work {
    /// `eval 2/16: pictures 120/400`.
    fn line(&self, done: usize, all: usize) -> String {
        let (label, name) = (&self.label, self.name.borrow());
        format!("{label} {}/{}: {name} {done}/{all}", self.done.get(), self.count)
    }
}

impl Progress {
    /// Progress over a number of tasks.
    pub fn tasks(label: &str, count: usize) -> Self {
        let bar = terminal().then(|| bar(label, count, "{prefix} {bar:30} {pos}/{len} {msg}"));
        let work = Work { label: label.to_owned(), count, done: Cell::new(0), name: RefCell::default() };
        Progress { bar, work, last_line: Cell::new(Instant::now()) }
    }

    /// Says what is being worked on.
    pub fn message(&self, name: &str) {
        name.clone_into(&mut self.work.name.borrow_mut());
        if let Some(bar) = &self.bar {
            bar.set_message(name.to_owned());
        }
    }

    /// Says how much of the present task is done.
    pub fn part(&self, done: usize, all: usize) {
        match &self.bar {
            Some(bar) => bar.set_message(format!("{} {done}/{all}", self.work.name.borrow())),
            None if self.last_line.get().elapsed() >= LINE_EVERY => {
                self.last_line.set(Instant::now());
                eprintln!("{}", self.work.line(done, all));
            }
            None => {}
        }
    }

    /// One task is done.
    pub fn advance(&self) {
        self.work.done.set(self.work.done.get() + 1);
        if let Some(bar) = &self.bar {
            bar.inc(1);
        }
    }

    /// All is done.
    pub fn finish(&self) {
        match &self.bar {
            Some(bar) => bar.finish_and_clear(),
            None => eprintln!("{}: done", self.work.label),
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
    events: EventFile,
    started: Instant,
    last_line: Option<Instant>,
    first_step: usize,
}

impl StageProgress {
    /// Watches from `first_step` to `steps`; `events` gets every step too.
    pub fn new(stage: &str, first_step: usize, steps: usize, events: EventFile) -> Self {
        let bar = terminal().then(|| {
            let bar = bar(stage, steps, "{prefix} {bar:16} {pos}/{len} eta {eta} {wide_msg}");
            bar.set_position(first_step as u64);
            bar.reset_eta();
            bar
        });
        StageProgress { bar, events, started: Instant::now(), last_line: None, first_step }
    }

    /// The stage is over.
    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

impl Observer for StageProgress {
    fn step(&mut self, record: &StepRecord) {
        self.events.step(record);
        if let Some(bar) = &self.bar {
            bar.set_position(record.step as u64);
            bar.set_message(numbers(record));
            return;
        }
        let due = self.last_line.is_none_or(|last| last.elapsed() >= LINE_EVERY);
        if due || record.step == record.steps {
            self.last_line = Some(Instant::now());
            eprintln!("{}", step_line(record, time_left(record, self.first_step, self.started.elapsed())));
        }
    }

    fn checkpoint(&mut self, _step: usize, folder: &Path) {
        let line = format!("checkpoint {}", folder.display());
        match &self.bar {
            Some(bar) => bar.suspend(|| eprintln!("{line}")),
            None => eprintln!("{line}"),
        }
    }
}

/// `loss 2.079 accuracy 0.50 tau image_qa 0.020 12.3 samples/s stall 4 % memory 1.2 GB`.
fn numbers(record: &StepRecord) -> String {
    let accuracy =
        record.stats.get("accuracy").map_or(String::new(), |share| format!(" accuracy {share:.2}"));
    let stall = 100.0 * record.stall_seconds / record.seconds.max(1e-9);
    let memory = record
        .peak_memory_bytes
        .map_or(String::new(), |bytes| format!(" memory {:.1} GB", bytes as f64 / 1e9));
    format!(
        "loss {:.3}{accuracy}{} {:.1} samples/s stall {stall:.0} %{memory}",
        record.loss,
        temperatures(record),
        record.samples_per_second
    )
}

/// The temperature of each task, or where they are many the lowest and the highest.
fn temperatures(record: &StepRecord) -> String {
    let taus = || record.stats.iter().filter_map(|(name, tau)| Some((name.strip_prefix("tau.")?, *tau)));
    match taus().count() {
        0 => String::new(),
        1..=TASKS_IN_A_LINE => {
            let each = taus().map(|(task, tau)| format!(" {task} {tau:.3}"));
            format!(" tau{}", each.collect::<String>())
        }
        tasks => {
            let low = taus().map(|(_, tau)| tau).fold(f32::INFINITY, f32::min);
            let high = taus().map(|(_, tau)| tau).fold(f32::NEG_INFINITY, f32::max);
            format!(" tau {low:.3} to {high:.3} ({tasks} tasks)")
        }
    }
}

/// Temperatures that stand there each by itself: those of the paper's seven tasks do.
const TASKS_IN_A_LINE: usize = 7;

/// `stage_1 40/200 loss 2.079 … eta 1:05`.
fn step_line(record: &StepRecord, left: Duration) -> String {
    let numbers = numbers(record);
    format!("{} {}/{} {numbers} eta {}", record.stage, record.step, record.steps, clock(left))
}

/// What the steps to come take if they go on as those since `first_step`.
fn time_left(record: &StepRecord, first_step: usize, elapsed: Duration) -> Duration {
    let done = record.step.saturating_sub(first_step).max(1);
    elapsed.mul_f64(record.steps.saturating_sub(record.step) as f64 / done as f64)
}

/// `0:07`, `12:30`, `3:05:00`.
fn clock(time: Duration) -> String {
    let (hours, minutes, seconds) = (time.as_secs() / 3600, time.as_secs() / 60 % 60, time.as_secs() % 60);
    match hours {
        0 => format!("{minutes}:{seconds:02}"),
        hours => format!("{hours}:{minutes:02}:{seconds:02}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(step: usize) -> StepRecord {
        StepRecord {
            stage: "stage_1".into(),
            step,
            steps: 200,
            loss: 2.0794,
            learning_rate: 1e-4,
            temperature_learning_rate: 1e-4,
            grad_norm: 1.0,
            samples: 16,
            tokens: 160,
            samples_per_second: 12.34,
            tokens_per_second: 123.4,
            seconds: 1.25,
            stall_seconds: 0.05,
            peak_memory_bytes: Some(1_230_000_000),
            label: String::new(),
            stats: [("accuracy".to_owned(), 0.5), ("tau.image_qa".to_owned(), 0.02)].into(),
        }
    }

    #[test]
    fn lines_of_a_stage_say_speed_and_time_left() {
        let line = step_line(&record(40), Duration::from_secs(65));
        assert_eq!(
            line,
            "stage_1 40/200 loss 2.079 accuracy 0.50 tau image_qa 0.020 12.3 samples/s stall 4 % memory 1.2 GB eta 1:05"
        );
        let silent = StepRecord { stats: Default::default(), peak_memory_bytes: None, ..record(40) };
        let line = step_line(&silent, Duration::ZERO);
        assert_eq!(line, "stage_1 40/200 loss 2.079 12.3 samples/s stall 4 % eta 0:00");
    }

    #[test]
    fn many_temperatures_are_told_as_a_range() {
        let of = |tasks: u8| {
            let stats = (1..=tasks).map(|i| (format!("tau.task_{i}"), f32::from(i) / 100.0));
            temperatures(&StepRecord { stats: stats.collect(), ..record(1) })
        };
        assert_eq!(of(8), " tau 0.010 to 0.080 (8 tasks)");
        assert!(of(7).starts_with(" tau task_1 0.010 task_2 0.020") && of(7).ends_with(" task_7 0.070"));
    }

    #[test]
    fn time_left_counts_from_where_the_run_went_on() {
        let after = |step, first| time_left(&record(step), first, Duration::from_secs(30)).as_secs();
        assert_eq!((after(50, 0), after(50, 20), after(200, 20), after(20, 20)), (90, 150, 0, 5400));
        let clocks = [7, 750, 11100].map(|seconds| clock(Duration::from_secs(seconds)));
        assert_eq!(clocks, ["0:07", "12:30", "3:05:00"]);
    }

    #[test]
    fn lines_of_other_work_say_where_it_stands() {
        let progress = Progress::tasks("measure soup", 16);
        progress.message("pictures");
        progress.advance();
        progress.message("page lists");
        assert_eq!(progress.work.line(120, 400), "measure soup 1/16: page lists 120/400");
    }
}
