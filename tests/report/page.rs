//! What makes a page sound, read tag by tag and, where there is a Chromium, by a browser: it loads nothing, runs nothing, and fits a phone.

use super::sample::{Sample, generated};
use super::{report, text};
use std::collections::HashSet;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Self-contained, quiet, well-formed, small.
pub fn is_whole(page: &str) {
    assert!(page.len() < 5_000_000, "{} bytes", page.len());
    for foreign in ["http:", "https:", "//cdn", "<script", "<iframe", "<object", "<embed", "@import", "url(", "javascript:"] {
        assert!(!page.contains(foreign), "{foreign} in the page: {}", around(page, foreign));
    }
    let (mut open, mut ids, mut named): (Vec<&str>, HashSet<&str>, Vec<&str>) = Default::default();
    let mut rest = page.strip_prefix("<!DOCTYPE html>").expect("a document type");
    while let Some(start) = rest.find('<') {
        assert!(!rest[..start].contains('>') || open.contains(&"style"), "a loose `>` after {open:?}: {}", &rest[..start]);
        let (tag, after) = rest[start + 1..].split_once('>').expect("a tag ends");
        rest = after;
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop(), Some(name), "</{name}> closes something else");
            continue;
        }
        let (name, attributes) = tag.split_once(char::is_whitespace).unwrap_or((tag, ""));
        assert!(name.bytes().all(|b| b.is_ascii_alphanumeric()), "tag <{tag}>");
        for (key, value) in pairs(attributes) {
            assert!(!key.starts_with("on"), "{key} would be a script");
            match key {
                "src" | "href" => assert!(value.starts_with("data:") || value.starts_with('#'), "{key}={value}"),
                "id" => assert!(ids.insert(value), "two elements are called {value}"),
                "aria-labelledby" => named.extend(value.split(' ')),
                _ => {}
            }
            if let Some(anchor) = (key == "href").then(|| value.strip_prefix('#')).flatten() {
                named.push(anchor);
            }
            assert!(key != "d" || !value.contains("NaN") && !value.contains("inf"), "{name}: {value}");
        }
        if !["meta", "link", "input", "img"].contains(&name) {
            open.push(name);
        }
    }
    assert!(open.is_empty(), "never closed: {open:?}");
    for name in named {
        assert!(ids.contains(name), "nothing is called {name}");
    }
}

fn pairs(attributes: &str) -> Vec<(&str, &str)> {
    let mut pairs = Vec::new();
    let mut rest = attributes.trim_start();
    while !rest.is_empty() {
        let end = rest.find(['=', ' ']).unwrap_or(rest.len());
        let (key, after) = rest.split_at(end);
        match after.strip_prefix("=\"") {
            Some(after) => {
                let (value, after) = after.split_once('"').expect("a quoted value ends");
                pairs.push((key, value));
                rest = after.trim_start();
            }
            None => {
                pairs.push((key, ""));
                rest = after.trim_start();
            }
        }
    }
    pairs
}

fn around<'a>(page: &'a str, what: &'a str) -> &'a str {
    let at = page.find(what).unwrap();
    page.get(at.saturating_sub(60)..(at + 60).min(page.len())).unwrap_or(what)
}

/// Chromium by name, or where `MOUE_CHROMIUM` says.
fn chromium() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("MOUE_CHROMIUM") {
        return Some(path.into());
    }
    let names = ["chromium-headless-shell", "chromium", "chromium-browser", "google-chrome", "/usr/lib/chromium/chromium"];
    let found = |name: &&str| Command::new(name).arg("--version").output().is_ok_and(|o| o.status.success());
    names.into_iter().find(found).map(PathBuf::from)
}

/// What a browser makes of a page: the document, whether its console complained, and whether it asked the network for anything.
fn browse(chromium: &Path, root: &Path, page: &Path, width: u32) -> (String, bool, bool) {
    let log = root.join("net.json");
    let output = Command::new(chromium)
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-background-networking",
            "--disable-component-update",
            "--no-first-run",
        ])
        .args(["--enable-logging=stderr", "--virtual-time-budget=2000", "--dump-dom"])
        .arg(format!("--window-size={width},1200"))
        .arg(format!("--user-data-dir={}", root.join("profile").display()))
        .arg(format!("--log-net-log={}", log.display()))
        .arg(format!("file://{}", page.display()))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    // One event a line. What the browser wants for itself (its clock, its dictionaries) no page has initiated.
    let by_page = |line: &str| line.contains("\"initiator\":") && !line.contains("\"initiator\":\"not an origin\"");
    let asked = fs::read_to_string(log).unwrap().lines().any(|line| line.contains("\"url\":\"http") && by_page(line));
    (text(&output.stdout), text(&output.stderr).contains("CONSOLE"), asked)
}

#[test]
fn a_browser_has_nothing_to_complain_of_and_nothing_to_fetch() {
    let Some(chromium) = chromium() else {
        println!("skipped: no Chromium here (name one with MOUE_CHROMIUM)");
        return;
    };
    let root = tempfile::tempdir().unwrap();
    Sample::new("demo").write(root.path(), &generated(root.path()));
    let page = report(root.path(), &["demo"]);
    // First a page that does both: the test must be able to fail.
    let bad = root.path().join("bad.html");
    fs::write(&bad, "<!doctype html><img src=\"http://127.0.0.1:9/x.png\"><script>console.error('no')</script>").unwrap();
    let (_, complains, asks) = browse(&chromium, root.path(), &bad, 1280);
    assert!(complains && asks, "the browser notices neither errors nor requests");
    let path = root.path().join("page.html");
    let (document, complains, asks) = browse(&chromium, root.path(), &path, 1280);
    assert!(document.contains("Set-up") && !complains && !asks, "complains: {complains}, asks: {asks}");
    // A phone scrolls down, never sideways. The script that measures is the test's own, in a copy that allows it.
    let policy = page.find("<meta http-equiv").unwrap();
    let policy = policy..policy + page[policy..].find('>').unwrap() + 1;
    let measure =
        "<script>document.body.dataset.over = document.documentElement.scrollWidth - document.documentElement.clientWidth</script></body>";
    let mut copy = fs::File::create(&path).unwrap();
    copy.write_all(page.replace(&page[policy], "").replace("</body>", measure).as_bytes()).unwrap();
    drop(copy);
    for width in [390, 1280] {
        let (document, ..) = browse(&chromium, root.path(), &path, width);
        let over = document.split("data-over=\"").nth(1).and_then(|t| t.split('"').next());
        assert_eq!(over, Some("0"), "pixels wider than the window at {width}");
    }
}
