//! JSON Lines as they come: what cannot be read is counted, with its line, and the rest is used.

use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::replay::Failure;

/// A line that is left out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BadLine {
    /// Which one; the first is 1.
    pub line: usize,
    /// What is wrong with it.
    pub why: String,
}

/// Hands every line of a file to `accept`, and answers with those that are no JSON of this kind or that it refuses.
///
/// # Errors
///
/// When the file cannot be read.
pub(super) fn read_lines<T: DeserializeOwned>(
    path: &Path,
    mut accept: impl FnMut(T) -> Result<(), String>,
) -> Result<Vec<BadLine>, Failure> {
    let bytes = std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let mut bad = Vec::new();
    for (nth, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
        if line.trim_ascii().is_empty() {
            continue;
        }
        // The parser counts lines, too; to it each is the first.
        let wrong =
            |error: serde_json::Error| error.to_string().split(" at line 1 ").next().unwrap_or_default().to_owned();
        let read = serde_json::from_slice(line).map_err(wrong);
        if let Err(why) = read.and_then(&mut accept) {
            bad.push(BadLine { line: nth + 1, why });
        }
    }
    Ok(bad)
}
