//! What the compiler says to somebody who begins: each mistake has a first line that names its cause.
//!
//! The compiler is called on programs of a few lines, and its words change from one to the next: what is held is the
//! error's number and what the line is about.

use std::path::PathBuf;
use std::process::Command;
use std::time::SystemTime;

use crate::support::skip;

/// This crate as it was built for this test: the newest of those that lie beside it.
fn library() -> (PathBuf, PathBuf) {
    let folder = std::env::current_exe().unwrap().parent().unwrap().to_owned();
    let is_ours = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with("liballout-") && name.ends_with(".rlib")
    };
    let built = |path: &PathBuf| path.metadata().and_then(|file| file.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
    let found = folder.read_dir().unwrap().filter_map(|entry| Some(entry.ok()?.path())).filter(is_ours);
    let newest = found.max_by_key(built).expect("this crate's library beside its test");
    (folder, newest)
}

/// The first line of an error in a function that makes a router; `None` if there is none.
fn first_error(number: usize, code: &str) -> Option<String> {
    let (folder, library) = library();
    let source = std::env::temp_dir().join(format!("allout-compile-{}-{number}.rs", std::process::id()));
    let code =
        format!("#![allow(unused)]\nuse allout::{{Request, Response, Router, Status}};\n{code}\nfn main() {{}}\n");
    std::fs::write(&source, code).unwrap();
    let output = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()))
        .args(["--edition", "2024", "--emit", "metadata", "--color", "never", "-o"])
        .arg(source.with_extension("rmeta"))
        .arg("-L")
        .arg(format!("dependency={}", folder.display()))
        .arg("--extern")
        .arg(format!("allout={}", library.display()))
        .arg(&source)
        .output()
        .unwrap();
    let _ = (std::fs::remove_file(&source), std::fs::remove_file(source.with_extension("rmeta")));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (!output.status.success()).then(|| said.lines().find(|line| line.starts_with("error")).expect(&said).to_owned())
}

/// False, told, for a crate that was built for another machine than the one that compiles.
fn is_for_this_machine() -> bool {
    let is_other = first_error(usize::MAX, "").is_some_and(|line| line.contains("E0461"));
    if is_other {
        skip("the crate is built for another machine");
    }
    !is_other
}

const NO_RESPONSE: &str = "error[E0277]: the trait bound `";

/// A mistake, and what the first line about it says.
const MISTAKES: [(&str, &[&str]); 10] = [
    ("fn f() -> Router { Router::new().get(\"/\", |_| 42) }", &[NO_RESPONSE, "Response: From<", "integer"]),
    (
        "fn f() -> Router { Router::new().get(\"/\", |_| { Response::text(\"a\"); }) }",
        &[NO_RESPONSE, "Response: From<()>"],
    ),
    (
        "fn page(_: &Request<'_>) -> Result<Response, std::io::Error> { Ok(Response::text(\"\")) }
         fn f() -> Router { Router::new().get(\"/\", page) }",
        &[NO_RESPONSE, "Response: From<std::io::Error>"],
    ),
    (
        "async fn page(_: &Request<'_>) -> Response { Response::text(\"\") }
         fn f() -> Router { Router::new().get(\"/\", page) }",
        &[NO_RESPONSE, "Response: From<impl Future<"],
    ),
    (
        "fn page(_: Request<'_>) -> Response { Response::text(\"\") }
         fn f() -> Router { Router::new().get(\"/\", page) }",
        &["error[E0631]: type mismatch in function arguments"],
    ),
    (
        "fn f() -> Router {
             let n = std::rc::Rc::new(1);
             Router::new().get(\"/\", move |_| Response::text(n.to_string()))
         }",
        &["error[E0277]: `Rc<i32>` cannot be s", "between threads safely"],
    ),
    (
        "fn f() -> Router {
             let mut n = 0;
             Router::new().get(\"/\", move |_| {
                 n += 1;
                 Response::text(n.to_string())
             })
         }",
        &["error[E0594]: cannot assign to `n`", "in a `Fn` closure"],
    ),
    (
        "fn f() -> Router {
             let n = String::new();
             Router::new().get(\"/\", |_| Response::text(n.clone()))
         }",
        &["error[E0373]: closure may outlive the current function, but it borrows `n`"],
    ),
    ("fn f() { allout::around(42, |request, next| next(request)); }", &["error[E0277]: `{integer}` is no handler"]),
    (
        "fn f(server: allout::Server, stop: &allout::Stop) {
             let _ = server.run(std::sync::Arc::new(Router::new()), stop);
         }",
        &["error[E0277]: `Arc<Router>` is no handler"],
    ),
];

#[test]
fn the_first_line_about_a_beginners_mistake_names_its_cause() {
    if !is_for_this_machine() {
        return;
    }
    for (number, (code, wanted)) in MISTAKES.iter().enumerate() {
        let line = first_error(number, code).unwrap_or_else(|| panic!("it compiles: {code}"));
        assert!(wanted.iter().all(|part| line.contains(part)), "{line}\nfor {code}");
    }
}

#[test]
fn what_is_no_mistake_compiles() {
    if !is_for_this_machine() {
        return;
    }
    let code = "fn f() -> Router {
                    let n = String::new();
                    Router::new().get(\"/\", move |_| Response::text(n.clone())).put(\"/\", |_| Status::CREATED)
                }";
    assert_eq!(first_error(MISTAKES.len(), code), None);
}
