//! The body of a request, and the JSON that it holds.

use std::future::poll_fn;
use std::pin::Pin;

use axum::body::{Body, HttpBody};
use serde_json::Value;
use tokio::time::timeout;

use crate::refusal::Refusal;
use crate::settings::Settings;

/// Most values in a body. Each takes some dozens of bytes of memory, but may be two bytes of the body.
const MOST_VALUES: usize = 100_000;

/// All bytes of a body.
///
/// # Errors
/// If they are too many, do not come in time, or break off.
pub(crate) async fn receive(mut body: Body, settings: &Settings) -> Result<Vec<u8>, Refusal> {
    let Settings { payload_limit, body_timeout, body_pause, .. } = *settings;
    let all = async {
        // As long as its head says, which is checked below.
        let length = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
        let mut bytes = Vec::with_capacity(length.min(payload_limit));
        loop {
            let frame = poll_fn(|context| Pin::new(&mut body).poll_frame(context));
            let frame = timeout(body_pause, frame).await.map_err(|_| {
                Refusal::too_slow(format!("nothing of the body arrived for {} s", body_pause.as_secs_f32()))
            })?;
            let Some(frame) = frame else { return Ok(bytes) };
            let frame = frame.map_err(|error| Refusal::broken(&error.to_string()))?;
            let more = frame.data_ref().map_or(&[][..], |data| &data[..]);
            if bytes.len() + more.len() > payload_limit {
                return Err(Refusal::too_large(payload_limit));
            }
            bytes.extend_from_slice(more);
        }
    };
    let slow =
        |_| Refusal::too_slow(format!("the body did not arrive within {} s", body_timeout.as_secs_f32()));
    timeout(body_timeout, all).await.unwrap_or_else(|late| Err(slow(late)))
}

/// The value that a body holds.
///
/// # Errors
/// If it is no JSON, or has more values than are taken.
pub(crate) fn parse(body: &[u8]) -> Result<Value, Refusal> {
    let values = most_values(body);
    if values > MOST_VALUES {
        let problem = format!("has {values} values, at most {MOST_VALUES} are taken");
        return Err(Refusal::field("body", &problem));
    }
    serde_json::from_slice(body).map_err(|error| Refusal::no_json(&error.to_string()))
}

/// No fewer values than JSON holds: one for each comma and each opening bracket outside of texts, and one more.
fn most_values(json: &[u8]) -> usize {
    let (mut values, mut in_text, mut escaped) = (1, false, false);
    for byte in json {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_text => escaped = true,
            b'"' => in_text = !in_text,
            b',' | b'[' | b'{' if !in_text => values += 1,
            _ => {}
        }
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_counted_outside_of_texts() {
        for (json, values) in [
            (r#""a""#, 1),
            ("[0,0,0]", 4),
            (r#"{"a": "[,\",{", "b": {"c": [1]}}"#, 5),
            (r#""\\",0"#, 2),
            ("", 1),
        ] {
            assert_eq!(most_values(json.as_bytes()), values, "{json}");
        }
        let zeros = |count: usize| format!("[{}0]", "0,".repeat(count - 1));
        let refusal = parse(zeros(MOST_VALUES).as_bytes()).unwrap_err();
        assert!(refusal.message.contains("100001 values"), "{}", refusal.message);
        assert!(parse(zeros(MOST_VALUES - 1).as_bytes()).is_ok());
    }
}
