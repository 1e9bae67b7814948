//! The committed corpora: a file for each target, with one input in each line.
//!
//! Inputs are written in hexadecimal and sorted, shortest first, so that a diff shows which inputs came and
//! which went. The fuzzer wants a file for each input: `cargo xtask fuzz` unpacks them into the target folder,
//! and `cargo xtask minimise` packs what is worth keeping.

use std::collections::BTreeSet;
use std::path::Path;
use std::{fs, io};

/// Reads the inputs of a corpus.
///
/// # Errors
/// If the file cannot be read, or a line is not hexadecimal.
pub fn read(corpus: &Path) -> io::Result<Vec<Vec<u8>>> {
    let text = fs::read_to_string(corpus)?;
    text.lines().map(|line| decode(line).ok_or_else(|| invalid(corpus, line))).collect()
}

/// Writes each input of a corpus into a file of its own.
///
/// # Errors
/// If the corpus cannot be read, or a file cannot be written.
pub fn unpack(corpus: &Path, folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    for (number, input) in read(corpus)?.iter().enumerate() {
        fs::write(folder.join(format!("committed-{number}")), input)?;
    }
    Ok(())
}

/// Makes a corpus of all files of a folder. Equal inputs are kept once, and empty ones are left out.
///
/// # Errors
/// If a file cannot be read, or the corpus cannot be written.
pub fn pack(folder: &Path, corpus: &Path) -> io::Result<()> {
    let mut inputs = BTreeSet::new();
    for file in fs::read_dir(folder)? {
        let input = fs::read(file?.path())?;
        inputs.insert((input.len(), input));
    }
    let lines = inputs.iter().filter(|(length, _)| *length > 0);
    fs::write(corpus, lines.map(|(_, input)| encode(input) + "\n").collect::<String>())
}

fn encode(input: &[u8]) -> String {
    input.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn decode(line: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> =
        line.chars().map(|digit| u8::try_from(digit.to_digit(16)?).ok()).collect();
    let (pairs, rest) = digits.as_deref()?.as_chunks();
    rest.is_empty().then(|| pairs.iter().map(|[high, low]| high << 4 | low).collect())
}

fn invalid(corpus: &Path, line: &str) -> io::Error {
    let error = format!("{} has a line that is not hexadecimal: {line:?}", corpus.display());
    io::Error::new(io::ErrorKind::InvalidData, error)
}
