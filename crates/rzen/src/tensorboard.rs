//! Scalars of training as TensorBoard reads them: TFRecord frames around protobuf messages `Event`
//! (tensorflow `core/lib/io/record_writer.h`, `core/util/event.proto`, `core/framework/summary.proto`).

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use rzen_train::StepRecord;

/// How the names of event files begin.
const NAME: &str = "events.out.tfevents.";

/// An event file of a stage, `events.out.tfevents.SECONDS.rzen`; a stage that goes on begins another.
pub struct EventFile {
    path: PathBuf,
    /// `None` once a write has failed.
    file: Option<File>,
}

impl EventFile {
    /// Begins a file in `folder`. Where there are others, or `first_step` steps are done, TensorBoard is told to forget all later
    /// ones: they are computed again.
    ///
    /// # Errors
    /// If the file can't be written.
    pub fn create(folder: &Path, first_step: usize) -> io::Result<Self> {
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
        // Sorted by name, the files are in order of time.
        let path = folder.join(format!("{NAME}{seconds:010}.rzen"));
        let mut others = fs::read_dir(folder)?.flatten();
        let has_others =
            others.any(|other| other.file_name().as_encoded_bytes().starts_with(NAME.as_bytes()));
        let file = OpenOptions::new().create(true).append(true).open(&path)?;
        let mut events = EventFile { path, file: Some(file) };
        events.append(&event(0, &string(3, b"brain.Event:2")))?;
        if first_step > 0 || has_others {
            // SessionLog with `status` = START: events from this step on are purged.
            events.append(&event(first_step as u64 + 1, &string(7, &integer(1, 1))))?;
        }
        Ok(events)
    }

    /// Adds the scalars of a step. A write that fails is told once and ends the file: `metrics.jsonl` is the record.
    pub fn step(&mut self, record: &StepRecord) {
        let values: Vec<u8> = scalars(record).iter().flat_map(|(tag, value)| scalar(tag, *value)).collect();
        if let Err(error) = self.append(&event(record.step as u64, &string(5, &values))) {
            eprintln!("{}: {error}; no more events are written", self.path.display());
            self.file = None;
        }
    }

    fn append(&mut self, message: &[u8]) -> io::Result<()> {
        match &mut self.file {
            // One write, so that a reader sees whole records.
            Some(file) => file.write_all(&frame(message)),
            None => Ok(()),
        }
    }
}

fn scalars(record: &StepRecord) -> Vec<(String, f32)> {
    let mut scalars = vec![
        ("loss".to_owned(), record.loss),
        ("learning_rate".to_owned(), record.learning_rate as f32),
        ("temperature_learning_rate".to_owned(), record.temperature_learning_rate as f32),
        ("grad_norm".to_owned(), record.grad_norm as f32),
        ("speed/samples_per_second".to_owned(), record.samples_per_second as f32),
        ("speed/tokens_per_second".to_owned(), record.tokens_per_second as f32),
        ("speed/stall_share".to_owned(), (record.stall_seconds / record.seconds.max(1e-9)) as f32),
    ];
    scalars.extend(
        record.peak_memory_bytes.map(|bytes| ("speed/peak_memory_gb".to_owned(), bytes as f32 / 1e9)),
    );
    scalars.extend(record.stats.iter().map(|(name, value)| (name.replacen("tau.", "tau/", 1), *value)));
    scalars
}

/// Length, its checksum, the message, its checksum.
fn frame(message: &[u8]) -> Vec<u8> {
    let length = (message.len() as u64).to_le_bytes();
    [&length[..], &masked(&length), message, &masked(message)].concat()
}

/// The CRC32C that TFRecord wants.
fn masked(bytes: &[u8]) -> [u8; 4] {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8).to_le_bytes()
}

/// `Event`: `wall_time` = 1, `step` = 2, and what it tells.
fn event(step: u64, what: &[u8]) -> Vec<u8> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64());
    [&[1 << 3 | 1][..], &now.to_le_bytes(), &integer(2, step), what].concat()
}

/// A `Value` of a `Summary`: `tag` = 1, `simple_value` = 2.
fn scalar(tag: &str, value: f32) -> Vec<u8> {
    string(1, &[&string(1, tag.as_bytes())[..], &[2 << 3 | 5], &value.to_le_bytes()].concat())
}

/// A field of bytes: a string or a message.
fn string(field: u64, bytes: &[u8]) -> Vec<u8> {
    [&varint(field << 3 | 2)[..], &varint(bytes.len() as u64), bytes].concat()
}

