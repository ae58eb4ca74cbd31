//! Files of new layers that look as if they held a secret: whoever has the image has them.

use std::collections::BTreeSet;
use std::io::Read as _;

use longshore_build::Error as BuildError;
use longshore_oci::Digest;
use longshore_store::inspect::{FileKind, LayerFile};

use crate::Engine;
use crate::model::BuildEvent;

/// Bytes of a file that are looked at.
const LOOKED_AT: u64 = 64 << 10;
/// Files that are told of.
const TOLD: usize = 10;
/// Names of keys.
const KEYS: [&str; 4] = ["id_rsa", "id_dsa", "id_ecdsa", "id_ed25519"];
/// Ends of the names of keys.
const KEY_ENDS: [&str; 2] = [".pem", ".key"];
/// Parts of a variable's name by which its value is one that is not shown.
const NAMES: [&str; 6] = ["SECRET", "TOKEN", "PASSWORD", "PASSWD", "API_KEY", "APIKEY"];

impl Engine {
    /// Warns of files with a secret in them in the layers of `image` that are among `made`.
    pub(super) fn warn_of_secrets(
        &self,
        image: &Digest,
        made: &BTreeSet<Digest>,
        send: &(dyn Fn(BuildEvent) + Send + Sync),
    ) -> Result<(), BuildError> {
        let store = &self.inner.store;
        let mut found = Vec::new();
        for layer in store.layers_of(image)?.iter().filter(|layer| made.contains(&layer.chain)) {
            let mut paths = Vec::new();
            store.list_layer(image, layer.number, None, &mut |file: LayerFile| {
                let is_file = file.info.as_ref().is_some_and(|info| info.kind == FileKind::File);
                if is_file && is_suspect(&file.path) {
                    paths.push(file.path);
                }
                Ok(())
            })?;
            for path in paths {
                let mut text = Vec::new();
                let opened = store.open_in_image(image, &path, Some(layer.number))?;
                let read = opened.file.take(LOOKED_AT).read_to_end(&mut text);
                read.map_err(|e| BuildError::io("look for secrets", e))?;
                if let Some(what) = secret_in(&path, &text) {
                    found.push(format!("/{} has {what}", String::from_utf8_lossy(&path)));
                }
            }
        }
        for one in found.iter().take(TOLD) {
            send(BuildEvent::Warning(format!(
                "[Warning] SecretInLayer: {one}: whoever has the image has it; use RUN --mount=type=secret"
            )));
        }
        Ok(())
    }
}

fn name(path: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(path.rsplit(|b| *b == b'/').next().unwrap_or_default())
}

/// Whether a file is one to look into, by its name.
fn is_suspect(path: &[u8]) -> bool {
    let name = name(path);
    KEYS.contains(&&*name)
        || KEY_ENDS.iter().any(|end| name.ends_with(end))
        || is_settings(&name)
        || matches!(&*name, ".npmrc" | ".pypirc" | ".netrc" | ".git-credentials")
        || path.ends_with(b".aws/credentials")
        || path.ends_with(b".docker/config.json")
}

fn is_settings(name: &str) -> bool {
    name == ".env" || name.starts_with(".env.") && !name.ends_with("example") && !name.ends_with("sample")
}

/// What of a file's content is nobody else's, in words.
fn secret_in(path: &[u8], content: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(content);
    let name = name(path);
    let mut lines = text.lines();
    if lines.clone().any(|l| l.starts_with("-----BEGIN ") && l.contains("PRIVATE KEY")) {
        return Some("a private key".to_owned());
    }
    let found = match &*name {
        ".npmrc" => text.contains("_authToken=") || text.contains("_password="),
        ".pypirc" | ".netrc" => lines.any(|l| l.split_whitespace().any(|word| word == "password")),
        ".git-credentials" => text.contains("://"),
        "credentials" => text.contains("aws_secret_access_key"),
        "config.json" => text.contains("\"auth\""),
        name if is_settings(name) => {
            let variable = lines.find_map(|line| {
                let (variable, value) = line.trim().trim_start_matches("export ").split_once('=')?;
                let secret = NAMES.iter().any(|part| variable.to_ascii_uppercase().contains(part));
                (secret && !value.trim_matches(['"', '\'', ' ']).is_empty()).then(|| variable.to_owned())
            });
            return variable.map(|variable| format!("a value for {variable}"));
        }
        _ => false,
    };
    found.then(|| "a password or a token".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_with_secrets_are_told_from_others() {
        for (path, content, want) in [
            ("root/.ssh/id_rsa", "-----BEGIN OPENSSH PRIVATE KEY-----\nx", Some("a private key")),
            ("etc/tls/server.key", "-----BEGIN RSA PRIVATE KEY-----\n", Some("a private key")),
            ("etc/ssl/ca.pem", "-----BEGIN CERTIFICATE-----\n", None),
            ("app/.env", "A=1\nexport DB_PASSWORD='x'\n", Some("a value for DB_PASSWORD")),
            ("app/.env", "DB_PASSWORD=\nTOKENS\n", None),
            ("app/.env.example", "DB_PASSWORD=x", None),
            ("root/.npmrc", "//r/:_authToken=abc", Some("a password or a token")),
            ("root/.npmrc", "registry=https://r", None),
            ("root/.netrc", "machine a login b password c", Some("a password or a token")),
            ("root/.aws/credentials", "aws_secret_access_key = x", Some("a password or a token")),
            (
                "root/.docker/config.json",
                "{\"auths\":{\"r\":{\"auth\":\"eA==\"}}}",
                Some("a password or a token"),
            ),
            ("app/config.json", "{\"auth\":1}", None),
            ("app/readme", "-----BEGIN RSA PRIVATE KEY-----", None),
        ] {
            let path = path.as_bytes();
            let got = secret_in(path, content.as_bytes()).filter(|_| is_suspect(path));
            assert_eq!(got.as_deref(), want, "{}: {content}", String::from_utf8_lossy(path));
        }
    }
}
