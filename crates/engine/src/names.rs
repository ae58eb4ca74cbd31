//! Ids and names: made up, checked, found again.

use crate::{Error, Result};

/// What a name may look like, as messages say it.
pub(crate) const NAME_RULE: &str = "[a-zA-Z0-9][a-zA-Z0-9_.-]";

const MOODS: [&str; 60] = [
    "able", "airy", "amber", "ardent", "balmy", "bold", "breezy", "brisk", "calm", "candid", "cheery",
    "civil", "clear", "coastal", "cosy", "crisp", "daring", "deft", "dreamy", "eager", "early", "fair",
    "fleet", "fond", "frank", "gentle", "glad", "golden", "handy", "hardy", "hearty", "honest", "jolly",
    "keen", "kind", "lively", "loyal", "lucid", "mellow", "merry", "misty", "neat", "nimble", "noble",
    "patient", "placid", "proud", "quick", "quiet", "ready", "salty", "serene", "silver", "steady", "sturdy",
    "sunny", "tidy", "trusty", "vivid", "windy",
];

/// People of the sea and of science.
const SURNAMES: [&str; 72] = [
    "amundsen",
    "anning",
    "babbage",
    "banks",
    "baret",
    "barents",
    "beaufort",
    "bering",
    "bligh",
    "bohr",
    "borlaug",
    "bowditch",
    "cabot",
    "carson",
    "celsius",
    "chichester",
    "cook",
    "cousteau",
    "curie",
    "dampier",
    "darwin",
    "davis",
    "drake",
    "earle",
    "ekman",
    "euler",
    "fermat",
    "fitzroy",
    "flinders",
    "franklin",
    "frobisher",
    "galvani",
    "gauss",
    "germain",
    "halley",
    "harrison",
    "heezen",
    "hensen",
    "herschel",
    "hooper",
    "hudson",
    "humboldt",
    "huygens",
    "kelvin",
    "kepler",
    "kuznets",
    "lagrange",
    "lamarck",
    "leeuwin",
    "lovelace",
    "magellan",
    "maury",
    "maxwell",
    "mercator",
    "mitchell",
    "moitessier",
    "nansen",
    "newton",
    "noether",
    "piccard",
    "polo",
    "ross",
    "shackleton",
    "slocum",
    "somerville",
    "stokes",
    "tasman",
    "tharp",
    "torricelli",
    "volta",
    "wallace",
    "wegener",
];

/// Random bytes of the system.
pub(crate) fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0u8; N];
    getrandom::fill(&mut bytes).map_err(|e| Error::internal(format!("get random bytes: {e}")))?;
    Ok(bytes)
}

/// A fresh id: 64 hex digits, and never all digits in its first twelve, so that no short id is
/// mistaken for a number (host names made of digits alone confuse programs).
pub(crate) fn new_id() -> Result<String> {
    loop {
        let id = hex(&random::<32>()?);
        if !id.bytes().take(12).all(|b| b.is_ascii_digit()) {
            return Ok(id);
        }
    }
}

/// Lower-case hex.
pub(crate) fn hex(bytes: &[u8]) -> String {
    let digit = |n: u8| char::from_digit(u32::from(n), 16).unwrap_or('0');
    bytes.iter().flat_map(|b| [digit(b >> 4), digit(b & 15)]).collect()
}

/// A made-up name; `attempt` above 5 adds a digit, for engines with many containers.
pub(crate) fn made_up(attempt: u32) -> Result<String> {
    let [a, b, c, d, e] = random::<5>()?;
    let pick = |hi: u8, lo: u8, n: usize| usize::from(u16::from_be_bytes([hi, lo])) % n;
    let name = format!("{}_{}", MOODS[pick(a, b, MOODS.len())], SURNAMES[pick(c, d, SURNAMES.len())]);
    Ok(if attempt > 5 { format!("{name}{}", e) } else { name })
}

/// Whether `text` is `[a-zA-Z0-9][a-zA-Z0-9_.-]+`: so it is never a path.
pub(crate) fn is_name(text: &str) -> bool {
    let mut bytes = text.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_alphanumeric())
        && text.len() >= 2
        && bytes.all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
}

/// A container's name as a client gave it, without the leading slash.
///
/// # Errors
/// When it breaks the rule.
pub(crate) fn check_container_name(text: &str) -> Result<String> {
    let bare = text.strip_prefix('/').unwrap_or(text);
    if is_name(bare) && bare.len() <= 255 {
        return Ok(bare.to_owned());
    }
    Err(Error::invalid(format!("Invalid container name ({text}), only {NAME_RULE} are allowed")))
}

/// What an id or a unique beginning of one stands for.
///
/// # Errors
/// When several ids begin so.
pub(crate) fn by_prefix<'a>(prefix: &str, ids: impl Iterator<Item = &'a str>) -> Result<Option<&'a str>> {
    if prefix.is_empty() || !prefix.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Ok(None);
    }
    let mut found = None;
    for id in ids.filter(|id| id.starts_with(prefix)) {
        if id == prefix {
            return Ok(Some(id));
        }
        if found.replace(id).is_some() {
            return Err(Error::invalid(format!("multiple IDs found with provided prefix: {prefix}")));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn made_up_names_are_names() {
        for attempt in 0..20 {
            let n = made_up(attempt).expect("random");
            assert!(is_name(&n) && n.contains('_'), "{n}");
        }
        assert_eq!(new_id().expect("random").len(), 64);
    }

    #[test]
    fn atk_41_names_are_never_paths() {
        for bad in ["", "/", "../x", "a/b", "a", ".a", "-a", "a b", "a\0b", "a\u{e9}", "//a"] {
            assert!(check_container_name(bad).is_err(), "{bad:?}");
        }
        assert_eq!(check_container_name("/web.1_x-y").expect("valid"), "web.1_x-y");
        assert_eq!(
            check_container_name("a/b").unwrap_err().to_string(),
            "Invalid container name (a/b), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"
        );
    }

    #[test]
    fn prefixes_resolve_when_unique() {
        let ids = ["abc1", "abd2", "abc1"];
        assert_eq!(by_prefix("abd", ids.into_iter()).expect("unique"), Some("abd2"));
        assert_eq!(by_prefix("f", ids.into_iter()).expect("none"), None);
        assert!(by_prefix("ab", ids.into_iter()).is_err());
        assert_eq!(by_prefix("", ids.into_iter()).expect("none"), None);
    }
}
