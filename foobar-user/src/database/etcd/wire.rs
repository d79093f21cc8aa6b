//! Questions and answers in etcd's JSON: bytes are base64, 64-bit numbers are strings, and what is zero or false is left out.

use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::database::state::{Member, State};
use crate::database::store::Snapshot;

/// The keys of a site.
#[derive(Debug)]
pub(super) struct Keys {
    prefix: String,
}

/// What every answer tells of the cluster.
#[derive(Debug, Deserialize)]
struct Header {
    cluster_id: String,
    revision: String,
}

#[derive(Debug, Deserialize)]
struct Pair {
    key: String,
    mod_revision: String,
    #[serde(default)]
    value: String,
}

#[derive(Debug, Deserialize)]
struct Range {
    header: Header,
    #[serde(default)]
    kvs: Vec<Pair>,
}

#[derive(Debug, Deserialize)]
struct Swapped {
    header: Header,
    #[serde(default)]
    succeeded: bool,
}

impl Header {
    fn cluster(&self) -> Result<u64> {
        self.cluster_id.parse().context("no number of a cluster")
    }
}

impl Keys {
    pub(super) const fn new(prefix: String) -> Self {
        Self { prefix }
    }

    fn state(&self) -> String {
        format!("{}state", self.prefix)
    }

    fn members(&self) -> String {
        format!("{}members/", self.prefix)
    }

    /// Asks for everything, as it was at one revision.
    pub(super) fn read(&self) -> Bytes {
        // The end is the prefix with its last byte, a slash, counted up.
        let end = format!("{}0", self.prefix.trim_end_matches('/'));
        bytes(&json!({ "key": STANDARD.encode(&self.prefix), "range_end": STANDARD.encode(end) }))
    }

    /// What the answer to [`Keys::read`] says.
    pub(super) fn snapshot(&self, answer: &[u8]) -> Result<Snapshot> {
        let range: Range = serde_json::from_slice(answer).context("an answer that cannot be understood")?;
        let mut snapshot = Snapshot { version: (range.header.cluster()?, 0), ..Snapshot::default() };
        let (state, members) = (self.state(), self.members());
        for pair in &range.kvs {
            let key = String::from_utf8(STANDARD.decode(&pair.key)?)?;
            let value = STANDARD.decode(&pair.value)?;
            if key == state {
                snapshot.version.1 = pair.mod_revision.parse()?;
                snapshot.state = Some(serde_json::from_slice(&value).with_context(|| {
                    format!(
                        "the key {key} of etcd holds no state of the database; if it is nobody else's, remove it \
                         (`etcdctl del`), and the last leader leads again when all database servers have been heard"
                    )
                })?);
            } else if let Some(server) = key.strip_prefix(&members)
                && let Ok(word) = serde_json::from_slice(&value)
            {
                // A word that nobody understands is none: its server is not counted on.
                snapshot.members.insert(server.to_owned(), word);
            }
        }
        Ok(snapshot)
    }

    /// Asks to put a state in place of the one of a revision; 0: of none.
    pub(super) fn swap(&self, revision: u64, state: &State) -> Result<Bytes> {
        let key = STANDARD.encode(self.state());
        let value = STANDARD.encode(serde_json::to_vec(state)?);
        let unchanged = json!({ "key": key, "target": "MOD", "result": "EQUAL", "mod_revision": revision.to_string() });
        Ok(bytes(&json!({ "compare": [unchanged], "success": [{ "request_put": { "key": key, "value": value } }] })))
    }

    /// Asks to keep a server's word.
    pub(super) fn tell(&self, server: &str, member: &Member) -> Result<Bytes> {
        let key = STANDARD.encode(format!("{}{server}", self.members()));
        Ok(bytes(&json!({ "key": key, "value": STANDARD.encode(serde_json::to_vec(member)?) })))
    }
}

/// What the answer to [`Keys::swap`] in a cluster says.
pub(super) fn swapped(cluster: u64, answer: &[u8]) -> Result<Option<(u64, u64)>> {
    let swapped: Swapped = serde_json::from_slice(answer).context("an answer that cannot be understood")?;
    let other = swapped.header.cluster()?;
    ensure!(other == cluster, "two of its members are of different clusters ({cluster:x} and {other:x})");
    let revision = swapped.header.revision.parse()?;
    Ok(swapped.succeeded.then_some((cluster, revision)))
}

