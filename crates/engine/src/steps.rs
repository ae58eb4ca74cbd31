//! Steps of a build for people: what a Dockerfile said, without what builders add to it.

/// A step as a Dockerfile has it: `/bin/sh -c #(nop)  CMD ["sh"]` is `CMD ["sh"]`, and `RUN |1 A=b /bin/sh -c make #
/// buildkit` is `RUN make`. Text that is none of these stays, on one line.
pub(crate) fn tidy(created_by: &str) -> String {
    let text = created_by.split_whitespace().collect::<Vec<_>>().join(" ");
    let text = text.strip_suffix("# buildkit").map_or(text.as_str(), str::trim_end);
    let (run, rest) = text.strip_prefix("RUN ").map_or((false, text), |rest| (true, rest));
    let rest = without_arguments(rest);
    match rest.strip_prefix("/bin/sh -c ") {
        Some(step) => match step.strip_prefix("#(nop)") {
            Some(step) => step.trim_start().to_owned(),
            None => format!("RUN {step}"),
        },
        None if run => format!("RUN {rest}"),
        None => rest.to_owned(),
    }
}

/// Takes the arguments of the build away that stand before a command: `|2 A=b C=d e /bin/sh -c ...`.
fn without_arguments(text: &str) -> &str {
    let Some((count, rest)) = text.strip_prefix('|').and_then(|t| t.split_once(' ')) else { return text };
    let Ok(count) = count.parse::<usize>() else { return text };
    // Their values may have spaces in them; most commands start with the shell.
    if let Some(at) = rest.find("/bin/sh -c ").filter(|at| *at == 0 || rest[..*at].ends_with(' ')) {
        return &rest[at..];
    }
    let mut rest = rest;
    for _ in 0..count {
        let Some((_, after)) = rest.split_once(' ') else { return text };
        rest = after;
    }
    rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn builders_words_are_taken_away() {
        for (raw, want) in [
            ("/bin/sh -c #(nop)  CMD [\"sh\"]", "CMD [\"sh\"]"),
            ("/bin/sh -c #(nop) ADD file:0123 in / ", "ADD file:0123 in /"),
            (
                "/bin/sh -c apt-get update &&\t\n   apt-get install x",
                "RUN apt-get update && apt-get install x",
            ),
            ("|1 VERSION=1.2 /bin/sh -c make $VERSION", "RUN make $VERSION"),
            ("|2 A=b c D=e /bin/sh -c make", "RUN make"),
            ("|1 A=b /usr/bin/prog --x", "/usr/bin/prog --x"),
            ("RUN /bin/sh -c echo hi # buildkit", "RUN echo hi"),
            ("RUN |1 A=b /bin/sh -c echo hi # buildkit", "RUN echo hi"),
            ("RUN |1 A=b /bin/bash -c echo hi # buildkit", "RUN /bin/bash -c echo hi"),
            ("COPY /src /dst # buildkit", "COPY /src /dst"),
            ("sh -c echo text", "sh -c echo text"),
            ("|x", "|x"),
            ("|9 a", "|9 a"),
            ("", ""),
        ] {
            assert_eq!(tidy(raw), want, "{raw}");
        }
    }
}
