//! The primary's server dies under the guest book: visitors try again for some seconds, and what they were thanked for is there.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use foobar_tests::{Bed, Silent, eventually};

/// db1 with its agent and all its processes is killed while entries are written through every tier; the guest book's own log tells
/// of the outage that it saw.
pub(crate) fn guest_book(bed: &Bed) -> Result<()> {
    let before = total(bed)?;
    let mut visitors = Visitors::default();
    visitors.write(bed, 20)?;
    ensure!(visitors.refused == 0, "{} were refused before the death", visitors.refused);
    let killed = Instant::now();
    bed.kill_server("db1")?;
    let outcome = visitors.write_through(bed, killed);
    // Whatever was seen, the next check needs db1.
    bed.start_agent("db1")?;
    bed.ready("db1", &Silent)?;
    outcome?;
    bed.settled(&Silent)?;

    // An answer that was lost may stand for a commit; a thank-you always does.
    let least = before + visitors.thanked;
    let most = least + visitors.refused;
    eventually(DEADLINE, "what visitors were thanked for is read", || Ok(total(bed)? >= least))?;
    ensure!(total(bed)? <= most, "{} entries of {most} that were sent", total(bed)?);
    let told = ["app1", "app2"].map(|server| outages(bed, server));
    let told = told.into_iter().collect::<Result<Vec<_>>>()?.concat();
    println!(
        "{} thanked, {} told to try again; the guest books' logs say: {}",
        visitors.thanked,
        visitors.refused,
        told.join("; ")
    );
    ensure!(!told.is_empty(), "no guest book has told of an outage");
    Ok(())
}

/// Visitors who write one after the other.
#[derive(Debug, Default)]
struct Visitors {
    thanked: i64,
    refused: i64,
}

impl Visitors {
    /// So many are thanked, one after the other.
    fn write(&mut self, bed: &Bed, count: i64) -> Result<()> {
        let goal = self.thanked + count;
        eventually(DEADLINE, "visitors are thanked", || self.visit(bed).map(|()| self.thanked >= goal))
    }

    /// Until they have been refused, and are thanked without a refusal again.
    fn write_through(&mut self, bed: &Bed, killed: Instant) -> Result<()> {
        eventually(DEADLINE, "somebody is told to try again", || self.visit(bed).map(|()| self.refused > 0))?;
        let (mut thanked, mut refused) = (self.thanked, self.refused);
        eventually(DEADLINE, "visitors are thanked again", || {
            self.visit(bed)?;
            if refused != self.refused {
                (thanked, refused) = (self.thanked, self.refused);
            }
            Ok(self.thanked >= thanked + 50)
        })?;
        println!("fifty in a row are thanked {} ms after the death", killed.elapsed().as_millis());
        Ok(())
    }

    /// Refused means: told to try again, and by nobody but the guest book, whose web servers have waited for it.
    fn visit(&mut self, bed: &Bed) -> Result<()> {
        let message = format!("visitor {}", self.thanked + self.refused);
        let answer = bed.post(&bed.https()?, "/guestbook", &[("author", "Ada"), ("message", &message)])?;
        match answer.status.as_u16() {
            303 => self.thanked += 1,
            503 if answer.header("retry-after") == "1" => self.refused += 1,
            other => anyhow::bail!("{other}: {}", answer.text()),
        }
        Ok(())
    }
}

fn total(bed: &Bed) -> Result<i64> {
    let listing = bed.get(&bed.https()?, "/guestbook.json")?;
    ensure!(listing.status == 200, "{}: {}", listing.status, listing.text());
    serde_json::from_slice::<serde_json::Value>(&listing.body)?["total"].as_i64().context("a total")
}

/// Lines of a guest book's log about an outage that is over.
fn outages(bed: &Bed, server: &str) -> Result<Vec<String>> {
    let log = bed.agent(server)?.logs("guestbook")?;
    let lines = log.lines().filter(|line| line.contains("written again after"));
    Ok(lines.map(|line| format!("{server}: {}", line.trim())).collect())
}

const DEADLINE: Duration = Duration::from_secs(30);
