//! The environment that another process was started with.
//!
//! The kernel reads it from the memory of that process, and its owner decides what is there: a page
//! that cannot be read, one that comes from a file system which does not answer, or one that is
//! handed out by hand (userfaultfd). So a read may take for ever and cannot be called off. Nobody
//! who has other things to do reads it himself: a [`Reader`] does.

use std::fs::{self, File};
use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

use super::procfs;

/// As much is read: no longer an environment is possible (6 MiB are the kernel's limit).
const MOST_BYTES: usize = 8 << 20;
const CHUNK: usize = 64 << 10;

/// So many readers may hang at a time, over all of this process: each holds a thread.
const MOST_READERS: usize = 8;
/// The longest wait of one who waits for a reader.
const LIMIT: Duration = Duration::from_millis(250);

static READERS: AtomicUsize = AtomicUsize::new(0);

/// What a look at an environment has found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Environment {
    /// The values of the variables that were asked for. All are missing where it may not be read.
    Says(Vec<Option<String>>),
    /// There is nothing to read: it is empty, or its owner hides it.
    Silent,
    /// The process is just executing a program: the old environment is gone, the new one is not
    /// there yet. This can take long, as when the program's pages come from a slow disk.
    NotYet,
}

/// Looks for variables in the environment of a process. May take for ever.
pub(super) fn read(pid: i32, names: &[&str]) -> Environment {
    let before = Layout::read(pid);
    match variables(pid, names) {
        Ok(Some(found)) => return Environment::Says(found),
        Ok(None) => {}
        // A shortage of ours says nothing of it.
        Err(_) => return Environment::NotYet,
    }
    // The file was empty. It may have been that of an earlier program, which was just replaced, or
    // the new one's was not in its place yet.
    match Layout::read(pid) {
        Some(layout) if !layout.is_complete() => Environment::NotYet,
        after if after == before && after.is_some() => Environment::Silent,
        Some(_) => Environment::NotYet,
        None => Environment::Says(vec![None; names.len()]),
    }
}

/// Tells whether a process is just executing a program, so that it has no environment at all. Never
/// takes long.
pub(super) fn is_executing(pid: i32) -> bool {
    Layout::read(pid).is_some_and(|layout| !layout.is_complete())
}

/// Returns the values of variables; `None` when there is nothing to read, or nothing yet.
///
/// # Errors
///
/// What has to do with us, such as that we have no descriptor left.
fn variables(pid: i32, names: &[&str]) -> io::Result<Option<Vec<Option<String>>>> {
    let mut search = Search {
        names,
        found: vec![None; names.len()],
        rest: Vec::new(),
    };
    let mut file = match File::open(format!("/proc/{pid}/environ")) {
        Ok(file) => file,
        // It has no memory: it is ending, or it is between two programs.
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => return Ok(None),
        Err(error) if procfs::is_passing(&error) => return Err(error),
        // Not ours to read, or gone: nothing will be found however often one looks.
        Err(_) => return Ok(Some(search.found)),
    };
    let (mut chunk, mut total) = (vec![0; CHUNK], 0);
    while total < MOST_BYTES && !search.is_over() {
        match file.read(&mut chunk) {
            Ok(0) => break,
            Ok(length) => {
                total += length;
                search.go_on(&chunk[..length]);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    Ok((total > 0).then(|| search.finish()))
}

/// A search that never holds more than one entry.
struct Search<'a> {
    names: &'a [&'a str],
    found: Vec<Option<String>>,
    /// The beginning of an entry whose end has not been read.
    rest: Vec<u8>,
}

impl Search<'_> {
    fn is_over(&self) -> bool {
        self.found.iter().all(Option::is_some)
    }

    fn go_on(&mut self, chunk: &[u8]) {
        let Some(end) = chunk.iter().rposition(|byte| *byte == 0) else {
            self.rest.extend_from_slice(chunk);
            return;
        };
        let mut entries = std::mem::take(&mut self.rest);
        entries.extend_from_slice(&chunk[..end]);
        entries
            .split(|byte| *byte == 0)
            .for_each(|entry| self.note(entry));
        self.rest.extend_from_slice(&chunk[end + 1..]);
    }

    fn note(&mut self, entry: &[u8]) {
        for (name, found) in self.names.iter().zip(&mut self.found) {
            let value = entry.strip_prefix(name.as_bytes());
            if let (None, Some(value)) = (&found, value.and_then(|rest| rest.strip_prefix(b"="))) {
                *found = Some(String::from_utf8_lossy(value).into_owned());
            }
        }
    }

    fn finish(mut self) -> Vec<Option<String>> {
        let rest = std::mem::take(&mut self.rest);
        self.note(&rest);
        self.found
    }
}

