//! A child process that works when it is told to: one line of JSON for each request, one for each answer.
//!
//! ```text
//! -> the case                   <- {"version": ...} (warm), or {"why": "..."} (it cannot take part)
//! -> {"seconds": 3.0}           <- {"faces": 4096, "seconds": 3.02, "peak_bytes": 123}; with "shaders": true (ours only) also what they took
//! -> end of input               it leaves
//! ```
//! A child that dies, or says something else, is an error with the last lines of its standard error. Dropping a contestant ends its process.

use super::{Case, Ready, Turn};
use anyhow::{Context, Result, bail};
use serde_json::json;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// For setting up: GPUs compile and tune hundreds of kernels the first time.
const SET_UP: Duration = Duration::from_secs(900);
/// Beyond the seconds of a turn.
const LATE: Duration = Duration::from_secs(300);
/// For leaving after the end of input.
const LEAVE: Duration = Duration::from_secs(3);
/// Lines of standard error that an error shows.
const LAST: usize = 4;

pub struct Contestant {
    name: &'static str,
    child: Child,
    /// None once it is to leave.
    input: Option<ChildStdin>,
    answers: Receiver<String>,
    said: Option<JoinHandle<Vec<String>>>,
    pub ready: Ready,
}

impl Contestant {
    /// Starts a process and waits until it is warm. Inner error: why it cannot take part.
    ///
    /// # Errors
    /// It does not start, dies, or answers something else.
    pub fn start(name: &'static str, mut command: Command, case: &Case) -> Result<Result<Self, String>> {
        let program = command.get_program().to_string_lossy().into_owned();
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = child.with_context(|| format!("starting {program}"))?;
        let (input, out, err) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (tell, answers) = mpsc::channel();
        if let Some(out) = out {
            std::thread::spawn(move || BufReader::new(out).lines().map_while(Result::ok).try_for_each(|line| tell.send(line)));
        }
        let said = err.map(|err| std::thread::spawn(move || last_lines(err)));
        let placeholder =
            Ready { version: String::new(), device: String::new(), is_cpu: true, threads: 0, parameters: None, details: json!(null) };
        let mut contestant = Self { name, child, input, answers, said, ready: placeholder };
        let answer = contestant.ask(&serde_json::to_string(case)?, SET_UP)?;
        if let Some(why) = answer.get("why") {
            return Ok(Err(why.as_str().map_or_else(|| why.to_string(), str::to_string)));
        }
        match serde_json::from_value(answer.clone()) {
            Ok(ready) => contestant.ready = ready,
            Err(e) => bail!("{name} answers {answer}: {e}"),
        }
        Ok(Ok(contestant))
    }

    /// Lets it work for about so many seconds.
    ///
    /// # Errors
    /// It dies, is far too late, or answers something else.
    pub fn work(&mut self, seconds: f64) -> Result<Turn> {
        self.turn(&json!({"seconds": seconds}), seconds)
    }

    /// The same, with the time of each shader taken.
    ///
    /// # Errors
    /// As [`Contestant::work`].
    pub fn time_shaders(&mut self, seconds: f64) -> Result<Turn> {
        self.turn(&json!({"seconds": seconds, "shaders": true}), seconds)
    }

    fn turn(&mut self, request: &serde_json::Value, seconds: f64) -> Result<Turn> {
        let answer = self.ask(&request.to_string(), LATE + Duration::from_secs_f64(seconds))?;
        match serde_json::from_value::<Turn>(answer.clone()) {
            Ok(turn) if turn.faces > 0 && turn.seconds > 0.0 => Ok(turn),
            Ok(_) => bail!("{} did nothing: {answer}", self.name),
            Err(e) => bail!("{} answers {answer}: {e}", self.name),
        }
    }

    fn ask(&mut self, line: &str, patience: Duration) -> Result<serde_json::Value> {
        // A child that has died cannot be written to; why it died is told below.
        let sent = self.input.as_mut().map(|input| writeln!(input, "{line}").and_then(|()| input.flush()));
        if !matches!(sent, Some(Ok(()))) {
            self.input = None;
        }
        match self.answers.recv_timeout(patience) {
            Ok(answer) => {
                serde_json::from_str(&answer).map_err(|e| anyhow::anyhow!("{} answers `{answer}`, which is no JSON: {e}", self.name))
            }
            Err(mpsc::RecvTimeoutError::Timeout) => bail!("{} has not answered for {} s", self.name, patience.as_secs()),
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                self.end();
                let status = self.child.wait().map_or_else(|e| e.to_string(), |status| status.to_string());
                let said = self.said.take().and_then(|said| said.join().ok()).unwrap_or_default();
                let said = if said.is_empty() { "it said nothing".to_string() } else { said.join(" | ") };
                bail!("{} ended ({status}): {said}", self.name)
            }
        }
    }

    /// Lets the process leave, or ends it.
    fn end(&mut self) {
        self.input = None;
        let began = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) {
            if began.elapsed() > LEAVE {
                // Nothing more can be done about a process that cannot be ended.
                let _ = self.child.kill();
                let _ = self.child.wait();
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Contestant {
    fn drop(&mut self) {
        self.end();
    }
}

fn last_lines(err: impl Read) -> Vec<String> {
    let mut last = Vec::new();
    for line in BufReader::new(err).lines().map_while(Result::ok).filter(|line| !line.trim().is_empty()) {
        if last.len() == LAST {
            last.remove(0);
        }
        last.push(line.trim().to_string());
    }
    last
}