fn integer(field: u64, value: u64) -> Vec<u8> {
    [varint(field << 3), varint(value)].concat()
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    /// CRC32C bit by bit (RFC 3720, reflected polynomial 82F63B78).
    fn crc(bytes: &[u8]) -> u32 {
        !bytes.iter().fold(!0_u32, |crc, byte| {
            (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0x82f6_3b78 * (crc & 1)))
        })
    }

    fn take<'a>(bytes: &mut &'a [u8], count: usize) -> &'a [u8] {
        let (head, tail) = bytes.split_at(count);
        *bytes = tail;
        head
    }

    fn number(bytes: &mut &[u8]) -> u64 {
        let mut value = 0;
        for shift in (0..).step_by(7) {
            let byte = take(bytes, 1)[0];
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                break;
            }
        }
        value
    }

    /// The fields of a message: number, and its bytes as they stand (a varint as 8 bytes).
    fn fields(mut bytes: &[u8]) -> Vec<(u64, Vec<u8>)> {
        let mut found = Vec::new();
        while !bytes.is_empty() {
            let key = number(&mut bytes);
            let value = match key & 7 {
                0 => number(&mut bytes).to_le_bytes().to_vec(),
                1 => take(&mut bytes, 8).to_vec(),
                2 => {
                    let length = number(&mut bytes) as usize;
                    take(&mut bytes, length).to_vec()
                }
                5 => take(&mut bytes, 4).to_vec(),
                other => panic!("wire type {other}"),
            };
            found.push((key >> 3, value));
        }
        found
    }

    fn records(mut bytes: &[u8]) -> Vec<Vec<(u64, Vec<u8>)>> {
        let check = |data: &[u8], sum: &[u8]| {
            let unmasked =
                u32::from_le_bytes(sum.try_into().unwrap()).wrapping_sub(0xa282_ead8).rotate_left(15);
            assert_eq!(unmasked, crc(data));
        };
        let mut found = Vec::new();
        while !bytes.is_empty() {
            let length = take(&mut bytes, 8);
            check(length, take(&mut bytes, 4));
            let message = take(&mut bytes, u64::from_le_bytes(length.try_into().unwrap()) as usize);
            check(message, take(&mut bytes, 4));
            found.push(fields(message));
        }
        found
    }

    fn record(step: usize) -> StepRecord {
        StepRecord {
            stage: "one".into(),
            step,
            steps: 500,
            loss: 1.5,
            learning_rate: 1e-4,
            temperature_learning_rate: 1e-3,
            grad_norm: 2.0,
            samples: 8,
            tokens: 80,
            samples_per_second: 4.0,
            tokens_per_second: 40.0,
            seconds: 2.0,
            stall_seconds: 0.5,
            peak_memory_bytes: None,
            label: "set".into(),
            stats: [("tau.image_qa".to_owned(), 0.05), ("accuracy".to_owned(), 0.25)].into(),
        }
    }

    fn step_of(event: &[(u64, Vec<u8>)]) -> u64 {
        u64::from_le_bytes(event[1].1[..].try_into().unwrap())
    }

    #[test]
    fn what_was_written_is_read_back() {
        assert_eq!(crc(b"123456789"), 0xe306_9283);
        let folder = tempfile::tempdir().unwrap();
        let mut events = EventFile::create(folder.path(), 299).unwrap();
        events.step(&record(300));
        let found = records(&std::fs::read(&events.path).unwrap());
        assert_eq!(found.len(), 3);
        assert_eq!((found[0][2].0, &found[0][2].1[..]), (3, &b"brain.Event:2"[..]));
        // The steps from 300 on are to be forgotten.
        assert_eq!((step_of(&found[1]), found[1][2].0), (300, 7));
        assert_eq!(fields(&found[1][2].1), [(1, 1_u64.to_le_bytes().to_vec())]);
        assert_eq!((step_of(&found[2]), found[2][2].0), (300, 5));
        let scalars = fields(&found[2][2].1).into_iter().map(|(field, value)| {
            let value = fields(&value);
            assert_eq!((field, value[0].0, value[1].0), (1, 1, 2));
            let tag = String::from_utf8(value[0].1.clone()).unwrap();
            (tag, f32::from_le_bytes(value[1].1[..].try_into().unwrap()))
        });
        let scalars: Vec<(String, f32)> = scalars.collect();
        for (tag, value) in [
            ("loss", 1.5),
            ("grad_norm", 2.0),
            ("tau/image_qa", 0.05),
            ("accuracy", 0.25),
            ("speed/stall_share", 0.25),
            ("speed/samples_per_second", 4.0),
        ] {
            assert!(scalars.contains(&(tag.to_owned(), value)), "{tag}: {scalars:?}");
        }
    }

    #[test]
    fn a_run_from_its_start_purges_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let events = EventFile::create(folder.path(), 0).unwrap();
        assert_eq!(records(&std::fs::read(&events.path).unwrap()).len(), 1);
    }

    #[test]
    fn a_run_that_begins_anew_purges_what_a_killed_one_had_written() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("events.out.tfevents.0000000001.rzen"), "").unwrap();
        let events = EventFile::create(folder.path(), 0).unwrap();
        let found = records(&std::fs::read(&events.path).unwrap());
        assert_eq!((found.len(), step_of(&found[1]), found[1][2].0), (2, 1, 7));
    }
}
