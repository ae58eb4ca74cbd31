//! Files of variables and labels.

use std::fs;

use crate::error::{Failure, Result};

/// Variables of files, then those given one by one.
pub(crate) fn variables(files: &[String], given: &[String]) -> Result<Vec<String>> {
    let mut all = Vec::new();
    for file in files {
        for line in lines(file)? {
            // A name alone takes this program's value, if it has one.
            all.extend(if line.contains('=') { Some(line) } else { own(&line) });
        }
    }
    // A name alone that has no value here takes the variable away from the container.
    all.extend(given.iter().map(|e| if e.contains('=') { e.clone() } else { own(e).unwrap_or(e.clone()) }));
    Ok(all)
}

fn own(name: &str) -> Option<String> {
    std::env::var(name).ok().map(|v| format!("{name}={v}"))
}

/// Labels of files, then those given one by one.
pub(crate) fn labels(files: &[String], given: &[String]) -> Result<Vec<String>> {
    let mut all = Vec::new();
    for file in files {
        // A name alone says nothing, as for docker.
        all.extend(lines(file)?.into_iter().filter(|l| l.contains('=')));
    }
    all.extend(given.iter().cloned());
    Ok(all)
}

/// The lines of a file, without comments.
fn lines(file: &str) -> Result<Vec<String>> {
    let bytes =
        fs::read(file).map_err(|e| Failure::new(format!("open {file}: {}", crate::error::words(&e))))?;
    parse(&bytes).map_err(|e| Failure::new(format!("invalid env file ({file}): {e}")))
}

fn parse(bytes: &[u8]) -> std::result::Result<Vec<String>, String> {
    let bytes = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(bytes);
    let mut out = Vec::new();
    for (i, line) in bytes.split(|b| *b == b'\n').enumerate() {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let line = std::str::from_utf8(line)
            .map_err(|_| format!("invalid utf8 bytes at line {}: {line:?}", i + 1))?;
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let name = line.split('=').next().unwrap_or_default();
        if name.is_empty() {
            return Err(format!("no variable name on line '{line}'"));
        }
        if name.contains(char::is_whitespace) {
            return Err(format!("variable '{name}' contains whitespaces"));
        }
        out.push(line.to_owned());
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_read_as_docker_reads_them() {
        assert_eq!(
            parse(b"\xef\xbb\xbfA=1\r\n# x\n\n  B= two # no comment\nC\n").unwrap(),
            ["A=1", "B= two # no comment", "C"]
        );
        assert_eq!(parse(b"=x").unwrap_err(), "no variable name on line '=x'");
        assert_eq!(parse(b"a b=x").unwrap_err(), "variable 'a b' contains whitespaces");
    }

    #[test]
    fn a_name_alone_is_looked_up() {
        let path = std::env::var("PATH").unwrap();
        let given = ["PATH".to_owned(), "NOT_SET_ANYWHERE".to_owned()];
        assert_eq!(variables(&[], &given).unwrap(), [format!("PATH={path}"), "NOT_SET_ANYWHERE".to_owned()]);
    }
}
