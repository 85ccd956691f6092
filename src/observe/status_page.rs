//! The status page: how everything stands, for a person with a browser. No script, nothing from
//! elsewhere.

use std::fmt::Write as _;
use std::time::Duration;

use super::text::{bytes, duration, push_html};
use crate::control::api::{ProgramStatus, Status};
use crate::text::command_name;

const STYLE: &str = "\
:root{color-scheme:light dark;--fg:#1b1f24;--bg:#fff;--line:#d5dae0;--soft:#5a6470}\
@media(prefers-color-scheme:dark){:root{--fg:#e6e9ed;--bg:#14171a;--line:#343a41;--soft:#9aa4af}}\
body{font:15px/1.5 system-ui,sans-serif;color:var(--fg);background:var(--bg);margin:2rem auto;max-width:80rem;padding:0 1rem}\
h1{font-size:1.4rem;margin:0}p{margin:.4rem 0;color:var(--soft)}a{color:inherit}\
table{border-collapse:collapse;width:100%;margin-top:1rem}th,td{text-align:left;padding:.4rem .7rem;border-bottom:1px solid var(--line);vertical-align:top}\
th{color:var(--soft);font-weight:600}td.n{text-align:right;font-variant-numeric:tabular-nums}small{color:var(--soft)}\
.s{display:inline-block;padding:0 .5em;border-radius:.3em;font-weight:600;color:#000}\
.running{background:#56b4e9}.starting,.stopping{background:#f0e442}.backoff{background:#e69f00}\
.failed{background:#d55e00;color:#fff}.stopped{background:#b8bec5}.completed{background:#009e73;color:#fff}\
.bad{border-left:.4em solid #d55e00;padding:.3em .8em;color:var(--fg)}";

/// Returns the page.
pub(super) fn render(status: &Status) -> String {
    let mut page = String::with_capacity(4096 + 700 * status.programs.len());
    page.push_str("<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">");
    page.push_str("<meta name=\"viewport\" content=\"width=device-width\">");
    page.push_str("<meta http-equiv=\"refresh\" content=\"10\"><title>Eternal</title><style>");
    page.push_str(STYLE);
    page.push_str("</style></head><body>");
    push_daemon(&mut page, status);
    page.push_str("<table><thead><tr><th>Program<th>State<th>Uptime<th>Pid<th>Restarts<th>Crashes<th>Crashes left<th>Memory<th>Last exit<th>Why, and what is next</tr></thead><tbody>");
    for program in &status.programs {
        push_program(&mut page, program);
    }
    page.push_str("</tbody></table></body></html>\n");
    page
}

fn push_daemon(page: &mut String, status: &Status) {
    let daemon = &status.daemon;
    page.push_str("<h1>Eternal ");
    push_html(page, &daemon.version);
    let up = seconds(daemon.uptime_seconds);
    let _ = write!(
        page,
        "</h1><p>pid {}, up {up}, programs: {}",
        daemon.pid,
        status.programs.len()
    );
    if let Some(file) = &daemon.config_file {
        page.push_str(", config ");
        push_html(page, file);
    }
    page.push_str("</p><p><a href=\"/metrics\">metrics</a> · <a href=\"/-/ready\">ready</a> · <a href=\"/-/healthy\">healthy</a> · <a href=\"/sd\">service discovery</a></p>");
    if daemon.stopping {
        page.push_str("<p class=\"bad\">The daemon is stopping.</p>");
    }
    if let Some(reload) = daemon
        .last_reload
        .as_ref()
        .filter(|reload| !reload.successful)
    {
        page.push_str("<p class=\"bad\">The last reload (");
        push_html(page, &reload.at);
        page.push_str(") failed, nothing was changed: ");
        push_html(page, &reload.message);
        page.push_str("</p>");
    }
}

fn push_program(page: &mut String, program: &ProgramStatus) {
    page.push_str("<tr><td><b>");
    push_html(page, &program.display_name);
    page.push_str("</b><br><small>");
    push_html(page, command_name(&program.command));
    // The state is one of seven words of ours, so it may be a class too.
    let _ = write!(
        page,
        "</small><td><span class=\"s {0}\">{0}</span>",
        program.state
    );
    if program.state == "running" && !program.ready {
        page.push_str("<br><small>not ready</small>");
    }
    let uptime = program
        .uptime_seconds
        .map_or_else(|| "–".to_owned(), seconds);
    let pid = program
        .pid
        .map_or_else(|| "–".to_owned(), |pid| pid.to_string());
    let memory = program.memory_bytes.map_or_else(|| "–".to_owned(), bytes);
    let _ = write!(
        page,
        "<td class=n>{uptime}<td class=n>{pid}<td class=n>{}<td class=n>{}<td class=n>{} of {}<td class=n>{memory}<td>",
        program.restarts, program.crashes, program.crash_budget_remaining, program.crash_budget,
    );
    if let Some(exit) = &program.last_exit {
        push_html(page, &exit.description);
        let _ = write!(page, "<br><small>after {}, ", seconds(exit.ran_seconds));
        push_html(page, &exit.at);
        page.push_str("</small>");
    }
    page.push_str("<td>");
    push_html(page, &program.why);
    if let Some(next) = &program.next {
        page.push_str("<br><small>next: ");
        push_html(page, next);
        page.push_str("</small>");
    }
    page.push_str("</tr>");
}

fn seconds(value: f64) -> String {
    duration(Duration::try_from_secs_f64(value).unwrap_or_default())
}
