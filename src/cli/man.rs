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
    // Each command is a section of this page, not a page of its own.
    let mut text = String::from_utf8_lossy(&page)
        .replace(".SH EXTRA", ".SH \"EXIT STATUS\"")
        .replace("eternal\\-", "eternal ")
        .replace("(1)", "");
    for command in program
        .get_subcommands()
        .filter(|command| command.get_name() != "help")
    {
        text.push_str(&section(command)?);
    }
    text.push_str(AROUND);
    Ok(text)
}

/// What is around the commands.
const AROUND: &str = r#".SH SIGNALS
.TP
SIGTERM, SIGINT
Stop every program, then end; a second one kills.
.TP
SIGHUP
Read the configuration again and restart the programs one after the other. When it is the news that the terminal of \fBeternal run\fR is gone: stop.
.TP
SIGUSR1
Open the log files again.
.TP
SIGUSR2
Log the statistics lines.
.SH FILES
Relative to the directory of the configuration, unless that says otherwise.
.TP
eternal.toml, /etc/eternal/eternal.toml
The configuration; every key and its default is in \fBeternal config\fR.
.TP
daemon.pid, daemon.sock
The lock and the control socket of the running daemon.
.TP
logs/daemon.log
What the daemon says, and what programs without a log of their own write.
.TP
state/
The crash history, who runs, and how everything last stood: they outlive the daemon.
.SH ENVIRONMENT
.TP
ETERNAL_CONFIG
The configuration file where \-\-config names none.
.TP
ETERNAL__SECTION__KEY
A value of the configuration, as in ETERNAL__DAEMON__LOG_LEVEL=debug.
.TP
NO_COLOR
No colours on a terminal.
.SH EXAMPLES
.TP
eternal run \-\-name web \-\- ./server \-\-port 8080
Supervise one command in the foreground.
.TP
eternal check && eternal start
Supervise what ./eternal.toml says, in the background.
.TP
eternal status; eternal crashes web; eternal logs web \-f
Ask how things are, also when the daemon is gone.
.SH "SEE ALSO"
.BR systemctl (1),
.BR journalctl (1)
"#;

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
