//! `ringway pages DIR`: man pages and shell completions of every program, from the definitions that read their
//! command lines, so that they cannot disagree. `install.sh` calls it; it is not shown in the help.

use crate::{Args, Failure};
use clap::{Args as _, Command, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;
use ringway_apps::pktgen::options;
use ringwayd::start::RunArgs;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Write man pages and shell completions.
#[derive(Debug, clap::Args)]
pub struct PagesArgs {
    /// Folder to write to, as `share` in an installation
    dir: PathBuf,
}

/// What clap does not know of the programs whose descriptors go through a broker.
const BROKER_TAIL: &str = "\
.SH ENVIRONMENT
.TP
\\fBRINGWAY_SOCKET\\fR
The broker's socket. If set, no other is looked for.
.TP
\\fBRINGWAYD\\fR
The program to start when no broker answers. By default \\fIringwayd\\fR or \\fIringway\\fR beside the program, in the
libexec folder of its prefix or that of the library, or in PATH.
.SH FILES
.TP
\\fI/run/ringway/sock\\fR
The system's broker, or one that root started by opening a port.
.TP
\\fI$XDG_RUNTIME_DIR/ringway/sock\\fR, \\fI/tmp/ringway\\-UID/sock\\fR
A user's broker.
.TP
\\fI/etc/ringway/ringway.toml\\fR, \\fI$XDG_CONFIG_HOME/ringway/ringway.toml\\fR
What the broker of root, and that of a user, permits.
";

const RINGWAY_STATUS: &str = "\
.SH EXIT STATUS
0 if it worked, 1 if it ran and nothing moved or no broker answered, 2 for an error. Errors are one line on standard error.
";

const DAEMON_TAIL: &str = "\
.SH EXIT STATUS
0 when it ended because nobody needed it or it was told to, 2 for an error.
.SH NOTES
The program is not in PATH: programs that open a port start it from the libexec folder. \\fBringway broker run\\fR is the same.
It ends five seconds after its last user, unless told to stay. SIGTERM and SIGINT end it.
";

const PKT_GEN_TAIL: &str = "\
.SH EXIT STATUS
0 when it ran to its end or was ended by SIGINT; 1 for a bad command line or a port that cannot be opened.
.SH EXAMPLES
Receive on one port of a switch, and send to it from another:
.PP
.nf
    pkt\\-gen \\-i vale0:b \\-f rx
    pkt\\-gen \\-i vale0:a \\-f tx
.fi
.PP
A million frames of 1000 bytes from a network interface, at 100000 per second:
.PP
.nf
    pkt\\-gen \\-i netmap:eth0 \\-f tx \\-n 1000000 \\-l 1000 \\-R 100000
.fi
";

/// A page: its command, its section of the manual, and what follows the options.
struct Page {
    command: Command,
    section: &'static str,
    tail: String,
}

impl Page {
    fn new(command: Command, section: &'static str, tail: &[&str], see_also: &str) -> Self {
        Page { command, section, tail: format!("{}.SH SEE ALSO\n{see_also}\n", tail.concat()) }
    }

    fn text(&self) -> io::Result<Vec<u8>> {
        let source = concat!("Ringway ", env!("CARGO_PKG_VERSION"));
        let man =
            Man::new(self.command.clone()).section(self.section).source(source).manual("Ringway manual");
        let mut out = vec![];
        man.render_title(&mut out)?;
        man.render_name_section(&mut out)?;
        man.render_synopsis_section(&mut out)?;
        man.render_description_section(&mut out)?;
        if self.command.get_arguments().any(|a| !a.is_hide_set()) {
            man.render_options_section(&mut out)?;
        }
        if self.command.has_subcommands() {
            man.render_subcommands_section(&mut out)?;
        }
        out.extend_from_slice(self.tail.as_bytes());
        Ok(out)
    }

    fn name(&self) -> String {
        let name = self.command.get_display_name().unwrap_or_else(|| self.command.get_name());
        format!("{name}.{}", self.section)
    }
}

/// The pages of `command` and of the commands below it.
fn collect(command: &Command, pages: &mut Vec<Page>) {
    for sub in command.get_subcommands().filter(|s| !s.is_hide_set()) {
        collect(sub, pages);
    }
    let name = command.get_display_name().unwrap_or_else(|| command.get_name());
    let see_also = if name == "ringway" { ".BR pkt\\-gen (8)," } else { ".BR ringway (1)," };
    let see_also = format!("{see_also}\n.BR ringwayd (8),\n.BR netmap (4)");
    pages.push(Page::new(command.clone(), "1", &[RINGWAY_STATUS, BROKER_TAIL], &see_also));
}

fn programs() -> [Command; 3] {
    let daemon = RunArgs::augment_args(Command::new("ringwayd").version(env!("CARGO_PKG_VERSION")))
        .about("Ringway's broker: hands out ports, rings and switches; stays out of the data path");
    [Args::command().disable_help_subcommand(true), options::command(), daemon]
}

fn pages() -> Vec<Page> {
    let [mut ringway, pkt_gen, daemon] = programs();
    ringway.build();
    let mut pages = vec![];
    collect(&ringway, &mut pages);
    let see_also = ".BR ringway (1),\n.BR ringwayd (8),\n.BR netmap (4)";
    pages.push(Page::new(pkt_gen, "8", &[PKT_GEN_TAIL, BROKER_TAIL], see_also));
    let see_also = ".BR ringway\\-broker (1),\n.BR netmap (4)";
    pages.push(Page::new(daemon, "8", &[DAEMON_TAIL, BROKER_TAIL], see_also));
    pages
}

fn write(dir: &Path, name: &str, text: &[u8]) -> Result<(), Failure> {
    let path = dir.join(name);
    let result = fs::create_dir_all(dir).and_then(|()| fs::write(&path, text));
    result.map_err(|e| Failure::new(format!("cannot write {}: {e}", path.display())))
}

/// Runs the command.
pub fn run(args: &PagesArgs) -> Result<(), Failure> {
    for page in pages() {
        write(&args.dir.join(format!("man/man{}", page.section)), &page.name(), &page.text()?)?;
    }
    let [ringway, pkt_gen, _] = programs();
    for mut command in [ringway, pkt_gen] {
        let name = command.get_name().to_owned();
        let places = [
            (Shell::Bash, "bash-completion/completions", name.clone()),
            (Shell::Zsh, "zsh/site-functions", format!("_{name}")),
            (Shell::Fish, "fish/vendor_completions.d", format!("{name}.fish")),
        ];
        for (shell, dir, file) in places {
            let mut text = vec![];
            clap_complete::generate(shell, &mut command, &name, &mut text);
            write(&args.dir.join(dir), &file, &text)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_page_with_all_its_options() {
        let pages = pages();
        let names: Vec<String> = pages.iter().map(Page::name).collect();
        for name in ["ringway.1", "ringway-gen.1", "ringway-broker-run.1", "pkt-gen.8", "ringwayd.8"] {
            assert!(names.iter().any(|n| n == name), "{name}: {names:?}");
        }
        assert!(!names.iter().any(|n| n.contains("pages") || n.contains("help")), "{names:?}");
        for page in &pages {
            let text = String::from_utf8(page.text().unwrap()).unwrap();
            for heading in [".TH ", ".SH NAME", ".SH SYNOPSIS", ".SH DESCRIPTION", ".SH SEE ALSO"] {
                assert_eq!(
                    text.lines().filter(|l| l.starts_with(heading)).count(),
                    1,
                    "{}: {heading}",
                    page.name()
                );
            }
            for arg in page.command.get_arguments().filter(|a| !a.is_hide_set()) {
                let Some(long) = arg.get_long() else { continue };
                let written = format!("\\-\\-{}", long.replace('-', "\\-"));
                assert!(text.contains(&written), "{}: --{long}\n{text}", page.name());
            }
        }
    }
}
