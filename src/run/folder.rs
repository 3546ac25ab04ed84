//! The run folder: where each thing of a run lies, and how files get there whole.
//!
//! ```text
//! runs/<name>/  manifest.json   what was asked for, on which data and device
//!               events.jsonl    what happened; the truth that all views are made from
//!               metrics.csv     the events' numbers as a table (derived)
//!               labels.csv      the final label confidence of each face
//!               candidates.csv  candidate sets from predictions
//!               history/        how each ambiguous face's confidences moved, a file for each objective that decides labels
//!               predictions/    what each finished objective's model says about every face
//!               calibration.json  temperatures that calibrate the probabilities of each network
//!               log.txt         the progress lines
//!               report.html     the page of `moue report`
//!               checkpoints/
//!               fault/          the step and the batch that ended a training whose numbers were no longer finite
//!               media/          what pretraining predicts of a few faces, pictures beside its checkpoints
//! ```
//! A new run never goes into a folder that holds something: neither an earlier run nor anything else is overwritten. Files other than
//! `events.jsonl`, `log.txt` and the histories, which grow, are written under a temporary name, synced and renamed ([`write_atomic`]), so
//! none is ever seen half done.

use super::clock;
use crate::usage;
use anyhow::{Context, Result};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

/// Tries, 10 ms apart, to lock a run that somebody has locked.
const GLANCES: usize = 5;
/// How temporary files begin and end.
const PART: (&str, &str) = (".moue-", ".part");

/// Keeps every other process from writing a run, until it is dropped.
#[derive(Debug)]
pub struct Lock(#[expect(dead_code, reason = "the lock lives as long as the file is open")] File);

/// An existing run folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunFolder {
    path: PathBuf,
}

impl RunFolder {
    /// Makes the folder of a new run at `path` (and its parents).
    ///
    /// # Errors
    /// [`Usage`](crate::failure::Usage) where `path` exists and is not an empty folder.
    pub fn create(path: &Path) -> Result<Self> {
        match fs::read_dir(path) {
            Ok(mut entries) => {
                if is_run(path) {
                    usage!("{} already holds a run: continue it with --resume, or choose another folder", path.display());
                }
                if entries.next().is_some() {
                    usage!("{} is not empty and holds no run: choose another folder", path.display());
                }
            }
            Err(e) if e.kind() == ErrorKind::NotFound => {
                fs::create_dir_all(path).with_context(|| format!("making the run folder {}", path.display()))?;
            }
            Err(e) if e.kind() == ErrorKind::NotADirectory => usage!("{} is a file, not a folder: choose another path", path.display()),
            Err(e) => return Err(e).with_context(|| format!("reading {}", path.display())),
        }
        Self::prepare(path)
    }

    /// Makes `root/<command>-<UTC date>-<n>` with the first free `n` from 1; safe against another process doing the same.
    pub fn create_numbered(root: &Path, command: &str) -> Result<Self> {
        fs::create_dir_all(root).with_context(|| format!("making the folder {}", root.display()))?;
        let today = clock::date(clock::now());
        let mut n = 1;
        loop {
            let path = root.join(format!("{command}-{today}-{n}"));
            match fs::create_dir(&path) {
                Ok(()) => return Self::prepare(&path),
                Err(e) if e.kind() == ErrorKind::AlreadyExists => n += 1,
                Err(e) => return Err(e).with_context(|| format!("making the run folder {}", path.display())),
            }
        }
    }

    fn prepare(path: &Path) -> Result<Self> {
        let folder = Self { path: path.to_path_buf() };
        for inner in [folder.checkpoints(), folder.media()] {
            fs::create_dir_all(&inner).with_context(|| format!("making the folder {}", inner.display()))?;
        }
        Ok(folder)
    }

    /// The run at `path`, to be read or resumed.
    ///
    /// # Errors
    /// [`Usage`](crate::failure::Usage) where there is no run.
    pub fn open(path: &Path) -> Result<Self> {
        if !is_run(path) {
            usage!("{} is no run folder (it has neither manifest.json nor events.jsonl)", path.display());
        }
        Ok(Self { path: path.to_path_buf() })
    }

    /// The runs directly under `root`, by name. A missing `root` holds none.
    pub fn list(root: &Path) -> Result<Vec<Self>> {
        let entries = match fs::read_dir(root) {
            Ok(entries) => entries,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(e).with_context(|| format!("reading {}", root.display())),
        };
        let mut runs = Vec::new();
        for entry in entries {
            let path = entry.with_context(|| format!("reading {}", root.display()))?.path();
            if is_run(&path) {
                runs.push(Self { path });
            }
        }
        runs.sort_by_key(|run| natural(&run.name()));
        Ok(runs)
    }

