//! COPY and ADD as steps.

use crate::dockerfile::{self, AddCmd, CopyCmd, InlineFile, Mode, Paths, Span};
use crate::graph::{self, Op, Part, Source};
use crate::remote::{self, Remote};
use crate::{BadMode, Result};

use super::Planner;
use super::scope::at;
use super::stage::Stage;

impl Stage {
    pub(super) fn copy(&self, planner: &mut Planner<'_>, copy: &CopyCmd, span: Span) -> Result<Op> {
        let from = match &copy.from {
            None => Source::Context(0),
            Some(name) => planner.source(self.index, name, &self.image.platform, span)?,
        };
        let sources = self.sources(planner, &copy.paths, span)?;
        for source in &sources {
            match remote::parse(source) {
                Ok(Some(Remote::File(_))) => return Err(at(span, &"source can't be a URL for COPY")),
                Ok(Some(Remote::Git(_))) => return Err(at(span, &"source can't be a git ref for COPY")),
                // Then it is the name of a file.
                Ok(None) | Err(_) => {}
            }
        }
        let sources = sources.into_iter().map(String::into_bytes).collect();
        let parts = vec![Part { from, sources, unpack: false }];
        let op = self.paths(planner, &copy.paths, parts, span)?;
        Ok(Op::Copy(Box::new(graph::Copy { parents: copy.parents, ..op })))
    }

    pub(super) fn add(&self, planner: &mut Planner<'_>, add: &AddCmd, span: Span) -> Result<Op> {
        let checksum = add.checksum.as_ref().map(|w| self.expanded(planner, w, span)).transpose()?;
        let checksum = checksum.filter(|c| !c.is_empty());
        let sources = self.sources(planner, &add.paths, span)?;
        if checksum.is_some() && sources.len() + add.paths.files.len() != 1 {
            return Err(at(span, &"checksum can't be specified for multiple sources"));
        }
        let mut parts: Vec<Part> = Vec::new();
        for source in sources {
            let remote = remote::parse(&source).map_err(|e| at(span, &format!("ADD: {e}")))?;
            let Some(mut remote) = remote else {
                if checksum.is_some() {
                    return Err(at(span, &"checksum requires HTTP(S) or Git sources"));
                }
                let unpack = add.unpack != Some(false);
                match parts.last_mut() {
                    Some(Part { from: Source::Context(_), sources, .. }) => sources.push(source.into_bytes()),
                    _ => parts.push(Part {
                        from: Source::Context(0),
                        sources: vec![source.into_bytes()],
                        unpack,
                    }),
                }
                continue;
            };
            remote.expect(checksum.as_deref().unwrap_or_default()).map_err(|e| at(span, &e))?;
            let unpack = match &mut remote {
                Remote::File(_) => add.unpack == Some(true),
                Remote::Git(repository) => {
                    add.keep_git_dir.map_or(Ok(()), |k| repository.keep(k)).map_err(|e| at(span, &e))?;
                    false
                }
            };
            parts.push(Part { from: Source::Remote(Box::new(remote)), sources: Vec::new(), unpack });
        }
        let op = self.paths(planner, &add.paths, parts, span)?;
        Ok(Op::Copy(Box::new(op)))
    }

    fn sources(&self, planner: &Planner<'_>, paths: &Paths, span: Span) -> Result<Vec<String>> {
        paths.sources.iter().map(|word| self.expanded(planner, word, span)).collect()
    }

    fn paths(
        &self,
        planner: &Planner<'_>,
        paths: &Paths,
        mut parts: Vec<Part>,
        span: Span,
    ) -> Result<graph::Copy> {
        let dest = self.expanded(planner, &paths.dest, span)?;
        let mut to = self.absolute(&dest).into_bytes();
        if (dest.ends_with('/') || dest == "." || dest.ends_with("/.")) && to != b"/" {
            to.push(b'/');
        }
        parts.retain(|part| !part.sources.is_empty() || matches!(part.from, Source::Remote(_)));
        if !paths.files.is_empty() {
            let from = Source::Inline(self.inline(planner, &paths.files, span)?);
            parts.push(Part { from, sources: Vec::new(), unpack: false });
        }
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
            parts,
            dest: to,
            owner: owner.filter(|o| !o.is_empty()),
            mode,
            parents: false,
            exclude: paths.exclude.iter().map(|p| p.clone().into_bytes()).collect(),
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
