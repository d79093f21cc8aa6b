//! `echo`: the echo service of the test bed's web servers.

use std::net::SocketAddr;

use clap::Parser;

/// Answers each datagram with this server's name and the datagram.
#[derive(Parser)]
struct Arguments {
    /// Address and port to listen on, UDP and TCP
    #[arg(long)]
    listen: SocketAddr,
    /// This server's name
    #[arg(long)]
    server: String,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    foobar_tests::echo::serve(arguments.listen, &arguments.server).await
}
