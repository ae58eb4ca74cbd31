use super::ast::Span;
use super::limits;
use super::mount::MountError;
use std::fmt;

/// Why a file is not a Dockerfile, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseError {
    /// What is wrong.
    pub kind: ParseErrorKind,
    /// The instruction or line that it is wrong in; `line` is 0 where it is the file as a whole.
    pub span: Span,
}

impl std::error::Error for ParseError {}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.span.line, self.span.column) {
            (0, _) => write!(f, "dockerfile parse error: {}", self.kind),
            // What is wrong with an instruction as a whole reads as it does elsewhere.
            (line, 0 | 1) => write!(f, "dockerfile parse error on line {line}: {}", self.kind),
            (line, column) => {
                write!(f, "dockerfile parse error on line {line}, column {column}: {}", self.kind)
            }
        }
    }
}

impl ParseError {
    /// The lines around the mistake, those it is in marked: what Docker prints above its error.
    ///
    /// `name` is the file's name, `source` its bytes. Empty where there is no such line.
    #[must_use]
    pub fn render(&self, name: &str, source: &[u8]) -> String {
        render(name, source, self.span)
    }
}

/// The lines of `source` around `span`, in Docker's layout (`Dockerfile:3`, then lines marked with `>>>`).
///
/// Two lines before and after, four where only one line is meant; long lines are cut. Empty for a line that is not there.
#[must_use]
pub fn render(name: &str, source: &[u8], span: Span) -> String {
    let lines: Vec<&[u8]> = source.split(|b| *b == b'\n').collect();
    let (first, last) = (span.line as usize, (span.end_line.max(span.line) as usize).min(lines.len()));
    if first == 0 || first > lines.len() {
        return String::new();
    }
    let (mut start, mut end) = (first, last);
    // Docker counts a row on each side as one step and a further one for both, so two rows for many lines, four for one.
    let pad = if start == end { 4 } else { 2 };
    let mut done = 0;
    while done < pad {
        if start > 1 {
            start -= 1;
            done += 1;
        }
        if end != lines.len() {
            end += 1;
            done += 1;
        }
        done += 1;
    }
    const RULE: &str = "--------------------\n";
    let mut out = format!("{name}:{first}\n{RULE}");
    for (i, line) in lines.iter().enumerate().take(end).skip(start - 1) {
        let mark = if (first..=last).contains(&(i + 1)) { ">>>" } else { "   " };
        out.push_str(&format!(" {:3} | {mark} {}\n", i + 1, shown(line)));
    }
    out.push_str(RULE);
    out
}

/// A line as it may go to a terminal.
fn shown(line: &[u8]) -> String {
    const MAX: usize = 400;
    let cut = line.get(..MAX).unwrap_or(line);
    let mut out: String = String::from_utf8_lossy(cut)
        .chars()
        .filter(|c| *c != '\r')
        .map(|c| if c.is_control() && c != '\t' { '\u{fffd}' } else { c })
        .collect();
    if cut.len() < line.len() {
        out.push_str("...");
    }
    out
}

