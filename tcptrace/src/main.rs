//! The program: parses the command line, runs the command, and says how it went.

use std::process::ExitCode;

use clap::Parser as _;
use tcptrace::{
    cli::{Cli, Command},
    commands::{conns, doctor, empty, explain, hist, probes, record, rst, serve, top, trace, watch::Outcome},
    model::doctor::Severity,
    view::Summary,
};

/// It could not run.
const FAILED: u8 = 1;
/// It was asked for what there is not; clap uses the same.
const WRONG_USAGE: u8 = 2;
/// Records were lost, and that was not to be.
const LOST: u8 = 3;
/// `doctor` found something.
const WARNINGS: u8 = 10;
/// `doctor` found something that makes connections fail now, or soon.
const CRITICAL: u8 = 11;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let command = cli.command.unwrap_or(Command::Trace(cli.trace));
    let shared = command.shared();
    let verbose = match &command {
        Command::Probes(args) => args.verbose,
        _ => shared.map_or(0, |shared| shared.verbose),
    };
    let quiet = shared.is_some_and(|shared| shared.quiet);
    // What is logged would run over the screen of top.
    init_log(quiet || matches!(command, Command::Top(_)), verbose);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let result = match runtime {
        Ok(runtime) => runtime.block_on(async {
            let mut found = None;
            let outcome = match &command {
                Command::Trace(args) => trace::run(args).await,
                Command::Conns(args) => conns::run(args).await,
                Command::Hist(args) => hist::run(args).await,
                Command::Rst(args) => rst::run(args).await,
                Command::Top(args) => top::run(args).await,
                Command::Doctor(args) => {
                    if args.rules {
                        return doctor::list(args).map(|()| ExitCode::SUCCESS);
                    }
                    doctor::run(args).await.map(|(outcome, worst)| {
                        found = worst;
                        outcome
                    })
                }
                Command::Serve(args) => serve::run(args).await,
                Command::Record(args) => record::run(args).await,
                Command::Probes(args) => {
                    return Ok(ExitCode::from(if probes::run(args).await? { 0 } else { FAILED }));
                }
                Command::Explain(args) => {
                    return Ok(ExitCode::from(if explain::run(args)? { 0 } else { WRONG_USAGE }));
                }
                Command::Empty => return empty::run().await.map(|()| ExitCode::SUCCESS),
            }?;
            let Outcome { summary, cut_short } = outcome;
            // What doctor says ends with that.
            if !quiet && !cut_short && !matches!(command, Command::Doctor(_)) {
                say(&format_summary(&summary));
            }
            let strict = shared.is_some_and(|shared| shared.strict);
            let found = match found {
                None => 0,
                Some(Severity::Warning) => WARNINGS,
                Some(Severity::Critical) => CRITICAL,
            };
            Ok(ExitCode::from(if strict && !summary.lost.is_none() { LOST } else { found }))
        }),
        Err(error) => Err(anyhow::Error::new(error).context("cannot start")),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            say(&format!("tcptrace: {error:#}"));
            ExitCode::from(FAILED)
        }
    }
}

/// Stderr may be gone; there is nobody left to tell then.
fn say(text: &str) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stderr(), "{text}");
}

fn format_summary(summary: &Summary) -> String {
    let Summary { events, lost, elapsed_us, .. } = summary;
    #[expect(clippy::cast_precision_loss, reason = "shown to a tenth of a second")]
    let seconds = *elapsed_us as f64 / 1e6;
    let if_any = |count: u64, what: &str| if count > 0 { format!(", {count} {what}") } else { String::new() };
    let gaps = if_any(lost.gaps, "connections ended unseen");
    let beyond = if_any(lost.beyond, "sockets beyond --max-sockets");
    format!("{events} events, {} lost{gaps}{beyond}, {seconds:.1} s", lost.total())
}

fn init_log(quiet: bool, verbose: u8) {
    let level = match (quiet, verbose) {
        (true, _) => log::LevelFilter::Error,
        (_, 0) => log::LevelFilter::Warn,
        (_, 1) => log::LevelFilter::Info,
        _ => log::LevelFilter::Debug,
    };
    env_logger::Builder::new()
        // What the libraries say is for who debugs them.
        .filter_level(if verbose > 2 { level } else { level.min(log::LevelFilter::Warn) })
        .filter_module("tcptrace", level)
        .format(|out, record| {
            use std::io::Write as _;
            writeln!(out, "tcptrace: {}", record.args())
        })
        .init();
}
