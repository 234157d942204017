//! `cargo xtask`: the chores of this repository.
//!
//! Chores find their tools or install them, say which they use, and fail with what to do about it.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "printing is what a chore does")]

mod apt;
mod bench;
mod ebpf;
mod fleet;
mod fuzz;
mod host;
mod run;
mod sources;
mod test;
mod tools;
mod vm;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use host::Workspace;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "The chores of this repository")]
struct Cli {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Build tcptrace and run it, through sudo when that is needed
    Run {
        /// Arguments for tcptrace
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Compile the eBPF object and install it in tcptrace/bpf
    Ebpf {
        /// Change nothing; fail when the object in tcptrace/bpf is not what its sources give
        #[arg(long)]
        check: bool,
    },
    /// Set up what the tests need, then run every check and test
    Test {
        /// Leave out the tests that load programs into the running kernel, and the other kernels
        #[arg(long)]
        no_live: bool,
        /// Leave out the other kernels, which take QEMU and some 150 MB of Debian's packages
        #[arg(long)]
        no_vm: bool,
    },
    /// Measure what watching costs, beside what other tools cost
    Bench {
        /// How often everything is measured
        #[arg(long, default_value = "5", value_parser = clap::value_parser!(u32).range(1..=100))]
        rounds: u32,
        /// How many milliseconds each measurement takes
        #[arg(long, value_name = "MS", default_value = "1000", value_parser = clap::value_parser!(u64).range(100..=60_000))]
        run: u64,
        /// Only subjects whose names hold this
        #[arg(long, value_name = "NAME")]
        only: Vec<String>,
        /// Write the tables into docs/performance.md
        #[arg(long)]
        record: bool,
        /// Install the tools to compare with first (Debian)
        #[arg(long)]
        install: bool,
        /// Only these parts
        #[arg(value_name = "PART", value_parser = bench::parts())]
        parts: Vec<String>,
    },
    /// Feed the fuzz targets of fuzz/ with what they never saw
    Fuzz {
        /// How long each target runs
        #[arg(long, default_value = "60", value_parser = clap::value_parser!(u32).range(1..))]
        seconds: u32,
        /// Only these: record, btf, filter, proc
        #[arg(value_name = "TARGET")]
        targets: Vec<String>,
    },
    /// Record the traffic of three hosts, and ask DuckDB, ClickHouse and Spark the queries of deploy/fleet
    Fleet {
        /// How long the traffic takes
        #[arg(long, default_value = "20")]
        seconds: u32,
    },
    /// Boot other kernels under QEMU and run the live tests on them
    Vm {
        /// Series of kernels, such as 5.10,6.12 or 7 for the newest 7.x
        #[arg(long, value_delimiter = ',')]
        kernel: Vec<String>,
        /// Write the programs' numbers of instructions into docs/kernels.md
        #[arg(long)]
        record: bool,
        /// Only tests whose names contain one of these
        tests: Vec<String>,
    },
}

fn main() -> ExitCode {
    match chore(Cli::parse().chore) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn chore(chore: Chore) -> Result<ExitCode> {
    let workspace = Workspace::find()?;
    match chore {
        Chore::Run { args } => run::run(&workspace, &args)?,
        Chore::Ebpf { check: false } => {
            ebpf::install(&workspace, &tools::find_or_install(&workspace)?)?;
        }
        Chore::Ebpf { check: true } => {
            ebpf::check(&workspace, tools::find(&workspace)?.as_ref())?;
        }
        Chore::Bench { rounds, run, only, record, install, parts } => {
            let options = bench::Options { rounds, run_ms: run, parts, only, record, install };
            bench::run(&workspace, &options)?;
        }
        Chore::Fleet { seconds } => fleet::run(&workspace, seconds)?,
        Chore::Fuzz { seconds, targets } => fuzz::run(&workspace, seconds, &targets)?,
        Chore::Vm { kernel, record, tests } => {
            let tests: Vec<&str> = tests.iter().map(String::as_str).collect();
            let outcome = vm::run(&workspace, &kernel, &tests, record)?;
            return Ok(if outcome.good { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        Chore::Test { no_live, no_vm } => return Ok(test::run(&workspace, !no_live, !no_live && !no_vm)),
    }
    Ok(ExitCode::SUCCESS)
}
