//! A pseudo-terminal, which `script` (util-linux) makes, and a command in it.

// Each test program uses its own part of this.
#![allow(dead_code)]

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

pub struct Terminal {
    pub script: Child,
    keys: ChildStdin,
    record: PathBuf,
    pid: PathBuf,
}

impl Terminal {
    /// Starts a shell command in a terminal of 100 x 30 characters.
    pub fn start(root: &Path, name: &str, command: &str) -> Self {
        let (record, pid) = (root.join(format!("record-{name}")), root.join(format!("pid-{name}")));
        let command = format!("stty cols 100 rows 30; echo $$ > {}; exec {command}", pid.display());
        let mut script = Command::new("script")
            .args(["-qfec", &command])
            .arg(&record)
            .current_dir(root)
            .env("TERM", "xterm-256color")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("`script` of util-linux makes the terminal");
        let keys = script.stdin.take().unwrap();
        Self { script, keys, record, pid }
    }

    /// All that the command has written so far.
    pub fn written(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.record).unwrap_or_default()).into_owned()
    }

    /// Waits until this has been written.
    pub fn sees(&self, what: &str) {
        wait(&format!("`{}` on the terminal", what.escape_debug()), || self.written().contains(what));
    }

    pub fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
        self.keys.flush().unwrap();
    }

    pub fn pid(&self) -> String {
        fs::read_to_string(&self.pid).unwrap().trim().to_string()
    }

    pub fn signal(&self, signal: &str) {
        assert!(Command::new("kill").args([&format!("-{signal}"), &self.pid()]).status().unwrap().success());
    }

    /// Waits for the end, with the terminal as it was before.
    pub fn ends(mut self) -> (ExitStatus, String) {
        self.sees("\x1b[?1049l");
        self.sees("\x1b[?25h");
        drop(self.keys);
        let status = self.script.wait().unwrap();
        (status, String::from_utf8_lossy(&fs::read(&self.record).unwrap()).into_owned())
    }
}

/// Waits until something holds.
pub fn wait(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "never came: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
