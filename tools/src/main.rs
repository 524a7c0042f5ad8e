//! Render synthetic scenes; index, count, select, query, report and list the samples and concepts of shards; measure the loader.

// Without panics; see `tools/program/src/lines.rs`.
#[macro_use(eprintln, println)]
extern crate program;

mod bench;
mod classes;
mod duplicates;
mod each;
mod folder;
mod index;
mod input;
mod order;
mod report;
mod scenes;
mod select;
mod show;
mod sql;
mod stats;
mod table;

use std::io::{ErrorKind, Write};
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use disk::foreign_files::visible_lines;

#[derive(Debug, Parser)]
#[command(name = "tools", version, about, propagate_version = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Scenes(scenes::Arguments),
    Index(index::Arguments),
    Stats(stats::StatsArguments),
    Merge(stats::MergeArguments),
    Select(select::Arguments),
    Duplicates(duplicates::Arguments),
    Order(order::Arguments),
    Report(report::Arguments),
    Show(show::Arguments),
    Sql(sql::Arguments),
    /// Measure speed: a table, and with --json one line of JSON
    #[command(subcommand)]
    Bench(bench::Command),
}

fn main() -> ExitCode {
    if let Some(code) = pages::requested(Arguments::command) {
        return code;
    }
    let arguments = Arguments::parse();
    program::run(|| match &arguments.command {
        Command::Scenes(arguments) => scenes::run(arguments),
        Command::Index(arguments) => index::run(arguments),
        Command::Stats(arguments) => stats::stats(arguments),
        Command::Merge(arguments) => stats::merge(arguments),
        Command::Duplicates(arguments) => duplicates::run(arguments),
        Command::Select(arguments) => select::run(arguments),
        Command::Order(arguments) => order::run(arguments),
        Command::Report(arguments) => report::run(arguments),
        Command::Show(arguments) => show::run(arguments),
        Command::Sql(arguments) => sql::run(arguments),
        Command::Bench(command) => bench::run(command),
    })
}

/// Prints to standard output, without what a terminal obeys. That the reader closes the pipe early, as `head` does, is not an
/// error.
fn screen(text: &str) -> anyhow::Result<()> {
    match std::io::stdout().lock().write_all(visible_lines(text).as_bytes()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        other => Ok(other?),
    }
}