/// Where a living process has its program and its environment.
#[derive(Debug, PartialEq, Eq)]
struct Layout {
    started: u64,
    code: u64,
    environment: [u64; 2],
}

impl Layout {
    /// Reads it; `None` for one that is gone, a zombie or a part of the kernel.
    fn read(pid: i32) -> Option<Self> {
        /// `PF_KTHREAD` of the kernel's sched.h.
        const PART_OF_THE_KERNEL: u64 = 0x0020_0000;
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The fields of proc_pid_stat(5), counted from the state, which is the third.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
        let number = |field: usize| fields.get(field - 3)?.parse().ok();
        let ended = matches!(*fields.first()?, "Z" | "X");
        if ended || number(9)? & PART_OF_THE_KERNEL != 0 {
            return None;
        }
        Some(Self {
            started: number(22)?,
            code: number(26)?,
            environment: [number(50)?, number(51)?],
        })
    }

    /// The kernel notes where the code begins after everything else of a new program is in place,
    /// the environment included. (While it copies that, the environment is empty but has an
    /// address.) One that ends has given all of it back.
    fn is_complete(&self) -> bool {
        self.code != 0
    }
}

/// A thread that reads environments, one after the other.
#[derive(Debug)]
pub(super) struct Reader {
    jobs: mpsc::Sender<Job>,
    /// It is at one: on a busy machine it may take long until it begins.
    reads: Arc<AtomicBool>,
}

struct Job {
    pid: i32,
    names: &'static [&'static str],
    answer: Box<dyn FnOnce(Environment) + Send>,
}

impl Reader {
    /// Starts one; `None` when too many hang, or there is no room for a thread.
    pub(super) fn start() -> Option<Self> {
        let place = Place::take()?;
        let (sender, jobs) = mpsc::channel::<Job>();
        let reads = Arc::<AtomicBool>::default();
        let begun = Arc::clone(&reads);
        thread::Builder::new()
            .name("environ".to_owned())
            .stack_size(256 << 10)
            .spawn(move || {
                let _place = place;
                for job in jobs {
                    begun.store(true, Ordering::Relaxed);
                    let found = read(job.pid, job.names);
                    begun.store(false, Ordering::Relaxed);
                    (job.answer)(found);
                }
            })
            .ok()?;
        Some(Self {
            jobs: sender,
            reads,
        })
    }

    /// Has an environment read after those that were asked for before. `answer` is called on the
    /// reader's thread, or never.
    pub(super) fn ask(
        &self,
        pid: i32,
        names: &'static [&'static str],
        answer: impl FnOnce(Environment) + Send + 'static,
    ) {
        let answer = Box::new(answer);
        // The thread only ends after us.
        let _ = self.jobs.send(Job { pid, names, answer });
    }

    /// Tells whether it is reading at this moment, so that what takes long is the read.
    pub(super) fn is_reading(&self) -> bool {
        self.reads.load(Ordering::Relaxed)
    }
}

/// The place of one reader among the few that there may be.
struct Place;

impl Place {
    fn take() -> Option<Self> {
        let taken = READERS.fetch_add(1, Ordering::Relaxed);
        let place = Self;
        (taken < MOST_READERS).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        READERS.fetch_sub(1, Ordering::Relaxed);
    }
}

