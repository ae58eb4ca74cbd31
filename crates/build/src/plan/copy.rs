//! COPY and ADD as steps.

use crate::dockerfile::{self, AddCmd, CopyCmd, InlineFile, Mode, Paths, Span};
use crate::graph::{self, Op, Source};
use crate::{BadMode, Error, Result};

use super::Planner;
use super::scope::at;
use super::stage::Stage;

impl Stage {
    pub(super) fn copy(&self, planner: &mut Planner<'_>, copy: &CopyCmd, span: Span) -> Result<Op> {
        let from = match &copy.from {
            None => Source::Context(0),
            Some(name) => planner.source(self.index, name, &self.image.platform, span)?,
        };
        let op = self.paths(planner, &copy.paths, from, span)?;
        Ok(Op::Copy(Box::new(graph::Copy { parents: copy.parents, ..op })))
    }

    pub(super) fn add(&self, planner: &mut Planner<'_>, add: &AddCmd, span: Span) -> Result<Op> {
        let later = |what: &str| {
            Err(Error::Unimplemented(format!("line {}: ADD {what} is not supported yet", span.line)))
        };
        if add.checksum.is_some() {
            return later("--checksum");
        }
        if add.keep_git_dir.is_some() {
            return later("--keep-git-dir");
        }
        let op = self.paths(planner, &add.paths, Source::Context(0), span)?;
        if let Some(remote) = op.sources.iter().map(|s| String::from_utf8_lossy(s)).find(|s| is_remote(s)) {
            return later(&format!("of {remote}"));
        }
        Ok(Op::Copy(Box::new(graph::Copy { unpack: add.unpack != Some(false), ..op })))
    }

    fn paths(&self, planner: &Planner<'_>, paths: &Paths, from: Source, span: Span) -> Result<graph::Copy> {
        let mut sources = Vec::new();
        for word in &paths.sources {
            sources.push(self.expanded(planner, word, span)?.into_bytes());
        }
        let dest = self.expanded(planner, &paths.dest, span)?;
        let mut to = self.absolute(&dest).into_bytes();
        if (dest.ends_with('/') || dest == "." || dest.ends_with("/.")) && to != b"/" {
            to.push(b'/');
        }
        let from = match (sources.is_empty(), paths.files.is_empty()) {
            (_, true) => from,
            (true, false) => Source::Inline(self.inline(planner, &paths.files, span)?),
            (false, false) => {
                return Err(Error::Unimplemented(format!(
                    "line {}: files and heredocs in one instruction are not supported yet: use two",
                    span.line
                )));
            }
        };
        let owner = paths.chown.as_ref().map(|w| self.expanded(planner, w, span)).transpose()?;
        let mode = match paths.chmod.as_ref().map(|w| self.expanded(planner, w, span)).transpose()? {
            None => None,
            Some(text) => Some(text.parse().map_err(|_: BadMode| {
                at(
                    span,
                    &format!(
                        "invalid chmod parameter: '{text}'. it should be octal string and between 0 and 07777"
                    ),
                )
            })?),
        };
        Ok(graph::Copy {
            from,
            sources,
            dest: to,
            owner: owner.filter(|o| !o.is_empty()),
            mode,
            parents: false,
            exclude: paths.exclude.iter().map(|p| p.clone().into_bytes()).collect(),
            unpack: false,
            link: paths.link,
        })
    }

    fn inline(
        &self,
        planner: &Planner<'_>,
        files: &[InlineFile],
        span: Span,
    ) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let one = |file: &InlineFile| {
            let content = if file.expand {
                let escape = planner.escape;
                dockerfile::expand(&file.content, &self.view(), escape, Mode::Heredoc)
                    .map_err(|e| at(span, &e))?
                    .text
            } else {
                file.content.clone()
            };
            Ok((file.name.clone().into_bytes(), content.into_bytes()))
        };
        files.iter().map(one).collect()
    }
}

fn is_remote(source: &str) -> bool {
    ["http://", "https://", "git://", "ssh://", "git@"].iter().any(|p| source.starts_with(p))
}
