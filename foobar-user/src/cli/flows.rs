//! `foobar flows list|count|top|kill`.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Result, ensure};
use clap::{Args, Subcommand};
use foobar_user::agent::FlowsReport;
use foobar_user::agent::control::{Command, FlowQuery};
use foobar_user::sets::{prefix, ttl};
use foobar_user::table::{Column, table};
use ipnet::IpNet;

use super::{ServerArguments, print_json};

#[derive(Debug, Subcommand)]
pub(super) enum FlowsCommand {
    /// List flows: client, VIP, backend, state.
    List(FlowArguments),
    /// Count flows by service, backend and state.
    Count(FlowArguments),
    /// List the clients with the most flows.
    Top(FlowArguments),
    /// End flows: their next packets are dropped, and the client has to connect again.
    ///
    /// Neither end is told. A client that sends hears nothing more, and gives up by its own time-outs; one that waits, and its
    /// backend, keep their ends until they send. To end what a backend serves in order, let it close: `foobar backend drain`.
    Kill(FlowArguments),
}

#[derive(Debug, Args)]
pub(super) struct FlowArguments {
    #[command(flatten)]
    server: ServerArguments,
    /// Only of this service.
    #[arg(long)]
    service: Option<String>,
    /// Only to this backend's server.
    #[arg(long)]
    backend: Option<String>,
    /// Only of this client: an address, an address and port, or a prefix.
    #[arg(long, value_parser = client)]
    client: Option<Client>,
    /// Lines shown at the most.
    #[arg(long, default_value_t = 50)]
    limit: usize,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Which clients.
#[derive(Clone, Copy, Debug)]
struct Client {
    prefix: IpNet,
    port: Option<u16>,
}

fn client(text: &str) -> Result<Client, String> {
    if let Ok(socket) = text.parse::<SocketAddr>() {
        return Ok(Client { prefix: IpNet::from(socket.ip()), port: Some(socket.port()) });
    }
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(Client { prefix: IpNet::from(address), port: None });
    }
    prefix::parse(text).map(|prefix| Client { prefix, port: None }).map_err(|error| error.to_string())
}

pub(super) fn run(command: &FlowsCommand) -> Result<()> {
    match command {
        FlowsCommand::List(arguments) => arguments.show(&arguments.ask(false)?, list),
        FlowsCommand::Count(arguments) => arguments.show(&arguments.ask(false)?, count),
        FlowsCommand::Top(arguments) => arguments.show(&arguments.ask(false)?, top),
        FlowsCommand::Kill(arguments) => {
            let chosen = arguments.service.is_some() || arguments.backend.is_some() || arguments.client.is_some();
            ensure!(chosen, "this would end every flow: say which by --client, --backend or --service");
            arguments.show(&arguments.ask(true)?, |report| format!("{} flows ended\n", report.ended))
        }
    }
}

impl FlowArguments {
    fn ask(&self, end: bool) -> Result<FlowsReport> {
        self.server.ask(&Command::Flows(FlowQuery {
            service: self.service.clone(),
            backend: self.backend.clone(),
            client: self.client.map(|client| client.prefix),
            client_port: self.client.and_then(|client| client.port),
            limit: self.limit,
            end,
        }))
    }

    fn show(&self, report: &FlowsReport, text: impl Fn(&FlowsReport) -> String) -> Result<()> {
        if self.json {
            return print_json(report);
        }
        print!("{}", text(report));
        Ok(())
    }
}

fn list(report: &FlowsReport) -> String {
    let columns = [
        Column::Text("client"),
        Column::Text("VIP"),
        Column::Text("service"),
        Column::Text("backend"),
        Column::Text("endpoint"),
        Column::Text("from source"),
        Column::Text("state"),
        Column::Number("idle"),
    ];
    let row = |flow: &foobar_user::agent::FlowEntry| {
        vec![
            flow.client.to_string(),
            flow.vip.to_string(),
            flow.service.clone(),
            flow.backend.clone(),
            flow.endpoint.map_or_else(String::new, |endpoint| endpoint.to_string()),
            flow.source.map_or_else(String::new, |source| source.to_string()),
            flow.state.clone(),
            ttl::format(std::time::Duration::from_millis(flow.idle_ms)),
        ]
    };
    let mut text = table(&columns, &report.list.iter().map(row).collect::<Vec<_>>());
    let shown = report.list.len() as u64;
    if shown < report.flows {
        text += &format!("… {} more; --limit shows more of them\n", report.flows - shown);
    }
    text
}

fn count(report: &FlowsReport) -> String {
    let columns = [Column::Text("service"), Column::Text("backend"), Column::Text("state"), Column::Number("flows")];
    let row = |count: &foobar_user::agent::FlowCount| {
        vec![count.service.clone(), count.backend.clone(), count.state.clone(), count.flows.to_string()]
    };
    let mut rows: Vec<Vec<String>> = report.counts.iter().map(row).collect();
    rows.push(vec!["all".to_owned(), String::new(), String::new(), report.flows.to_string()]);
    table(&columns, &rows)
}

fn top(report: &FlowsReport) -> String {
    let columns = [Column::Text("client"), Column::Number("flows"), Column::Number("share")];
    let row = |client: &foobar_user::agent::ClientCount| {
        let share = client.flows as f64 / report.flows.max(1) as f64;
        vec![client.client.to_string(), client.flows.to_string(), format!("{:.0} %", share * 100.0)]
    };
    table(&columns, &report.top.iter().map(row).collect::<Vec<_>>())
}
