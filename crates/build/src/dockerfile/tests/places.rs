use super::super::*;

#[test]
fn instructions_know_where_they_are() {
    let file = super::file("\n# x\n  FROM a\nRUN b \\\n  c\n\nCOPY <<E /\nx\nE\n");
    let spans: Vec<_> =
        file.instructions.iter().map(|i| (i.span.line, i.span.end_line, i.span.column)).collect();
    assert_eq!(spans, [(3, 3, 3), (4, 5, 1), (7, 9, 1)]);
}

#[test]
fn an_excerpt_as_docker_shows_it() {
    let check = |text: &str, want: &str| {
        let error = parse(text.as_bytes()).unwrap_err();
        assert_eq!(error.render("Dockerfile", text.as_bytes()), want, "{error}");
    };
    check(
        "FROM a\nRUN b\nRNU c\nRUN d\nRUN e\nRUN f\n",
        "Dockerfile:3\n--------------------\n   1 |     FROM a\n   2 |     RUN b\n   3 | >>> RNU c\n   4 |     RUN d\n   5 |     RUN e\n--------------------\n",
    );
    check(
        "FROM a\nCOPY \\\n  b\nRUN d\nRUN e\n",
        "Dockerfile:2\n--------------------\n   1 |     FROM a\n   2 | >>> COPY \\\n   3 | >>>   b\n   4 |     RUN d\n--------------------\n",
    );
    check(
        "RNU a\u{1b}[31m\r\n",
        "Dockerfile:1\n--------------------\n   1 | >>> RNU a\u{fffd}[31m\n   2 |     \n--------------------\n",
    );
    assert_eq!(parse(b"").unwrap_err().render("Dockerfile", b""), "");
    let long = format!("X{}", "y".repeat(1000));
    assert!(parse(long.as_bytes()).unwrap_err().render("D", long.as_bytes()).len() < 600);
}

#[test]
fn errors_name_line_and_column() {
    let check = |text: &str, line: u32, column: u32| {
        let span = parse(text.as_bytes()).unwrap_err().span;
        assert_eq!((span.line, span.column), (line, column), "{text}");
    };
    check("FROM a\n  NOT b\n", 2, 3);
    check("FROM a\nCOPY \\\n  # c\n  --chwn=1 \\\n  a b", 4, 3);
    check("FROM a\nRUN --mount=type=cache,target=/é --network=x y", 2, 34);
    check("FROM a\nONBUILD COPY \\\n   --x a b", 3, 4);
}
