//! Bad site files: each edit of a good one is refused at its line and column, with what to do.

mod common;

use std::path::Path;

use common::{GOOD, edited};
use foobar_user::site::{Checked, Faults, Severity};

/// Name, text to replace in the good file, its replacement, the text in the edited file at which the fault stands
/// (its first occurrence), a fragment of the message.
type Case = (&'static str, &'static str, &'static str, &'static str, &'static str);

const DB2: &str = "[[server]]\nname = \"db2\"\nrole = \"database\"";
const CIRCLE: &str = "[[server]]\nname = \"db3\"\nrole = \"database\"\naddress = \"10.0.1.33\"\ninterfaces = [\"eth0\"]\n\
    follows = \"db2\"\n\n[[server]]\nname = \"db2\"\nrole = \"database\"\nfollows = \"db3\"";

#[rustfmt::skip]
const CASES: &[Case] = &[
    // The file itself.
    ("syntax", "admin = [", "admin = = [", "= [", "this is not TOML"),
    ("key twice", "primary = \"db1\"", "primary = \"db1\"\nprimary = \"db2\"", "primary = \"db2\"", "duplicate key"),
    ("service twice", "[service.plain]", "[service.app]\nx = 1\n[service.plain]", "app]\nlisten = \"10.0.9.10", "duplicate key"),
    ("unknown section", "[database]", "[databse]", "databse]", "did you mean `database`?"),
    ("section is a value", "[[server]]\nname = \"lb1\"", "[x]\n[[server]]\nname = \"lb1\"", "x]", "unknown key `x`"),
    // [site]
    ("unknown key of site", "metrics_port", "metric_port", "metric_port", "did you mean `metrics_port`?"),
    ("domain missing", "domain = \"www.foobar.com\"", "", "[site]", "lacks `domain`"),
    ("domain wrong type", "domain = \"www.foobar.com\"", "domain = 7", "7", "must be a string, but this is an integer"),
    ("domain bad", "www.foobar.com", "www_foobar.com", "\"www_foobar.com\"", "no domain name"),
    ("admin missing", "admin = [\"10.0.1.41/32\"]", "", "[site]", "lacks `admin`"),
    ("admin host bits", "10.0.1.41/32", "10.0.1.41/24", "\"10.0.1.41/24\"", "write `10.0.1.0/24`"),
    ("admin no prefix", "10.0.1.41/32", "10.0.1.41/33", "\"10.0.1.41/33\"", "no prefix"),
    ("metrics port too large", "metrics_port = 9900", "metrics_port = 99000", "99000", "from 1 to 65535"),
    ("metrics port zero", "metrics_port = 9900", "metrics_port = 0", "0\n", "from 1 to 65535"),
    ("flows too few", "metrics_port = 9900", "metrics_port = 9900\nflows = 1000", "1000", "from 1024 to 16777216"),
    ("flows too many", "metrics_port = 9900", "metrics_port = 9900\nflows = 20_000_000", "20_000_000", "from 1024 to 16777216"),
    ("pki wrong type", "pki = \"pki\"", "pki = true", "true", "must be a path, but this is a boolean"),
    // [[server]]
    ("unknown key of server", "address = \"10.0.1.1\"", "adress = \"10.0.1.1\"", "adress", "did you mean `address`?"),
    ("server name missing", "name = \"lb1\"", "", "[[server]]", "lacks `name`"),
    ("server name bad", "\"lb1\"\nrole", "\"LB_1\"\nrole", "\"LB_1\"", "is no name"),
    ("server name long", "\"lb1\"\nrole", "\"lb1-abcdefghijklmnopqrstuvwxyz0123\"\nrole", "\"lb1-a", "longer than 32"),
    ("server name twice", "name = \"web2\"", "name = \"web1\"", "2:\"web1\"", "given twice"),
    ("server called as a role", "name = \"web2\"", "name = \"web\"", "\"web\"\nrole", "a word of its own"),
    ("server called as another role", "name = \"monitor1\"", "name = \"app\"", "\"app\"\nrole", "a word of its own"),
    ("two balancers", "name = \"web1\"\nrole = \"web\"", "name = \"web1\"\nrole = \"balancer\"", "\"web1\"\nrole", "a site has one for now"),
    ("role unknown", "role = \"balancer\"", "role = \"balancr\"", "\"balancr\"", "did you mean `balancer`?"),
    ("role missing", "role = \"balancer\"\n", "", "[[server]]", "lacks `role`"),
    ("address bad", "\"10.0.1.11\"", "\"10.0.1.256\"", "\"10.0.1.256\"", "no IP address"),
    ("address with a length that is none", "\"10.0.1.11\"", "\"10.0.1.11/33\"", "\"10.0.1.11/33\"", ""),
    ("address twice", "\"10.0.1.12\"", "\"10.0.1.11\"", "2:\"10.0.1.11\"", "address of server `web1` already"),
    ("address loopback", "\"10.0.1.12\"", "\"127.0.0.1\"", "\"127.0.0.1\"", "a loopback address"),
    ("address6 is IPv4", "\"fd00:1::12\"", "\"10.0.1.99\"", "\"10.0.1.99\"", "write it as `address`"),
    ("address6 twice", "\"fd00:1::12\"", "\"fd00:1::11\"", "2:\"fd00:1::11\"", "address of server `web1` already"),
    ("address6 beside IPv6", "\"10.0.1.12\"", "\"fd00:1::99\"", "\"fd00:1::12\"", "leave `address6` out"),
    ("interfaces missing", "interfaces = [\"eth0\", \"eth1\"]\n", "", "[[server]]", "lacks `interfaces`"),
    ("interfaces empty", "[\"eth0\", \"eth1\"]", "[]", "[]", "must name 1 to 64"),
    ("interface long", "\"eth1\"", "\"ethernet-card-number-1\"", "\"ethernet", "longer than the 15"),
    ("outside is no interface", "[\"eth0\", \"eth1\"]", "[\"eth0\", \"eth1\"]\noutside = [\"eth2\"]", "\"eth2\"", "did you mean `eth0`?"),
    ("outside far from any interface", "[\"eth0\", \"eth1\"]", "[\"eth0\", \"eth1\"]\noutside = [\"wan\"]", "\"wan\"", "its interfaces are eth0, eth1"),
    ("outside twice", "[\"eth0\", \"eth1\"]", "[\"eth0\", \"eth1\"]\noutside = [\"eth1\", \"eth1\"]", "3:\"eth1\"", "named twice"),
    ("outside wrong type", "[\"eth0\", \"eth1\"]", "[\"eth0\", \"eth1\"]\noutside = true", "true", "must be a list of interface names"),
    ("outside everywhere", "[\"eth0\", \"eth1\"]", "[\"eth0\", \"eth1\"]\noutside = [\"eth0\", \"eth1\"]", "2:\"eth0\", \"eth1\"]", "packets of server `web1` (10.0.1.11) would be dropped"),
    ("reverse path wrong type", "[\"eth0\", \"eth1\"]", "[\"eth0\", \"eth1\"]\nreverse_path = \"strict\"", "\"strict\"", "must be true or false"),
    ("interface twice", "\"eth1\"", "\"eth0\"", "2:\"eth0\"", "named twice"),
    // [service.x]
    ("service name bad", "[service.plain]", "[service.Plain]", "Plain", "service name `Plain` is no name"),
    ("unknown key of service", "encrypt = true", "encript = true", "encript", "did you mean `encrypt`?"),
    ("listen missing", "listen = \"10.0.9.10:8000\"\n", "", "app]", "lacks `listen`"),
    ("listen without port", "\"10.0.9.10:8000\"", "\"10.0.9.10\"", "\"10.0.9.10\"", "no address and port"),
    ("listen port 0", "\"10.0.9.10:8000\"", "\"10.0.9.10:0\"", "\"10.0.9.10:0\"", "port 0"),
    ("listen on everything", "\"10.0.9.10:8000\"", "\"0.0.0.0:8000\"", "\"0.0.0.0:8000\"", "unspecified"),
    ("listen twice", "\"[2001:db8::10]:8080\"", "\"203.0.113.10:8080\"", "2:\"203.0.113.10:8080\"", "twice; name it once"),
    ("VIP of a server", "\"10.0.9.10:8000\"", "\"10.0.1.21:8000\"", "\"10.0.1.21:8000\"", "is the address of server `app1`"),
    ("VIP port taken", "\"10.0.9.21:5432\"", "\"10.0.9.20:5432\"", "2:\"10.0.9.20:5432\"", "taken twice"),
    ("VIP port taken by the edge's way", "\"203.0.113.10:8080\"", "\"203.0.113.10:8443\"", "\"203.0.113.10:8443\"", "reaches its backends"),
    ("VIP port taken by the redirect", "\"203.0.113.10:8080\"", "\"203.0.113.10:80\"", "\"203.0.113.10:80\"", "redirects from there"),
    ("VIP family without backends", "\"10.0.9.10:8000\"", "\"[2001:db8::20]:8000\"", "\"[2001:db8::20]:8000\"", "no `app` server has an IPv6 address"),
    ("to missing", "to = \"app:8000\"\n", "", "app]", "lacks `to`"),
    ("to without port", "to = \"app:8000\"", "to = \"app\"", "\"app\"\nfrom", "write role:port"),
    ("to port bad", "to = \"app:8000\"", "to = \"app:0\"", "\"app:0\"", "is no port"),
    ("to unknown role", "to = \"app:8000\"", "to = \"apps:8000\"", "\"apps:8000\"", "did you mean `app`?"),
    ("to role nobody has", "role = \"monitor\"", "role = \"app\"", "\"monitor\"]", "no server has the role `monitor`"),
    ("to the metrics port", "to = \"app:8000\"", "to = \"app:9900\"", "\"app:9900\"", "agent's /metrics"),
    ("protocol unknown", "protocol = \"tcp\"", "protocol = \"sctp\"", "\"sctp\"", "no transport"),
    ("tls over udp", "encrypt = true", "encrypt = true\nprotocol = \"udp\"", "\"udp\"", "TLS runs over tcp"),
    ("tls wrong type", "tls = { certificate = \"www.pem\", key = \"www.key\" }", "tls = true", "true", "must be a table such as"),
    ("tls key missing", ", key = \"www.key\"", "", "{ certificate", "lacks `key`"),
    ("tls and forward", "encrypt = true", "encrypt = true\nforward = \"nat\"", "\"nat\"", "is not forwarded"),
    ("encrypt without tls", "forward = \"nat\"", "forward = \"nat\"\nencrypt = true", "2:true", "this needs `tls"),
    ("encrypt wrong type", "encrypt = true", "encrypt = \"yes\"", "\"yes\"", "must be true or false"),
    ("redirect onto TLS", "encrypt = true", "encrypt = true\nredirect_port = 443", "\"203.0.113.10:443\"", "share one port"),
    ("forward unknown", "forward = \"nat\"", "forward = \"dsr\"", "\"dsr\"", "write `nat`, `direct`, `tunnel` or `socket`"),
    ("tunnel to another port", "to = \"web:8080\"\nforward = \"nat\"", "to = \"web:8081\"\nforward = \"tunnel\"", "\"203.0.113.10:8080\"", "a `tunnel` service sends packets on as they are"),
    ("tunnel to the balancer itself", "to = \"web:8080\"\nforward = \"nat\"", "to = \"balancer:8080\"\nforward = \"tunnel\"", "\"balancer:8080\"", "a balancer cannot send packets on to itself"),
    ("direct to another port", "to = \"web:8080\"\nforward = \"nat\"", "to = \"web:8081\"\nforward = \"direct\"", "\"203.0.113.10:8080\"", "sends packets on as they are"),
    ("source of a server", "forward = \"nat\"", "forward = \"nat\"\nsource = [\"10.0.1.11\", \"fd00:1::100\"]", "2:\"10.0.1.11\"", "is the address of server `web1`"),
    ("source of the balancer itself", "forward = \"nat\"", "forward = \"nat\"\nsource = [\"10.0.1.1\", \"fd00:1::100\"]", "2:\"10.0.1.1\"", "whose own connections use its ports"),
    ("source that is a VIP", "forward = \"nat\"", "forward = \"nat\"\nsource = [\"10.0.1.100\", \"2001:db8::10\"]", "\"2001:db8::10\"", "is a VIP of service `plain`"),
    ("source twice", "forward = \"nat\"", "forward = \"nat\"\nsource = [\"10.0.1.100\", \"fd00:1::100\", \"10.0.1.100\"]", "2:\"10.0.1.100\"", "named twice"),
    ("source of no family", "forward = \"nat\"", "forward = \"nat\"\nsource = [\"10.0.1.100\"]", "\"10.0.1.100\"", "no IPv6 address for those connections"),
    ("source of a family too many", "\"[2001:db8::10]:8080\"]\nprotocol = \"tcp\"\nto = \"web:8080\"\nforward = \"nat\"", "\"203.0.113.10:8081\"]\nto = \"web:8080\"\nforward = \"nat\"\nsource = [\"10.0.1.100\", \"fd00:1::100\"]", "\"fd00:1::100\"", "listens on no IPv6 address"),
    ("source of a socket service", "from = [\"web\"]", "from = [\"web\"]\nsource = \"10.0.1.100\"", "\"10.0.1.100\"", "only `forward = \"nat\"` gives packets another source"),
    ("source of a direct service", "forward = \"nat\"", "forward = \"direct\"\nsource = \"10.0.1.100\"", "\"10.0.1.100\"", "only `forward = \"nat\"` gives packets another source"),
    ("source of a tls service", "encrypt = true", "encrypt = true\nsource = \"10.0.1.100\"", "\"10.0.1.100\"", "only `forward = \"nat\"` gives packets another source"),
    ("source with a length", "forward = \"nat\"", "forward = \"nat\"\nsource = \"10.0.1.100/32\"", "\"10.0.1.100/32\"", "is a network; write `10.0.1.100`"),
    ("source empty", "forward = \"nat\"", "forward = \"nat\"\nsource = []", "[]", "name an address, or leave it out"),
    ("encrypted and plain on one port", "to = \"web:8080\"", "to = \"web:8443\"", "2:\"web:8443\"", "use two ports"),
    ("no balancer", "role = \"balancer\"", "role = \"monitor\"", "www]", "needs a balancer"),
    ("from missing", "from = [\"web\"]\n", "", "app]\nlisten", "lacks `from`"),
    ("from unknown", "from = [\"web\"]", "from = [\"wob1\"]", "\"wob1\"", "did you mean `web1`?"),
    ("from empty", "from = [\"web\"]", "from = []", "[]", "nobody could connect"),
    ("service from a set", "from = [\"web\"]", "from = [\"set:blocked\"]", "\"set:blocked\"", "services take none"),
    ("from wrong type", "from = [\"web\"]", "from = [1.5]", "1.5", "but this is a float"),
    ("schedule unknown", "\"round-robin\"", "\"least\"", "\"least\"", "unknown schedule `least`"),
    ("schedule misspelt", "\"round-robin\"", "\"roundrobin\"", "\"roundrobin\"", "did you mean `round-robin`?"),
    ("schedule of a client off the wire", "\"round-robin\"", "\"maglev\"", "\"maglev\"", "`maglev` has nothing to go by"),
    ("affinity off the wire", "from = [\"web\"]", "from = [\"web\"]\naffinity = \"10m\"", "\"10m\"", "has one client, this server"),
    ("eject of datagrams", "protocol = \"tcp\"\nto = \"web:8080\"", "protocol = \"udp\"\neject = { failures = 3 }\nto = \"web:8080\"", "{ failures", "not refused as connections are"),
    ("eject of direct", "forward = \"nat\"", "forward = \"direct\"\neject = { failures = 3 }", "{ failures", "do not pass the balancer"),
    ("eject by a number", "forward = \"nat\"", "forward = \"nat\"\neject = 3", "3\nfrom", "must be a table such as"),
    ("eject misspelt", "forward = \"nat\"", "forward = \"nat\"\neject = { failure = 3 }", "failure = 3", "did you mean `failures`?"),
    ("eject for too long", "forward = \"nat\"", "forward = \"nat\"\neject = { time = \"2h\" }", "\"2h\"", "longer than 1h"),
    ("affinity without unit", "forward = \"nat\"", "forward = \"nat\"\naffinity = \"10\"", "\"10\"", "is no time"),
    ("slow start too slow", "forward = \"nat\"", "forward = \"nat\"\nslow_start = \"2h\"", "\"2h\"", "longer than 1h"),
    ("connections zero", "forward = \"nat\"", "forward = \"nat\"\nmax_connections = 0", "0\nfrom", "from 1 to 1000000"),
    ("weight of no backend", "forward = \"nat\"", "forward = \"nat\"\nweights = { app1 = 2 }", "app1 = 2", "is no `web` server"),
    ("weight too heavy", "forward = \"nat\"", "forward = \"nat\"\nweights = { web1 = 1001 }", "1001", "from 0 to 1000"),
    ("weights all zero", "forward = \"nat\"", "forward = \"nat\"\nweights = { web1 = 0, web2 = 0 }", "web1 = 0", "every weight is 0"),
    ("fallback unknown", "forward = \"nat\"", "forward = \"nat\"\nfallback = [\"web9\"]", "\"web9\"", "is no `web` server"),
    ("select unknown", "select = \"primary\"", "select = \"primry\"", "\"primry\"", "did you mean `primary`?"),
    ("select without database", "from = [\"web\"]", "from = [\"web\"]\nselect = \"primary\"", "\"primary\"", "for databases only"),
    ("two database ports", "to = \"database:5432\"\nselect = \"replica\"", "to = \"database:5433\"\nselect = \"replica\"", "\"database:5433\"", "PostgreSQL listens on one port"),
    // check
    ("check kind unknown", "kind = \"http\"", "kind = \"ping\"", "\"ping\"", "no kind of check"),
    ("check path relative", "\"/healthz\"", "\"healthz\"", "\"healthz\"", "write `/healthz`"),
    ("check path without http", "kind = \"http\"", "kind = \"tcp\"", "\"/healthz\"", "only `kind = \"http\"`"),
    ("check status bad", "kind = \"http\"", "kind = \"http\", status = \"2xx\"", "\"2xx\"", "is no status"),
    ("check status backwards", "kind = \"http\"", "kind = \"http\", status = \"299-200\"", "\"299-200\"", "is no status"),
    ("check body of tcp", "kind = \"http\", path = \"/healthz\"", "kind = \"tcp\", body = \"ok\"", "\"ok\"", "only `kind = \"http\"` has this"),
    ("check script without program", "kind = \"http\", path = \"/healthz\"", "kind = \"script\"", "{ kind", "lacks `command`"),
    ("check script relative", "kind = \"http\", path = \"/healthz\"", "kind = \"script\", command = [\"check\"]", "[\"check\"]", "by its whole path"),
    ("check command of tcp", "kind = \"http\", path = \"/healthz\"", "kind = \"tcp\", command = [\"/bin/true\"]", "[\"/bin/true\"]", "only `kind = \"script\"` runs"),
    ("check interval short", "interval_ms = 250", "interval_ms = 9", "9,", "from 10 to 60000"),
    ("check interval long", "interval_ms = 250", "interval_ms = 60001", "60001", "from 10 to 60000"),
    ("check timeout over interval", "timeout_ms = 250", "timeout_ms = 251", "251", "checks would overlap"),
    ("check rise zero", "rise = 2", "rise = 0", "0, fall", "from 1 to 100"),
    ("check fall large", "fall = 2", "fall = 101", "101", "from 1 to 100"),
    ("check postgres elsewhere", "kind = \"http\", path = \"/healthz\"", "kind = \"postgres\"", "\"postgres\"", "is for `to = \"database"),
    ("check unknown key", "rise = 2", "raise = 2", "raise", "did you mean `rise`?"),
    ("select with tcp check", "select = \"primary\"", "select = \"primary\"\ncheck = { kind = \"tcp\" }", "\"tcp\" }", "needs a postgres check"),
    // [[server]] follows
    ("follows elsewhere", "address = \"10.0.1.11\"", "address = \"10.0.1.11\"\nfollows = \"db1\"", "\"db1\"", "only a database server follows"),
    ("follows by a list", "address = \"10.0.1.32\"", "address = \"10.0.1.32\"\nfollows = [\"db1\"]", "[\"db1\"]", "must be a database server's name"),
    ("follows nobody", "address = \"10.0.1.32\"", "address = \"10.0.1.32\"\nfollows = \"db9\"", "\"db9\"", "no server is called `db9`"),
    ("follows an app server", "address = \"10.0.1.32\"", "address = \"10.0.1.32\"\nfollows = \"app1\"", "2:\"app1\"", "only a database server can be followed"),
    ("follows itself", "address = \"10.0.1.32\"", "address = \"10.0.1.32\"\nfollows = \"db2\"", "2:\"db2\"", "cannot follow itself"),
    ("primary follows", "address = \"10.0.1.31\"", "address = \"10.0.1.31\"\nfollows = \"db2\"", "\"db2\"", "is the `primary`, which leads first"),
    ("follows in a circle", DB2, CIRCLE, "2:\"db3\"", "db2 follows itself by way of db3"),
    // [database]
    ("primary unknown", "primary = \"db1\"", "primary = \"db9\"", "\"db9\"", "did you mean `db1`?"),
    ("primary no database", "primary = \"db1\"", "primary = \"web1\"", "2:\"web1\"", "is a web server"),
    ("database mode unknown", "primary = \"db1\"", "primary = \"db1\"\nmode = \"fast\"", "\"fast\"", "is no mode"),
    ("degrading in strict", "primary = \"db1\"", "primary = \"db1\"\nmode = \"strict\"\ndegrade_after = \"5s\"", "\"5s\"", "always wait for a replica"),
    ("degrading late", "primary = \"db1\"", "primary = \"db1\"\ndegrade_after = \"2d\"", "\"2d\"", "longer than 1d"),
    ("lease too short", "primary = \"db1\"", "primary = \"db1\"\nlease_ms = 999", "999", "from 1000 to 60000"),
    ("witness at the metrics", "primary = \"db1\"", "primary = \"db1\"\nwitness_port = 9900", "9900\n\n[process", "is every agent's /metrics"),
    ("witness at a service", "primary = \"db1\"", "primary = \"db1\"\nwitness_port = 8080", "8080\n\n[process", "of service `plain`"),
    ("setting of ours", "primary = \"db1\"", "primary = \"db1\"\nsettings = { fsync = \"off\" }", "fsync", "follows from the rest"),
    ("setting with a bad name", "primary = \"db1\"", "primary = \"db1\"\nsettings = { \"a b\" = \"1\" }", "\"a b\"", "is no setting"),
    ("setting of two lines", "primary = \"db1\"", "primary = \"db1\"\nsettings = { work_mem = \"1\\n\" }", "\"1\\n\"", "is one line"),
    ("etcd by a word", "primary = \"db1\"", "primary = \"db1\"\netcd = \"10.0.1.51\"", "\"10.0.1.51\"", "must be a table such as"),
    ("etcd without members", "primary = \"db1\"", "primary = \"db1\"\netcd = { ca = \"e.pem\" }", "{ ca", "lacks `endpoints`"),
    ("etcd of nobody", "primary = \"db1\"", "primary = \"db1\"\netcd = { endpoints = [] }", "[] }", "name 1 to 9 members"),
    ("etcd misspelt", "primary = \"db1\"", "primary = \"db1\"\netcd = { endpoints = [\"https://10.0.1.51:2379\"], cert = \"e.pem\" }", "cert =", "unknown key `cert`"),
    ("etcd without scheme", "primary = \"db1\"", "primary = \"db1\"\netcd = { endpoints = [\"10.0.1.51:2379\"] }", "\"10.0.1.51:2379\"", "write `https://"),
    ("etcd by another scheme", "primary = \"db1\"", "primary = \"db1\"\netcd = { endpoints = [\"etcd://10.0.1.51:2379\"] }", "\"etcd://", "write `https://"),
    ("etcd without port", "primary = \"db1\"", "primary = \"db1\"\netcd = { endpoints = [\"https://10.0.1.51\"] }", "\"https://10.0.1.51\"", "write `https://"),
    ("etcd at port 0", "primary = \"db1\"", "primary = \"db1\"\netcd = { endpoints = [\"https://10.0.1.51:0\"] }", "\"https://10.0.1.51:0\"", "write `https://"),
    ("etcd with a path", "primary = \"db1\"", "primary = \"db1\"\netcd = { endpoints = [\"https://10.0.1.51:2379/v3\"] }", "\"https://10.0.1.51:2379/v3\"", "write `https://"),
    ("etcd at no address", "primary = \"db1\"", "primary = \"db1\"\netcd = { endpoints = [\"https://10.0.1.256:2379\"] }", "\"https://10.0.1.256:2379\"", "write `https://"),
    ("etcd at IPv6 without brackets", "primary = \"db1\"", "primary = \"db1\"\netcd = { endpoints = [\"https://fd00:1::51:2379\"] }", "\"https://fd00", "write `https://"),
    ("etcd at the unspecified address", "primary = \"db1\"", "primary = \"db1\"\netcd = { endpoints = [\"https://0.0.0.0:2379\"] }", "\"https://0", "the address of nobody"),
    ("etcd twice", "primary = \"db1\"", "primary = \"db1\"\netcd = { endpoints = [\"https://10.0.1.51:2379\", \"https://10.0.1.51:2379\"] }", "2:\"https://10.0.1.51:2379\"", "is named twice"),
    ("etcd half by TLS", "primary = \"db1\"", "primary = \"db1\"\netcd = { endpoints = [\"https://10.0.1.51:2379\", \"http://10.0.1.52:2379\"] }", "\"http://10.0.1.52:2379\"", "some do not"),
    ("etcd by http with a CA", "primary = \"db1\"", "primary = \"db1\"\netcd = { endpoints = [\"http://10.0.1.51:2379\"], ca = \"e.pem\" }", "\"e.pem\"", "`http` looks at no certificate"),
    ("etcd by http with a certificate", "primary = \"db1\"", "primary = \"db1\"\netcd = { endpoints = [\"http://10.0.1.51:2379\"], certificate = \"e.pem\", key = \"e.key\" }", "\"e.pem\"", "`http` looks at no certificate"),
    ("etcd's certificate alone", "primary = \"db1\"", "primary = \"db1\"\netcd = { endpoints = [\"https://10.0.1.51:2379\"], certificate = \"e.pem\" }", "\"e.pem\"", "without its `key`"),
    ("etcd's key alone", "primary = \"db1\"", "primary = \"db1\"\netcd = { endpoints = [\"https://10.0.1.51:2379\"], key = \"e.key\" }", "\"e.key\"", "without its `certificate`"),
    ("etcd beside a witness", "primary = \"db1\"", "primary = \"db1\"\nwitness_port = 9901\netcd = { endpoints = [\"https://10.0.1.51:2379\"] }", "9901", "there is no witness"),
    ("password file missing", "password_file = \"secrets/guestbook.password\"\n", "", "[database]", "lacks `password_file`"),
    ("one password file", "secrets/replication.password", "secrets/guestbook.password", "2:\"secrets/guestbook", "share one password file"),
    ("owner is PostgreSQL's", "user = \"guestbook\"", "user = \"postgres\"", "\"postgres\"", "PostgreSQL's own"),
    // [process.x]
    ("process named as the agent's own", "[process.guestbook]", "[process.edge]", "edge]", "the agent's own name"),
    ("kind unknown", "kind = \"nginx\"", "kind = \"ngnix\"", "\"ngnix\"", "did you mean `nginx`?"),
    ("foreign key", "kind = \"postgres\"", "kind = \"postgres\"\nroot = \"www\"", "2:\"www\"", "is for `kind = \"nginx\"`"),
    ("root missing", "root = \"www\"\n", "", "nginx]", "lacks `root`"),
    ("dynamic relative", "\"/guestbook\"", "\"guestbook\"", "\"guestbook\"]", "write `/guestbook`"),
    ("dynamic ends nginx's word", "\"/guestbook\"", "\"/x; deny all\"", "\"/x; deny all\"", "encode them"),
    ("dynamic without upstream", "upstream = \"app\"\n", "", "[\"/guestbook\"]", "needs `upstream`"),
    ("upstream unknown", "upstream = \"app\"", "upstream = \"apq\"", "\"apq\"", "did you mean `app`?"),
    ("upstream of the balancer", "upstream = \"app\"", "upstream = \"plain\"", "\"plain\"", "served by the balancer"),
    ("upstream not admitted", "from = [\"web\"]", "from = [\"web1\"]", "\"app\"\n\n", "does not admit server `web2`"),
    ("nginx off its role", "on = [\"web\"]", "on = [\"app\"]", "\"app\"]\nkind", "firewall would not let"),
    ("command missing", "command = [\"/opt/guestbook\", \"--listen\", \"{address}:8000\"]\n", "", "guestbook]", "lacks `command`"),
    ("command empty", "[\"/opt/guestbook\", \"--listen\", \"{address}:8000\"]", "[]", "[]", "names no program"),
    ("placeholder unknown", "{address}:8000", "{adress}:8000", "\"{adress}:8000\"", "unknown placeholder `{adress}`"),
    ("placeholder unknown in environment", "{server}", "{name}", "\"{name}\"", "unknown placeholder `{name}`"),
    ("environment wrong type", "SERVER = \"{server}\"", "SERVER = 7", "7 }", "must be a string"),
    ("on unknown", "on = [\"app\"]", "on = [\"app3\"]", "\"app3\"", "no server or role is called `app3`"),
    ("user bad", "user = \"nobody\"", "user = \"No body\"", "\"No body\"", "no account name"),
    ("stop signal with SIG", "stop_signal = \"TERM\"", "stop_signal = \"SIGTERM\"", "\"SIGTERM\"", "write `TERM`"),
    ("stop signal unknown", "stop_signal = \"TERM\"", "stop_signal = \"STOP\"", "\"STOP\"", "use one of"),
    ("stop timeout negative", "stop_timeout_ms = 5000", "stop_timeout_ms = -1", "-1", "from 100 to 600000"),
    ("prometheus on metrics port", "port = 9090", "port = 9900", "2:9900", "agent's own /metrics"),
    ("two of a kind", "[process.postgres]", "[process.pg]\non = [\"db2\"]\nkind = \"postgres\"\n[process.postgres]", "postgres]\non", "would run postgres twice"),
    // [[rule]]
    ("rule name reserved", "\"office-only\"", "\"metrics\"", "\"metrics\"", "name of a derived rule"),
    ("rule name of a service", "\"office-only\"", "\"service-www\"", "\"service-www\"", "name of a derived rule"),
    ("rule name twice", "[[rule]]", "[[rule]]\nname = \"office-only\"\non = [\"lb1\"]\naction = \"deny\"\n[[rule]]", "2:\"office-only\"", "given twice"),
    ("action unknown", "action = \"allow\"", "action = \"reject\"", "\"reject\"", "write `allow`, `deny`, `limit` or `shadow`"),
    ("action missing", "action = \"allow\"", "", "[[rule]]", "lacks `action`"),
    ("rule protocol unknown", "protocol = \"tcp\"\nports", "protocol = \"tpc\"\nports", "\"tpc\"", "did you mean `tcp`?"),
    ("ports reversed", "8000-8010", "8010-8000", "\"8010-8000\"", "write `8000-8010`"),
    ("port zero in rule", "\"9900\", ", "\"0\", ", "\"0\"", "is no port"),
    ("ports empty", "[\"9900\", \"8000-8010\"]", "[]", "[]", "matches nothing"),
    ("ports with icmp", "protocol = \"tcp\"\nports", "protocol = \"icmp\"\nports", "[\"9900\"", "ICMP has no ports"),
    ("types with tcp", "ports = [\"9900\", \"8000-8010\"]", "icmp_types = [\"echo-request\"]", "[\"echo-request\"]", "have types"),
    ("type unknown", "protocol = \"tcp\"\nports = [\"9900\", \"8000-8010\"]", "protocol = \"icmp\"\nicmp_types = [\"echo-requst\"]", "\"echo-requst\"", "did you mean `echo-request`?"),
    ("ports without protocol", "protocol = \"tcp\"\nports", "ports", "[\"9900\"", "set `protocol = \"tcp\"`"),
    ("rule on nobody", "on = [\"lb1\"]", "on = [\"lb2\"]", "\"lb2\"", "did you mean `lb1`?"),
    ("rule from with host bits", "198.51.100.0/24", "198.51.100.7/24", "\"198.51.100.7/24\"", "write `198.51.100.0/24`"),
    ("rule from empty", "from = [\"198.51.100.0/24\"]", "from = []", "[]", "matches nobody"),
];

fn parse(text: &str) -> Result<Checked, Faults> {
    Checked::parse(Path::new("site.toml"), text)
}

/// The byte at which a fault is expected: the first (or with `2:` the second, with `3:` the third) occurrence.
fn expected_byte(text: &str, mark: &str) -> Option<usize> {
    match mark.split_at_checked(2) {
        Some(("2:", mark)) => text.match_indices(mark).nth(1).map(|(byte, _)| byte),
        Some(("3:", mark)) => text.match_indices(mark).nth(2).map(|(byte, _)| byte),
        _ => text.find(mark),
    }
}

fn line_and_column(text: &str, byte: usize) -> (usize, usize) {
    let before = &text[..byte];
    (before.matches('\n').count() + 1, before.chars().rev().take_while(|c| *c != '\n').count() + 1)
}

#[test]
fn the_good_file_is_taken_without_a_warning() {
    let checked = parse(GOOD).unwrap_or_else(|faults| panic!("{faults}"));
    assert!(checked.warnings.is_empty(), "{}", checked.warnings);
}

#[test]
fn every_bad_file_is_refused_at_its_place() {
    assert!(CASES.len() >= 100);
    let mut wrong = Vec::new();
    for (name, from, to, mark, message) in CASES {
        let text = edited(from, to);
        let Err(faults) = parse(&text) else {
            wrong.push(format!("{name}: was taken"));
            continue;
        };
        let Some(byte) = expected_byte(&text, mark) else {
            wrong.push(format!("{name}: the edited file holds no `{mark}`"));
            continue;
        };
        let place = line_and_column(&text, byte);
        let found = faults.positions().any(|(line, column, fault)| {
            (line, column) == place && fault.message.contains(message) && fault.severity == Severity::Error
        });
        if !found {
            wrong.push(format!("{name}: expected {place:?} `{message}`, found\n{faults}"));
        }
    }
    assert!(wrong.is_empty(), "{} of {} cases:\n\n{}", wrong.len(), CASES.len(), wrong.join("\n\n"));
}

#[test]
fn all_faults_are_told_in_the_order_of_the_file() {
    let text = GOOD
        .replacen("address = \"10.0.1.1\"", "adress = \"10.0.1.1\"", 1)
        .replacen("round-robin", "random", 1)
        .replacen("action = \"allow\"", "action = \"drop\"", 1);
    let faults = parse(&text).expect_err("three faults");
    let lines: Vec<usize> = faults.positions().map(|(line, ..)| line).collect();
    assert_eq!(faults.errors(), 3, "{faults}");
    assert!(lines.is_sorted());
}

#[test]
fn a_fault_is_printed_with_its_line_and_a_caret() {
    let faults = parse(&edited("address = \"10.0.1.1\"", "adress = \"10.0.1.1\"")).expect_err("a fault");
    let expected = "site.toml:10:1: unknown key `adress` in [[server]] lb1; did you mean `address`?\n   \
                    10 | adress = \"10.0.1.1\"\n      | ^^^^^^";
    assert_eq!(faults.to_string(), expected);
}

#[test]
fn an_empty_admin_is_taken_with_a_warning() {
    let checked = parse(&edited("[\"10.0.1.41/32\"]", "[]")).unwrap_or_else(|faults| panic!("{faults}"));
    assert!(checked.warnings.to_string().contains("warning: `admin` is empty"), "{}", checked.warnings);
}

#[test]
fn more_rules_than_the_packet_path_takes_are_refused() {
    let mut text = GOOD.to_owned();
    for number in 0..1024 {
        text.push_str(&format!("\n[[rule]]\nname = \"r{number}\"\non = [\"web1\"]\naction = \"deny\"\n"));
    }
    let faults = parse(&text).expect_err("too many rules");
    assert!(faults.to_string().contains("site.toml:15:8: server `web1` would have"), "{faults}");
}

#[test]
fn a_database_server_needs_a_database() {
    let start = GOOD.find("[database]").expect("a section");
    let end = GOOD.find("[process.nginx]").expect("a section");
    let faults = parse(&format!("{}{}", &GOOD[..start], &GOOD[end..])).expect_err("no database");
    for what in ["server `db1` is a database", "process `postgres` is PostgreSQL", "service `db-read` is checked"] {
        assert!(faults.to_string().contains(what), "{what}: {faults}");
    }
}

#[test]
fn somebody_must_be_left_to_take_over() {
    let alone = edited("address = \"10.0.1.32\"", "address = \"10.0.1.32\"\nfollows = \"db1\"");
    let checked = parse(&alone).unwrap_or_else(|faults| panic!("{faults}"));
    assert!(checked.warnings.to_string().contains("nobody takes over from `db1`"), "{}", checked.warnings);
    let strict = parse(&alone.replacen("primary = \"db1\"", "primary = \"db1\"\nmode = \"strict\"", 1));
    let faults = strict.expect_err("nobody to wait for").to_string();
    assert!(faults.contains("site.toml:50:11") && faults.contains("every write would wait for ever"), "{faults}");
    // With a third server that follows the leader there is somebody.
    let third = "[[server]]\nname = \"db3\"\nrole = \"database\"\naddress = \"10.0.1.33\"\ninterfaces = [\"eth0\"]\n\n";
    let two = alone.replacen(DB2, &format!("{third}{DB2}"), 1);
    assert_eq!(parse(&two).unwrap_or_else(|faults| panic!("{faults}")).warnings.to_string(), "");
}

#[test]
fn who_follows_another_one_needs_a_lease() {
    let follows = edited("address = \"10.0.1.32\"", "address = \"10.0.1.32\"\nfollows = \"db1\"");
    let text = follows.replacen("role = \"balancer\"", "role = \"monitor\"", 1);
    let faults = parse(&text).expect_err("no balancer").to_string();
    assert!(faults.contains("this needs a lease"), "{faults}");
}

#[test]
fn the_only_monitor_may_be_called_monitor() {
    let checked = parse(&edited("\"monitor1\"", "\"monitor\""));
    assert!(checked.is_ok(), "{checked:?}");
}

#[test]
fn a_file_that_is_not_there_says_so() {
    let faults = Checked::read(Path::new("/nonexistent/site.toml")).expect_err("no file");
    assert!(faults.to_string().starts_with("/nonexistent/site.toml: cannot open the site file"), "{faults}");
}

#[test]
fn what_stands_beside_the_faults_of_a_database_is_taken() {
    for further in [
        "mode = \"strict\"",
        "mode = \"available\"\ndegrade_after = \"1d\"",
        "lease_ms = 1000",
        "witness_port = 9901",
        "etcd = { endpoints = [\"https://10.0.1.51:2379\"] }",
        "etcd = { endpoints = [\"https://10.0.1.51:2379\", \"https://10.0.1.52:2379\", \"https://etcd3.foobar.com:2379\"], ca = \"e.pem\" }",
        "etcd = { endpoints = [\"https://[fd00:1::51]:2379\"], certificate = \"e.pem\", key = \"e.key\" }",
        "etcd = { endpoints = \"http://10.0.1.51:2379\" }",
        "settings = { work_mem = \"64MB\", \"pg_stat_statements.max\" = \"100\" }",
    ] {
        let checked = parse(&edited("primary = \"db1\"", &format!("primary = \"db1\"\n{further}")));
        assert!(checked.is_ok(), "{further}: {checked:?}");
    }
}

#[test]
fn etcd_by_http_is_warned_about() {
    let etcd = |scheme: &str| {
        let text = format!("primary = \"db1\"\netcd = {{ endpoints = [\"{scheme}://10.0.1.51:2379\"] }}");
        parse(&edited("primary = \"db1\"", &text)).unwrap_or_else(|faults| panic!("{faults}")).warnings.to_string()
    };
    assert!(etcd("http").contains("whoever reaches etcd"), "{}", etcd("http"));
    assert_eq!(etcd("https"), "");
}
