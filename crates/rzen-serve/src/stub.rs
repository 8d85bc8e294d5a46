//! A model for tests, which says when it begins a batch and waits to be told to go on.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use rzen_core::{Item, Part};

use super::{ReadError, ServedModel};

/// Gives texts vectors by their letters and pictures by their bytes. Texts that begin with `bad` can't be read, `fail` and `panic` lose
/// the batch, `nan`, `long` and `short` give vectors that must not leave.
pub struct Stub {
    held: Option<Mutex<Held>>,
    batches: Arc<Mutex<Vec<Vec<String>>>>,
}

struct Held {
    began: Sender<Vec<String>>,
    go: Receiver<()>,
}

/// What holds a [`Stub`].
pub struct Hold {
    /// Gives the texts of each batch when it begins.
    pub began: Receiver<Vec<String>>,
    /// Lets one batch go on; when it is dropped, all of them.
    pub go: Sender<()>,
}

impl Stub {
    /// A model that computes at once.
    #[allow(dead_code)]
    pub fn free() -> Self {
        Stub { held: None, batches: Arc::default() }
    }

    /// A model that is held at each batch but those of the start.
    pub fn held() -> (Self, Hold) {
        let ((began, seen), (go, wait)) = (channel(), channel());
        let held = Some(Mutex::new(Held { began, go: wait }));
        (Stub { held, batches: Arc::default() }, Hold { began: seen, go })
    }

    /// The texts of all batches after the start.
    pub fn batches(&self) -> Arc<Mutex<Vec<Vec<String>>>> {
        self.batches.clone()
    }
}

/// The vector of a text.
pub fn vector(text: &str) -> Vec<f32> {
    match text {
        _ if text.starts_with("nan") => vec![f32::NAN, 0.0],
        _ if text.starts_with("long") => vec![1.0, 1.0],
        _ if text.starts_with("short") => vec![1.0],
        _ => {
            let angle = text.bytes().fold(0.0, |sum: f32, byte| (sum * 3.7 + f32::from(byte)) % 6.0);
            vec![angle.cos(), angle.sin()]
        }
    }
}

impl ServedModel for Stub {
    type Read = String;

    fn dim(&self) -> usize {
        2
    }

    fn read(&self, item: &Item) -> Result<String, ReadError> {
        let part = |part: &Part| match part {
            Part::Text(text) => text.clone(),
            Part::Image(path) => {
                let bytes = std::fs::read(path).unwrap();
                format!(
                    "{} bytes, {}",
                    bytes.len(),
                    bytes.iter().map(|byte| usize::from(*byte)).sum::<usize>()
                )
            }
            other => format!("{other:?}"),
        };
        let text: String = item.instruction.iter().cloned().chain(item.content.iter().map(part)).collect();
        let file = item.content.iter().flat_map(|part| part.files("".as_ref())).next();
        match text {
            _ if text.starts_with("bad") => Err(ReadError::Item(format!("`{text}` can't be read"))),
            _ if text.contains("6 bytes") => {
                Err(ReadError::Media(format!("`{}` is broken [mov @ 0x55aa]", file.unwrap().display())))
            }
            _ if text.starts_with("disk") => Err(ReadError::Server("/dev/sda is on fire".into())),
            text => Ok(text),
        }
    }

    fn tokens(&self, read: &String) -> usize {
        read.len()
    }

    fn embed(&self, items: &[String]) -> Result<Vec<Vec<f32>>, String> {
        let is_probe = items.iter().any(|item| item.starts_with("a small boat") || item.contains(" bytes, "));
        if !is_probe {
            if let Some(held) = &self.held {
                let held = held.lock().unwrap();
                let _ = held.began.send(items.to_vec());
                let _ = held.go.recv();
            }
            self.batches.lock().unwrap().push(items.to_vec());
        }
        assert!(!items.iter().any(|item| item.starts_with("panic")), "a stub that panics");
        match items.iter().find(|item| item.starts_with("fail")) {
            Some(item) => Err(format!("`{item}`")),
            None => Ok(items.iter().map(|item| vector(item)).collect()),
        }
    }
}
