//! What becomes of what was built: the option `--output`.

use longshore_api::build::BuildAnnotation;

use super::annotation;
use super::build::check_tag;
use super::csv;
use crate::flags::values;

/// Where bytes go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Dest {
    Stdout,
    Path(String),
}

impl Dest {
    fn read(text: &str) -> Self {
        if text == "-" { Self::Stdout } else { Self::Path(text.to_owned()) }
    }
}

/// What is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Made {
    /// An image of the daemon's.
    Image { push: bool },
    /// An archive that is Docker's and an OCI layout at once.
    Archive(Dest),
    /// The files of the image in a folder.
    Folder(String),
    /// The same as a tar.
    Tar(Dest),
}

/// An output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Output {
    pub(crate) names: Vec<String>,
    pub(crate) annotations: Vec<BuildAnnotation>,
    pub(crate) made: Made,
}

impl Output {
    /// `type=…[,name=…][,dest=…]…`, or a folder, or `-` for a tar on standard output, as buildx reads it.
    pub(crate) fn read(text: &str) -> Result<Self, String> {
        let fields = csv::fields(text)?;
        if let [only] = fields.as_slice()
            && !only.contains('=')
        {
            let made = if only == "-" { Made::Tar(Dest::Stdout) } else { Made::Folder(only.clone()) };
            return Ok(Self { names: Vec::new(), annotations: Vec::new(), made });
        }
        let (mut kind, mut names, mut push, mut dest) = (String::new(), Vec::new(), false, None);
        let mut annotations = Vec::new();
        for field in fields {
            let (key, value) = field.split_once('=').ok_or_else(|| format!("invalid value {field}"))?;
            let on =
                || values::truth(value).ok_or_else(|| format!("{key}={value} is neither true nor false"));
            if let Some(annotation) = annotation::of_output(key.trim(), value) {
                annotations.push(annotation?);
                continue;
            }
            match key.trim().to_ascii_lowercase().as_str() {
                "type" => value.clone_into(&mut kind),
                "name" => {
                    for name in value.split(',').filter(|n| !n.is_empty()) {
                        check_tag(name)?;
                        names.push(name.to_owned());
                    }
                }
                "push" => push = on()?,
                "dest" if value.is_empty() => return Err("dest is empty".into()),
                "dest" => dest = Some(Dest::read(value)),
                // The daemon always has both the image and its layers, and archives are tars.
                "unpack" | "store" | "tar" if on()? => {}
                key => return Err(format!("{key}={value} is not implemented yet")),
            }
        }
        let needs = |what: &str| format!("type={kind} needs dest={what}");
        let made = match (kind.as_str(), dest) {
            ("image" | "registry", Some(_)) => return Err(format!("type={kind} has no dest")),
            ("image" | "docker", None) => Made::Image { push },
            ("registry", None) => Made::Image { push: true },
            ("docker", Some(to)) => Made::Archive(to),
            ("oci", Some(to)) => Made::Archive(to),
            ("oci", None) => return Err(needs("FILE, or dest=- for standard output")),
            ("local", Some(Dest::Path(dir))) => Made::Folder(dir),
            ("local", _) => return Err(needs("FOLDER")),
            ("tar", Some(to)) => Made::Tar(to),
            ("tar", None) => return Err(needs("FILE, or dest=- for standard output")),
            ("", _) => return Err("type is required for output".into()),
            (kind, _) => return Err(format!("type={kind} is not implemented yet")),
        };
        if push && !matches!(made, Made::Image { .. }) {
            return Err(format!("push=true says nothing for type={kind}"));
        }
        if !annotations.is_empty() && matches!(made, Made::Folder(_) | Made::Tar(_)) {
            return Err(format!("annotations say nothing for type={kind}"));
        }
        Ok(Self { names, annotations, made })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outputs_are_read_as_buildx_reads_them() {
        let path = |p: &str| Dest::Path(p.to_owned());
        for (text, names, made) in [
            ("out", &[][..], Made::Folder("out".into())),
            ("-", &[], Made::Tar(Dest::Stdout)),
            ("type=local,dest=a", &[], Made::Folder("a".into())),
            ("type=tar,dest=-", &[], Made::Tar(Dest::Stdout)),
            ("type=tar,dest=x", &[], Made::Tar(path("x"))),
            ("type=image,\"name=x,y:1\"", &["x", "y:1"], Made::Image { push: false }),
            ("type=registry", &[], Made::Image { push: true }),
            ("type=docker", &[], Made::Image { push: false }),
            ("type=docker,dest=x,name=y", &["y"], Made::Archive(path("x"))),
            ("type=oci,dest=-", &[], Made::Archive(Dest::Stdout)),
        ] {
            let names = names.iter().map(|n| (*n).to_owned()).collect();
            let annotations = Vec::new();
            assert_eq!(Output::read(text), Ok(Output { names, annotations, made }), "{text}");
        }
        for (text, want) in [
            ("name=x", "type is required"),
            ("type=local", "type=local needs dest=FOLDER"),
            ("type=local,dest=-", "type=local needs dest=FOLDER"),
            ("type=oci", "type=oci needs dest=FILE"),
            ("type=tar,dest=", "dest is empty"),
            ("type=image,dest=x", "type=image has no dest"),
            ("type=oci,dest=x,tar=false", "tar=false is not implemented yet"),
            ("type=tar,dest=x,push=true", "push=true says nothing"),
            ("type=oci,dest=x,compression=zstd", "compression=zstd is not implemented yet"),
            ("type=nope", "type=nope is not implemented yet"),
            ("type=image,push=x", "push=x is neither true nor false"),
            ("type=local,dest=x,annotation.a=b", "annotations say nothing"),
        ] {
            assert!(Output::read(text).unwrap_err().contains(want), "{text}");
        }
    }
}
