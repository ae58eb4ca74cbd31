//! Annotations of manifests and indexes, as buildx writes them.

use longshore_api::build::{BuildAnnotated, BuildAnnotation};
use longshore_oci::Platform;

/// `[what[platform],...:]key=value`; without what, of the manifest.
///
/// # Errors
/// When it is none.
pub(crate) fn read(text: &str) -> Result<Vec<BuildAnnotation>, String> {
    let (place, value) =
        text.split_once('=').ok_or_else(|| format!("invalid annotation {text:?}, expected key=value"))?;
    let (places, key) = place.split_once(':').unwrap_or(("manifest", place));
    if key.is_empty() {
        return Err(format!("invalid annotation {text:?}: the key is empty"));
    }
    places.split(',').map(|place| one(place, key, value)).collect()
}

/// `annotation[-what][[platform]].key` of an output, where `name` is that; `None` where it is none.
///
/// # Errors
/// When it is one of something else.
pub(crate) fn of_output(name: &str, value: &str) -> Option<Result<BuildAnnotation, String>> {
    let rest = name.strip_prefix("annotation")?;
    // A platform may have a point in it; a kind has none.
    let end = rest.find(']').map_or(0, |at| at + 1);
    let (kind, key) = rest.split_at(end + rest.get(end..)?.find('.')?);
    let key = key.strip_prefix('.').filter(|key| !key.is_empty())?;
    let kind = match kind.strip_prefix('-') {
        Some(kind) => kind.to_owned(),
        None => format!("manifest{kind}"),
    };
    Some(one(&kind, key, value))
}

fn one(place: &str, key: &str, value: &str) -> Result<BuildAnnotation, String> {
    let (kind, platform) = match place.strip_suffix(']').and_then(|place| place.split_once('[')) {
        Some((kind, platform)) => {
            let platform = platform.parse::<Platform>().map_err(|e| format!("annotation {key}: {e}"))?;
            (kind, Some(platform.to_string()))
        }
        None => (place, None),
    };
    let of = match kind {
        "manifest" => BuildAnnotated::Manifest,
        "manifest-descriptor" => BuildAnnotated::ManifestDescriptor,
        "index" => BuildAnnotated::Index,
        "index-descriptor" => BuildAnnotated::IndexDescriptor,
        kind => {
            return Err(format!(
                "unknown annotation type {kind:?}: want manifest, manifest-descriptor, index or index-descriptor"
            ));
        }
    };
    if platform.is_some() && matches!(of, BuildAnnotated::Index | BuildAnnotated::IndexDescriptor) {
        return Err(format!("annotation {key}: an index is of no platform"));
    }
    Ok(BuildAnnotation { of, platform, key: key.to_owned(), value: value.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(all: &[BuildAnnotation]) -> String {
        let one = |a: &BuildAnnotation| {
            format!("{:?}[{}] {}={}", a.of, a.platform.as_deref().unwrap_or_default(), a.key, a.value)
        };
        all.iter().map(one).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn annotations_are_read_as_buildx_reads_them() {
        for (text, want) in [
            ("a=b=c", "Manifest[] a=b=c"),
            ("index:org.x=y", "Index[] org.x=y"),
            ("index,manifest[linux/arm64]:a=", "Index[] a= Manifest[linux/arm64] a="),
            ("manifest-descriptor:a=b:c", "ManifestDescriptor[] a=b:c"),
        ] {
            assert_eq!(shown(&read(text).unwrap()), want, "{text}");
        }
        for (text, want) in [
            ("a", "expected key=value"),
            ("index:=b", "the key is empty"),
            ("x:a=b", "unknown annotation type \"x\""),
            ("index[linux/arm64]:a=b", "an index is of no platform"),
            ("manifest[a/b/c/d]:a=b", "invalid platform"),
        ] {
            assert!(read(text).unwrap_err().contains(want), "{text}");
        }
    }

    #[test]
    fn outputs_have_annotations_too() {
        for (name, want) in [
            ("annotation.a.b", "Manifest[] a.b=v"),
            ("annotation-index.a", "Index[] a=v"),
            ("annotation[linux/arm64].a", "Manifest[linux/arm64] a=v"),
            ("annotation-manifest-descriptor[linux/arm64].a", "ManifestDescriptor[linux/arm64] a=v"),
        ] {
            assert_eq!(shown(&[of_output(name, "v").unwrap().unwrap()]), want, "{name}");
        }
        assert!(of_output("name", "v").is_none() && of_output("annotation", "v").is_none());
        assert!(of_output("annotation-x.a", "v").unwrap().is_err());
    }
}
