//! `eternal man`.

use std::io;

use clap::{Command, CommandFactory};
use clap_mangen::Man;

use super::arguments::Arguments;
use super::output::Output;
use super::{Complaint, DONE};

/// Prints the man page: the program, then each of its commands.
pub(super) fn execute(output: &mut Output) -> Result<u8, Complaint> {
    let page =
        page().map_err(|error| Complaint::failed(format!("cannot write the man page: {error}")))?;
    output.text(&page)?;
    Ok(DONE)
}

fn page() -> io::Result<String> {
    let mut program = Arguments::command();
    program.build();
    let mut page = Vec::new();
    Man::new(program.clone()).render(&mut page)?;
    let mut text = String::from_utf8_lossy(&page).into_owned();
    for command in program
        .get_subcommands()
        .filter(|command| command.get_name() != "help")
    {
        text.push_str(&section(command)?);
    }
    Ok(text)
}

/// Writes a command as a section of the one page, its own sections one level lower.
fn section(command: &Command) -> io::Result<String> {
    let name = command
        .get_display_name()
        .unwrap_or(command.get_name())
        .replace('-', " ");
    let man = Man::new(command.clone());
    let mut parts = Vec::new();
    man.render_synopsis_section(&mut parts)?;
    man.render_description_section(&mut parts)?;
    man.render_options_section(&mut parts)?;
    let parts = String::from_utf8_lossy(&parts).replace(".SH ", ".SS ");
    Ok(format!(".SH \"{}\"\n{parts}", name.to_uppercase()))
}
