//! The command line: raw arguments, nothing decided.

use clap::{Args, Parser, Subcommand};

/// Sets up, builds, runs, tests and measures foobar.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) task: Task,
}

/// What can be done.
#[derive(Subcommand)]
pub(crate) enum Task {
    /// Install everything that building, running and testing need; quick when nothing is missing
    Setup,
    /// Build the eBPF object, check it, then build user space
    Build(BuildOptions),
    /// Start the whole site in namespaces on this machine and show it working (needs root)
    Run {
        /// Passed to the bed: --for 20s, --bench, --json, --help
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Measure, as ratios against peers in one run (needs root)
    Bench {
        /// Passed to the bed: the bench's name, --json, --help
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Run every test: host, packet tables, fuzz targets, the site, Debian's kernels in virtual machines (needs root)
    Test(TestOptions),
    /// Run the fuzz targets: packet path, rule compiler, site file
    Fuzz(FuzzOptions),
    /// Formatting, clippy of host and eBPF crates, documentation; every warning is an error
    Lint,
}

/// How to build.
#[derive(Args, Clone, Copy, Default)]
pub(crate) struct BuildOptions {
    /// Optimise user space (the eBPF object always is)
    #[arg(long)]
    pub(crate) release: bool,
}

/// Which tests to run.
#[derive(Args, Default)]
pub(crate) struct TestOptions {
    /// Run only the virtual machines with Debian's kernels
    #[arg(long, conflicts_with_all = ["no_kernels", "layer"])]
    pub(crate) kernels: bool,
    /// Leave the virtual machines out
    #[arg(long)]
    pub(crate) no_kernels: bool,
    /// Run only this layer (may be repeated): host, packets, fuzz, site, kernel-6.1, kernel-6.12
    #[arg(long, value_name = "LAYER")]
    pub(crate) layer: Vec<String>,
    /// The long forms of what has two: a minute of each fuzz target, 1,000 reloads, 50 cold starts, every MTU
    #[arg(long)]
    pub(crate) long: bool,
    /// Only the failover of the database, with every fault
    #[arg(long, conflicts_with_all = ["kernels", "no_kernels", "layer"])]
    pub(crate) failover: bool,
    /// Run only tests whose name contains this
    pub(crate) filter: Option<String>,
}

/// What to fuzz.
#[derive(Args)]
pub(crate) struct FuzzOptions {
    /// Time of each target
    #[arg(long, default_value_t = 60)]
    pub(crate) seconds: u32,
    /// Targets; all of them when none is named
    pub(crate) targets: Vec<String>,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn arguments_of_the_bed_pass_through_untouched() {
        let cli = Cli::try_parse_from(["cargo xtask", "run", "--for", "20s", "--json", "--help"]).expect("it parses");
        match cli.task {
            Task::Run { arguments } => assert_eq!(arguments, ["--for", "20s", "--json", "--help"]),
            _ => panic!("not `run`"),
        }
    }
}