/// What is wrong; the words are Docker's where it has any.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum ParseErrorKind {
    #[error("the Dockerfile cannot be empty")]
    Empty,
    #[error("file with no instructions")]
    NoInstructions,
    #[error("the file has {0} bytes: it may have {max}", max = limits::MAX_FILE)]
    FileTooLarge(usize),
    #[error("the line has more than {max} bytes: put long data into a file and copy that", max = limits::MAX_LINE)]
    LineTooLong,
    #[error("the instructions have more than {max} bytes: put long data into files and copy those", max = limits::MAX_TEXT)]
    TextTooLong,
    #[error("more than {max} instructions", max = limits::MAX_INSTRUCTIONS)]
    TooManyInstructions,
    #[error("more than {max} words in one instruction", max = limits::MAX_WORDS)]
    TooManyWords,
    #[error("more than {max} heredocs in one instruction", max = limits::MAX_HEREDOCS)]
    TooManyHeredocs,
    #[error("the line is not valid UTF-8: save the file as UTF-8")]
    NotUtf8,
    #[error("the line has a NUL character: the file is not text")]
    Nul,
    #[error("unknown instruction: {name}{hint}")]
    UnknownInstruction { name: String, hint: Hint },
    #[error("only one {0} parser directive can be used")]
    DuplicateDirective(&'static str),
    #[error("invalid escape token '{0}' does not match ` or \\")]
    EscapeToken(String),
    #[error("invalid check option {0:?}")]
    CheckOption(String),
    #[error("unknown flag: --{name}{hint}")]
    UnknownFlag { name: String, hint: Hint },
    #[error("duplicate flag specified: --{0}")]
    DuplicateFlag(String),
    #[error("missing a value on flag: --{0}")]
    FlagValue(String),
    #[error("expecting boolean value for flag --{name}, not: {value}")]
    FlagBool { name: String, value: String },
    #[error("invalid network mode {0:?}: want default, none or host")]
    Network(String),
    #[error("security {0:?} is not valid: want sandbox or insecure")]
    Security(String),
    #[error("unterminated heredoc: no line {0:?} before the end of the file")]
    Unterminated(String),
    #[error("heredoc {0:?} is not the source of anything: write <<{0} as a word of its own")]
    UnusedHeredoc(String),
    #[error("{0} cannot accept a heredoc as a destination")]
    HeredocDest(&'static str),
    #[error("when using JSON array syntax, arrays must be comprised of strings only")]
    NotStrings,
    #[error("{0} requires the arguments to be in JSON form")]
    NotJson(&'static str),
    #[error("{0} requires at least one argument")]
    AtLeastOne(&'static str),
    #[error("{0} requires exactly one argument")]
    ExactlyOne(&'static str),
    #[error(
        "{0} requires at least two arguments, but only one was provided. Destination could not be determined"
    )]
    NoDestination(&'static str),
    #[error("{0} must have two arguments")]
    TwoArguments(&'static str),
    #[error("{0} names can not be blank")]
    BlankName(&'static str),
    #[error("syntax error - can't find = in {0:?}. Must be of the form: name=value")]
    NoEquals(String),
    #[error("FROM requires either one or three arguments")]
    FromArguments,
    #[error("invalid name for build stage: {0:?}, name can't start with a number or contain symbols")]
    StageName(String),
    #[error("no build stage in current context: start with FROM")]
    NoStage,
    #[error("HEALTHCHECK NONE takes no arguments")]
    HealthNone,
    #[error("missing command after HEALTHCHECK CMD")]
    HealthCommand,
    #[error("unknown type {0:?} in HEALTHCHECK (try CMD)")]
    HealthType(String),
    #[error("invalid duration {value:?} of --{flag}: want for example 1m30s")]
    Duration { flag: &'static str, value: String },
    #[error("interval {0:?} cannot be less than 1ms")]
    ShortDuration(&'static str),
    #[error("invalid value {0:?} of --retries: want a number from 0 to 2147483647")]
    Retries(String),
    #[error("chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed")]
    OnbuildChain,
    #[error("{0} isn't allowed as an ONBUILD trigger")]
    OnbuildTrigger(&'static str),
    #[error("onbuild trigger should be a single expression")]
    OnbuildSingle,
    #[error("the base image has {0} ONBUILD triggers: it may have {max}", max = limits::MAX_TRIGGERS)]
    TooManyTriggers(usize),
    #[error("VOLUME specified can not be an empty string")]
    EmptyVolume,
    #[error(
        "variable expansion is not supported for --from, define a new stage with FROM using ARG from global scope as a workaround"
    )]
    FromExpansion,
    #[error("invalid device {0:?}: want name=vendor/class[=name][,required]")]
    Device(String),
    #[error(transparent)]
    Mount(#[from] MountError),
}

/// ` (did you mean COPY?)`, or nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hint(pub Option<String>);

impl fmt::Display for Hint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(s) => write!(f, " (did you mean {s}?)"),
            None => Ok(()),
        }
    }
}
