mod attacks;
mod expand;
mod golden;
mod mounts;
mod parse;
mod places;
mod stages;

use super::{Dockerfile, Instruction, Kind, parse as parse_bytes};

/// A file that is right.
fn file(text: &str) -> Dockerfile {
    match parse_bytes(text.as_bytes()) {
        Ok(file) => file,
        Err(e) => panic!("{e}\n{}", e.render("Dockerfile", text.as_bytes())),
    }
}

/// Its only instruction.
fn one(text: &str) -> Instruction {
    let mut file = file(text);
    assert_eq!(file.instructions.len(), 1, "{text}");
    file.instructions.remove(0)
}

fn kind(text: &str) -> Kind {
    one(text).kind
}

/// Why a file is wrong.
fn wrong(text: &str) -> String {
    match parse_bytes(text.as_bytes()) {
        Ok(file) => panic!("{text}: {file:?}"),
        Err(e) => e.to_string(),
    }
}

fn strings(items: &[&str]) -> Vec<String> {
    items.iter().map(|s| (*s).to_owned()).collect()
}
