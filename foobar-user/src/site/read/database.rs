//! `[database]`: what PostgreSQL is initialised with.

use super::Reader;
use crate::site::model::Database;
use crate::site::section::Section;
use crate::site::text;

/// The role that replicas log in as; the owner cannot bear its name.
const REPLICATION_USER: &str = "replication";

pub(super) fn read(reader: &Reader<'_>, mut section: Section<'_>) -> Option<Database> {
    let name = section.parse("name", "a string", text::account);
    let name = section.need("name", name, "name = \"guestbook\"");
    let user = section.parse("user", "a string", |word| match text::account(word)? {
        user if user == "postgres" || user == REPLICATION_USER => {
            Err(format!("`{user}` is PostgreSQL's own; name another owner"))
        }
        user => Ok(user),
    });
    let user = section.need("user", user, "user = \"guestbook\"");
    let password_file = reader.path(&mut section, "password_file");
    let password_file = section.need("password_file", password_file, "password_file = \"secrets/site.password\"");
    let replication = reader.path(&mut section, "replication_password_file");
    let replication = section.need(
        "replication_password_file",
        replication,
        "replication_password_file = \"secrets/replication.password\"",
    );
    if let (Some(owner), Some(replication)) = (&password_file, &replication)
        && owner == replication
    {
        section.faults.error(replication.span, "the owner and replication share one password file; name two files");
    }
    let primary = section.parse("primary", "a server's name", text::name);
    let primary = section.need("primary", primary, "primary = \"db1\"");
    section.finish();
    Some(Database {
        name: name?.value,
        user: user?.value,
        password_file: password_file?,
        replication_password_file: replication?,
        primary: primary?,
    })
}