/// Why a question was refused, in etcd's words, and what to do where they do not say it.
pub(super) fn refusal(answer: &[u8]) -> String {
    let value: Value = serde_json::from_slice(answer).unwrap_or_default();
    let why = match value["error"].as_str() {
        Some(why) => why.to_owned(),
        None => String::from_utf8_lossy(answer).trim().chars().take(200).collect(),
    };
    if why.contains("database space exceeded") {
        return format!(
            "{why}: its history was never compacted; run it with `--auto-compaction-retention=1`, then `etcdctl compact`, \
             `etcdctl defrag` and `etcdctl alarm disarm`"
        );
    }
    why
}

fn bytes(question: &Value) -> Bytes {
    question.to_string().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys() -> Keys {
        Keys::new("/foobar/www.foobar.com/".into())
    }

    fn pair(key: &str, revision: u64, value: &impl serde::Serialize) -> Value {
        let value = STANDARD.encode(serde_json::to_vec(value).unwrap());
        json!({ "key": STANDARD.encode(key), "create_revision": "2", "mod_revision": revision.to_string(), "value": value })
    }

    fn answer(pairs: &[Value]) -> Vec<u8> {
        json!({ "header": { "cluster_id": "324952591200643719", "revision": "9" }, "kvs": pairs }).to_string().into()
    }

    #[test]
    fn nothing_is_a_snapshot_without_a_state() {
        let snapshot = keys().snapshot(br#"{"header":{"cluster_id":"7","revision":"1","raft_term":"2"}}"#).unwrap();
        assert_eq!(snapshot, Snapshot { version: (7, 0), ..Snapshot::default() });
    }

    #[test]
    fn the_state_and_every_word_are_found_below_the_prefix() {
        let state = State { epoch: 3, leader: "db1".into(), ..State::default() };
        let word = Member { count: 8, ..Member::default() };
        let pairs = [
            pair("/foobar/www.foobar.com/members/db1", 9, &word),
            pair("/foobar/www.foobar.com/members/db2", 8, &"what is this"),
            pair("/foobar/www.foobar.com/members/db3", 8, &word),
            pair("/foobar/www.foobar.com/state", 5, &state),
        ];
        let snapshot = keys().snapshot(&answer(&pairs)).unwrap();
        assert_eq!((snapshot.version, snapshot.state), ((324_952_591_200_643_719, 5), Some(state)));
        assert_eq!(snapshot.members.into_keys().collect::<Vec<_>>(), ["db1", "db3"]);
    }

    #[test]
    fn a_state_that_is_none_is_no_missing_state() {
        let told = keys().snapshot(&answer(&[pair("/foobar/www.foobar.com/state", 5, &7)])).unwrap_err();
        assert!(told.to_string().contains("the key /foobar/www.foobar.com/state of etcd holds no state"), "{told}");
    }

    #[test]
    fn the_range_is_of_this_site_alone() {
        let question: Value = serde_json::from_slice(&keys().read()).unwrap();
        let text = |name: &str| String::from_utf8(STANDARD.decode(question[name].as_str().unwrap()).unwrap()).unwrap();
        let (begin, end) = (text("key"), text("range_end"));
        let within = |key: &str| begin.as_str() <= key && key < end.as_str();
        assert!(within("/foobar/www.foobar.com/state") && within("/foobar/www.foobar.com/members/zz"));
        assert!(!within("/foobar/www.foobar.com.uk/state") && !within("/foobar/www.foobar.co/state"));
    }

    #[test]
    fn a_swap_tells_its_revision_or_that_another_was_first() {
        let done = br#"{"header":{"cluster_id":"7","revision":"12"},"succeeded":true,"responses":[{}]}"#;
        assert_eq!(swapped(7, done).unwrap(), Some((7, 12)));
        assert_eq!(swapped(7, br#"{"header":{"cluster_id":"7","revision":"12"}}"#).unwrap(), None);
        assert!(swapped(8, done).unwrap_err().to_string().contains("different clusters"));
    }

    #[test]
    fn refusals_say_what_to_do_where_etcd_does_not() {
        let full = br#"{"error":"etcdserver: mvcc: database space exceeded","code":8}"#;
        assert!(refusal(full).contains("--auto-compaction-retention=1"));
        assert_eq!(refusal(br#"{"error":"etcdserver: no leader","code":14}"#), "etcdserver: no leader");
        assert_eq!(refusal(b"Not Found\n"), "Not Found");
    }
}
