//! Curves out of `metrics.jsonl`.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Map, Value};

use super::{RunCurves, StepRecord};

/// Reads the lines of a `metrics.jsonl` as curves, one for each stage, in order.
///
/// A line is an object with `step`, `loss`, `learning_rate`, `grad_norm` and, beside them or under
/// `stats`, `accuracy` and a `tau.<task>` for each task. `stage` names the run. A last line that
/// was cut off is left out.
///
/// # Errors
/// A file that can't be read, or the number of the line that is not such an object.
pub fn read_curves(path: &Path) -> Result<Vec<RunCurves>> {
    let text = fs::read_to_string(path).with_context(|| format!("can't read {}", path.display()))?;
    parse(&text).with_context(|| format!("{} is not a record of training", path.display()))
}

fn parse(text: &str) -> Result<Vec<RunCurves>> {
    let mut runs: Vec<RunCurves> = Vec::new();
    for (at, line) in text.split_inclusive('\n').enumerate() {
        let row: Map<String, Value> = match serde_json::from_str(line) {
            Ok(row) => row,
            Err(_) if line.trim().is_empty() || !line.ends_with('\n') => continue,
            Err(error) => return Err(error).with_context(|| format!("line {}", at + 1)),
        };
        let step = row.get("step").and_then(Value::as_u64);
        let step = step.with_context(|| format!("line {} has no whole number `step`", at + 1))?;
        let name = row.get("stage").and_then(Value::as_str).unwrap_or("training");
        if !runs.iter().any(|run| run.name == name) {
            runs.push(RunCurves { name: name.to_string(), steps: Vec::new() });
        }
        let run = runs.iter_mut().find(|run| run.name == name).expect("it was added");
        run.steps.push(record(step, &row));
    }
    Ok(runs)
}

fn record(step: u64, row: &Map<String, Value>) -> StepRecord {
    let stats = row.get("stats").and_then(Value::as_object);
    let number = |key: &str| row.get(key).or_else(|| stats?.get(key)).and_then(Value::as_f64);
    let all = row.iter().chain(stats.into_iter().flatten());
    StepRecord {
        step,
        // JSON has no NaN: it is written as null.
        loss: number("loss").unwrap_or(f64::NAN),
        learning_rate: number("learning_rate"),
        temperatures: all
            .filter_map(|(key, value)| Some((key.strip_prefix("tau.")?.to_string(), value.as_f64()?)))
            .collect(),
        accuracy: number("accuracy"),
        grad_norm: number("grad_norm"),
        seconds: number("seconds"),
        samples: number("samples"),
        tokens: number("tokens"),
        stall_seconds: number("stall_seconds"),
        peak_memory_bytes: number("peak_memory_bytes"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_become_curves() {
        let text = concat!(
            r#"{"stage":"one","step":1,"loss":2.5,"learning_rate":1e-4,"grad_norm":3.0,"seconds":2.0,"tau.image_qa":0.05,"accuracy":0.25}"#,
            "\n\n",
            r#"{"stage":"one","step":2,"loss":null,"stats":{"tau.image_qa":0.04,"accuracy":0.5}}"#,
            "\n",
            r#"{"stage":"two","step":1,"loss":1.0}"#,
            "\n",
            r#"{"stage":"two","st"#,
        );
        let runs = parse(text).unwrap();
        assert_eq!(
            runs.iter().map(|run| (run.name.as_str(), run.steps.len())).collect::<Vec<_>>(),
            [("one", 2), ("two", 1)]
        );
        assert_eq!(
            runs[0].steps[0],
            StepRecord {
                step: 1,
                loss: 2.5,
                learning_rate: Some(1e-4),
                temperatures: vec![("image_qa".into(), 0.05)],
                accuracy: Some(0.25),
                grad_norm: Some(3.0),
                seconds: Some(2.0),
                ..StepRecord::default()
            }
        );
        let second = &runs[0].steps[1];
        assert!(second.loss.is_nan() && second.grad_norm.is_none());
        assert_eq!(
            (second.accuracy, &second.temperatures[..]),
            (Some(0.5), &[("image_qa".to_string(), 0.04)][..])
        );
    }

    #[test]
    fn broken_lines_are_named() {
        assert!(format!("{:#}", parse("{\"step\":1}\nnonsense\n").unwrap_err()).contains("line 2"));
        assert!(
            format!("{:#}", parse("{\"loss\":1}\n").unwrap_err())
                .contains("line 1 has no whole number `step`")
        );
        assert!(
            format!("{:#}", read_curves(Path::new("absent/metrics.jsonl")).unwrap_err()).contains("absent")
        );
    }
}
