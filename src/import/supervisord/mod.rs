//! supervisord: its INI file, the files it includes, and every section of them.
//!
//! What supervisord does where a program is silent goes to `[defaults]`, so that a program's table
//! holds what its section said.

mod command;
mod daemon;
mod expand;
mod include;
mod ini;
mod logs;
mod options;
mod policy;
mod program;
mod restarts;

use std::collections::BTreeMap;
use std::time::Duration;

use super::draft::Draft;
use super::names::Names;
use super::note::{At, Notes};
use super::source::{self, Places};
use super::{Failure, Request, finish};
use expand::Scope;
use ini::{Ini, Opt, Section};

/// The rank of a program that has no `priority`.
const MIDDLE: i64 = 999;

/// What all sections share.
struct Shared<'a> {
    pub request: &'a Request,
    pub places: Places,
    pub scope: Scope,
    /// `environment` of `[supervisord]`.
    pub environment: BTreeMap<String, String>,
    /// The section, rank and line of each group, by the name of a member.
    pub groups: BTreeMap<String, (String, i64)>,
    pub names: Names,
    pub logs: logs::Sizes,
    /// Some program, or path, relies on where supervisord was started.
    pub homeless: bool,
}

/// Translates the file.
pub(super) fn translate(
    request: &Request,
    draft: &mut Draft,
    notes: &mut Notes,
) -> Result<(), Failure> {
    let text = source::read(&request.file)?;
    let places = Places::new(&request.file, &request.result);
    let scope = scope(request, &places);
    let mut ini = Ini::default();
    ini.add(&request.file, &text)?;
    include::follow(&request.file, places.source(), &scope, &mut ini, notes)?;
    let mut shared = Shared {
        request,
        places,
        scope,
        environment: BTreeMap::new(),
        groups: BTreeMap::new(),
        names: Names::default(),
        logs: logs::Sizes::default(),
        homeless: false,
    };
    replaced(&ini, notes);
    daemon::translate(&ini, &mut shared, draft, notes);
    programs(&ini, &mut shared, draft, notes)?;
    shared.logs.settle(draft, notes);
    if !draft.programs.is_empty() {
        general(&shared, draft, notes);
    }
    Ok(())
}

fn scope(request: &Request, places: &Places) -> Scope {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let here = places.source().to_string_lossy().into_owned();
    Scope {
        texts: [("here", here), ("host_node_name", host.trim().to_owned())].into(),
        outer: request.environment.clone(),
        ..Scope::default()
    }
}

/// Means an option.
fn place(section: &str, option: &Opt) -> At {
    At {
        file: option.file.clone(),
        line: Some(option.line),
        section: section.to_owned(),
        key: option.key.clone(),
        value: option.value.clone(),
    }
}

/// Means a section.
fn place_of(section: &Section) -> At {
    At {
        file: section.file.clone(),
        line: Some(section.line),
        section: section.name.clone(),
        key: String::new(),
        value: String::new(),
    }
}

fn replaced(ini: &Ini, notes: &mut Notes) {
    for section in ini.sections.iter().filter(|s| s.name != "include") {
        for option in &section.replaced {
            let Some(later) = section.get(&option.key) else {
                continue;
            };
            let place_of_later = if later.file == option.file {
                format!("line {}", later.line)
            } else {
                format!("{}:{}", later.file.display(), later.line)
            };
            let text =
                format!("it is set again in {place_of_later}, which wins, as in supervisord");
            notes.says("", &place(&section.name, option), text);
        }
    }
}

/// Translates every section that is a program, in the order supervisord starts them.
fn programs(
    ini: &Ini,
    shared: &mut Shared<'_>,
    draft: &mut Draft,
    notes: &mut Notes,
) -> Result<(), Failure> {
    let mut ranked: Vec<((i64, i64), super::draft::Program)> = Vec::new();
    for section in &ini.sections {
        let (kind, name) = section.parts();
        if !matches!(kind, "program" | "fcgi-program") {
            continue;
        }
        if name.is_empty() {
            notes.lacks(
                "",
                &place_of(section),
                "a program needs a name: [program:NAME]",
            );
            continue;
        }
        for (rank, made) in program::translate(section, shared, notes) {
            let group = shared.groups.get(name).map_or(rank, |(_, rank)| *rank);
            ranked.push(((group, rank), made));
        }
        if ranked.len() > finish::MOST {
            return Err(finish::too_many(shared.request));
        }
    }
    ranked.sort_by_key(|(rank, _)| *rank);
    draft
        .programs
        .extend(ranked.into_iter().map(|(_, program)| program));
    Ok(())
}

/// What holds for every program, said once.
fn general(shared: &Shared<'_>, draft: &mut Draft, notes: &mut Notes) {
    draft.head.push(format!(
        "Made by `eternal import supervisord {}`; read it before you rely on it.",
        shared.request.file.display()
    ));
    let keys = &mut draft.defaults;
    keys.set_because("restart", "on-failure", "autorestart = unexpected");
    keys.set_because(
        "kill_mode",
        "process",
        "stopasgroup = false: \"family\" leaves no orphans",
    );
    keys.set_because("stop_timeout", "10s", "stopwaitsecs = 10");
    restarts::Retries::default().write(keys);
    let file = At::file(&shared.request.file);
    notes.differs(
        "defaults",
        &file,
        "supervisord starts a program that ran for startsecs again at once; here every restart \
         waits for restart_delay. An end within startsecs is a failed start there, retried \
         whatever autorestart says; here its code alone decides",
    );
    notes.differs(
        "",
        &file,
        "supervisord goes on when no program is left; this daemon ends then, with 1 if one \
         failed. SUPERVISOR_ENABLED and the other variables of supervisord are not set; \
         ETERNAL_PROGRAM and ETERNAL_REPLICA are",
    );
    if shared.homeless {
        notes.differs(
            "defaults",
            &file,
            "a program without `directory` runs where supervisord was started, and relative paths \
             start there; here, in the directory of this file: set working_directory, and whole \
             paths, where it matters",
        );
    }
}

/// Makes a length of time of whole seconds.
fn seconds(number: i64) -> Duration {
    Duration::from_secs(number.unsigned_abs())
}
