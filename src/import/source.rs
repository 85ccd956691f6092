//! Reading a source: text, whatever editor wrote it.

use std::fs::File;
use std::io::Read;
use std::path::{Component, Path, PathBuf};

use super::Failure;

/// Beyond this it is no configuration, in bytes.
const LARGEST: u64 = 64 * 1024 * 1024;

/// Reads a file; a byte order mark is not part of it.
pub(super) fn read(path: &Path) -> Result<String, Failure> {
    let refuse = |why: String| Failure::Source(format!("cannot read {}: {why}", path.display()));
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(LARGEST + 1).read_to_end(&mut bytes))
        .map_err(|error| refuse(error.to_string()))?;
    if bytes.len() as u64 > LARGEST {
        return Err(refuse("it is larger than 64 MiB".to_owned()));
    }
    if bytes.starts_with(b"\xFF\xFE") || bytes.starts_with(b"\xFE\xFF") {
        return Err(refuse("it is UTF-16; save it as UTF-8".to_owned()));
    }
    let bytes = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(&bytes);
    match std::str::from_utf8(bytes) {
        Ok(text) if text.contains('\0') => {
            let before = text.split('\0').next().unwrap_or_default();
            let line = before.matches('\n').count() + 1;
            Err(Failure::at(path, line, "a NUL byte: this is no text"))
        }
        Ok(text) => Ok(text.to_owned()),
        Err(error) => {
            let good = &bytes[..error.valid_up_to()];
            let line = memchr::memchr_iter(b'\n', good).count() + 1;
            let byte = bytes.get(error.valid_up_to()).copied().unwrap_or(0);
            Err(Failure::at(
                path,
                line,
                format!("the byte 0x{byte:02X} is not UTF-8; save the file as UTF-8"),
            ))
        }
    }
}

/// Where relative paths of the source start, and where those of the result do.
#[derive(Clone, Debug)]
pub(super) struct Places {
    source: PathBuf,
    same: bool,
}

impl Places {
    /// Compares the directory of the source with that of the result.
    pub fn new(source: &Path, result: &Path) -> Self {
        let source = directory(source);
        let same = source == directory(result);
        Self { source, same }
    }

    /// Returns the directory of the source.
    pub fn source(&self) -> &Path {
        &self.source
    }

    /// Writes a path of the source so that it means the same in the result.
    pub fn fit(&self, path: &str) -> String {
        if self.same || path.starts_with('/') {
            return path.to_owned();
        }
        let whole: PathBuf = self
            .source
            .join(path)
            .components()
            .filter(|part| *part != Component::CurDir)
            .collect();
        whole.to_string_lossy().into_owned()
    }
}

/// Returns the absolute directory of a file, as far as it can be told.
pub(super) fn directory(file: &Path) -> PathBuf {
    let parent = match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    parent
        .canonicalize()
        .or_else(|_| std::path::absolute(parent))
        .unwrap_or_else(|_| parent.to_owned())
}
