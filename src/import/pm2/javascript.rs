//! `ecosystem.config.js`: a program, which has to be run to know what it says.

use std::collections::HashMap;
use std::ffi::OsString;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use super::tree::{self, Node};
use crate::config;
use crate::import::Failure;

/// Long enough for a file that reads others; a server would never end.
const DEADLINE: Duration = Duration::from_secs(30);
/// Begins the answer, whatever the file itself prints before it.
const MARK: &str = "\u{1}eternal-import\u{1}";
/// Loads the file as Node.js loads modules of either kind, prints it as JSON and ends.
const SCRIPT: &str = "
const [path, mark] = process.argv.slice(1);
import(require('url').pathToFileURL(path))
  .then(async (loaded) => {
    let config = loaded.default ?? loaded;
    if (typeof config === 'function') config = await config();
    const text = mark + JSON.stringify(config ?? null);
    process.stdout.write(text, () => process.exit(0));
  })
  .catch((error) => { console.error(String(error)); process.exit(1); });
";

/// Refuses to run as root what others than root may write, or could replace.
///
/// # Errors
/// Who it is, and what to do instead.
pub(super) fn refuse_of_others(file: &Path, directory: &Path) -> Result<(), Failure> {
    let path = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
    let found = config::stranger(&path).or_else(|| config::stranger(directory));
    found.map_or(Ok(()), |who| {
        Err(Failure::Source(format!(
            "{} is JavaScript, which has to be run to be read, and that would be as root, but \
             {who}: import it as that user, or say --trust-javascript if nobody but you decides \
             what it does",
            file.display()
        )))
    })
}

/// Runs a file with `node` and reads what it exports.
///
/// # Errors
/// When there is no `node`, and when the file cannot be run.
pub(super) fn run(file: &Path, directory: &Path) -> Result<Node, Failure> {
    let path = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
    let mut child = Command::new("node")
        .args(["-e", SCRIPT])
        .arg(&path)
        .arg(MARK)
        .current_dir(directory)
        // Neither a directory that depends on where this is run nor other code has a say in it.
        .env("PATH", whole_paths())
        .env_remove("NODE_OPTIONS")
        .env_remove("NODE_PATH")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| without_node(file, &error))?;
    let (sender, answers) = mpsc::channel();
    let out = read_all(child.stdout.take(), sender.clone());
    let err = read_all(child.stderr.take(), sender);
    let on_time = answers.recv_timeout(DEADLINE).is_ok() && answers.recv_timeout(DEADLINE).is_ok();
    if !on_time {
        let _ = child.kill();
        let _ = child.wait();
        let seconds = DEADLINE.as_secs();
        return Err(Failure::Source(format!(
            "node did not end within {seconds} s of loading {}",
            file.display()
        )));
    }
    let out = out.join().unwrap_or_default();
    let err = err.join().unwrap_or_default();
    let status = child
        .wait()
        .map_err(|error| Failure::Source(format!("cannot wait for node: {error}")))?;
    let answer = out.rsplit_once(MARK).map(|(_, answer)| answer);
    match answer
        .filter(|_| status.success())
        .map(serde_json::from_str)
    {
        Some(Ok(value)) => Ok(tree::of_json(&value)),
        _ if status.success() => Err(Failure::Source(format!(
            "{} exports nothing that can be written as JSON",
            file.display()
        ))),
        _ => Err(Failure::Source(format!(
            "node cannot load {} ({status}): {}",
            file.display(),
            err.trim()
        ))),
    }
}

/// Returns `PATH` without what is relative: it would be looked up beside the file.
fn whole_paths() -> OsString {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let whole = std::env::split_paths(&path).filter(|place| place.is_absolute());
    std::env::join_paths(whole).unwrap_or_default()
}

fn without_node(file: &Path, error: &std::io::Error) -> Failure {
    let path = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
    Failure::Source(format!(
        "{} is JavaScript, which has to be run to be read, and node cannot be started: {error}; \
         where there is one, say\n  node -p 'JSON.stringify(require(\"{}\"))' > \
         ecosystem.json\nand import that",
        file.display(),
        path.display()
    ))
}

fn read_all(
    pipe: Option<impl Read + Send + 'static>,
    done: mpsc::Sender<()>,
) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            let _ = pipe.read_to_end(&mut bytes);
        }
        let _ = done.send(());
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// Gives keys their lines, where the file names a key exactly once.
pub(super) fn find_lines(node: &mut Node, text: &str) {
    let text = tree::without_comments(text);
    fill(node, &text, &mut HashMap::new());
}

fn fill(node: &mut Node, text: &str, known: &mut HashMap<String, Option<usize>>) {
    match &mut node.kind {
        tree::Kind::Map(members) => {
            for (name, member) in members {
                let find = || only_line(name, text);
                member.line = *known.entry(name.clone()).or_insert_with(find);
                fill(member, text, known);
            }
        }
        tree::Kind::List(items) => items.iter_mut().for_each(|item| fill(item, text, known)),
        tree::Kind::Null
        | tree::Kind::Bool(_)
        | tree::Kind::Integer(_)
        | tree::Kind::Float(_)
        | tree::Kind::Text(_) => {}
    }
}

fn only_line(name: &str, text: &str) -> Option<usize> {
    let word = |c: char| c.is_alphanumeric() || c == '_' || c == '$';
    let mut found = text.match_indices(name).filter(|(at, _)| {
        let before = text[..*at].chars().next_back();
        let after = text[at + name.len()..].trim_start_matches(['"', '\'']);
        !before.is_some_and(|c| word(c) || c == '.') && after.trim_start().starts_with(':')
    });
    match (found.next(), found.next()) {
        (Some((at, _)), None) => Some(text[..at].matches('\n').count() + 1),
        _ => None,
    }
}
