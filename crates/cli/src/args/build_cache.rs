//! Where a build takes its cache from and where it puts it: `--cache-from` and `--cache-to`.

use longshore_oci::Digest;

use super::csv;
use crate::flags::values;

/// What is not there yet.
const LATER: [&str; 3] = ["gha", "s3", "azblob"];

/// A value of `--cache-from`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum From {
    Registry(String),
    /// A name alone: a cache, or an image that may be here already.
    Image(String),
    Local {
        dir: String,
        tag: String,
        digest: Option<String>,
    },
}

/// A value of `--cache-to`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct To {
    pub(crate) place: Place,
    pub(crate) max: bool,
    pub(crate) mounts: bool,
    pub(crate) ignore_error: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Registry(String),
    Local { dir: String, tag: String },
    Inline,
}

/// `key=value` fields, each taken once.
struct Fields {
    kind: String,
    pairs: Vec<(String, String)>,
}

impl Fields {
    fn read(fields: &[String]) -> Result<Self, String> {
        let mut out = Self { kind: String::new(), pairs: Vec::new() };
        for field in fields {
            let (key, value) =
                field.split_once('=').ok_or_else(|| format!("invalid value {field}: want key=value"))?;
            let key = key.trim().to_ascii_lowercase();
            match key.as_str() {
                "type" => value.clone_into(&mut out.kind),
                _ => out.pairs.push((key, value.to_owned())),
            }
        }
        match out.kind.as_str() {
            "" => Err("type is required: type=registry or type=local".into()),
            kind if LATER.contains(&kind) => Err(format!("type={kind} is not implemented yet")),
            _ => Ok(out),
        }
    }

    fn take(&mut self, name: &str) -> Option<String> {
        let at = self.pairs.iter().rposition(|(key, _)| key == name)?;
        let value = self.pairs.remove(at).1;
        self.pairs.retain(|(key, _)| key != name);
        Some(value)
    }

    fn needed(&mut self, name: &str) -> Result<String, String> {
        let value = self.take(name).filter(|value| !value.is_empty());
        value.ok_or_else(|| format!("type={} needs {name}", self.kind))
    }

    fn truth(&mut self, name: &str) -> Result<Option<bool>, String> {
        let Some(value) = self.take(name) else { return Ok(None) };
        let truth = values::truth(&value);
        truth.map(Some).ok_or_else(|| format!("{name}={value} is neither true nor false"))
    }

    fn end(self) -> Result<(), String> {
        match self.pairs.first() {
            Some((key, value)) => Err(format!("{key}={value} is not known of a cache of type={}", self.kind)),
            None => Ok(()),
        }
    }
}

fn reference(name: &str) -> Result<(), String> {
    let read = name.parse::<longshore_oci::Reference>();
    read.map(drop).map_err(|e| format!("{name:?}: {e}"))
}

/// Names alone, as both options take them.
fn names(fields: &[String]) -> Option<&[String]> {
    fields.iter().all(|field| !field.contains('=')).then_some(fields)
}

impl From {
    pub(crate) fn read(text: &str) -> Result<Vec<Self>, String> {
        let fields = csv::fields(text)?;
        if let Some(names) = names(&fields) {
            names.iter().try_for_each(|name| reference(name))?;
            return Ok(names.iter().cloned().map(Self::Image).collect());
        }
        let mut fields = Fields::read(&fields)?;
        let from = match fields.kind.as_str() {
            "registry" => {
                let name = fields.needed("ref")?;
                reference(&name)?;
                Self::Registry(name)
            }
            "local" => {
                let digest = fields.take("digest");
                if let Some(digest) = &digest {
                    digest.parse::<Digest>().map_err(|e| format!("digest={digest}: {e}"))?;
                }
                let tag = fields.take("tag").unwrap_or_default();
                Self::Local { dir: fields.needed("src")?, tag, digest }
            }
            "inline" => return Err("type=inline is for --cache-to; name the image to use its cache".into()),
            kind => return Err(format!("type={kind} is not known")),
        };
        fields.end()?;
        Ok(vec![from])
    }
}

