//! The program: parses the command line, runs the command, and says how it went.

use std::process::ExitCode;

use clap::Parser as _;
use tcptrace::{
    cli::{Cli, Command, Shared},
    commands::{conns, hist, rst, top, trace, watch::Outcome},
    view::Summary,
};

/// It could not run.
const FAILED: u8 = 1;
/// Records were lost, and that was not to be.
const LOST: u8 = 3;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let command = cli.command.unwrap_or(Command::Trace(cli.trace));
    let shared = match &command {
        Command::Trace(args) => &args.shared,
        Command::Conns(args) => &args.shared,
        Command::Hist(args) => &args.shared,
        Command::Rst(args) => &args.shared,
        Command::Top(args) => &args.shared,
    };
    // What is logged would run over the screen of top.
    init_log(shared, matches!(command, Command::Top(_)));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let result = match runtime {
        Ok(runtime) => runtime.block_on(async {
            match &command {
                Command::Trace(args) => trace::run(args).await,
                Command::Conns(args) => conns::run(args).await,
                Command::Hist(args) => hist::run(args).await,
                Command::Rst(args) => rst::run(args).await,
                Command::Top(args) => top::run(args).await,
            }
        }),
        Err(error) => Err(anyhow::Error::new(error).context("cannot start")),
    };
    match result {
        Ok(Outcome { summary, cut_short }) => {
            if !shared.quiet && !cut_short {
                say(&format_summary(&summary));
            }
            if shared.strict && summary.lost > 0 { ExitCode::from(LOST) } else { ExitCode::SUCCESS }
        }
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
    format!("{events} events, {lost} lost, {seconds:.1} s")
}

fn init_log(shared: &Shared, screen: bool) {
    let level = match (shared.quiet || screen, shared.verbose) {
        (true, _) => log::LevelFilter::Error,
        (_, 0) => log::LevelFilter::Warn,
        (_, 1) => log::LevelFilter::Info,
        _ => log::LevelFilter::Debug,
    };
    env_logger::Builder::new()
        // What the libraries say is for who debugs them.
        .filter_level(if shared.verbose > 2 { level } else { level.min(log::LevelFilter::Warn) })
        .filter_module("tcptrace", level)
        .format(|out, record| {
            use std::io::Write as _;
            writeln!(out, "tcptrace: {}", record.args())
        })
        .init();
}
