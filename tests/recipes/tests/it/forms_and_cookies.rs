//! A form and a cookie.

use super::support::{Folder, Page, Reply};
use super::{get, post};

const FORM: &str = "Content-Type: application/x-www-form-urlencoded\r\n";
const SECRET: &str = "a secret of at least 64 bytes, which stays the same when it restarts";

fn start(folder: &Folder) -> Page {
    Page::start(env!("CARGO_BIN_EXE_forms_and_cookies"), folder, |command| _ = command.env("SESSION_KEY", SECRET))
}

/// The cookie as the browser sends it back.
fn cookie(reply: &Reply) -> String {
    let set = reply.field("set-cookie").expect("a cookie");
    format!("Cookie: other=1; {}\r\n", set.split(';').next().unwrap())
}

#[test]
fn whoever_has_filled_in_the_form_is_known_also_after_a_restart() {
    let folder = Folder::new("forms");
    let page = start(&folder);
    let mut client = page.connect();
    assert!(client.ask(get("/", "")).text().contains("Your name"));

    let entered = client.ask(post("/enter", FORM, "other=1&name=+%3CEve%3E+%22%26%22+w%C3%B6rld"));
    assert_eq!((entered.status, entered.field("location")), (303, Some("/")));
    let set = entered.field("set-cookie").unwrap();
    for part in ["__Host-session=", "; HttpOnly", "; SameSite=Lax", "; Secure", "; Path=/", "; Max-Age=604800"] {
        assert!(set.contains(part), "{part} is not in {set}");
    }
    let inside = client.ask(get("/", &cookie(&entered)));
    assert!(inside.text().contains("Hello, &lt;Eve> &quot;&amp;&quot; wörld!"), "{}", inside.text());
    assert_eq!(page.stop(), Some(0));

    let page = start(&folder);
    let mut client = page.connect();
    assert!(client.ask(get("/", &cookie(&entered))).text().contains("Hello"));
    let left = client.ask(post("/leave", &cookie(&entered), ""));
    assert_eq!(left.status, 303);
    let set = left.field("set-cookie").unwrap();
    assert!(set.contains("Max-Age=0") && set.contains("; Secure") && set.contains("; Path=/"), "{set}");
    assert!(client.ask(get("/", &cookie(&left))).text().contains("Your name"));
    assert_eq!(page.stop(), Some(0));
}

#[test]
fn a_cookie_that_is_not_ours_is_nobodys() {
    let folder = Folder::new("forms_cookies");
    let page = start(&folder);
    let mut client = page.connect();
    let good = cookie(&client.ask(post("/enter", FORM, "name=eve")));
    assert!(client.ask(get("/", &good)).text().contains("Hello, eve!"));
    let cases = [
        good.replace("eve", "adam"),
        good.replace("__Host-session=", "__Host-session=x"),
        "Cookie: __Host-session=9999999999%20eve\r\n".to_owned(),
        "Cookie: __Host-session=\r\n".to_owned(),
        "Cookie: ;;=;%\r\n".to_owned(),
    ];
    for cookie in cases {
        assert!(client.ask(get("/", &cookie)).text().contains("Your name"), "{cookie}");
    }
    assert_eq!(page.stop(), Some(0));
}

#[test]
fn other_sites_post_nothing_in_a_visitors_name() {
    let folder = Folder::new("forms_sites");
    let page = start(&folder);
    let mut client = page.connect();
    let cases = [
        ("", 303),
        ("Sec-Fetch-Site: same-origin\r\nOrigin: http://test\r\n", 303),
        ("Sec-Fetch-Site: none\r\n", 303),
        ("Sec-Fetch-Site: cross-site\r\n", 403),
        ("Sec-Fetch-Site: same-site\r\nOrigin: http://test\r\n", 403),
        ("Origin: http://test\r\n", 303),
        ("Origin: https://test\r\n", 303),
        ("Origin: http://evil.example\r\n", 403),
        ("Origin: http://test:81\r\n", 403),
        ("Origin: null\r\n", 403),
    ];
    for (fields, status) in cases {
        let reply = client.ask(post("/enter", &format!("{FORM}{fields}"), "name=eve"));
        assert_eq!(reply.status, status, "{fields}");
    }
    // To look is allowed to everybody.
    assert_eq!(client.ask(get("/", "Sec-Fetch-Site: cross-site\r\n")).status, 200);
    assert_eq!(page.stop(), Some(0));
}

#[test]
fn a_form_that_is_none_is_refused() {
    let folder = Folder::new("forms_refused");
    let page = start(&folder);
    let mut client = page.connect();
    assert_eq!(client.ask(post("/enter", "Content-Type: application/json\r\n", "{}")).status, 415);
    for body in ["", "name=", "name=+++", "nam=eve", &format!("name={}", "x".repeat(101))] {
        assert_eq!(client.ask(post("/enter", FORM, body)).status, 422, "{body}");
    }
    assert_eq!(client.ask(get("/enter", "")).status, 405);
    assert_eq!(page.stop(), Some(0));
}
