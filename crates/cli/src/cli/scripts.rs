//! `completion`: scripts that make a shell ask this program what may come next.

use super::{Parsed, unknown, wrong};
use crate::error::{Failure, Result};
use crate::flags::{self, BOOL, Flag, flag};

const SHELLS: &[&str] = &["bash", "fish", "zsh"];

const FLAGS: &[Flag] = &[flag("no-descriptions", BOOL, "disable completion descriptions")];

// Bash splits words at colons and equals signs, which names of images have; so the line is split here.
const BASH: &str = r#"# bash completion for PROGRAM                               -*- shell-script -*-

__PROGRAM_complete()
{
    local line="${COMP_LINE:0:COMP_POINT}" words out directive cur keep i
    read -r -a words <<< "$line"
    [[ "$line" == *[[:space:]] ]] && words+=("")
    cur="${words[${#words[@]}-1]}"
    out="$("${words[0]}" COMMAND "${words[@]:1}" 2>/dev/null)" || return
    directive="${out##*$'\n'}"
    directive="${directive#:}"
    out="${out%$'\n'*}"
    [[ "$out" == ":$directive" ]] && out=""
    # Of an option with its value only the value is completed.
    [[ "$cur" == -*=* ]] && cur="${cur#*=}"
    COMPREPLY=()
    if [[ -n "$out" ]]; then
        while IFS=$'\t' read -r i _; do
            [[ "$i" == "$cur"* ]] && COMPREPLY+=("$i")
        done <<< "$out"
    fi
    # What stands before the last colon or equals sign is on the line already.
    keep="${cur%"${cur##*[:=]}"}"
    if [[ -n "$keep" && "$COMP_WORDBREAKS" == *[:=]* ]]; then
        for i in "${!COMPREPLY[@]}"; do
            COMPREPLY[i]="${COMPREPLY[i]#"$keep"}"
        done
    fi
    if (( (directive & 2) != 0 )); then
        compopt -o nospace 2>/dev/null
    fi
    if [[ ${#COMPREPLY[@]} -eq 0 ]] && (( (directive & 4) == 0 )); then
        compopt -o default 2>/dev/null
    fi
    return 0
}

complete -F __PROGRAM_complete PROGRAM
"#;

const ZSH: &str = r#"#compdef PROGRAM
compdef _PROGRAM PROGRAM

_PROGRAM()
{
    local out directive line name about
    local -a items words_
    words_=("${(@)words[2,CURRENT]}")
    out="$("${words[1]}" COMMAND "${words_[@]}" 2>/dev/null)" || return
    directive="${out##*:}"
    for line in "${(@f)out}"; do
        [[ "$line" == :<-> || -z "$line" ]] && continue
        name="${line%%$'\t'*}"
        about=""
        [[ "$line" == *$'\t'* ]] && about=":${line#*$'\t'}"
        items+=("${name//:/\\:}$about")
    done
    if (( ${#items} )); then
        if (( (directive & 2) != 0 )); then
            _describe -V completions items -S ''
        else
            _describe -V completions items
        fi
    elif (( (directive & 4) == 0 )); then
        _files
    fi
}

# Run at once when the function is loaded by the completion system.
if [ "$funcstack[1]" = "_PROGRAM" ]; then
    _PROGRAM
fi
"#;

const FISH: &str = r#"# fish completion for PROGRAM                              -*- shell-script -*-

function __PROGRAM_ask
    set -l words (commandline -opc)
    set -l out ($words[1] COMMAND $words[2..-1] (commandline -ct) 2>/dev/null)
    or return 1
    set -g __PROGRAM_directive (string replace -r '^:' '' -- $out[-1])
    set -g __PROGRAM_items $out[1..-2]
    test (count $__PROGRAM_items) -gt 0
end

function __PROGRAM_files
    not __PROGRAM_ask
    and test (math "bitand($__PROGRAM_directive, 4)") -eq 0
end

complete -c PROGRAM -e
complete -c PROGRAM -n '__PROGRAM_ask' -f -a '$__PROGRAM_items'
complete -c PROGRAM -n '__PROGRAM_files' -F
"#;

/// `completion` and its shells.
pub(super) fn parse(program: &str, words: &[String]) -> Result<Parsed> {
    let path = format!("{program} completion");
    let m = flags::parse(FLAGS, words, true).map_err(|e| wrong(&e, &path, &path))?;
    let args: Vec<String> = m.args().into();
    let Some(shell) = args.first().filter(|_| !m.help) else {
        return Ok(Parsed::Show { text: help(program), error: false });
    };
    if let Some(extra) = args.get(1) {
        return Err(Failure::new(format!("unknown command {extra:?} for \"{path} {shell}\"")));
    }
    let script = match shell.as_str() {
        "bash" => BASH,
        "zsh" => ZSH,
        "fish" => FISH,
        "powershell" => return Err(unknown(program, &format!("{path} {shell}"), true, "")),
        _ => {
            let known = SHELLS.join(", ");
            return Err(Failure::new(format!("{program}: unknown shell: {shell}; known are {known}")));
        }
    };
    let plain = flags::values::truth(m.last("no-descriptions")) == Some(true);
    let command = if plain { "__completeNoDesc" } else { "__complete" };
    let text = script.replace("PROGRAM", program).replace("COMMAND", command);
    Ok(Parsed::Show { text, error: false })
}

/// What `completion --help` says.
pub(super) fn help(program: &str) -> String {
    format!(
        "Usage:  {program} completion COMMAND\n\n\
         Generate the autocompletion script for {program} for the specified shell.\n\n\
         Commands:\n  \
         bash        source <({program} completion bash)\n  \
         fish        {program} completion fish | source\n  \
         zsh         source <({program} completion zsh)\n\n\
         Options:\n      --no-descriptions   disable completion descriptions\n"
    )
}