    /// The run a person means by `text`: a path, a name under `root`, or a prefix of exactly one name there.
    pub fn find(root: &Path, text: &str) -> Result<Self> {
        let path = Path::new(text);
        for candidate in [path.to_path_buf(), root.join(path)] {
            if !text.is_empty() && is_run(&candidate) {
                return Ok(Self { path: candidate });
            }
        }
        let mut matches: Vec<Self> = Self::list(root)?.into_iter().filter(|run| run.name().starts_with(text)).collect();
        match matches.len() {
            1 => Ok(matches.remove(0)),
            0 => usage!("no run `{text}` in {} (`moue runs {}` lists them)", root.display(), root.display()),
            _ => usage!("`{text}` fits several runs: {}", matches.iter().map(Self::name).collect::<Vec<_>>().join(", ")),
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Locks the run for this process to write.
    ///
    /// # Errors
    /// [`Usage`](crate::failure::Usage) where another process has it.
    pub fn lock(&self) -> Result<Lock> {
        let path = self.path.join(".lock");
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(&path);
        let file = file.with_context(|| format!("writing {}", path.display()))?;
        let mut locked = file.try_lock();
        // Who watches a run touches the lock for an instant to see whether it is held.
        for _ in 0..GLANCES {
            if !matches!(locked, Err(TryLockError::WouldBlock)) {
                break;
            }
            thread::sleep(Duration::from_millis(10));
            locked = file.try_lock();
        }
        match locked {
            Err(TryLockError::WouldBlock) => usage!("another process is writing the run {}", self.path.display()),
            // A file system without locks (some network mounts) is no reason to refuse a run.
            Ok(()) | Err(TryLockError::Error(_)) => Ok(Lock(file)),
        }
    }

    /// Whether a process writes the run; none where the file system, or a run without a lock, cannot tell.
    pub fn is_written(&self) -> Option<bool> {
        let file = File::open(self.path.join(".lock")).ok()?;
        match file.try_lock_shared() {
            Ok(()) => Some(false),
            Err(TryLockError::WouldBlock) => Some(true),
            Err(TryLockError::Error(_)) => None,
        }
    }

    /// Removes what a process that was killed while it wrote left of its temporary files. For the one that has the lock.
    ///
    /// # Errors
    /// Where the disk fails.
    pub fn sweep(&self, _lock: &Lock) -> Result<()> {
        let mut folders = vec![self.path.clone()];
        while let Some(folder) = folders.pop() {
            let context = || format!("reading {}", folder.display());
            for entry in fs::read_dir(&folder).with_context(context)? {
                let entry = entry.with_context(context)?;
                let name = entry.file_name();
                let name = name.to_string_lossy();
                // A link is not followed: what lies outside is not the run's.
                if entry.file_type().with_context(context)?.is_dir() {
                    folders.push(entry.path());
                } else if name.starts_with(PART.0) && name.ends_with(PART.1) {
                    fs::remove_file(entry.path()).with_context(|| format!("removing {}", entry.path().display()))?;
                }
            }
        }
        Ok(())
    }

    /// The folder's own name.
    pub fn name(&self) -> String {
        match self.path.file_name() {
            Some(name) => name.to_string_lossy().into_owned(),
            // `.` or `..`
            None => self.path.canonicalize().ok().and_then(|p| Some(p.file_name()?.to_string_lossy().into_owned())).unwrap_or_default(),
        }
    }

    pub fn manifest(&self) -> PathBuf {
        self.path.join("manifest.json")
    }

    pub fn events(&self) -> PathBuf {
        self.path.join("events.jsonl")
    }

    pub fn metrics(&self) -> PathBuf {
        self.path.join("metrics.csv")
    }

    pub fn labels(&self) -> PathBuf {
        self.path.join("labels.csv")
    }

    pub fn candidates(&self) -> PathBuf {
        self.path.join("candidates.csv")
    }

    /// Of an objective that decides labels, see [`history`](super::history).
    pub fn history(&self, objective: &str) -> PathBuf {
        self.path.join("history").join(format!("{objective}.bin"))
    }

    /// Of a finished objective, see [`predictions`](super::predictions).
    pub fn predictions(&self, objective: &str) -> PathBuf {
        self.path.join("predictions").join(format!("{objective}.csv"))
    }

    pub fn calibration(&self) -> PathBuf {
        self.path.join("calibration.json")
    }

    pub fn log(&self) -> PathBuf {
        self.path.join("log.txt")
    }

    pub fn checkpoints(&self) -> PathBuf {
        self.path.join("checkpoints")
    }

    /// Of trainings that ended because their numbers were not finite.
    pub fn fault(&self) -> PathBuf {
        self.path.join("fault")
    }

    pub fn media(&self) -> PathBuf {
        self.path.join("media")
    }
}

fn is_run(path: &Path) -> bool {
    path.join("manifest.json").is_file() || path.join("events.jsonl").is_file()
}

/// A sort key in which `run-10` comes after `run-9`.
fn natural(name: &str) -> Vec<(u64, String)> {
    let mut key = Vec::new();
    let mut rest = name;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let text = rest[digits..].bytes().take_while(|b| !b.is_ascii_digit()).count();
        key.push((rest[..digits].parse().unwrap_or(0), rest[digits..digits + text].to_string()));
        rest = &rest[digits + text..];
    }
    key
}

/// Writes a file whole or not at all: into a temporary file in the same folder, which is synced and renamed to `path` once `write` is done.
/// An earlier file of that name stays as it was until then; on an error nothing is left behind.
///
/// The writer can also seek (`BufWriter<&File>`).
pub fn write_atomic<T>(path: &Path, write: impl FnOnce(&mut BufWriter<&File>) -> Result<T>) -> Result<T> {
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let context = || format!("writing {}", path.display());
    let mut builder = tempfile::Builder::new();
    builder.prefix(PART.0).suffix(PART.1);
    // A temporary file is private by default; what it becomes is an ordinary file under the user's mask.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let temporary = builder.tempfile_in(folder).with_context(context)?;
    let mut writer = BufWriter::new(temporary.as_file());
    let value = write(&mut writer).with_context(context)?;
    writer.flush().with_context(context)?;
    drop(writer);
    temporary.as_file().sync_all().with_context(context)?;
    temporary.persist(path).map_err(|e| e.error).with_context(context)?;
    // The rename itself lasts only once the folder is synced. Not every file system can; the file is whole either way.
    #[cfg(unix)]
    if let Ok(folder) = File::open(folder) {
        let _ = folder.sync_all();
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::{exit_code, one_line};
    use anyhow::bail;

    #[test]
    fn only_torn_files_are_swept() {
        let root = tempfile::tempdir().unwrap();
        let folder = RunFolder::create(&root.path().join("run")).unwrap();
        let torn = folder.checkpoints().join(".moue-Xy12.part");
        let kept = [folder.manifest(), folder.checkpoints().join("a.part"), folder.path().join(".moue-notes")];
        for path in kept.iter().chain([&torn, &folder.path().join(".moue-1.part")]) {
            fs::write(path, "x").unwrap();
        }
        folder.sweep(&folder.lock().unwrap()).unwrap();
        assert!(kept.iter().all(|path| path.exists()) && !torn.exists() && !folder.path().join(".moue-1.part").exists());
    }

    #[test]
    fn a_failed_write_leaves_the_old_file_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.csv");
        write_atomic(&path, |w| Ok(w.write_all(b"old")?)).unwrap();
        let error = write_atomic(&path, |w| -> Result<()> {
            w.write_all(b"new")?;
            bail!("disk full")
        })
        .unwrap_err();
        assert!(one_line(&error).contains("metrics.csv: disk full"), "{error:#}");
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        write_atomic(&path, |w| Ok(w.write_all(b"new")?)).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn nothing_is_overwritten() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("a/b");
        let run = RunFolder::create(&path).unwrap();
        assert!(run.checkpoints().is_dir() && run.media().is_dir());
        // A folder without a manifest is no run yet, but it is not empty either.
        assert_eq!(exit_code(&RunFolder::create(&path).unwrap_err()), 2);
        fs::write(run.manifest(), "{}").unwrap();
        let error = RunFolder::create(&path).unwrap_err();
        assert!(exit_code(&error) == 2 && error.to_string().contains("--resume") && error.to_string().contains("another"), "{error}");
        let error = RunFolder::create(&run.manifest()).unwrap_err();
        assert!(exit_code(&error) == 2 && error.to_string().contains("is a file"), "{error}");
        assert_eq!(RunFolder::open(&path).unwrap(), run);
        assert_eq!(exit_code(&RunFolder::open(root.path()).unwrap_err()), 2);
    }

    #[test]
    fn names_are_numbered_and_found_by_prefix() {
        let root = tempfile::tempdir().unwrap();
        for n in 1..=11 {
            let run = RunFolder::create_numbered(root.path(), "pretrain").unwrap();
            assert!(run.name().ends_with(&format!("-{n}")), "{}", run.name());
            fs::write(run.events(), "").unwrap();
        }
        let names: Vec<String> = RunFolder::list(root.path()).unwrap().iter().map(RunFolder::name).collect();
        assert!(names[1].ends_with("-2") && names[10].ends_with("-11"), "{names:?}");
        let find = |text: &str| RunFolder::find(root.path(), text).map(|r| r.name());
        // The exact name wins although it is also a prefix of -10 and -11.
        assert_eq!(find(&names[0]).unwrap(), names[0]);
        assert_eq!(find(&names[2]).unwrap(), names[2]);
        assert_eq!(find(root.path().join(&names[2]).to_str().unwrap()).unwrap(), names[2]);
        assert!(find("pre").unwrap_err().to_string().contains("several"));
        assert!(find("nope").unwrap_err().to_string().contains("no run"));
        assert!(RunFolder::list(&root.path().join("missing")).unwrap().is_empty());
    }
}
