//! Misuse of the derive that compiles, or whose message does not say what to write instead; and
//! proper use that does not compile under strict lints or beside unlucky names.

#[test]
fn misuse_is_refused_where_it_stands() {
    let cases = trybuild::TestCases::new();
    cases.compile_fail("tests/ui/*.rs");
    cases.pass("tests/ui/pass/*.rs");
}
