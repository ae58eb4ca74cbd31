//! nf_tables over netlink: the few messages that a network needs, without the `nft` program.
//!
//! `wire` writes and reads attributes, `encode` turns a planned rule into the kernel's expressions, `table` installs
//! and changes our own table, `foreign` deals with forward
//! chains of others that drop, `firewalld` with one that lets nobody else change its table, `news` hears of what other programs change, and `conntrack` forgets flows that no longer
//! hold.

mod conntrack;
mod encode;
pub(crate) mod firewalld;
mod foreign;
mod news;
mod table;
mod wire;

pub use foreign::Gate;
pub(crate) use news::News;
pub(crate) use table::{Change, Nft};
pub(crate) use wire::attribute;

/// The subsystem's number, in the upper half of a message type.
const SUBSYSTEM: u16 = 10 << 8;
const MSG_NEWTABLE: u16 = SUBSYSTEM;
const MSG_DELTABLE: u16 = SUBSYSTEM | 2;
const MSG_NEWCHAIN: u16 = SUBSYSTEM | 3;
const MSG_GETCHAIN: u16 = SUBSYSTEM | 4;
const MSG_DELCHAIN: u16 = SUBSYSTEM | 5;
const MSG_NEWRULE: u16 = SUBSYSTEM | 6;
const MSG_GETRULE: u16 = SUBSYSTEM | 7;
const MSG_DELRULE: u16 = SUBSYSTEM | 8;
const MSG_NEWSET: u16 = SUBSYSTEM | 9;
const MSG_NEWSETELEM: u16 = SUBSYSTEM | 12;
const MSG_DELSETELEM: u16 = SUBSYSTEM | 14;
const MSG_BATCH_BEGIN: u16 = 16;
const MSG_BATCH_END: u16 = 17;

const NLM_F_CREATE: u16 = 0x400;
const NLM_F_APPEND: u16 = 0x800;

const FAMILY_INET: u8 = 1;
const FAMILY_IPV4: u8 = 2;
const FAMILY_BRIDGE: u8 = 7;
const FAMILY_IPV6: u8 = 10;

/// A comment, in the form in which `nft` keeps one: a type, a length, and the text with its final zero.
fn comment(text: &str) -> Vec<u8> {
    let mut bytes = vec![0, 0];
    bytes.extend(text.bytes().take(120));
    bytes.push(0);
    bytes[1] = u8::try_from(bytes.len() - 2).unwrap_or(u8::MAX);
    bytes
}

/// The text of a comment, if `userdata` holds one.
fn comment_text(mut userdata: &[u8]) -> Option<&str> {
    while let [kind, length, rest @ ..] = userdata {
        let value = rest.get(..usize::from(*length))?;
        if *kind == 0 {
            return std::str::from_utf8(value.strip_suffix(&[0]).unwrap_or(value)).ok();
        }
        userdata = rest.get(usize::from(*length)..)?;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments() {
        assert_eq!(comment_text(&comment("veth0123456789")), Some("veth0123456789"));
        assert_eq!(comment_text(&[]), None);
        assert_eq!(comment_text(&[0]), None);
        assert_eq!(comment_text(&[0, 9, b'x']), None);
        assert_eq!(comment_text(&[7, 1, 1, 0, 2, b'a', 0]), Some("a"));
        assert_eq!(comment_text(&comment(&"x".repeat(500))).map(str::len), Some(120));
    }
}
