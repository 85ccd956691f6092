//! A file system that does not answer when it is told not to, as a network's does whose server is
//! gone: as much of FUSE as log files take.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

use nix::libc;
use tempfile::TempDir;

// Of linux/fuse.h.
const LOOKUP: u32 = 1;
const FORGET: u32 = 2;
const GETATTR: u32 = 3;
const SETATTR: u32 = 4;
const OPEN: u32 = 14;
const WRITE: u32 = 16;
const RELEASE: u32 = 18;
const INIT: u32 = 26;
const INTERRUPT: u32 = 36;
const BATCH_FORGET: u32 = 42;
const ROOT: u64 = 1;
/// Only a failing test takes it.
const PATIENCE: Duration = Duration::from_secs(60);

/// The mounted file system. Every name but those that begin with `.` is a file in it.
pub struct Silent {
    at: TempDir,
    device: File,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    heard: Condvar,
    over: AtomicBool,
}

#[derive(Default)]
struct State {
    /// What is not answered at present.
    silent_about: Option<u32>,
    /// Answers that are held back.
    held: Vec<Vec<u8>>,
    /// Bytes written to all files.
    written: Vec<u8>,
    names: Vec<String>,
}

impl Silent {
    /// Mounts it; `None` where that is not allowed.
    pub fn mount() -> Option<Self> {
        let at = tempfile::tempdir().expect("a directory");
        let device = OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/fuse")
            .ok();
        let device = device.filter(|device| mount(device, at.path()));
        let Some(device) = device else {
            eprintln!("skipped: no right to mount a file system of our own");
            return None;
        };
        let shared = Arc::<Shared>::default();
        let (serving, serves) = (
            device.try_clone().expect("a descriptor"),
            Arc::clone(&shared),
        );
        thread::spawn(move || serves.serve(serving));
        Some(Self { at, device, shared })
    }

    pub fn path(&self) -> &Path {
        self.at.path()
    }

    pub fn does_not_open(&self) {
        self.state(|state| state.silent_about = Some(OPEN));
    }

    pub fn does_not_write(&self) {
        self.state(|state| state.silent_about = Some(WRITE));
    }

    /// Waits until somebody waits for so many answers.
    pub fn has_heard(&self, count: usize) {
        let state = self.shared.state.lock().expect("no panic");
        let waiting = |state: &mut State| state.held.len() < count;
        let (_state, timeout) = self
            .shared
            .heard
            .wait_timeout_while(state, PATIENCE, waiting)
            .expect("no panic");
        assert!(!timeout.timed_out(), "nobody asked");
    }

    /// Answers everything that it owes, and from now on at once.
    pub fn answers(&self) {
        let held = self.state(|state| {
            state.silent_about = None;
            std::mem::take(&mut state.held)
        });
        for answer in held {
            (&self.device).write_all(&answer).expect("answered");
        }
    }

    pub fn written(&self) -> String {
        self.state(|state| String::from_utf8_lossy(&state.written).into_owned())
    }

    fn state<T>(&self, with: impl FnOnce(&mut State) -> T) -> T {
        with(&mut self.shared.state.lock().expect("no panic"))
    }
}

impl Drop for Silent {
    fn drop(&mut self) {
        self.answers();
        self.shared.over.store(true, Ordering::Relaxed);
        let _ = Command::new("umount")
            .arg("--lazy")
            .arg(self.at.path())
            .status();
    }
}

impl Shared {
    fn serve(&self, mut device: File) {
        let mut request = vec![0; 1024 * 1024 + 4096];
        while let Ok(length) = device.read(&mut request) {
            let Some(answer) = self.answer(&request[..length]) else {
                continue;
            };
            let opcode = word(&request, 4);
            let mut state = self.state.lock().expect("no panic");
            if state.silent_about == Some(opcode) {
                state.held.push(answer);
                self.heard.notify_all();
                continue;
            }
            drop(state);
            // A request that was given up needs no answer.
            let _ = device.write_all(&answer);
        }
        assert!(self.over.load(Ordering::Relaxed), "the file system broke");
    }

    fn answer(&self, request: &[u8]) -> Option<Vec<u8>> {
        let (opcode, unique) = (word(request, 4), long(request, 8));
        let (node, body) = (long(request, 16), &request[40..]);
        let body = match opcode {
            FORGET | BATCH_FORGET | INTERRUPT => return None,
            INIT => [words(&[7, 31, 0, 0, 0, 128 * 1024, 1, 0]), vec![0; 32]].concat(),
            LOOKUP => self.look_up(body)?,
            GETATTR | SETATTR => [vec![0; 16], attributes(node)].concat(),
            // Direct: what is written is asked for at once.
            OPEN => [vec![0; 8], words(&[1, 0])].concat(),
            RELEASE => Vec::new(),
            WRITE => {
                let length = word(body, 16);
                let data = &body[40..40 + length as usize];
                let mut state = self.state.lock().expect("no panic");
                state.written.extend_from_slice(data);
                words(&[length, 0])
            }
            _ => return Some(answered(unique, -libc::ENOSYS, &[])),
        };
        let missing = opcode == LOOKUP && body.is_empty();
        let error = if missing { -libc::ENOENT } else { 0 };
        Some(answered(unique, error, &body))
    }

    fn look_up(&self, name: &[u8]) -> Option<Vec<u8>> {
        let name = name.split(|byte| *byte == 0).next()?;
        let name = String::from_utf8_lossy(name).into_owned();
        // Rotated files and temporaries: not here.
        if name.starts_with('.') || !name.ends_with(".log") {
            return Some(Vec::new());
        }
        let mut state = self.state.lock().expect("no panic");
        let index = state.names.iter().position(|known| *known == name);
        let index = index.unwrap_or_else(|| {
            state.names.push(name);
            state.names.len() - 1
        });
        let node = ROOT + 1 + index as u64;
        let head = [node.to_ne_bytes(), [0; 8], [0; 8], [0; 8], [0; 8]].concat();
        Some([head, attributes(node)].concat())
    }
}

fn attributes(node: u64) -> Vec<u8> {
    let mode = match node {
        ROOT => libc::S_IFDIR | 0o755,
        _ => libc::S_IFREG | 0o644,
    };
    let times = vec![0; 40];
    let head = [node.to_ne_bytes().to_vec(), times].concat();
    // Three times nanoseconds, mode, names, user, group, device, block size, flags.
    [head, words(&[0, 0, 0, mode, 1, 0, 0, 0, 4096, 0])].concat()
}

fn answered(unique: u64, error: i32, body: &[u8]) -> Vec<u8> {
    let length = (16 + body.len()) as u32;
    let head = [length.to_ne_bytes(), error.to_ne_bytes()].concat();
    [&head[..], &unique.to_ne_bytes(), body].concat()
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn long(bytes: &[u8], at: usize) -> u64 {
    u64::from_ne_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

#[expect(unsafe_code, reason = "mount(8) cannot be given a descriptor of ours")]
fn mount(device: &File, at: &Path) -> bool {
    let text = |text: String| std::ffi::CString::new(text).expect("no NUL");
    let options = format!(
        "fd={},rootmode=40000,user_id=0,group_id=0,allow_other",
        device.as_raw_fd()
    );
    let (target, options) = (text(at.display().to_string()), text(options));
    // SAFETY: four C strings that live longer than the call.
    let done = unsafe {
        libc::mount(
            c"silent".as_ptr(),
            target.as_ptr(),
            c"fuse".as_ptr(),
            0,
            options.as_ptr().cast(),
        )
    };
    done == 0
}
