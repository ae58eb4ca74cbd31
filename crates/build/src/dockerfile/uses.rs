//! Which words of an instruction are expanded.

use super::ast::{InlineFile, Instruction, Kind, Pair, Paths, RunBody, Word};
use super::expand::Mode;

impl Instruction {
    /// The words in which the variables of the stage are replaced, each with how, in the order of the reference.
    ///
    /// Not among them: the default of an `ARG`, which is expanded only where it is used, the words of `FROM`, which see the
    /// global arguments, and the trigger of `ONBUILD`, which is expanded where it is run. Those of `EXPOSE` may become several
    /// ([`expand_words`](super::expand_words)). Commands have none: that is the shell's affair.
    #[must_use]
    pub fn words(&self) -> Vec<(&str, Mode)> {
        let mut out = Vec::new();
        match &self.kind {
            Kind::Add(add) => {
                paths(&add.paths, &mut out);
                some(&add.checksum, &mut out);
                files(&add.paths.files, &mut out);
            }
            Kind::Copy(copy) => {
                paths(&copy.paths, &mut out);
                files(&copy.paths.files, &mut out);
            }
            Kind::Env(pairs) | Kind::Label(pairs) => {
                for Pair { key, value, .. } in pairs {
                    out.extend([(key.as_str(), Mode::Word), (value.as_str(), Mode::Word)]);
                }
            }
            Kind::Expose(words) | Kind::Volume(words) => {
                out.extend(words.iter().map(|w| (w.as_str(), Mode::Word)));
            }
            Kind::Run(run) => {
                for mount in &run.mounts {
                    out.extend(mount.values().map(|v| (v, Mode::Word)));
                }
            }
            Kind::Stopsignal(word) | Kind::User(word) | Kind::Workdir(word) => {
                out.push((word.as_str(), Mode::Word));
            }
            Kind::Arg(_)
            | Kind::Cmd(_)
            | Kind::Entrypoint(_)
            | Kind::From(_)
            | Kind::Healthcheck(_)
            | Kind::Maintainer(_)
            | Kind::Onbuild(_)
            | Kind::Shell(_) => {}
        }
        out
    }

    /// Its line in a progress display: as written, a heredoc that is all of a `RUN` hinted at by its first line. Variables are
    /// not expanded ([`Mode::KeepQuotes`] does it).
    #[must_use]
    pub fn title(&self) -> String {
        let (Kind::Run(run), [heredoc]) = (&self.kind, self.heredocs.as_slice()) else {
            return self.source.clone();
        };
        let bare = match &run.body {
            RunBody::Script { .. } => true,
            RunBody::Shell(text) => *text == heredoc.text(),
            RunBody::Exec(_) => false,
        };
        if !bare {
            return self.source.clone();
        }
        let mut lines = heredoc.content.trim().lines();
        let first = lines.next().unwrap_or_default();
        let more = if lines.next().is_some() { "..." } else { "" };
        format!("{} ({first}{more})", self.source)
    }
}

fn some<'a>(word: &'a Option<Word>, out: &mut Vec<(&'a str, Mode)>) {
    out.extend(word.iter().map(|w| (w.as_str(), Mode::Word)));
}

fn paths<'a>(paths: &'a Paths, out: &mut Vec<(&'a str, Mode)>) {
    some(&paths.chown, out);
    some(&paths.chmod, out);
    out.extend(paths.sources.iter().map(|w| (w.as_str(), Mode::Word)));
    out.push((paths.dest.as_str(), Mode::Word));
}

fn files<'a>(files: &'a [InlineFile], out: &mut Vec<(&'a str, Mode)>) {
    out.extend(files.iter().filter(|f| f.expand).map(|f| (f.content.as_str(), Mode::Heredoc)));
}
