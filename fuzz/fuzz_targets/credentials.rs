//! A client's settings (before the first zero byte) and the answer of a program that keeps credentials (behind it):
//! what is put into the settings is there when they are read again, and nothing else changes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use longshore_cli::credentials::{Credentials, file, helper, hostname, key};

fuzz_target!(|data: &[u8]| {
    let at = data.iter().position(|b| *b == 0).unwrap_or(data.len());
    let (settings, answer) = (&data[..at], data.get(at + 1..).unwrap_or_default());
    if let Ok(known) = helper::answer("h", answer) {
        assert!(known.username.is_empty() || known.identity_token.is_empty());
        let _ = known.header();
    }
    let Ok(mut config) = file::parse(settings) else { return };
    let _ = (file::first_error(&config), file::contains_credentials(&config));
    let servers = file::servers(&config);
    for server in &servers {
        let _ = (file::helper(&config, server), hostname(server), key(server));
        if let Some(known) = file::get(&config, server) {
            assert_eq!(&known.server, server);
            let _ = known.header();
        }
    }
    let before: Vec<_> = servers.iter().map(|s| file::get(&config, s)).collect();
    let new = Credentials {
        server: "new.example:5000".into(),
        username: "ann".into(),
        password: "a:b \u{1f}".into(),
        ..Credentials::default()
    };
    file::put(&mut config, &new);
    assert!(!file::put(&mut config, &new));
    let mut again = file::parse(&file::text(&config)).expect("what was written can be read");
    assert_eq!(file::get(&again, &new.server).as_ref(), Some(&new));
    for (server, known) in servers.iter().zip(before) {
        assert!(*server == new.server || file::get(&again, server) == known);
    }
    assert!(file::remove(&mut again, &new.server) && !file::servers(&again).contains(&new.server));
});