impl To {
    pub(crate) fn read(text: &str) -> Result<Vec<Self>, String> {
        let fields = csv::fields(text)?;
        if let Some(names) = names(&fields) {
            names.iter().try_for_each(|name| reference(name))?;
            let one = |name: &String| Self::plain(Place::Registry(name.clone()));
            return Ok(names.iter().map(one).collect());
        }
        let mut fields = Fields::read(&fields)?;
        let place = match fields.kind.as_str() {
            "registry" => {
                let name = fields.needed("ref")?;
                reference(&name)?;
                Place::Registry(name)
            }
            "local" => {
                let tag = fields.take("tag").unwrap_or_default();
                Place::Local { dir: fields.needed("dest")?, tag }
            }
            "inline" => Place::Inline,
            kind => return Err(format!("type={kind} is not known")),
        };
        let mut to = Self::plain(place);
        to.max = match fields.take("mode").as_deref() {
            None | Some("min") => false,
            Some("max") if to.place == Place::Inline => {
                return Err("mode=max: an image has room for the steps of its own layers only".into());
            }
            Some("max") => true,
            Some(mode) => return Err(format!("mode={mode} is neither min nor max")),
        };
        if to.place != Place::Inline {
            to.mounts = fields.truth("mounts")?.unwrap_or(false);
            to.ignore_error = fields.truth("ignore-error")?.unwrap_or(false);
            // What is written is both.
            for name in ["image-manifest", "oci-mediatypes"] {
                if fields.truth(name)? == Some(false) {
                    return Err(format!("{name}=false is not implemented"));
                }
            }
        }
        fields.end()?;
        Ok(vec![to])
    }

    fn plain(place: Place) -> Self {
        Self { place, max: false, mounts: false, ignore_error: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources() {
        let local =
            |tag: &str, digest: Option<String>| From::Local { dir: "d".into(), tag: tag.into(), digest };
        let digest = Digest::of(b"x").to_string();
        for (text, want) in [
            ("a/b:c", vec![From::Image("a/b:c".into())]),
            ("a,b", vec![From::Image("a".into()), From::Image("b".into())]),
            ("type=registry,ref=h:5/a", vec![From::Registry("h:5/a".into())]),
            ("type=local,src=d", vec![local("", None)]),
            (&format!("type=local,src=d,tag=t,digest={digest}"), vec![local("t", Some(digest.clone()))]),
        ] {
            assert_eq!(From::read(text).unwrap(), want, "{text}");
        }
        for (text, want) in [
            ("type=gha", "type=gha is not implemented yet"),
            ("type=registry", "type=registry needs ref"),
            ("type=local,dest=d", "type=local needs src"),
            ("ref=a", "type is required"),
            ("type=registry,ref=a,x=y", "x=y is not known of a cache of type=registry"),
            ("type=inline", "type=inline is for --cache-to"),
            ("type=what,a=b", "type=what is not known"),
            ("type=registry,ref=A", "\"A\": "),
            ("type=local,src=d,digest=../x", "digest=../x"),
        ] {
            let error = From::read(text).unwrap_err();
            assert!(error.starts_with(want), "{text}: {error}");
        }
    }

    #[test]
    fn places() {
        let registry = |max, ignore_error| To { max, ignore_error, ..To::plain(Place::Registry("a".into())) };
        for (text, want) in [
            ("a", registry(false, false)),
            ("type=registry,ref=a,mode=max", registry(true, false)),
            ("type=registry,ref=a,mode=min,ignore-error=true,image-manifest=true", registry(false, true)),
            ("type=inline", To::plain(Place::Inline)),
            (
                "type=local,dest=d,mounts=true",
                To { mounts: true, ..To::plain(Place::Local { dir: "d".into(), tag: String::new() }) },
            ),
        ] {
            assert_eq!(To::read(text).unwrap(), [want], "{text}");
        }
        for (text, want) in [
            ("type=s3,bucket=b", "type=s3 is not implemented yet"),
            ("type=local,src=d", "type=local needs dest"),
            ("type=registry,ref=a,mode=all", "mode=all is neither min nor max"),
            ("type=inline,mode=max", "mode=max: an image"),
            ("type=registry,ref=a,compression=zstd", "compression=zstd is not known"),
            ("type=registry,ref=a,ignore-error=x", "ignore-error=x is neither"),
            ("type=registry,ref=a,oci-mediatypes=false", "oci-mediatypes=false is not implemented"),
        ] {
            let error = To::read(text).unwrap_err();
            assert!(error.starts_with(want), "{text}: {error}");
        }
    }
}
