//! Soups that were scored, kept on the disk: a search that was killed goes on without scoring one twice.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::files::hex;

/// The scores of a search so far.
pub struct Trials {
    path: PathBuf,
    log: File,
    /// What a score depends on besides weights.
    context: Value,
    known: HashMap<String, f64>,
    /// Keys that this search asked for, known before or not.
    asked: HashSet<String>,
    limit: usize,
}

/// A line of the log.
#[derive(Serialize, Deserialize)]
struct Line {
    key: String,
    weights: Vec<f64>,
    score: f64,
    /// The score's bits: decimal digits may lose the last of them.
    bits: String,
    tasks: BTreeMap<String, f64>,
}

impl Trials {
    /// Opens `trials.jsonl` in `folder`, or begins it. `context` is all that scores depend on besides weights; a search
    /// scores at most `limit` soups, those that are known included.
    ///
    /// # Errors
    /// If the log can't be read or written, or a line but the last is none of a log.
    pub fn open(folder: &Path, context: Value, limit: usize) -> Result<Self> {
        std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        let path = folder.join("trials.jsonl");
        let text = if path.exists() { std::fs::read(&path) } else { Ok(Vec::new()) };
        let text = text.with_context(|| path.display().to_string())?;
        // A kill may have cut the last line.
        let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let mut known = HashMap::new();
        for (at, line) in text[..whole].split(|byte| *byte == b'\n').enumerate() {
            if line.is_empty() {
                continue;
            }
            let advice =
                || format!("{}, line {}: no line of a search; remove the file", path.display(), at + 1);
            let line: Line = serde_json::from_slice(line).with_context(advice)?;
            let bits = u64::from_str_radix(&line.bits, 16).with_context(advice)?;
            known.insert(line.key, f64::from_bits(bits));
        }
        let log = OpenOptions::new().create(true).append(true).open(&path);
        let log = log.with_context(|| path.display().to_string())?;
        log.set_len(whole as u64).with_context(|| path.display().to_string())?;
        Ok(Trials { path, log, context, known, asked: HashSet::new(), limit })
    }

    /// The score of these weights, from the log or from `score`, which also says that of each task. `None` once the search
    /// has asked for as many as it may.
    ///
    /// # Errors
    /// If the log can't be written, or what `score` says.
    pub fn measure(
        &mut self,
        weights: &[f64],
        score: impl FnOnce() -> Result<(f64, BTreeMap<String, f64>)>,
    ) -> Result<Option<f64>> {
        let key = self.key(weights);
        if !self.asked.contains(&key) && self.asked.len() >= self.limit {
            return Ok(None);
        }
        self.asked.insert(key.clone());
        if let Some(score) = self.known.get(&key) {
            return Ok(Some(*score));
        }
        let (score, tasks) = score()?;
        let line = Line {
            key: key.clone(),
            weights: weights.to_vec(),
            score,
            bits: format!("{:016x}", score.to_bits()),
            tasks,
        };
        let text = serde_json::to_string(&line)? + "\n";
        self.log
            .write_all(text.as_bytes())
            .and_then(|()| self.log.sync_data())
            .with_context(|| format!("can't write {}; is there room on the disk?", self.path.display()))?;
        self.known.insert(key, score);
        Ok(Some(score))
    }

    /// Soups that this search asked for.
    pub fn asked(&self) -> usize {
        self.asked.len()
    }

    fn key(&self, weights: &[f64]) -> String {
        let bits: Vec<u64> = weights.iter().map(|weight| weight.to_bits()).collect();
        let mut hasher = Sha256::new();
        hasher.update(self.context.to_string());
        hasher.update(format!("{bits:?}"));
        hex(&hasher.finalize())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn measured(trials: &mut Trials, weights: &[f64], score: f64) -> (Option<f64>, bool) {
        let mut computed = false;
        let found = trials.measure(weights, || {
            computed = true;
            Ok((score, BTreeMap::from([("task".to_owned(), score)])))
        });
        (found.unwrap(), computed)
    }

    #[test]
    fn scores_survive_a_kill_to_the_last_bit() {
        let place = tempfile::tempdir().unwrap();
        let open = |context: Value| Trials::open(place.path(), context, 3).unwrap();
        let score = 0.1 + 0.2;
        let mut first = open(json!({"method": "exact"}));
        assert_eq!(measured(&mut first, &[0.5, 0.5], score), (Some(score), true));
        assert_eq!(measured(&mut first, &[1.0, 0.0], 0.7), (Some(0.7), true));
        drop(first);
        let path = place.path().join("trials.jsonl");
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, &whole[..whole.len() - 9]).unwrap();
        let mut second = open(json!({"method": "exact"}));
        assert_eq!(measured(&mut second, &[0.5, 0.5], 9.0), (Some(score), false));
        assert_eq!(measured(&mut second, &[1.0, 0.0], 0.7), (Some(0.7), true), "its line was cut");
        assert_eq!(std::fs::read(&path).unwrap(), whole);
        assert_eq!(measured(&mut second, &[0.0, 1.0], 0.2), (Some(0.2), true));
        assert_eq!(measured(&mut second, &[0.25, 0.75], 0.2), (None, false), "three were asked for");
        assert_eq!(measured(&mut second, &[0.0, 1.0], 0.3), (Some(0.2), false));
        assert_eq!(second.asked(), 3);
        let mut other = open(json!({"method": "ties"}));
        assert_eq!(measured(&mut other, &[0.5, 0.5], 0.4), (Some(0.4), true));
        std::fs::write(&path, "{}\n").unwrap();
        let error = Trials::open(place.path(), json!({}), 3).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains("trials.jsonl, line 1"), "{error}");
    }
}