/// As [`read`], for one who can wait, but not for ever: `Silent` also after [`LIMIT`]. One at a time.
pub(super) fn read_in_time(pid: i32, names: &'static [&'static str]) -> Environment {
    static SHARED: Mutex<Option<Reader>> = Mutex::new(None);
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(reader) = shared.take().or_else(Reader::start) else {
        return Environment::Silent;
    };
    let (sender, answer) = mpsc::channel();
    reader.ask(pid, names, move |found| {
        // Whoever asked may have lost patience.
        let _ = sender.send(found);
    });
    match answer.recv_timeout(LIMIT) {
        Ok(found) => {
            *shared = Some(reader);
            found
        }
        // It is left to itself, and ends when its read does.
        Err(_) => Environment::Silent,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn search(chunks: &[&[u8]], names: &[&str]) -> Vec<Option<String>> {
        let found = vec![None; names.len()];
        let mut search = Search {
            names,
            found,
            rest: Vec::new(),
        };
        chunks.iter().for_each(|chunk| search.go_on(chunk));
        search.finish()
    }

    #[test]
    fn a_variable_is_found_by_its_whole_name_wherever_the_chunks_end() {
        let text = b"XRUN=no\0RUNS=no\0RUN=a:1:2\0RUN=later\0NAME=web";
        for cut in 0..text.len() {
            let found = search(&[&text[..cut], &text[cut..]], &["RUN", "NAME", "HOME"]);
            let expected = [Some("a:1:2".to_owned()), Some("web".to_owned()), None];
            assert_eq!(found, expected, "cut at {cut}");
        }
    }

    #[test]
    fn an_empty_environment_is_no_missing_one() {
        let mut child = std::process::Command::new("/bin/sleep")
            .arg("1000")
            .env_clear()
            .spawn()
            .expect("sleep starts");
        let pid = child.id().cast_signed();
        while read(pid, &["RUN"]) == Environment::NotYet {
            thread::yield_now();
        }
        assert_eq!(read(pid, &["RUN"]), Environment::Silent);
        child.kill().expect("it can be killed");
        while Layout::read(pid).is_some() {
            thread::yield_now();
        }
        let nothing = Environment::Says(vec![None]);
        assert_eq!(read(pid, &["RUN"]), nothing, "a zombie will not get one");
        child.wait().expect("it is reaped");
    }

    #[test]
    fn a_part_of_the_kernel_has_no_environment_to_wait_for() {
        // Present in every first pid namespace: kthreadd.
        if fs::read_to_string("/proc/2/comm").is_ok_and(|name| name == "kthreadd\n") {
            assert_eq!(read(2, &["RUN"]), Environment::Says(vec![None]));
        }
    }

    #[test]
    fn an_environment_is_never_silent_while_its_program_is_being_executed() {
        // Many variables: the kernel copies them while the environment seems to be empty.
        let mut command = std::process::Command::new("/bin/sh");
        command
            .args([
                "-c",
                "while :; do for i in 1 2 3 4 5 6 7 8; do /bin/true & done; wait; done",
            ])
            .env_clear()
            .env("RUN", "mine");
        for number in 0..4000 {
            command.env(format!("V{number}"), "");
        }
        let mut child = command.spawn().expect("a shell");
        let shell = child.id().cast_signed();
        let mut seen = 0;
        while seen < 800 {
            for process in crate::os::family::descendants([shell]) {
                seen += 1;
                match read(process.pid, &["RUN"]) {
                    Environment::Silent => panic!("it has an environment"),
                    Environment::Says(found) if Layout::read(process.pid).is_some() => {
                        assert_eq!(found, [Some("mine".to_owned())]);
                    }
                    Environment::Says(_) | Environment::NotYet => {}
                }
            }
        }
        child.kill().expect("it can be killed");
        child.wait().expect("it is reaped");
    }
}
