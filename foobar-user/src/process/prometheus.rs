//! Prometheus: its configuration lists every agent of the site.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;

use super::account::Account;
use super::kind::Surroundings;
use super::launch::{self, Launch};
use super::{Folders, files};
use crate::plan::{ProcessPlan, PrometheusPlan};

const PROGRAM: &str = "/usr/bin/prometheus";
const PROMTOOL: &str = "/usr/bin/promtool";
const ACCOUNT: &str = "prometheus";
/// How long samples are kept.
const RETENTION: &str = "15d";

/// Writes `prometheus.yml` and says how to start Prometheus.
pub(super) async fn configure(
    prometheus: &PrometheusPlan,
    plan: &ProcessPlan,
    around: &Surroundings,
) -> Result<Launch> {
    if !Path::new(PROGRAM).exists() {
        bail!("{PROGRAM} is missing: apt-get install --no-install-recommends prometheus");
    }
    let account = Account::named(plan.user.as_deref().unwrap_or(ACCOUNT))?;
    let folder = folder(&around.folders, plan);
    files::walkable_folder(&folder)?;
    let data = folder.join("data");
    files::owned_folder(&data, 0o700, &account)?;
    account.can_reach(&data)?;
    let rules = match &prometheus.rules {
        // Copied: the site's folder may be closed to Prometheus's account.
        Some(path) => {
            Some(fs::read_to_string(path).with_context(|| format!("cannot read the rules {}", path.display()))?)
        }
        None => None,
    };
    // Judged in a folder of its own first: a bad file must not replace a good one.
    let trial = folder.join("trial");
    files::walkable_folder(&trial)?;
    write(prometheus, rules.as_deref(), &trial)?;
    if Path::new(PROMTOOL).exists() {
        let mut check = launch::helper(Path::new(PROMTOOL), Some(&account), &around.cgroup)?;
        check.args(["check", "config"]).arg(trial.join("prometheus.yml"));
        launch::run(check).await.context("the configuration of Prometheus is refused")?;
    }
    write(prometheus, rules.as_deref(), &folder)?;
    let configuration = configuration(prometheus, rules.is_some(), &folder);
    Ok(Launch {
        program: PROGRAM.into(),
        arguments: vec![
            format!("--config.file={}", folder.join("prometheus.yml").display()).into(),
            format!("--storage.tsdb.path={}", data.display()).into(),
            format!("--storage.tsdb.retention.time={RETENTION}").into(),
            format!("--web.listen-address={}", prometheus.listen).into(),
            "--log.level=warn".into(),
        ],
        environment: std::collections::BTreeMap::new(),
        folder: None,
        account: Some(account),
        stop_signal: Signal::SIGTERM,
        reload_signal: Some(Signal::SIGHUP),
        configuration: files::fingerprint([configuration.as_bytes(), rules.unwrap_or_default().as_bytes()]),
        identity: String::new(),
    })
}

fn folder(folders: &Folders, plan: &ProcessPlan) -> std::path::PathBuf {
    folders.state_of(&plan.name)
}

fn write(prometheus: &PrometheusPlan, rules: Option<&str>, folder: &Path) -> Result<()> {
    if let Some(rules) = rules {
        files::write_if_changed(&folder.join("rules.yml"), rules, 0o644, None)?;
    }
    let text = configuration(prometheus, rules.is_some(), folder);
    files::write_if_changed(&folder.join("prometheus.yml"), &text, 0o644, None)?;
    Ok(())
}

/// The text of `prometheus.yml`; strings are quoted as JSON, which YAML contains.
fn configuration(prometheus: &PrometheusPlan, rules: bool, folder: &Path) -> String {
    let mut text = String::from(
        "# Written by foobar agent from the site file; changes here are lost.\n\
         global:\n  scrape_interval: 2s\n  scrape_timeout: 2s\n  evaluation_interval: 2s\n",
    );
    if rules {
        let path = folder.join("rules.yml").display().to_string();
        let _ = writeln!(text, "rule_files:\n  - {path:?}");
    }
    text.push_str("scrape_configs:\n  - job_name: foobar\n");
    if !prometheus.targets.is_empty() {
        text.push_str("    static_configs:\n");
    }
    for target in &prometheus.targets {
        let role = format!("{:?}", target.role).to_lowercase();
        let _ = writeln!(
            text,
            "      - targets: [{:?}]\n        labels: {{ server: {:?}, role: {role:?} }}",
            target.address.to_string(),
            target.server
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{PrometheusTarget, Role};

    #[test]
    fn every_target_carries_server_and_role() {
        let plan = PrometheusPlan {
            listen: ([127, 0, 0, 1], 9090).into(),
            targets: vec![PrometheusTarget {
                server: "lb1".into(),
                role: Role::Balancer,
                address: ([10, 0, 1, 1], 9900).into(),
            }],
            rules: None,
        };
        let text = configuration(&plan, true, Path::new("/s"));
        assert!(text.contains(r#"- targets: ["10.0.1.1:9900"]"#), "{text}");
        assert!(text.contains(r#"labels: { server: "lb1", role: "balancer" }"#), "{text}");
        assert!(text.contains(r#"- "/s/rules.yml""#), "{text}");
    }
}
