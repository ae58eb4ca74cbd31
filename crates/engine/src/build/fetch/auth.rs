//! Who a build is for a server: what its address says, else a secret that is named after the server, as with BuildKit
//! (docs.docker.com/build/building/secrets/#git-authentication-for-remote-contexts).

use longshore_build::remote::Address;
use longshore_build::{Error as BuildError, Result, Secrets};
use longshore_registry::basic_authorization;

/// What secrets hold.
#[derive(Clone, Copy)]
enum Holds {
    /// The header's whole value.
    Header,
    /// A token for Git servers.
    GitToken,
    /// A token for others.
    Bearer,
}

/// The value of `Authorization` for a web server's file.
///
/// # Errors
/// For a secret that no header can hold.
pub(super) fn of_file(address: &Address, secrets: &Secrets) -> Result<Option<String>> {
    let host = hostname(address.host());
    let names = [
        (format!("HTTP_AUTH_HEADER_{host}"), Holds::Header),
        (format!("HTTP_AUTH_TOKEN_{host}"), Holds::Bearer),
    ];
    authorization(address, secrets, &names)
}

/// The value of `Authorization` for a repository that is reached over HTTP. A secret that names no server is for those
/// with TLS only.
///
/// # Errors
/// For a secret that no header can hold.
pub(super) fn of_repository(address: &Address, secrets: &Secrets) -> Result<Option<String>> {
    if !address.is_web() {
        return Ok(None);
    }
    let host = address.host();
    let mut names = vec![
        (format!("GIT_AUTH_HEADER.{host}"), Holds::Header),
        (format!("GIT_AUTH_TOKEN.{host}"), Holds::GitToken),
    ];
    if address.has_tls() {
        names.push(("GIT_AUTH_HEADER".into(), Holds::Header));
        names.push(("GIT_AUTH_TOKEN".into(), Holds::GitToken));
    }
    authorization(address, secrets, &names)
}

fn authorization(address: &Address, secrets: &Secrets, names: &[(String, Holds)]) -> Result<Option<String>> {
    if let Some(user) = address.user() {
        return Ok(Some(basic_authorization(user)));
    }
    let Some((name, holds, secret)) = names.iter().find_map(|(n, h)| Some((n, h, secrets.get(n)?))) else {
        return Ok(None);
    };
    let text = std::str::from_utf8(secret.bytes()).ok().map(str::trim);
    let text = text.filter(|t| !t.is_empty() && t.bytes().all(|b| (b' '..0x7f).contains(&b)));
    let text = text.ok_or_else(|| BuildError::Invalid(format!("secret {name} is none for a header")))?;
    Ok(Some(match holds {
        Holds::Header => text.to_owned(),
        Holds::Bearer => format!("Bearer {text}"),
        Holds::GitToken => basic_authorization(&format!("x-access-token:{}", escaped(text))),
    }))
}

/// As a password stands in an address.
fn escaped(text: &str) -> String {
    text.replace('%', "%25")
}

fn hostname(host: &str) -> &str {
    match host.strip_prefix('[') {
        Some(v6) => v6.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use longshore_build::Secret;

    use super::*;

    #[test]
    fn a_secret_is_for_the_server_that_it_is_named_after() {
        let check = |address: &str, name: &str, file: Option<&str>, git: Option<&str>| {
            let address = Address::new(address).unwrap();
            let secrets = Secrets::from([(name.to_owned(), Secret::new(b"t%41\n").unwrap())]);
            assert_eq!(of_file(&address, &secrets).unwrap().as_deref(), file, "{name}");
            assert_eq!(of_repository(&address, &secrets).unwrap().as_deref(), git, "{name}");
        };
        let token = Some("Basic eC1hY2Nlc3MtdG9rZW46dCU0MQ==");
        check("https://h:8443/x", "HTTP_AUTH_TOKEN_h", Some("Bearer t%41"), None);
        check("https://h:8443/x", "HTTP_AUTH_HEADER_h", Some("t%41"), None);
        check("https://h:8443/x", "HTTP_AUTH_HEADER_other", None, None);
        check("https://[::1]:1/x", "HTTP_AUTH_HEADER_::1", Some("t%41"), None);
        check("https://h:8443/x", "GIT_AUTH_TOKEN.h:8443", None, token);
        check("https://h:8443/x", "GIT_AUTH_TOKEN.h", None, None);
        check("https://h/x", "GIT_AUTH_TOKEN", None, token);
        check("https://h/x", "GIT_AUTH_HEADER", None, Some("t%41"));
        check("http://h/x", "GIT_AUTH_TOKEN", None, None);
        check("http://h/x", "GIT_AUTH_TOKEN.h", None, token);
        check("ssh://h/x", "GIT_AUTH_TOKEN.h", None, None);
        let own = Some("Basic bWU6cHc=");
        check("http://me:pw@h/x", "GIT_AUTH_TOKEN.h", own, own);
    }

    #[test]
    fn what_no_header_holds_is_named_and_not_shown() {
        let secrets = Secrets::from([("GIT_AUTH_TOKEN".to_owned(), Secret::new(b"hunter\n2").unwrap())]);
        let error = of_repository(&Address::new("https://h/x").unwrap(), &secrets).unwrap_err().to_string();
        assert_eq!(error, "secret GIT_AUTH_TOKEN is none for a header");
    }
}
