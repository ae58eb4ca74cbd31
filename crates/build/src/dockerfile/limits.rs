//! What a Dockerfile may cost. None of these is near what people write; all are far below what would hurt.

/// Bytes of a whole file, heredocs included.
pub const MAX_FILE: usize = 16 << 20;
/// Bytes of one line, and of one instruction after its continuation lines are joined.
pub const MAX_LINE: usize = 1 << 20;
/// Bytes of all instructions and the comments that belong to them, without heredocs.
pub const MAX_TEXT: usize = 2 << 20;
/// Instructions in a file.
pub const MAX_INSTRUCTIONS: usize = 20_000;
/// Stages in a file.
pub const MAX_STAGES: usize = 1_000;
/// Words, flags or pairs of one instruction.
pub const MAX_WORDS: usize = 10_000;
/// Heredocs of one instruction.
pub const MAX_HEREDOCS: usize = 64;
/// `ONBUILD` triggers that a base image may bring along.
pub const MAX_TRIGGERS: usize = 1_000;
/// Bytes that the expansion of a word may give.
pub const MAX_WORD: usize = 2 << 20;
/// Bytes that the expansion of a heredoc or of a whole command may give.
pub const MAX_EXPANDED: usize = 16 << 20;
/// `${a:-${b:-${c}}}`: how deep.
pub const MAX_NESTING: usize = 64;
/// Steps of all pattern matches (`${a#*b}`) of one expansion.
pub const MAX_STEPS: usize = 20_000_000;
