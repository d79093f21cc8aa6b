//! `guestbook`: the site's own program on the app servers.

use std::net::SocketAddr;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use foobar_tests::guestbook::{Settings, serve};
use tokio::signal::unix::{SignalKind, signal};

/// A guest book over HTTP; its databases come from DATABASE_WRITE, DATABASE_READ and DATABASE_PASSWORD_FILE
#[derive(Parser)]
struct Arguments {
    /// Address and port to listen on
    #[arg(long)]
    listen: SocketAddr,
    /// This server's name, shown on the page
    #[arg(long)]
    server: String,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("guestbook: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<()> {
    let arguments = Arguments::parse();
    let settings = Settings::from_environment(arguments.listen, arguments.server)?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    serve(settings, async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
    .await
}
