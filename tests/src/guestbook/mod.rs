//! The guest book: the site's own program, small and real. It reads through one VIP, writes through another, and knows nothing
//! of how many database servers there are or which is the primary.
//!
//! `GET /guestbook`, `GET /guestbook.json`, `POST /guestbook` (a form), `GET /healthz`. `/healthz` does not depend on the
//! database: when the database is away every app server is equally ill, and taking all of them out would only replace
//! a clear 503 by an unclear 502.

mod entries;
mod form;
mod outage;
mod page;
mod pool;
mod routes;
mod server;
mod settings;

pub use server::serve;
pub use settings::Settings;
